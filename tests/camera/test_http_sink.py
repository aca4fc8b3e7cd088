"""The HTTP sink, spoken to over loopback: what it answers, and that no viewer slows the loop or another viewer."""

import base64
import http.client
import ipaddress
import json
import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.fakes import grey_pictures
from yolov3_trt.camera.frames import Frame, FrameStatus, Result
from yolov3_trt.camera.sinks import HttpSink, http_server
from yolov3_trt.detections import Detections
from yolov3_trt.errors import CameraError
from yolov3_trt.geometry import HW

CAMERA_HW = (720, 1280)


def result(level: int, source: str = "a", image_hw: HW = (96, 128)) -> Result:
    frame = Frame(grey_pictures([level], image_hw)[0], source, level, time.monotonic())
    return Result(frame, Detections.none(), FrameStatus(None, 5.0, 0, 1))


def noise(image_hw: HW = CAMERA_HW) -> Result:
    """A frame that makes a large JPEG, about 1 MB at 1280x720."""
    pixels = np.random.default_rng(0).integers(0, 256, (*image_hw, 3), np.uint8)
    return Result(Frame(pixels, "a", 0, 0.0), Detections.none(), FrameStatus(None, 5.0, 0, 1))


def level_of(jpeg: bytes) -> int:
    """The grey of a picture that `result` made, in the middle, where nothing is drawn."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    return int(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2])


def wait_for(condition: Callable[[], Any], limit_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "in vain"
        time.sleep(0.01)


@pytest.fixture
def open_sink() -> Iterator[Callable[..., HttpSink]]:
    """Opens sinks on free ports; afterwards all of their threads have ended."""
    before = set(threading.enumerate())
    with ExitStack() as stack:

        def opened(*sources: str, **options: Any) -> HttpSink:
            given = {"stats": dict, **options}
            return stack.enter_context(HttpSink("127.0.0.1", 0, sources=sources or ("a",), **given))

        yield opened
    assert set(threading.enumerate()) <= before


def port_of(sink: HttpSink) -> int:
    return int(sink.address.rpartition(":")[2])


def ask(sink: HttpSink, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(sink), timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()
    finally:
        connection.close()


class Viewer:
    """Reads a live view on a thread of its own, and keeps the pictures."""

    def __init__(self, sink: HttpSink, path: str = "/view/0.mjpg", receive_bytes: int | None = None) -> None:
        self.jpegs: list[bytes] = []
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", port_of(sink)))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        self._file = self.socket.makefile("rb")
        self._thread = threading.Thread(target=self._read_all)

    def start(self) -> "Viewer":
        self._thread.start()
        return self

    def head(self) -> list[bytes]:
        """The lines of the answer's head, and of the first part's."""
        lines = list(iter(self._file.readline, b"\r\n"))
        assert self._file.readline() == b"--frame\r\n" and b"OK" in lines[0]
        assert list(iter(self._file.readline, b"\r\n")) == [b"Content-Type: image/jpeg\r\n"]
        return lines

    def next_jpeg(self) -> bytes:
        """Up to the head of the next part; empty at the end."""
        lines = []
        for line in self._file:
            if line == b"--frame\r\n":
                break
            lines.append(line)
        self._file.readline(), self._file.readline()
        return b"".join(lines)[:-2]

    def _read_all(self) -> None:
        self.head()
        while jpeg := self.next_jpeg():
            self.jpegs.append(jpeg)

    def close(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(10)
            assert not self._thread.is_alive()
        self._file.close()
        self.socket.close()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- what it answers ---


def test_every_address_answers_with_its_kind_and_is_never_cached(open_sink):
    sink = open_sink("a", "b", stats=lambda: {"captured": 3})
    sink.write(result(100))
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/?from=bookmark", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/stats.json", "application/json"),
        ("/healthz", "text/plain"),
        ("/snapshot.jpg", "image/jpeg"),
        ("/snapshot/0.jpg", "image/jpeg"),
    ):
        status, headers, body = ask(sink, path)
        assert (status, headers["content-type"], headers["cache-control"]) == (200, kind, "no-store")
        assert len(body) == int(headers["content-length"]) > 0
        assert headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in headers
        assert headers["server"] == "yolov3_trt"  # and no version to choose an attack by
        bare = ask(sink, path, "HEAD")
        assert (bare[0], bare[1]["content-length"], bare[2]) == (200, headers["content-length"], b"")


@pytest.mark.parametrize(
    "path",
    [
        "/..", "/../http_server.py", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page.html", "/page.css/", "/http_server.py",
        "/view/0.jpg", "/view/1.mjpg", "/view/-1.mjpg", "/view/00000.mjpg", "/snapshot/1.jpg", "/snapshot/0.mjpg", "*",
        "http://elsewhere/page.css",
    ],
)  # fmt: skip
def test_nothing_else_has_an_address(open_sink, path: str):
    status, headers, body = ask(open_sink("a"), path)
    assert (status, headers["content-type"]) == (404, "text/plain")
    assert body == b"there is nothing at this address; / is the page\n"


def test_requests_that_are_too_long_or_of_another_kind_are_refused(open_sink):
    sink = open_sink()
    assert ask(sink, "/" + 70_000 * "a")[0] == 414
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(sink, "/stats.json", method)[0] == 501


def test_requests_that_come_together_or_in_pieces_are_answered_in_order_and_a_body_is_never_taken_for_one(open_sink):
    port, health = port_of(open_sink()), b"GET /healthz HTTP/1.1\r\n\r\n"
    body = b"GET /healthz HTTP/1.1\r\nContent-Length: 26\r\n\r\n" + health
    for sent, statuses in (
        ([health * 3], [200] * 3),
        ([health + b"GET /nothing HTTP/1.1\r\n\r\n"], [200, 404]),
        ([health[:9], health[9:-3], health[-3:]], [200]),
        ([body], [200]),
        ([health[:-2]], []),
        ([b"GET / HTTP/1.1\r\nX: " + 70_000 * b"a" + b"\r\n\r\n"], [431]),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            for piece in sent:
                connection.sendall(piece)
                time.sleep(0.01)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda one=connection: one.recv(1 << 16), b""))
        assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == statuses, sent


def test_statistics_come_from_the_loop_with_the_state_of_each_view(open_sink):
    sink = open_sink("a", "b", stats=lambda: {"captured": 3})
    sink.write(Result(result(10, "b").frame, Detections.none(), FrameStatus(24.5, 40.0, 7, 1)))
    sink.mark_stale("a", 2.5)
    none = {"time": None, "seen": None, "fps": None, "age_ms": None, "dropped": None}
    stats = json.loads(ask(sink, "/stats.json")[2])
    assert stats["views"][1].pop("time").endswith("+00:00")
    assert stats == {
        "captured": 3,
        "views": [
            {"source": "a", **none, "stale_s": 2.5},
            {"source": "b", "seen": {}, "fps": 24.5, "age_ms": 40.0, "dropped": 7, "stale_s": None},
        ],
    }


def test_statistics_that_fail_are_logged_and_harm_nobody_else(open_sink, caplog: pytest.LogCaptureFixture):
    sink = open_sink(stats=lambda: {}["nothing"])
    with pytest.raises(http.client.RemoteDisconnected):
        ask(sink, "/stats.json")
    wait_for(lambda: caplog.messages == ["the answer to 127.0.0.1 failed"])
    assert caplog.records[0].exc_info[0] is KeyError
    assert ask(sink, "/healthz")[0] == 200


def test_health_is_lost_with_the_last_source_and_back_with_the_first(open_sink):
    sink = open_sink("a", "b")
    assert ask(sink, "/healthz")[::2] == (200, b"ok\n")
    sink.mark_stale("a", 2.2)
    assert ask(sink, "/healthz")[::2] == (200, b"stale for 2 s: a\n")
    sink.mark_stale("b", 3.1)
    assert ask(sink, "/healthz")[::2] == (503, b"stale for 2 s: a\nstale for 3 s: b\n")
    sink.write(result(0, "b"))
    assert ask(sink, "/healthz")[::2] == (200, b"stale for 2 s: a\n")


def test_snapshot_is_the_newest_frame_of_its_source_with_the_boxes(open_sink):
    sink = open_sink("a", "b")
    assert ask(sink, "/snapshot.jpg")[::2] == (503, b"there has been no frame yet\n")
    for level in (50, 100, 150):
        sink.write(result(level, "b"))
        assert level_of(ask(sink, "/snapshot/1.jpg")[2]) == pytest.approx(level, abs=2)
    found = Detections(
        np.array([[20, 30, 90, 70]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32), ("cat",)
    )
    frame = result(100).frame
    sink.write(Result(frame, found, FrameStatus(10.0, 5.0, 0, 1)))
    pixels = cv2.imdecode(np.frombuffer(ask(sink, "/snapshot.jpg")[2], np.uint8), cv2.IMREAD_COLOR)
    assert_allclose(pixels[50, 40:80], 100, atol=3)
    assert np.ptp(pixels[50, 15:25].astype(int), axis=1).max() > 60  # the coloured left side of the box


# --- live views ---


def test_live_view_gives_the_newest_at_once_and_then_all_that_follow(open_sink):
    sink = open_sink("a", "b")
    sink.write(result(40, "b"))
    sink.write(result(60, "b"))
    with Viewer(sink, "/view/1.mjpg") as viewer:
        head = [line.lower() for line in viewer.head()]
        assert b"content-type: multipart/x-mixed-replace; boundary=frame\r\n" in head
        assert b"connection: close\r\n" in head and b"cache-control: no-store\r\n" in head
        seen = [level_of(viewer.next_jpeg())]
        for level in (80, 100, 120):
            sink.write(result(level, "b"))
            sink.write(result(200, "a"))
            seen.append(level_of(viewer.next_jpeg()))
        assert_allclose(seen, (60, 80, 100, 120), atol=2)


def test_live_view_without_a_frame_says_so(open_sink):
    sink = open_sink()
    with Viewer(sink) as viewer:
        viewer.head()
        waiting = viewer.next_jpeg()
        assert level_of(waiting) == pytest.approx(60, abs=2)
        sink.mark_stale("a", 5.0)
        assert viewer.next_jpeg() != waiting


def test_lost_source_is_shown_on_its_last_frame(open_sink):
    sink = open_sink()
    sink.write(result(100))
    with Viewer(sink) as viewer:
        viewer.head()
        viewer.next_jpeg()
        sink.mark_stale("a", 3.0)
        pixels = cv2.imdecode(np.frombuffer(viewer.next_jpeg(), np.uint8), cv2.IMREAD_COLOR)
    assert_allclose(pixels[60, 64], 100, atol=2)
    blue, green, red = pixels[1, 1].astype(int)
    assert red > 150 and blue < 90 and green < 90


def test_nothing_is_encoded_while_nobody_watches_and_each_frame_once_for_all_viewers(
    open_sink, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[int] = []
    encode = cv2.imencode

    def counting(suffix: str, pixels: np.ndarray, options: Any) -> Any:
        encoded.append(int(pixels[48, 64, 0]))
        return encode(suffix, pixels, options)

    monkeypatch.setattr(cv2, "imencode", counting)
    sink = open_sink()
    for level in range(10):
        sink.write(result(level))
    time.sleep(0.1)
    assert encoded == []
    with ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(sink)).start() for _ in range(5)]
        stack.callback(sink.close)
        for level in range(10, 20):
            sink.write(result(level))
            wait_for(lambda level=level: all(v.jpegs and abs(level_of(v.jpegs[-1]) - level) < 1 for v in viewers))
    assert encoded in ([*range(10, 20)], [*range(9, 20)])  # 9 when a viewer was there before 10


def test_many_viewers_one_of_which_does_not_read_do_not_hold_up_writing(open_sink):
    sink, frame, taken_ms = open_sink(max_viewers=32), noise(), []
    with ExitStack() as stack:
        stack.enter_context(Viewer(sink, receive_bytes=4096))  # asks, and never reads
        viewers = [stack.enter_context(Viewer(sink)).start() for _ in range(19)]
        stack.callback(sink.close)
        wait_for(lambda: all(viewer.jpegs for viewer in viewers))
        first = [len(viewer.jpegs) for viewer in viewers]
        for _ in range(40):
            newest = Result(frame.frame, frame.detections, frame.status)  # drawn and encoded anew
            start = time.perf_counter()
            sink.write(newest)
            taken_ms.append((time.perf_counter() - start) * 1e3)
            time.sleep(0.03)
        more = [len(viewer.jpegs) - count for viewer, count in zip(viewers, first, strict=True)]
        assert ask(sink, "/healthz")[0] == 200
    print(f"write: median {statistics.median(taken_ms):.4f} ms, max {max(taken_ms):.3f} ms; pictures seen {more}")
    assert statistics.median(taken_ms) < 5  # 0.03 ms here; encoding, or waiting for a viewer, would take tens
    assert min(more) >= 3  # two cores encode and copy 19 MB per frame


def test_slow_viewer_skips_frames_instead_of_lagging(open_sink):
    sink = open_sink()
    pattern = noise((480, 640)).frame.pixels
    with Viewer(sink, receive_bytes=4096) as viewer:
        viewer.head()
        for level in range(0, 240, 4):  # nearly two seconds
            pixels = pattern.copy()
            pixels[200:280, 280:360] = level
            sink.write(Result(Frame(pixels, "a", level, 0.0), Detections.none(), FrameStatus(None, 5.0, 0, 1)))
            time.sleep(0.03)
        seen = []
        while not seen or seen[-1] < 230:
            seen.append(level_of(viewer.next_jpeg()))
    assert len(seen) <= 6, seen


def test_viewer_that_has_gone_is_forgotten_at_once_and_no_viewer_has_a_thread(open_sink):
    sink = open_sink()
    before = threading.active_count()
    with ExitStack() as stack:
        stays = stack.enter_context(Viewer(sink)).start()
        stack.callback(sink.close)
        wait_for(lambda: stays.jpegs)
        goes = Viewer(sink)
        goes.head()
        assert (
            sink._views["a"]._num_viewers == 2 and threading.active_count() == before + 1
        )  # the reader of the one that stays
        goes.close()
        wait_for(lambda: sink._views["a"]._num_viewers == 1)  # without a further picture
        count = len(stays.jpegs)
        sink.write(result(200))
        wait_for(lambda: len(stays.jpegs) > count)


def test_hundreds_of_viewers_that_come_and_go_leave_nothing_behind(open_sink):
    sink = open_sink()
    for _ in range(200):
        with Viewer(sink) as viewer:
            viewer.head()
        wait_for(lambda: sink.write(result(1)) or len(sink._server._connections) < 10)
    wait_for(lambda: sink._server._connections == {} and sink._views["a"]._num_viewers == 0)


def test_viewer_that_never_reads_is_given_up_after_a_while(open_sink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "_SILENCE_S", 0.5)
    sink = open_sink(max_viewers=1)
    with Viewer(sink, receive_bytes=4096) as viewer:
        viewer.head()
        wait_for(lambda: sink.write(noise()) or time.sleep(0.1) or ask(sink, "/view/0.mjpg", "HEAD")[0] == 200)


def test_viewer_of_a_view_that_stands_still_is_given_the_picture_again(open_sink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "_REPEAT_S", 0.1)
    sink = open_sink()
    sink.write(result(100))
    with Viewer(sink) as viewer:
        viewer.head()
        assert viewer.next_jpeg() == viewer.next_jpeg()


def test_one_viewer_too_many_is_told_so_and_takes_the_place_of_one_that_leaves(open_sink):
    sink = open_sink(max_viewers=2)
    with ExitStack() as stack:
        first, second = Viewer(sink), stack.enter_context(Viewer(sink))
        first.head(), second.head()
        refused = ask(sink, "/view/0.mjpg")
        assert refused[::2] == (503, b"there are too many viewers; close one, or try again\n")
        sink.write(result(1))
        assert ask(sink, "/snapshot.jpg")[0] == 200  # everything else goes on
        first.close()
        wait_for(lambda: sink.write(result(2)) or ask(sink, "/view/0.mjpg", "HEAD")[0] == 200)


def test_one_connection_too_many_is_told_so(open_sink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 1)
    sink = open_sink()
    with Viewer(sink) as viewer:
        viewer.head()
        assert ask(sink, "/healthz")[::2] == (503, b"")
    wait_for(lambda: sink.write(result(1)) or ask(sink, "/healthz")[0] == 200)


def test_closing_sends_viewers_away_at_once(open_sink):
    sink = open_sink()
    with ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(sink)).start() for _ in range(5)]
        silent = stack.enter_context(Viewer(sink, receive_bytes=4096))
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(sink))))
        stack.callback(sink.close)
        wait_for(lambda: all(viewer.jpegs for viewer in viewers))
        silent.head()
        for _ in range(5):
            sink.write(noise())
            time.sleep(0.05)
        start_s = time.monotonic()
        sink.close()
        assert time.monotonic() - start_s < 2
        assert not [thread for thread in threading.enumerate() if thread.name.startswith(("http", "jpeg"))]
        assert idle.recv(1) == b""
    sink.close()
    with pytest.raises(ConnectionRefusedError):
        ask(sink, "/healthz")


def test_frame_that_cannot_be_encoded_is_an_error_of_the_sink(open_sink):
    sink = open_sink()
    with Viewer(sink) as viewer:
        viewer.head()
        viewer.next_jpeg()
        with pytest.raises(CameraError, match=r"^the picture of a cannot be shown: "):
            wait_for(lambda: sink.write(result(1, image_hw=(1, 70_000))))  # a JPEG has 65,535 px at the most
        assert viewer.next_jpeg() == b""


# --- the address ---


def test_address_that_cannot_be_had_is_refused(open_sink):
    taken = open_sink().address
    port = int(taken.rpartition(":")[2])
    fix = "give an address of this machine and a free port from 1024, or 0 for any"
    before = threading.active_count()
    for host, number, reason in (
        ("127.0.0.1", port, "Address already in use"),
        ("192.0.2.1", 0, "Cannot assign requested address"),
        ("127.0.0.1", 70_000, "bind(): port must be 0-65535."),
    ):
        with pytest.raises(CameraError) as caught:
            HttpSink(host, number, sources=["a"], stats=dict)
        assert str(caught.value) == f"http://{host}:{number}: cannot be served ({reason}); {fix}"
    assert threading.active_count() == before


def test_address_of_all_networks_is_warned_of(caplog: pytest.LogCaptureFixture):
    with HttpSink("0.0.0.0", 0, sources=["a"], stats=dict) as sink:
        host, _, port = sink.address.removeprefix("http://").rpartition(":")
        assert int(port) == port_of(sink) and (host == socket.gethostname() or ipaddress.ip_address(host).version == 4)
        assert host not in ("0.0.0.0", "127.0.0.1") and ask(sink, "/healthz")[0] == 200
    assert caplog.messages == [f"{sink.address}: whoever reaches this machine can watch, without a password"]


def test_this_machines_own_address_is_logged_without_a_warning(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with HttpSink("::1", 0, sources=["a"], stats=dict) as sink:
        assert sink.address.startswith("http://[::1]:")
    assert caplog.messages == [f"{sink.address}: the live view"]


def test_live_view_is_a_stream_that_opencv_reads(open_sink):
    """So one program's view can be the source of another: `--source http://HOST:PORT/view/0.mjpg`."""
    sink = open_sink()
    ended = threading.Event()
    sink.write(result(100))

    def write_all() -> None:
        for level in range(101, 220):
            if ended.is_set():
                break
            sink.write(result(level))
            time.sleep(0.04)

    writer = threading.Thread(target=write_all)
    writer.start()
    try:
        capture = cv2.VideoCapture(f"{sink.address}/view/0.mjpg", cv2.CAP_FFMPEG)
        pictures = [capture.read()[1] for _ in range(5)]
        capture.release()
    finally:
        ended.set()
        writer.join()
    levels = [int(picture[48, 64, 0]) for picture in pictures]
    assert levels == sorted(set(levels)) and levels[-1] - levels[0] <= 8


# --- strangers ---


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", ""]
)
def test_a_request_by_another_name_gets_nothing(open_sink, host: str):
    port = port_of(open_sink("a"))
    for path in ("/", "/snapshot.jpg", "/stats.json", "/healthz", "/view/0.mjpg"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path, headers={"Host": host})
        assert connection.getresponse().status == 403
        connection.close()


def test_names_that_were_given_are_answered_too(open_sink):
    port = port_of(open_sink("a", names=["Door.example", "cam.example."]))
    for host, status in (("door.example:80", 200), ("cam.example", 200), ("a.door.example", 403), ("example", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz", headers={"Host": host})
        assert connection.getresponse().status == status, host
        connection.close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8080", "192.168.1.7:80", "[::1]:8080", socket.gethostname().upper()]
)
def test_numbers_and_this_machines_names_are_answered_and_no_page_elsewhere_may_use_it(open_sink, host: str):
    connection = http.client.HTTPConnection("127.0.0.1", port_of(open_sink("a")), timeout=5)
    connection.request("GET", "/", headers={"Host": host})
    answer = connection.getresponse()
    assert answer.status == 200 and "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert (
        answer.headers["Cross-Origin-Resource-Policy"] == "same-origin" and answer.headers["X-Frame-Options"] == "DENY"
    )
    answer.read()
    connection.request("POST", "/", headers={"Host": host})
    assert connection.getresponse().headers["Cross-Origin-Resource-Policy"] == "same-origin", "errors have them, too"
    connection.close()


def test_a_password_is_asked_for_at_every_address_and_any_user_may_give_it(open_sink):
    port = port_of(open_sink("a", password="pass:wört"))

    def status(path: str, *header: str) -> tuple[int, str | None, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path, headers={"Authorization": header[0]} if header else {})
        answer = connection.getresponse()
        try:
            return answer.status, answer.headers["WWW-Authenticate"], answer.read()
        finally:
            connection.close()

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    asked = (401, 'Basic realm="yolov3_trt", charset="UTF-8"', b"the password is needed; any user name will do\n")
    for path in ("/", "/page.js", "/stats.json", "/snapshot.jpg", "/view/0.mjpg", "/healthz", "/nothing"):
        assert status(path) == asked
    wrong = ("", "pass:wört", ":pass:wör", ":pass:wörtt", ":PASS:WÖRT", "pass:wört:")
    for header in (*map(basic, wrong), "Basic", "Basic !!!", basic(":pass:wört").replace("Basic", "Bearer")):
        assert status("/stats.json", header) == asked, header
    for header in (basic(":pass:wört"), basic("me:pass:wört"), basic("me:pass:wört").replace("Basic", "basic")):
        assert status("/healthz", header)[:2] == (200, None)


def test_many_connections_that_dribble_or_say_nothing_shut_nobody_out(open_sink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "_HEAD_S", 1.0)
    port = port_of(open_sink("a"))

    def is_answered() -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as good:
            good.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return good.recv(100).startswith(b"HTTP/1.1 200")

    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)) for _ in range(140)]
        for one in held[-96:]:
            one.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert is_answered()
        dribbler, ends_s = held[-1], time.monotonic() + 5
        with pytest.raises(OSError):  # it is sent away, although it sends a byte at a time
            while time.monotonic() < ends_s:
                dribbler.sendall(b"a")
                time.sleep(0.05)
        assert is_answered()
        many = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)) for _ in range(600)]
        assert is_answered() and many
