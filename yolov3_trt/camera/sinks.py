"""Where frames go with what was found in them: files that are whole or absent."""

import json
import logging
import math
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from yolov3_trt.camera.draw import draw_detections
from yolov3_trt.camera.frames import Frame
from yolov3_trt.detections import Detections
from yolov3_trt.errors import CameraError, OutputError, require
from yolov3_trt.files import replacing
from yolov3_trt.geometry import HW

_LOG = logging.getLogger(__name__)

# FourCC by container. Both encoders are part of every build of OpenCV that has FFmpeg.
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}

_Self = TypeVar("_Self", bound="Sink")


class Sink(Protocol):
    """Takes frames one after the other, from one thread.

    A context manager: it closes the sink, or aborts it when an error passes through. A KeyboardInterrupt is no error: who
    presses Ctrl-C wants what there is up to then.
    """

    def write(self, frame: Frame, detections: Detections) -> None:
        """Take a frame and what was found in it.

        Raises:
            CameraError: this frame does not fit, or the sink failed.
            OutputError: it cannot be written.
        """
        ...

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


class _FileSink(Sink):
    """A file that is renamed into place when it is closed; without a single frame there is none, and a warning."""

    def __init__(self, path: Path) -> None:
        """Claim a temporary file beside `path`, so that a folder that cannot be written is known at once.

        Raises:
            OutputError: it cannot.
        """
        self._path = path
        self._frames = 0
        self._is_open = True
        self._resources = ExitStack()
        self._partial = self._resources.enter_context(replacing(path))

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


class VideoSink(_FileSink):
    """A film with the boxes drawn in: `.mp4` (MPEG-4 part 2) or `.avi` (Motion JPEG).

    The encoders take even sizes, so the last row or column of odd frames is cut off.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Claim the file; the encoder is opened by the first frame, which has the size.

        Raises:
            CameraError: the suffix or the frames per second are not supported.
            OutputError: the folder cannot be written.
        """
        require("cv2", extra="opencv")
        suffix = path.suffix.lower()
        if suffix not in _CODECS:
            raise CameraError(f"{path}: films are written as {' or '.join(_CODECS)}; give a name that ends so")
        if not 0 < fps < math.inf:
            raise CameraError(f"{path}: fps={fps}; expected a number above 0")
        super().__init__(path)
        self._codec, self._fps = _CODECS[suffix], fps
        # OpenCV chooses the container by the suffix, which the temporary file has not.
        self._film = self._partial.with_name(self._partial.name + suffix)
        self._resources.callback(self._film.unlink, missing_ok=True)
        self._writer: Any = None
        self._image_hw: HW = (0, 0)

    def write(self, frame: Frame, detections: Detections) -> None:
        """Add a frame.

        Raises:
            CameraError: it has another size than the first, or the encoder cannot be opened.
        """
        height, width = frame.pixels.shape[:2]
        if self._writer is None:
            self._image_hw = (height, width)
            self._writer = self._open_writer()
        if (height, width) != self._image_hw:  # OpenCV would leave it out without a word
            raise CameraError(
                f"{self._path}: frame {frame.index} of {frame.source} is {height}x{width}, the film "
                f"{self._image_hw[0]}x{self._image_hw[1]} (height x width); give each source a film of its own"
            )
        self._writer.write(draw_detections(frame.pixels, detections))
        self._frames += 1

    def _open_writer(self) -> Any:
        cv2 = require("cv2", extra="opencv")
        height, width = self._image_hw
        writer = cv2.VideoWriter(str(self._film), cv2.VideoWriter_fourcc(*self._codec), self._fps, (width, height))
        if not writer.isOpened():
            raise CameraError(
                f"{self._path}: this OpenCV cannot write {height}x{width} px at {self._fps:g} fps as {self._codec}; try "
                f"{' or '.join(set(_CODECS) - {self._path.suffix.lower()})}, or install an OpenCV with FFmpeg"
            )
        self._resources.callback(writer.release)
        return writer

    def _complete(self) -> None:
        is_by_ffmpeg = self._writer.getBackendName() == "FFMPEG"
        self._writer.release()
        if is_by_ffmpeg and not self._reaches_last_frame():
            raise CameraError(f"{self._path}: the film could not be completed; is the disk full?")
        self._film.replace(self._partial)

    def _reaches_last_frame(self) -> bool:
        """Whether all frames are in the film: OpenCV goes on without a word when the disk is full.

        The announced number of frames would not tell; it may be written after frames that were lost.
        """
        cv2 = require("cv2", extra="opencv")
        capture = cv2.VideoCapture(str(self._film), cv2.CAP_FFMPEG)
        capture.set(cv2.CAP_PROP_POS_FRAMES, self._frames - 1)
        capture.grab()
        position = capture.get(cv2.CAP_PROP_POS_FRAMES)
        capture.release()
        return bool(position == self._frames)


class JsonLinesSink(_FileSink):
    """A JSON object per frame and line: `source`, `index`, `captured_s`, and `detections` as in `detect --json`."""

    def __init__(self, path: Path) -> None:
        """Claim the file.

        Raises:
            OutputError: the folder cannot be written.
        """
        super().__init__(path)
        self._file = self._resources.enter_context(self._partial.open("w", encoding="utf-8"))

    def write(self, frame: Frame, detections: Detections) -> None:
        """Add a line.

        Raises:
            OutputError: it cannot be written.
        """
        row = {
            "source": frame.source,
            "index": frame.index,
            "captured_s": round(frame.captured_s, 6),
            "detections": detections.to_json(),
        }
        try:
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as exc:
            raise OutputError(f"{self._path}: cannot be written ({exc.strerror})") from exc
        self._frames += 1
