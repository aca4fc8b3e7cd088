"""The newest picture of a source as a JPEG, for whoever watches."""

import threading
import time
from collections.abc import Callable

from yolov3_trt.camera.draw import annotated, blank_picture, draw_status
from yolov3_trt.camera.frames import Result
from yolov3_trt.errors import CameraError, require

_QUALITY = 80
_MIN_INTERVAL_S = 1 / 30  # more pictures per second nobody sees


class LiveView:
    """Encodes on a thread of its own, each picture once at most, and only while somebody watches.

    What is put in counts up a version. A viewer waits for a version later than the one it has: a slow viewer skips those
    between, and no viewer slows the others or the loop.

    Attributes:
        on_news: called by any thread when `newest` is another, or nothing more comes.
        source: `Source.name`.
        stale_s: how long the source has given no frame, where that is too long.
    """

    def __init__(self, source: str) -> None:
        require("cv2", extra="opencv")
        self.source = source
        self.stale_s: float | None = None
        self.on_news: Callable[[], None] = lambda: None
        self._result: Result | None = None
        self._failure: Exception | None = None
        self._put_in = threading.Condition(threading.Lock())  # the encoder waits for it
        self._version = 1  # the first is the picture that says that there is none yet
        self._encoded = (0, b"")
        self._num_viewers = 0
        self._is_open = True
        self._encoder = threading.Thread(target=self._encode_all, name=f"jpeg of {source}", daemon=True)
        self._encoder.start()

    @property
    def result(self) -> Result | None:
        """The newest; None before the first."""
        return self._result

    def put(self, result: Result) -> None:
        """Take the newest result; only a reference is handed over.

        Raises:
            CameraError: a frame before could not be encoded.
        """
        self._change(result, None)

    def mark_stale(self, for_s: float) -> None:
        """Show that the source gives no frames; the next one that is put in ends it."""
        self._change(self._result, for_s)

    @property
    def newest(self) -> tuple[int, bytes] | None:
        """The last picture that was encoded, a JPEG, and its version; None when no more come."""
        return self._encoded if self._is_open else None

    def watch(self) -> int:
        """Have pictures encoded until `unwatch`; gives the version to wait from, so that the first is the newest there is."""
        with self._put_in:
            self._num_viewers += 1
            self._put_in.notify()
            return self._version - 1

    def unwatch(self) -> None:
        """What began with `watch` is over."""
        with self._put_in:
            self._num_viewers -= 1

    def close(self) -> None:
        """Send the viewers away and end the encoder; harmless when repeated."""
        self._stop()
        self._encoder.join()

    def _stop(self) -> None:
        with self._put_in:
            self._is_open = False
            self._put_in.notify_all()
        self.on_news()

    def _change(self, result: Result | None, stale_s: float | None) -> None:
        with self._put_in:
            if self._failure is not None:
                raise CameraError(f"the picture of {self.source} cannot be shown: {self._failure}") from self._failure
            self._result, self.stale_s = result, stale_s
            self._version += 1
            if self._num_viewers:
                self._put_in.notify()

    def _encode_all(self) -> None:
        while True:
            with self._put_in:
                self._put_in.wait_for(self._has_work)
                if not self._is_open:
                    return
                version, result, stale_s = self._version, self._result, self.stale_s
            started_s = time.monotonic()
            try:
                jpeg = _jpeg_of(result, stale_s)
            except Exception as exc:  # an encoder that ended without a word would leave a frozen picture
                self._failure = exc
                self._stop()
                return
            self._encoded = (version, jpeg)
            self.on_news()
            rest_s = _MIN_INTERVAL_S - (time.monotonic() - started_s)
            with self._put_in:
                self._put_in.wait_for(lambda: not self._is_open, max(0.0, rest_s))

    def _has_work(self) -> bool:
        return not self._is_open or (self._num_viewers > 0 and self._version > self._encoded[0])


def _jpeg_of(result: Result | None, stale_s: float | None) -> bytes:
    cv2 = require("cv2", extra="opencv")
    if result is None:
        canvas = blank_picture("no frame yet")
        draw_status(canvas, None, stale_s)
    else:
        canvas = annotated(result).copy()
        draw_status(canvas, result.status, stale_s, result.frame.clock)
    good, encoded = cv2.imencode(".jpg", canvas, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    if not good:
        raise CameraError(f"OpenCV cannot write {canvas.shape[1]}x{canvas.shape[0]} px as a JPEG")
    return bytes(encoded)
