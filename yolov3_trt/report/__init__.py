"""Reports of benchmarks and evaluations: one self-contained HTML file, Markdown, or JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3_trt.errors import OutputError
from yolov3_trt.files import write_text

if TYPE_CHECKING:
    from yolov3_trt.benchmarking.results import BenchmarkResult
    from yolov3_trt.data.checking import CheckedSet
    from yolov3_trt.evaluation.accuracy import Evaluation
    from yolov3_trt.report.parts import Report

SUFFIXES = (".html", ".md", ".json")


def write_benchmark_report(path: Path, result: "BenchmarkResult", command: Sequence[str] = ()) -> None:
    """Write a report of a benchmark, whole or not at all.

    Args:
        path: its suffix says what it becomes: one of SUFFIXES.
        result: of `yolov3_trt.benchmark`.
        command: that it was made with.

    Raises:
        OutputError: another suffix, or the file cannot be written.
    """
    check_report_path(path)
    if path.suffix == ".json":
        _write_json(path, {"command": list(command), **result.to_json()})
        return
    from yolov3_trt.report.content import benchmark_report
    from yolov3_trt.report.gallery import benchmark_gallery

    _write(path, benchmark_report(result, benchmark_gallery(result), command))


def write_evaluation_report(path: Path, result: "Evaluation", command: Sequence[str] = ()) -> None:
    """Write a report of an evaluation, whole or not at all.

    Args:
        path: its suffix says what it becomes: one of SUFFIXES; HTML shows the worst pictures that the result holds.
        result: of `yolov3_trt.evaluate`.
        command: that it was made with.

    Raises:
        OutputError: another suffix, or the file cannot be written.
    """
    check_report_path(path)
    if path.suffix == ".json":
        _write_json(path, {"command": list(command), **result.to_json()})
        return
    from yolov3_trt.report.content import evaluation_report
    from yolov3_trt.report.gallery import evaluation_gallery

    _write(path, evaluation_report(result, evaluation_gallery(result), command))


def write_model_report(
    path: Path, accuracy: "Evaluation", speed: "BenchmarkResult", command: Sequence[str] = ()
) -> None:
    """Write a report of a model in several precisions, whole or not at all.

    Args:
        path: its suffix says what it becomes: one of SUFFIXES; HTML shows the worst pictures that `accuracy` holds.
        accuracy: of `yolov3_trt.evaluate`.
        speed: of `yolov3_trt.benchmark`, of the same artifacts.
        command: that it was made with.

    Raises:
        OutputError: another suffix, or the file cannot be written.
    """
    check_report_path(path)
    if path.suffix == ".json":
        _write_json(path, {"command": list(command), "evaluation": accuracy.to_json(), "benchmark": speed.to_json()})
        return
    from yolov3_trt.report.content import model_report
    from yolov3_trt.report.gallery import evaluation_gallery

    _write(path, model_report(accuracy, speed, evaluation_gallery(accuracy), command))


def write_data_report(path: Path, checked: "CheckedSet", pictures: int = 12) -> None:
    """Write what a check of a data set found, whole or not at all.

    Args:
        path: its suffix says what it becomes: one of SUFFIXES.
        checked: from `data.checking.check_set`.
        pictures: how many are shown with their boxes, in HTML only.

    Raises:
        OutputError: another suffix, or the file cannot be written.
    """
    check_report_path(path)
    if path.suffix == ".json":
        _write_json(path, checked.to_json())
        return
    from yolov3_trt.report.data_set import data_set_report
    from yolov3_trt.report.gallery import data_gallery

    _write(path, data_set_report(checked, data_gallery(checked, pictures)))


def check_report_path(path: Path) -> None:
    """Refuse a name that says no format, before hours are spent on measuring.

    Raises:
        OutputError: what it is and what was expected.
    """
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path}: a report is one of {', '.join(SUFFIXES)}; give a name that ends in one of them")


def _write(path: Path, report: "Report") -> None:
    from yolov3_trt.report.markdown import markdown_from_report
    from yolov3_trt.report.page import html_from_report

    write_text(path, html_from_report(report) if path.suffix == ".html" else markdown_from_report(report))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
