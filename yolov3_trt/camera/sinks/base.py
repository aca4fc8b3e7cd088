"""What every sink is, and files that are whole or absent."""

import logging
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from yolov3_trt.camera.frames import Result
from yolov3_trt.files import replacing

_LOG = logging.getLogger(__name__)

_Self = TypeVar("_Self", bound="Sink")


class Sink(Protocol):
    """Takes frames one after the other, from one thread.

    A context manager: it closes the sink, or aborts it when an error passes through. A KeyboardInterrupt is no error: who
    presses Ctrl-C wants what there is up to then.
    """

    name: str = "sink"  # stands in logs and results
    address: str | None = None  # where it can be watched, a URL
    fallback: str | None = None  # why this one is here in the place of another
    stop_requested: bool = False  # who watches wants the loop to end; a window sets it when q is pressed

    def write(self, result: Result) -> None:
        """Take a frame and what was found in it.

        Raises:
            CameraError: this frame does not fit, or the sink failed.
            OutputError: it cannot be written.
        """
        ...

    def mark_stale(self, source: str, for_s: float) -> None:  # noqa: ARG002 - for those that show it
        """Told about once a second while a source gives no frames, and for how long it has given none."""
        return

    def close(self) -> None:
        """Finish; harmless when repeated."""
        ...

    def abort(self) -> None:
        """Give up, leaving nothing half done; harmless when repeated."""
        self.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.close()
        else:
            self.abort()


class _Discarded(Exception):
    """Sent through `replacing` to keep the old file."""


class FileSink(Sink):
    """A file that is renamed into place when it is closed; without a single frame there is none, and a warning."""

    def __init__(self, path: Path, partial_suffix: str = "") -> None:
        """Claim a temporary file beside `path`, so that a folder that cannot be written is known at once; see `replacing`.

        Raises:
            OutputError: it cannot.
        """
        self.name = str(path)
        self._path = path
        self._frames = 0
        self._is_open = True
        self._resources = ExitStack()
        self._partial = self._resources.enter_context(replacing(path, partial_suffix))

    def close(self) -> None:
        """Put the file in place; harmless when repeated.

        Raises:
            CameraError, OutputError: it could not be completed, and is gone.
        """
        if self._is_open and not self._frames:
            _LOG.warning("%s: not written, there was no frame", self._path)
        if self._is_open:
            self._end(keep=self._frames > 0)

    def abort(self) -> None:
        """Remove what was written and keep the file that was there before, if any."""
        self._end(keep=False)

    def _complete(self) -> None:
        """Make the temporary file whole."""

    def _end(self, keep: bool) -> None:
        self._is_open = False
        # Not the caller's error, which `replacing` might take for one of this file.
        with suppress(_Discarded), self._resources:
            if not keep:
                raise _Discarded
            self._complete()
