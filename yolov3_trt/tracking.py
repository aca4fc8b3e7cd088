"""Objects followed from picture to picture: ByteTrack with all tracks of a picture in one array.

Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", arXiv 2110.06864: sure detections go to the
tracks first, weak ones to those that are left, and begin none. Where a track goes on is told by a Kalman filter of constant
velocity, here by time rather than by frame, since cameras drop frames.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.arguments import number
from yolov3_trt.detections import Detections
from yolov3_trt.geometry import FloatArray, iou_matrix

# Noise by size of the box and frame of 1/30 s, as in the authors' code.
_FRAME_S, _POSITION, _VELOCITY = 1 / 30, 1 / 20, 1 / 160
_LONGEST_STEP = 60.0  # frames that the filter goes on at once
_LEAST_IOU_SURE, _LEAST_IOU_WEAK, _LEAST_IOU_NEW = 0.2, 0.5, 0.3
_OTHER_CLASS = 0.5  # what is left of the IoU with a detection of another class
_WIDER = 1.0  # of the sides, on each side: who is found again beside where it was expected
_SAME_OBJECT = 0.7  # IoU with a detection of another class, which suppression leaves
_NEVER = 1e3  # cost of what does not go together

Ints = NDArray[np.int64]


@dataclass
class _Tracks:
    """Columns, a row for each track; the filter's four coordinates (centre, size) do not depend on each other."""

    at: FloatArray  # (T, 4) cx, cy, w, h in image px
    velocity: FloatArray  # (T, 4) px by frame
    var_at: FloatArray  # (T, 4)
    var_both: FloatArray  # (T, 4) covariance of place and velocity
    var_velocity: FloatArray  # (T, 4)
    class_ids: Ints  # (T,) of the last detection
    ids: Ints  # (T,) 0: not sure yet that there is something
    seen_s: NDArray[np.float64]  # (T,) when it was last found

    def __getitem__(self, rows: Any) -> "_Tracks":
        return _Tracks(*(getattr(self, item.name)[rows] for item in fields(self)))

    def __add__(self, more: "_Tracks") -> "_Tracks":
        return _Tracks(*(np.concatenate([getattr(self, item.name), getattr(more, item.name)]) for item in fields(self)))

    @classmethod
    def of(cls, detections: Detections, ids: Ints, at_s: float) -> "_Tracks":
        at = _centre_and_size(detections.xyxy)
        size = at[:, [2, 3, 2, 3]]
        zeros = np.zeros_like(at)
        class_ids = detections.class_ids.astype(np.int64)
        return cls(
            at,
            zeros,
            (2 * _POSITION * size) ** 2,
            zeros.copy(),
            (10 * _VELOCITY * size) ** 2,
            class_ids,
            ids,
            np.full(len(ids), at_s),
        )

    @property
    def xyxy(self) -> FloatArray:
        half = self.at[:, 2:] / 2
        return np.concatenate([self.at[:, :2] - half, self.at[:, :2] + half], axis=1)

    def predict(self, frames: float) -> None:
        """Go on by so many frames."""
        noise = frames * self.at[:, [2, 3, 2, 3]] ** 2
        self.at += frames * self.velocity
        np.maximum(self.at[:, 2:], 1, out=self.at[:, 2:])
        self.var_at += frames * (2 * self.var_both + frames * self.var_velocity) + _POSITION**2 * noise
        self.var_both += frames * self.var_velocity
        self.var_velocity += _VELOCITY**2 * noise

    def correct(self, rows: Ints, detections: Detections, found: Ints, at_s: float) -> None:
        """Take in where some were found."""
        prior, both, before = self.var_at[rows], self.var_both[rows], self.at[rows]
        total = prior + (_POSITION * before[:, [2, 3, 2, 3]]) ** 2
        gain, error = prior / total, _centre_and_size(detections.xyxy[found]) - before
        gain_of_velocity = both / total
        self.at[rows] = before + gain * error
        self.velocity[rows] += gain_of_velocity * error
        self.var_at[rows] = prior - gain * prior
        self.var_both[rows] = both - gain * both
        self.var_velocity[rows] -= gain_of_velocity * both
        self.class_ids[rows] = detections.class_ids[found]
        self.seen_s[rows] = at_s


class Tracker:
    """Gives the objects of a camera numbers that they keep from picture to picture.

    Of one camera, picture after picture, in one thread. An object has its number from the second picture on that it is found
    in; the first picture's have theirs at once. Nothing but NumPy is needed.

    >>> tracker = yolov3_trt.Tracker()
    >>> for picture in pictures:  # doctest: +SKIP
    ...     print([(found.track_id, found.class_name) for found in tracker.update(detect(picture))])
    """

    def __init__(self, *, begin: float = 0.35, memory: float = 2.0) -> None:
        """Begin without a track.

        Args:
            begin: confidence that begins a track, 0..1; weaker detections continue one.
            memory: seconds after which what is not found any more is forgotten; what comes later has a new number.

        Raises:
            SettingError: a value is out of its range.
        """
        self._begin, self._memory_s = number("begin", begin, 0, 1), number("memory", memory, 0, 3600)
        self._tracks = _Tracks.of(Detections.none(), np.zeros(0, np.int64), 0.0)
        self._next_id = 1
        self._last_s: float | None = None

    def update(self, detections: Detections, at_s: float | None = None) -> Detections:
        """The detections of the next picture, with `track_ids`; 0 where there is none (yet).

        Args:
            detections: image px.
            at_s: time of the picture in seconds, of any clock; None: 1/30 after the one before.
        """
        is_first = self._last_s is None
        before_s = at_s if self._last_s is None else self._last_s
        now_s = (before_s or 0.0) + _FRAME_S if at_s is None else at_s
        frames = 1.0 if before_s is None else (now_s - before_s) / _FRAME_S
        remembered = now_s - self._tracks.seen_s <= self._memory_s
        tracks = self._tracks = self._tracks if remembered.all() else self._tracks[remembered]
        tracks.predict(min(frames, _LONGEST_STEP) if frames >= 0 else 1.0)
        track_of = np.full(len(detections), -1, np.int64)
        known, was_seen = tracks.ids > 0, tracks.seen_s == self._last_s
        tracks.velocity[known & ~was_seen, 2:] = 0  # the size of what is hidden would run away
        sure = detections.scores >= self._begin
        free = np.ones(len(known), bool)
        for rows, candidates, least, wider in (
            (known, sure, _LEAST_IOU_SURE, 0.0),
            (known & was_seen, ~sure, _LEAST_IOU_WEAK, 0.0),
            (~known, sure, _LEAST_IOU_NEW, 0.0),
            (known, sure, _LEAST_IOU_SURE, _WIDER),
        ):
            if (rows := rows & free).any() and (candidates := candidates & (track_of < 0)).any():
                self._associate(np.flatnonzero(rows), np.flatnonzero(candidates), detections, (least, wider), track_of)
                free[track_of[track_of >= 0]] = False
        found = np.flatnonzero(track_of >= 0)
        tracks.correct(track_of[found], detections, found, now_s)
        twice = np.zeros(len(known), bool)
        twice[track_of[found]] = True
        self._give_ids(np.flatnonzero(twice & ~known))
        ids = np.zeros(len(detections), np.int32)
        ids[found] = tracks.ids[track_of[found]]
        kept = (tracks.ids > 0) | twice
        if not kept.all():
            self._tracks = tracks[kept]
        new = self._of_new_objects(detections, np.flatnonzero(sure & (track_of < 0)), found)
        if len(new):
            self._tracks += _Tracks.of(detections[new], np.zeros(len(new), np.int64), now_s)
        if is_first:
            self._give_ids(np.arange(len(new)))
            ids[new] = self._tracks.ids
        self._last_s = now_s
        return replace(detections, track_ids=ids)

    def _associate(
        self, rows: Ints, found: Ints, detections: Detections, least_and_wider: tuple[float, float], track_of: Ints
    ) -> None:
        """Note in `track_of` which of these tracks goes on with which of these detections."""
        tracks, (least, wider) = self._tracks, least_and_wider
        iou = iou_matrix(_widened(tracks.xyxy[rows], wider), _widened(detections.xyxy[found], wider))
        iou[tracks.class_ids[rows][:, None] != detections.class_ids[found]] *= _OTHER_CLASS
        for row, column in assign(np.where(iou >= least, 1 - iou, _NEVER)):
            track_of[found[column]] = rows[row]

    def _of_new_objects(self, detections: Detections, new: Ints, found: Ints) -> Ints:
        """Without those that lie on a better one, taken for another class."""
        if not len(new):
            return new
        others = np.concatenate([found, new])
        on_others = iou_matrix(detections.xyxy[new], detections.xyxy[others]) > _SAME_OBJECT
        is_worse = np.concatenate(  # a new one than all that are known, and than the new ones before it
            [np.ones((len(new), len(found)), bool), new[:, None] > new[None]], axis=1
        )
        return np.asarray(new[~(on_others & is_worse).any(axis=1)])

    def _give_ids(self, rows: Ints) -> None:
        self._tracks.ids[rows] = np.arange(self._next_id, self._next_id + len(rows))
        self._next_id += len(rows)


def assign(costs: NDArray[Any]) -> list[tuple[int, int]]:
    """Rows to columns of a matrix (R, C) so that as many as can go together, at the least total cost; `_NEVER`: cannot."""
    possible = costs < _NEVER
    alone = possible & (possible.sum(axis=1, keepdims=True) == 1) & (possible.sum(axis=0, keepdims=True) == 1)
    pairs = [(int(row), int(column)) for row, column in zip(*np.nonzero(alone), strict=True)]
    contested = possible & ~alone
    rows, columns = np.flatnonzero(contested.any(axis=1)), np.flatnonzero(contested.any(axis=0))
    if len(rows):
        part = costs[np.ix_(rows, columns)]
        chosen = _least_cost(part) if len(rows) <= len(columns) else [(r, c) for c, r in _least_cost(part.T)]
        pairs += [(int(rows[row]), int(columns[column])) for row, column in chosen if part[row, column] < _NEVER]
    return pairs


def _least_cost(costs: NDArray[Any]) -> list[tuple[int, int]]:
    """The Hungarian method by shortest augmenting paths (Kuhn 1955, Munkres 1957); not more rows than columns."""
    num_rows, num_columns = costs.shape
    of_row, of_column = np.zeros(num_rows), np.zeros(num_columns + 1)  # the duals
    row_of = np.full(num_columns + 1, -1)  # the last column stands for the row that is being placed
    for row in range(num_rows):
        row_of[num_columns] = row
        column, least = num_columns, np.full(num_columns, np.inf)
        came_from, open_ones = np.full(num_columns, num_columns), np.ones(num_columns, bool)
        while row_of[column] >= 0:
            if column < num_columns:
                open_ones[column] = False
            current = row_of[column]
            reduced = costs[current] - of_row[current] - of_column[:num_columns]
            better = open_ones & (reduced < least)
            least[better], came_from[better] = reduced[better], column
            following = int(np.where(open_ones, least, np.inf).argmin())
            step = least[following]
            closed = np.append(~open_ones, True)
            of_row[row_of[closed]] += step
            of_column[closed] -= step
            least[open_ones] -= step
            column = following
        while column != num_columns:  # turn the path around
            row_of[column] = row_of[came_from[column]]
            column = int(came_from[column])
        row_of[num_columns] = -1
    return [(int(row), column) for column, row in enumerate(row_of[:num_columns]) if row >= 0]


def _centre_and_size(xyxy: FloatArray) -> FloatArray:
    low, high = xyxy[:, :2], xyxy[:, 2:]
    return np.concatenate([(low + high) / 2, (high - low).clip(1)], axis=1)


def _widened(xyxy: FloatArray, share: float) -> FloatArray:
    if not share:
        return xyxy
    margin = share * (xyxy[:, 2:] - xyxy[:, :2])
    return np.concatenate([xyxy[:, :2] - margin, xyxy[:, 2:] + margin], axis=1)
