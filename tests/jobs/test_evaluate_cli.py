"""`eval` and the AP difference of `compare`, on the bundled model and generated pictures."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.cli_runner import Run, files_in
from yolov3_trt.data.coco import TruePicture, coco_instances
from yolov3_trt.evaluation import METRICS
from yolov3_trt.jobs.export import export
from yolov3_trt.models import load_model, load_spec
from yolov3_trt.models.class_names import COCO_NAMES
from yolov3_trt.models.darknet_weights import save_darknet_weights
from yolov3_trt.shapes import shapes_picture

COUNT = 6
MINI_CFG = """[net]
height=32
width=32
channels=3

[convolutional]
filters=255
size=3
stride=2
pad=1
activation=linear

[yolo]
mask=0,1,2
anchors=8,8, 16,16, 24,24
classes=80
num=3
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str, str]:
    """Options for generated pictures: --images DIR --annotations FILE."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    truths = []
    for index in range(COUNT):
        picture = shapes_picture(11, index)
        name = f"{index:03}.png"
        cv2.imwrite(str(folder / "images" / name), picture.pixels)
        truths.append(TruePicture(name, picture.pixels.shape[:2], picture.xyxy, picture.class_ids))
    (folder / "truth.json").write_text(json.dumps(coco_instances(truths, load_model("shapes").class_names)))
    return ("--images", str(folder / "images"), "--annotations", str(folder / "truth.json"))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in half precision."""
    path = tmp_path_factory.mktemp("graph") / "half.onnx"
    return export(load_model("shapes"), path, precision="fp16").path


def test_one_artifact_has_its_metrics_at_the_top(run: Run, labelled: tuple[str, ...]):
    report = run("eval", "shapes", *labelled, "--resamples", "100", "--json", "-").json
    assert set(report) >= {"artifact", "backend", "precision", "images", *METRICS}
    assert (report["artifact"], report["backend"], report["images"]) == ("shapes", "torch", COUNT)
    low, high = report["AP_interval"]
    assert 0.3 < low <= report["AP50"] and low < high <= 1
    assert sum(entry["objects"] for entry in report["per_class"]) > COUNT
    assert report["notes"] == report["fallbacks"] == []
    assert (report["resamples"], report["seed"]) == (100, 0)


def test_artifacts_side_by_side_differ_with_an_interval(run: Run, labelled: tuple[str, ...], graph: Path):
    outcome = run("eval", "shapes", graph, *labelled, "--per-class", "--json", "-")
    report = outcome.json
    assert [row["precision"] for row in report["rows"]] == ["fp32", "fp16"]
    assert report["rows"][0]["size_bytes"] is None and report["rows"][1]["size_bytes"] == graph.stat().st_size
    (difference,) = report["differences"]
    a, b = (row["AP"] for row in report["rows"])
    assert difference["AP_difference"] == pytest.approx(b - a)
    low, high = difference["AP_difference_interval"]
    assert low <= high and abs(low) < 0.05 and abs(high) < 0.05
    assert (difference["artifact"], difference["reference"]) == (str(graph), "shapes")


def test_the_text_has_intervals_classes_and_differences(run: Run, labelled: tuple[str, ...], graph: Path):
    text = run("eval", "shapes", graph, *labelled, "--per-class", "--resamples", "50").stdout
    assert re.search(r"^shapes +0\.\d{4} \[0\.\d{4}, \d\.\d{4}\]", text, re.M)
    assert f"{graph} against shapes: AP +" in text or f"{graph} against shapes: AP -" in text
    assert "95 % intervals, of 50 draws of the images" in text
    assert re.search(r"^class +objects +AP shapes +AP50 shapes", text, re.M)
    assert "[" not in run("eval", "shapes", *labelled, "--resamples", "0").stdout


def test_the_worst_pictures_are_drawn_beside_the_truth(
    run: Run, labelled: tuple[str, ...], graph: Path, tmp_path: Path
):
    out, page = tmp_path / "worst", tmp_path / "report.html"
    report = run("eval", "shapes", graph, *labelled, "--worst", "2", "-o", out, "--report", page, "--json", "-").json
    assert [entry["f1"] for entry in report["worst"]] == sorted(entry["f1"] for entry in report["worst"])
    assert {Path(entry["picture"]).name for entry in report["worst"]} == files_in(out)
    assert sorted(name[:3] for name in files_in(out)) == ["01-", "02-"]
    drawn = cv2.imread(report["worst"][0]["picture"])
    height, width = cv2.imread(str(Path(labelled[1]) / report["worst"][0]["file_name"])).shape[:2]
    assert drawn.shape[:2] == (height, 3 * width + 2 * 8)  # truth, and two artifacts, with gaps
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 6
    assert "<figcaption>truth</figcaption>" in text and "Differences in accuracy" in text


def test_a_report_of_one_artifact_in_markdown(run: Run, labelled: tuple[str, ...], tmp_path: Path):
    page = tmp_path / "report.md"
    assert run("eval", "shapes", *labelled, "--report", page).code == 0
    assert "| shapes | 6 | 0." in page.read_text()


@pytest.mark.parametrize("options", [("--worst", "2"), ("-o", "out")])
def test_worst_pictures_want_a_place(run: Run, labelled: tuple[str, ...], options: tuple[str, ...]):
    outcome = run("eval", "shapes", *labelled, *options)
    assert outcome.code == 2
    assert "--worst N wants -o DIR or --report FILE" in outcome.usage_error


def test_a_report_of_no_known_format_is_refused_before_anything_runs(
    run: Run, labelled: tuple[str, ...], tmp_path: Path
):
    outcome = run("eval", "shapes", *labelled, "--report", tmp_path / "report.pdf")
    assert outcome.code == 1
    (line,) = outcome.complaints
    assert "report.pdf: a report is one of .html, .md, .json" in line
    assert outcome.stdout == "" and "evaluating" not in outcome.stderr


def test_pictures_of_coco_and_a_yolov3_get_a_note(run: Run, tmp_path: Path):
    cfg = tmp_path / "yolov3-mini.cfg"
    cfg.write_text(MINI_CFG)
    spec = load_spec(cfg)
    rng = np.random.default_rng(0)
    weights = {key: rng.normal(0, 0.1, shape).astype(np.float32) for key, shape in spec.weight_shapes.items()}
    save_darknet_weights(spec, weights, cfg.with_suffix(".weights"))
    truth = TruePicture("000000000001.jpg", (40, 40), np.array([[5, 5, 20, 20]], np.float32), np.array([3], np.int32))
    (tmp_path / "truth.json").write_text(json.dumps(coco_instances([truth], COCO_NAMES)))
    cv2.imwrite(str(tmp_path / truth.file_name), np.zeros((40, 40, 3), np.uint8))
    options = ("--images", tmp_path, "--annotations", tmp_path / "truth.json", "--resamples", "10")
    by_order, note = run("eval", cfg, *options, "--json", "-").json["notes"]
    assert "classes are matched by order" in by_order
    assert note.startswith("this does not concern you if you trained yolov3-mini from scratch")
    assert f"note: {note}" in run("eval", cfg, *options).stdout


def test_compare_shows_the_difference_in_ap(run: Run, labelled: tuple[str, ...], graph: Path):
    report = run("compare", "shapes", graph, *labelled, "--json", "-").json
    accuracy = report["accuracy"]
    assert accuracy["AP_difference"] == pytest.approx(accuracy["b"]["AP"] - accuracy["a"]["AP"])
    assert len(accuracy["AP_difference_interval"]) == 2
    assert f"{graph} against shapes: AP " in run("compare", "shapes", graph, *labelled).stdout
