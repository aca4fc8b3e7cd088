"""What travels from a source through the detector to the sinks."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from yolov3_trt.detections import Detections
from yolov3_trt.events import Event
from yolov3_trt.places import Places
from yolov3_trt.preprocess import Image
from yolov3_trt.settings import DrawSettings


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture of a source and when it was taken."""

    pixels: Image  # uint8 (H, W, 3) BGR, the frame's own memory
    source: str  # `Source.name`
    index: int  # 0 for the first of its source; gaps are frames that were dropped
    captured_s: float  # time.monotonic() when the source had it; of a file, when the loop took it
    position_s: float | None = None  # of a file: from the begin of the video

    @property
    def at_s(self) -> float:
        """Its time among those of its source, of a clock that begins anywhere."""
        return self.captured_s if self.position_s is None else self.position_s

    @property
    def taken(self) -> datetime:
        """When it was captured, in UTC; of a file, when it was read."""
        unix_s = time.time() - (time.monotonic() - self.captured_s)
        return datetime.fromtimestamp(unix_s, timezone.utc)

    @property
    def clock(self) -> str:
        """For people: the local time; of a file, the position, `0:01:23`."""
        if self.position_s is None:
            return f"{self.taken.astimezone():%Y-%m-%d %H:%M:%S}"
        return str(timedelta(seconds=int(self.position_s)))


@dataclass(frozen=True)
class Look:
    """How the results of a source are drawn."""

    settings: DrawSettings = field(default_factory=DrawSettings)
    places: Places = field(default_factory=Places)  # drawn, too


@dataclass(frozen=True)
class FrameStatus:
    """How the loop was doing when a frame had its result: what an overlay shows."""

    fps: float | None  # results of this source per second, smoothed; None with its first
    age_ms: float  # from capture to result
    dropped: int  # frames of this source so far that came too late
    batch: int  # frames of all sources that went through the detector together with this one


@dataclass(frozen=True, eq=False)
class Result:
    """A frame with what was found in it."""

    frame: Frame
    detections: Detections  # with `track_ids` where objects are tracked
    status: FrameStatus
    events: tuple[Event, ...] = ()  # that became certain with this frame, where they are asked for
    look: Look = field(default_factory=Look)
    crossings: dict[str, tuple[int, int]] = field(default_factory=dict)  # by line: in and out so far
