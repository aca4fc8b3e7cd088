"""What a loop did: counts, rates and times in memory that does not grow, to be read at any moment."""

import math
import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yolov3_trt.backends import STAGES as DETECTION_STAGES
from yolov3_trt.events import EventEngine
from yolov3_trt.geometry import HW

# wait: from the capture until the detector takes the frame; tracking: with events, where they are asked for.
STAGES = ("wait", *DETECTION_STAGES, "tracking", "sinks")
_PERCENTILES = (50, 95, 99)

Percentiles = dict[str, float | None]  # ms by `p50`, `p95`, `p99`; None where there was no frame


class Times:
    """Durations as a histogram whose classes are 1 % apart: percentiles within 0.5 %, of a run of any length."""

    _SHORTEST_S, _RATIO, _NUM_CLASSES = 1e-6, 1.01, 2100  # up to 1,200 s

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * self._NUM_CLASSES))
        self._total = 0

    def add(self, seconds: float) -> None:
        """Count one; what is out of range counts as the shortest or longest."""
        place = math.log(max(seconds, self._SHORTEST_S) / self._SHORTEST_S) / _LOG_RATIO
        self._counts[min(int(place), self._NUM_CLASSES - 1)] += 1
        self._total += 1

    def percentiles_ms(self) -> Percentiles:
        """Of all that was added: the duration that this share is not above."""
        if not self._total:
            return dict.fromkeys(f"p{p}" for p in _PERCENTILES)
        cumulated = np.cumsum(np.frombuffer(self._counts, np.uint64))
        ranks = [math.ceil(self._total * p / 100) for p in _PERCENTILES]
        classes = np.searchsorted(cumulated, ranks)
        middles_ms = self._SHORTEST_S * self._RATIO ** (classes + 0.5) * 1e3
        return {f"p{p}": round(float(value), 4) for p, value in zip(_PERCENTILES, middles_ms, strict=True)}


_LOG_RATIO = math.log(Times._RATIO)


class Rate:
    """Events per second, smoothed over about two seconds."""

    _SMOOTHING_S = 2.0

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._interval_s: float | None = None

    def add(self, now_s: float) -> None:
        """Count one."""
        if self._last_s is not None:
            interval_s = now_s - self._last_s
            weight = 1 - math.exp(-interval_s / self._SMOOTHING_S) if self._interval_s is not None else 1.0
            self._interval_s = (self._interval_s or 0.0) * (1 - weight) + interval_s * weight
        self._last_s = now_s

    @property
    def per_s(self) -> float | None:
        """None before the second event."""
        return 1 / self._interval_s if self._interval_s else None


@dataclass(eq=False)
class SourceStatistics:
    """Of one source. Its inlet changes the first block, the loop the second, both under the lock of the whole."""

    name: str
    live: bool
    captured: int = 0
    dropped: int = 0  # came too late, or nobody took it before the end
    reconnects: int = 0
    state: str = "opening"  # then `running`, `lost` (and again `running`), at last `ended`, `stopped` or `failed`
    pipeline: str = ""
    image_hw: HW | None = None
    nominal_fps: float | None = None
    fallbacks: tuple[str, ...] = ()
    error: str | None = None  # why it failed
    last_loss: str | None = None  # why it was last lost

    processed: int = 0
    rate: Rate = field(default_factory=Rate)
    latency: Times = field(default_factory=Times)
    age: Times = field(default_factory=Times)
    events: EventEngine | None = None  # where events are asked for

    def to_json(self, elapsed_s: float) -> dict[str, Any]:
        """As plain values; fps over `elapsed_s`."""
        return {
            "source": self.name,
            "live": self.live,
            "state": self.state,
            "pipeline": self.pipeline,
            "image_hw": None if self.image_hw is None else list(self.image_hw),
            "nominal_fps": self.nominal_fps,
            "captured": self.captured,
            "processed": self.processed,
            "dropped": self.dropped,
            "reconnects": self.reconnects,
            "fps": self.processed / elapsed_s if self.processed else None,
            "latency_ms": self.latency.percentiles_ms(),
            "frame_age_ms": self.age.percentiles_ms(),
            "fallbacks": list(self.fallbacks),
            "objects": None if self.events is None else self.events.to_json(),
            "last_loss": self.last_loss,
            "error": self.error,
        }


@dataclass(frozen=True)
class Call:
    """Times of one call of the detector, on one or more frames."""

    sources: Sequence[str]  # of its frames
    ages_s: Sequence[float]  # of its frames, from capture to result
    waits_s: Sequence[float]  # of its frames, from capture to the call
    stages_s: Mapping[str, float]  # by `backends.STAGES`, of the call


class Statistics:
    """Of a loop. Any thread may ask at any time; `lock` guards all of it."""

    def __init__(self, about: Mapping[str, Any] | None = None) -> None:
        """Begin.

        Args:
            about: what stands in every report, e.g. artifact and backend.
        """
        self.lock = threading.RLock()
        self.sources: dict[str, SourceStatistics] = {}
        self.fallbacks: list[str] = []  # of the loop, each with its reason
        self.ended_by: str | None = None
        self.stuck_sources: tuple[str, ...] = ()  # whose thread hangs inside OpenCV and was left behind
        self.about = dict(about or {})
        self._started_s = time.monotonic()
        self._ended_s: float | None = None
        self._calls = 0
        self._rate, self._latency, self._age = Rate(), Times(), Times()
        self._stages = {stage: Times() for stage in STAGES}

    def add_source(self, name: str, live: bool) -> SourceStatistics:
        """Begin with a source."""
        source = SourceStatistics(name, live)
        with self.lock:
            self.sources[name] = source
        return source

    def start(self) -> None:
        """The loop begins: its time counts from now."""
        self._started_s = time.monotonic()

    def end(self, reason: str) -> None:
        """The loop is over, and why; its time stands still."""
        self._ended_s, self.ended_by = time.monotonic(), reason

    def add_call(self, call: Call, now_s: float) -> None:
        """Count the frames of a call, whose results are there since `now_s`."""
        latency_s = sum(call.stages_s.values())
        with self.lock:
            self._calls += 1
            for stage in DETECTION_STAGES:
                self._stages[stage].add(call.stages_s[stage])
            for name, age_s, wait_s in zip(call.sources, call.ages_s, call.waits_s, strict=True):
                source = self.sources[name]
                source.processed += 1
                for times in (source.latency, self._latency):
                    times.add(latency_s)
                for times in (source.age, self._age):
                    times.add(age_s)
                self._stages["wait"].add(wait_s)
                source.rate.add(now_s)
                self._rate.add(now_s)

    def add_tracking(self, seconds: float) -> None:
        """Time that tracking and events took for one frame."""
        with self.lock:
            self._stages["tracking"].add(seconds)

    def add_sinks(self, seconds: float) -> None:
        """Time that all sinks took for one frame."""
        with self.lock:
            self._stages["sinks"].add(seconds)

    @property
    def elapsed_s(self) -> float:
        """Since the start of the loop, to its end."""
        return (self._ended_s or time.monotonic()) - self._started_s

    @property
    def captured(self) -> int:
        """Frames of all sources."""
        return sum(source.captured for source in self.sources.values())

    @property
    def processed(self) -> int:
        """Frames that went through the detector."""
        return sum(source.processed for source in self.sources.values())

    @property
    def dropped(self) -> int:
        """Frames of live sources that came too late."""
        return sum(source.dropped for source in self.sources.values())

    def snapshot(self) -> dict[str, Any]:
        """As `summary`, while the loop runs: fps are those of the last seconds."""
        with self.lock:
            content = self.summary()
            content["fps"] = self._rate.per_s
            for row, source in zip(content["sources"], self.sources.values(), strict=True):
                row["fps"] = source.rate.per_s
        return content

    def summary(self) -> dict[str, Any]:
        """Everything as plain values: the whole, and each source."""
        with self.lock:
            elapsed_s = self.elapsed_s
            return {
                **self.about,
                "ended_by": self.ended_by,
                "elapsed_s": elapsed_s,
                "captured": self.captured,
                "processed": self.processed,
                "dropped": self.dropped,
                "fps": self.processed / elapsed_s if self.processed else None,
                "calls": self._calls,
                "latency_ms": self._latency.percentiles_ms(),
                "frame_age_ms": self._age.percentiles_ms(),
                "stages_ms": {stage: times.percentiles_ms() for stage, times in self._stages.items()},
                "loop_fallbacks": list(self.fallbacks),
                "sources": [source.to_json(elapsed_s) for source in self.sources.values()],
            }
