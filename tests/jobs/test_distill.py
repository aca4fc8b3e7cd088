"""`--distill`: the table, the weights beside it, and the graphs that they reach."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import yolov3_trt
from tests.cli_runner import Run
from yolov3_trt.calibration.distilled import load_weights
from yolov3_trt.calibration.table import load_table
from yolov3_trt.errors import CalibrationError, MissingDependency, SettingError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.graph.quantize_weights import int8_weights
from yolov3_trt.meta import load_model_meta
from yolov3_trt.training import distill

FEW = {"images": "shapes", "num_images": 8, "distill": True, "distill_steps": 2}


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("distil") / "shapes.onnx"
    return yolov3_trt.export("shapes", path, input_size=64).path


@pytest.fixture(scope="module")
def table(fp32: Path) -> Path:
    return yolov3_trt.calibrate(fp32, table=fp32.with_name("table.json"), **FEW).path


def test_the_same_seed_gives_the_same_bytes_and_is_reused(fp32: Path, table: Path, tmp_path: Path):
    said: list[str] = []
    before = fp32.read_bytes()
    again = yolov3_trt.calibrate(fp32, table=tmp_path / "table.json", reporter=yolov3_trt.Reporter(said.append), **FEW)
    assert again.path.read_bytes() == table.read_bytes() and fp32.read_bytes() == before
    assert again.path.with_suffix(".npz").read_bytes() == table.with_suffix(".npz").read_bytes()
    assert any(line.startswith("distilling on 7 pictures, with 1 held") for line in said)
    assert any("step 2: " in line for line in said)
    distilled = again.table.distilled
    assert distilled is not None and distilled.steps == 2 and distilled.taken in (0, 2)
    assert distilled.after <= distilled.before and distilled.sha256 == sha256_of_file(tmp_path / "table.npz")
    assert yolov3_trt.calibrate(fp32, table=again.path, **FEW).reused
    others = yolov3_trt.calibrate(fp32, table=tmp_path / "other.json", **{**FEW, "seed": 1})
    assert others.path.with_suffix(".npz").read_bytes() != again.path.with_suffix(".npz").read_bytes()


def test_the_weights_reach_the_int8_graph_its_sidecar_and_info(fp32: Path, table: Path, tmp_path: Path, run: Run):
    weights = load_weights(load_table(table).distilled, table)
    graph = yolov3_trt.export("shapes", tmp_path / "int8.onnx", input_size=64, precision="int8", table=table)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(graph.path).graph.initializer}
    name = "layers.0.conv.weight"
    scale = constants[f"{name}.scale"].astype(np.float32)
    assert np.array_equal(constants[f"{name}.q"], int8_weights(weights[name], scale))
    plain = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(fp32).graph.initializer}
    assert weights.keys() <= plain.keys() and any(not np.array_equal(weights[key], plain[key]) for key in weights)
    assert graph.meta.distilled_sha256 == sha256_of_file(table.with_suffix(".npz"))
    assert load_model_meta(graph.path).weights_sha256 == load_model_meta(fp32).weights_sha256
    shown = run("info", graph.path)
    assert f"distilled      SHA-256 {graph.meta.distilled_sha256}" in shown.stdout


def test_weights_that_are_not_the_tables_are_refused_and_distilled_again(fp32: Path, table: Path, tmp_path: Path):
    copied = tmp_path / "table.json"
    copied.write_bytes(table.read_bytes())
    export = {"input_size": 64, "precision": "int8", "table": copied}
    with pytest.raises(CalibrationError, match=r"table\.npz: the distilled weights of table\.json cannot be read"):
        yolov3_trt.export("shapes", tmp_path / "int8.onnx", **export)
    copied.with_suffix(".npz").write_bytes(table.with_suffix(".npz").read_bytes()[:-9])
    with pytest.raises(CalibrationError, match=r"not the distilled weights that table\.json was written with"):
        yolov3_trt.export("shapes", tmp_path / "int8.onnx", **export)
    assert not (tmp_path / "int8.onnx").exists()
    said: list[str] = []
    made = yolov3_trt.calibrate(fp32, table=copied, reporter=yolov3_trt.Reporter(said.append), **FEW)
    assert not made.reused and any("differs in distilled weights" in line for line in said)
    content = json.loads(copied.read_text())
    content["distilled"]["file"] = "../table.npz"
    copied.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match="expected a name in the folder of the table"):
        load_table(copied)


def test_an_interrupt_leaves_nothing(fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(distill, "learning_rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        yolov3_trt.calibrate(fp32, table=tmp_path / "table.json", **FEW)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_distilled_is_refused_before_the_work(
    fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
):
    path = tmp_path / "table.json"
    with pytest.raises(SettingError, match="distill_steps: given without distill"):
        yolov3_trt.CalibrationSettings(images="shapes", distill_steps=3)
    with pytest.raises(SettingError, match="distill: given without images"):
        yolov3_trt.CalibrationSettings(table=path, distill=True)
    with pytest.raises(SettingError, match="distill: given with all_tensors"):
        yolov3_trt.calibrate(fp32, table=path, all_tensors=True, **FEW)
    with pytest.raises(CalibrationError, match="7 pictures to distil on; expected 8 or more"):
        yolov3_trt.calibrate(fp32, table=path, **{**FEW, "num_images": 7})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match="torch is not installed"):
        yolov3_trt.calibrate(fp32, table=path, **FEW)
    shown = run("calibrate", fp32, "--images", "shapes", "--distill", "-o", path)
    assert shown.code == 1 and "calibrate needs torch" in shown.stderr
    assert not path.exists()
