"""Placements and boxes, by hand: all numbers follow from the sizes alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from yolov3_trt.geometry import (
    Placement,
    Resize,
    centre_distance,
    cxcywh_to_xyxy,
    iou_matrix,
    xyxy_to_xywh,
)


def boxes(*rows) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    "image_hw, input_hw, resized_hw, offset_hw",
    [
        ((720, 1280), (416, 416), (234, 416), (91, 0)),
        ((1280, 720), (416, 416), (416, 234), (0, 91)),
        ((416, 416), (416, 416), (416, 416), (0, 0)),
        ((208, 208), (416, 416), (416, 416), (0, 0)),
        ((333, 501), (416, 416), (276, 416), (70, 0)),  # 276.5 truncated
        ((425, 640), (416, 416), (276, 416), (70, 0)),  # 276.25 truncated
        ((427, 640), (416, 416), (277, 416), (69, 0)),  # (416 - 277) / 2 = 69.5 truncated
        ((1, 1), (416, 416), (416, 416), (0, 0)),
        ((1, 1000), (416, 416), (1, 416), (207, 0)),  # 0.416 px would be none
        ((1000, 1), (416, 416), (416, 1), (0, 207)),
        ((480, 640), (320, 608), (320, 426), (0, 91)),  # 426.7 truncated
        ((100, 200), (64, 32), (16, 32), (24, 0)),
    ],
)
def test_letterbox_truncates_size_and_offset_as_darknet_does(image_hw, input_hw, resized_hw, offset_hw):
    assert Placement.of(image_hw, input_hw, Resize.LETTERBOX) == Placement(image_hw, input_hw, resized_hw, offset_hw)


@pytest.mark.parametrize("image_hw", [(720, 1280), (1, 1), (333, 501)])
def test_stretch_fills_the_input(image_hw):
    assert Placement.of(image_hw, (416, 320), Resize.STRETCH) == Placement(image_hw, (416, 320), (416, 320), (0, 0))


def test_boxes_follow_the_picture_into_the_input_and_back():
    placement = Placement.of((720, 1280), (416, 416), Resize.LETTERBOX)  # scale 0.325, 91 px above
    image_xyxy = boxes([0, 0, 1280, 720], [100, 200, 300, 400])
    input_xyxy = boxes([0, 91, 416, 325], [32.5, 156, 97.5, 221])
    assert_allclose(placement.to_input(image_xyxy), input_xyxy, rtol=1e-6)
    assert_allclose(placement.to_image(input_xyxy), image_xyxy, rtol=1e-6)


def test_stretched_boxes_scale_by_different_factors():
    placement = Placement.of((100, 400), (200, 200), Resize.STRETCH)
    assert_allclose(placement.to_input(boxes([40, 10, 80, 50])), [[20, 20, 40, 100]])
    assert_allclose(placement.to_image(boxes([20, 20, 40, 100])), [[40, 10, 80, 50]])


def test_truncated_offset_is_undone_exactly():
    placement = Placement.of((427, 640), (416, 416), Resize.LETTERBOX)  # 277 rows at 69, not at 69.5
    assert_allclose(placement.to_image(boxes([0, 69, 416, 346])), [[0, 0, 640, 427]], atol=1e-4)


def test_boxes_beyond_the_image_are_clipped_to_it():
    placement = Placement.of((720, 1280), (416, 416), Resize.LETTERBOX)
    outside = boxes([-50, 0, 500, 416], [-np.inf, -np.inf, np.inf, np.inf], [10, 0, 20, 90])
    assert_allclose(
        placement.to_image(outside), [[0, 0, 1280, 720], [0, 0, 1280, 720], [10 / 0.325, 0, 20 / 0.325, 0]], rtol=1e-6
    )


def test_no_boxes_stay_no_boxes():
    placement = Placement.of((333, 501), (416, 416), Resize.LETTERBOX)
    for result in (
        placement.to_input(boxes()),
        placement.to_image(boxes()),
        cxcywh_to_xyxy(boxes()),
        xyxy_to_xywh(boxes()),
    ):
        assert result.shape == (0, 4) and result.dtype == np.float32
    assert iou_matrix(boxes(), boxes([0, 0, 1, 1])).shape == (0, 1)
    assert centre_distance(boxes([0, 0, 1, 1])[:, None], boxes()).shape == (1, 0)


sides = st.integers(1, 5000)


@settings(deadline=None)
@given(
    image_hw=st.tuples(sides, sides),
    input_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda hw: (32 * hw[0], 32 * hw[1])),
    resize=st.sampled_from(Resize),
    corners=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_to_image_is_the_inverse_of_to_input(image_hw, input_hw, resize, corners):
    placement = Placement.of(image_hw, input_hw, resize)
    (height, width), (top, left) = placement.resized_hw, placement.offset_hw
    assert 1 <= height <= input_hw[0] and 1 <= width <= input_hw[1]
    assert 0 <= input_hw[0] - height - 2 * top <= 1 and 0 <= input_hw[1] - width - 2 * left <= 1
    if resize is Resize.LETTERBOX:
        assert height == input_hw[0] or width == input_hw[1]
    image_wh = np.array([*image_hw[::-1], *image_hw[::-1]], np.float32)
    xyxy = boxes(corners) * image_wh
    # float32 keeps 24 bits; the offset costs some of them where the picture is much smaller than its border
    pixel = np.array([image_hw[1] / width, image_hw[0] / height] * 2)
    difference = np.abs(placement.to_image(placement.to_input(xyxy)) - xyxy)
    assert (difference <= 1e-6 * image_wh + 2e-4 * pixel).all()


def test_iou_of_boxes_that_touch_overlap_contain_and_repeat():
    box = boxes([0, 0, 4, 2])  # area 8
    others = boxes([4, 0, 8, 2], [2, 0, 6, 2], [1, 0, 3, 1], [0, 0, 4, 2], [9, 9, 10, 10], [2, 1, 2, 1])
    assert_allclose(iou_matrix(box, others), [[0, 4 / 12, 2 / 8, 1, 0, 0]], rtol=1e-6)
    assert_array_equal(iou_matrix(others, box), iou_matrix(box, others).T)


def test_iou_of_two_empty_boxes_is_0():
    assert_array_equal(iou_matrix(boxes([1, 1, 1, 1]), boxes([1, 1, 1, 1], [0, 0, 0, 5])), [[0, 0]])


def test_centre_distance_is_relative_to_the_enclosing_box():
    # Centres (1, 1) and (4, 5): d² = 9 + 16; the enclosing box 0..5 by 0..6: c² = 25 + 36.
    assert_allclose(centre_distance(boxes([0, 0, 2, 2])[:, None], boxes([3, 4, 5, 6])), [[25 / 61]], rtol=1e-6)
    assert_array_equal(centre_distance(boxes([0, 0, 2, 2])[:, None], boxes([0, 0, 2, 2], [-1, -1, 3, 3])), [[0, 0]])
    assert_array_equal(centre_distance(boxes([1, 1, 1, 1])[:, None], boxes([1, 1, 1, 1])), [[0]])


def test_forms_of_boxes_convert():
    assert_array_equal(cxcywh_to_xyxy(boxes([10, 20, 4, 6], [0, 0, 0, 0])), [[8, 17, 12, 23], [0, 0, 0, 0]])
    assert_array_equal(xyxy_to_xywh(boxes([8, 17, 12, 23])), [[8, 17, 4, 6]])
