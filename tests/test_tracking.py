"""Numbers that objects keep: by hand, against brute force, and on generated clips whose truth is known."""

from itertools import permutations

import numpy as np
import pytest

from yolov3_trt import Detections, SettingError, Tracker
from yolov3_trt.tracking import assign

NAMES = ("person", "dog")


def found(*rows: tuple[float, float, float], class_ids: tuple[int, ...] = ()) -> Detections:
    """Boxes of 20x40 px by (left, top, score), best first."""
    at = np.array(rows, np.float32).reshape(-1, 3)
    xyxy = np.concatenate([at[:, :2], at[:, :2] + (20, 40)], axis=1)
    return Detections(xyxy, at[:, 2], np.array(class_ids or [0] * len(at), np.int32), NAMES)


def ids(tracker: Tracker, detections: Detections, at_s: float | None = None) -> list[int | None]:
    return [row.track_id for row in tracker.update(detections, at_s)]


def test_two_that_pass_each_other_keep_their_numbers():
    tracker = Tracker()
    for step in range(40):
        left, right = (10 + 4 * step, 50, 0.9), (170 - 4 * step, 55, 0.8)
        assert ids(tracker, found(left, right)) == [1, 2]


def test_weak_ones_go_on_and_begin_nothing_and_an_instant_is_no_object():
    tracker = Tracker(begin=0.5)
    assert ids(tracker, found((10, 10, 0.9))) == [1]  # in the first picture at once
    assert ids(tracker, found((12, 10, 0.3), (200, 10, 0.3))) == [1, None]
    assert ids(tracker, found((14, 10, 0.9), (200, 10, 0.8))) == [1, None]  # seen once
    assert ids(tracker, found((16, 10, 0.9))) == [1]
    assert ids(tracker, found((18, 10, 0.9), (200, 10, 0.8))) == [1, None]  # not seen twice in a row
    assert ids(tracker, found((20, 10, 0.9), (200, 10, 0.8))) == [1, 2]
    assert ids(tracker, Detections.none(NAMES)) == []


def test_who_is_hidden_comes_back_with_the_number_within_the_memory():
    for gap_s, expected in ((0.5, 1), (1.9, 1), (2.2, None)):
        tracker = Tracker(memory=2)
        for step in range(10):
            assert ids(tracker, found((10 + 3 * step, 50, 0.9)), step / 10) == [1]
        later = found((10 + 3 * 9 + 30 * gap_s, 50, 0.9))  # it has gone on at its 30 px/s
        assert ids(tracker, later, 0.9 + gap_s) == [expected]
    assert ids(tracker, later, 3.2) == [2]


def test_class_and_place_count_both():
    """Of two at one place each goes to its own class; one that is alone may change its class."""
    tracker = Tracker()
    for _ in range(3):
        assert ids(tracker, found((10, 10, 0.9), (14, 10, 0.8), class_ids=(0, 1))) == [1, 2]
    assert ids(tracker, found((14, 10, 0.9), (10, 10, 0.8), class_ids=(1, 0))) == [2, 1]
    assert ids(tracker, found((10, 10, 0.9), class_ids=(1,))) in ([1], [2])


def test_detections_carry_numbers_through_selections_and_json():
    tracked = Tracker().update(found((10, 10, 0.9), (100, 10, 0.8)))
    assert tracked.track_ids.tolist() == [1, 2] and tracked[tracked.scores < 0.85].track_ids.tolist() == [2]
    assert [row["track_id"] for row in tracked.to_json()] == [1, 2] and tracked[1].track_id == 2
    assert "track_id" not in found((10, 10, 0.9)).to_json()[0] and found((1, 1, 0.9))[0].track_id is None
    with pytest.raises(ValueError, match=r"track_ids have shape \(1,\); expected \(2,\)"):
        Detections(tracked.xyxy, tracked.scores, tracked.class_ids, NAMES, np.ones(1, np.int32))
    with pytest.raises(SettingError, match=r"^begin: got 2; expected 0 to 1$"):
        Tracker(begin=2)


def test_assignment_is_the_best_there_is():
    rng = np.random.default_rng(1)
    for rows, columns in ((3, 3), (4, 2), (2, 5), (5, 5)):
        for _ in range(20):
            costs = np.where(rng.random((rows, columns)) < 0.4, 1e3, rng.random((rows, columns)))
            wide = costs if rows <= columns else costs.T
            least = min(
                sum(wide[row, column] for row, column in enumerate(chosen))
                for chosen in permutations(range(wide.shape[1]), wide.shape[0])
            )
            pairs = assign(costs)
            assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
            left_out = min(rows, columns) - len(pairs)
            assert sum(costs[pair] for pair in pairs) + 1e3 * left_out == pytest.approx(least)
