"""Results as JSON, a line per frame, into a file or a stream."""

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import FileSink, Sink
from yolov3_trt.errors import CameraError, OutputError
from yolov3_trt.files import silence

_FLUSH_EVERY_S = 1.0


def row_of(result: Result) -> dict[str, Any]:
    """A frame as a line has it.

    `source`, `index`, `width` and `height` in px, `captured_s`, `time`, `age_ms`, `position_s` of a video, and `detections` as
    in `detect --json`. `captured_s` is of the clock that all sources share, which begins anywhere; `time` is the same moment in
    UTC.
    """
    frame = result.frame
    captured_unix_s = time.time() - (time.monotonic() - frame.captured_s)
    return {
        "source": frame.source,
        "index": frame.index,
        "width": frame.pixels.shape[1],
        "height": frame.pixels.shape[0],
        **({} if frame.position_s is None else {"position_s": frame.position_s}),
        "captured_s": round(frame.captured_s, 6),
        "time": datetime.fromtimestamp(captured_unix_s, timezone.utc).isoformat(timespec="milliseconds"),
        "age_ms": round(result.status.age_ms, 3),
        "detections": result.detections.to_json(),
    }


def _line(result: Result) -> str:
    return json.dumps(row_of(result), allow_nan=False) + "\n"


class JsonLinesSink(FileSink):
    """A line per frame in a file. Until it is closed the lines are in the temporary file beside it, there within a second.

    When the disk is full the file is ended and kept, down to the last whole line.
    """

    def __init__(self, path: Path) -> None:
        """Claim the file.

        Raises:
            OutputError: the folder cannot be written.
        """
        super().__init__(path)
        self._file = self._resources.enter_context(self._partial.open("wb", buffering=0))
        self._pending: list[bytes] = []
        self._flushed_s = time.monotonic()
        self._lines, self._bytes = 0, 0  # in the file

    def write(self, result: Result) -> None:
        """Add a line.

        Raises:
            OutputError: it cannot be written.
        """
        self._pending.append(_line(result).encode())
        self._frames += 1
        if time.monotonic() - self._flushed_s >= _FLUSH_EVERY_S:
            self._flush()

    def close(self) -> None:
        """Put the file in place; harmless when repeated.

        Raises:
            OutputError: the last lines cannot be written; those before are in place.
        """
        if self._is_open:
            self._flush()
        super().close()

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        lines, written = b"".join(self._pending), 0
        self._pending.clear()
        try:
            while written < len(lines):
                written += self._file.write(lines[written:]) or 0
        except OSError as exc:
            written = lines.rfind(b"\n", 0, written) + 1
            self._file.truncate(self._bytes + written)
            self._frames = self._lines + lines.count(b"\n", 0, written)
            self._end(keep=self._frames > 0)
            kept = f"; it ends after {self._frames} lines" if self._frames else ""
            raise OutputError(f"{self._path}: cannot be written ({exc.strerror}){kept}") from exc
        self._lines, self._bytes = self._frames, self._bytes + written


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
            self._stream.write(_line(result))
            self._stream.flush()
        except BrokenPipeError as exc:
            silence(self._stream)
            raise CameraError(f"{self.name}: the reader of these lines has gone") from exc
        except OSError as exc:
            silence(self._stream)
            raise OutputError(f"{self.name}: cannot be written ({exc.strerror})") from exc

    def close(self) -> None:
        """Nothing to give up."""
