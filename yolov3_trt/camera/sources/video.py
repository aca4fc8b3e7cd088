"""Video files as a source."""

import time
from pathlib import Path

from yolov3_trt.arguments import spelled
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sources.base import Source
from yolov3_trt.data.video import VideoReader
from yolov3_trt.errors import CameraError, ImageError


class VideoSource(Source):
    """The frames of a video file, in order, none left out."""

    live = False

    def __init__(self, path: Path, *, is_paced: bool = False) -> None:
        """Open a file.

        Args:
            path: of the file.
            is_paced: see `Source`.

        Raises:
            CameraError: it is missing, no video, or does not say the pace that it is to have.
        """
        self.name, self.is_paced = str(path), is_paced
        try:
            self._video = VideoReader(path)
        except ImageError as exc:
            raise CameraError(str(exc)) from exc
        self.fps: float | None = self._video.fps
        self.pipeline = f"OpenCV {self._video.backend}"
        if is_paced and self.fps is None:
            self.close()
            raise CameraError(
                f"{path}: does not say its frames per second, so it has no real time; leave out {spelled('realtime')}"
            )

    def read(self) -> Frame | None:
        """The next frame, or None after the last.

        Raises:
            CameraError: not even the first can be decoded, or, at the end, much is missing.
        """
        try:
            frame = self._video.read()
        except ImageError as exc:
            raise CameraError(str(exc)) from exc
        if frame is not None:
            return Frame(frame.pixels, self.name, self._video.num_read - 1, time.monotonic(), frame.position_s)
        if self._video.has_lost_much:
            raise CameraError(f"{self._video.loss}")
        return None

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._video.close()
