"""`evaluate` and `compare` as functions: typed results, nothing printed, wrong use refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import yolov3_trt
from yolov3_trt import Reporter, SettingError
from yolov3_trt.data.shapes import write_shapes_data_set


@pytest.fixture(scope="module")
def yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes_data_set(tmp_path_factory.mktemp("set"), num_train=1, num_val=4, seed=40)


def test_evaluate_gives_rows_intervals_and_drawings_and_prints_nothing(
    yaml: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    told: list[str] = []

    def track(items: Any, what: str, total: int | None) -> Any:
        told.append(what)
        return items

    found = yolov3_trt.evaluate(
        "shapes", data=yaml, resamples=20, worst=1, worst_folder=tmp_path, reporter=Reporter(track=track)
    )
    (row,) = found.rows
    low, high = row.accuracy.intervals["AP"]
    assert row.conf == 0.005 and 0.3 < row.accuracy.metrics["AP"] <= 1 and low <= high
    assert [worst.path.parent for worst in found.worst] == [tmp_path] and found.worst[0].path.is_file()
    assert found.to_json()["machine"]["versions"]["numpy"] and "evaluating shapes" in told
    assert capfd.readouterr() == ("", "")


def test_compare_gives_heads_pairs_layers_and_accuracy(yaml: Path, capfd: pytest.CaptureFixture[str]):
    found = yolov3_trt.compare("shapes", "shapes", data=yaml, layers=True)
    assert found.outputs.pairs.matched == found.outputs.pairs.detections_a > 0
    assert all(head.max_abs == 0 for head in found.outputs.heads.values())
    assert found.layers.departed is None and found.cfg_line is None
    assert found.to_json()["accuracy"]["AP_difference"] == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: yolov3_trt.evaluate([], data="x"), "artifacts: got none; expected what open_detector opens"),
        (lambda: yolov3_trt.evaluate(3, data="x"), "artifacts: got 3; expected a text"),
        (lambda: yolov3_trt.evaluate("shapes"), "data: missing; expected a labelled set"),
        (lambda: yolov3_trt.evaluate("shapes", split="val"), "split: given without data; leave it out"),
        (lambda: yolov3_trt.evaluate("shapes", worst_folder="x"), "worst_folder: given without worst"),
        (lambda: yolov3_trt.evaluate("shapes", resamples=-1), "resamples: got -1; expected 0 to 100000"),
        (lambda: yolov3_trt.evaluate("shapes", iou="x"), "iou: got 'x'; expected a number, 0 to 1"),
        (lambda: yolov3_trt.evaluate("shapes", data="a", annotations="b"), "annotations: given with data"),
        (lambda: yolov3_trt.compare("shapes", "shapes"), "images: missing; expected pictures, or data"),
        (lambda: yolov3_trt.compare("shapes", None, images="shapes"), "b: got None; expected a text"),
    ],
)
def test_a_wrong_use_is_refused_in_one_line(call: Callable[[], object], text: str):
    with pytest.raises(SettingError) as caught:
        call()
    assert str(caught.value).startswith(text) and "\n" not in str(caught.value)
