"""Whose names the classes of a model have, and who says so."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yolov3_trt.detections import Detections
from yolov3_trt.errors import CfgError
from yolov3_trt.models import Model, load_model
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.class_names import COCO_NAMES, VOC_NAMES
from yolov3_trt.models.darknet_cfg import spec_from_cfg
from yolov3_trt.models.darknet_weights import save_darknet_weights

_CFG = """[net]
width=32
height=32
channels=3
[convolutional]
filters={filters}
size=1
stride=32
activation=linear
[yolo]
mask=0
anchors=10,10
classes={classes}
num=1
"""


@pytest.fixture
def load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[Model, str]]:
    """A model of a number of classes, with files beside it (name -> number of names); and what was said."""

    def load(classes: int, files: dict[str, int], names: str | None = None) -> tuple[Model, str]:
        caplog.clear()
        for file in tmp_path.iterdir():
            file.unlink()
        cfg = tmp_path / "door.cfg"
        cfg.write_text(_CFG.format(classes=classes, filters=5 + classes))
        spec = spec_from_cfg(cfg)
        weights = {key: np.zeros(shape, np.float32) for key, shape in spec.weight_shapes.items()}
        save_darknet_weights(spec, weights, cfg.with_suffix(".weights"))
        for name, count in files.items():
            (tmp_path / name).write_text("".join(f"{name}-{i}\n" for i in range(count)))
        return load_model(cfg, names=names), " ".join(record.message for record in caplog.records)

    caplog.set_level(logging.WARNING)
    return load


@pytest.mark.parametrize(
    "classes, files, source, first, said",
    [
        (20, {}, "none", "class0", "class0 to class19: there is no .names file beside it; give a file, coco or voc"),
        (80, {}, "none", "class0", "class0 to class79"),
        (1, {}, "none", "class0", "called class0: there"),
        (20, {"obj.names": 20, "a.names": 20}, "obj.names", "obj.names-0", "as in obj.names, which lies beside it"),
        (3, {"things.names": 3}, "things.names", "things.names-0", "as in things.names"),
        (3, {"a.names": 3, "b.names": 3}, "none", "class0", "beside it lie a.names, b.names"),
        (3, {"obj.names": 4}, "none", "class0", "obj.names beside it has 4 names, not 3"),
        (3, {"door.names": 3, "obj.names": 3}, "door.names", "door.names-0", ""),
    ],
)
def test_names_are_those_of_files_or_numbers(load, classes: int, files: dict, source: str, first: str, said: str):
    model, heard = load(classes, files)
    assert (model.class_names_from, model.class_names[0], len(model.class_names)) == (source, first, classes)
    assert said in heard and (said or not heard)


def test_names_that_were_given_are_taken_without_a_word(load, tmp_path: Path):
    model, heard = load(20, {"obj.names": 20}, names="voc")
    assert (model.class_names, model.class_names_from, heard) == (VOC_NAMES, "voc", "")
    with pytest.raises(CfgError, match=r"door.names: 2 class names; expected 3"):
        load(3, {"door.names": 2})
    load(2, {})
    (tmp_path / "gbk.names").write_bytes("门\n窗\n".encode("gbk"))
    with pytest.raises(CfgError, match=r"gbk.names: these class names are not UTF-8 text; save the file as UTF-8"):
        load_model(tmp_path / "door.cfg", names=str(tmp_path / "gbk.names"))


def test_published_weights_and_built_in_networks_have_cocos_names(data: Path, tmp_path: Path):
    for suffix in ("cfg", "weights"):
        shutil.copy(data / "models" / "official" / f"yolov3-tiny.{suffix}", tmp_path / f"mine.{suffix}")
    (tmp_path / "obj.names").write_text("".join(f"{i}\n" for i in range(80)))
    model = load_model(tmp_path / "mine.cfg")
    assert (model.class_names, model.class_names_from) == (COCO_NAMES, "coco")
    assert load_model("yolov3-tiny", tmp_path / "mine.weights").class_names_from == "coco"
    assert load_model("shapes").class_names_from == "shapes"
    assert BUILT_IN["yolov3-voc"]().num_classes == len(VOC_NAMES)


def test_classes_that_are_not_to_be_shown_are_not():
    found = Detections(
        np.zeros((3, 4), np.float32),
        np.array([0.9, 0.8, 0.7], np.float32),
        np.array([0, 1, 2], np.int32),
        ("a", "b", "c"),
    )
    assert found.shown is found
    hiding = Detections(found.xyxy, found.scores, found.class_ids, ("a", "dont_show b", "c"))
    assert [row.class_name for row in hiding.shown] == ["a", "c"]
