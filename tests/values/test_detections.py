"""Detections: what they accept, how they are selected and written."""

import json

import numpy as np
import pytest

from yolov3_trt.detections import Detection, Detections

NAMES = ("cat", "dog")


def three() -> Detections:
    xyxy = np.array([[1, 2, 3.25, 4], [0, 0, 10, 10], [5, 5, 6, 6.0004]], np.float32)
    scores = np.array([0.9, 0.5, 0.5], np.float32)
    return Detections(xyxy, scores, np.array([1, 0, 7], np.int32), NAMES)


def test_rows_are_plain_values_with_names():
    rows = list(three())
    assert rows[0] == Detection((1.0, 2.0, 3.25, 4.0), pytest.approx(0.9), 1, "dog")
    assert [row.class_name for row in rows] == ["dog", "cat", "7"]  # no name: the number
    assert {type(value) for row in rows for value in (*row.xyxy, row.score)} == {float}


@pytest.mark.parametrize(
    "selection, class_ids",
    [
        (slice(1, None), [0, 7]),
        (np.array([True, False, True]), [1, 7]),
        (np.array([0, 2]), [1, 7]),
        (np.array([], int), []),
    ],
    ids=["slice", "mask", "indices", "nothing"],
)
def test_selection_gives_the_same_columns_and_names(selection, class_ids):
    selected = three()[selection]
    assert selected.class_ids.tolist() == class_ids
    assert len(selected) == len(selected.xyxy) == len(selected.scores) == len(class_ids)
    assert selected.class_names == NAMES


@pytest.mark.parametrize("number", [1, -2, np.int64(1), np.array([0, 1])[1]])
def test_a_number_gives_one_row(number):
    row = three()[number]
    assert row == Detection((0.0, 0.0, 10.0, 10.0), 0.5, 0, "cat") and type(row.score) is float


@pytest.mark.parametrize("number", [3, -4])
def test_a_row_that_is_not_there_is_an_index_error(number: int):
    with pytest.raises(IndexError):
        three()[number]


def test_its_text_names_the_best_rows():
    assert repr(three()) == "<Detections: 3 objects: dog 0.90, cat 0.50, 7 0.50>"
    assert repr(Detections.none()) == "<Detections: 0 objects>"
    assert repr(three()[:1]) == "<Detections: 1 object: dog 0.90>"
    many = Detections(np.zeros((8, 4), np.float32), np.ones(8, np.float32), np.zeros(8, np.int32), NAMES)
    assert repr(many).endswith("cat 1.00, 3 more>")


def test_selection_that_does_not_descend_is_refused():
    with pytest.raises(ValueError, match=r"^scores are not in descending order$"):
        three()[::-1]


def test_none_is_empty_in_every_form():
    none = Detections.none(NAMES)
    assert (len(none), list(none), none.to_json(), none.class_names) == (0, [], [], NAMES)
    assert (none.xyxy.shape, none.xyxy.dtype, none.class_ids.dtype) == ((0, 4), np.float32, np.int32)


@pytest.mark.parametrize(
    "xyxy, scores, class_ids",
    [((2, 4), (3,), (3,)), ((3, 5), (3,), (3,)), ((3, 4), (3,), (2,)), ((12,), (3,), (3,)), ((3, 4), (3, 1), (3,))],
)
def test_columns_of_other_shapes_are_refused(xyxy, scores, class_ids):
    with pytest.raises(ValueError) as caught:
        Detections(np.zeros(xyxy, np.float32), np.zeros(scores, np.float32), np.zeros(class_ids, np.int32))
    assert str(caught.value) == (
        f"xyxy, scores and class_ids have shapes {(xyxy, scores, class_ids)}; expected ((3, 4), (3,), (3,))"
    )


def test_json_has_rounded_plain_values():
    assert json.loads(json.dumps(three()[2:].to_json())) == [
        {"class_id": 7, "class_name": "7", "score": 0.5, "xyxy": [5.0, 5.0, 6.0, 6.0]}
    ]
    third = Detections(np.array([[1 / 3] * 4], np.float32), np.array([1 / 3], np.float32), np.array([0], np.int32))
    assert third.to_json() == [{"class_id": 0, "class_name": "0", "score": 0.333333, "xyxy": [0.333] * 4}]


def test_supervision_gets_copies_of_its_own():
    pytest.importorskip("supervision", reason="supervision is not installed")
    detections = three()
    other = detections.to_supervision()
    other.xyxy[:] = 0
    assert detections.xyxy.max() == 10
    assert other.data["class_name"].tolist() == ["dog", "cat", "7"]
