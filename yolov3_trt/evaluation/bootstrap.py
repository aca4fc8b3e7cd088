"""How far average precision would move on other images of the same kind: the bootstrap over images.

Efron (1979), "Bootstrap methods: another look at the jackknife". The images of the set are drawn anew, with replacement, as
many as there are, some hundreds of times; of each draw AP is computed; the interval is the middle 95 % of what comes out.
Detection and matching are per image, so nothing of that is repeated: an image that is drawn twice has its objects and
detections counted twice.

Only the points of a precision-recall curve that end at a hit decide AP: a miss leaves recall where it is and lowers
precision, and the curve takes the highest precision from there on. So the curve is followed at the hits alone, for many
draws at a time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RECALLS = np.linspace(0, 1, 101)  # where COCO reads precision
CONFIDENCE = 0.95
_DRAWS_AT_A_TIME = 64


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """Detections of one class in all images, best first, and what became of them at each IoU threshold."""

    image: NDArray[np.int64]  # (D,) index of the image
    hit: NDArray[np.bool_]  # (T, D) matched an object
    ignored: NDArray[np.bool_]  # (T, D) counts neither for nor against
    objects: NDArray[np.int64]  # (I,) of each image, those that count


def draw_images(num_images: int, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each draw holds each image: (draws, num_images), rows that sum to `num_images`."""
    return np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), draws)


def resampled_ap(
    classes: Sequence[ClassMatches],
    draws: NDArray[np.int64],
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> NDArray[np.float64]:
    """AP and AP50 of each draw, (draws, 2), as COCO computes them; NaN for a draw without objects.

    Args:
        classes: what became of their detections.
        draws: from `draw_images`.
        progress: wraps the iteration over groups of draws.
    """
    rows = [np.empty((0, 2))]
    for start in progress(range(0, len(draws), _DRAWS_AT_A_TIME)):
        some = draws[start : start + _DRAWS_AT_A_TIME]
        by_class = np.array([_class_ap(found, some) for found in classes]).reshape(len(classes), len(some), 2)
        there = ~np.isnan(by_class)  # a class that a draw has no object of does not count in it
        total = np.where(there, by_class, 0).sum(axis=0)
        count = there.sum(axis=0)
        rows.append(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))
    return np.concatenate(rows)


def interval(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The middle 95 % (or another share) of what the draws gave; None where none gave anything."""
    given = values[~np.isnan(values)]
    if not given.size:
        return None
    low, high = np.quantile(given, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _class_ap(found: ClassMatches, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP and AP50 of one class in each draw, (R, 2)."""
    objects = draws @ found.objects  # (R,)
    times = draws[:, found.image]  # (R, D)
    by_threshold: list[NDArray[np.float64]] = []
    counted = None
    for hit, ignored in zip(found.hit, found.ignored, strict=True):
        if counted is None or (ignored == counted).any():  # the same at each threshold, but for crowds
            counted = ~ignored
            shown = np.cumsum(times * counted, axis=1)
        by_threshold.append(_average_precision(times, hit & counted, shown, objects))
    pair = np.stack([np.mean(by_threshold, axis=0), by_threshold[0]], axis=1)
    return np.where(objects[:, None] > 0, pair, np.nan)


def _average_precision(
    times: NDArray[np.int64], hit: NDArray[np.bool_], shown: NDArray[np.int64], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """At one IoU threshold, (R,).

    Args:
        times: that each detection counts in each draw, (R, D).
        hit: (D,) found an object.
        shown: detections that count, up to and with each, (R, D).
        objects: in each draw, (R,).
    """
    at = np.flatnonzero(hit)  # (M,)
    if not at.size:
        return np.zeros(len(times))
    hits = np.cumsum(times[:, at], axis=1)
    precision = hits / (shown[:, at] + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.maximum(objects, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall, side="right")  # of RECALLS, so many are reached with this hit
    result: NDArray[np.float64] = (highest * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    return result
