"""Real servers on loopback for tests: RTSP by GStreamer, Motion JPEG by HTTP, and one that never answers."""

import functools
import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

SYSTEM_PYTHON = "/usr/bin/python3"  # has the bindings of GStreamer, which no virtual environment has
RTSP_SCRIPT = Path(__file__).with_name("rtsp_server.py")
_PARTS = ("multifilesrc", "jpegdec", "x264enc", "rtph264pay")


@functools.cache
def why_no_rtsp_server() -> str | None:
    """What is missing for `RtspServer`; None where nothing is."""
    code = (
        "import gi\ngi.require_version('Gst', '1.0')\ngi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer\nGst.init(None)\n"
        f"print(*(name for name in {_PARTS} if Gst.ElementFactory.find(name) is None))"
    )
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, text=True, timeout=60)
    except OSError as exc:
        return f"{SYSTEM_PYTHON}: {exc.strerror}"
    if done.returncode != 0:
        return f"GStreamer's RTSP server is not installed ({done.stderr.strip().splitlines()[-1]}); .ci/run says how"
    missing = done.stdout.split()
    return f"GStreamer lacks {', '.join(missing)}; .ci/run says what to install" if missing else None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_pictures(folder: Path, pictures: Sequence[np.ndarray]) -> str:
    """Pictures as JPEG files; gives the pattern of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(pictures):
        assert cv2.imwrite(str(folder / f"{index:05}.jpg"), pixels)
    return str(folder / "%05d.jpg")


class RtspServer:
    """Streams pictures over and over; can be killed and started again at the same port."""

    def __init__(self, pattern: str, fps: int) -> None:
        self.port = free_port()
        self.uri = f"rtsp://127.0.0.1:{self.port}/clip"
        self._arguments = [str(self.port), pattern, str(fps)]
        self._process: subprocess.Popen[str] | None = None

    def start(self, pattern: str | None = None, password: str | None = None) -> None:
        """With other pictures, or for those who know a password, where given."""
        port, own, fps = self._arguments
        command = [SYSTEM_PYTHON, str(RTSP_SCRIPT), port, pattern or own, fps, *filter(None, [password])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> "RtspServer":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


@contextmanager
def mjpeg_server(pictures: Sequence[np.ndarray], fps: float, num_frames: int | None = None) -> Iterator[str]:
    """Motion JPEG by HTTP as cameras give it, over and over or so many frames a viewer; yields the address."""
    encoded = [cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes() for pixels in pictures]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            started_s, sent = time.monotonic(), 0
            try:
                while num_frames is None or sent < num_frames:
                    content = encoded[sent % len(encoded)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                    self.wfile.write(head.encode() + content + b"\r\n")
                    sent += 1
                    time.sleep(max(0.0, started_s + sent / fps - time.monotonic()))
            except OSError:
                pass  # the viewer has gone

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/video"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections and never says a word; yields its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])
