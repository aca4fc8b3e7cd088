"""systemd is told that the program is ready and alive, where it has started it (`Type=notify`, `WatchdogSec=`)."""

import os
import socket
import time


class ServiceManager:
    """What listens at `NOTIFY_SOCKET`; without it nothing is sent."""

    def __init__(self) -> None:
        """Look for it."""
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._every_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6 / 2
        self._told_s = 0.0

    def ready(self) -> None:
        """All is open."""
        self._send("READY=1")

    def alive(self) -> None:
        """To be called often; it sends when it is time to."""
        now_s = time.monotonic()
        if self._every_s and now_s - self._told_s >= self._every_s:
            self._told_s = now_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun: files are finished."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), address)
        except OSError:  # who listens has gone, or is slow: no reason to end
            return
