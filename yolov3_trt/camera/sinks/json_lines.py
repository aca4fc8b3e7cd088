"""Results as JSON, a line per frame, into a file or a stream."""

import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Any, TextIO

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.camera.sinks.storage import Limits, NoRoom, Storage, is_full
from yolov3_trt.camera.sinks.timed_names import TimedNames, has_time
from yolov3_trt.errors import CameraError, OutputError
from yolov3_trt.files import make_folder, open_to_add, silence

_LOG = logging.getLogger(__name__)

FRAME_FORMAT, EVENT_FORMAT = "yolov3_trt.frame/1", "yolov3_trt.event/1"
_NO_LIMITS = Limits()
_FLUSH_EVERY_S = 1.0
_LONGEST_LINE = 1 << 20  # bytes


def row_of(result: Result) -> dict[str, Any]:
    """A frame as a line has it; docs/lines.md says what each key is."""
    frame = result.frame
    return {
        "format": FRAME_FORMAT,
        "source": frame.source,
        "index": frame.index,
        "width": frame.pixels.shape[1],
        "height": frame.pixels.shape[0],
        "position_s": frame.position_s,
        "captured_s": round(frame.captured_s, 6),
        "time": frame.taken.isoformat(timespec="milliseconds"),
        "age_ms": round(result.status.age_ms, 3),
        "detections": result.detections.to_json(),
    }


def lines_of(result: Result, *, only_events: bool = False) -> list[str]:
    """The lines of a frame, each with its end; those of its events alone where only they are wanted."""
    rows = [] if only_events else [row_of(result)]
    if result.events:
        of_frame = row_of(result)
        del of_frame["detections"], of_frame["age_ms"]
        rows += [{**of_frame, "format": EVENT_FORMAT, **event.to_json()} for event in result.events]
    return [json.dumps(row, allow_nan=False) + "\n" for row in rows]


def _is_whole(line: bytes) -> bool:
    try:
        return bool(json.loads(line))
    except (ValueError, RecursionError):
        return False


class JsonLinesSink(Sink):
    """A line per frame at the end of a file: in it within a second, and added to those of the runs before.

    Another program may take the file away (logrotate), and then a new one is begun. A line that a power cut tore is taken off
    at the next start. Where the disk is full the file ends with a whole line.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None, keep: int = 5, limits: Limits = _NO_LIMITS) -> None:
        """Open the file.

        Args:
            path: of the file, which is made where there is none. With the time in its name (`found-%Y%m%d.jsonl`) another file
                is gone on with when that changes.
            max_bytes: beyond which it becomes `NAME.1`, and that `NAME.2`; None: it grows.
            keep: so many of those stay.
            limits: of all files together, with those that are not written any more.

        Raises:
            CameraError: it holds something else than lines.
            OutputError: it cannot be written.
        """
        self.name = str(path)
        self._names = TimedNames(path) if has_time(path) else None
        own = re.compile(rf"{re.escape(path.name)}\.\d{{1,9}}") if self._names is None else self._names.own
        self._given_path, self._max_bytes, self._keep = path, max_bytes, keep
        self._path = self._path_now()
        self._pending: list[bytes] = []
        self._flushed_s = time.monotonic()
        make_folder(path.parent)
        self._is_new = not self._path.exists()
        self._file: Any = None
        self._open()
        self._mend()
        self._lines = 0  # of this run
        self._storage = Storage(path.parent, own, limits)
        self._storage.scan(self._path)

    def write(self, result: Result) -> None:
        """Add a line.

        Raises:
            OutputError: it cannot be written.
        """
        self._pending += [line.encode() for line in lines_of(result)]
        if time.monotonic() - self._flushed_s >= _FLUSH_EVERY_S:
            self._flush()

    def mark_stale(self, source: str, for_s: float) -> None:  # noqa: ARG002 - whichever source it is
        """Write what is waiting: no further frame may come for long."""
        if self._pending and time.monotonic() - self._flushed_s >= _FLUSH_EVERY_S:
            self._flush()

    def close(self) -> None:
        """Write what is waiting; harmless when repeated.

        Raises:
            OutputError: the last lines cannot be written; those before are in place.
        """
        if self._file is None:
            return
        try:
            self._flush()
            if not self._lines:
                _LOG.warning("%s: nothing written, there was no frame", self._path)
        finally:
            self._end()

    def abort(self) -> None:
        """As `close`: what was found stays found."""
        self.close()

    def _open(self) -> None:
        try:
            self._file = open_to_add(self._path)
        except OSError as exc:
            raise (NoRoom if is_full(exc) else OutputError)(
                f"{self._path}: cannot be written ({exc.strerror})"
            ) from exc

    def _mend(self) -> None:
        """Take off the part of a line that a power cut left; a whole one that only is not ended gets its end."""
        try:
            first, num_bytes = self._file.read(1), os.fstat(self._file.fileno()).st_size
            self._file.seek(max(0, num_bytes - _LONGEST_LINE))
            tail = self._file.read()
        except OSError as exc:
            self._end()
            raise OutputError(f"{self._path}: cannot be read ({exc.strerror}); give another name") from exc
        torn = tail[tail.rfind(b"\n") + 1 :]
        if first not in (b"", b"{") or len(torn) == _LONGEST_LINE:
            self._end()
            raise CameraError(f"{self._path}: does not hold lines of detections; give another name, or move it away")
        try:
            if _is_whole(torn):
                self._file.write(b"\n")
            elif torn:
                _LOG.warning("%s: the last line is cut short, as by a power cut; it is taken off", self._path)
                self._file.truncate(num_bytes - len(torn))
        except OSError as exc:
            self._end()
            raise OutputError(f"{self._path}: cannot be written ({exc.strerror})") from exc

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        lines, written = b"".join(self._pending), 0
        self._pending.clear()
        try:
            self._follow(len(lines))
            self._storage.make_room(os.fstat(self._file.fileno()).st_size + len(lines))
            before = os.fstat(self._file.fileno()).st_size
            try:
                while written < len(lines):
                    written += self._file.write(lines[written:]) or 0
            except OSError:
                written = lines.rfind(b"\n", 0, written) + 1
                self._file.truncate(before + written)
                self._lines += lines.count(b"\n", 0, written)
                raise
        except OutputError as exc:
            if isinstance(exc, NoRoom):
                exc.lost = lines.count(b"\n")
            else:
                self._end()
            raise
        except OSError as exc:
            if is_full(exc):
                raise NoRoom(f"{self._path}: cannot be written ({exc.strerror})", lines.count(b"\n", written)) from exc
            self._end()
            kept = f"; it ends after {self._lines} lines" if self._lines else ""
            raise OutputError(f"{self._path}: cannot be written ({exc.strerror}){kept}") from exc
        self._lines += lines.count(b"\n")

    def _follow(self, num_bytes: int) -> None:
        """Go on in a new file where this one was taken away, grew too large, or it is time."""
        own = os.fstat(self._file.fileno())
        self._path = self._path_now()
        try:
            is_there = os.path.samestat(own, os.stat(self._path))
        except FileNotFoundError:
            is_there = False
        if is_there and self._max_bytes is not None and own.st_size and own.st_size + num_bytes > self._max_bytes:
            for number in range(self._keep, 0, -1):
                older = self._path if number == 1 else self._numbered(number - 1)
                if older.exists():
                    older.replace(self._numbered(number))
            is_there = False
        if not is_there:
            before = self._file
            self._open()
            before.close()
            self._storage.scan(self._path)

    def _path_now(self) -> Path:
        return self._given_path if self._names is None else self._names.at(time.time())

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            if self._is_new and self._path.exists() and not self._path.stat().st_size:
                self._path.unlink()


class JsonLinesStream(Sink):
    """A line per frame on a stream that stays its owner's, each sent at once."""

    def __init__(self, stream: TextIO, name: str = "jsonl") -> None:
        self.name = name
        self._stream = stream

    def write(self, result: Result) -> None:
        """Send a line.

        Raises:
            CameraError: nobody reads the stream any more.
            OutputError: it cannot be written.
        """
        try:
            self._stream.write("".join(lines_of(result)))
            self._stream.flush()
        except BrokenPipeError as exc:
            silence(self._stream)
            raise CameraError(f"{self.name}: the reader of these lines has gone") from exc
        except OSError as exc:
            silence(self._stream)
            raise OutputError(f"{self.name}: cannot be written ({exc.strerror})") from exc

    def close(self) -> None:
        """Nothing to give up."""
