"""The capture loop: frames from a source through a detector into sinks, and what that took."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sinks import Sink
from yolov3_trt.camera.sources import Source
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector

STAGES = ("capture", "preprocess", "inference", "postprocess", "sinks")
_DETECTION = slice(1, 4)  # the stages that make up the latency, as in `bench`
_PERCENTILES = (50, 95, 99)
# A loop may run for weeks: times are kept of this many frames, about an hour at 30 fps, in some 30 MB.
_KEPT_FRAMES = 100_000

Percentiles = Mapping[str, float | None]  # by `p50`, `p95`, `p99`; None where there was no frame


@dataclass(frozen=True)
class LoopSummary:
    """What a loop did. Counts and fps are of the whole; times of the last 100,000 frames."""

    captured: int  # frames read from the source
    processed: int  # frames that went through the detector and all sinks
    dropped: int  # frames that came too late; only live sources have any
    elapsed_s: float
    fps: float | None  # processed / elapsed_s, everything included; None where there was no frame
    latency_ms: Percentiles  # preprocess to postprocess
    frame_age_ms: Percentiles  # from capture to detections
    stages_ms: Mapping[str, float | None]  # medians by STAGES

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@dataclass
class LoopTimes:
    """The times of a loop's frames."""

    processed: int = 0
    _rows: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=_KEPT_FRAMES))

    def add(self, captured_s: float, marks_s: Sequence[float]) -> None:
        """Take a frame's times.

        Args:
            captured_s: `Frame.captured_s`.
            marks_s: where each of STAGES began, and where the last ended, on the same clock.
        """
        detected_s = marks_s[_DETECTION.stop]
        self._rows.append((*(end - start for start, end in pairwise(marks_s)), detected_s - captured_s))
        self.processed += 1

    def summary(self, elapsed_s: float) -> LoopSummary:
        """Of all frames so far, none of which was dropped."""
        times_ms = np.array(self._rows).reshape(-1, len(STAGES) + 1) * 1e3  # (frames, stages and age)
        return LoopSummary(
            captured=self.processed,
            processed=self.processed,
            dropped=0,
            elapsed_s=elapsed_s,
            fps=self.processed / elapsed_s if self.processed else None,
            latency_ms=_percentiles(times_ms[:, _DETECTION].sum(axis=1)),
            frame_age_ms=_percentiles(times_ms[:, -1]),
            stages_ms={
                stage: float(np.median(times_ms[:, column])) if self.processed else None
                for column, stage in enumerate(STAGES)
            },
        )


def run_loop(
    detector: Detector,
    source: Source,
    sinks: Sequence[Sink],
    *,
    max_frames: int | None = None,
    on_frame: Callable[[Frame, Detections], None] | None = None,
) -> LoopSummary:
    """Read, detect and write, frame by frame on the calling thread, to the end of the source.

    No frame is dropped: the source waits for the detector. Nothing is closed, whatever happens: detector, source and sinks
    stay their owner's, who also decides what an exception means for them, KeyboardInterrupt included.

    Args:
        detector: finds the objects.
        source: is read from where it stands.
        sinks: take each frame in turn, in this order.
        max_frames: to stop after, at the latest.
        on_frame: called after the sinks; its time counts in `elapsed_s` and in no stage.

    Raises:
        Yolov3TrtError: of the source, the detector or a sink.
    """
    times = LoopTimes()
    started_s = time.monotonic()
    while max_frames is None or times.processed < max_frames:
        marks_s = [time.monotonic()]
        frame = source.read()
        if frame is None:
            break
        marks_s.append(time.monotonic())
        batch, placements = detector.prepare([frame.pixels])
        marks_s.append(time.monotonic())
        outputs = detector.backend.infer(batch)
        marks_s.append(time.monotonic())
        (detections,) = detector.finish(outputs, placements)
        marks_s.append(time.monotonic())
        for sink in sinks:
            sink.write(frame, detections)
        marks_s.append(time.monotonic())
        times.add(frame.captured_s, marks_s)
        if on_frame is not None:
            on_frame(frame, detections)
    return times.summary(time.monotonic() - started_s)


def _percentiles(values: NDArray[np.float64]) -> Percentiles:
    return {f"p{p}": float(np.percentile(values, p)) if len(values) else None for p in _PERCENTILES}
