"""What cameras answer besides a stream: a refused password, an unknown path, a single picture."""

import base64
import http.server
import socketserver
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from tests.fakes import ListSink, fake_detector
from yolov3_trt.camera.loop import LoopOptions, run_loop
from yolov3_trt.camera.sources import SourceOptions, open_source
from yolov3_trt.camera.sources.base import SourceLost

_JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
_ALLOWED = "Basic " + base64.b64encode(b"me:right").decode()


class _Http(http.server.BaseHTTPRequestHandler):
    logins: list[str] = []  # noqa: RUF012 - of the one server

    def do_GET(self) -> None:
        given = self.headers["Authorization"]
        if self.path == "/gone":
            self.send_error(404)
        elif self.path == "/digest":
            self.logins.append(given or "")
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Digest realm="cam", nonce="{len(self.logins)}", qop="auth"')
            self.end_headers()
        elif given != _ALLOWED:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="cam"')
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(_JPEG)))
            self.end_headers()
            self.wfile.write(_JPEG)

    def log_message(self, *arguments: object) -> None:
        pass


class _Rtsp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = b""
        while request := self.rfile.readline():
            if request.strip():
                words = request.split()
                path = words[1] if words[-1] == b"RTSP/1.0" else path
                continue
            status = b"404 Not Found" if path.endswith(b"/gone") else b"401 Unauthorized"
            self.wfile.write(b"RTSP/1.0 " + status + b'\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm="cam"\r\n\r\n')


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    """Of the HTTP and the RTSP server."""
    servers = [
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Http),
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Rtsp),
    ]
    for server in servers:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield tuple(f"127.0.0.1:{server.server_address[1]}" for server in servers)  # type: ignore[misc]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_address_of_one_picture_is_polled(hosts: tuple[str, str]):
    sink = ListSink()
    source = open_source(f"http://me:right@{hosts[0]}/snap.jpg", SourceOptions(fps=50, timeout_s=5))
    statistics = run_loop(fake_detector(), [source], [sink], LoopOptions(max_frames=5))
    counts = statistics.sources[source.name]
    assert (counts.reconnects, counts.nominal_fps, counts.pipeline) == (0, 50, "a picture 50 times a second")
    assert all(abs(int(frame.pixels[0, 0, 0]) - 90) < 3 for frame in sink.frames) and len(sink.frames) == 5


@pytest.mark.parametrize(
    "uri, text, why",
    [
        ("http://me:wrong@{0}/snap.jpg", "refuses this user or password (401)", "refused"),
        ("http://{0}/snap.jpg", "wants a user and a password (401)", "refused"),
        ("http://me:wrong@{0}/digest", "refuses this user or password (401)", "refused"),
        ("http://{0}/gone", "knows no such path (404)", "not found"),
        ("rtsp://me:wrong@{1}/live", "refuses this user or password (401)", "refused"),
        ("rtsp://{1}/live", "wants a user and a password (401)", "refused"),
        ("rtsp://{1}/gone", "knows no such path (404)", "not found"),
    ],
)
def test_why_there_is_no_stream_is_said(hosts: tuple[str, str], uri: str, text: str, why: str):
    source = open_source(uri.format(*hosts), SourceOptions(timeout_s=5))
    with pytest.raises(SourceLost) as caught:
        source.open()
    assert str(caught.value) == f"{source.name}: the camera {text}" and caught.value.why == why
    assert sum(map(bool, _Http.logins)) <= 1  # digests that were tried, each of which counts
