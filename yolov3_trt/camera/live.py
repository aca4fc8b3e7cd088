"""Cameras and streams on threads of their own, watched: what stalls or is lost is opened again, up to a limit."""

import logging
import math
import re
import threading
import time
from dataclasses import dataclass

from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.inlets import Inlet
from yolov3_trt.camera.mailbox import Mailbox
from yolov3_trt.camera.sources import Capture, LiveSource
from yolov3_trt.camera.sources.base import SourceLost
from yolov3_trt.camera.statistics import SourceStatistics
from yolov3_trt.errors import CameraError
from yolov3_trt.geometry import HW

_LOG = logging.getLogger(__name__)
_TOLD_AT_FIRST, _FIRST_SILENCE_S, _LONGEST_SILENCE_S = 5, 60.0, 3600.0  # losses of one source in the log


@dataclass(frozen=True)
class ReconnectPolicy:
    """How long a source that gives nothing is waited for."""

    give_up_after_s: float = 60.0  # since its last frame, or since the start; inf: never
    waits_for_absent: bool = False  # also for a camera of this machine that was never there
    first_retry_s: float = 0.5  # doubled with each attempt that did not last
    longest_retry_s: float = 10.0
    refused_retry_s: float = 300.0  # wrong passwords: cameras lock an account after five or so
    not_found_retry_s: float = 60.0
    lasting_s: float = 10.0  # of frames, until a loss is a new one and no part of the last
    # OpenCV has timeouts of its own, whose errors say more; what goes on after them hangs.
    grace_s: float = 2.0
    max_stuck: int = 4  # threads that hang inside OpenCV; no more are begun before one comes back


class Attempt(threading.Thread):
    """One opening of a live source: reads until it is lost or abandoned, and does nothing else."""

    def __init__(self, source: LiveSource, mailbox: Mailbox) -> None:
        """Prepare it; a daemon, as a read that hangs cannot be ended."""
        super().__init__(name=f"grab {source.name}", daemon=True)
        self._source, self._mailbox = source, mailbox
        self.is_abandoned = False
        self.failure: BaseException | None = None
        self.capture: Capture | None = None
        self.frames, self.image_hw = 0, (0, 0)
        self.active_s = time.monotonic()  # of the last sign of life

    def run(self) -> None:
        """Open, read, close."""
        try:
            capture = self._source.open()
            try:
                self.capture = capture
                self.active_s = time.monotonic()
                while not self.is_abandoned and self._read_one(capture):
                    pass
            finally:
                capture.close()
        except BaseException as exc:  # `LiveInlet.check` raises it where somebody hears it
            self.failure = exc

    def _read_one(self, capture: Capture) -> bool:
        pixels = capture.read()
        captured_s = time.monotonic()
        with self._mailbox.changed:  # with the mailbox's lock an abandoned thread gives nothing any more
            if self.is_abandoned:
                return False
            is_taken = self._mailbox.put(Frame(pixels, self._source.name, self._mailbox.next_index, captured_s))
        self.image_hw = (pixels.shape[0], pixels.shape[1])
        self.frames += 1
        self.active_s = time.monotonic()  # not `captured_s`: to wait for room in the mailbox is no silence
        return is_taken


class LiveInlet(Inlet):
    """A `LiveSource` with its grab thread and watchdog."""

    def __init__(
        self, source: LiveSource, mailbox: Mailbox, counts: SourceStatistics, reconnect: ReconnectPolicy
    ) -> None:
        """Prepare it; nothing is opened yet."""
        self._source, self.mailbox, self.counts, self._reconnect = source, mailbox, counts, reconnect
        self._attempt: Attempt | None = None
        self._stuck: list[Attempt] = []
        self._retry_at_s = 0.0  # where there is no attempt
        self._retry_after_s = reconnect.first_retry_s
        self._told: set[str] = set()  # losses since it last ran for a while
        self._num_told, self._tell_again_s, self._is_told = 0, 0.0, False
        self._running_since_s = 0.0
        self._last_frame_s = time.monotonic()  # or the start

    def start(self) -> None:
        """Begin to open it."""
        self._last_frame_s = time.monotonic()
        _LOG.info("%s: opening it", self._source.name)
        self._begin()

    def check(self, now_s: float) -> None:
        """The watchdog: notes what came, and opens the source again when it was lost or stalls."""
        if self.is_over:
            return
        attempt = self._attempt
        if attempt is None:
            if now_s - self._last_frame_s >= self._reconnect.give_up_after_s:
                self._give_up(self.counts.last_loss or "it could not be opened")
            elif now_s >= self._retry_at_s:
                self._begin()
            return
        failure = attempt.failure  # first, so that what came before it is seen below
        if attempt.frames:
            self._note_frames(attempt)
        silence_s = now_s - attempt.active_s
        if failure is not None:
            if not isinstance(failure, CameraError):
                raise failure
            waits_s = {"refused": self._reconnect.refused_retry_s, "not found": self._reconnect.not_found_retry_s}
            at_least_s = waits_s[failure.why] if isinstance(failure, SourceLost) else 0.0
            self._lose(str(failure), now_s, at_least_s)
        elif self.mailbox.is_waiting_for_room:
            return
        elif silence_s > self._source.timeout_s + self._reconnect.grace_s:
            what = "did not open" if attempt.capture is None else "gave no frame"
            self._lose(f"{self._source.name}: {what} for {silence_s:.0f} s", now_s)
        elif now_s - self._last_frame_s >= self._reconnect.give_up_after_s:
            self._give_up(self.counts.last_loss or "it did not open")

    @property
    def is_over(self) -> bool:
        """Whether it was given up, and its last frame is taken."""
        return self.counts.state == "failed" and not len(self.mailbox)

    def silent_s(self, now_s: float) -> float:
        """Since the last frame, or the start."""
        return 0.0 if self.counts.state == "failed" else now_s - self._last_frame_s

    def stop(self) -> None:
        """Tell the thread to end; returns at once."""
        self._abandon()
        self.mailbox.close()
        if self.counts.state == "running":
            self.counts.state = "stopped"

    def join(self, timeout_s: float) -> bool:
        """Wait for its threads."""
        until_s = time.monotonic() + timeout_s
        for attempt in self._stuck:
            attempt.join(max(0.0, until_s - time.monotonic()))
        self._stuck = [attempt for attempt in self._stuck if attempt.is_alive()]
        return not self._stuck

    def _begin(self) -> None:
        self._stuck = [attempt for attempt in self._stuck if attempt.is_alive()]
        if len(self._stuck) >= self._reconnect.max_stuck:
            self._retry_at_s = time.monotonic() + self._reconnect.longest_retry_s
            return
        self._attempt = Attempt(self._source, self.mailbox)
        self._attempt.start()

    def _note_size(self, image_hw: HW) -> None:
        before = self.counts.image_hw
        if before is not None and image_hw != before:
            _LOG.warning(
                "%s: its pictures are %dx%d px now, and were %dx%d",
                self._source.name,
                *image_hw[::-1],
                *before[::-1],
            )
        self.counts.image_hw = image_hw

    def _note_frames(self, attempt: Attempt) -> None:
        self._last_frame_s = max(self._last_frame_s, attempt.active_s)
        if self.counts.state == "running":
            if attempt.active_s - self._running_since_s >= self._reconnect.lasting_s:
                self._retry_after_s, self._num_told = self._reconnect.first_retry_s, 0
                self._told.clear()
            self._note_size(attempt.image_hw)
            return
        capture = attempt.capture
        assert capture is not None
        level = logging.INFO
        if self.counts.state == "lost":
            self.counts.reconnects += 1
            level = logging.INFO if self._is_told else logging.DEBUG
            _LOG.log(level, "%s: back again", self._source.name)
        self.counts.state, self._running_since_s = "running", time.monotonic()
        self.counts.pipeline, self.counts.image_hw = capture.pipeline, attempt.image_hw
        self.counts.nominal_fps, self.counts.fallbacks = capture.fps, capture.fallbacks
        rate = "" if capture.fps is None else f" at {capture.fps:g} fps"
        height, width = attempt.image_hw
        _LOG.log(level, "%s: %dx%d px%s by %s", self._source.name, width, height, rate, capture.pipeline)

    def _lose(self, reason: str, now_s: float, at_least_s: float = 0.0) -> None:
        """The attempt is over: open again after a while, or never where that is hopeless."""
        self._abandon()
        self.counts.last_loss = reason
        if self.counts.state == "opening" and not self._source.is_remote and not self._reconnect.waits_for_absent:
            self._give_up(reason)
            return
        left_s = self._reconnect.give_up_after_s - (now_s - self._last_frame_s)
        if left_s <= 0:
            self._give_up(reason)
            return
        if self.counts.state == "running":
            self.counts.state = "lost"
        wait_s = min(max(self._retry_after_s, at_least_s), left_s)
        self._retry_at_s = now_s + wait_s
        self._retry_after_s = min(self._retry_after_s * 2, self._reconnect.longest_retry_s)
        end = "" if left_s == math.inf else f", giving up in {left_s:.0f} s"
        self._is_told = self._is_news(reason, now_s)
        if self._is_told:
            _LOG.warning("%s; trying again in %.1f s%s", reason, wait_s, end)

    def _is_news(self, reason: str, now_s: float) -> bool:
        """Whether to log a loss: the first few and each new reason, then ever fewer, a few dozen a day."""
        what = re.sub(r"\d+", "", reason)
        if what in self._told and self._num_told >= _TOLD_AT_FIRST and now_s < self._tell_again_s:
            return False
        self._told.add(what)
        self._num_told += 1
        silence_s = _FIRST_SILENCE_S * 2 ** min(max(0, self._num_told - _TOLD_AT_FIRST), 10)
        self._tell_again_s = now_s + min(silence_s, _LONGEST_SILENCE_S)
        return True

    def _give_up(self, reason: str) -> None:
        self._abandon()
        waited_s = time.monotonic() - self._last_frame_s
        waited = f" (given up after {waited_s:.0f} s without a frame)" if waited_s >= 1 else ""
        self.counts.error = f"{reason}{waited}"
        self.counts.state = "failed"
        _LOG.error("%s", self.counts.error)

    def _abandon(self) -> None:
        """The thread ends with the read that it is in; frames that wait stay."""
        if self._attempt is not None:
            with self.mailbox.changed:
                self._attempt.is_abandoned = True
            self._stuck.append(self._attempt)
            self._attempt = None
