"""The live view in a browser."""

import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.camera.sinks.http_answers import Site
from yolov3_trt.camera.sinks.http_server import ViewServer
from yolov3_trt.camera.sinks.live_view import LiveView
from yolov3_trt.errors import CameraError

_LOG = logging.getLogger(__name__)

_MAX_VIEWERS = 32


class HttpSink(Sink):
    """Serves a page with the live view of every source, to many viewers, on a thread of its own.

    | address | gives |
    | --- | --- |
    | `/` | the page |
    | `/view/N.mjpg` | the pictures of source N, as they come (Motion JPEG, `multipart/x-mixed-replace`) |
    | `/snapshot.jpg`, `/snapshot/N.jpg` | the newest picture of the first source, of source N |
    | `/stats.json` | the statistics, and `views`: what each view shows |
    | `/metrics` | the statistics for Prometheus |
    | `/healthz`, `/healthz/N` | 200, or 503 when no source, or not source N, gives frames |
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sources: Sequence[str],
        stats: Callable[[], dict[str, Any]],
        max_viewers: int = _MAX_VIEWERS,
        names: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        """Listen.

        Args:
            host: a name or an address of this machine; `0.0.0.0` or `::` is all of them.
            port: 0 is any free one.
            sources: names of all sources, the first as `/view/0.mjpg`.
            stats: of the loop, plain values for `/stats.json`; called by any thread.
            max_viewers: of live views at a time; one more is refused.
            names: host names by which it may be asked for besides this machine's own, as behind a proxy.
            password: that every request must have (HTTP Basic, with any user name); None: none.

        Raises:
            CameraError: the address cannot be had.
        """
        self._views = {source: LiveView(source) for source in sources}
        try:
            site = Site(tuple(self._views.values()), stats, (host, *names), password)
            self._server = ViewServer(host, port, site, max_viewers)
        except (OSError, OverflowError) as exc:
            self._close_views()
            reason = exc.strerror if isinstance(exc, OSError) else exc
            raise CameraError(
                f"http://{_in_url(host)}:{port}: cannot be served ({reason}); "
                "give an address of this machine and a free port from 1024, or 0 for any"
            ) from exc
        self.address = self._url()
        self.name = self.address
        self._is_open = True
        _LOG.info("%s: the live view", self.address)
        if not ipaddress.ip_address(self._server.bound_to[0]).is_loopback:
            how = "without a password" if password is None else "with the password, which travels unencrypted"
            _LOG.warning("%s: whoever reaches this machine can watch, %s", self.address, how)

    def write(self, result: Result) -> None:
        """Hand over a frame; it is encoded when somebody watches.

        Raises:
            CameraError: a frame before could not be encoded.
        """
        self._views[result.frame.source].put(result)

    def mark_stale(self, source: str, for_s: float) -> None:
        """Show that a source gives no frames."""
        self._views[source].mark_stale(for_s)

    def close(self) -> None:
        """Send all viewers away and end every thread; harmless when repeated."""
        if self._is_open:
            self._is_open = False
            self._close_views()
            self._server.close()

    def _close_views(self) -> None:
        for view in self._views.values():
            view.close()

    def _url(self) -> str:
        host, port = self._server.bound_to
        if ipaddress.ip_address(host).is_unspecified:
            host = _own_address()
        return f"http://{_in_url(host)}:{port}"


def _own_address() -> str:
    """One that can be typed on another machine; a name alone is often not known there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks by which address one would go out
        except OSError:
            return socket.gethostname()  # without a network
        return str(probe.getsockname()[0])


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
