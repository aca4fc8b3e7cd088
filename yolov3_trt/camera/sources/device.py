"""USB cameras, and the CSI cameras of a Jetson."""

import glob
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from yolov3_trt.camera.sources.base import Capture, LiveSource, SourceOptions
from yolov3_trt.camera.sources.capture import OpenCvCapture, Way, open_way, opencv_has, why_no_gstreamer
from yolov3_trt.camera.sources.parameters import FPS, SIZE, parse_parameters, parse_size
from yolov3_trt.camera.sources.pipelines import csi_pipeline
from yolov3_trt.errors import CameraError, require
from yolov3_trt.geometry import HW

_LOG = logging.getLogger(__name__)

CSI_FORM = "csi://0?size=1280x720&fps=30&flip=2"
_CSI_PATTERNS = {"size": SIZE, "fps": FPS, "flip": "[0-7]"}
_CSI_HW, _CSI_FPS = (720, 1280), 30.0  # what every sensor of the Jetson kits has
_INSPECT_S = 10.0
_ARGUS_SOCKET = "/tmp/argus_socket"


class UsbCamera(LiveSource):
    """A V4L2 camera by its number or node; on Windows and macOS by its number."""

    is_remote = False

    def __init__(self, text: str, options: SourceOptions) -> None:
        """Remember it; `text` is a number or a path below /dev."""
        self.name, self.timeout_s = text, options.timeout_s
        self._target: str | int = int(text) if text.isdigit() else text
        self._options = options

    def open(self) -> Capture:
        """Open it with Motion JPEG, which carries more frames than raw pictures do, and the size and fps asked for.

        Raises:
            CameraError: why it cannot be opened.
        """
        linux = sys.platform.startswith("linux")
        node = f"/dev/video{self._target}" if isinstance(self._target, int) else self._target
        if linux:
            self._check(node)
        way = Way("V4L2" if linux else "ANY", self._target, node if linux else self.name)
        capture = open_way(self.name, way)
        if capture is None:
            raise CameraError(
                f"{self.name}: OpenCV cannot open {way.shown}; another program may hold it (fuser -v {way.shown} tells), or it "
                "is not the camera's picture node (v4l2-ctl --list-devices tells)"
            )
        differences = self._configure(capture)
        for difference in differences:
            _LOG.warning("%s", difference)
        return OpenCvCapture(capture, self.name, f"OpenCV {way.backend} {way.shown} {_fourcc(capture)}", differences)

    def _check(self, node: str) -> None:
        """Refuse what cannot work, for reasons that OpenCV does not tell."""
        if not Path(node).exists():
            others = ", ".join(sorted(glob.glob("/dev/video[0-9]*")))
            there = f"there is {others}" if others else "there is no /dev/video node at all; is the camera plugged in?"
            raise CameraError(f"{self.name}: there is no {node}; {there} (in a container: --device {node})")
        if not os.access(node, os.R_OK | os.W_OK):
            raise CameraError(
                f"{self.name}: no permission to use {node}; run: sudo usermod -aG video $USER, then log in again "
                "(in a container: --group-add video)"
            )
        if not opencv_has("v4l/v4l2"):
            raise CameraError(f"{self.name}: this OpenCV was built without V4L2; run: sudo apt install python3-opencv")

    def _configure(self, capture: Any) -> tuple[str, ...]:
        """Ask for a mode; gives what it did not become, in words."""
        cv2 = require("cv2", extra="opencv")
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG"))  # first: sizes and rates depend on it
        if self._options.image_hw is not None:
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._options.image_hw[0])
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._options.image_hw[1])
        if self._options.fps is not None:
            capture.set(cv2.CAP_PROP_FPS, self._options.fps)
        height, width = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        got: dict[str, Any] = {
            "fourcc": _fourcc(capture),
            "size": (height, width),
            "fps": capture.get(cv2.CAP_PROP_FPS),
        }
        wanted: dict[str, Any] = {"fourcc": "MJPG", "size": self._options.image_hw, "fps": self._options.fps}
        return tuple(
            f"{self.name}: asked for {what} {_shown(wanted[what])}, got {_shown(got[what])}; "
            f"v4l2-ctl --list-formats-ext lists what the camera can"
            for what in got
            if wanted[what] is not None and wanted[what] != got[what]
        )


class CsiCamera(LiveSource):
    """A CSI camera of a Jetson, through NVIDIA's nvarguscamerasrc."""

    is_remote = False

    def __init__(self, uri: str, options: SourceOptions) -> None:
        """Read the URI, `csi://0` with parameters.

        Raises:
            CameraError: it is not understood.
        """
        sensor, _, _ = uri.removeprefix("csi://").partition("?")
        if not (sensor.isascii() and sensor.isdigit() and len(sensor) < 3):
            raise CameraError(f"{uri}: expected csi:// and the number of a sensor, e.g. {CSI_FORM}")
        given = parse_parameters(uri, _CSI_PATTERNS, CSI_FORM)
        image_hw: HW = parse_size(given["size"]) if "size" in given else options.image_hw or _CSI_HW
        fps = float(given["fps"]) if "fps" in given else options.fps or _CSI_FPS
        self.name, self.timeout_s = uri, options.timeout_s
        self._pipeline = csi_pipeline(int(sensor), image_hw, fps, int(given.get("flip", "0")))

    def open(self) -> Capture:
        """Open it.

        Raises:
            CameraError: why it cannot be opened.
        """
        reason = why_no_gstreamer()
        if reason is not None:
            raise CameraError(f"{self.name}: CSI cameras need GStreamer, but {reason}")
        if not _has_element("nvarguscamerasrc"):  # OpenCV would hang
            raise CameraError(
                f"{self.name}: GStreamer has no nvarguscamerasrc here; expected a Jetson, and of a container --runtime nvidia"
            )
        capture = open_way(self.name, Way("GSTREAMER", self._pipeline, self._pipeline))
        if capture is None:
            if Path(_ARGUS_SOCKET).exists():
                hint = "is the ribbon cable in, and the sensor enabled (sudo /opt/nvidia/jetson-io/jetson-io.py)?"
            else:
                hint = (
                    "nvargus-daemon cannot be reached; run: sudo systemctl restart nvargus-daemon "
                    f"(in a container: --volume {_ARGUS_SOCKET}:{_ARGUS_SOCKET})"
                )
            raise CameraError(f"{self.name}: GStreamer cannot open {self._pipeline}; {hint}")
        return OpenCvCapture(capture, self.name, f"OpenCV GSTREAMER {self._pipeline}")


def _has_element(name: str) -> bool:
    """Whether GStreamer has it; yes where that cannot be found out."""
    try:
        return subprocess.run(["gst-inspect-1.0", name], capture_output=True, timeout=_INSPECT_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return True


def _fourcc(capture: Any) -> str:
    """How frames come, e.g. `MJPG`."""
    cv2 = require("cv2", extra="opencv")
    return (
        int(capture.get(cv2.CAP_PROP_FOURCC))
        .to_bytes(4, "little", signed=True)
        .decode("ascii", "replace")
        .rstrip("\0 ")
    )


def _shown(value: Any) -> str:
    return f"{value[1]}x{value[0]}" if isinstance(value, tuple) else f"{value}"
