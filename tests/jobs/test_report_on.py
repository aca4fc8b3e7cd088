"""A report of a model in several precisions: from a data set to one page."""

from pathlib import Path

import pytest

import yolov3_trt
from tests.cli_runner import Run
from yolov3_trt.data.shapes import write_shapes_data_set


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small labelled set of the bundled model's classes."""
    return write_shapes_data_set(tmp_path_factory.mktemp("set"), num_train=4, num_val=6, seed=3)


def test_one_command_makes_graphs_accuracy_speed_and_a_page(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    found = yolov3_trt.report_on(
        "shapes",
        data=shapes,
        precisions="fp32,int8",
        num_images=4,
        frames=2,
        max_ap_drop=0.5,
        worst=2,
        reporter=yolov3_trt.Reporter(told.append),
    )
    assert [path.name for path in found.artifacts] == ["shapes-256-fp32.onnx", "shapes-256-int8.onnx"]
    fp32, int8 = found.evaluation.rows
    assert fp32.accuracy.metrics["AP"] > 0.5 and (fp32.precision, int8.precision) == ("fp32", "int8")
    alone = yolov3_trt.evaluate(found.artifacts[0], data=shapes, resamples=0)
    assert alone.rows[0].accuracy.metrics == fp32.accuracy.metrics
    assert [row.label.split()[0] for row in found.benchmark.rows] == [
        "shapes",
        "shapes-256-fp32.onnx",
        "shapes-256-int8.onnx",
    ]
    page = (tmp_path / "report.html").read_text()
    for part in (
        "Accuracy and speed",
        "Latency",
        "Proof that AP holds",
        "shapes-256-int8.onnx",
        "missed",
        "data:image/jpeg",
    ):
        assert part in page, part
    assert found.to_json()["artifacts"] == ["engines/shapes-256-fp32.onnx", "engines/shapes-256-int8.onnx"]


def test_what_cannot_be_reported_on_is_refused_before_the_work(run: Run, shapes: Path, tmp_path: Path):
    val = shapes.parent / "val.json"
    for arguments, text in (
        ((), "expected a labelled set, e.g. a data.yaml or a COCO JSON"),
        (("--data", shapes, "--precisions", "fp8"), "got 'fp8'; expected one of fp32, fp16, int8"),
        (("--data", val), "expected pictures to calibrate on, others than those of data"),
    ):
        outcome = run("report", "shapes", "-o", tmp_path / "r.html", "--folder", tmp_path / "engines", *arguments)
        assert outcome.code == 2 and text in outcome.usage_error, outcome
    outcome = run("report", "shapes", "--data", shapes, "-o", tmp_path / "r.pdf")
    assert outcome.code == 1 and "a report is one of .html, .md, .json" in outcome.stderr
    assert not (tmp_path / "engines").exists()
