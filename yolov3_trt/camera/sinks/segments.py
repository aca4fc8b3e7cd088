"""A video that never ends, in files of some minutes each."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from yolov3_trt.camera.draw import annotated
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.camera.sinks.encoders import Encoder, open_encoder, why_no_browser_plays
from yolov3_trt.camera.sinks.storage import Limits, NoRoom, Storage
from yolov3_trt.camera.sinks.timed_names import TimedNames
from yolov3_trt.camera.sinks.video import FilmClock, check_container
from yolov3_trt.errors import CameraError, OutputError, require
from yolov3_trt.files import make_folder
from yolov3_trt.geometry import HW

_LOG = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0  # after the room on the disk
_JUST_BEGUN_S = 30.0
_MOST_FAILURES = 3  # of encoders, one after the other


class SegmentsSink(Sink):
    """Videos with the boxes drawn in, a new one every so often, named after the time (UTC) when each began.

    A segment can be played while it is written and after the program was killed, up to the last second (with the ffmpeg
    program; OpenCV's are only whole when they end). A new one begins where the picture changes its size and where the
    encoder failed.
    """

    def __init__(
        self,
        pattern: Path,
        fps: Callable[[], float],
        is_live: Callable[[], bool],
        *,
        segment_s: float,
        limits: Limits,
    ) -> None:
        """Look after what runs before left; the first frame begins the first segment.

        Args:
            pattern: of the names, e.g. `out/door-%Y%m%d-%H%M%S.mp4`.
            fps: frames per second, asked when a segment begins.
            is_live: asked then too, whether frames have the times of their capture.
            segment_s: how long each is.
            limits: of all of them together.

        Raises:
            CameraError: the pattern is no such.
            OutputError: the folder cannot be made or read.
        """
        require("cv2", extra="opencv")
        check_container(pattern)
        self.name = str(pattern)
        self._names = TimedNames(pattern)
        self._fps, self._is_live, self._segment_s = fps, is_live, segment_s
        self.fallback = why_no_browser_plays()
        if self.fallback is not None:
            self.fallback += "; a segment that is not finished when the program is killed is lost"
        try:
            self._storage = Storage(make_folder(pattern.parent), self._names.own, limits)
            self._remove_unplayable()
        except OSError as exc:
            raise OutputError(f"{pattern.parent}: cannot be read ({exc.strerror}); give another folder") from exc
        self._encoder: Encoder | None = None
        self._failures = 0
        self._looked_s = 0.0

    def write(self, result: Result) -> None:
        """Add a frame, to a new segment where it is time.

        Raises:
            NoRoom: the disk is full; what was written is whole.
            CameraError: the encoder failed again and again.
        """
        frame = result.frame
        image_hw: HW = (frame.pixels.shape[0], frame.pixels.shape[1])
        if self._encoder is not None and (
            image_hw != self._image_hw or self._clock.at_s(frame) > self._segment_s - 1e-6
        ):
            self._end()
        try:
            self._look_after_room()
            if self._encoder is None:
                self._begin(result, image_hw)
            assert self._encoder is not None
            self._encoder.add(annotated(result), self._clock.at_s(frame))
            self._failures *= self._clock.at_s(frame) < self._segment_s / 2
        except CameraError as exc:
            self._failures += 1
            self._end()
            if self._failures >= _MOST_FAILURES:
                raise
            _LOG.warning("%s; the next frame begins another", exc)

    def close(self) -> None:
        """Finish the segment; harmless when repeated."""
        self._end()

    def abort(self) -> None:
        """As `close`: what was seen stays."""
        self._end()

    def _begin(self, result: Result, image_hw: HW) -> None:
        captured_unix_s = time.time() - max(0.0, time.monotonic() - result.frame.captured_s)
        self._path = self._names.new_at(captured_unix_s)
        fps = self._fps()
        self._image_hw, self._clock = image_hw, FilmClock(fps, self._is_live())
        self._encoder = open_encoder(self._path, self._path, image_hw, fps, fragmented=True)
        _LOG.debug("%s: begun", self._path)

    def _end(self) -> None:
        """What there is stays, also where the encoder could not end it."""
        if self._encoder is None:
            return
        encoder, self._encoder = self._encoder, None
        try:
            encoder.close()
        except CameraError as exc:
            _LOG.warning("%s", exc)
        with suppress(FileNotFoundError):
            self._storage.add(self._path)

    def _look_after_room(self) -> None:
        now_s = time.monotonic()
        if self._encoder is not None and now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            in_use = self._path.stat().st_size if self._encoder is not None else 0
            self._storage.make_room(max(1, in_use))
        except FileNotFoundError:  # the encoder has only just begun, or somebody took the file
            self._storage.make_room(1)
        except NoRoom:
            self._end()
            raise

    def _remove_unplayable(self) -> None:
        """Remove what a killed run left before anything in it was whole, unless it is just being begun by another."""
        for path in self._storage.files:
            if time.time() - path.stat().st_mtime > _JUST_BEGUN_S and not _is_playable(path):
                _LOG.warning("%s: a run that was killed left this, with nothing to play in it; removed", path)
                path.unlink()
        self._storage.scan()


def _is_playable(path: Path) -> bool:
    """Whether there is a picture in it, by its outermost parts."""
    with path.open("rb") as file:
        if path.suffix.lower() != ".mp4":
            return path.suffix.lower() == ".avi" or b"\x1f\x43\xb6\x75" in file.read(4096)  # a cluster of Matroska
        kinds, at, end = set(), 0, path.stat().st_size
        while at < end and len(head := file.read(16)) >= 8:
            kinds.add(head[4:8])
            num_bytes = int.from_bytes(head[:4], "big")
            num_bytes = int.from_bytes(head[8:], "big") if num_bytes == 1 else num_bytes
            if num_bytes < 8 or b"moof" in kinds:
                break
            at = file.seek(at + num_bytes)
        return b"moof" in kinds or kinds >= {b"moov", b"mdat"}
