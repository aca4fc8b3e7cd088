"""Graphs of other programs become artifacts, or are refused with what is missing."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import yolov3_trt
from tests.cli_runner import call
from yolov3_trt.errors import ExportError
from yolov3_trt.jobs.adopt import adopt
from yolov3_trt.meta import INPUT_NAME, load_model_meta
from yolov3_trt.models import sample_picture


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
