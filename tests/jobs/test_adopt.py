"""Graphs of other programs become artifacts, or are refused with what is missing."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import yolov3_trt
from tests.cli_runner import call
from yolov3_trt.errors import CfgError, ExportError, SettingError
from yolov3_trt.graph.foreign import heads_of
from yolov3_trt.jobs.adopt import adopt
from yolov3_trt.meta import INPUT_NAME, load_model_meta
from yolov3_trt.models import load_spec, sample_picture
from yolov3_trt.models.class_names import SHAPE_NAMES


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as another program would export it: other names, another order of the heads, no sidecar."""
    own = tmp_path_factory.mktemp("own") / "own.onnx"
    yolov3_trt.export("shapes", own)
    model = onnx.load(own)
    names = {INPUT_NAME: "input.1", "head0": "large", "head1": "medium", "head2": "small"}
    for node in model.graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    for item in (*model.graph.input, *model.graph.output):
        item.name = names.get(item.name, item.name)
    outputs = list(model.graph.output)[::-1]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    path = own.with_name("theirs.onnx")
    onnx.save(model, path)
    return path


def test_a_graph_of_another_program_finds_what_its_model_finds(theirs: Path, tmp_path: Path):
    made = adopt(theirs, "shapes", tmp_path / "ours.onnx")
    assert max(made.relative_error.values()) < 1e-4
    assert load_model_meta(made.path).class_names_from == "shapes"
    with yolov3_trt.open_detector(made.path) as ours, yolov3_trt.open_detector("shapes") as reference:
        got, expected = ours(sample_picture()), reference(sample_picture())
    assert len(got) == len(expected) > 0
    np.testing.assert_allclose(got.xyxy, expected.xyxy, atol=0.01)


ANCHORS = ";".join(
    ",".join(f"{side:g}" for anchor in head.anchors_wh for side in anchor) for head in load_spec("shapes").heads[::-1]
)


def test_without_a_cfg_anchors_and_shapes_say_what_the_heads_are(theirs: Path, tmp_path: Path):
    names = tmp_path / "shapes.names"
    names.write_text("\n".join(SHAPE_NAMES))
    made = adopt(theirs, None, tmp_path / "ours.onnx", anchors=ANCHORS, names=names)
    meta, spec = load_model_meta(made.path), load_spec("shapes")
    assert [head.grid_hw for head in meta.heads] == [head.grid_hw for head in spec.heads[::-1]]  # the finest grid first
    assert [head.anchors_wh for head in meta.heads] == [head.anchors_wh for head in spec.heads[::-1]]
    assert (meta.input_hw, meta.num_classes, meta.class_names_from) == (spec.input_hw, 6, "shapes.names")
    assert (made.relative_error, meta.weights_sha256, meta.layers_sha256) == ({}, None, None)
    with yolov3_trt.open_detector(made.path) as ours, yolov3_trt.open_detector("shapes") as reference:
        got, expected = ours(sample_picture()), reference(sample_picture())
    assert [row.class_name for row in got] == [row.class_name for row in expected] != []
    np.testing.assert_allclose(got.xyxy, expected.xyxy, atol=0.01)
    shared = adopt(theirs, None, tmp_path / "shared.onnx", anchors=ANCHORS.replace(";", ","))
    assert shared.meta.heads == meta.heads and shared.meta.class_names[5] == "class5"


@pytest.mark.parametrize(
    "anchors, options, error, says",
    [
        (None, {}, SettingError, "anchors: neither was given; expected model= or anchors="),
        ("1,2", {"model": "shapes"}, SettingError, "anchors: both were given; expected model= or anchors="),
        (
            "1,2",
            {"weights": "a.weights"},
            SettingError,
            "weights: given with anchors; they are compared where the .cfg",
        ),
        ("1,2,x", {}, SettingError, "anchors: got '1,2,x'; expected numbers between commas"),
        ("1,2,3", {}, SettingError, "anchors: 3 numbers in a group; expected pairs of width and height"),
        ("1,0", {}, SettingError, "anchors: got 0.0; expected"),
        ("1,2;3,4", {}, ExportError, "3 outputs are raw heads.*expected as many as groups of anchors .here 1.1."),
        (";".join(ANCHORS.split(";")[::-1]), {}, ExportError, "the anchors get smaller from group to group; expected"),
        ("1,2,3,4;5,6,7,8;9,10,11,12", {}, ExportError, "has 33 channels; expected A . .5 . classes., with A = 2"),
        ("1,2;3,4;5,6,7,8,9,10", {}, ExportError, r"by their channels the heads have \[6, 28\] classes"),
        (ANCHORS, {"input_size": 320}, ExportError, r"its inputs are .*; expected one, Nx3xHxW, of 320"),
        (ANCHORS, {"names": "coco"}, CfgError, "coco: 80 class names; expected 6"),
    ],
)
def test_anchors_that_do_not_fit_are_refused(
    anchors: str | None, options: dict[str, str], error: type[Exception], says: str, theirs: Path, tmp_path: Path
):
    with pytest.raises(error, match=says) as caught:
        adopt(theirs, path=tmp_path / "ours.onnx", anchors=anchors, **options)
    assert len(str(caught.value).splitlines()) == 1 and not list(tmp_path.iterdir())


def test_heads_that_are_decoded_or_activated_are_no_logits(theirs: Path, tmp_path: Path):
    changed = onnx.load(theirs)
    for output in changed.graph.output:
        name = output.name
        changed.graph.node.append(onnx.helper.make_node("Sigmoid", [name], [f"{name}.activated"]))
        output.name = f"{name}.activated"
    onnx.save(changed, tmp_path / "activated.onnx")
    with pytest.raises(
        ExportError, match="objectness and classes of head0 are within 0 and 1, so a sigmoid was applied"
    ):
        adopt(tmp_path / "activated.onnx", anchors=ANCHORS)
    del changed.graph.output[1:]
    changed.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 1  # as of decoded boxes
    with pytest.raises(ExportError, match="0 outputs are raw heads"):
        heads_of(changed, [((1.0, 2.0),)], None, "decoded.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["activated.onnx"]


def test_what_is_not_the_model_is_refused_and_nothing_is_written(theirs: Path, tmp_path: Path):
    changed = onnx.load(theirs)
    kernel = next(item for item in changed.graph.initializer if len(item.dims) == 4)
    kernel.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(kernel) * 1.5, kernel.name))
    onnx.save(changed, tmp_path / "changed.onnx")
    with pytest.raises(ExportError, match="relative error"):
        adopt(tmp_path / "changed.onnx", "shapes", tmp_path / "ours.onnx")
    del changed.graph.output[0]
    onnx.save(changed, tmp_path / "two.onnx")
    with pytest.raises(ExportError, match=r"0 outputs are Nx33x32x32, as head2 is; .* expected the raw heads"):
        adopt(tmp_path / "two.onnx", "shapes", tmp_path / "ours.onnx")
    with pytest.raises(ExportError, match=r"its inputs are .*; expected one, Nx3x320x320"):
        adopt(theirs, "shapes", tmp_path / "ours.onnx", input_size=320)
    assert not (tmp_path / "ours.onnx").exists()


def test_the_verb_adopts(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert call("adopt", theirs, "--cfg", "shapes", "-o", tmp_path / "ours.onnx") == 0
    assert "largest difference to PyTorch" in capsys.readouterr().out
    assert load_model_meta(tmp_path / "ours.onnx").name == "shapes"
    assert call("adopt", theirs, "--anchors", ANCHORS, "-o", tmp_path / "theirs.onnx") == 0
    assert "6 classes; 32x32 cells with 3 anchors, " in capsys.readouterr().out
