"""What was measured of one row: seconds of each call, and what they come to."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from yolov3_trt.backends import STAGES
from yolov3_trt.benchmarking.intervals import FloatArray, median_interval, paired_ratios, percentiles

READINGS = 6  # of the clock within what counts as a call: two around it, four at its stages


@dataclass(frozen=True)
class TimingFigures:
    """What the calls of a row come to."""

    stages_ms: Mapping[str, float]  # medians, by STAGES
    latency_ms: Mapping[str, float]  # of a call: mean, p50, p90, p95, p99, min, max
    per_image_ms: float
    fps: float  # pictures per second, one call after the other
    cpu_cores: float  # kept busy on average
    speedup_vs_reference: float | None  # median over the rounds of the ratio within a round; None without a reference
    speedup_interval: tuple[float, float] | None  # its 95 % confidence interval; None for few rounds

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        return asdict(self)


@dataclass
class Timings:
    """Of calls with `batch` pictures each, in the order measured."""

    batch: int = 1
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # of all the threads of the process meanwhile
    stages_s: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def add(self, wall_s: float, cpu_s: float, stages_s: Mapping[str, float]) -> None:
        """Take a call."""
        self.wall_s.append(wall_s)
        self.cpu_s.append(cpu_s)
        for stage in STAGES:
            self.stages_s[stage].append(stages_s[stage])

    @property
    def totals_ms(self) -> FloatArray:
        """Whole calls, picture to detections, (n,) ms."""
        return np.asarray(self.wall_s) * 1e3

    @property
    def seconds_per_picture(self) -> list[float]:
        """Of each call."""
        return [seconds / self.batch for seconds in self.wall_s]

    @property
    def stages_ms(self) -> dict[str, float]:
        """Medians of the stages of a call."""
        return {stage: float(np.median(seconds) * 1e3) for stage, seconds in self.stages_s.items()}

    def figures(self, reference: "Timings | None") -> TimingFigures:
        """What they come to; with a reference also how many times faster a picture is than there."""
        totals = self.totals_ms
        extremes = {"min": float(totals.min()), "max": float(totals.max())}
        latency = {"mean": float(totals.mean()), **percentiles(totals), **extremes}
        ratios = None if reference is None else paired_ratios(reference.seconds_per_picture, self.seconds_per_picture)
        return TimingFigures(
            self.stages_ms,
            latency,
            per_image_ms=latency["p50"] / self.batch,
            fps=self.batch * 1e3 / latency["p50"],
            cpu_cores=float(np.sum(self.cpu_s) / np.sum(self.wall_s)),
            speedup_vs_reference=None if ratios is None else float(np.median(ratios)),
            speedup_interval=None if ratios is None else median_interval(ratios),
        )


def timer_overhead_us(clock: Callable[[], float] = time.perf_counter, tries: int = 1000) -> float:
    """What one reading of the clock takes, median µs; READINGS of them are within the latency of a call."""
    costs = []
    for _ in range(tries):
        started = clock()
        for _ in range(READINGS):
            ended = clock()
        costs.append((ended - started) / READINGS)
    return float(np.median(costs) * 1e6)
