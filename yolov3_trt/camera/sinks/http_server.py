"""What the HTTP sink answers, and the threads that do."""

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from yolov3_trt.camera.metrics import CONTENT_TYPE, metrics_text
from yolov3_trt.camera.sinks.live_view import LiveView

_LOG = logging.getLogger(__name__)

_MAX_CONNECTIONS = 96
_SILENCE_S = 10.0  # a connection that takes or gives nothing for so long is closed
_HEAD_S = 5.0  # a request's head has to be there within, however it dribbles
# What lies between the newest picture and a slow viewer's screen. More would let the viewer lag instead of skipping.
_SEND_BUFFER_BYTES = 128 << 10
_REPEAT_S = 5.0
_JOIN_S = 5.0


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    address: str
    waits_since_s: float | None = field(default_factory=time.monotonic)  # for the head of a request; None: it is served
    is_ended: bool = False

    def end(self) -> None:
        self.is_ended = True
        _hang_up(self.socket)


_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
# Begins a part, and so ends the one before. Chromium shows a part when it has read the head of the next: it is sent at once,
# and so cannot tell the length of what is not there yet.
_PART_HEAD = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"


class ViewServer(HTTPServer):
    """A thread per connection, all of which `close` ends and joins.

    Where there are too many, the longest that waits for the head of a request gives way, of the address with the most of them.

    Attributes:
        views: by the number that they have in addresses.
        stats: called by any thread, for `/stats.json`.
        free_viewers: one is taken by each viewer of a live view.
    """

    request_queue_size = 4096  # connections that the system holds while this is busy; it may allow fewer

    def __init__(
        self,
        host: str,
        port: int,
        views: Sequence[LiveView],
        stats: Callable[[], dict[str, Any]],
        max_viewers: int,
        names: Sequence[str],
        password: str | None,
    ) -> None:
        """Listen; for the last two see `HttpSink`.

        Raises:
            OSError: the address cannot be had.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.views, self.stats = views, stats
        self.free_viewers = threading.BoundedSemaphore(max_viewers)
        self.files = {path: (_file(name), kind) for path, (name, kind) in _PAGE.items()}
        own = socket.gethostname()
        self._names = {name.lower().rstrip(".") for name in ("localhost", host, own, f"{own}.local", *names)}
        self._password = None if password is None else _digest(password.encode())
        self._connections: dict[threading.Thread, _Connection] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.1,), name="http", daemon=True)
        self._acceptor.start()

    def server_bind(self) -> None:
        """As in the base class, which would also ask a name server for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.bound_to

    @property
    def bound_to(self) -> tuple[str, int]:
        """Address, as a number, and port."""
        host, port = self.socket.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """End and join every thread; harmless when repeated."""
        self.shutdown()
        self._acceptor.join()
        self.server_close()
        with self._lock:
            open_ones = list(self._connections.items())
            for _, connection in open_ones:
                connection.end()
        for thread, _ in open_ones:
            thread.join(_JOIN_S)
            if thread.is_alive():
                _LOG.warning("%s does not end; it is left behind", thread.name)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; one too many is told so."""
        connection = _Connection(request, client_address[0])
        with self._lock:
            is_one_too_many = not self._has_room()
            if not is_one_too_many:
                thread = threading.Thread(
                    target=self._serve, args=(request, client_address), name=f"http to {client_address[0]}", daemon=True
                )
                self._connections[thread] = connection
        if is_one_too_many:
            request.setblocking(False)
            request.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
        else:
            thread.start()

    def _has_room(self) -> bool:
        alive = [connection for connection in self._connections.values() if not connection.is_ended]
        if len(alive) < _MAX_CONNECTIONS:
            return True
        waiting = [connection for connection in alive if connection.waits_since_s is not None]
        if not waiting:
            return False
        held = Counter(connection.address for connection in alive)
        max(waiting, key=lambda one: (held[one.address], -(one.waits_since_s or 0))).end()
        return True

    def service_actions(self) -> None:
        """End connections whose request does not come; called several times a second."""
        before_s = time.monotonic() - _HEAD_S
        with self._lock:
            for connection in self._connections.values():
                if (
                    connection.waits_since_s is not None
                    and connection.waits_since_s < before_s
                    and not connection.is_ended
                ):
                    connection.end()

    def waits_for_head(self, waits: bool) -> None:
        """Note whether the connection of this thread waits for the head of a request, or is served."""
        with self._lock:
            self._connections[threading.current_thread()].waits_since_s = time.monotonic() if waits else None

    def may_watch(self, authorization: str) -> bool:
        """Whether a request's `Authorization` has the password, with whatever user name; true where none is asked for."""
        if self._password is None:
            return True
        scheme, _, given = authorization.partition(" ")
        try:
            _, _, password = base64.b64decode(given, validate=True).partition(b":")
        except ValueError:
            return False
        # Digests have one length, and are compared in a time that says nothing about where they differ.
        return scheme.lower() == "basic" and hmac.compare_digest(_digest(password), self._password)

    def is_own_name(self, host: str) -> bool:
        """Whether a request's `Host` is a number, or a name of this machine.

        A page of another site can let its own name point to this machine, and then read what it gets: to the browser it comes
        from that site.
        """
        name = re.sub(r":[0-9]*$", "", host.strip()).strip("[]").rstrip(".").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver gives it
        """Log what ended a connection; that the other side went away is no error."""
        error = sys.exc_info()[1]
        if isinstance(error, (ConnectionError, TimeoutError)):
            _LOG.debug("%s has gone: %s", client_address[0], error)
        else:
            _LOG.error("the answer to %s failed", client_address[0], exc_info=error)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # the loop must not end by a viewer
            self.handle_error(request, client_address)
        finally:
            # First forgotten, so that `close` does not hang up on a number that another socket may have by then.
            with self._lock:
                del self._connections[threading.current_thread()]
            self.shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_S
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def handle_one_request(self) -> None:
        self.server.waits_for_head(True)
        super().handle_one_request()

    def parse_request(self) -> bool:
        is_good = super().parse_request()
        self.server.waits_for_head(False)
        if is_good and not all(map(self.server.is_own_name, self.headers.get_all("Host", ()))):
            self.close_connection = True
            self._refuse(
                HTTPStatus.FORBIDDEN,
                "this machine has another name; use its address, its host name or localhost, or allow this one with "
                "?name= behind the address of the sink",
            )
            return False
        if is_good and not self.server.may_watch(self.headers.get("Authorization", "")):
            self.close_connection = True
            self._refuse(HTTPStatus.UNAUTHORIZED, "the password is needed; any user name will do")
            return False
        return is_good

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        self.close_connection = True  # the base class's answer lacks the headers below
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def do_GET(self) -> None:
        # Compared as it stands, never decoded and never joined to a folder: there is nothing to climb out of.
        path = self.path.partition("?")[0]
        view = re.fullmatch(r"/(view|snapshot)/([0-9]{1,3})\.(mjpg|jpg)", path)
        health = re.fullmatch(r"/healthz/([0-9]{1,3})", path)
        if path in self.server.files:
            content, kind = self.server.files[path]
            self._answer(HTTPStatus.OK, kind, content)
        elif path == "/stats.json":
            self._answer_stats()
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE, metrics_text(self.server.stats()).encode())
        elif path == "/healthz":
            self._answer_health(self.server.views)
        elif health and int(health[1]) < len(self.server.views):
            self._answer_health(self.server.views[int(health[1]) :][:1])
        elif path == "/snapshot.jpg":
            self._answer_snapshot(self.server.views[0])
        elif view and int(view[2]) < len(self.server.views) and (view[1], view[3]) == ("view", "mjpg"):
            self._answer_live(self.server.views[int(view[2])])
        elif view and int(view[2]) < len(self.server.views) and (view[1], view[3]) == ("snapshot", "jpg"):
            self._answer_snapshot(self.server.views[int(view[2])])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address; / is the page")

    do_HEAD = do_GET

    def _answer_stats(self) -> None:
        content = {**self.server.stats(), "views": [_state(view) for view in self.server.views]}
        self._answer(HTTPStatus.OK, "application/json", json.dumps(content, allow_nan=False).encode())

    def _answer_health(self, views: Sequence[LiveView]) -> None:
        stale = [view for view in views if view.stale_s is not None]
        text = "".join(f"stale for {view.stale_s:.0f} s: {view.source}\n" for view in stale) or "ok\n"
        all_stale = len(stale) == len(views)
        self._answer(HTTPStatus.SERVICE_UNAVAILABLE if all_stale else HTTPStatus.OK, "text/plain", text.encode())

    def _answer_snapshot(self, view: LiveView) -> None:
        if view.result is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there has been no frame yet")
            return
        with view.watched() as version:
            newest = view.newer_than(version, _REPEAT_S)
        if newest is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the camera has ended")
        else:
            self._answer(HTTPStatus.OK, "image/jpeg", newest[1])

    def _answer_live(self, view: LiveView) -> None:
        if not self.server.free_viewers.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many viewers; close one, or try again")
            return
        try:
            self.close_connection = True
            self._begin(HTTPStatus.OK, "multipart/x-mixed-replace; boundary=frame")
            if self.command == "GET":
                self._send_live(view)
        finally:
            self.server.free_viewers.release()

    def _send_live(self, view: LiveView) -> None:
        self.wfile.write(_PART_HEAD)
        with view.watched() as version:
            while (newest := view.newer_than(version, _REPEAT_S)) is not None:
                version, jpeg = newest
                self.wfile.write(jpeg + b"\r\n" + _PART_HEAD)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, "text/plain", f"{text}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self._begin(status, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="yolov3_trt", charset="UTF-8"')
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()

    def version_string(self) -> str:  # the base class tells the version of Python
        return "yolov3_trt"

    def log_message(self, format: str, *args: Any) -> None:  # the base class prints
        _LOG.debug("%s %s", self.address_string(), format % args)


def _state(view: LiveView) -> dict[str, Any]:
    """What the page shows of a view, besides the statistics."""
    status = None if view.result is None else view.result.status
    return {
        "source": view.source,
        "fps": None if status is None else status.fps,
        "age_ms": None if status is None else status.age_ms,
        "dropped": None if status is None else status.dropped,
        "stale_s": view.stale_s,
    }


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def _hang_up(connection: socket.socket) -> None:
    """End whatever a thread waits for on a socket."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was faster
