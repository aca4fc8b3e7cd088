"""Target assignment by hand: which prior, which cell, and what happens when two objects want the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov3_trt.spec import Head
from yolov3_trt.training.assign import Assignment, Objects, assign, shape_iou

INPUT_HW = (64, 96)
COARSE = Head("head0", 0, ((10.0, 10.0), (40.0, 20.0)), 2, (4, 6))  # cells of 16 px
FINE = Head("head1", 1, ((4.0, 4.0),), 2, (8, 12))  # cells of 8 px


def objects(*cxcywh: tuple[float, float, float, float], images: tuple[int, ...] | None = None) -> Objects:
    boxes = np.array(cxcywh, np.float32).reshape(-1, 4)
    image_ids = np.zeros(len(boxes), np.int64) if images is None else np.array(images, np.int64)
    return Objects(boxes, np.zeros(len(boxes), np.int64), image_ids)


def rows(assignment: Assignment) -> list[tuple[int, int, int, int]]:
    """(object, anchor, row, column) of each."""
    columns = (assignment.objects, assignment.anchors, assignment.rows, assignment.columns)
    return [tuple(row) for row in np.stack(columns, axis=1).tolist()]


def assigned(*args: object, **kwargs: float) -> list[list[tuple[int, int, int, int]]]:
    return [rows(assignment) for assignment in assign(objects(*args), [COARSE, FINE], INPUT_HW, **kwargs)]  # type: ignore[arg-type]


def test_shape_iou_puts_centres_together():
    got = shape_iou(np.array([[10, 20], [4, 4]], np.float32), np.array([[20, 10], [10, 20]], np.float32))
    np.testing.assert_allclose(got, [[100 / 300, 1], [16 / 200, 16 / 200]])


def test_an_object_takes_the_prior_of_its_shape_in_the_cell_of_its_centre():
    assert assigned((33, 20, 11, 9)) == [[(0, 0, 1, 2)], []]
    assert assigned((33, 20, 30, 20)) == [[(0, 1, 1, 2)], []]
    assert assigned((33, 20, 5, 5)) == [[], [(0, 0, 2, 4)]]  # IoU 16/25 with the fine head's prior, 25/100 with 10 x 10


def test_an_object_on_the_lower_right_border_belongs_to_the_last_cell():
    assert assigned((96, 64, 10, 10)) == [[(0, 0, 3, 5)], []]
    assert assigned((0, 0, 4, 4)) == [[], [(0, 0, 0, 0)]]


def test_a_centre_on_the_edge_of_two_cells_belongs_to_the_second():
    assert assigned((16, 15.99, 10, 10)) == [[(0, 0, 0, 1)], []]


def test_of_two_objects_in_one_cell_the_second_takes_its_next_best_prior():
    # 10 x 10: IoU 1 with the first prior, 100/800 with the second, 16/100 with the fine one.
    assert assigned((33, 20, 10, 10), (34, 21, 10, 10)) == [[(0, 0, 1, 2)], [(1, 0, 2, 4)]]


def test_two_objects_of_different_shape_in_one_cell_do_not_disturb_each_other():
    assert assigned((33, 20, 10, 10), (34, 21, 40, 20)) == [[(0, 0, 1, 2), (1, 1, 1, 2)], []]


def test_an_object_that_finds_all_priors_taken_goes_without():
    same = [(33.0, 20.0, 10.0, 10.0)] * 4
    coarse, fine = assigned(*same)
    assert sorted(row[0] for row in coarse + fine) == [0, 1, 2]


def test_the_same_place_in_two_pictures_is_two_places():
    both = objects((33, 20, 10, 10), (33, 20, 10, 10), images=(0, 1))
    coarse, fine = assign(both, [COARSE, FINE], INPUT_HW)
    assert rows(coarse) == [(0, 0, 1, 2), (1, 0, 1, 2)] and rows(fine) == []


def test_no_objects_no_assignments():
    for assignment in assign(objects(), [COARSE, FINE], INPUT_HW):
        assert assignment.objects.shape == assignment.anchors.shape == (0,)
        assert assignment.rows.dtype == np.int64


def test_more_priors_learn_from_an_object_when_asked_to_but_none_twice():
    # 12 x 12: IoU 100/144 with 10 x 10, 144/800 with 40 x 20, 16/144 with 4 x 4.
    assert assigned((33, 20, 12, 12), prior_iou=0.15) == [[(0, 0, 1, 2), (0, 1, 1, 2)], []]
    assert assigned((33, 20, 12, 12), prior_iou=0.2) == [[(0, 0, 1, 2)], []]
    # A predictor that is another object's best is not taken from it.
    coarse, _ = assigned((33, 20, 12, 12), (34, 20, 40, 20), prior_iou=0.15)
    assert coarse == [(0, 0, 1, 2), (1, 1, 1, 2)]


@pytest.mark.parametrize("prior_iou", [1.0, 0.3])
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_every_object_gets_a_predictor_that_no_other_has(prior_iou: float, data: st.DataObject):
    # Objects are held as float32: a centre that rounds onto the next cell's edge belongs to that cell.
    box = st.tuples(*(st.floats(low, high, width=32) for low, high in ((0, 96), (0, 64), (1, 96), (1, 64))))
    boxes = data.draw(st.lists(box, max_size=3))  # at most as many as there are priors in a cell
    found = assign(objects(*boxes), [COARSE, FINE], INPUT_HW, prior_iou)
    assert {index for assignment in found for index in assignment.objects.tolist()} == set(range(len(boxes)))
    for assignment, head in zip(found, [COARSE, FINE], strict=True):
        places = [row[1:] for row in rows(assignment)]
        assert len(set(places)) == len(places)
        for index, anchor, row, column in rows(assignment):
            cx, cy = boxes[index][:2]
            cell_w, cell_h = INPUT_HW[1] / head.grid_hw[1], INPUT_HW[0] / head.grid_hw[0]
            assert column * cell_w <= cx <= (column + 1) * cell_w and row * cell_h <= cy <= (row + 1) * cell_h
            assert anchor < len(head.anchors_wh)
