"""Sections on results: parity with the reference, average precision, classes."""

from collections.abc import Mapping, Sequence

from yolov3_trt.report.figures import NONE, interval, listed, number, part, plain, within
from yolov3_trt.report.parts import Bar, Chart, Section, Table
from yolov3_trt.report.rows import Json, Row

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def parity_section(rows: Sequence[Row]) -> Section | None:
    """Whether each row finds what the reference finds."""
    gated = [row for row in rows if row.passed is not None]
    if not gated:
        return None
    lines = []
    for row in gated:
        parity = part(row.json, "parity")
        lines.append(
            (
                row.label,
                _verdict(row),
                *(plain(parity.get(key)) for key in ("images", "matched", "missing", "extra")),
                plain(parity.get("max_score_difference")),
                plain(parity.get("min_iou"), ".4f"),
                ", ".join(f"{key} {plain(value)}" for key, value in part(parity, "tolerance").items()) or NONE,
            )
        )
    reference = plain(part(gated[0].json, "parity").get("reference"))
    header = ("row", "parity", "images", "matched", "missing", "extra", "score off by", "IoU at least", "tolerance")
    bad = frozenset(index for index, row in enumerate(gated) if not row.passed)
    text = f"Detections of each row matched with those of {reference}: same class, boxes that overlap."
    return Section("Parity with the reference", (text,), None, Table(header, tuple(lines), bad))


def accuracy_section(content: Json, rows: Sequence[Row]) -> Section | None:
    """Average precision with its interval."""
    scored = [row for row in rows if number(row.accuracy.get("AP")) is not None]
    if not scored:
        return None
    bars, lines = [], []
    for row in scored:
        ap, bounds = float(row.accuracy["AP"]), row.accuracy.get("AP_interval")
        bars.append(Bar(row.label, f"{ap:.4f}", (("AP", ap),), interval(bounds), bad=row.bad))
        cells = (plain(row.accuracy.get(metric), ".4f") for metric in METRICS[1:])
        lines.append((row.label, plain(row.accuracy.get("images")), within(ap, bounds, ".4f"), *cells))
    text = "COCO average precision"
    if any(bar.whisker for bar in bars):
        text += "; the line is its interval, by resampling the images"
    table = Table(("row", "images", *METRICS), tuple(lines), frozenset(n for n, row in enumerate(scored) if row.bad))
    return Section("Accuracy", (f"{text}.", *map(str, listed(content, "notes"))), Chart("AP", tuple(bars)), table)


def difference_section(content: Json) -> Section | None:
    """AP of each row less that of the first, on the same resampled images."""
    found = [row for row in listed(content, "differences") if isinstance(row, Mapping)]
    lines = tuple(
        (
            plain(row.get("label") or row.get("artifact")),
            within(row.get("AP_difference"), row.get("AP_difference_interval"), "+.4f"),
            within(row.get("AP50_difference"), row.get("AP50_difference_interval"), "+.4f"),
        )
        for row in found
    )
    if not lines:
        return None
    first = plain(found[0].get("reference"))
    text = (
        f"Against {first}, both on the same resampled images: an interval without 0 is more than the choice of images."
    )
    return Section("Differences in accuracy", (text,), None, Table(("row", "AP", "AP50"), lines))


def class_section(rows: Sequence[Row]) -> Section | None:
    """AP of every class, the rows side by side."""
    tables = {row.label: _by_class(row) for row in rows}
    tables = {label: found for label, found in tables.items() if found}
    if not tables:
        return None
    there = (name for found in tables.values() for name, entry in found.items() if entry.get("AP") is not None)
    names = tuple(dict.fromkeys(there))
    if not names:
        return None
    lines = []
    for name in names:
        objects = next((found[name].get("objects") for found in tables.values() if name in found), None)
        cells = (plain(found.get(name, {}).get("AP"), ".3f") for found in tables.values())
        lines.append((name, plain(objects), *cells))
    return Section("Classes", (), None, Table(("class", "objects", *(f"AP {label}" for label in tables)), tuple(lines)))


def _verdict(row: Row) -> str:
    if not row.passed:
        return "FAILED"
    return "nothing found" if part(row.json, "parity").get("conclusive") is False else "passed"


def _by_class(row: Row) -> dict[str, Json]:
    found = [entry for entry in listed(row.accuracy, "per_class") if isinstance(entry, Mapping)]
    return {str(entry.get("class_name")): entry for entry in found}
