"""Video files as a source."""

import logging
import math
import time
from pathlib import Path
from typing import NoReturn

from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sources.base import Source
from yolov3_trt.errors import CameraError, require
from yolov3_trt.files import check_is_file

_LOG = logging.getLogger(__name__)


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
        cv2 = require("cv2", extra="opencv")
        try:
            check_is_file(path)
            path.open("rb").close()  # OpenCV gives the same answer for "missing" and "damaged"
        except OSError as exc:
            raise CameraError(f"{path}: cannot be read ({exc.strerror}); expected a video file") from exc
        self.name = str(path)
        self.is_paced = is_paced
        self._capture = cv2.VideoCapture(str(path))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps < math.inf else None
        # What the container announces may be an estimate, so fewer frames are a warning and not an error.
        self._announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._index = 0
        if not self._capture.isOpened():
            self._refuse()
        self.pipeline = f"OpenCV {self._capture.getBackendName()}"
        if is_paced and self.fps is None:
            self.close()
            raise CameraError(
                f"{path}: does not say its frames per second, so it has no real time; leave out --realtime"
            )

    def read(self) -> Frame | None:
        """The next frame, or None after the last.

        Raises:
            CameraError: not even the first can be decoded.
        """
        good, pixels = self._capture.read()
        if good:
            frame = Frame(pixels, self.name, self._index, time.monotonic())
            self._index += 1
            return frame
        if not self._index:
            self._refuse()
        if self._announced > self._index:
            _LOG.warning(
                "%s: %d frames read, %d announced; the video may be cut short", self.name, self._index, self._announced
            )
            self._announced = 0  # said once
        return None

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._capture.release()

    def _refuse(self) -> NoReturn:
        self.close()
        raise CameraError(
            f"{self.name}: not a video that OpenCV can decode, or damaged; copy it again, or convert it to an .mp4 with H.264"
        )
