"""Detect in live cameras, streams and files: an iterator of results."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from yolov3_trt.arguments import MAX_COUNT, flag, integer, number, path, shown, text
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.loop import CameraLoop, LoopOptions
from yolov3_trt.camera.settings import MAX_S, CameraSettings
from yolov3_trt.camera.sinks import open_sinks
from yolov3_trt.camera.sinks.group import SinkGroup
from yolov3_trt.camera.sources import LiveSource, Source, open_source
from yolov3_trt.camera.statistics import Statistics
from yolov3_trt.detector import open_detector
from yolov3_trt.errors import SettingError, Yolov3TrtError
from yolov3_trt.jobs.cameras import Camera, check_selections, load_cameras
from yolov3_trt.jobs.opening import Artifact, several
from yolov3_trt.masking import masked_address
from yolov3_trt.selection import Selection
from yolov3_trt.settings import DetectSettings, DrawSettings, settings_from

_DEFAULT_VIDEO_FPS = 30.0  # where no source says its own


class Watch(Iterator[Result]):
    """Results as they come, each with `frame`, `detections`, `status` and `events`; made by `watch`.

    `with` opens sources, sinks and detector at once, else the first result does. One thread opens, takes the results and
    closes; the end, an error, `close`, and to let go of it close everything, and files are finished.
    """

    def __init__(self, job: "_Job") -> None:  # use `watch`
        self._job = job
        self._results = _results(job)  # knows nothing of this object, so that to let go of this one ends it
        self._is_open = False

    def __next__(self) -> Result:
        self.open()
        result = next(self._results)
        assert result is not None
        return result

    def open(self) -> None:
        """Open now what the first result would; harmless when repeated.

        Raises:
            Yolov3TrtError: the artifact, a file or a sink cannot be opened.
        """
        if not self._is_open:
            self._is_open = True
            next(self._results)

    def __enter__(self) -> "Watch":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End now: threads are joined, files finished; harmless when repeated."""
        self._results.close()

    def stop(self, reason: str = "stop") -> None:
        """End soon, with the results that are under way; from any thread or signal handler."""
        self._job.stop_reason = reason
        if self._job.loop is not None:
            self._job.loop.stop(reason)

    @property
    def stuck_sources(self) -> tuple[str, ...]:
        """Whose thread hangs inside OpenCV and was left behind at the end."""
        return self._job.statistics.stuck_sources

    def snapshot(self) -> dict[str, Any]:
        """How it is doing: counts, rates and times so far, as plain values; from any thread."""
        return self._job.statistics.snapshot()

    def to_json(self) -> dict[str, Any]:
        """The summary, as `camera --json` writes it; `errors` says which sources and sinks failed."""
        job, content = self._job, self._job.statistics.summary()
        errors = [] if job.error is None else [job.error]
        errors += [row["error"] for row in content["sources"] if row["error"] is not None]
        errors += [failure["error"] for failure in job.sinks.failures if failure["error"] not in errors]
        return {
            "artifact": str(job.artifact),
            **content,
            "stuck_sources": list(self.stuck_sources),
            "sinks": {
                "asked": [masked_address(uri) for uri in (*job.sink_uris, *(s for c in job.cameras for s in c.sinks))],
                "fallbacks": list(job.sinks.fallbacks),
                "failures": job.sinks.failures,
            },
            "errors": errors,
        }


@dataclass
class _Job:
    """What is asked for, and how far it is."""

    artifact: Any
    opening: dict[str, Any]
    cameras: Sequence[Camera]
    sink_uris: Sequence[str]
    options: LoopOptions
    statistics: Statistics = field(default_factory=Statistics)
    sinks: SinkGroup = field(default_factory=lambda: SinkGroup(()))
    loop: CameraLoop | None = None
    stop_reason: str | None = None
    error: str | None = None  # that ended it


def _results(job: _Job) -> Generator[Result | None, None, None]:
    """None when all is open, then the results."""
    with ExitStack() as stack:
        sources: list[Source | LiveSource] = []
        for camera in job.cameras:
            opened = open_source(camera.source, camera.asked)
            sources.append(opened if isinstance(opened, LiveSource) else stack.enter_context(opened))
        names = [source.name for source in sources]
        options = replace(
            job.options,
            selections={name: camera.selection for name, camera in zip(names, job.cameras, strict=True)},
            reconnects={name: camera.reconnect for name, camera in zip(names, job.cameras, strict=True)},
        )
        detector = stack.enter_context(open_detector(job.artifact, **job.opening))
        backend, meta = detector.backend, detector.meta
        check_selections(job.cameras, meta.class_names, detector.postprocess.conf)
        job.statistics.about.update(backend=backend.name.value, precision=meta.precision.value)
        job.statistics.about["fallbacks"] = list(backend.fallbacks)
        own_sinks = [(name, uri) for name, camera in zip(names, job.cameras, strict=True) for uri in camera.sinks]
        fps, stats = _video_fps(sources), job.statistics.snapshot
        job.sinks = stack.enter_context(open_sinks(job.sink_uris, fps=fps, stats=stats, sources=names, own=own_sinks))
        try:
            job.loop = CameraLoop(detector, sources, [job.sinks], options, job.statistics)
            yield None
            if job.stop_reason is not None:
                job.loop.stop(job.stop_reason)
            with closing(job.loop.results()) as results:
                for result in results:
                    job.statistics.about["fallbacks"] = list(backend.fallbacks)  # some come to light while running
                    yield result
        except (Yolov3TrtError, GeneratorExit) as exc:  # what was written so far is kept
            job.error = str(exc) if isinstance(exc, Yolov3TrtError) else None
            job.sinks.close()
            raise


def watch(
    artifact: Any,
    *sources: str | int,
    sinks: Artifact | Sequence[Artifact] = (),
    max_frames: int | None = None,
    duration: float | None = None,
    drop: str | None = None,
    cameras: Artifact | None = None,
    weights: Artifact | None = None,
    names: str | None = None,
    input_size: Any = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    trust: bool = False,
    precision: str | None = None,
    wait: str = "auto",
    track: bool = False,
    events: bool = False,
    on_tick: Callable[[], None] | None = None,
    **settings: Any,
) -> Watch:
    """Detect in cameras, streams and files, and give each result as it comes.

    Of live sources only the newest frame is used, so that results never lag, however slow their taker is. One that stalls is
    opened again; when it stays away it is given up, and the others go on.

    Args:
        artifact: what `open_detector` opens.
        sources: `0` or `/dev/video0` (USB camera), `csi://0`, `rtsp://...`, `http://...`, a video, a folder or glob, or
            `shapes://`; one or more, none: `0`. `NAME=URI` names a source.
        sinks: where results go besides: `window`, `http://127.0.0.1:8080`, `FILE.mp4`, `FILE-%Y%m%d-%H%M%S.mp4` for
            segments, `FILE.jsonl`, `jsonl` for stdout, `exec:PROGRAM`, `FOLDER/`; see docs/camera.md.
        max_frames: end after so many results.
        duration: end after so many seconds.
        drop: late frames: `latest` drops all but the newest, `none` waits; None: those of live sources are dropped.
        cameras: a TOML file with further sources, each with settings and sinks of its own; see docs/camera.md.
        weights: of a model; for this and the next six see `open_detector`.
        names: class names of a model.
        input_size: of a model, px.
        backend: what must run it.
        device: `cpu`, `cuda` or `auto`.
        threads: CPU threads of the backend.
        trust: of an engine.
        precision: what OpenVINO computes in, see `open_backend`.
        wait: how the thread waits for an engine, see `open_backend`.
        track: give the objects of each source numbers that they keep from frame to frame: `track_id` of each detection.
        events: give each result the `events` that it made certain, see `EventEngine`; with `track`.
        on_tick: is called about ten times a second, whether frames come or not, on the thread that takes the results.
        settings: any of `DetectSettings`, `Selection`, `CameraSettings` and `DrawSettings`.

    Raises:
        SettingError: an argument has no such value.
        Yolov3TrtError: at a `next`: the artifact, a file or a sink cannot be opened, the detector failed, or no sink is left.
            A camera that fails is no error: `to_json()["errors"]` says so at the end.

    >>> for result in watch("yolov3.engine", "rtsp://door/stream"):  # doctest: +SKIP
    ...     print(result.frame.source, [found.class_name for found in result.detections])
    """
    detect, selection, asked, draw = settings_from(settings, DetectSettings, Selection, CameraSettings, DrawSettings)
    opening = {
        "weights": weights,
        "names": names,
        "input_size": input_size,
        "backend": backend,
        "device": device,
        "threads": threads,
        "trust": flag("trust", trust),
        "precision": precision,
        "wait": wait,
        "detect": detect,
    }
    options = LoopOptions(
        None if max_frames is None else integer("max_frames", max_frames, 1, MAX_COUNT),
        None if duration is None else number("duration", duration, 0, MAX_S),
        None if drop is None else _choice("drop", drop, "latest", "none"),
        track=flag("track", track),
        events=flag("events", events),
        draw=draw,
        on_tick=on_tick,
    )
    uris = [str(source) if isinstance(source, int) else text("sources", source) for source in sources]
    watched = [Camera(uri, asked, selection) for uri in (uris if uris or cameras is not None else ["0"])]
    if cameras is not None:
        watched += load_cameras(path("cameras", cameras), asked, selection)
    return Watch(_Job(artifact, opening, watched, [text("sinks", sink) for sink in several(sinks)], options))


def _choice(name: str, value: Any, *choices: str) -> Any:
    if value not in choices:
        raise SettingError(name, f"got {shown(value)}; expected {' or '.join(choices)}")
    return value


def _video_fps(sources: Sequence[Source | LiveSource]) -> float:
    """Of videos: what the sources say; several that differ share the fastest, as each video is one of them."""
    known = [fps for source in sources if (fps := getattr(source, "fps", None)) is not None]
    return max(known, default=_DEFAULT_VIDEO_FPS)
