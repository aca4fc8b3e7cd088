"""The table in calib/ is what its manifest and the bundled model give."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli_runner import call
from yolov3_trt.calibration.table import load_table, save_table
from yolov3_trt.errors import CalibrationError
from yolov3_trt.jobs import calibrate as calibrate_job
from yolov3_trt.jobs.calibrate import calibrate
from yolov3_trt.jobs.export import _own_table, export, model_meta
from yolov3_trt.models import load_model
from yolov3_trt.reporter import Reporter
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


def test_a_large_network_is_run_once_for_each_picture_and_a_few_times_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    passes: dict[str, int] = {}

    def track(items: Iterable[Any], what: str, total: int | None) -> Iterable[Any]:
        found = list(items)
        passes[what] = len(found)
        return found

    graph = export("shapes", tmp_path / "shapes.onnx").path
    wanted = {"images": "shapes", "num_images": 10, "reporter": Reporter(track=track)}
    small = calibrate(graph, table=tmp_path / "small.json", **wanted).table
    passed = {name.removeprefix("calibrating, "): count for name, count in passes.items() if "calibrating" in name}
    assert passed == {"channels": 10, "ranges": 10, "biases": 10} and small.doublings

    passes.clear()
    monkeypatch.setattr(calibrate_job, "_LARGE_GRAPH", 0)
    large = calibrate(graph, table=tmp_path / "large.json", **wanted).table
    passed = {name.removeprefix("calibrating, "): count for name, count in passes.items() if "calibrating" in name}
    assert passed == {"ranges": 10, "biases": 8} and not large.doublings
    assert large.equalised  # as was asked, so it is reused
    assert large.bias_shifts.keys() == small.bias_shifts.keys()


def test_a_table_stays_good_that_knows_the_layers_by_their_former_digest(tmp_path: Path):
    table, model = load_table(CALIB / "shapes-256-mse.json"), load_model("shapes")
    meta, path = model_meta(model, GraphSettings()), tmp_path / "table.json"
    save_table(replace(table, model=replace(table.model, layers_sha256=model.spec.former_layers_sha256)), path)
    assert _own_table(path, meta, model.spec).amax == table.amax
    save_table(replace(table, model=replace(table.model, layers_sha256="0" * 64)), path)
    with pytest.raises(CalibrationError, match="the same weights, another cfg"):
        _own_table(path, meta, model.spec)
