"""`evaluate` and `compare` as functions: typed results, nothing printed, wrong use refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import yolov3_trt
from yolov3_trt import Reporter, SettingError
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.evaluation import score_detections
from yolov3_trt.evaluation.narrowing import narrowed
from yolov3_trt.selection import Selection


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


def test_a_selection_narrows_what_is_scored(yaml: Path, tmp_path: Path):
    """Of some classes AP is the mean of theirs; what is too small or elsewhere counts neither for nor against."""
    whole, some = (
        yolov3_trt.evaluate("shapes", data=yaml, resamples=0, **chosen).rows[0]
        for chosen in ({}, {"classes": "circle,star"})
    )
    by_name = {row.class_name: row for row in whole.accuracy.per_class}
    assert {row.class_name for row in some.accuracy.per_class if row.objects} == {"circle", "star"}
    assert some.accuracy.metrics["AP"] == pytest.approx((by_name["circle"].AP + by_name["star"].AP) / 2)
    assert some.notes == ("only circle, star count; AP is the mean over them",)

    def scores(**chosen: Any) -> tuple[float | None, int, tuple[str, ...]]:
        truth = narrowed(whole.truth, Selection(**chosen))
        score = score_detections(truth, whole.accuracy.found)
        return score.metrics["AP"], sum(row.objects for row in score.per_class), truth.notes

    zones = tmp_path / "zones.toml"
    zones.write_text("[[zone]]\npoints = [[0, 0], [1, 0], [1, 1], [0, 1]]\n")
    objects = sum(row.objects for row in whole.accuracy.per_class)
    assert scores(zones=zones)[:2] == (pytest.approx(whole.accuracy.metrics["AP"]), objects)  # all stand in the picture
    sides = sorted(min(row["bbox"][2:]) for row in whole.truth.content["annotations"])
    middle = int(sides[len(sides) // 2])
    _, count, notes = scores(min_size=(middle, middle))
    assert 0 < count < objects and notes[-1].startswith(f"{count} of {objects} objects count; ")
    assert scores(min_size=9999)[:2] == (None, 0)
    with pytest.raises(SettingError, match=r"^classes: there is no class 'squar' among 6; did you mean square\?$"):
        scores(classes="squar")


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
