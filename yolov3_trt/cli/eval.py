"""`eval`: COCO average precision."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.data_options import (
    AnnotationsOption,
    CocoImagesOption,
    DataOption,
    SkipFaultyOption,
    SplitOption,
    sets_from_options,
)
from yolov3_trt.cli.groups import ModelOptions, RunOptions, takes
from yolov3_trt.cli.options import JsonOption, writes
from yolov3_trt.cli.output import reporter, say, table, write_result
from yolov3_trt.selection import Selection
from yolov3_trt.settings import DetectSettings

_WORST_OF_REPORT = 6

if TYPE_CHECKING:
    from yolov3_trt.evaluation.accuracy import Accuracy, AccuracyDifference, Evaluated, Evaluation


@takes(ModelOptions, RunOptions, DetectSettings, Selection, without={"wait"})
def evaluate(
    artifacts: Annotated[
        list[str],
        typer.Argument(metavar="ARTIFACT...", help="Models, .onnx or .engine files; the first is compared with."),
    ],
    data: DataOption = None,
    split: SplitOption = None,
    skip_faulty: SkipFaultyOption = False,
    images: CocoImagesOption = None,
    annotations: AnnotationsOption = None,
    resamples: Annotated[
        int, typer.Option(min=0, max=100_000, help="Draws of the images for the 95 % interval of AP; 0: none.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of those draws.")] = 0,
    max_ap_drop: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Say whether AP of the others is proven to drop by less than this below the first's."
        ),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Print AP of every class.")] = False,
    worst: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Draw the N pictures that came out worst; with --report FILE.html 6."),
    ] = None,
    output: Annotated[
        Path | None,
        writes("DIR", "Folder for the pictures of --worst.", "-o", "--output", is_folder=True),
    ] = None,
    report: Annotated[
        Path | None,
        writes("FILE", "Write a report: .html (with those pictures), .md or .json.", "--report"),
    ] = None,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Measure COCO average precision of artifacts, side by side on the same images.

    The confidence threshold is 0.005 by default, as Darknet evaluates. --weights, --names and --input-size are for models only.
    With --classes only those are scored; with --min-size and --zones what is smaller or elsewhere does not count either way.
    """
    from yolov3_trt.jobs.evaluate import evaluate as job
    from yolov3_trt.report import check_report_path, write_evaluation_report

    if report is not None:
        check_report_path(report)
    if worst is None:
        worst = _WORST_OF_REPORT if report is not None and report.suffix == ".html" else 0
    if bool(worst) != bool(output) and not (worst and report):
        raise typer.BadParameter("--worst N wants -o DIR or --report FILE, and -o wants --worst", param_hint="--worst")
    labelled = sets_from_options(images, data, split, annotations, skip_faulty=skip_faulty)[1]
    if labelled is None:
        raise typer.BadParameter(
            "expected a labelled set, e.g. a data.yaml or a COCO JSON (or --images DIR --annotations FILE)",
            param_hint="--data",
        )
    result = job(
        artifacts,
        data=labelled,
        resamples=resamples,
        seed=seed,
        max_ap_drop=max_ap_drop,
        worst=worst,
        worst_folder=output,
        reporter=reporter(),
        **settings,
    )
    if report is not None:
        write_evaluation_report(report, result, ["yolov3_trt", *sys.argv[1:]])
        say(f"wrote {report}")
    write_result(json, result.to_json(), evaluation_text(result, per_class))


def evaluation_text(result: "Evaluation", per_class: bool = False) -> str:
    """The tables of an evaluation."""
    from yolov3_trt.evaluation import METRICS

    rows = result.rows
    lines = [(row.artifact, *(_with_interval(row.accuracy, metric) for metric in METRICS)) for row in rows]
    parts = [f"{rows[0].accuracy.images} images", table(("artifact", *METRICS), lines)]
    parts += [_counts_text(row, len(rows) > 1) for row in rows]
    parts += [difference_text(difference) for difference in result.differences]
    parts += [f"{name}: {certificate}" for name, certificate in result.certificates.items()]
    parts += ["errors, by the AP50 that one kind alone costs (how many there are):", _error_table(result)]
    parts += [
        f"{_objects(errors.lost)} that {rows[0].artifact} shows are lost in {row.artifact}, {_objects(errors.gained)} gained"
        for row, errors in zip(rows[1:], result.error_differences, strict=True)
    ]
    if result.resamples:
        parts.append(f"in brackets: 95 % intervals, of {result.resamples} draws of the images")
    if per_class:
        parts.append(_class_table(result))
    if result.worst:
        parts.append("the worst pictures" + (", all artifacts together:" if len(rows) > 1 else ":"))
    parts += [
        f"{score.file_name}: {score.found} found, {score.missed} missed, {score.false} false"
        + (f"  {path}" if path else "")
        for score, path in ((picture.score, picture.path) for picture in result.worst)
    ]
    parts += [f"fallback of {row.artifact}: {reason}" for row in rows for reason in row.fallbacks]
    return "\n".join([*parts, *(f"note: {note}" for note in result.notes)])


def _counts_text(row: "Evaluated", named: bool) -> str:
    """As Darknet's `detector map` ends."""
    counts = row.counts
    figures = f"mAP@.5 {_plain(counts.mAP50)}; at conf {counts.conf:g}: TP {counts.tp}, FP {counts.fp}, FN {counts.fn}"
    rates = ", ".join(f"{name} {_plain(getattr(counts, name))}" for name in ("precision", "recall", "f1"))
    return f"as Darknet counts{f', {row.artifact}' if named else ''}: {figures}, {rates}"


def _error_table(result: "Evaluation") -> str:
    """A line for each artifact, and for what it loses more than the first."""
    from yolov3_trt.evaluation.tide import KINDS

    lines = [
        (row.artifact, *(f"{row.errors.costs[kind]:.4f} ({row.errors.counts[kind]})" for kind in KINDS))
        for row in result.rows
    ]
    lines += [
        (f"{row.artifact} more", *(f"{errors.costs[kind]:+.4f}" for kind in KINDS))
        for row, errors in zip(result.rows[1:], result.error_differences, strict=True)
    ]
    return table(("artifact", *KINDS), lines)


def _objects(by_kind: Mapping[str, int]) -> str:
    """`3 objects (1 localisation, 2 missed)`."""
    total = sum(by_kind.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in by_kind.items() if count)
    return f"{total} object{'' if total == 1 else 's'}" + (f" ({kinds})" if kinds else "")


def difference_text(difference: "AccuracyDifference") -> str:
    """`B against A: AP +0.0003 [-0.0002, +0.0023], AP50 ...`."""
    figures = ", ".join(
        f"{metric} {_signed(value)}{_bounds(difference.intervals[metric], '+')}"
        for metric, value in difference.values.items()
    )
    return f"{difference.artifact} against {difference.reference}: {figures}"


def _class_table(result: "Evaluation") -> str:
    """Classes of which there are objects, by number of objects."""
    from yolov3_trt.evaluation.accuracy import METRICS_RESAMPLED

    header = ("class", "objects", *(f"{metric} {row.artifact}" for row in result.rows for metric in METRICS_RESAMPLED))
    tables = (row.accuracy.per_class for row in result.rows)
    classes = [entry for entry in zip(*tables, strict=True) if entry[0].objects]
    classes.sort(key=lambda entry: -entry[0].objects)
    lines = [
        (entry[0].class_name, str(entry[0].objects), *(_plain(value) for one in entry for value in (one.AP, one.AP50)))
        for entry in classes
    ]
    return table(header, lines)


def _with_interval(accuracy: "Accuracy", metric: str) -> str:
    return _plain(accuracy.metrics[metric]) + _bounds(accuracy.intervals.get(metric))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _bounds(bounds: Sequence[float] | None, sign: str = "") -> str:
    return "" if bounds is None else f" [{bounds[0]:{sign}.4f}, {bounds[1]:{sign}.4f}]"
