"""What `detect_files` finds, written as it comes: files that are whole however the work ends."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from yolov3_trt.errors import OutputError
from yolov3_trt.files import make_folder, replacing
from yolov3_trt.jobs.detect import Found, Skipped


class DetectRecord:
    """Keeps results in a JSON file, in a file of JSON lines, or both; each may be a stream instead.

    A context manager. The JSON file, `{"artifact", "backend", "images": [...]}` with a picture a line, grows beside its place
    and is put there when the work ends, by an interrupt or an error too, then with `incomplete` in it. A line of JSON is in
    its file at once. Where the work fails before the first result, nothing is written and earlier files stay.
    """

    def __init__(
        self,
        about: Mapping[str, Any],
        total: int | None = None,
        fallbacks: Callable[[], Sequence[str]] = tuple,
        *,
        json: Path | TextIO | None = None,
        jsonl: Path | TextIO | None = None,
    ) -> None:
        """Prepare it; files are opened with the first result.

        Args:
            about: what the JSON object begins with.
            total: how many results are to come, if that is known.
            fallbacks: of the detector, asked for at the end.
            json: gets one object.
            jsonl: gets a line per result, those of skipped files with an `error`.
        """
        self.skipped: list[str] = []
        self.num_found = 0
        self._about, self._total, self._fallbacks = about, total, fallbacks
        self._json, self._jsonl = json, jsonl
        self._resources = ExitStack()
        self._object: _Stream | _File | None = None
        self._lines: _Stream | _File | None = None

    @property
    def num_done(self) -> int:
        """Results so far, those of skipped files included."""
        return self.num_found + len(self.skipped)

    def add(self, item: Found | Skipped) -> None:
        """Write a result.

        Raises:
            OutputError: a file cannot be written.
            OSError: a stream cannot, as when nobody reads it any more.
        """
        self._open()
        row = item.to_json()
        if self._lines is not None:
            self._lines.write(_text(row) + "\n")
        if isinstance(item, Skipped):
            self.skipped.append(item.error)
            return
        if self._object is not None:
            self._object.write((",\n" if self.num_found else "\n") + _text(row))
        self.num_found += 1

    def __enter__(self) -> "DetectRecord":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.num_done:
            self._resources.__exit__(kind, error, trace)
            return
        with self._resources:
            self._open()
            has_reader = isinstance(self._json, Path) or not isinstance(error, BrokenPipeError)
            if self._object is not None and has_reader:
                self._object.write(self._end(error))

    def _open(self) -> None:
        """Open what is not open yet."""
        if self._json is not None and self._object is None:
            if isinstance(self._json, Path):
                partial = self._resources.enter_context(replacing(self._json))
                self._object = self._resources.enter_context(_File(partial, self._json))
            else:
                self._object = _Stream(self._json)
            about = ", ".join(f'"{key}": {_text(value)}' for key, value in self._about.items())
            self._object.write(f'{{{about}, "images": [')
        if self._jsonl is not None and self._lines is None:
            if isinstance(self._jsonl, Path):
                make_folder(self._jsonl.parent)
                self._jsonl.unlink(missing_ok=True)
                self._lines = self._resources.enter_context(_File(self._jsonl, self._jsonl))
            else:
                self._lines = _Stream(self._jsonl)

    def _end(self, error: BaseException | None) -> str:
        """What closes the object."""
        more: dict[str, Any] = {}
        if fallbacks := list(self._fallbacks()):
            more["fallbacks"] = fallbacks
        if self.skipped:
            more["skipped"] = self.skipped
        if error is not None:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            more["incomplete"] = {
                "why": f"{why}: {error}" if str(error) else why,
                "done": self.num_done,
                "of": self._total,
            }
        return "\n]" + "".join(f',\n"{key}": {_text(value)}' for key, value in more.items()) + "}\n"


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


class _Stream:
    """A stream that stays its owner's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a piece, there at once."""
        self._stream.write(text)
        self._stream.flush()


class _File:
    """A new or empty file that only ever holds whole pieces of text, though the disk fills up or a signal comes."""

    def __init__(self, path: Path, name: Path) -> None:
        """Open it; `name` is what errors call it."""
        self._name, self._bytes = name, 0
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as exc:
            raise OutputError(f"{name}: cannot write here ({exc.strerror}); give a writable folder") from exc

    def write(self, text: str) -> None:
        """Write a piece, there at once."""
        content, written = text.encode(), 0
        try:
            while written < len(content):
                written += self._file.write(content[written:])
            self._bytes += written
        except OSError as exc:
            raise OutputError(f"{self._name}: cannot be written ({exc.strerror})") from exc
        finally:
            self._file.truncate(self._bytes)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
