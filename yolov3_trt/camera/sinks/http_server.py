"""The connections of the HTTP sink, all of them on one thread.

A thread for each would cost more than their work: the loop gives way to each as it starts and for each picture. And the C
library gives threads heaps, by turns: where many come and go, a camera that is opened anew finds another heap each time, and
leaves its memory in each.
"""

import heapq
import logging
import re
import selectors
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from yolov3_trt.camera.sinks.http_answers import MAX_HEAD_BYTES, PART_HEAD, Request, Site
from yolov3_trt.camera.sinks.live_view import LiveView

_LOG = logging.getLogger(__name__)

_MAX_CONNECTIONS = 256  # a quarter of the files that Linux lets a process open
_BACKLOG = 4096  # connections that the system holds until they are accepted; it may allow fewer
_AT_ONCE = 512  # so many are accepted before others have their turn
_HEAD_S = 5.0  # a request's head has to be there within, however it dribbles
_SILENCE_S = 10.0  # a connection that takes nothing of its answer for so long is closed
_REPEAT_S = 5.0  # of a view that stands still the picture is sent again, which tells whether the viewer is still there
_TICK_S = 0.1  # between two looks at these times
# What lies between the newest picture and a slow viewer's screen. More would let the viewer lag instead of skipping.
_SEND_BUFFER_BYTES = 128 << 10
_HEAD_END = re.compile(rb"\n\r?\n")
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    address: str
    since_s: float  # it has waited for a head, or has taken nothing of its answer
    received: bytearray = field(default_factory=bytearray)
    searched: int = 0  # bytes of it, for the end of a head
    has_ended: bool = False  # the other side sends no more
    request: Request | None = None  # that is being answered; None: its head is waited for
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    view: LiveView | None = None  # of which it waits for a picture later than `version`
    version: int = 0
    wanted: int = 0  # events of `selectors`
    selected: int = 0  # those that the system knows of


class ViewServer:
    """Answers requests, and sends pictures to whoever watches, until it is closed.

    Where there are too many connections, the longest that waits for the head of a request gives way, of the address with the
    most of them. A viewer that is slower than the pictures skips some, and holds up nobody.
    """

    def __init__(self, host: str, port: int, site: Site, max_viewers: int) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        self._site, self._max_viewers = site, max_viewers
        self._connections: dict[int, _Connection] = {}  # by the number of the socket
        self._changed: dict[int, _Connection] = {}  # those that wait for something else than before
        self._parts: dict[LiveView, tuple[int, memoryview]] = {}  # the newest version that was sent, as viewers get it
        self._is_open = True
        self._listener = _listening(host, port)
        self._woken, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for one in (self._listener, self._woken):
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ)
        self._waker.setblocking(False)
        for view in site.views:
            view.on_news = self._wake
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    @property
    def bound_to(self) -> tuple[str, int]:
        """Address, as a number, and port."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """End every connection and the thread."""
        self._is_open = False
        self._wake()
        self._thread.join()
        for one in (self._selector, self._listener, self._woken, self._waker):
            one.close()

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            return  # it is to wake already

    def _run(self) -> None:
        looked_s = time.monotonic()
        while self._is_open:
            self._select_changed()
            for key, events in self._selector.select(_TICK_S):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._woken.recv(1 << 12)
                    self._send_pictures()
                elif self._connections.get(key.fd) is key.data is not None:  # else it has just given way
                    self._turn(key.data, events)
            now_s = time.monotonic()
            if now_s - looked_s >= _TICK_S:
                looked_s = now_s
                self._look_after(now_s)
        for connection in list(self._connections.values()):
            self._end(connection)

    def _accept(self) -> None:
        """Take those that have connected, and answer whose requests are here."""
        for _ in range(_AT_ONCE):
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                break
            except OSError as exc:  # there are no descriptors left
                _LOG.debug("a connection could not be accepted: %s", exc)
                self._make_room(1)
                time.sleep(_TICK_S)
                break
            accepted.setblocking(False)
            if len(self._connections) >= _MAX_CONNECTIONS and all(one.request for one in self._connections.values()):
                with suppress(OSError):
                    accepted.send(_TOO_MANY)
                accepted.close()
                continue
            self._connections[accepted.fileno()] = one = _Connection(accepted, address[0], time.monotonic())
            self._turn(one, selectors.EVENT_READ)
        self._make_room(len(self._connections) - _MAX_CONNECTIONS)

    def _make_room(self, num_too_many: int) -> None:
        """End so many connections that wait for a head."""
        if num_too_many > 0:
            held = Counter(one.address for one in self._connections.values())
            waiting = (one for one in self._connections.values() if one.request is None)
            for one in heapq.nsmallest(num_too_many, waiting, key=lambda one: (-held[one.address], one.since_s)):
                self._end(one)

    def _look_after(self, now_s: float) -> None:
        """End connections whose request does not come, or who do not take what they asked for."""
        for one in list(self._connections.values()):
            silent_s = now_s - one.since_s
            if silent_s >= (_HEAD_S if one.request is None else _SILENCE_S) and (one.request is None or one.unsent):
                self._end(one)
            elif one.view is not None and silent_s >= _REPEAT_S and not one.unsent:
                one.version = 0
                self._turn(one, 0)

    def _send_pictures(self) -> None:
        for one in list(self._connections.values()):
            if one.view is not None and not one.unsent:
                self._turn(one, 0)

    def _turn(self, connection: _Connection, events: int) -> None:
        """Do for a connection what can be done without waiting."""
        try:
            if events & selectors.EVENT_READ:
                self._receive(connection)
            is_going_on = self._go_on(connection)
        except OSError as exc:
            _LOG.debug("%s has gone: %s", connection.address, exc)
            is_going_on = False
        except Exception:  # nobody else is to suffer from it
            _LOG.exception("the answer to %s failed", connection.address)
            is_going_on = False
        if not is_going_on:
            self._end(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            received = connection.socket.recv(MAX_HEAD_BYTES)
        except BlockingIOError:
            return
        connection.received += received
        connection.has_ended = not received

    def _go_on(self, connection: _Connection) -> bool:
        """Answer the next request, or send more of an answer; False when the connection is to end."""
        if connection.request is None:
            end = _HEAD_END.search(connection.received, connection.searched)
            connection.searched = max(0, len(connection.received) - 2)
            if end is None and len(connection.received) <= MAX_HEAD_BYTES:
                self._wait_for(connection, selectors.EVENT_READ)
                return not connection.has_ended
            self._begin(connection, len(connection.received) if end is None else end.end())
        _send(connection)
        if connection.view is not None and not connection.unsent:
            self._feed(connection)
            _send(connection)
        if connection.unsent:
            self._wait_for(connection, selectors.EVENT_WRITE)
            return True
        if connection.view is not None:
            # What a viewer says is not listened to, but that it goes is seen at once.
            self._wait_for(connection, selectors.EVENT_READ)
            return not connection.has_ended and len(connection.received) <= MAX_HEAD_BYTES
        if connection.request is None or connection.request.close_connection:
            return False
        connection.request = None
        # Others have their turn before a next request that is here already.
        self._wait_for(connection, selectors.EVENT_WRITE if connection.received else selectors.EVENT_READ)
        return not connection.has_ended or bool(connection.received)

    def _begin(self, connection: _Connection, num_bytes: int) -> None:
        """Answer a request."""
        head = bytes(connection.received[:num_bytes])
        del connection.received[:num_bytes]
        connection.searched = 0
        num_viewers = sum(
            one.request is not None and one.request.live_view is not None for one in self._connections.values()
        )
        request = Request(self._site, connection.address, head, is_viewer_welcome=num_viewers < self._max_viewers)
        connection.request, connection.since_s = request, time.monotonic()
        connection.unsent = memoryview(request.answer())
        connection.view = request.live_view or request.snapshot_of
        if connection.view is not None:
            connection.version = connection.view.watch()

    def _feed(self, connection: _Connection) -> None:
        """Give a newer picture, if there is one, to who waits for it."""
        view, request = connection.view, connection.request
        assert view is not None and request is not None
        newest = view.newest
        if newest is not None and newest[0] <= connection.version:
            return
        if request.live_view is None or newest is None:
            connection.view = None
            view.unwatch()
        if request.live_view is None:
            connection.unsent = memoryview(request.give(newest and newest[1]))
        elif newest is not None:
            connection.version = newest[0]
            if self._parts.get(view, (0,))[0] != newest[0]:
                self._parts[view] = newest[0], memoryview(newest[1] + b"\r\n" + PART_HEAD)
            connection.unsent = self._parts[view][1]

    def _wait_for(self, connection: _Connection, events: int) -> None:
        # Of one that has ended, its end would be told again and again.
        connection.wanted = events & selectors.EVENT_WRITE if connection.has_ended else events
        if connection.wanted != connection.selected:
            self._changed[connection.socket.fileno()] = connection

    def _select_changed(self) -> None:
        """Tell the system what is waited for; not of those that came, were answered and ended meanwhile."""
        for one in self._changed.values():
            if not one.wanted and one.selected:
                self._selector.unregister(one.socket)
            elif one.wanted and not one.selected:
                self._selector.register(one.socket, one.wanted, one)
            elif one.wanted != one.selected:
                self._selector.modify(one.socket, one.wanted, one)
            one.selected = one.wanted
        self._changed.clear()

    def _end(self, connection: _Connection) -> None:
        number = connection.socket.fileno()
        del self._connections[number]
        self._changed.pop(number, None)
        if connection.selected:
            self._selector.unregister(connection.socket)
        if connection.view is not None:
            connection.view.unwatch()
        if connection.request is not None:
            with suppress(OSError):  # the other side was faster
                connection.socket.shutdown(socket.SHUT_WR)
        connection.socket.close()


def _send(connection: _Connection) -> None:
    if not connection.unsent:
        return
    try:
        sent = connection.socket.send(connection.unsent)
    except BlockingIOError:
        return
    connection.since_s = time.monotonic()
    connection.unsent = connection.unsent[sent:]


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # These two its connections inherit.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
