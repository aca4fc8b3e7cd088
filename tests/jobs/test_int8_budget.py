"""INT8 of real models within the accuracy budget: what `quantize` found (docs/results/int8-budget.json), measured again.

Where a CPU rounds a sum otherwise in its last bit, some int8 value becomes its neighbour, and AP on 64 pictures moves by some
thousandths: yolo-fastest-1.1 loses .0042 on the CPU where that was found and .0056 on another. So what is asked for anywhere
is that its pictures do not refute the budget, that AP is within those thousandths of it, and that FP32's detections are found.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import COCO_MODELS
from yolov3_trt.calibration.table import load_table
from yolov3_trt.certificate import Verdict
from yolov3_trt.data import labelled_set
from yolov3_trt.jobs.calibrate import calibrate
from yolov3_trt.jobs.export import export
from yolov3_trt.jobs.quantize import proven_on
from yolov3_trt.models import Model
from yolov3_trt.sensitivity import int8_share

pytestmark = pytest.mark.slow
FOUND = json.loads((Path(__file__).parents[2] / "docs/results/int8-budget.json").read_text())["rows"]
MAX_AP_DROP = 0.005
ROUNDING = 0.003


@pytest.mark.parametrize("name", COCO_MODELS)
def test_int8_holds_the_budget_on_val64(name: str, data: Path, coco_model: Callable[[str], Model], tmp_path: Path):
    model, (found,) = coco_model(name), [row for row in FOUND if row["model"] == name]
    float_layers = frozenset(found["float_layers"])
    fp32 = export(model, tmp_path / "fp32.onnx").path
    table = tmp_path / "table.json"
    calibrate(fp32, images=data / "coco/train64", num_images=64, table=table)
    assert load_table(table).equalised and load_table(table).biases_corrected
    int8 = export(model, tmp_path / "int8.onnx", precision="int8", table=table, float_layers=float_layers).path
    found_here = proven_on(labelled_set(data / "coco/instances_val64.json"), fp32, int8, MAX_AP_DROP)
    assert found_here.verdict is not Verdict.REFUTED and found_here.drop < MAX_AP_DROP + ROUNDING, found_here
    assert found_here.agreement is not None and found_here.agreement > 0.8
    share = int8_share(model.spec, float_layers)
    assert share == pytest.approx(found["int8_share_of_macs"]) and share > 0.9
