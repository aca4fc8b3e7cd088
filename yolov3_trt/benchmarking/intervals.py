"""Percentiles, and how sure a ratio of two timings is."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

PERCENTILES = (50, 90, 95, 99)
MIN_ROUNDS = 10  # of fewer no interval is given
_Z = 1.96  # of the normal distribution: 95 % lie within


def percentiles(values: FloatArray) -> dict[str, float]:
    """`p50`, `p90`, ... of values (n,), linear between neighbours."""
    found = np.percentile(values, PERCENTILES)
    return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, found, strict=True)}


def median_interval(values: FloatArray) -> tuple[float, float] | None:
    """95 % confidence interval of the median of values (n,) in the order measured; None for fewer than MIN_ROUNDS.

    By order statistics, whatever the distribution: the ends are the values of rank n/2 -+ z sqrt(n) / 2 (Conover, Practical
    Nonparametric Statistics, section 3.2). On a machine that slows down and recovers neighbours are alike and n is less
    than it looks: the ranks move apart by sqrt((1 + r) / (1 - r)), r the correlation of neighbours' sides of the median.
    """
    count = len(values)
    if count < MIN_ROUNDS:
        return None
    sides = np.sign(values - np.median(values))
    # Around their own median the sides of unrelated values have a correlation of -1/n.
    alike = min(max(0.0, float(np.mean(sides[:-1] * sides[1:])) + 1 / count), 0.95)
    reach = _Z * math.sqrt(count) / 2 * math.sqrt((1 + alike) / (1 - alike))
    ascending = np.sort(values)
    low, high = round(count / 2 - reach) - 1, round(count / 2 + reach)
    return float(ascending[max(0, low)]), float(ascending[min(count - 1, high)])


def paired_ratios(reference_s: Sequence[float], own_s: Sequence[float]) -> FloatArray:
    """How many times faster than a reference, round by round: a slow spell of the machine hits both sides of each ratio."""
    rounds = min(len(reference_s), len(own_s))
    ratios: FloatArray = np.asarray(reference_s[:rounds], float) / np.asarray(own_s[:rounds], float)
    return ratios
