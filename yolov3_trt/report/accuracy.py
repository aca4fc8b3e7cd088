"""Sections on results: parity with the reference, average precision, classes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from yolov3_trt.benchmarking.parity import Parity
from yolov3_trt.benchmarking.results import RowResult
from yolov3_trt.evaluation import METRICS
from yolov3_trt.evaluation.accuracy import METRICS_RESAMPLED, Accuracy, AccuracyDifference
from yolov3_trt.report.figures import plain, within
from yolov3_trt.report.parts import Bar, Chart, Section, Table


@dataclass(frozen=True)
class Scored:
    """A row of either kind of result with its accuracy."""

    label: str
    accuracy: Accuracy
    bad: bool = False  # it failed the parity gate


def parity_section(rows: Sequence[RowResult]) -> Section | None:
    """Whether each row finds what the reference finds."""
    gated = [(row.label, row.parity) for row in rows if row.parity is not None]
    if not gated:
        return None
    lines = tuple((label, *_parity_cells(parity)) for label, parity in gated)
    header = ("row", "parity", "images", "matched", "missing", "extra", "score off by", "IoU at least", "tolerance")
    bad = frozenset(index for index, (_, parity) in enumerate(gated) if not parity.passed)
    text = f"Detections of each row matched with those of {gated[0][1].reference}: same class, boxes that overlap."
    return Section("Parity with the reference", (text,), None, Table(header, lines, bad))


def accuracy_section(rows: Sequence[Scored], notes: Sequence[str] = ()) -> Section | None:
    """Average precision with its interval."""
    bars, lines = [], []
    for row in rows:
        ap, bounds = row.accuracy.metrics["AP"], row.accuracy.intervals["AP"]
        if ap is not None:
            bars.append(Bar(row.label, f"{ap:.4f}", (("AP", ap),), bounds, bad=row.bad))
        cells = (plain(row.accuracy.metrics[metric], ".4f") for metric in METRICS[1:])
        lines.append((row.label, str(row.accuracy.images), within(ap, bounds, ".4f"), *cells))
    if not lines:
        return None
    text = "COCO average precision"
    if any(bar.whisker for bar in bars):
        text += "; the line is its interval, by resampling the images"
    table = Table(
        ("row", "images", *(metric.replace("_", ", ") for metric in METRICS)),
        tuple(lines),
        frozenset(n for n, row in enumerate(rows) if row.bad),
    )
    return Section("Accuracy", (f"{text}.", *notes), Chart("AP", tuple(bars)) if bars else None, table)


def difference_section(differences: Sequence[AccuracyDifference]) -> Section | None:
    """AP of each row less that of the first, on the same resampled images."""
    if not differences:
        return None
    lines = tuple(
        (one.artifact, *(within(one.values[metric], one.intervals[metric], "+.4f") for metric in METRICS_RESAMPLED))
        for one in differences
    )
    text = (
        f"Against {differences[0].reference}, both on the same resampled images: an interval without 0 is more than the choice "
        "of images."
    )
    return Section("Differences in accuracy", (text,), None, Table(("row", *METRICS_RESAMPLED), lines))


def class_section(rows: Sequence[Scored]) -> Section | None:
    """AP of every class that there are objects of, the rows side by side."""
    tables = {row.label: {entry.class_name: entry for entry in row.accuracy.per_class} for row in rows}
    there = (name for found in tables.values() for name, entry in found.items() if entry.AP is not None)
    names = tuple(dict.fromkeys(there))
    if not names:
        return None
    lines = []
    for name in names:
        entries = [found.get(name) for found in tables.values()]
        objects = next(entry.objects for entry in entries if entry is not None)
        lines.append((name, str(objects), *(plain(None if one is None else one.AP, ".3f") for one in entries)))
    return Section("Classes", (), None, Table(("class", "objects", *(f"AP {label}" for label in tables)), tuple(lines)))


def _parity_cells(parity: Parity) -> tuple[str, ...]:
    verdict = "FAILED" if not parity.passed else "passed" if parity.conclusive else "nothing found"
    counts = (parity.pairs.images, parity.pairs.matched, parity.missing, parity.extra)
    tolerance: Mapping[str, float] = asdict(parity.tolerance)
    return (
        verdict,
        *map(str, counts),
        plain(parity.pairs.max_score_difference),
        plain(parity.pairs.min_iou, ".4f"),
        ", ".join(f"{name} {plain(value)}" for name, value in tolerance.items()),
    )
