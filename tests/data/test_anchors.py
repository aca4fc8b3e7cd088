"""Anchors by k-means: what Darknet's calc_anchors would find, and whether they would help."""

from pathlib import Path

import numpy as np
import pytest

from yolov3_trt.data.anchors import fit_anchors
from yolov3_trt.data.labelled import LabelledFile
from yolov3_trt.errors import SettingError
from yolov3_trt.sizes import Resize


def a_file(*sizes: tuple[float, float], image_hw: tuple[int, int] = (208, 416)) -> LabelledFile:
    xywh = np.array([[1, 1, w, h] for w, h in sizes], np.float64)
    return LabelledFile(Path("a.png"), image_hw, xywh, np.zeros(len(xywh), np.int32))


def test_two_kinds_of_boxes_give_two_anchors():
    found = fit_anchors([a_file((10, 20), (12, 20), (100, 60)), a_file((102, 60), (98, 60), (11, 20))], 2, (416, 416))
    assert found.anchors_wh == ((11, 20), (100, 60))  # the means, by area
    ious = [10 / 11, 11 / 12, 1, 100 / 102, 98 / 100, 1]
    assert found.mean_iou == pytest.approx(np.mean(ious)) and found.boxes == 6
    assert found == fit_anchors([a_file((10, 20), (12, 20), (100, 60), (102, 60), (98, 60), (11, 20))], 2, (416, 416))


def test_sizes_are_those_in_the_networks_input():
    file = a_file((10, 20), image_hw=(100, 200))
    assert fit_anchors([file], 1, (400, 400)).anchors_wh == ((20, 40),)  # letterbox: twice as large
    assert fit_anchors([file], 1, (400, 400), Resize.STRETCH).anchors_wh == ((20, 80),)


def test_anchors_of_a_model_are_compared():
    files = [a_file((10, 20), (100, 60))]
    own = fit_anchors(files, 2, (416, 416), own_wh=((10, 20.5), (100, 60.5)))
    assert own.own_mean_iou == pytest.approx((20 / 20.5 + 60 / 60.5) / 2) and not own.would_help
    assert fit_anchors(files, 2, (416, 416), own_wh=((10, 13), (400, 300))).would_help
    with pytest.raises(SettingError, match="count: got 3; expected at most 2"):
        fit_anchors(files, 3, (416, 416))
