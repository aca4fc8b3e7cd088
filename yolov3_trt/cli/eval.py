"""`eval`: COCO average precision."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import (
    BackendOption,
    DetectOptions,
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

if TYPE_CHECKING:
    import numpy as np

    from yolov3_trt.detections import Detections
    from yolov3_trt.detector import Detector
    from yolov3_trt.evaluate import Annotations, Scores

METRICS_RESAMPLED = ("AP", "AP50")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One artifact on all pictures."""

    artifact: str
    truth: "Annotations"
    found: "dict[Any, Detections]"  # by image id
    scores: "Scores"
    draws: "np.ndarray[Any, Any]"  # AP and AP50 of each draw of the bootstrap, (draws, 2)
    confidence: float  # that the artifact detects with when nothing else is said
    json: dict[str, Any] = field(default_factory=dict)


def evaluate(
    artifacts: Annotated[
        list[str],
        typer.Argument(metavar="ARTIFACT...", help="Models, .onnx or .engine files; the first is compared with."),
    ],
    images: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of the images.", callback=readable("--images", is_folder=True)),
    ],
    annotations: Annotated[
        Path, typer.Option(metavar="FILE", help="COCO instances (JSON).", callback=readable("--annotations"))
    ],
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
    from yolov3_trt.report import check_report_path

    if report is not None:
        check_report_path(report)
    if bool(worst) != bool(output) and not (worst and report):
        raise typer.BadParameter("--worst N wants -o DIR or --report FILE, and -o wants --worst", param_hint="--worst")
    model, detect = ModelOptions(weights, names, input_size), DetectOptions(conf, iou, None, nms, resize)
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
            rows.append(evaluate_artifact(artifact, detector, annotations, images, (resamples, seed)))
    content = _content(rows, resamples, seed)
    gallery: list[Any] = []
    if worst:
        from yolov3_trt.cli.worst import draw_worst

        content["worst"], gallery = draw_worst(rows, images, worst, output)
    if report is not None:
        _write_report(report, content, rows, gallery)
    text = _text(content, rows, per_class)
    write_result(json, content, text)


def for_evaluation(detect: DetectOptions) -> DetectOptions:
    """The same with the threshold of an evaluation where none is given."""
    from dataclasses import replace

    from yolov3_trt.evaluate import EVAL_CONF_THRESHOLD

    return replace(detect, conf=EVAL_CONF_THRESHOLD if detect.conf is None else detect.conf)


def evaluate_artifact(
    artifact: str, detector: "Detector", annotations: Path, images: Path, draws: tuple[int, int]
) -> Evaluated:
    """One artifact on all pictures; `draws` are the bootstrap's number and seed."""
    from yolov3_trt.evaluate import detect_all, load_annotations, score_detections
    from yolov3_trt.evaluate.bootstrap import draw_images, resampled_ap
    from yolov3_trt.evaluate.origin import training_overlap_note

    truth = load_annotations(annotations, detector.meta.class_names)
    total = len(truth.images)
    found = detect_all(detector, truth, images, lambda items: track(items, f"evaluating {artifact}", total))
    scores = score_detections(truth, found)
    resampled = resampled_ap(
        scores.matches, draw_images(len(found), *draws), lambda groups: track(groups, "resampling")
    )
    note = training_overlap_note(detector.meta, truth.content)
    json = {
        "artifact": artifact,
        "backend": detector.backend.name.value,
        "precision": detector.meta.precision.value,
        "resize": detector.meta.preprocess.resize.value,
        "nms": detector.postprocess.nms.kind.value,
        "conf": detector.postprocess.conf,
        "size_bytes": _size_bytes(artifact),
        "images": len(found),
        **scores.metrics,
        **_intervals(resampled, ""),
        "per_class": [vars(entry) for entry in scores.per_class],
        "fallbacks": list(detector.backend.fallbacks),
        "notes": [] if note is None else [note],
    }
    confidence = detector.backend.meta.postprocess.conf
    return Evaluated(artifact, truth, found, scores, resampled, confidence, json)


def _size_bytes(artifact: str) -> int | None:
    """Of a file; None for a built-in model and what a server runs."""
    path = Path(artifact)
    return path.stat().st_size if path.is_file() and path.suffix != ".cfg" else None


def _intervals(draws: "np.ndarray[Any, Any]", name: str) -> dict[str, Any]:
    """The interval of each metric that was resampled, by its name; None where there were no draws."""
    from yolov3_trt.evaluate.bootstrap import interval

    ends = {f"{metric}{name}_interval": interval(draws[:, n]) for n, metric in enumerate(METRICS_RESAMPLED)}
    return {key: None if bounds is None else list(bounds) for key, bounds in ends.items()}


def _content(rows: Sequence[Evaluated], resamples: int, seed: int) -> dict[str, Any]:
    """For `--json`: of one artifact its keys at the top, of several a row each and their differences."""
    how = {"resamples": resamples, "seed": seed}
    if len(rows) == 1:
        return {**rows[0].json, **how}
    notes = list(dict.fromkeys(note for row in rows for note in row.json["notes"]))
    differences = [difference_between(rows[0], row) for row in rows[1:]]
    return {**how, "notes": notes, "rows": [row.json for row in rows], "differences": differences}


def difference_between(reference: Evaluated, row: Evaluated) -> dict[str, Any]:
    """How much more AP a row has, with the interval over draws that both had alike."""
    content: dict[str, Any] = {"artifact": row.artifact, "reference": reference.artifact}
    for metric in METRICS_RESAMPLED:
        a, b = reference.scores.metrics[metric], row.scores.metrics[metric]
        content[f"{metric}_difference"] = None if a is None or b is None else b - a
    return {**content, **_intervals(row.draws - reference.draws, "_difference")}


def _write_report(path: Path, content: dict[str, Any], rows: Sequence[Evaluated], gallery: list[Any]) -> None:
    from yolov3_trt.benchmark.machine import machine
    from yolov3_trt.report import write_report

    first = rows[0]
    whole = {
        "machine": machine(),
        "command": ["yolov3_trt", *sys.argv[1:]],
        "annotations": str(first.truth.path),
        "conf": first.json["conf"],
        "notes": content["notes"],
        **content,
        "rows": [{**row.json, "label": row.artifact} for row in rows],
    }
    write_report(path, whole, gallery)
    say(f"wrote {path}")


def _text(content: dict[str, Any], rows: Sequence[Evaluated], per_class: bool) -> str:
    from yolov3_trt.evaluate import METRICS

    lines = [(row.artifact, *(_with_interval(row, metric) for metric in METRICS)) for row in rows]
    parts = [f"{rows[0].json['images']} images", table(("artifact", *METRICS), lines)]
    parts += [difference_text(difference) for difference in content.get("differences", ())]
    if content["resamples"]:
        parts.append(f"in brackets: 95 % intervals, of {content['resamples']} draws of the images")
    if per_class:
        parts.append(_class_table(rows))
    if content.get("worst"):
        parts.append("the worst pictures" + (", all artifacts together:" if len(rows) > 1 else ":"))
    parts += [
        f"{entry['file_name']}: {entry['found']} found, {entry['missed']} missed, {entry['false']} false"
        + (f"  {entry['picture']}" if entry["picture"] else "")
        for entry in content.get("worst", ())
    ]
    parts += [f"fallback of {row.artifact}: {reason}" for row in rows for reason in row.json["fallbacks"]]
    return "\n".join([*parts, *(f"note: {note}" for note in content["notes"])])


def difference_text(difference: dict[str, Any]) -> str:
    """`B against A: AP +0.0003 [-0.0002, +0.0023], AP50 ...`."""
    both = (
        _signed(difference[f"{metric}_difference"]) + _bounds(difference[f"{metric}_difference_interval"], "+")
        for metric in METRICS_RESAMPLED
    )
    figures = ", ".join(f"{metric} {text}" for metric, text in zip(METRICS_RESAMPLED, both, strict=True))
    return f"{difference['artifact']} against {difference['reference']}: {figures}"


def _class_table(rows: Sequence[Evaluated]) -> str:
    """Classes of which there are objects, by number of objects."""
    header = ("class", "objects", *(f"{metric} {row.artifact}" for row in rows for metric in METRICS_RESAMPLED))
    classes = [entry for entry in zip(*(row.scores.per_class for row in rows), strict=True) if entry[0].objects]
    classes.sort(key=lambda entry: -entry[0].objects)
    lines = [
        (entry[0].class_name, str(entry[0].objects), *(_plain(value) for one in entry for value in (one.AP, one.AP50)))
        for entry in classes
    ]
    return table(header, lines)


def _with_interval(row: Evaluated, metric: str) -> str:
    return _plain(row.scores.metrics[metric]) + _bounds(row.json.get(f"{metric}_interval"))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _bounds(bounds: Sequence[float] | None, sign: str = "") -> str:
    return "" if bounds is None else f" [{bounds[0]:{sign}.4f}, {bounds[1]:{sign}.4f}]"
