"""Rows timed on the same frames, in interleaved rounds."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from yolov3_trt.benchmarking.machine import machine
from yolov3_trt.benchmarking.timings import Timings
from yolov3_trt.detector import Detector
from yolov3_trt.preprocess import Image

__all__ = ["machine", "measure", "rounds_for", "throughput_fps"]

_ORDER_SEED = 0


def measure(
    detectors: Mapping[str, Detector],
    frames: Sequence[Image],
    *,
    rounds: int | Iterable[Any],
    warmup: int,
    batches: Mapping[str, int] | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Timings]:
    """Run every detector on every frame, one call at a time.

    In a round each detector takes the same frame (with a batch, that one and those after it), one after the other, so that a
    machine that slows down does so for all. The order changes from round to round, so that none always has the same one's
    cold caches and waking threads before it.

    Args:
        detectors: by name.
        frames: pictures, taken in turn.
        rounds: calls per detector that are timed, or an iterable that gives an item for each round, e.g. `rounds_for`.
        warmup: calls per detector before that are not.
        batches: pictures of a call by the detector's name; 1 where it is not there.
        progress: wraps the iteration over the timed rounds.
    """
    timings = {name: Timings(batch=(batches or {}).get(name, 1)) for name in detectors}
    for n in range(warmup):
        for name, detector in detectors.items():
            detector.timed(_taken(frames, n, timings[name].batch))
    order, shuffle = list(detectors), random.Random(_ORDER_SEED).shuffle
    for n, _ in enumerate(progress(range(rounds) if isinstance(rounds, int) else rounds)):
        shuffle(order)
        for name in order:
            _time_call(detectors[name], _taken(frames, n, timings[name].batch), timings[name])
    return timings


def rounds_for(duration_s: float, clock: Callable[[], float] = time.monotonic) -> Iterator[int]:
    """Rounds until a time has passed since the first one began; one at least, and the last one is finished."""
    end = clock() + duration_s
    number = 0
    while number == 0 or clock() < end:
        yield number
        number += 1


def throughput_fps(detector: Detector, frames: Sequence[Image], batch: int, duration_s: float) -> float:
    """Pictures per second when all the detector's slots are kept busy."""
    slots, done = detector.num_slots, 0
    for n in range(slots):
        detector.submit(_taken(frames, n, batch))
    started = time.perf_counter()
    for n in rounds_for(duration_s):
        detector.result()
        detector.submit(_taken(frames, slots + n, batch))
        done += batch
    seconds = time.perf_counter() - started
    for _ in range(slots):
        detector.result()
    return done / seconds


def _taken(frames: Sequence[Image], start: int, count: int) -> list[Image]:
    return [frames[(start + k) % len(frames)] for k in range(count)]


def _time_call(detector: Detector, images: Sequence[Image], timings: Timings) -> None:
    cpu = time.process_time()
    start = time.perf_counter()
    timed = detector.timed(images)
    wall = time.perf_counter() - start
    timings.add(wall, time.process_time() - cpu, timed.stages_s)
