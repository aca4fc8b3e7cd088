"""Disk space of sinks that never end: what is too old or too much is deleted, and some of the disk stays free."""

import errno
import logging
import re
import shutil
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.errors import OutputError

_LOG = logging.getLogger(__name__)

_SHARE, _MOST_BYTES = 20, 10**9  # what stays free by default: a twentieth of the disk, no more than that
_LOOK_EVERY_S = 10.0  # after room


class NoRoom(OutputError):
    """There is no room now; there may be some later.

    Attributes:
        lost: how many results were waiting to be written.
    """

    def __init__(self, message: str, lost: int = 1) -> None:
        super().__init__(message)
        self.lost = lost


@dataclass(frozen=True)
class Limits:
    """What the files of a sink may take; the oldest go first. Without any limit nothing is deleted."""

    keep: int | None = None  # files
    keep_days: float | None = None
    keep_gb: float | None = None  # 1e9 bytes
    free_gb: float | None = None  # of the disk; None: a twentieth of it, at most 1 GB, for which nothing is deleted


class Storage:
    """The finished files of a sink in one folder, those of the runs before among them."""

    def __init__(self, folder: Path, own: re.Pattern[str], limits: Limits) -> None:
        """Look which files there are.

        Args:
            folder: that holds them.
            own: what their names match.
            limits: see there.
        """
        self._folder, self._own, self._limits = folder, own, limits
        self.scan()

    def scan(self, current: Path | None = None) -> None:
        """Look again which files there are; the oldest come first, and the one that is being written is none of them."""
        found, now_s = [], time.time()
        for path in self._folder.iterdir():
            if self._own.fullmatch(path.name) and path != current and path.is_file() and not path.is_symlink():
                stat = path.stat()
                found.append((stat.st_mtime_ns, path.name, stat.st_size))
        # Ages are of a clock that nobody sets, or what a board wrote before it knew the time would be 50 years old.
        self._files = deque(
            (self._folder / name, size, time.monotonic() - max(0.0, now_s - when_ns / 1e9))
            for when_ns, name, size in sorted(found)
        )
        self._bytes = sum(size for _, size, _ in self._files)

    @property
    def files(self) -> list[Path]:
        """The oldest first."""
        return [path for path, _, _ in self._files]

    def add(self, path: Path) -> None:
        """Count a file that is finished."""
        num_bytes = path.stat().st_size
        self._files.append((path, num_bytes, time.monotonic()))
        self._bytes += num_bytes

    def make_room(self, in_use: int = 0) -> None:
        """Delete what is over the limits.

        Args:
            in_use: how many bytes the file has that is being written, which counts and stays.

        Raises:
            NoRoom: less of the disk is free than shall be.
        """
        limits = self._limits
        while self._files:
            _, _, since_s = self._files[0]
            is_too_many = limits.keep is not None and len(self._files) + bool(in_use) > limits.keep
            is_too_old = limits.keep_days is not None and time.monotonic() - since_s > limits.keep_days * 86_400
            is_too_much = limits.keep_gb is not None and self._bytes + in_use > limits.keep_gb * 1e9
            is_tight = limits.free_gb is not None and shutil.disk_usage(self._folder).free < limits.free_gb * 1e9
            if not (is_too_many or is_too_old or is_too_much or is_tight):
                break
            self._delete_oldest()
        usage = shutil.disk_usage(self._folder)
        reserve = reserve_bytes(usage.total) if limits.free_gb is None else limits.free_gb * 1e9
        if usage.free < reserve:
            raise NoRoom(
                f"{self._folder}: {usage.free / 1e6:.1f} MB of the disk are free, {reserve / 1e6:.1f} shall stay so; make "
                "room, or set limits (keep_days, keep_gb, free_gb)"
            )

    def _delete_oldest(self) -> None:
        path, num_bytes, _ = self._files.popleft()
        self._bytes -= num_bytes
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            _LOG.warning("%s: is over the limits and cannot be deleted (%s)", path, exc.strerror)
        else:
            _LOG.debug("%s: deleted, it is over the limits", path)


def is_full(error: OSError) -> bool:
    """Whether it says that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def reserve_bytes(total_bytes: int) -> float:
    """What stays free of a disk where nothing else is asked for."""
    return min(total_bytes / _SHARE, _MOST_BYTES)


class PatientSink(Sink):
    """Waits where a sink finds no room, and lets it go on when there is some; what came meanwhile is left out and counted."""

    def __init__(self, sink: Sink) -> None:
        """Take a sink, which it closes."""
        self.name, self.fallback = sink.name, sink.fallback
        self._sink = sink
        self._waits: NoRoom | None = None
        self._left_out, self._again_s = 0, 0.0

    def write(self, result: Result) -> None:
        """Hand a frame on, unless there is no room.

        Raises:
            CameraError, OutputError: the sink failed for another reason.
        """
        if self._waits is not None and time.monotonic() < self._again_s:
            self._left_out += 1
            return
        try:
            self._sink.write(result)
        except NoRoom as exc:
            self._wait(exc)
        else:
            if self._waits is not None:
                _LOG.warning("%s: there is room again; %d frames were left out", self.name, self._left_out)
            self._waits, self._left_out = None, 0

    def mark_stale(self, source: str, for_s: float) -> None:
        """Tell the sink, unless it waits."""
        if self._waits is None:
            try:
                self._sink.mark_stale(source, for_s)
            except NoRoom as exc:
                self._wait(exc)

    def _wait(self, error: NoRoom) -> None:
        if self._waits is None:
            _LOG.error("%s; nothing is written until there is room", error)
        self._waits, self._again_s = error, time.monotonic() + _LOOK_EVERY_S
        self._left_out += error.lost

    def close(self) -> None:
        """Finish.

        Raises:
            NoRoom: there is still none.
            CameraError, OutputError: of the sink.
        """
        try:
            self._sink.close()
        except NoRoom as exc:
            self._waits, self._left_out = exc, self._left_out + exc.lost
        if self._waits is not None:
            waits, self._waits = self._waits, None
            raise NoRoom(f"{waits}; {self._left_out} frames at the end were left out") from waits

    def abort(self) -> None:
        """Give up."""
        self._sink.abort()
