"""A model in several precisions: what each costs in accuracy and gives in speed, on one page."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import flag, one_of, text
from yolov3_trt.arguments import path as path_of
from yolov3_trt.benchmarking.results import BenchmarkResult
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.errors import SettingError
from yolov3_trt.evaluation.accuracy import Evaluation
from yolov3_trt.files import Written
from yolov3_trt.jobs.benchmark import benchmark
from yolov3_trt.jobs.build import build
from yolov3_trt.jobs.evaluate import evaluate
from yolov3_trt.jobs.export import artifact_stem, export
from yolov3_trt.jobs.opening import sets_from
from yolov3_trt.meta import Precision
from yolov3_trt.models import load_model
from yolov3_trt.report import check_report_path, write_model_report
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.settings import CalibrationSettings, DetectSettings, GraphSettings, settings_from


@dataclass(frozen=True, repr=False)
class ModelReport(Written):
    """A report that was written; goes wherever its path does.

    Attributes:
        path: of the report.
        artifacts: graphs or engines that were made, in the order of the precisions.
        evaluation: of these; the others are compared with the first.
        benchmark: of these, beside the model on PyTorch where that is installed.
    """

    path: Path
    artifacts: tuple[Path, ...]
    evaluation: Evaluation
    benchmark: BenchmarkResult

    def to_json(self) -> dict[str, Any]:
        """As `report --json` writes it."""
        return {
            "report": str(self.path),
            "artifacts": [str(one) for one in self.artifacts],
            "evaluation": self.evaluation.to_json(),
            "benchmark": self.benchmark.to_json(),
        }


def report_on(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str] = "report.html",
    *,
    data: str | os.PathLike[str] | LabelledSet,
    split: str | None = None,
    skip_faulty: bool = False,
    precisions: str | Iterable[str] = ("fp32", "fp16", "int8"),
    engines: bool = False,
    folder: str | os.PathLike[str] = "engines",
    max_ap_drop: float | None = None,
    worst: int = 6,
    frames: int = 50,
    weights: str | os.PathLike[str] | None = None,
    names: str | None = None,
    input_size: Any = None,
    command: Sequence[str] = (),
    reporter: Reporter = SILENT,
    **settings: Any,
) -> ModelReport:
    """Export a model in each precision, measure accuracy and speed of all side by side, and write one report.

    Args:
        model: a built-in name or a `.cfg`.
        path: of the report; its suffix says what it becomes: `.html`, `.md` or `.json`.
        data: labelled pictures, see `data.labelled_set`. INT8 is calibrated on its train part where neither
            `images` nor `table` is given.
        split: what is measured on; None: `val`.
        skip_faulty: leave out faulty labels and pictures, which is said, instead of refusing the set.
        precisions: some of `fp32`, `fp16`, `int8`, the first being what the others are compared with.
        engines: build a TensorRT engine of each graph, and measure these; wants the GPU that they are for.
        folder: for graphs, tables and engines.
        max_ap_drop: say whether AP is proven to drop by less than this; None: no such statement.
        worst: show this many pictures that came out worst.
        frames: timed calls of each row.
        weights: Darknet `.weights`; see `load_model`, as for the next two.
        names: of the classes.
        input_size: px.
        command: that the report says it was made with.
        reporter: is told how it gets on.
        settings: any of `CalibrationSettings`, for INT8, and `DetectSettings`.

    Raises:
        SettingError: an argument has no such value, or does not go with another.
        OutputError: a file cannot be written, or `path` has another suffix.
        Yolov3TrtError: whatever of the chain failed.

    >>> report_on("yolov3-tiny.cfg", "report.html", data="data.yaml").evaluation.rows[0].accuracy  # doctest: +SKIP
    """
    report = path_of("path", path)
    check_report_path(report)
    chosen = _precisions(precisions)
    name = text("model", model)
    labelled = sets_from(None, data, split, None, reporter, skip_faulty=flag("skip_faulty", skip_faulty))[1]
    assert labelled is not None
    if Precision.INT8 in chosen and all(settings.get(one) is None for one in ("images", "table", "calibration")):
        if not labelled.has_splits:
            raise SettingError(
                "images", "missing with int8; expected pictures to calibrate on, others than those of data"
            )
        settings["images"] = str(labelled.path)
    calibration, detect = settings_from(settings, CalibrationSettings, DetectSettings)
    loaded, made = load_model(name, weights, names, input_size), []
    for precision in chosen:
        graph = GraphSettings(precision)
        ranges = calibration if precision is Precision.INT8 else CalibrationSettings()
        target = path_of("folder", folder) / artifact_stem(loaded.spec, graph)
        exported = export(loaded, f"{target}.onnx", graph=graph, calibration=ranges, detect=detect, reporter=reporter)
        reporter.say(f"{exported.path}: written")
        made.append(build(exported, f"{target}.engine", reporter=reporter).path if engines else exported.path)
    artifacts = [str(one) for one in made]
    evaluation = evaluate(
        artifacts, data=labelled, max_ap_drop=max_ap_drop, worst=worst, detect=detect, reporter=reporter
    )
    rows = [*([name] if find_spec("torch") else []), *artifacts]
    timed = benchmark(
        rows,
        images=labelled,
        weights=weights,
        names=names,
        input_size=input_size,
        detect=detect,
        frames=frames,
        reporter=reporter,
    )
    write_model_report(report, evaluation, timed, command)
    return ModelReport(report, tuple(made), evaluation, timed)


def _precisions(given: str | Iterable[str]) -> tuple[Precision, ...]:
    """`fp32,int8`, or a list of them."""
    words = given.split(",") if isinstance(given, str) else given
    found = tuple(dict.fromkeys(one_of("precisions", word, Precision) for word in words))
    if not found:
        raise SettingError("precisions", "got none; expected some of fp32, fp16, int8")
    return found
