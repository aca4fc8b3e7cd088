"""The capture loop: frames from sources through a detector into sinks, never behind a live one.

Each source has a thread that only reads. Detector and sinks run on the calling thread, which takes the newest frame of each
live source and the next of each file, one per source and call, as many as fit into a batch, taking turns.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from yolov3_trt.arguments import spelled
from yolov3_trt.camera.frames import Frame, FrameStatus, Look, Result
from yolov3_trt.camera.inlets import Inlet, SourceInlet
from yolov3_trt.camera.live import LiveInlet, ReconnectPolicy
from yolov3_trt.camera.mailbox import Mailbox
from yolov3_trt.camera.sinks import Sink
from yolov3_trt.camera.sources import LiveSource, Source
from yolov3_trt.camera.statistics import Call, Statistics
from yolov3_trt.detector import Detector
from yolov3_trt.errors import CameraError
from yolov3_trt.events import Event, EventEngine
from yolov3_trt.selection import Selection
from yolov3_trt.settings import DrawSettings
from yolov3_trt.tracking import Tracker

_TICK_S = 0.1  # between two looks after the sources
_STALE_AFTER_S = 1.5  # without a frame a live source is marked stale
_STALE_EVERY_S = 1.0
_SURE_ABOVE_CONF = 0.1  # above the detector's confidence an object begins a track; below it only goes on
_JOIN_S = 2.0  # a thread that needs longer to end hangs inside OpenCV

Drop = Literal["latest", "none"]


@dataclass(frozen=True)
class LoopOptions:
    """When a loop ends, and what it does with frames that come too late."""

    max_frames: int | None = None  # results of all sources together
    duration_s: float | None = None
    drop: Drop | None = None  # None: `latest` for live sources, `none` for files
    selection: Selection = field(default_factory=Selection)  # which detections are results
    selections: Mapping[str, Selection] = field(default_factory=dict)  # of sources that have their own
    track: bool = False  # number the objects of each source
    events: bool = False  # and tell what happens to them
    draw: DrawSettings = field(default_factory=DrawSettings)
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    reconnects: Mapping[str, ReconnectPolicy] = field(default_factory=dict)  # of sources that have their own
    on_frame: Callable[[Result], None] | None = None  # called after the sinks
    on_tick: Callable[[], None] | None = None  # called about ten times a second

    def selection_of(self, source: str) -> Selection:
        """Which detections of a source are results."""
        return self.selections.get(source, self.selection)


class CameraLoop:
    """A loop that is ready to run, once."""

    def __init__(
        self,
        detector: Detector,
        sources: Sequence[Source | LiveSource],
        sinks: Sequence[Sink],
        options: LoopOptions | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        """Prepare it. Detector, sources and sinks stay their owner's, who closes them, whatever happens.

        Args:
            detector: finds the objects.
            sources: with names of their own.
            sinks: take each result in turn, in this order.
            options: see `LoopOptions`.
            statistics: to be filled; of a loop of its own.

        Raises:
            CameraError: there is no source, or one is given twice.
        """
        self._detector, self._sinks = detector, sinks
        self._options, self.statistics = options or LoopOptions(), statistics or Statistics()
        self._changed = threading.Condition(self.statistics.lock)
        names = [source.name for source in sources]
        if not names or len(set(names)) < len(names):
            raise CameraError(f"sources {', '.join(names) or '(none)'}: expected one or more, each of them once")
        self._trackers: dict[str, Tracker] = {}
        own, draw = self._options.selection_of, self._options.draw
        self._looks = {name: Look(draw, own(name).places.of(name)) for name in names}
        self._inlets = deque(self._inlet(source) for source in sources)
        # A frame of a live source that is submitted while another is under way would only age in the queue.
        is_live = any(source.live for source in self.statistics.sources.values())
        self._depth = 1 if is_live else detector.num_slots
        self._pending: deque[tuple[list[Frame], float]] = deque()  # submitted, and when
        self._submitted = 0
        self._stop_reason: str | None = None
        self._ends_s: float | None = None
        self._ticked_s = self._marked_s = 0.0
        if detector.meta.batch.min > len(names):
            self.statistics.fallbacks.append(
                f"{detector.meta.name} takes {detector.meta.batch.min} pictures a call; with {len(names)} sources the rest of "
                f"the batch is empty: export with {spelled('batch', 1)} for full speed"
            )

    def stop(self, reason: str) -> None:
        """End soon, with the frames that are under way; from any thread or signal handler."""
        self._stop_reason = self._stop_reason or reason

    def run(self) -> Statistics:
        """Run until the sources end, a limit is reached or `stop` is called; see `results`."""
        for _ in self.results():
            pass
        return self.statistics

    def results(self) -> Generator[Result, None, None]:
        """Each result after the sinks had it; at the end, and when it is closed before, every thread is joined.

        A source that fails is told in `statistics`, and the others go on.

        Raises:
            Yolov3TrtError: of the detector or a sink.
        """
        statistics = self.statistics
        statistics.start()
        if self._options.duration_s is not None:
            self._ends_s = time.monotonic() + self._options.duration_s
        try:
            for inlet in self._inlets:
                inlet.start()
            yield from self._turn()
            for inlet in self._inlets:
                inlet.check(time.monotonic())
        except GeneratorExit:
            self.stop("closed")
            raise
        finally:
            if self._stop_reason in ("duration", "max_frames"):
                self._note_who_never_came()
            statistics.end(self._stop_reason or "sources")
            statistics.stuck_sources = self._join()

    def _note_who_never_came(self) -> None:
        """A time or number that was asked for is over: a camera of which nothing was seen has failed."""
        for counts in self.statistics.sources.values():
            if counts.state == "opening" and counts.error is None:
                counts.error = f"{counts.last_loss or f'{counts.name}: it did not open'} (no frame came until the end)"
                counts.state = "failed"

    def _join(self) -> tuple[str, ...]:
        """End every thread; names of the sources where one hangs."""
        for inlet in self._inlets:
            inlet.stop()
        until_s = time.monotonic() + _JOIN_S
        return tuple(
            inlet.counts.name for inlet in self._inlets if not inlet.join(max(0.0, until_s - time.monotonic()))
        )

    def _turn(self) -> Iterator[Result]:
        """Detect and write, call by call."""
        overlaps = self._detector.num_slots > 1
        while True:
            self._submit(may_wait=True)
            if not self._pending:
                return
            timed = self._detector.result()
            done_s = time.monotonic()
            frames, submitted_s = self._pending.popleft()
            if overlaps:  # the device works on while the sinks do
                self._submit(may_wait=False)
            call = Call(
                [frame.source for frame in frames],
                [done_s - frame.captured_s for frame in frames],
                [submitted_s - frame.captured_s for frame in frames],
                timed.stages_s,
            )
            self.statistics.add_call(call, done_s)
            for frame, detections, age_s in zip(frames, timed.detections, call.ages_s, strict=True):
                source = self.statistics.sources[frame.source]
                status = FrameStatus(source.rate.per_s, age_s * 1e3, source.dropped, len(frames))
                wanted = self._options.selection_of(frame.source).of(
                    detections.shown, frame.pixels.shape[:2], frame.source
                )
                result = self._followed(Result(frame, wanted, status, look=self._looks[frame.source]))
                self._deliver(result)
                yield result
            self._tick()

    def _followed(self, result: Result) -> Result:
        """The same with numbers and events, where they are asked for."""
        frame, tracker = result.frame, self._trackers.get(result.frame.source)
        if tracker is None:
            return result
        started_s = time.monotonic()
        found = tracker.update(result.detections, frame.at_s)
        events: tuple[Event, ...] = ()
        crossings: dict[str, tuple[int, int]] = {}
        with self.statistics.lock:  # others read the counts
            engine = self.statistics.sources[frame.source].events
            if engine is not None:
                events = engine.update(found, frame.pixels.shape[:2], frame.at_s)
                crossings = engine.crossings
            self.statistics.add_tracking(time.monotonic() - started_s)
        return replace(result, detections=found, events=events, crossings=crossings)

    def _deliver(self, result: Result) -> None:
        started_s = time.monotonic()
        for sink in self._sinks:
            sink.write(result)
        self.statistics.add_sinks(time.monotonic() - started_s)
        if self._options.on_frame is not None:
            self._options.on_frame(result)

    def _submit(self, *, may_wait: bool) -> None:
        """Begin with what is there, up to `_depth` calls; wait for a frame only where nothing is under way."""
        while len(self._pending) < self._depth:
            frames = self._take()
            while not frames and may_wait and not self._pending and not self._is_ending():
                with self._changed:
                    self._changed.wait_for(self._has_news, _TICK_S)
                self._tick()
                frames = self._take()
            if not frames:
                return
            submitted_s = time.monotonic()
            self._detector.submit([frame.pixels for frame in frames])
            self._pending.append((frames, submitted_s))
            self._submitted += len(frames)

    def _take(self) -> list[Frame]:
        """A frame of each source that has one, as many as a call takes; who was left out has the first turn next."""
        limit = self._detector.meta.batch.max
        if self._options.max_frames is not None:
            limit = min(limit, self._options.max_frames - self._submitted)
        frames: list[Frame] = []
        if self._is_ending():
            return frames
        for _ in range(len(self._inlets)):
            if len(frames) >= limit:
                break
            frame = self._inlets[0].take()
            self._inlets.rotate(-1)
            if frame is not None:
                frames.append(frame)
        return frames

    def _has_news(self) -> bool:
        return any(len(inlet.mailbox) for inlet in self._inlets) or all(inlet.is_over for inlet in self._inlets)

    def _is_ending(self) -> bool:
        """Whether no further frame is to be taken; notes why."""
        if self._stop_reason is None:
            if self._options.max_frames is not None and self._submitted >= self._options.max_frames:
                self._stop_reason = "max_frames"
            elif self._ends_s is not None and time.monotonic() >= self._ends_s:
                self._stop_reason = "duration"
            elif any(sink.stop_requested for sink in self._sinks):
                self._stop_reason = "viewer"
        return self._stop_reason is not None or all(inlet.is_over for inlet in self._inlets)

    def _tick(self) -> None:
        """Look after the sources, and tell who watches."""
        now_s = time.monotonic()
        if now_s - self._ticked_s < _TICK_S / 2:
            return
        self._ticked_s = now_s
        for inlet in self._inlets:
            inlet.check(now_s)
        if now_s - self._marked_s >= _STALE_EVERY_S:
            self._marked_s = now_s
            for inlet in self._inlets:
                silent_s = inlet.silent_s(now_s)
                if silent_s >= _STALE_AFTER_S:
                    for sink in self._sinks:
                        sink.mark_stale(inlet.counts.name, silent_s)
        if self._options.on_tick is not None:
            self._options.on_tick()

    def _inlet(self, source: Source | LiveSource) -> Inlet:
        live = isinstance(source, LiveSource) or source.live
        drops = live if self._options.drop is None else self._options.drop == "latest"
        counts = self.statistics.add_source(source.name, live)
        if self._options.track or self._options.events:
            conf = self._detector.postprocess.conf
            self._trackers[source.name] = Tracker(begin=min(conf + _SURE_ABOVE_CONF, 1.0))
        if self._options.events:
            counts.events = EventEngine(self._options.selection_of(source.name).places.of(source.name))
        mailbox = Mailbox(self._changed, counts, drops=drops)
        if isinstance(source, LiveSource):
            reconnect = self._options.reconnects.get(source.name, self._options.reconnect)
            return LiveInlet(source, mailbox, counts, reconnect)
        if drops and not source.is_paced:
            raise CameraError(
                f"{source.name}: no frame of a file comes late; give {spelled('realtime', True)} with "
                f"{spelled('drop', 'latest')}"
            )
        return SourceInlet(source, mailbox, counts)


def run_loop(
    detector: Detector,
    sources: Sequence[Source | LiveSource],
    sinks: Sequence[Sink],
    options: LoopOptions | None = None,
    statistics: Statistics | None = None,
) -> Statistics:
    """Run a `CameraLoop` to its end.

    Raises:
        CameraError: there is no source, or one is given twice.
        Yolov3TrtError: of the detector or a sink.
    """
    return CameraLoop(detector, sources, sinks, options, statistics).run()
