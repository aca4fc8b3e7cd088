"""Sections on what goes wrong: errors by kind, precision and recall, sizes, classes taken for others."""

from collections.abc import Sequence

import numpy as np

from yolov3_trt.evaluation.accuracy import Evaluated, Evaluation
from yolov3_trt.evaluation.bootstrap import RECALLS
from yolov3_trt.evaluation.coco import AREAS
from yolov3_trt.evaluation.confusion import confusion
from yolov3_trt.evaluation.tide import KINDS
from yolov3_trt.report.figures import plain
from yolov3_trt.report.parts import Bar, Chart, Plot, Section, Table

_CURVES = 7  # classes that have one of their own
_MATRIX = 12  # classes of a matrix, the most frequent; the rest are summed


def error_sections(result: Evaluation) -> list[Section]:
    """All of them."""
    rows = result.rows
    found = (_errors(result), _curves(rows), _sizes(rows), *_matrices(rows))
    return [section for section in found if section is not None]


def data_set_text(result: Evaluation) -> str:
    """`64 images with 493 objects of 80 classes`."""
    accuracy = result.rows[0].accuracy
    objects = sum(one.objects for one in accuracy.per_class)
    classes = sum(one.objects > 0 for one in accuracy.per_class)
    return f"{accuracy.images} images with {objects} objects of {classes} classes"


def _errors(result: Evaluation) -> Section:
    """What AP50 is lost to, and what each artifact loses more than the first."""
    rows = [(row.artifact, row.errors) for row in result.rows]
    bars = tuple(Bar(name, f"{sum(one.costs.values()):.4f}", tuple(one.costs.items())) for name, one in rows)
    lines = [(name, *(f"{one.costs[kind]:.4f} ({one.counts[kind]})" for kind in KINDS)) for name, one in rows]
    text = [
        "AP50 that one kind of error alone costs, and how many there are, as TIDE splits them (Bolya et al. 2020); "
        "weak detections count too, down to the confidence of the evaluation."
    ]
    for row, errors in zip(result.rows[1:], result.error_differences, strict=True):
        lines.append((f"{row.artifact} more", *(f"{errors.costs[kind]:+.4f}" for kind in KINDS)))
        lost, gained = (
            f"{sum(by_kind.values())} ({', '.join(f'{count} {kind}' for kind, count in by_kind.items())})"
            for by_kind in (errors.lost, errors.gained)
        )
        text.append(f"Objects shown by {result.rows[0].artifact} and lost in {row.artifact}: {lost}; gained: {gained}.")
    return Section("Errors", tuple(text), Chart("AP50", bars), Table(("row", *KINDS), tuple(lines)))


def _curves(rows: Sequence[Evaluated]) -> Section | None:
    """Precision over recall at an IoU of 0.5: the mean over the classes, then the most frequent classes."""
    classes = rows[0].accuracy.per_class
    there = [place for place, one in enumerate(classes) if one.objects]
    if not there:
        return None
    curves = [(row.artifact, row.accuracy.scores.precision[0]) for row in rows]  # (101, K)

    def plot(title: str, places: Sequence[int]) -> Plot:
        lines = ((name, zip(RECALLS, curve[:, places].mean(axis=1), strict=True)) for name, curve in curves)
        return Plot(title, ("recall", "precision"), tuple((name, tuple(points)) for name, points in lines))

    frequent = sorted(there, key=lambda place: -classes[place].objects)[:_CURVES]
    plots = [plot("mean over the classes", there)] if len(there) > 1 else []
    plots += [plot(f"{classes[place].class_name}, {classes[place].objects} objects", [place]) for place in frequent]
    lines = tuple(
        (f"{RECALLS[at]:.1f}", *(f"{curve[at, there].mean():.3f}" for _, curve in curves)) for at in range(0, 101, 10)
    )
    table = Table(("recall", *(f"precision {name}" for name, _ in curves)), lines)
    text = "The highest precision from each recall on, at an IoU of 0.5; the table is the mean over the classes."
    return Section("Precision and recall", (text,), None, table, plots=tuple(plots))


def _sizes(rows: Sequence[Evaluated]) -> Section:
    """AP by the size of objects, and how many of each are not found by what an artifact shows."""
    objects = rows[0].accuracy.scores.pairs.objects
    header = ["objects", "how many"]
    header += [text for row in rows for text in (f"AP {row.artifact}", f"missed {row.artifact}")]
    lines = []
    for name, (low, high) in zip(("small", "medium", "large"), AREAS[1:], strict=True):
        there = ~objects.crowd & (objects.area >= low) & (objects.area <= high)
        cells = [f"{name}, side from {low**0.5:.0f} px", str(np.count_nonzero(there))]
        for row in rows:
            cells.append(plain(row.accuracy.metrics[f"AP_{name}"], ".4f"))
            cells.append(str(np.count_nonzero(there & (row.shown_errors.objects >= 0))))
        lines.append(tuple(cells))
    text = "Missed are objects without a detection of their class and an IoU of 0.5 at the confidence that the artifact shows."
    return Section("By size of objects", (text,), None, Table(tuple(header), tuple(lines)))


def _matrices(rows: Sequence[Evaluated]) -> list[Section]:
    """A matrix of each artifact: what objects are taken for."""
    sections = []
    for row in rows:
        names = [one.class_name for one in row.accuracy.per_class]
        counts = confusion(row.shown_errors, len(names))
        # The most frequent are shown; the others go into one row and column before the last.
        total = counts[:-1, :].sum(axis=1) + counts[:, :-1].sum(axis=0)
        there = np.flatnonzero(total)
        shown = np.sort(there[np.argsort(-total[there], kind="stable")][:_MATRIX])
        rest = np.setdiff1d(there, shown)
        groups = [[place] for place in shown] + ([rest.tolist()] if len(rest) else []) + [[len(names)]]
        labels = [names[place] for place in shown] + (["other classes"] if len(rest) else [])
        lines = tuple(
            (label, *(str(counts[np.ix_(group, column)].sum()) for column in groups))
            for label, group in zip([*labels, "nothing"], groups, strict=True)
        )
        text = (
            f"Rows are objects, columns what they are taken for above a confidence of {row.own_conf:g}, at an IoU of 0.5; the "
            "last row is what was invented, the last column what was missed."
        )
        table = Table(("object", *labels, "missed"), lines)
        sections.append(Section(f"What is taken for what: {row.artifact}", (text,), None, table))
    return sections
