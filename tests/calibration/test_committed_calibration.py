"""The table in calib/ is what its manifest and the bundled model give."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli_runner import call
from yolov3_trt.calibration.table import load_table, save_table
from yolov3_trt.errors import CalibrationError
from yolov3_trt.jobs.export import _own_table, model_meta
from yolov3_trt.models import load_model
from yolov3_trt.settings import GraphSettings

CALIB = Path(__file__).parents[2] / "calib"


@pytest.mark.slow
def test_the_committed_table_is_the_bundled_models(tmp_path: Path):
    assert call("export", "shapes", "-o", tmp_path / "shapes.onnx") == 0
    made = tmp_path / "table.json"
    assert call("calibrate", tmp_path / "shapes.onnx", "--images", CALIB / "shapes.toml", "-o", made) == 0
    got, committed = load_table(made), load_table(CALIB / "shapes-256-mse.json")
    assert got.model.weights_sha256 == committed.model.weights_sha256
    assert (got.preprocess, got.input_hw, got.method) == (committed.preprocess, committed.input_hw, committed.method)
    assert got.images.count == committed.images.count
    # Not to the bit: another OpenCV may draw another pixel.
    assert got.amax == pytest.approx(committed.amax, rel=0.1)


def test_a_table_stays_good_that_knows_the_layers_by_their_former_digest(tmp_path: Path):
    table, model = load_table(CALIB / "shapes-256-mse.json"), load_model("shapes")
    meta, path = model_meta(model, GraphSettings()), tmp_path / "table.json"
    save_table(replace(table, model=replace(table.model, layers_sha256=model.spec.former_layers_sha256)), path)
    assert _own_table(path, meta, model.spec).amax == table.amax
    save_table(replace(table, model=replace(table.model, layers_sha256="0" * 64)), path)
    with pytest.raises(CalibrationError, match="the same weights, another cfg"):
        _own_table(path, meta, model.spec)
