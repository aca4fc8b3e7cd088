"""A window on this machine's screen."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from yolov3_trt.camera.draw import annotated, draw_status
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.errors import CameraError, require

_TITLE = "yolov3_trt"
_MAX_WH = (1280, 720)  # px of a window when it opens; it can be made larger
_KEYS_THAT_END = {ord("q"), ord("Q"), 27}  # 27: Esc
# Without its first entry, which is the current folder, so that no cv2.py there is run.
_PROBE = "import sys; sys.path.pop(0); import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"
_PROBE_S = 20.0


class WindowSink(Sink):
    """A window for each source; `q`, Esc or closing one of them asks for the end."""

    def __init__(self, sources: Sequence[str]) -> None:
        """Prepare windows, which the first frames open; everything must happen on one thread.

        Raises:
            CameraError: there can be no window here.
        """
        reason = why_no_window()
        if reason is not None:
            raise CameraError(f"window: {reason}; watch in a browser with the sink http://127.0.0.1:8080")
        self.name = "window"
        self._titles = {source: f"{_TITLE}: {source}" for source in sources}
        self._newest: dict[str, Result] = {}

    def write(self, result: Result) -> None:
        """Show a frame.

        Raises:
            CameraError: the window system failed.
        """
        source = result.frame.source
        is_first = source not in self._newest
        self._newest[source] = result
        self._show(source, None, is_first)

    def mark_stale(self, source: str, for_s: float) -> None:
        """Show on the last frame that there are no more."""
        if source in self._newest:
            self._show(source, for_s, False)

    def close(self) -> None:
        """Close the windows; harmless when repeated."""
        cv2 = require("cv2", extra="opencv")
        for source in self._newest:
            if self._is_on_screen(source):
                cv2.destroyWindow(self._titles[source])
        self._newest.clear()

    def _show(self, source: str, stale_s: float | None, is_first: bool) -> None:
        cv2 = require("cv2", extra="opencv")
        result, title = self._newest[source], self._titles[source]
        canvas = annotated(result).copy()
        draw_status(canvas, result.status, stale_s, result.frame.clock)
        try:
            if is_first:
                _open_window(title, canvas.shape[1], canvas.shape[0])
            elif not self._is_on_screen(source):  # closed by its button; showing a picture would open it again
                self.stop_requested = True
                return
            cv2.imshow(title, canvas)
            key = cv2.waitKey(1)
        except cv2.error as exc:
            raise CameraError(f"window: the picture cannot be shown ({exc.err})") from exc
        # Above the lowest byte, some window systems tell of Num Lock and the like.
        if key >= 0 and key & 0xFF in _KEYS_THAT_END:
            self.stop_requested = True

    def _is_on_screen(self, source: str) -> bool:
        cv2 = require("cv2", extra="opencv")
        try:
            return bool(cv2.getWindowProperty(self._titles[source], cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # of Qt and others, for a window that is gone
            return False


def why_no_window() -> str | None:
    """Why no window can be opened here, or None when one can."""
    cv2 = require("cv2", extra="opencv")
    gui = re.search(r"^ *GUI: *(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if gui is not None and gui[1] == "NONE":
        return "this OpenCV is built without windows (opencv-python-headless)"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display ($DISPLAY and $WAYLAND_DISPLAY are not set)"
    return _why_probe_fails()


def _why_probe_fails() -> str | None:
    """Open a window in a process of its own: with a display that does not answer, Qt ends the process that asks."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, errors="replace", timeout=_PROBE_S
        )
    except subprocess.TimeoutExpired:
        return f"the display does not answer within {_PROBE_S:g} s"
    if probe.returncode == 0:
        return None
    lines = probe.stderr.strip().splitlines() or ["no reason given"]
    reason = next((line for line in lines if "display" in line), lines[-1])  # Qt names it first, GTK at the end
    return f"the display {os.environ.get('DISPLAY', '')} cannot be used ({reason})"


def _open_window(title: str, width: int, height: int) -> None:
    cv2 = require("cv2", extra="opencv")
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    shrink = min(1.0, _MAX_WH[0] / width, _MAX_WH[1] / height)
    cv2.resizeWindow(title, round(width * shrink), round(height * shrink))
