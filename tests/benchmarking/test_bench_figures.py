"""Percentiles, intervals, rounds and rooflines on timings whose answers are known."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from yolov3_trt.backends import STAGES, TimedDetections
from yolov3_trt.benchmarking.intervals import MIN_ROUNDS, median_interval, paired_ratios, percentiles
from yolov3_trt.benchmarking.latency import measure, rounds_for, throughput_fps
from yolov3_trt.benchmarking.machine_roofline import MachineRoofline, measure_roofline
from yolov3_trt.benchmarking.roofline import attainable_gflops, layer_figures, row_roofline
from yolov3_trt.benchmarking.timings import READINGS, Timings, timer_overhead_us
from yolov3_trt.costs import LayerCost
from yolov3_trt.detections import Detections
from yolov3_trt.preprocess import Image


def timed(wall_ms: Sequence[float], batch: int = 1) -> Timings:
    """Calls of which a tenth is preprocessing and a fifth postprocessing, on two busy threads."""
    timings = Timings(batch)
    for wall in wall_ms:
        seconds = wall / 1e3
        stages = dict(zip(STAGES, (seconds * 0.1, seconds * 0.7, seconds * 0.2), strict=True))
        timings.add(seconds, 2 * seconds, stages)
    return timings


# --- percentiles and ratios ---


def test_percentiles_lie_between_neighbours():
    assert percentiles(np.arange(101.0)) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
    assert percentiles(np.array([1.0, 2.0])) == pytest.approx({"p50": 1.5, "p90": 1.9, "p95": 1.95, "p99": 1.99})
    assert set(percentiles(np.array([7.0])).values()) == {7}


def test_a_row_says_latency_stages_and_pictures_per_second():
    row = timed([10, 20, 30, 40, 100]).figures(None).to_json()
    assert row["latency_ms"] == pytest.approx(
        {"mean": 40, "p50": 30, "p90": 76, "p95": 88, "p99": 97.6, "min": 10, "max": 100}
    )
    assert row["stages_ms"] == pytest.approx({"preprocess": 3, "inference": 21, "postprocess": 6})
    assert row["fps"] == pytest.approx(1000 / 30)
    assert row["cpu_cores"] == pytest.approx(2)
    assert (row["speedup_vs_reference"], row["speedup_interval"]) == (None, None)


def test_a_batch_counts_by_the_picture():
    reference, row = timed([40.0] * 12), timed([80.0] * 12, batch=8)
    found = row.figures(reference).to_json()
    assert (found["latency_ms"]["p50"], found["per_image_ms"], found["fps"]) == pytest.approx((80, 10, 100))
    assert found["speedup_vs_reference"] == pytest.approx(4)
    assert found["speedup_interval"] == pytest.approx((4, 4))


def test_the_speedup_is_of_the_same_round_so_that_a_slow_machine_does_not_change_it():
    slowness = np.repeat([1.0, 5.0, 2.0], 8)
    reference, row = timed(60 * slowness), timed(20 * slowness)
    assert row.figures(reference).to_json()["speedup_vs_reference"] == pytest.approx(3)
    assert row.figures(reference).to_json()["speedup_interval"] == pytest.approx((3, 3))
    np.testing.assert_allclose(paired_ratios([6, 8, 10], [2, 4]), [3, 2])


# --- intervals ---


def test_too_few_rounds_give_no_interval():
    assert median_interval(np.ones(MIN_ROUNDS - 1)) is None
    assert median_interval(np.ones(MIN_ROUNDS)) == (1, 1)


def test_the_ends_of_an_interval_are_values_of_known_ranks():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 101))
    # 100 / 2 -+ 1.96 * 5 is 40.2 and 59.8: the 40th and the 61st value; their neighbours are unrelated.
    assert median_interval(values) == (40, 61)
    assert median_interval(10 * values) == (400, 610)
    assert median_interval(np.full(30, 7.0)) == (7, 7)


def test_an_interval_is_wider_where_neighbours_are_alike():
    values = np.arange(100.0)
    mixed = np.random.default_rng(1).permutation(values)
    (low, high), (slow_low, slow_high) = median_interval(mixed) or (0, 0), median_interval(values) or (0, 0)
    assert slow_low < low < np.median(values) < high < slow_high


def drifting(rng: np.random.Generator, rounds: int, memory: float) -> np.ndarray:
    """Log ratios around 0, each a share of the one before: what a machine that slows down and recovers gives."""
    noise = rng.normal(size=rounds + 50)
    values = np.zeros(rounds + 50)
    for n in range(1, rounds + 50):
        values[n] = memory * values[n - 1] + math.sqrt(1 - memory**2) * noise[n]
    return 2 * np.exp(0.1 * values[50:])


@pytest.mark.parametrize("rounds", [10, 50, 200])
@pytest.mark.parametrize("memory, at_least", [(0.0, 0.94), (0.3, 0.92), (0.6, 0.86)])
def test_the_interval_holds_the_true_ratio_as_often_as_it_says(rounds: int, memory: float, at_least: float):
    rng, trials = np.random.default_rng(1), 500
    ends = [median_interval(drifting(rng, rounds, memory)) for _ in range(trials)]
    covered = sum(low <= 2 <= high for low, high in ends)
    # 95 % is meant; of 500 trials one standard deviation is 1 %. Strongly drifting machines give a little less.
    assert at_least <= covered / trials <= 0.995


# --- rounds ---


class Recorder:
    """Takes calls in the place of a detector, and tells the order of all of them."""

    num_slots = 3

    def __init__(self, name: str, calls: list[tuple[str, tuple[int, ...]]]) -> None:
        self.name, self.calls = name, calls
        self.waiting: list[TimedDetections] = []

    def timed(self, images: Sequence[Image]) -> TimedDetections:
        self.calls.append((self.name, tuple(int(image[0, 0, 0]) for image in images)))
        return TimedDetections([Detections.none() for _ in images], dict.fromkeys(STAGES, 0.001))

    def submit(self, images: Sequence[Image]) -> None:
        self.waiting.append(self.timed(images))
        assert len(self.waiting) <= self.num_slots

    def result(self) -> TimedDetections:
        return self.waiting.pop(0)

    def close(self) -> None:
        pass


FRAMES = [np.full((2, 2, 3), n, np.uint8) for n in range(3)]


def test_in_a_round_every_row_takes_the_same_frame():
    calls: list[tuple[str, tuple[int, ...]]] = []
    rows = {name: Recorder(name, calls) for name in "abc"}
    found = measure(rows, FRAMES, rounds=40, warmup=2, batches={"c": 2})
    assert [len(found[name].wall_s) for name in "abc"] == [40, 40, 40]
    rounds = [dict(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert len(rounds) == 42
    for number, taken in enumerate(rounds):
        n = number if number < 2 else number - 2  # after the warm-up it begins again
        assert taken == {"a": (n % 3,), "b": (n % 3,), "c": (n % 3, (n + 1) % 3)}
    orders = {tuple(name for name, _ in calls[start : start + 3]) for start in range(6, len(calls), 3)}
    assert len(orders) == 6  # no row always follows the same other one


def test_rounds_of_a_duration_end_with_it_and_are_one_at_least():
    seconds: Iterator[float] = iter([100.0, 101.0, 102.5, 103.1])
    assert list(rounds_for(3, lambda: next(seconds))) == [0, 1, 2]
    assert list(rounds_for(0)) == [0]


def test_throughput_keeps_every_slot_busy_and_leaves_none():
    calls: list[tuple[str, tuple[int, ...]]] = []
    row = Recorder("a", calls)
    assert throughput_fps(row, FRAMES, 2, duration_s=0.005) > 0
    assert not row.waiting
    assert all(len(frames) == 2 for _, frames in calls)


def test_the_timer_costs_what_its_clock_takes():
    ticks = iter(range(10**6))
    assert timer_overhead_us(lambda: next(ticks) * 1e-6, tries=9) == pytest.approx(1)
    assert READINGS * timer_overhead_us() < 100  # µs, of calls that take milliseconds


# --- roofline ---

MACHINE = MachineRoofline(gflops=100, copy_gb_s=10, measured_on="cpu", precision="fp32", by="hand")
# Bound by computing: 1e9 operations take 10 ms, 4 MB take 0.4 ms. Bound by memory: 1e6 take 0.01 ms, 40 MB take 4 ms.
COMPUTE = LayerCost(0, "Conv", (1, 1, 1), 10**9, 500_000, 500_000)
MEMORY = LayerCost(1, "MaxPool", (1, 1, 1), 10**6, 0, 10**7)


def test_a_layer_is_bound_by_what_takes_longer():
    rows = [layer_figures(cost, MACHINE, 4) for cost in (COMPUTE, MEMORY)]
    assert [row.bound for row in rows] == ["compute", "memory"]
    assert [row.floor_ms for row in rows] == pytest.approx([10, 4])
    assert [row.intensity for row in rows] == pytest.approx([250, 0.025])
    unknown = layer_figures(COMPUTE, None, 4)
    assert unknown.bound is None and unknown.floor_ms is None


def test_a_row_is_held_to_the_sum_of_its_layers_floors():
    found = row_roofline([COMPUTE, MEMORY], "fp32", batch=1, network_ms=28, machine=MACHINE)
    assert found.gflop == pytest.approx(1.001)
    assert found.gbyte == pytest.approx(0.044)
    assert found.achieved_gflops == pytest.approx(1.001 / 0.028)
    assert found.share == pytest.approx(14 / 28)
    assert found.attainable_gflops == pytest.approx(1.001 / 0.014)


def test_half_the_bytes_halve_the_time_of_memory_alone():
    assert attainable_gflops([MEMORY], 2, 1, MACHINE) == pytest.approx(2 * attainable_gflops([MEMORY], 4, 1, MACHINE))
    assert attainable_gflops([COMPUTE], 2, 1, MACHINE) == attainable_gflops([COMPUTE], 4, 1, MACHINE) == 100


def test_a_batch_reads_the_weights_once():
    weighty = LayerCost(0, "Conv", (1, 1, 1), 10**6, 10**7, 0)
    assert attainable_gflops([weighty], 4, 8, MACHINE) == pytest.approx(8 * attainable_gflops([weighty], 4, 1, MACHINE))


@pytest.mark.parametrize("has_torch", [True, False])
def test_the_roofline_of_this_machine_is_measured_with_and_without_torch(
    monkeypatch: pytest.MonkeyPatch, has_torch: bool
):
    monkeypatch.setattr("yolov3_trt.benchmarking.machine_roofline._TRIES", 1)
    monkeypatch.setattr("yolov3_trt.benchmarking.machine_roofline._SIDE", {"cpu": 128})
    monkeypatch.setattr("yolov3_trt.benchmarking.machine_roofline._COPY_BYTES", {"cpu": 1 << 20})
    if not has_torch:
        monkeypatch.setitem(__import__("sys").modules, "torch", None)
    found = measure_roofline("cpu", "int8")
    assert found.by.startswith("torch" if has_torch else "numpy")
    assert (found.measured_on, found.precision) == ("cpu", "fp32")
    assert found.gflops > 0 and found.copy_gb_s > 0
