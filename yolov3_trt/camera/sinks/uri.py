"""Sinks by URI."""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.background import BackgroundSink
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.camera.sinks.encoders import CONTAINERS
from yolov3_trt.camera.sinks.frames_folder import FramesSink
from yolov3_trt.camera.sinks.group import SinkGroup
from yolov3_trt.camera.sinks.http import HttpSink
from yolov3_trt.camera.sinks.json_lines import JsonLinesSink, JsonLinesStream
from yolov3_trt.camera.sinks.program import ProgramSink
from yolov3_trt.camera.sinks.segments import SegmentsSink
from yolov3_trt.camera.sinks.storage import Limits, PatientSink
from yolov3_trt.camera.sinks.timed_names import has_time
from yolov3_trt.camera.sinks.video import VideoSink
from yolov3_trt.camera.sinks.window import WindowSink, why_no_window
from yolov3_trt.errors import CameraError
from yolov3_trt.files import read_secret
from yolov3_trt.masking import masked_address

_LOG = logging.getLogger(__name__)

_FORMS = (
    "window, http://127.0.0.1:8080, NAME.mp4, NAME.avi or NAME.mkv, NAME-%Y%m%d-%H%M%S.mp4?segment=10min&keep_days=14, "
    "NAME.jsonl or NAME.jsonl?max_mb=100&keep=5, jsonl (on stdout), exec:PROGRAM or FOLDER/?every=1&keep=1000"
)
_FALLBACK_PORTS = range(8080, 8090)
_SEGMENT_S = 600.0  # of a video whose name has the time in it
_MAX_FPS = 240  # of cameras


@dataclass(frozen=True)
class _Loop:
    """What sinks must know of the loop."""

    fps: float
    stats: Callable[[], dict[str, Any]]
    sources: Sequence[str]


class _OneSource(Sink):
    """Takes the frames of one source and leaves the others."""

    def __init__(self, sink: Sink, source: str) -> None:
        self.name, self.fallback, self.address = sink.name, sink.fallback, sink.address
        self._sink, self._source = sink, source

    @property
    def stop_requested(self) -> bool:  # type: ignore[override]  # read only here
        return self._sink.stop_requested

    def mark_stale(self, source: str, for_s: float) -> None:
        if source == self._source:
            self._sink.mark_stale(source, for_s)

    def write(self, result: Result) -> None:
        if result.frame.source == self._source:
            self._sink.write(result)

    def close(self) -> None:
        self._sink.close()

    def abort(self) -> None:
        self._sink.abort()


def open_sinks(
    uris: Sequence[str],
    *,
    fps: float,
    stats: Callable[[], dict[str, Any]],
    sources: Sequence[str],
    own: Sequence[tuple[str, str]] = (),
) -> SinkGroup:
    """Open what URIs name.

    Without a screen, `window` becomes the HTTP page at 127.0.0.1:8080 or the next free port, which is logged and stands in the
    group's `fallbacks`.

    Args:
        uris: `window`, `http://HOST:PORT` (port 0 is any free one; with `?password_file=FILE` who watches needs the password
            that is the first line of a file, and with `name=NAME` the page answers to that host name too), `NAME.mp4`, `.mkv`
            or `.avi` (with several sources a video for each, `NAME-0.mp4` on, or `{source}` in the name stands for its name),
            with the time in the name (`NAME-%Y%m%d-%H%M%S.mp4?segment=10min`) a new one every ten minutes, `NAME.jsonl` (all
            sources in one file; `NAME-%Y%m%d.jsonl`: one per day), `jsonl` for stdout,
            `exec:PROGRAM` for the standard input of a program, `FOLDER/` for pictures, of which
            `?every=10&keep=1000` writes every tenth and keeps the newest thousand. What segments, lines and pictures may take
            of a disk: `keep` (files), `keep_days`, `keep_gb`, and `free_gb`, which stay free.
        fps: of videos of sources that name none.
        stats: of the loop, plain values for `/stats.json`; called by any thread. `nominal_fps` of its `sources` is the rate of
            a source's video.
        sources: names of all sources.
        own: further URIs, each behind the name of the source that alone it is for.

    Raises:
        CameraError: a URI names no sink, or one that cannot be opened; none stays open.
        OutputError: a folder cannot be written.
    """
    asked: list[tuple[str, str | None]] = [(uri, None) for uri in uris]
    asked += [(uri.replace("{source}", _plain_name(source)), source) for source, uri in own]
    every = [uri for uri, _ in asked]
    if len(set(every)) < len(every):
        raise CameraError(f"sinks {' '.join(map(masked_address, every))}: one is given twice; give each once")
    loop = _Loop(fps, stats, sources)
    with ExitStack() as opened:
        sinks: list[Sink] = []
        # The page in the place of a window takes any port that no other sink wants.
        for uri, source in sorted(asked, key=lambda one: one[0] == "window"):
            for sink in _open(uri, loop if source is None else replace(loop, sources=[source])):
                opened.callback(sink.abort)
                sinks.append(sink if source is None or len(sources) == 1 else _OneSource(sink, source))
        opened.pop_all()
    return SinkGroup(sinks)


def _open(uri: str, loop: _Loop) -> list[Sink]:
    if uri.startswith(("exec:", "exec?")):
        return [_program(uri)]
    path, _, query = uri.partition("?")
    if uri == "window":
        return [_window_or_page(loop)]
    if uri == "jsonl":
        return [JsonLinesStream(sys.stdout)]
    if uri.startswith("http://"):
        return [_page(uri, loop)]
    if "://" not in uri and path.endswith("/"):
        return [_folder(uri, path, query, loop)]
    if "://" not in uri and Path(path).suffix.lower() == ".jsonl":
        return [_lines(uri, Path(path), query)]
    if "://" not in uri and Path(path).suffix.lower() in CONTAINERS:
        return _videos(uri, Path(path), query, loop)
    return _refuse(uri, "not a sink")


def _window_or_page(loop: _Loop) -> Sink:
    reason = why_no_window()
    if reason is None:
        return WindowSink(loop.sources)
    page = _page_at_free_port(loop)
    page.fallback = f"no window: {reason}; the live view is at {page.address} instead"
    _LOG.warning("%s", page.fallback)
    return page


def _page_at_free_port(loop: _Loop) -> HttpSink:
    for port in _FALLBACK_PORTS:
        try:
            return HttpSink("127.0.0.1", port, sources=loop.sources, stats=loop.stats)
        except CameraError as exc:
            _LOG.info("%s", exc)
    return HttpSink("127.0.0.1", 0, sources=loop.sources, stats=loop.stats)


def _page(uri: str, loop: _Loop) -> Sink:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as exc:
        _refuse(uri, str(exc))
    given = parse_qsl(parts.query, keep_blank_values=True)
    names = [value for key, value in given if key == "name"]
    files = [value for key, value in given if key == "password_file"]
    if parts.path not in ("", "/") or parts.fragment or parts.username is not None:
        _refuse(uri, "more than http://HOST:PORT?password_file=FILE&name=HOST")
    if len(names) + len(files) < len(given) or len(files) > 1 or not all(names):
        _refuse(uri, "a page takes password_file once, and name, which may be repeated")
    return HttpSink(
        parts.hostname or "127.0.0.1",
        8080 if port is None else port,
        sources=loop.sources,
        stats=loop.stats,
        names=names,
        password=_password(Path(files[0])) if files else None,
    )


def _password(path: Path) -> str:
    """The first line of a file, which is in no list of processes as an option would be."""
    try:
        password = read_secret(path).partition("\n")[0].rstrip("\r")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no small text in UTF-8"
        raise CameraError(f"{path}: this password cannot be read ({reason}); write it into that file") from exc
    if not password:
        raise CameraError(f"{path}: the first line is empty; write the password there")
    return password


def _videos(uri: str, path: Path, query: str, loop: _Loop) -> list[Sink]:
    if len(loop.sources) == 1:
        return [_video(uri, _path_of(path, loop.sources[0]), query, loop.sources[0], loop)]
    with ExitStack() as opened:
        videos: list[Sink] = []
        for number, source in enumerate(loop.sources):
            own = _path_of(path, source)
            if own == path:
                own = path.with_name(f"{path.stem}-{number}{path.suffix}")
            videos.append(opened.enter_context(_video(uri, own, query, source, loop)))
        opened.pop_all()
    return [_OneSource(video, source) for video, source in zip(videos, loop.sources, strict=True)]


def _path_of(path: Path, source: str) -> Path:
    return path.with_name(path.name.replace("{source}", _plain_name(source)))


def _plain_name(source: str) -> str:
    """For a file."""
    return re.sub(r"[^\w.-]+", "_", source)


def _video(uri: str, path: Path, query: str, source: str, loop: _Loop) -> Sink:
    def is_live() -> bool:
        return bool(_row_of(source, loop).get("live"))

    def fps() -> float:
        return _fps_of(source, loop)

    values = _values(uri, query, "a video", {"segment": _duration, **_LIMITS})
    if not has_time(path) and values:
        _refuse(uri, f"{', '.join(values)} need the time in the name, as in {path.stem}-%Y%m%d-%H%M%S{path.suffix}")
    if has_time(path):
        segment_s = values.get("segment", _SEGMENT_S)
        video: Sink = PatientSink(SegmentsSink(path, fps, is_live, segment_s=segment_s, limits=_limits(values)))
    else:
        video = VideoSink(path, fps, is_live)
    if video.fallback is not None:
        _LOG.warning("%s: %s", path, video.fallback)
    return BackgroundSink(video)


def _row_of(source: str, loop: _Loop) -> dict[str, Any]:
    rows = loop.stats().get("sources", [])
    return next((row for row in rows if row["source"] == source), {})


def _fps_of(source: str, loop: _Loop) -> float:
    """What a source named when it was opened; streams may name a clock instead, or nothing."""
    named = _row_of(source, loop).get("nominal_fps")
    return named if named is not None and 1 <= named <= _MAX_FPS else loop.fps


def _folder(uri: str, path: str, query: str, loop: _Loop) -> Sink:
    values = _values(uri, query, "a folder", {"every": _count, **_LIMITS})
    sink = FramesSink(Path(path), loop.sources, every=values.get("every", 1), limits=_limits(values))
    return BackgroundSink(PatientSink(sink))


def _program(uri: str) -> Sink:
    head, _, command = uri.partition(":")
    values = _values(head, head.partition("?")[2], "exec", {"queue": _count, "only": _events})
    return ProgramSink(command, queue=values.get("queue", 10_000), only_events="only" in values)


def _lines(uri: str, path: Path, query: str) -> Sink:
    values = _values(uri, query, "a file of lines", {"max_mb": _count, **_LIMITS})
    if has_time(path):
        if "max_mb" in values:
            _refuse(uri, "a new file begins by the time in the name or by max_mb, not by both")
        return PatientSink(JsonLinesSink(path, limits=_limits(values)))
    if "max_mb" not in values and set(values) - {"free_gb"}:
        _refuse(uri, f"{', '.join(values)} need max_mb, or the time in the name as in {path.stem}-%Y%m%d{path.suffix}")
    keep, max_mb = values.pop("keep", 5), values.get("max_mb")
    max_bytes = None if max_mb is None else max_mb * 1_000_000
    return PatientSink(JsonLinesSink(path, max_bytes=max_bytes, keep=keep, limits=_limits(values)))


def _count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise ValueError("is not a number from 1")
    return int(text)


def _events(text: str) -> str:
    if text != "events":
        raise ValueError("is not events")
    return text


def _amount(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not float(text):
        raise ValueError("is not a number above 0")
    return float(text)


def _duration(text: str) -> float:
    found = re.fullmatch("([1-9][0-9]{0,5})(s|min|h)", text)
    if found is None:
        raise ValueError("is not a time such as 30s, 10min or 1h")
    return int(found[1]) * {"s": 1.0, "min": 60.0, "h": 3600.0}[found[2]]


_LIMITS: dict[str, Callable[[str], Any]] = {
    "keep": _count, "keep_days": _amount, "keep_gb": _amount, "free_gb": _amount
}  # fmt: skip


def _limits(values: dict[str, Any]) -> Limits:
    return Limits(**{name: values[name] for name in _LIMITS if name in values})


def _values(uri: str, query: str, what: str, kinds: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """What stands behind the question mark."""
    given = parse_qsl(query, keep_blank_values=True)
    values: dict[str, Any] = {}
    for key, text in given:
        if key not in kinds or key in values:
            _refuse(uri, f"{what} takes {', '.join(kinds)}, each once")
        try:
            values[key] = kinds[key](text)
        except ValueError as exc:
            _refuse(uri, f"{key}={text!r} {exc}")
    return values


def _refuse(uri: str, fault: str) -> NoReturn:
    raise CameraError(f"{uri}: {fault}; expected {_FORMS}")
