"""What a detector found in one image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import require
from yolov3_trt.geometry import FloatArray

_SHOWN = 5  # rows in the text of `Detections`


class Detection(NamedTuple):
    """One object."""

    xyxy: tuple[float, float, float, float]  # image px
    score: float  # objectness x class probability, 0..1
    class_id: int
    class_name: str
    track_id: int | None = None  # its number from picture to picture, where it is tracked and has one


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of one image as columns, by descending score.

    Iterating gives `Detection` rows, and so does a number as index; a mask, slice or index array gives `Detections`.
    """

    xyxy: FloatArray  # (N, 4) corners, image px
    scores: FloatArray  # (N,) 0..1
    class_ids: NDArray[np.int32]  # (N,)
    class_names: tuple[str, ...] = ()  # of all the model's classes
    track_ids: NDArray[np.int32] | None = None  # (N,) of a `Tracker`, 0 for none; None: not tracked

    def __post_init__(self) -> None:
        count = len(self.scores)
        shapes = (self.xyxy.shape, self.scores.shape, self.class_ids.shape)
        expected = ((count, 4), (count,), (count,))
        if shapes != expected:
            raise ValueError(f"xyxy, scores and class_ids have shapes {shapes}; expected {expected}")
        if self.track_ids is not None and self.track_ids.shape != (count,):
            raise ValueError(f"track_ids have shape {self.track_ids.shape}; expected {(count,)}")
        if count and bool((np.diff(self.scores) > 0).any()):
            raise ValueError("scores are not in descending order")

    @classmethod
    def none(cls, class_names: tuple[str, ...] = ()) -> "Detections":
        """No objects."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32), class_names)

    @property
    def shown(self) -> "Detections":
        """Those whose class is to be seen: Darknet neither prints nor draws one whose name starts with `dont_show`."""
        hidden = [i for i, name in enumerate(self.class_names) if name.startswith("dont_show")]
        return self[~np.isin(self.class_ids, hidden)] if hidden else self

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        tracks = (
            [None] * len(self) if self.track_ids is None else [number or None for number in self.track_ids.tolist()]
        )
        rows = zip(self.xyxy.tolist(), self.scores.tolist(), self.class_ids.tolist(), tracks, strict=True)
        for xyxy, score, class_id, track_id in rows:
            yield Detection(tuple(xyxy), score, class_id, self.class_name(class_id), track_id)

    @overload
    def __getitem__(self, selection: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, selection: slice | NDArray[Any]) -> "Detections": ...
    def __getitem__(self, selection: int | np.integer[Any] | slice | NDArray[Any]) -> "Detection | Detections":
        """One row by its number, the best is 0; or the selected rows, which must still descend in score.

        Raises:
            IndexError: there is no such row.
        """
        if not isinstance(selection, slice | np.ndarray):
            row = range(len(self))[selection]
            return next(iter(self[row : row + 1]))
        return Detections(
            self.xyxy[selection],
            self.scores[selection],
            self.class_ids[selection],
            self.class_names,
            None if self.track_ids is None else self.track_ids[selection],
        )

    def __repr__(self) -> str:
        """`<Detections: 2 objects: dog 0.97, car 0.61>`; of many the first ones."""
        rows = [f"{row.class_name} {row.score:.2f}" for row in self[:_SHOWN]]
        more = [f"{len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        objects = f"{len(self)} object{'' if len(self) == 1 else 's'}"
        return f"<Detections: {': '.join([objects, *([', '.join([*rows, *more])] if rows else [])])}>"

    def class_name(self, class_id: int) -> str:
        """Its name, or its number where the model has no names."""
        return self.class_names[class_id] if class_id < len(self.class_names) else str(class_id)

    def to_json(self) -> list[dict[str, Any]]:
        """Rows as `detect --json` writes them: scores to 6 places, coordinates to 3; `track_id` where it is tracked."""
        return [
            {
                "class_id": row.class_id,
                "class_name": row.class_name,
                "score": round(row.score, 6),
                "xyxy": [round(value, 3) for value in row.xyxy],
                **({} if self.track_ids is None else {"track_id": row.track_id}),
            }
            for row in self
        ]

    def to_supervision(self) -> Any:
        """The same as a `supervision.Detections` (an optional package)."""
        supervision = require("supervision", extra="supervision")
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.astype(int),
            data={"class_name": np.array([row.class_name for row in self])},
        )
