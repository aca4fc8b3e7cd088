"""What is given in the place of a model or artifact is named for what it is, with what to give instead."""

from pathlib import Path

import pytest

from yolov3_trt.backends import natural_backend
from yolov3_trt.detector import open_detector
from yolov3_trt.errors import BackendError, CfgError
from yolov3_trt.models import load_spec

BUILT_IN = "yolov3, yolov3-spp, yolov3-tiny, yolov3-voc, yolov4, yolov4-tiny, yolov7-tiny, shapes"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            "yolov3-tinny",
            f"not an artifact; did you mean yolov3-tiny? expected a built-in model ({BUILT_IN}), a .cfg, an",
        ),
        ("YOLOv3-SPP", "not an artifact; did you mean yolov3-spp? expected"),
        (
            "somewhere",
            f"not an artifact; expected a built-in model ({BUILT_IN}), a .cfg, an .onnx, an .engine or triton://…",
        ),
        ("yolov4x-mish", "this model is not built in: give its .cfg (https://github.com/AlexeyAB/darknet/"),
        ("yolov3.weights", "these are Darknet weights: give the model yolov3, and these with weights="),
        (
            "mine.weights",
            "these are Darknet weights: give the .cfg that they were trained with, and these with weights=",
        ),
        ("darknet53.conv.74", "these are weights of the first layers only"),
        ("coco.names", "these are names of classes: give the model, and these with names="),
        ("e/m.engine.json", "this is a sidecar: give e/m.engine, which it belongs to"),
        ("recipe.toml", "this is a recipe: `yolov3_trt build` takes it"),
        ("data.yaml", "this describes a data set"),
        ("best.pt", "this is a checkpoint of PyTorch"),
        ("dog.JPG", "this is a picture or a video; the model comes first"),
        ("m.trt", "engines of this package end in .engine"),
    ],
)
def test_what_is_no_artifact_is_named(given: str, problem: str):
    with pytest.raises(BackendError) as caught:
        natural_backend(given)
    assert str(caught.value).startswith(f"{given}: {problem}")


def test_the_cfg_beside_weights_is_named(tmp_path: Path):
    weights = tmp_path / "m.weights"
    (tmp_path / "m.cfg").write_text("")
    with pytest.raises(BackendError) as caught:
        natural_backend(weights)
    assert str(caught.value) == f"{weights}: these are Darknet weights: give the .cfg; {tmp_path}/m.cfg lies beside it"


def test_what_lies_in_a_folder_is_named(tmp_path: Path):
    def problem() -> str:
        with pytest.raises(BackendError) as caught:
            natural_backend(tmp_path)
        return str(caught.value).removeprefix(f"{tmp_path}: ")

    assert problem().startswith("this is a folder; expected a built-in model (")
    (tmp_path / "m.cfg").write_text("")
    (tmp_path / "m-fp16.onnx").write_text("")
    assert problem() == f"this is a folder; give the model in it: {tmp_path}/m.cfg"
    (tmp_path / "n.cfg").write_text("")
    assert problem() == "this is a folder; give a file of it: m.cfg, n.cfg, m-fp16.onnx"


def test_options_of_models_do_not_hide_a_name_that_is_wrong():
    with pytest.raises(BackendError, match="did you mean yolov3-tiny"):
        open_detector("yolov3-tinny", weights="x.weights")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("m.onnx", "this was made from a model; expected the model itself: a built-in one or its .cfg"),
        (
            "yolov3-tinny",
            f"there is no such model; did you mean yolov3-tiny? expected one of {BUILT_IN} or a path to a .cfg",
        ),
        ("yolov3.weights", "these are Darknet weights: give the model yolov3, and these with weights="),
    ],
)
def test_what_is_no_model_is_named(given: str, problem: str):
    with pytest.raises(CfgError) as caught:
        load_spec(given)
    assert str(caught.value) == f"{given}: {problem}"
