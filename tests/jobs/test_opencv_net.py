"""`read_net_from_darknet` against OpenCV's own importer, and the page that says how to move."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.opencv_versions import needs_darknet_importer
from yolov3_trt import read_net_from_darknet
from yolov3_trt.errors import CfgError
from yolov3_trt.jobs.opencv_net import _thresh
from yolov3_trt.layers import HeadKind
from yolov3_trt.models import default_weights_path, load_spec
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec

REAL = ("yolo-fastest-1.1", "MobileNetV2-YOLOv3-Nano-coco", "official/yolov3-tiny")


def outputs_of(net: Any, picture: np.ndarray, side: int) -> dict[str, np.ndarray]:
    net.setInput(cv2.dnn.blobFromImage(picture, 1 / 255, (side, side), swapRB=True))
    names = net.getUnconnectedOutLayersNames()
    return dict(zip(names, net.forward(names), strict=True))


def assert_equal_rows(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], conf: float) -> None:
    assert list(got) == list(expected)
    for name, rows in expected.items():
        assert got[name].shape == rows.shape and got[name].dtype == rows.dtype
        difference = np.abs(got[name] - rows)
        flipped = np.minimum(got[name], rows)[:, 5:] == 0  # a score at the threshold may be 0 in one of them
        assert np.maximum(got[name], rows)[:, 5:][flipped & (difference[:, 5:] > 0)].max(initial=0) < conf + 2e-4
        difference[:, 5:][flipped] = 0
        assert difference.max() < 2e-4, name


@needs_darknet_importer
def test_the_rows_are_those_of_opencvs_importer(tmp_path: Path):
    cfg, weights = tmp_path / "shapes.cfg", default_weights_path("shapes")
    cfg.write_text(cfg_from_spec(load_spec("shapes")))
    picture = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    side = load_spec("shapes").input_hw[0]
    net = read_net_from_darknet(cfg, weights)
    expected = outputs_of(cv2.dnn.readNetFromDarknet(str(cfg), str(weights)), picture, side)
    assert_equal_rows(outputs_of(net, picture, side), expected, 0.2)


@needs_darknet_importer
@pytest.mark.slow
@pytest.mark.parametrize("name", [*REAL, "family/yolov7-tiny"])
def test_real_models_and_one_with_new_coords(name: str, data: Path, fabricated_family: Callable[[str], Path]):
    cfg = data / "models" / f"{name}.cfg"
    weights = fabricated_family(Path(name).name) if name.startswith("family") else cfg.with_suffix(".weights")
    picture, side = cv2.imread(str(data / "images" / "dog.jpg")), load_spec(str(cfg)).input_hw[0]
    expected = outputs_of(cv2.dnn.readNetFromDarknet(str(cfg), str(weights)), picture, side)
    assert sum(np.count_nonzero(rows[:, 5:]) for rows in expected.values()) > 5
    assert_equal_rows(outputs_of(read_net_from_darknet(cfg, weights), picture, side), expected, 0.2)


def test_the_threshold_is_the_cfgs(tmp_path: Path):
    cfg = tmp_path / "m.cfg"
    cfg.write_text("[net]\nwidth=32\n[ yolo ] \nthresh=.05\n")
    assert _thresh(cfg, HeadKind.YOLO) == 0.05
    cases = {"": 0.2, "thresh = .05\r\n": 0.05, "ignore_thresh=.7\n": 0.2}
    for text, expected in cases.items():
        cfg.write_text(f"[net]\nwidth=32\n[yolo]\n{text}classes=1\n[convolutional]\nthresh=.9\n")
        assert _thresh(cfg, HeadKind.YOLO) == expected
    assert _thresh("shapes", HeadKind.REGION) == 0.001
    cfg.write_text("[net]\n[yolo]\nthresh=.1\n[yolo]\nclasses=1\n")
    with pytest.raises(CfgError, match=r"m\.cfg: its heads have thresh=0.1, 0.2; expected one value"):
        _thresh(cfg, HeadKind.YOLO)
