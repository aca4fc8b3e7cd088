"""INT8 of real models within the accuracy budget: what `quantize` found (docs/results/int8-budget.json), measured again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import COCO_MODELS
from yolov3_trt.calibration.table import load_table
from yolov3_trt.data import labelled_set
from yolov3_trt.detector import open_detector
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, evaluate
from yolov3_trt.jobs.calibrate import calibrate
from yolov3_trt.jobs.export import export
from yolov3_trt.models import Model
from yolov3_trt.sensitivity import int8_share

pytestmark = pytest.mark.slow
FOUND = json.loads((Path(__file__).parents[2] / "docs/results/int8-budget.json").read_text())["rows"]
MAX_AP_DROP = 0.005


def average_precision(path: Path, data: Path) -> float:
    with open_detector(path, conf=EVAL_CONF_THRESHOLD) as detector:
        truth = labelled_set(data / "coco/instances_val64.json").truth_for(detector.meta.class_names)
        return float(evaluate(detector, truth)["AP"])


@pytest.mark.parametrize("name", COCO_MODELS)
def test_int8_holds_the_budget_on_val64(name: str, data: Path, coco_model: Callable[[str], Model], tmp_path: Path):
    model, (found,) = coco_model(name), [row for row in FOUND if row["model"] == name]
    float_layers = frozenset(found["float_layers"])
    fp32 = export(model, tmp_path / "fp32.onnx").path
    table = tmp_path / "table.json"
    calibrate(fp32, images=data / "coco/train64", num_images=64, table=table)
    assert load_table(table).equalised and load_table(table).biases_corrected
    int8 = export(model, tmp_path / "int8.onnx", precision="int8", table=table, float_layers=float_layers).path
    assert average_precision(int8, data) >= average_precision(fp32, data) - MAX_AP_DROP
    share = int8_share(model.spec, float_layers)
    assert share == pytest.approx(found["int8_share_of_macs"]) and share > 0.9
