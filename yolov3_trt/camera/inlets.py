"""Sources on threads of their own: what the loop takes frames from."""

import logging
import threading
import time
from dataclasses import replace
from typing import Protocol

from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.mailbox import Mailbox
from yolov3_trt.camera.sources import Source
from yolov3_trt.camera.statistics import SourceStatistics
from yolov3_trt.errors import CameraError

_LOG = logging.getLogger(__name__)


class Inlet(Protocol):
    """A source as the loop sees it. Used by the loop's thread only."""

    counts: SourceStatistics
    mailbox: Mailbox

    def start(self) -> None:
        """Begin to read."""
        ...

    def check(self, now_s: float) -> None:
        """Look after it: to be called every fraction of a second.

        Raises:
            BaseException: what the grab thread raised, other than a CameraError.
        """
        ...

    def take(self) -> Frame | None:
        """The next frame, if one waits."""
        return self.mailbox.take()

    @property
    def is_over(self) -> bool:
        """Whether no frame will come any more, and none waits."""
        ...

    def silent_s(self, now_s: float) -> float:
        """For how long a live source has given nothing; 0 where frames are not expected at any time."""
        ...

    def stop(self) -> None:
        """Tell its thread to end; returns at once."""
        ...

    def join(self, timeout_s: float) -> bool:
        """Wait for that; False when it is stuck inside OpenCV."""
        ...


class SourceInlet(Inlet):
    """A `Source` read ahead by a thread, as fast as the loop takes its frames or at its own pace."""

    def __init__(self, source: Source, mailbox: Mailbox, counts: SourceStatistics) -> None:
        """Prepare it; the source stays its owner's, who closes it after `join`."""
        self._source, self.mailbox, self.counts = source, mailbox, counts
        counts.pipeline, counts.nominal_fps = source.pipeline, source.fps
        self._failure: BaseException | None = None
        self._is_read = False  # to its end, or until it failed
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"read {source.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self.counts.state = "running"
        self._thread.start()

    def check(self, now_s: float) -> None:  # noqa: ARG002 - a camera reads it
        """Note how it ended, once the last frame is taken."""
        if not self.is_over or self.counts.state != "running":
            return
        if self._failure is not None and not isinstance(self._failure, CameraError):
            raise self._failure
        self.counts.error = None if self._failure is None else str(self._failure)
        self.counts.state = "ended" if self._failure is None else "failed"
        if self._failure is not None:
            _LOG.error("%s", self._failure)

    def take(self) -> Frame | None:
        """The next frame, if one waits. One of a file that was only read ahead has its age from now on."""
        frame = self.mailbox.take()
        if frame is None or self._source.is_paced:
            return frame
        return replace(frame, captured_s=time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether it is at its end."""
        return self._is_read and not len(self.mailbox)

    def silent_s(self, now_s: float) -> float:  # noqa: ARG002 - a camera reads it
        """A file is never late."""
        return 0.0

    def stop(self) -> None:
        """Tell the thread to end."""
        self._stopped.set()
        self.mailbox.close()
        if self.counts.state == "running":
            self.counts.state = "stopped"

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        pace = Pace(self._source.fps) if self._source.is_paced and self._source.fps else None
        try:
            while not self._stopped.is_set():
                frame = self._source.read()
                if frame is not None and pace is not None:
                    self._stopped.wait(pace.next_s(time.monotonic()))
                    frame = replace(frame, captured_s=time.monotonic())
                if frame is None or not self._put(frame):
                    return
        except BaseException as exc:  # `check` raises it where somebody hears it
            self._failure = exc
        finally:
            with self.mailbox.changed:
                self._is_read = True
                self.mailbox.changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        if self.counts.image_hw is None:
            self.counts.image_hw = (frame.pixels.shape[0], frame.pixels.shape[1])
        return self.mailbox.put(frame)


class Pace:
    """When frames are due."""

    _MAX_LAG_S = 0.5  # who lags more has missed frames, and does not hurry to catch up

    def __init__(self, fps: float) -> None:
        self._interval_s = 1 / fps
        self._due_s: float | None = None

    def next_s(self, now_s: float) -> float:
        """Seconds to wait before the next frame."""
        if self._due_s is None or now_s - self._due_s > self._MAX_LAG_S:
            self._due_s = now_s
        wait_s = max(0.0, self._due_s - now_s)
        self._due_s += self._interval_s
        return wait_s
