"""COCO's average precision, equal to that of pycocotools to the last digit, on whole columns instead of picture by picture.

Detections of a class are matched in rounds: the first of every picture that lies on an object, then the second, and so
on, for all IoU thresholds and sizes of objects at once. Within a picture that is COCO's order, best first.
"""

from dataclasses import dataclass

import numpy as np

from yolov3_trt.evaluation.bootstrap import RECALLS, ClassMatches
from yolov3_trt.evaluation.columns import Bools, Floats, Found, Ints, Objects, iou_of_pairs, pairs_of

IOUS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 100  # that count, of a class in a picture
# Of objects, px²: all, small, medium, large.
AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])


@dataclass(frozen=True, eq=False)
class ClassResult:
    """What became of one class."""

    precision: Floats  # (T, 101, A) at each of RECALLS; -1 without objects of that size
    matches: ClassMatches  # of objects of all sizes
    rows: Ints  # detections that count at the first IoU, best first: places among all
    taken: Ints  # the object of each, a place among all, or -1


def evaluate_class(objects: Objects, found: Found, class_id: int, num_images: int) -> ClassResult:
    """COCO's evaluation of the detections of a class."""
    there = _sorted(np.flatnonzero(objects.class_id == class_id), objects.image)
    mine = np.flatnonzero(found.class_id == class_id)
    mine = mine[np.lexsort((-found.scores[mine], found.image[mine]))]
    image = found.image[mine]
    mine = mine[np.arange(len(mine)) - np.searchsorted(image, image) < MAX_DETECTIONS]

    area, crowd = objects.area[there], objects.crowd[there]
    passed_over = crowd | (area < AREAS[:, :1]) | (area > AREAS[:, 1:])  # (A, G)
    taken = _matched(objects, found, there, mine, passed_over)  # (A, T, D)
    hit = taken >= 0
    own = found.xywh[mine, 2] * found.xywh[mine, 3]
    outside = (own < AREAS[:, :1]) | (own > AREAS[:, 1:])  # (A, D)
    on_other = np.zeros_like(hit)
    for size, over in enumerate(passed_over):
        on_other[size] = hit[size] & np.append(over, False)[taken[size]]
    ignored = on_other | (~hit & outside[:, None])

    best_first = np.argsort(-found.scores[mine], kind="stable")
    hit, ignored = hit[..., best_first], ignored[..., best_first]
    counting = (~passed_over).sum(axis=1)
    precision = np.stack([_precision(*one) for one in zip(hit, ignored, counting, strict=True)], axis=-1)
    matches = ClassMatches(
        found.image[mine[best_first]],
        hit[0],
        ignored[0],
        np.bincount(objects.image[there[~passed_over[0]]], minlength=num_images),
    )
    rows = mine[best_first][~ignored[0, 0]]
    return ClassResult(precision, matches, rows, np.append(there, -1)[taken[0, 0, best_first][~ignored[0, 0]]])


def _sorted(rows: Ints, image: Ints) -> Ints:
    return rows[np.argsort(image[rows], kind="stable")]


def _matched(objects: Objects, found: Found, there: Ints, mine: Ints, passed_over: Bools) -> Ints:
    """Of each detection the object that it takes, as a place in `there`, or -1: (A, T, D).

    Args:
        objects: all.
        found: all.
        there: objects of the class, by picture.
        mine: detections of the class, by picture and there best first.
        passed_over: (A, G) objects that do not count at each size; what takes one of those does not count either.
    """
    taken = np.full((len(AREAS), len(IOUS), len(mine)), -1, np.int64)
    bounds = (np.searchsorted(objects.image[there], found.image[mine], side) for side in ("left", "right"))
    start, stop = bounds
    row, other = pairs_of(start, stop - start)
    crowd = objects.crowd[there]
    iou = iou_of_pairs(found.xywh[mine[row]], objects.xywh[there[other]], crowd[other])
    close = iou >= IOUS[0]
    row, other, iou = row[close], other[close], iou[close]
    if not len(row):
        return taken
    # Those that lie on something, each with its objects in a line of its own, filled up with an IoU of 0.
    candidates, first, counts = np.unique(row, return_index=True, return_counts=True)
    place = np.arange(len(row)) - np.repeat(first, counts)
    line = np.repeat(np.arange(len(candidates)), counts)
    at = np.zeros((len(candidates), counts.max()), np.int64)
    overlap = np.zeros(at.shape)
    at[line, place], overlap[line, place] = other, iou

    image = found.image[mine[candidates]]
    round_of = np.arange(len(image)) - np.searchsorted(image, image)
    by_round = np.argsort(round_of, kind="stable")
    free = np.ones((len(AREAS), len(IOUS), len(there)), bool)
    sizes, thresholds = np.arange(len(AREAS))[:, None, None], np.arange(len(IOUS))[:, None]
    for lines in np.split(by_round, np.cumsum(np.bincount(round_of))[:-1]):
        width = counts[lines].max()
        on, near = at[lines, :width], overlap[lines, :width]  # (n, K)
        possible = (free[:, :, on] | crowd[on]) & (near >= IOUS[:, None, None])  # (A, T, n, K)
        counts_there = possible & ~passed_over[:, None, on]
        possible = np.where(counts_there.any(axis=-1, keepdims=True), counts_there, possible)
        closest = width - 1 - np.where(possible, near, -1.0)[..., ::-1].argmax(axis=-1)  # of equal ones the last
        takes = possible.any(axis=-1)
        chosen = np.where(takes, on[np.arange(len(lines)), closest], -1)  # (A, T, n)
        taken[:, :, candidates[lines]] = chosen
        free[
            np.broadcast_to(sizes, chosen.shape)[takes], np.broadcast_to(thresholds, chosen.shape)[takes], chosen[takes]
        ] = False
    return taken


def _precision(hit: Bools, ignored: Bools, objects: int) -> Floats:
    """At each threshold the highest precision from each of RECALLS on: (T, 101); -1 without objects.

    Only hits are looked at: between them recall stays and precision falls.
    """
    result = np.full((len(hit), len(RECALLS)), -1.0 if objects == 0 else 0.0)
    if objects == 0:
        return result
    for row, (right, without) in enumerate(zip(hit, ignored, strict=True)):
        at = np.flatnonzero(right & ~without)
        if not at.size:
            continue
        result[row] = precision_at_recalls(np.cumsum(~without)[at], objects)
    return result


def precision_at_recalls(shown: Ints, objects: int) -> Floats:
    """The highest precision from each of RECALLS on, (101,).

    Args:
        shown: of each hit, best first: how many detections count up to and with it; at least one hit.
        objects: that count.
    """
    hits = np.arange(1, len(shown) + 1)
    precision = hits / (shown + np.spacing(1))
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(hits / objects, RECALLS)
    return np.where(place < len(hits), highest[np.minimum(place, len(hits) - 1)], 0.0)
