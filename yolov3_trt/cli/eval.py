"""`eval`: COCO average precision."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.data_options import DataOption, SkipFaultyOption, SplitOption, labelled_from_options
from yolov3_trt.cli.options import (
    BackendOption,
    InputSizeOption,
    IouOption,
    JsonOption,
    ModelOptions,
    NamesOption,
    NmsOption,
    ResizeOption,
    ThreadsOption,
    TrustOption,
    WeightsOption,
    open_for_verb,
    readable,
    writable,
)
from yolov3_trt.cli.output import say, table, track, write_result
from yolov3_trt.settings import DetectSettings

if TYPE_CHECKING:
    from yolov3_trt.data.labelled import LabelledSet
    from yolov3_trt.detector import Detector
    from yolov3_trt.evaluation.accuracy import Accuracy, AccuracyDifference, Evaluated, Evaluation


def evaluate(
    artifacts: Annotated[
        list[str],
        typer.Argument(metavar="ARTIFACT...", help="Models, .onnx or .engine files; the first is compared with."),
    ],
    data: DataOption = None,
    split: SplitOption = None,
    skip_faulty: SkipFaultyOption = False,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the images of a COCO JSON; default: looked for beside it.",
            callback=readable("--images", is_folder=True),
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="COCO instances (JSON); the same as --data.", callback=readable("--annotations")
        ),
    ] = None,
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    backend: BackendOption = "auto",
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Confidence threshold; default: 0.005, as Darknet evaluates.")
    ] = None,
    iou: IouOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    threads: ThreadsOption = None,
    trust: TrustOption = False,
    resamples: Annotated[
        int, typer.Option(min=0, max=100_000, help="Draws of the images for the 95 % interval of AP; 0: none.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of those draws.")] = 0,
    per_class: Annotated[bool, typer.Option("--per-class", help="Print AP of every class.")] = False,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Draw the N pictures that came out worst.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", callback=writable("-o"), metavar="DIR", help="For those pictures; needs --worst."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=writable("--report", is_file=True),
            help="Write a report: .html (with those pictures), .md or .json.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Measure COCO average precision of artifacts, side by side on the same images.

    --weights, --names and --input-size are for the artifacts that are models.
    """
    from yolov3_trt.evaluation.accuracy import Evaluation
    from yolov3_trt.report import check_report_path, write_evaluation_report

    if report is not None:
        check_report_path(report)
    if bool(worst) != bool(output) and not (worst and report):
        raise typer.BadParameter("--worst N wants -o DIR or --report FILE, and -o wants --worst", param_hint="--worst")
    model, detect = ModelOptions(weights, names, input_size), DetectSettings(conf, iou, None, nms, resize)
    labelled = labelled_from_options(data, split, images, annotations, skip_faulty=skip_faulty)
    if labelled is None:
        raise typer.BadParameter(
            "expected a labelled set, e.g. a data.yaml or a COCO JSON (or --images DIR --annotations FILE)",
            param_hint="--data",
        )
    rows: list[Evaluated] = []
    for artifact in dict.fromkeys(artifacts):
        with open_for_verb(
            artifact,
            model.for_models_only(artifact),
            for_evaluation(detect),
            backend=backend,
            threads=threads,
            trust=trust,
        ) as detector:
            rows.append(evaluate_artifact(artifact, detector, labelled, (resamples, seed)))
    result = Evaluation(tuple(rows), resamples, seed)
    content, worst_pictures, gallery = result.to_json(), list[dict[str, Any]](), list[Any]()
    if worst:
        from yolov3_trt.cli.worst import draw_worst

        worst_pictures, gallery = draw_worst(rows, worst, output)
        content["worst"] = worst_pictures
    if report is not None:
        from yolov3_trt.benchmarking.machine import machine

        write_evaluation_report(report, result, machine(), gallery, ["yolov3_trt", *sys.argv[1:]])
        say(f"wrote {report}")
    write_result(json, content, _text(result, worst_pictures, per_class))


def for_evaluation(detect: DetectSettings) -> DetectSettings:
    """The same with the threshold of an evaluation where none is given."""
    from dataclasses import replace

    from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD

    return replace(detect, conf=EVAL_CONF_THRESHOLD if detect.conf is None else detect.conf)


def evaluate_artifact(
    artifact: str, detector: "Detector", labelled: "LabelledSet", draws: tuple[int, int]
) -> "Evaluated":
    """One artifact on all pictures; `draws` are the bootstrap's number and seed."""
    from yolov3_trt.evaluation.accuracy import Evaluated, measure_accuracy
    from yolov3_trt.evaluation.origin import training_overlap_note

    def tracked(items: Iterable[Any], what: str, total: int | None) -> Iterable[Any]:
        return track(items, f"evaluating {artifact}" if what == "evaluating" else what, total)

    truth = labelled.truth_for(detector.meta.class_names)
    accuracy = measure_accuracy(detector, truth, resamples=draws[0], seed=draws[1], track=tracked)
    note = training_overlap_note(detector.meta, truth)
    return Evaluated(
        artifact,
        detector.backend.name.value,
        detector.meta.precision.value,
        detector.meta.preprocess.resize.value,
        detector.postprocess.nms.kind.value,
        detector.postprocess.conf,
        _size_bytes(artifact),
        accuracy,
        truth,
        detector.backend.meta.postprocess.conf,
        detector.backend.fallbacks,
        (*truth.notes, *([] if note is None else [note])),
    )


def _size_bytes(artifact: str) -> int | None:
    """Of a file; None for a built-in model and what a server runs."""
    path = Path(artifact)
    return path.stat().st_size if path.is_file() and path.suffix != ".cfg" else None


def _text(result: "Evaluation", worst: Sequence[dict[str, Any]], per_class: bool) -> str:
    from yolov3_trt.evaluation import METRICS

    rows = result.rows
    lines = [(row.artifact, *(_with_interval(row.accuracy, metric) for metric in METRICS)) for row in rows]
    parts = [f"{rows[0].accuracy.images} images", table(("artifact", *METRICS), lines)]
    parts += [_counts_text(row, len(rows) > 1) for row in rows]
    parts += [difference_text(difference) for difference in result.differences]
    if result.resamples:
        parts.append(f"in brackets: 95 % intervals, of {result.resamples} draws of the images")
    if per_class:
        parts.append(_class_table(result))
    if worst:
        parts.append("the worst pictures" + (", all artifacts together:" if len(rows) > 1 else ":"))
    parts += [
        f"{entry['file_name']}: {entry['found']} found, {entry['missed']} missed, {entry['false']} false"
        + (f"  {entry['picture']}" if entry["picture"] else "")
        for entry in worst
    ]
    parts += [f"fallback of {row.artifact}: {reason}" for row in rows for reason in row.fallbacks]
    return "\n".join([*parts, *(f"note: {note}" for note in result.notes)])


def _counts_text(row: "Evaluated", named: bool) -> str:
    """As Darknet's `detector map` ends."""
    counts = row.counts
    figures = f"mAP@.5 {_plain(counts.mAP50)}; at conf {counts.conf:g}: TP {counts.tp}, FP {counts.fp}, FN {counts.fn}"
    rates = ", ".join(f"{name} {_plain(getattr(counts, name))}" for name in ("precision", "recall", "f1"))
    return f"as Darknet counts{f', {row.artifact}' if named else ''}: {figures}, {rates}"


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
