"""The table in calib/ is what its manifest and the bundled model give."""

from pathlib import Path

import pytest

from tests.cli_runner import call
from yolov3_trt.calibration.table import load_table

CALIB = Path(__file__).parents[2] / "calib"


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
