"""Lines to the standard input of another program, which may end and be away."""

import logging
import os
import select
import shlex
import shutil
import struct
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.camera.sinks.json_lines import lines_of
from yolov3_trt.errors import CameraError

_LOG = logging.getLogger(__name__)

_QUEUE_BYTES = 64 << 20
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0  # until it is started again, doubled each time
_LASTING_S = 10.0  # a program that ran so long is started again soon
_UNSURE_S = 5.0  # lines that a failed program read so shortly before are given to the next
_TICK_S = 0.2
_LAST_S = 10.0  # for the lines that are left at the end, and for the program to end
_TELL_EVERY_S = 60.0


class ProgramSink(Sink):
    """A line per frame and event to a program that is started again whenever it ends.

    Lines wait meanwhile, up to a number, beyond which the oldest are left out and counted. What the program had not read when
    it ended goes to the next, and after a failure (not code 0) so do the lines of the five seconds before: each line is taken
    at least once, where none had to be left out.
    """

    def __init__(self, command: str, *, queue: int = 10_000, only_events: bool = False) -> None:
        """Start it.

        Args:
            command: the program with its arguments, as a shell splits them; no shell runs it.
            queue: so many lines may wait.
            only_events: leave out the lines of frames.

        Raises:
            CameraError: there is no such program.
        """
        try:
            self._command = shlex.split(command)
        except ValueError as exc:
            raise CameraError(f"exec: {exc}; expected e.g. exec:mosquitto_pub -t cameras -l") from exc
        if not self._command or shutil.which(self._command[0]) is None:
            name = self._command[0] if self._command else ""
            raise CameraError(f"exec:{name}: there is no such program; install it, or give its path")
        self.name = f"exec:{self._command[0]}"  # not its arguments, which may hold a password
        self._limit, self._only_events = queue, only_events
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sent: deque[tuple[int, float, bytes]] = deque()  # the end of each in all that was sent, and when
        self._sent_bytes = 0
        self._lost = self._told = 0
        self._told_s = -_TELL_EVERY_S
        self._ends_s: float | None = None  # from when on nothing is waited for any more
        self._thread = threading.Thread(target=self._work, name=f"sink {self.name}", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        """Let the lines of a frame wait for the program; returns at once."""
        lines = [line.encode() for line in lines_of(result, only_events=self._only_events)]
        if not lines:
            return
        with self._changed:
            self._waiting.extend(lines)
            self._waiting_bytes += sum(map(len, lines))
            self._keep_to_limit()
            self._changed.notify()

    def close(self) -> None:
        """Give the program the rest, and let it end; harmless when repeated.

        Raises:
            CameraError: lines were left out.
        """
        if self._ends_s is not None:
            return
        with self._changed:
            self._ends_s = time.monotonic() + _LAST_S
            self._changed.notify()
        self._thread.join()
        if lost := self._lost + len(self._waiting):
            raise CameraError(f"{self.name}: {lost} lines were left out, as the program was away for too long")

    def abort(self) -> None:
        """As `close`: what was found goes where it can."""
        with suppress(CameraError):
            self.close()

    def _keep_to_limit(self) -> None:
        while len(self._waiting) > self._limit or self._waiting_bytes > _QUEUE_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self._lost += 1
        now_s = time.monotonic()
        if self._lost > self._told and now_s - self._told_s >= _TELL_EVERY_S:
            _LOG.warning("%s: %d lines were left out so far, as the program does not take them", self.name, self._lost)
            self._told, self._told_s = self._lost, now_s

    def _work(self) -> None:
        wait_s = _FIRST_WAIT_S
        while self._goes_on(0.0):
            started_s = time.monotonic()
            reason = self._run_once()
            if reason is None:
                return
            if time.monotonic() - started_s >= _LASTING_S:
                wait_s = _FIRST_WAIT_S
            _LOG.warning("%s: %s; starting it again in %.0f s", self.name, reason, wait_s)
            self._goes_on(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _goes_on(self, for_s: float) -> bool:
        """Wait; whether there is still something to do then."""
        until_s = time.monotonic() + for_s
        with self._changed:
            while True:
                now_s = time.monotonic()
                is_over = self._ends_s is not None and (now_s >= self._ends_s or not self._waiting)
                if is_over or now_s >= until_s:
                    return not is_over
                self._changed.wait(min(until_s - now_s, _TICK_S))

    def _run_once(self) -> str | None:
        """Start the program and give it lines; None when all is over, else why it ended."""
        reader, pipe = os.pipe()  # the reading end stays open here too, to see what the program left in it
        try:
            process = subprocess.Popen(self._command, stdin=reader, stdout=subprocess.DEVNULL, start_new_session=True)
        except OSError as exc:
            os.close(reader)
            os.close(pipe)
            return f"cannot be started ({exc.strerror})"
        os.set_blocking(pipe, False)
        self._sent.clear()
        self._sent_bytes = 0
        is_over = self._feed(process, pipe)
        os.close(pipe)
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(_TICK_S, (self._ends_s or 0.0) - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()
        self._take_back(_unread_bytes(reader), is_failure=process.returncode != 0)
        os.close(reader)
        return None if is_over and not self._waiting else f"ended with code {process.returncode}"

    def _feed(self, process: "subprocess.Popen[bytes]", pipe: int) -> bool:
        """Give it lines until it ends, or all is over, which is what this tells."""
        line = memoryview(b"")
        while True:
            with self._changed:
                if not line and not self._waiting:
                    if self._ends_s is not None:
                        return True
                    self._changed.wait(_TICK_S)
                if not line and self._waiting:
                    line = memoryview(self._waiting.popleft())
                    self._waiting_bytes -= len(line)
                    self._sent.append((self._sent_bytes + len(line), time.monotonic(), bytes(line)))
            if process.poll() is not None:
                return False
            if self._ends_s is not None and time.monotonic() >= self._ends_s:
                return True
            self._forget(pipe)
            if not line:
                continue
            try:
                if select.select([], [pipe], [], _TICK_S)[1]:
                    written = os.write(pipe, line)
                    self._sent_bytes += written
                    line = line[written:]
            except BlockingIOError:
                time.sleep(_TICK_S / 10)  # there is room, but not for this line

    def _forget(self, pipe: int) -> None:
        """Lines that were read long ago are done with."""
        now_s = time.monotonic()
        if not self._sent or now_s - self._sent[0][1] < _UNSURE_S:
            return
        read = self._sent_bytes - _unread_bytes(pipe)
        while self._sent and self._sent[0][0] <= read and now_s - self._sent[0][1] >= _UNSURE_S:
            self._sent.popleft()

    def _take_back(self, unread: int, *, is_failure: bool) -> None:
        """Let those lines wait again that the program did not take, or may not have."""
        read = self._sent_bytes - unread
        with self._changed:
            while self._sent:
                end, _, line = self._sent.pop()
                if end > read or is_failure:
                    self._waiting.appendleft(line)
                    self._waiting_bytes += len(line)
            self._keep_to_limit()


def _unread_bytes(pipe: int) -> int:
    """How much of what was written nobody has read yet."""
    import fcntl  # POSIX has them
    import termios

    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])
