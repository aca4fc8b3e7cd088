"""Cameras and streams through OpenCV: which way is tried, and why it failed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yolov3_trt.camera.sources.base import Capture
from yolov3_trt.data.video import PictureGuard
from yolov3_trt.errors import CameraError, ImageError, require
from yolov3_trt.geometry import HW
from yolov3_trt.opencv import installed_pip_packages, is_built_with
from yolov3_trt.packages import is_jetson
from yolov3_trt.preprocess import Image

_LOG = logging.getLogger(__name__)

_USUAL_FPS = 30.0  # of one that does not say


class OpenCvCapture(Capture):
    """An open `cv2.VideoCapture`."""

    def __init__(self, capture: Any, name: str, pipeline: str, fallbacks: Sequence[str] = ()) -> None:
        """Take over an open one."""
        cv2 = require("cv2", extra="opencv")
        self._capture, self._name = capture, name
        self.pipeline, self.fallbacks = pipeline, tuple(fallbacks)
        height, width = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        self.image_hw: HW | None = (height, width) if height > 0 and width > 0 else None
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps <= 1000 else None  # a stream may give its clock rate instead
        self._guard = PictureGuard(name, self.fps or _USUAL_FPS)

    def read(self) -> Image:
        """Wait for the next picture.

        Raises:
            CameraError: there is none, or what comes cannot be the camera's.
        """
        good, pixels = self._capture.read()
        try:
            picture = self._guard.check(pixels) if good else None
        except ImageError as exc:
            raise CameraError(str(exc)) from exc
        if picture is None:
            raise CameraError(f"{self._name}: no further frame: it ended, or the connection was lost")
        return picture

    def close(self) -> None:
        """Give it up."""
        self._capture.release()


@dataclass(frozen=True)
class Way:
    """One way to open something."""

    backend: str  # as in `cv2.CAP_...`, e.g. FFMPEG
    target: str | int  # what OpenCV is given
    shown: str  # the same for people, without a password
    parameters: tuple[int, ...] = ()  # pairs for OpenCV


def open_way(name: str, way: Way) -> Any:
    """A `cv2.VideoCapture` that is open, or None.

    Args:
        name: of the source, for the log.
        way: what to try.
    """
    cv2 = require("cv2", extra="opencv")
    _LOG.debug("%s: trying OpenCV's %s with %s", name, way.backend, way.shown)
    try:
        capture = cv2.VideoCapture(way.target, getattr(cv2, f"CAP_{way.backend}"), list(way.parameters))
    except cv2.error as exc:  # OpenCV mostly gives a closed capture instead
        _LOG.debug("%s: OpenCV's %s failed: %s", name, way.backend, exc)
        return None
    if capture.isOpened():
        return capture
    capture.release()
    return None


def opencv_has(feature: str) -> bool:
    """Whether OpenCV was built with `GStreamer`, `FFMPEG` or `v4l/v4l2`."""
    cv2 = require("cv2", extra="opencv")
    return is_built_with(feature, cv2.getBuildInformation())


def why_no_gstreamer() -> str | None:
    """What to do where OpenCV has no GStreamer; None where it has it."""
    if opencv_has("GStreamer"):
        return None
    cv2 = require("cv2", extra="opencv")
    of_pip = installed_pip_packages()
    which = f"this OpenCV ({cv2.__version__}, {cv2.__file__}) was built without GStreamer"
    if of_pip:
        shadows = " and shadows the Jetson's own" if is_jetson() else ""
        names = " ".join(of_pip)
        fix = f"pip uninstall -y {names}, then sudo apt install python3-opencv"
        return f"{which}: it is pip's {names.replace(' ', ' and ')}{shadows}; run: {fix}"
    return f"{which}; run: sudo apt install python3-opencv, and use a venv made with --system-site-packages"
