"""What the HTTP sink answers to a request."""

import base64
import hashlib
import hmac
import io
import ipaddress
import json
import logging
import re
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from yolov3_trt.camera.metrics import CONTENT_TYPE, metrics_text
from yolov3_trt.camera.sinks.live_view import LiveView

_LOG = logging.getLogger(__name__)

MAX_HEAD_BYTES = 1 << 16
# Begins a part, and so ends the one before. Chromium shows a part when it has read the head of the next: it is sent at once,
# and so cannot tell the length of what is not there yet.
PART_HEAD = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"

_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class Site:
    """What there is to ask for, and who may.

    Attributes:
        views: by the number that they have in addresses.
        stats: for `/stats.json`.
    """

    def __init__(
        self,
        views: Sequence[LiveView],
        stats: Callable[[], dict[str, Any]],
        names: Sequence[str],
        password: str | None,
    ) -> None:
        """For `names` and `password` see `HttpSink`."""
        self.views, self.stats = views, stats
        self.files = {path: (_file(name), kind) for path, (name, kind) in _PAGE.items()}
        own = socket.gethostname()
        self._names = {name.lower().rstrip(".") for name in ("localhost", own, f"{own}.local", *names)}
        self._password = None if password is None else _digest(password.encode())

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


class Request(BaseHTTPRequestHandler):
    """A request whose head is here, and the answer to it.

    Attributes:
        close_connection: whether no further request may come on its connection.
        live_view: whose pictures follow the answer, one after another.
        snapshot_of: whose newest picture the answer is, once `give` has it.
    """

    protocol_version = "HTTP/1.1"

    def __init__(self, site: Site, address: str, head: bytes, *, is_viewer_welcome: bool) -> None:
        """Read and answer it.

        Args:
            site: what there is.
            address: of who asks.
            head: with the empty line behind it; or its beginning, where that is longer than `MAX_HEAD_BYTES`.
            is_viewer_welcome: whether there may be one more live view.
        """
        self._site, self.client_address, self._is_viewer_welcome = site, (address, 0), is_viewer_welcome
        self.live_view: LiveView | None = None
        self.snapshot_of: LiveView | None = None
        self.rfile = io.BytesIO(head)
        self.wfile = self._written = io.BytesIO()
        self.command = self.requestline = self.request_version = ""
        self.close_connection = True
        if len(head) > MAX_HEAD_BYTES and b"\n" in head[:MAX_HEAD_BYTES]:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self.handle_one_request()

    def answer(self) -> bytes:
        """Head and body, as far as they are known."""
        return self._written.getvalue()

    def give(self, jpeg: bytes | None) -> bytes:
        """The answer with the picture that it waited for; None: the camera has ended."""
        if jpeg is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the camera has ended")
        else:
            self._answer(HTTPStatus.OK, "image/jpeg", jpeg)
        return self.answer()

    def parse_request(self) -> bool:
        """Read the head; False when it is answered with that, or may not be asked."""
        if not super().parse_request():
            return False
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows would be taken for the next request
        if not all(map(self._site.is_own_name, self.headers.get_all("Host", ()))):
            self.close_connection = True
            self._refuse(
                HTTPStatus.FORBIDDEN,
                "this machine has another name; use its address, its host name or localhost, or allow this one with "
                "?name= behind the address of the sink",
            )
            return False
        if not self._site.may_watch(self.headers.get("Authorization", "")):
            self.close_connection = True
            self._refuse(HTTPStatus.UNAUTHORIZED, "the password is needed; any user name will do")
            return False
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse it."""
        self.close_connection = True  # the base class's answer lacks the headers below
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def do_GET(self) -> None:
        """Answer."""
        # Compared as it stands, never decoded and never joined to a folder: there is nothing to climb out of.
        path, site = self.path.partition("?")[0], self._site
        view = re.fullmatch(r"/(view|snapshot)/([0-9]{1,3})\.(mjpg|jpg)", path)
        health = re.fullmatch(r"/healthz/([0-9]{1,3})", path)
        if path in site.files:
            content, kind = site.files[path]
            self._answer(HTTPStatus.OK, kind, content)
        elif path == "/stats.json":
            content = json.dumps(
                {**site.stats(), "views": [_state(view) for view in site.views]}, allow_nan=False
            ).encode()
            self._answer(HTTPStatus.OK, "application/json", content)
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE, metrics_text(site.stats()).encode())
        elif path == "/healthz":
            self._answer_health(site.views)
        elif health and int(health[1]) < len(site.views):
            self._answer_health(site.views[int(health[1]) :][:1])
        elif path == "/snapshot.jpg":
            self._answer_snapshot(site.views[0])
        elif view and int(view[2]) < len(site.views) and (view[1], view[3]) == ("view", "mjpg"):
            self._answer_live(site.views[int(view[2])])
        elif view and int(view[2]) < len(site.views) and (view[1], view[3]) == ("snapshot", "jpg"):
            self._answer_snapshot(site.views[int(view[2])])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address; / is the page")

    do_HEAD = do_GET

    def _answer_health(self, views: Sequence[LiveView]) -> None:
        stale = [(view.source, for_s) for view in views if (for_s := view.stale_s) is not None]
        text = "".join(f"stale for {for_s:.0f} s: {source}\n" for source, for_s in stale) or "ok\n"
        all_stale = len(stale) == len(views)
        self._answer(HTTPStatus.SERVICE_UNAVAILABLE if all_stale else HTTPStatus.OK, "text/plain", text.encode())

    def _answer_snapshot(self, view: LiveView) -> None:
        if view.result is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there has been no frame yet")
        else:
            self.snapshot_of = view

    def _answer_live(self, view: LiveView) -> None:
        if not self._is_viewer_welcome:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many viewers; close one, or try again")
            return
        self.close_connection = True
        self._begin(HTTPStatus.OK, "multipart/x-mixed-replace; boundary=frame")
        if self.command == "GET":
            self.wfile.write(PART_HEAD)
            self.live_view = view

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

    def version_string(self) -> str:
        """Without the version of Python, which the base class tells."""
        return "yolov3_trt"

    def log_message(self, format: str, *args: Any) -> None:
        """Log it; the base class prints."""
        _LOG.debug("%s %s", self.address_string(), format % args)


def _state(view: LiveView) -> dict[str, Any]:
    """What the page shows of a view, besides the statistics."""
    result = view.result
    status = None if result is None else result.status
    return {
        "source": view.source,
        "time": None if result is None else result.frame.taken.isoformat(timespec="milliseconds"),
        "seen": None if result is None else Counter(row.class_name for row in result.detections),
        "fps": None if status is None else status.fps,
        "age_ms": None if status is None else status.age_ms,
        "dropped": None if status is None else status.dropped,
        "stale_s": view.stale_s,
    }


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()
