"""Videos, written by OpenCV."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from yolov3_trt.camera.draw import annotated
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import FileSink
from yolov3_trt.errors import CameraError, require
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image

# FourCC by container. Both encoders are part of every build of OpenCV that has FFmpeg.
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}

# OpenCV goes on without a word when the disk is full, so a video ends before: what the end of the video still needs, and what
# the index of its frames takes. A 4K frame has 1 MB at the most.
_RESERVE_BYTES, _INDEX_BYTES = 2 << 20, 96

_LONGEST_STILL_S = 2.0  # of a video, where many frames were dropped at once


class VideoSink(FileSink):
    """A video with the boxes drawn in: `.mp4` (MPEG-4 part 2) or `.avi` (Motion JPEG).

    Where frames were dropped the picture before stands in for them, so that the video is not faster than life. The encoders
    take even sizes, so the last row or column of odd frames is cut off. A video that cannot go on, as the disk is full or
    frames have another size, is ended and kept.
    """

    def __init__(self, path: Path, fps: float | Callable[[], float]) -> None:
        """Claim the file; the encoder is opened by the first frame, which has the size.

        Args:
            path: of the video.
            fps: frames per second, or what is asked for them when the first frame is there.

        Raises:
            CameraError: the suffix or the frames per second are not supported.
            OutputError: the folder cannot be written.
        """
        require("cv2", extra="opencv")
        suffix = path.suffix.lower()
        if suffix not in _CODECS:
            raise CameraError(f"{path}: videos are written as {' or '.join(_CODECS)}; give a name that ends so")
        if not callable(fps) and not 0 < fps < math.inf:
            raise CameraError(f"{path}: fps={fps}; expected a number above 0")
        super().__init__(path, suffix)  # OpenCV chooses the container by it
        self._codec, self._given_fps = _CODECS[suffix], fps
        self._fps = math.nan  # until the first frame
        self._writer: Any = None
        self._image_hw: HW = (0, 0)
        self._last: tuple[int, Image] | None = None  # the index of the last frame, and what the video shows of it

    def write(self, result: Result) -> None:
        """Add a frame.

        Raises:
            CameraError: it has another size than the first, the encoder cannot be opened, or the disk is full.
        """
        frame = result.frame
        height, width = frame.pixels.shape[:2]
        if self._writer is None:
            self._image_hw = (height, width)
            self._writer = self._open_writer()
        if (height, width) != self._image_hw:  # OpenCV would leave it out without a word
            self._end_early(
                f"frame {frame.index} of {frame.source} is {width}x{height}, the video "
                f"{self._image_hw[1]}x{self._image_hw[0]}",
                "give each source a video of its own",
            )
        picture = annotated(result)
        if self._last is not None:
            last_index, last_picture = self._last
            num_dropped = min(frame.index - last_index - 1, int(_LONGEST_STILL_S * self._fps))
            for _ in range(num_dropped):
                self._add(last_picture)
        self._add(picture)
        self._last = frame.index, picture

    def _add(self, picture: Image) -> None:
        self._leave_room()
        self._writer.write(picture)
        self._frames += 1

    def _leave_room(self) -> None:
        free = shutil.disk_usage(self._partial.parent).free
        if free >= _RESERVE_BYTES + _INDEX_BYTES * self._frames:
            return
        self._end_early(f"the disk is full ({free / 2**20:.1f} MiB left)", "make room, or give another folder")

    def _end_early(self, reason: str, fix: str) -> NoReturn:
        """Keep what there is, and say why there is no more."""
        frames = self._frames
        self.close()
        raise CameraError(f"{self._path}: {reason}; the video ends after {frames} frames; {fix}")

    def _open_writer(self) -> Any:
        cv2 = require("cv2", extra="opencv")
        height, width = self._image_hw
        self._fps = self._given_fps() if callable(self._given_fps) else self._given_fps
        writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter_fourcc(*self._codec), self._fps, (width, height))
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
            raise CameraError(f"{self._path}: the video could not be completed; is the disk full?")

    def _reaches_last_frame(self) -> bool:
        """Whether all frames are in the video: OpenCV goes on without a word when the disk is full.

        The announced number of frames would not tell; it may be written after frames that were lost.
        """
        cv2 = require("cv2", extra="opencv")
        capture = cv2.VideoCapture(str(self._partial), cv2.CAP_FFMPEG)
        capture.set(cv2.CAP_PROP_POS_FRAMES, self._frames - 1)
        capture.grab()
        position = capture.get(cv2.CAP_PROP_POS_FRAMES)
        capture.release()
        return bool(position == self._frames)
