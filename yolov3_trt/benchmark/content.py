"""What `bench --json` holds, rows aside: how, on what and by what it was measured."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolov3_trt.benchmark.frames import Frames
from yolov3_trt.benchmark.machine import machine, peak_resident_mib
from yolov3_trt.benchmark.outcomes import Outcome
from yolov3_trt.benchmark.power import open_power_reader
from yolov3_trt.benchmark.run import Benchmark, Schedule
from yolov3_trt.benchmark.timings import timer_overhead_us
from yolov3_trt.camera.draw import draw_detections


def measure_all(benchmark: Benchmark, frames: Frames, schedule: Schedule, roofline: bool) -> dict[str, Any]:
    """Time a benchmark that is open and checked, and what its figures are read against.

    Returns:
        Everything but the rows, which accuracy may still be added to: see `with_rows`.
    """
    where = machine()  # with the load that others put on it, before this does
    reader, no_reader = open_power_reader()
    try:
        where["gpu_state"] = {"reader": None, "reason": no_reader} if reader is None else reader.about
        if roofline:
            benchmark.measure_ceilings()
        benchmark.time(frames, schedule)
        benchmark.sustain(frames, reader)
    finally:
        if reader is not None:
            reader.close()
    timed = [outcome for outcome in benchmark.outcomes if outcome.timings is not None]
    rounds = max(len(outcome.timings.wall_s) for outcome in timed if outcome.timings is not None)
    ceilings = [ceiling.to_json() for ceiling in benchmark.ceilings.values()]
    return {
        "machine": where,
        "threads": benchmark.wanted.threads,
        "source": frames.source,
        "pictures": len(frames.pictures),
        "frames": rounds,
        "rounds": rounds,
        "warmup": schedule.warmup,
        "reference": None if benchmark.reference is None else benchmark.reference.label,
        "timer_overhead_us": timer_overhead_us(),
        "host_ms": {"decode": frames.decode_ms, "draw": draw_ms(frames, timed)},
        "ceiling": ceilings[0] if ceilings else None,
        "ceilings": ceilings,
    }


def with_rows(content: dict[str, Any], benchmark: Benchmark) -> dict[str, Any]:
    """The same with the rows, the networks' layers, and the most memory that all of it took."""
    return {
        **content,
        "peak_rss_mib": peak_resident_mib(),
        "rows": benchmark.rows(),
        "layers": benchmark.layers(),
    }


def draw_ms(frames: Frames, outcomes: Sequence[Outcome]) -> float:
    """Boxes and labels onto a picture, of what the first row found, median."""
    seconds = []
    for picture, detections in zip(frames.pictures, outcomes[0].found, strict=True):
        started = time.perf_counter()
        draw_detections(picture, detections)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds) * 1e3)
