"""A video of a run: whole or absent."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from yolov3_trt.camera.draw import annotated
from yolov3_trt.camera.frames import Frame, Result
from yolov3_trt.camera.sinks.base import FileSink
from yolov3_trt.camera.sinks.encoders import CONTAINERS, Encoder, open_encoder, why_no_browser_plays
from yolov3_trt.camera.sinks.storage import reserve_bytes
from yolov3_trt.errors import CameraError, require
from yolov3_trt.geometry import HW

# What the end of a video still needs, and what the index of its frames takes. A 4K frame has 1 MB at the most.
_END_BYTES, _INDEX_BYTES = 2 << 20, 96

_LONGEST_STILL_S = 2.0  # of a video, where many frames were dropped at once


class FilmClock:
    """When each frame is shown in a video: as in life, but no picture for much longer than two seconds."""

    def __init__(self, fps: float, is_live: bool) -> None:
        """Begin.

        Args:
            fps: of frames that have no time of their own, such as those of a folder.
            is_live: they are timed by their capture.
        """
        self._fps, self._is_live = fps, is_live
        self._last: Frame | None = None
        self._at_s = 0.0

    def at_s(self, frame: Frame) -> float:
        """From the begin of the video."""
        if self._last is not None:
            self._at_s += min(max(0.0, self._step_s(self._last, frame)), _LONGEST_STILL_S + 1 / self._fps)
        self._last = frame
        return self._at_s

    def _step_s(self, last: Frame, frame: Frame) -> float:
        if self._is_live:
            return frame.captured_s - last.captured_s
        if frame.position_s is not None and last.position_s is not None:
            return frame.position_s - last.position_s
        return (frame.index - last.index) / self._fps


class VideoSink(FileSink):
    """A video with the boxes drawn in: `.mp4` and `.mkv` are H.264 where the ffmpeg program is, `.avi` is Motion JPEG.

    Where frames were dropped the picture before stands in for them, so that the video is not faster than life. The encoders
    take even sizes, so the last row or column of odd frames is cut off. A video that cannot go on, as the disk is full or
    frames have another size, is ended and kept.
    """

    def __init__(
        self, path: Path, fps: float | Callable[[], float], is_live: Callable[[], bool] = lambda: False
    ) -> None:
        """Claim the file; the encoder is opened by the first frame, which has the size.

        Args:
            path: of the video.
            fps: frames per second, or what is asked for them when the first frame is there.
            is_live: asked then too, whether frames have the times of their capture.

        Raises:
            CameraError: the suffix or the frames per second are not supported.
            OutputError: the folder cannot be written.
        """
        require("cv2", extra="opencv")
        check_container(path)
        if not callable(fps) and not 0 < fps < math.inf:
            raise CameraError(f"{path}: fps={fps}; expected a number above 0")
        super().__init__(path, path.suffix.lower())
        self._given_fps, self._is_live = fps, is_live
        self.fallback = None if path.suffix.lower() == ".avi" else why_no_browser_plays()
        self._encoder: Encoder | None = None
        self._image_hw: HW = (0, 0)

    def write(self, result: Result) -> None:
        """Add a frame.

        Raises:
            CameraError: it has another size than the first, the encoder cannot be opened, or the disk is full.
        """
        frame = result.frame
        height, width = frame.pixels.shape[:2]
        if self._encoder is None:
            self._image_hw = (height, width)
            fps = self._given_fps() if callable(self._given_fps) else self._given_fps
            self._encoder = open_encoder(self._partial, self._path, self._image_hw, fps)
            self._resources.callback(self._encoder.kill)
            self._clock = FilmClock(fps, self._is_live())
        if (height, width) != self._image_hw:  # OpenCV would leave it out without a word
            self._end_early(
                f"frame {frame.index} of {frame.source} is {width}x{height}, the video "
                f"{self._image_hw[1]}x{self._image_hw[0]}",
                "give each source a video of its own",
            )
        self._leave_room()
        self._encoder.add(annotated(result), self._clock.at_s(frame))
        self._frames += 1

    def _leave_room(self) -> None:
        usage = shutil.disk_usage(self._partial.parent)
        if usage.free >= max(reserve_bytes(usage.total), _END_BYTES + _INDEX_BYTES * self._frames):
            return
        self._end_early(f"the disk is full ({usage.free / 2**20:.1f} MiB left)", "make room, or give another folder")

    def _end_early(self, reason: str, fix: str) -> NoReturn:
        """Keep what there is, and say why there is no more."""
        frames = self._frames
        self.close()
        raise CameraError(f"{self._path}: {reason}; the video ends after {frames} frames; {fix}")

    def _complete(self) -> None:
        assert self._encoder is not None
        self._encoder.close()


def check_container(path: Path) -> None:
    """Refuse what no video is written as.

    Raises:
        CameraError: by its suffix.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise CameraError(f"{path}: videos are written as {', '.join(CONTAINERS)}; give a name that ends so")
