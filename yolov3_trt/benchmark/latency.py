"""Latency of detectors on the same frames, stage by stage, in interleaved rounds."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.detector import Detector
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.preprocess import Image

STAGES = ("preprocess", "inference", "postprocess")


@dataclass
class Timings:
    """Of one detector: seconds per frame and stage, in the order measured."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    @property
    def totals_ms(self) -> np.ndarray:
        """Whole frames, (n,) ms."""
        return np.sum([self.seconds[stage] for stage in STAGES], axis=0) * 1e3

    def to_json(self, reference: "Timings | None") -> dict[str, Any]:
        """Stages (medians), percentiles of the whole, and the speed-up over a reference (ratio of medians)."""
        totals = self.totals_ms
        percentiles = {f"p{p}": float(np.percentile(totals, p)) for p in (50, 90, 95, 99)}
        p50 = percentiles["p50"]
        return {
            "stages_ms": {stage: float(np.median(self.seconds[stage]) * 1e3) for stage in STAGES},
            "latency_ms": {
                "mean": float(totals.mean()),
                **percentiles,
                "min": float(totals.min()),
                "max": float(totals.max()),
            },
            "fps": 1e3 / p50,
            "speedup_vs_reference": None if reference is None else float(np.median(reference.totals_ms)) / p50,
        }


def measure(
    detectors: Mapping[str, Detector],
    frames: Sequence[Image],
    *,
    rounds: int,
    warmup: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Timings]:
    """Run every detector on every frame, one frame at a time.

    In a round each detector takes the same frame, one after the other, so that a machine that slows down does so for all.

    Args:
        detectors: by name.
        frames: pictures, taken in turn.
        rounds: frames per detector that are timed.
        warmup: frames per detector before that are not.
        progress: wraps the iteration over the timed rounds.
    """
    for n in range(warmup):
        for detector in detectors.values():
            detector(frames[n % len(frames)])
    timings = {name: Timings() for name in detectors}
    for n in progress(range(rounds)):
        for name, detector in detectors.items():
            for stage, seconds in zip(STAGES, _time_frame(detector, frames[n % len(frames)]), strict=True):
                timings[name].seconds[stage].append(seconds)
    return timings


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    gpu = installed_gpu()
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu.name if gpu else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _MEASURED if (version := _version(name))},
    }


def _time_frame(detector: Detector, frame: Image) -> tuple[float, float, float]:
    """Seconds of each of STAGES."""
    start = time.perf_counter()
    batch, placements = detector.prepare([frame])
    prepared = time.perf_counter()
    outputs = detector.backend.infer(batch)
    inferred = time.perf_counter()
    detector.finish(outputs, placements)
    return prepared - start, inferred - prepared, time.perf_counter() - inferred


# Distributions whose versions belong to a figure.
_MEASURED = (
    "yolov3-trt",
    "numpy",
    "torch",
    "onnxruntime",
    "opencv-python",
    "opencv-python-headless",
    "tensorrt",
    "pycuda",
)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # a Jetson's own OpenCV is not a distribution
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
