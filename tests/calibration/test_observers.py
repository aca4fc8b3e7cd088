"""Observers against brute force: exact ones exactly, histogram ones by a search written from the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from yolov3_trt.calibration.observers import (
    NUM_BINS,
    ZERO_AMAX,
    HistogramObserver,
    Observer,
    PercentileObserver,
    make_observer,
    scale_from_amax,
)
from yolov3_trt.calibration.thresholds import divergences_at, entropy_threshold, mse_threshold, squared_errors_at
from yolov3_trt.errors import CalibrationError
from yolov3_trt.settings import Method

FINITE = st.floats(-(2.0**120), 2.0**120, width=32)
ARRAYS = arrays(np.float32, st.integers(1, 60), elements=FINITE)


def observed(observer: Observer, *pieces: np.ndarray) -> Observer:
    for piece in pieces:
        observer.observe(piece)
    return observer


def amax(method: Method, *pieces: np.ndarray, percentile: float = 99.99) -> float:
    return observed(make_observer(method, sum(map(np.size, pieces)), percentile), *pieces).amax()


def activations(kind: str, size: int = 20_000, seed: int = 0) -> np.ndarray:
    """Float32 values such as a layer gives."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(0.3, 1.7, size).astype(np.float32)
    return {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "relu6": np.clip(2 * normal, 0, 6),
        "leaky": np.where(normal > 0, normal, np.float32(0.1) * normal),
        "laplace": rng.laplace(0, 0.01, size).astype(np.float32),
        "outliers": np.concatenate([normal[3:], np.float32([80, -95, 91])]),
    }[kind]


KINDS = ["normal", "relu", "relu6", "leaky", "laplace", "outliers"]


@settings(max_examples=50, deadline=None)
@given(ARRAYS)
def test_min_max_is_the_largest_magnitude(values: np.ndarray):
    largest = float(np.abs(values).max())
    assert amax(Method.MINMAX, values) == (largest if largest >= 2.0**-100 else ZERO_AMAX)


@settings(max_examples=100, deadline=None)
@given(ARRAYS, st.sampled_from([0.5, 10, 33.3, 50, 90, 99, 99.99, 100]), st.integers(0, 100))
def test_the_percentile_is_that_of_the_sorted_magnitudes(values: np.ndarray, percentile: float, surplus: int):
    ordered = sorted(np.abs(values).tolist())
    at_least = [
        value
        for rank, value in enumerate(ordered, start=1)
        if round(1000 * rank) >= round(10 * percentile * len(ordered))
    ]
    observer = PercentileObserver(values.size + surplus, percentile)  # fewer values than announced are exact too
    expected = at_least[0] if at_least[0] >= 2.0**-100 else ordered[-1] if ordered[-1] >= 2.0**-100 else ZERO_AMAX
    assert observed(observer, *np.array_split(values, 3)).amax() == expected


@pytest.mark.parametrize("percentile", [50, 99, 99.9, 99.99])
def test_the_percentile_of_many_values_is_exact_while_few_are_kept(percentile: float):
    values = np.random.default_rng(1).standard_cauchy((40, 30_000)).astype(np.float32)
    rank = math.ceil(values.size * round(percentile * 100) / 10_000)
    expected = np.sort(np.abs(values), axis=None)[rank - 1]
    observer = PercentileObserver(values.size, percentile)
    assert observed(observer, *values).amax() == expected
    assert observer._kept.size <= max(2 * (values.size - rank + 1), values.size - rank + 1 + 4096)


def test_ascending_values_are_the_worst_case_of_the_percentile_and_exact():
    values = np.arange(1, 200_001, dtype=np.float32)
    assert amax(Method.PERCENTILE, values, percentile=99) == 198_000


@pytest.mark.parametrize("percentile", [0, -1, 100.01, math.nan])
def test_an_impossible_percentile_is_refused(percentile: float):
    with pytest.raises(CalibrationError, match="expected above 0, up to 100"):
        make_observer(Method.PERCENTILE, 10, percentile)


def test_more_values_than_announced_are_refused():
    with pytest.raises(CalibrationError, match="11 values were seen; expected 10 at most"):
        observed(PercentileObserver(10), np.zeros(11, np.float32))


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_pieces_nor_their_order_nor_a_late_maximum_change_anything(method: Method, kind: str):
    values = activations(kind, 80_000)
    ascending = np.sort(np.abs(values))
    expected = amax(method, values)
    assert amax(method, *np.array_split(values, 7)) == expected
    assert amax(method, *np.array_split(values, 13)[::-1]) == expected
    assert amax(method, *np.array_split(ascending, 5)) == expected  # the maximum last
    assert amax(method, *np.array_split(ascending[::-1], 5)) == expected  # and first
    assert amax(method, values.reshape(2, -1, 10).transpose(1, 0, 2)) == expected


@pytest.mark.parametrize("method", Method)
def test_signs_do_not_matter_and_values_are_left_alone(method: Method):
    values = activations("normal")
    before = values.copy()
    assert amax(method, -values) == amax(method, values)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("method", Method)
def test_a_range_scales_with_its_tensor(method: Method):
    values = activations("leaky")
    assert amax(method, values * np.float32(2.0**20)) == 2.0**20 * amax(method, values)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("kind", KINDS)
def test_a_range_is_a_float32_that_exceeds_nothing(method: Method, kind: str):
    values = activations(kind)
    found = amax(method, values)
    assert found == float(np.float32(found))
    assert 0 < found <= np.abs(values).max()


@pytest.mark.parametrize("method", Method)
def test_a_tensor_that_is_always_zero_gets_a_small_positive_range(method: Method):
    assert amax(method, np.zeros(1000, np.float32), np.float32([1e-45, -1e-38])) == ZERO_AMAX
    scale = np.float16(scale_from_amax(ZERO_AMAX))
    assert scale == np.finfo(np.float16).smallest_normal and np.isfinite(1 / scale)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("value", [1.0, -0.1, 3e-30, 3e38])
def test_a_constant_tensor_has_its_own_range(method: Method, value: float):
    assert amax(method, np.full(1000, value, np.float32)) == abs(np.float32(value))


@pytest.mark.parametrize("method", Method)
def test_a_tensor_that_is_zero_but_for_a_little_is_not_clipped_to_nothing(method: Method):
    values = np.zeros(100_000, np.float32)
    values[:3] = 5
    assert amax(method, values) == 5


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(method: Method, bad: float):
    values = activations("normal")
    values[12_345] = bad
    with pytest.raises(CalibrationError, match=r"^a value is NaN or infinite; expected finite values$"):
        amax(method, values)


@pytest.mark.parametrize("method", Method)
def test_an_observer_that_saw_nothing_has_no_range(method: Method):
    with pytest.raises(CalibrationError, match="no value was seen"):
        amax(method, np.zeros((0, 3), np.float32))


@settings(max_examples=60, deadline=None)
@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_a_histogram_that_widened_is_that_of_one_pass(pieces: list[np.ndarray]):
    observer = observed(make_observer(Method.MSE, 0), *pieces)
    assert isinstance(observer, HistogramObserver)
    magnitudes = np.abs(np.concatenate(pieces)).astype(float)
    expected = np.bincount((magnitudes / observer.bin_width).astype(int), minlength=NUM_BINS)
    np.testing.assert_array_equal(observer.counts, expected)
    assert observer.counts[NUM_BINS // 2 :].any() or magnitudes.max() < 2.0**-100


# Brute force, from the definitions: one threshold at a time, a loop over levels, arrays as long as the histogram.


def divergence(counts: np.ndarray, threshold: int) -> float:
    """KL(P || Q) of Migacz' slides, in nats."""
    counts = counts.astype(float)
    inside = counts[:threshold]
    p = inside.copy()
    p[-1] += counts[threshold:].sum()
    level_of_bin = np.arange(threshold) * 128 // threshold
    q = np.zeros(threshold)
    for level in range(128):
        filled = (level_of_bin == level) & (inside > 0)
        if filled.any():
            q[filled] = inside[filled].sum() / filled.sum()
    p, q = p / p.sum(), q / q.sum()
    if (q[p > 0] == 0).any():
        return math.inf
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def squared_error(counts: np.ndarray, threshold: int, samples_a_bin: int) -> float:
    """Of values spread over each bin, rounded to the 128 levels."""
    values = (np.arange(counts.size * samples_a_bin) + 0.5) / samples_a_bin
    scale = threshold / 127
    rounded = np.minimum(np.round(values / scale), 127) * scale
    return float((np.repeat(counts, samples_a_bin) * (values - rounded) ** 2).sum()) / samples_a_bin


def histogram(kind: str, bins: int) -> np.ndarray:
    magnitudes = np.abs(activations(kind))
    return np.histogram(magnitudes, bins, (0, magnitudes.max()))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_entropy_threshold_is_that_of_a_brute_force_search(kind: str):
    counts = histogram(kind, 400)
    found = entropy_threshold(counts)
    counts[0] = counts[1]  # as the recipe has it
    thresholds = np.arange(128, 401, 2)
    divergences = np.array([divergence(counts, threshold) for threshold in thresholds])
    np.testing.assert_allclose(divergences_at(counts, thresholds), divergences, rtol=1e-9, atol=1e-12)
    assert divergence(counts, found) <= divergences.min() + 1e-9


def test_zeros_do_not_narrow_the_entropy_threshold():
    values = activations("relu")
    more_zeros = np.concatenate([values, np.zeros(10 * values.size, np.float32)])
    assert amax(Method.ENTROPY, more_zeros) == amax(Method.ENTROPY, values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mse_threshold_is_that_of_a_brute_force_search(kind: str):
    counts = histogram(kind, 300)
    thresholds = np.arange(40, 301)
    errors = np.array([squared_error(counts, threshold, 64) for threshold in thresholds])
    np.testing.assert_allclose(squared_errors_at(counts, thresholds), errors, rtol=0.01)
    assert abs(mse_threshold(counts) - thresholds[errors.argmin()]) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_mse_range_rounds_the_values_themselves_best(kind: str):
    values = activations(kind).astype(float)

    def error(candidate: float) -> float:
        scale = candidate / 127
        return float(np.square(values - np.clip(np.round(values / scale), -127, 127) * scale).mean())

    best = min(error(candidate) for candidate in np.linspace(0.02, 1, 400) * np.abs(values).max())
    assert error(amax(Method.MSE, values.astype(np.float32))) <= 1.02 * best


def test_a_normal_tensor_is_clipped_where_the_literature_says():
    # R. Banner, Y. Nahshan, D. Soudry, "Post training 4-bit quantization", 2019: 3.92 sigma for 8 bits.
    values = np.random.default_rng(0).standard_normal(2_000_000).astype(np.float32)
    assert amax(Method.MSE, values) == pytest.approx(3.92, abs=0.06)


def test_outliers_are_clipped_by_all_but_min_max():
    values = activations("outliers", 200_000)
    assert amax(Method.MINMAX, values) == 95
    for method in (Method.PERCENTILE, Method.ENTROPY, Method.MSE):
        assert amax(method, values) < 80


def test_a_saturated_tensor_is_covered_to_its_end():
    assert amax(Method.MSE, activations("relu6")) == 6
    assert amax(Method.PERCENTILE, activations("relu6")) == 6


def test_a_scale_is_rounded_once():
    assert scale_from_amax(1.0) == np.float32(1) / np.float32(127)
    assert scale_from_amax(127.0) == 1
