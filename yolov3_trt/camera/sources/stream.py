"""Streams from the network: RTSP, and Motion JPEG and others by HTTP."""

import http.client
import logging
import os
import socket
import urllib.error
from urllib.parse import urlsplit

from yolov3_trt.camera.sources.answers import PolledPictures, check_status, http_answer, rtsp_status
from yolov3_trt.camera.sources.base import Capture, LiveSource, SourceOptions
from yolov3_trt.camera.sources.capture import OpenCvCapture, Way, open_way, opencv_has, why_no_gstreamer
from yolov3_trt.camera.sources.credentials import with_credentials
from yolov3_trt.camera.sources.pipelines import http_pipeline, rtsp_pipeline
from yolov3_trt.errors import CameraError, require
from yolov3_trt.masking import masked_address
from yolov3_trt.packages import is_jetson

_LOG = logging.getLogger(__name__)

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")
_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_EXAMPLE = "rtsp://${CAM_USER}:${CAM_PASSWORD}@192.168.1.64:554/stream1"
_POLLS_PER_S = 1.0  # of an address that gives single pictures
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # OpenCV has no other way to hand these on


class NetworkStream(LiveSource):
    """A stream by its address: decoded by a Jetson's hardware where OpenCV has GStreamer, else by FFmpeg."""

    is_remote = True

    def __init__(self, uri: str, options: SourceOptions) -> None:
        """Read the address.

        Raises:
            CameraError: it names no host.
        """
        uri = with_credentials(uri.strip(), options.credentials)
        self.name = masked_address(uri)
        try:
            parts = urlsplit(uri)
            self._address = (parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])
        except ValueError:  # whose text has parts of the password
            raise CameraError(f"{self.name}: not an address; {_expected(uri)}") from None
        if not self._address[0] or ("@" in uri and "@" not in parts.netloc):
            raise CameraError(f"{self.name}: names no host; {_expected(uri)}")
        self._uri, self._options, self.timeout_s = uri, options, options.timeout_s
        self._is_rtsp = parts.scheme in ("rtsp", "rtsps")

    def open(self) -> Capture:
        """Open it.

        Raises:
            CameraError: why it cannot be opened.
        """
        self._check_answer()
        if not self._is_rtsp and (polled := self._polled()) is not None:
            return polled
        fallbacks = []
        if is_jetson():
            reason = why_no_gstreamer()
            if reason is None:
                way = self._hardware()
                capture = open_way(self.name, way)
                if capture is not None:
                    return OpenCvCapture(capture, self.name, f"OpenCV {way.backend} {way.shown}")
                reason = "GStreamer could not open the stream (GST_DEBUG=3 shows more)"
            fallbacks.append(f"{self.name}: decoded by FFmpeg on the CPU, not by the Jetson's decoder: {reason}")
            _LOG.warning("%s", fallbacks[-1])
        if not opencv_has("FFMPEG"):
            raise CameraError(
                f"{self.name}: this OpenCV was built without FFmpeg; run: pip install 'yolov3-trt[opencv]'"
            )
        way = self._ffmpeg()
        capture = open_way(self.name, way)
        if capture is None:
            if self._is_rtsp and (status := rtsp_status(self._uri, *self._address, self.timeout_s)) is not None:
                check_status(self.name, self._uri, status)
            raise CameraError(
                f"{self.name}: {self._address[0]} answers, but gave no stream that FFmpeg can read within "
                f"{self.timeout_s:g} s; are path, user and password right? (ffplay shows what the server says)"
            )
        return OpenCvCapture(capture, self.name, f"OpenCV {way.backend} {way.shown}", fallbacks)

    def _check_answer(self) -> None:
        """Find out quickly and in words what OpenCV would report, if at all, as "not opened"."""
        host, port = self._address
        try:
            socket.create_connection((host, port), timeout=self.timeout_s).close()
        except OSError as exc:
            reason = "no answer" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
            raise CameraError(
                f"{self.name}: cannot connect to {host} port {port} ({reason}); is the camera on, and the address right?"
            ) from exc

    def _polled(self) -> Capture | None:
        """Where the address gives single pictures; None where it gives a stream, or FFmpeg is to say what is wrong."""
        try:
            with http_answer(self._uri, self.timeout_s) as answer:
                if answer.headers.get_content_maintype() != "image":
                    return None
        except urllib.error.HTTPError as exc:
            check_status(self.name, self._uri, exc.code)
            return None
        except (OSError, http.client.HTTPException):
            return None
        return PolledPictures(self._uri, self.name, self._options.fps or _POLLS_PER_S, self.timeout_s)

    def _hardware(self) -> Way:
        if self._is_rtsp:
            options = self._options
            arguments = (options.transport, options.latency_ms, options.timeout_s)
            return Way("GSTREAMER", rtsp_pipeline(self._uri, *arguments), rtsp_pipeline(self.name, *arguments))
        return Way("GSTREAMER", http_pipeline(self._uri, self.timeout_s), http_pipeline(self.name, self.timeout_s))

    def _ffmpeg(self) -> Way:
        cv2 = require("cv2", extra="opencv")
        timeout_ms = round(self.timeout_s * 1e3)
        parameters: tuple[int, ...] = (
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            timeout_ms,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            timeout_ms,
        )
        if hasattr(cv2, "CAP_PROP_N_THREADS"):
            # FFmpeg decodes a frame on each core and gives it when all of them are through: so many frames too late.
            parameters += (cv2.CAP_PROP_N_THREADS, 1)
        if not self._is_rtsp:
            return Way("FFMPEG", self._uri, self.name, parameters)
        # Without the probe for frames per second a stream opens in a third of the time (0.3 s instead of 1 s at 30 fps), and
        # fewer frames that are old by then come first.
        wanted = f"rtsp_transport;{self._options.transport}|max_delay;{self._options.latency_ms * 1000}|fpsprobesize;0"
        used = os.environ.setdefault(_FFMPEG_OPTIONS, wanted)
        return Way("FFMPEG", self._uri, f"{self.name} ({used})", parameters)


def _expected(uri: str) -> str:
    """How to write what was not understood."""
    if "@" in uri:
        return (
            f"in a password write # / ? , [ ] % as %23 %2F %3F %2C %5B %5D %25, or take it from elsewhere: {_EXAMPLE}"
        )
    return f"expected e.g. {_EXAMPLE}"
