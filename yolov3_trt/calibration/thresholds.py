"""Where to clip a tensor, from a histogram of its magnitudes.

A histogram is `counts` (B,) of |x| in bins of equal width from 0 on; thresholds are in bins, so t covers `counts[:t]`.
Both searches try every bin edge, by sums that cost 128 steps an edge rather than one pass over the histogram.
"""

import numpy as np
from numpy.typing import NDArray

NUM_LEVELS = 128  # of a magnitude in 8 bits: 0..127
_BLOCK = 256  # candidates at a time, so that the tables of a block stay in the cache

Counts = NDArray[np.int64]
_Floats = NDArray[np.float64]


def entropy_threshold(counts: Counts) -> int:
    """The threshold whose 128 levels keep most information, in bins: least Kullback-Leibler divergence.

    The recipe is S. Migacz, "8-bit inference with TensorRT", GTC 2017. For each threshold t from 128 bins on, the reference
    P is `counts[:t]` with everything beyond added to its last bin. The candidate Q is `counts[:t]` without that, summed into
    128 levels of equal width, each level then spread evenly over those of its bins that are not empty. As in NVIDIA's own
    tool (pytorch-quantization, calib/histogram.py), bin 0 counts as much as bin 1: the zeros that a ReLU leaves are exact
    under every threshold, and would otherwise draw it to the narrowest one. A t that clips something and has an empty last
    bin has an infinite divergence. Of equal ones the largest t is taken, which clips least.

    Args:
        counts: (B,), not all in bin 0.
    """
    counts = counts.copy()
    counts[0] = counts[1]
    last = _used(counts)
    if last <= NUM_LEVELS:
        return last
    candidates = np.arange(NUM_LEVELS, last + 1)
    divergences = np.concatenate([divergences_at(counts, block) for block in _blocks(candidates)])
    return int(candidates[::-1][np.argmin(divergences[::-1])])


def mse_threshold(counts: Counts) -> int:
    """The threshold with the least expected squared error of rounding and clipping together, in bins.

    Within a bin the values are taken as uniform, and the error is integrated exactly, whether a rounding edge lies inside
    the bin or not. With F(x) the number of values below x, step s = t / 127 and e_k = (k - 1/2) s the edge between the levels
    k - 1 and k, integration by parts gives

        error(t) = sum (x - t)^2 - 2 s sum_{k=1..127} integral_0^{e_k} F

    Of equal ones the largest t is taken: uniform values of one bin, say, are as near to its lower edge as to its upper one.

    Args:
        counts: (B,), not all in bin 0.
    """
    last = _used(counts)
    candidates = np.arange(1, last + 1)
    errors = np.concatenate([squared_errors_at(counts[:last], block) for block in _blocks(candidates)])
    rounding = 1e-12 * float(counts @ np.square(np.arange(counts.size, dtype=float)))  # of float64, in the errors
    return int(candidates[errors <= errors.min() + rounding][-1])


def _used(counts: Counts) -> int:
    """Bins up to the last that is not empty."""
    return int(np.flatnonzero(counts)[-1]) + 1


def _blocks(candidates: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [candidates[start : start + _BLOCK] for start in range(0, candidates.size, _BLOCK)]


def divergences_at(counts: Counts, thresholds: NDArray[np.int64]) -> _Floats:
    """KL(P || Q) of each threshold (T,), in nats; see `entropy_threshold`, but for bin 0, which counts here as it is."""
    # Over the bins of a level of sum c, n of them not empty, Q is c / n. So all but the last bin of a level only enter by
    # c log(c / n) and by P's own sum of p log p, and both come from running sums.
    running_sum = _running(counts)
    running_filled = _running(counts > 0)
    running_entropy = _running(_xlogx(counts))
    starts = -(-thresholds[:, None] * np.arange(NUM_LEVELS + 1) // NUM_LEVELS)  # (T, 129) first bin of each level
    sums = np.diff(running_sum[starts])  # (T, 128)
    filled = np.diff(running_filled[starts])
    log_means = np.log(np.maximum(sums, 1) / np.maximum(filled, 1))

    total, kept, last = running_sum[-1], running_sum[thresholds], counts[thresholds - 1]
    clipped = total - kept
    p_log_p = running_entropy[thresholds] - _xlogx(last) + _xlogx(last + clipped)
    p_log_q = np.einsum("tl,tl->t", sums, log_means) + clipped * log_means[:, -1]
    divergences = (p_log_p - p_log_q) / total - np.log(total) + np.log(np.maximum(kept, 1))
    return np.where((clipped > 0) & (last == 0), np.inf, divergences)


def squared_errors_at(counts: Counts, thresholds: NDArray[np.int64]) -> _Floats:
    """Sum of squared errors of each threshold (T,), in bins squared; see `mse_threshold`."""
    bins = np.arange(counts.size)
    below = _running(counts)  # F at each bin's lower edge
    integral = _running(below[:-1] + counts / 2)
    total, first = float(counts.sum()), float(counts @ (bins + 0.5))
    second = float(counts @ (bins * (bins + 1.0) + 1 / 3))

    steps = thresholds / (NUM_LEVELS - 1)
    edges = steps[:, None] * (np.arange(1, NUM_LEVELS) - 0.5)  # (T, 127)
    inside = edges.astype(np.int64)
    offset = edges - inside
    integrals = integral[inside] + offset * (below[inside] + offset * (counts[inside] * 0.5))
    error: _Floats = second - 2.0 * thresholds * first + total * thresholds**2 - 2 * steps * integrals.sum(axis=1)
    return error


def _running(values: NDArray[np.generic]) -> _Floats:
    """(B,) -> (B + 1,): sums of the first 0, 1, ... B values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _xlogx(values: NDArray[np.generic]) -> _Floats:
    result: _Floats = values * np.log(np.maximum(values, 1))
    return result
