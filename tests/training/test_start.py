"""What a training starts from: whole weights, those of other classes, those of the first layers."""

from pathlib import Path

import numpy as np
import pytest

from yolov3_trt.errors import CfgError, WeightsError
from yolov3_trt.models import load_model, load_spec
from yolov3_trt.models.class_names import COCO_NAMES
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.models.darknet_weights import save_darknet_weights
from yolov3_trt.models.transfer import spec_with_classes
from yolov3_trt.training.learner import initial_weights
from yolov3_trt.training.start import random_start, starting_point

NAMES = ("hammer", "Person")
CFG = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=32
pad=1
activation=leaky
[convolutional]
filters={filters}
size=1
activation=linear
[yolo]
anchors=10,10
classes={classes}
num=1
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    """Edited for the data's two classes, as Darknet's instructions have it."""
    path = tmp_path / "mine.cfg"
    path.write_text(CFG.format(filters=7, classes=2))
    return path


def test_weights_of_other_classes_give_all_but_the_classes(cfg: Path, tmp_path: Path):
    coco = spec_with_classes(load_spec(cfg), 80)
    published = initial_weights(coco, 5)
    save_darknet_weights(coco, published, tmp_path / "published.weights")
    start = starting_point(str(cfg), NAMES, 0, weights=tmp_path / "published.weights")
    assert start.spec == load_spec(cfg)
    np.testing.assert_array_equal(start.weights["layers.0.conv.weight"], published["layers.0.conv.weight"])
    head, old = (arrays["layers.1.conv.weight"] for arrays in (start.weights, published))
    np.testing.assert_array_equal(head[:5], old[:5])
    np.testing.assert_array_equal(head[5 + 1], old[5 + COCO_NAMES.index("person")])
    assert "instead of 80" in start.notes[1] and "of the same name: Person; new: hammer" in start.notes[1]


def test_names_of_weights_of_other_classes_may_be_given(cfg: Path, tmp_path: Path):
    three = spec_with_classes(load_spec(cfg), 3)
    weights = initial_weights(three, 5)
    save_darknet_weights(three, weights, tmp_path / "three.weights")
    (tmp_path / "three.names").write_text("a\nb\nhammer\n")
    given = {"weights": tmp_path / "three.weights", "names": str(tmp_path / "three.names")}
    start = starting_point(str(cfg), NAMES, 0, **given)
    head, old = (arrays["layers.1.conv.weight"] for arrays in (start.weights, weights))
    np.testing.assert_array_equal(head[5], old[5 + 2])
    assert "of the same name: hammer; new: Person" in start.notes[1]
    with pytest.raises(CfgError, match="80 class names; expected 3"):
        starting_point(str(cfg), NAMES, 0, **{**given, "names": "coco"})


def test_the_first_layers_start_from_a_partial_file_and_the_rest_anew(cfg: Path, tmp_path: Path):
    spec = load_spec(cfg)
    whole = initial_weights(spec, 5)
    save_darknet_weights(spec, whole, tmp_path / "mine.weights")
    partial = tmp_path / "mine.conv.1"
    partial.write_bytes((tmp_path / "mine.weights").read_bytes()[: 20 + 4 * (4 * 4 + 4 * 27)])
    start = starting_point(str(cfg), NAMES, 0, weights=partial)
    np.testing.assert_array_equal(start.weights["layers.0.conv.weight"], whole["layers.0.conv.weight"])
    fresh = random_start(str(cfg), NAMES, 0)
    np.testing.assert_array_equal(start.weights["layers.1.conv.weight"], fresh.weights["layers.1.conv.weight"])
    assert start.notes == (f"mine: the first 1 of 2 convolutions from {partial}; the others start anew, seed 0",)
    partial.write_bytes(partial.read_bytes() + b"1234")
    with pytest.raises(WeightsError, match="bytes are missing"):
        starting_point(str(cfg), NAMES, 0, weights=partial)


def test_a_real_partial_file_is_taken(data: Path, tmp_path: Path):
    more = data / "models" / "more"
    start = starting_point(
        str(more / "MobileNetV2-YOLO-Fastest-voc.cfg"), NAMES, 0, weights=more / "MobileNetV2-YOLO-Fastest.conv.57"
    )
    assert start.spec.num_classes == 2 and "the first " in start.notes[0]
    assert start.notes[0].startswith("MobileNetV2-YOLO-Fastest-voc: the first ")
    for array in start.weights.values():
        assert np.isfinite(array).all()


def test_whole_weights_are_taken_as_they_are(cfg: Path, tmp_path: Path):
    spec = load_spec(cfg)
    whole = initial_weights(spec, 5)
    save_darknet_weights(spec, whole, tmp_path / "mine.weights")
    (tmp_path / "mine.names").write_text("hammer\nperson\n")
    start = starting_point(str(cfg), ("hammer", "person"), 0)
    assert start.notes == (f"mine: starts from {tmp_path / 'mine.weights'}",)
    for key, array in load_model(cfg).weights.items():
        np.testing.assert_array_equal(start.weights[key], array)
    assert cfg_from_spec(start.spec)
