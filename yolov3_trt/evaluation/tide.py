"""What average precision is lost to: the split of errors of TIDE.

Bolya et al. (2020), "TIDE: A General Toolbox for Identifying Object Detection Errors". Each detection that finds no object is
of one kind, by the objects of its picture; objects that no such detection could still find are missed. What a kind costs is how
much AP50 rises when that kind alone is put right. The parts do not add up to what is lost: each is measured alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolov3_trt.evaluation.coco import IOUS, precision_at_recalls
from yolov3_trt.evaluation.columns import Bools, Floats, Ints, iou_of_pairs, pairs_of
from yolov3_trt.evaluation.scores import Pairs

# In the order in which they are looked for, but for the last two.
KINDS = ("localisation", "classification", "duplicate", "background", "both", "missed")
BOX, CLASS, DUPLICATE, BACKGROUND, BOTH, MISSED = range(len(KINDS))
FOUND = -1
BACKGROUND_IOU = 0.1
_PAIRS_AT_A_TIME = 1_000_000


@dataclass(frozen=True, eq=False)
class ErrorSplit:
    """Errors by kind.

    Attributes:
        AP50: as it is; None without objects.
        counts: detections of each of KINDS, of `missed` objects.
        costs: how much AP50 rises when a kind is put right.
        pairs: what was split: the detections above the score.
        stands_for: (D,) the object that a detection finds, or of another class has found; -1 for all others.
        objects: (G,) kind of the error that stands for an object, FOUND where it was found; crowds count as found.
    """

    AP50: float | None
    counts: Mapping[str, int]
    costs: Mapping[str, float]
    pairs: Pairs
    stands_for: Ints
    objects: Ints

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` writes it."""
        return {"counts": dict(self.counts), "AP50_costs": dict(self.costs)}


@dataclass(frozen=True)
class ErrorDifference:
    """What one artifact gets wrong that another does not, on the same pictures.

    Attributes:
        costs: of the artifact less of the reference: AP50 that it loses more to each kind.
        lost: objects that the reference finds and the artifact does not, by the kind of error that stands for them.
        gained: the other way round.
    """

    costs: Mapping[str, float]
    lost: Mapping[str, int]
    gained: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` writes it."""
        return {"AP50_costs": dict(self.costs), "lost": dict(self.lost), "gained": dict(self.gained)}


def split_errors(pairs: Pairs, min_score: float = 0.0) -> ErrorSplit:
    """The errors of detections above a score.

    Detections that COCO passes over (of a crowd, beyond the 100 of a class in a picture) are of no kind.
    """
    sure = pairs.found.scores > min_score
    found, taken, objects = pairs.found[sure], pairs.taken[sure], pairs.objects
    used = np.zeros(len(objects.image), bool)
    used[taken[taken >= 0]] = True
    kinds, closest = _kinds(Pairs(objects, found, taken), used)
    stands_for = taken.copy()

    # A detection that would find an object with another box or class is put right where it is the best for that object.
    fixes = np.flatnonzero(((kinds == BOX) | (kinds == CLASS)) & (closest >= 0))
    fixes = fixes[~used[closest[fixes]]]
    fixes = fixes[np.lexsort((fixes, -found.scores[fixes], closest[fixes]))]
    fixes = fixes[np.unique(closest[fixes], return_index=True)[1]]
    fixed = np.full(len(kinds), -1, np.int64)
    fixed[fixes] = objects.class_id[closest[fixes]]

    named = fixes[kinds[fixes] == CLASS]
    stands_for[named] = closest[named]
    states = np.where(used | objects.crowd, FOUND, MISSED)
    states[closest[fixes]] = kinds[fixes]
    missed = np.bincount(objects.class_id[states == MISSED], minlength=1)
    positives = np.bincount(objects.class_id[~objects.crowd], minlength=1)
    there = np.flatnonzero(positives)
    hit = taken >= 0

    def ap50(keep: Bools, hits: Bools, class_id: Ints, counts: Ints) -> float:
        return _ap50(there, (class_id[keep], found.scores[keep], hits[keep]), counts)

    everything = np.ones(len(kinds), bool)
    base = ap50(everything, hit, found.class_id, positives)
    costs = {}
    for number, kind in enumerate(KINDS):
        right = (kinds == number) & (fixed >= 0)
        counts = positives - np.pad(missed, (0, len(positives) - len(missed))) if number == MISSED else positives
        value = ap50((kinds != number) | right, hit | right, np.where(right, fixed, found.class_id), counts)
        costs[kind] = max(value - base, 0.0)  # less than nothing comes of the 101 places where precision is read
    numbers = np.bincount(kinds[kinds >= 0], minlength=len(KINDS))
    numbers[MISSED] = np.count_nonzero(states == MISSED)
    by_kind = dict(zip(KINDS, map(int, numbers), strict=True))
    return ErrorSplit(base if there.size else None, by_kind, costs, Pairs(objects, found, taken), stands_for, states)


def error_difference(reference: Sequence[ErrorSplit], other: Sequence[ErrorSplit]) -> ErrorDifference:
    """Of two artifacts on the same set: each with the split of all detections, then that of those which it shows."""
    costs = {kind: other[0].costs[kind] - reference[0].costs[kind] for kind in KINDS}
    a, b = reference[1].objects, other[1].objects
    return ErrorDifference(costs, _counted(b[(a == FOUND) & (b != FOUND)]), _counted(a[(b == FOUND) & (a != FOUND)]))


def _counted(states: Ints) -> dict[str, int]:
    return {KINDS[kind]: int(np.count_nonzero(states == kind)) for kind in (BOX, CLASS, MISSED)}


def _kinds(pairs: Pairs, used: Bools) -> tuple[Ints, Ints]:
    """Of each detection the kind of its error, FOUND without one, and the object that it would find without it, or -1."""
    objects, found, taken = pairs.objects, pairs.found, pairs.taken
    there = np.flatnonzero(~objects.crowd)
    there = there[np.argsort(objects.image[there], kind="stable")]
    start, stop = (np.searchsorted(objects.image[there], found.image, side) for side in ("left", "right"))
    counts = stop - start
    kinds = np.full(len(taken), BACKGROUND)
    closest = np.full(len(taken), -1, np.int64)
    wrong = np.flatnonzero((taken < 0) & (counts > 0))
    groups = np.cumsum(counts[wrong]) // _PAIRS_AT_A_TIME
    for rows in np.split(wrong, np.flatnonzero(np.diff(groups)) + 1):
        if rows.size:
            kinds[rows], closest[rows] = _kinds_of(pairs, rows, there, start[rows], counts[rows], used)
    kinds[taken >= 0] = FOUND
    return kinds, closest


def _kinds_of(pairs: Pairs, rows: Ints, there: Ints, start: Ints, counts: Ints, used: Bools) -> tuple[Ints, Ints]:
    """The same of some detections without an object, whose pictures have objects."""
    line, other = pairs_of(start, counts)
    other = there[other]
    first = np.cumsum(counts) - counts
    objects, found = pairs.objects, pairs.found
    iou = iou_of_pairs(found.xywh[rows[line]], objects.xywh[other], np.zeros(len(other), bool))
    same = found.class_id[rows[line]] == objects.class_id[other]

    def best(among: Bools) -> tuple[Floats, Ints]:
        value = np.where(among, iou, 0.0)
        most = np.maximum.reduceat(value, first)
        at = np.flatnonzero(value == most[line])
        return most, other[at[np.unique(line[at], return_index=True)[1]]]

    (own, own_object), (foreign, foreign_object) = best(same), best(~same)
    conditions = (
        (own >= BACKGROUND_IOU) & (own <= IOUS[0]),
        foreign >= IOUS[0],
        best(same & used[other])[0] >= IOUS[0],
        np.maximum(own, foreign) <= BACKGROUND_IOU,
    )
    kinds = np.select(conditions, (BOX, CLASS, DUPLICATE, BACKGROUND), BOTH)
    return kinds, np.select((kinds == BOX, kinds == CLASS), (own_object, foreign_object), -1)


def _ap50(there: Ints, detections: tuple[Ints, Floats, Bools], positives: Ints) -> float:
    """Mean over classes; one of which all objects are gone is 0 where it has detections, and else left out."""
    class_id, scores, hits = detections
    values = []
    order = np.argsort(-scores, kind="stable")
    class_id, hits = class_id[order], hits[order]
    for one in there:
        own = hits[class_id == one]
        at = np.flatnonzero(own)
        if positives[one] and at.size:
            values.append(float(precision_at_recalls(at + 1, int(positives[one])).mean()))
        elif positives[one] or own.size:
            values.append(0.0)
    return float(np.mean(values)) if values else 0.0
