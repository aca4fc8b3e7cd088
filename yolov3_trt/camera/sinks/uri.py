"""Sinks by URI."""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.background import BackgroundSink
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.camera.sinks.frames_folder import FramesSink
from yolov3_trt.camera.sinks.group import SinkGroup
from yolov3_trt.camera.sinks.http import HttpSink
from yolov3_trt.camera.sinks.json_lines import JsonLinesSink, JsonLinesStream
from yolov3_trt.camera.sinks.video import VideoSink
from yolov3_trt.camera.sinks.window import WindowSink, why_no_window
from yolov3_trt.errors import CameraError

_LOG = logging.getLogger(__name__)

_FORMS = (
    "window, http://127.0.0.1:8080, NAME.mp4, NAME.avi, NAME.jsonl or NAME.jsonl?max_mb=100&keep=5, jsonl (on stdout) or "
    "FOLDER/?every=1&keep=1000"
)
_FALLBACK_PORTS = range(8080, 8090)
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
        self.name = sink.name
        self._sink, self._source = sink, source

    def write(self, result: Result) -> None:
        if result.frame.source == self._source:
            self._sink.write(result)

    def close(self) -> None:
        self._sink.close()

    def abort(self) -> None:
        self._sink.abort()


def open_sinks(
    uris: Sequence[str], *, fps: float, stats: Callable[[], dict[str, Any]], sources: Sequence[str]
) -> SinkGroup:
    """Open what URIs name.

    Without a screen, `window` becomes the HTTP page at 127.0.0.1:8080 or the next free port, which is logged and stands in the
    group's `fallbacks`.

    Args:
        uris: `window`, `http://HOST:PORT` (port 0 is any free one; with `?password_file=FILE` who watches needs the password
            that is the first line of a file, and with `name=NAME` the page answers to that host name too), `NAME.mp4` or
            `NAME.avi` (with several sources a video for each, `NAME-0.mp4` on), `NAME.jsonl` (all sources in one file), `jsonl`
            for stdout, `FOLDER/` for pictures, of which `?every=10&keep=1000` writes every tenth and keeps the newest thousand.
        fps: of videos of sources that name none.
        stats: of the loop, plain values for `/stats.json`; called by any thread. `nominal_fps` of its `sources` is the rate of
            a source's video.
        sources: names of all sources.

    Raises:
        CameraError: a URI names no sink, or one that cannot be opened; none stays open.
        OutputError: a folder cannot be written.
    """
    if len(set(uris)) < len(uris):
        raise CameraError(f"--sink {' '.join(uris)}: one is given twice; give each once")
    loop = _Loop(fps, stats, sources)
    with ExitStack() as opened:
        sinks: list[Sink] = []
        # The page in the place of a window takes any port that no other sink wants.
        for uri in sorted(uris, key="window".__eq__):
            for sink in _open(uri, loop):
                opened.callback(sink.abort)
                sinks.append(sink)
        opened.pop_all()
    return SinkGroup(sinks)


def _open(uri: str, loop: _Loop) -> list[Sink]:
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
        values = _numbers(uri, query, "max_mb", "keep")
        max_bytes = values["max_mb"] * 1_000_000 if "max_mb" in values else None
        return [JsonLinesSink(Path(path), max_bytes=max_bytes, keep=values.get("keep", 5))]
    if "://" not in uri and Path(uri).suffix.lower() in (".mp4", ".avi"):
        return _videos(Path(uri), loop)
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
        password = path.read_text().partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text in UTF-8"
        raise CameraError(f"{path}: this password cannot be read ({reason}); write it into that file") from exc
    if not password:
        raise CameraError(f"{path}: the first line is empty; write the password there")
    return password


def _videos(path: Path, loop: _Loop) -> list[Sink]:
    if len(loop.sources) == 1:
        return [_video(path, loop.sources[0], loop)]
    paths = [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(len(loop.sources))]
    with ExitStack() as opened:
        videos = [
            opened.enter_context(_video(video_path, source, loop))
            for video_path, source in zip(paths, loop.sources, strict=True)
        ]
        opened.pop_all()
    return [_OneSource(video, source) for video, source in zip(videos, loop.sources, strict=True)]


def _video(path: Path, source: str, loop: _Loop) -> BackgroundSink:
    return BackgroundSink(VideoSink(path, lambda: _fps_of(source, loop)))


def _fps_of(source: str, loop: _Loop) -> float:
    """What a source named when it was opened; streams may name a clock instead, or nothing."""
    rows = loop.stats().get("sources", [])
    named = next((row["nominal_fps"] for row in rows if row["source"] == source), None)
    return named if named is not None and 1 <= named <= _MAX_FPS else loop.fps


def _folder(uri: str, path: str, query: str, loop: _Loop) -> Sink:
    values = _numbers(uri, query, "every", "keep")
    return BackgroundSink(FramesSink(Path(path), loop.sources, every=values.get("every", 1), keep=values.get("keep")))


def _numbers(uri: str, query: str, *names: str) -> dict[str, int]:
    given = parse_qsl(query, keep_blank_values=True)
    values = dict(given)
    if len(given) > len(values) or not set(values) <= set(names):
        _refuse(uri, f"a {'folder' if 'every' in names else 'file of lines'} takes {' and '.join(names)}, each once")
    for key, value in values.items():
        if not re.fullmatch("[1-9][0-9]{0,8}", value):
            _refuse(uri, f"{key}={value!r} is not a number from 1")
    return {key: int(value) for key, value in values.items()}


def _refuse(uri: str, fault: str) -> NoReturn:
    raise CameraError(f"{uri}: {fault}; expected {_FORMS}")
