"""How a live loop is watched from a terminal."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from yolov3_trt.cli.output import say

_EVERY_S, _EVERY_S_IN_PLAIN = 0.5, 10.0
_LONGEST_S_IN_PLAIN = 3600.0


@contextmanager
def live_line(snapshot: Callable[[], dict[str, Any]]) -> Iterator[Callable[[], None]]:
    """A line on stderr that says how the loop is doing: in place on a terminal, a new one now and then elsewhere.

    Those, which stay in a log, come after 10 s, 20 s more, and so on up to an hour.

    Args:
        snapshot: `Statistics.snapshot`.

    Yields:
        What is to be called often: it writes when it is time to.
    """
    if not sys.stderr.isatty():
        yield _Line(snapshot, say, _EVERY_S_IN_PLAIN)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live, _logging_above():
        yield _Line(
            snapshot, lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True), _EVERY_S
        )


class _Line:
    """Writes a line when it is due."""

    def __init__(self, snapshot: Callable[[], dict[str, Any]], write: Callable[[str], None], every_s: float) -> None:
        self._snapshot, self._write, self._every_s = snapshot, write, every_s
        self._written_s = time.monotonic()

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s - self._written_s >= self._every_s:
            self._written_s = now_s
            if self._every_s >= _EVERY_S_IN_PLAIN:
                self._every_s = min(self._every_s * 2, _LONGEST_S_IN_PLAIN)
            self._write(line_text(self._snapshot()))


@contextmanager
def _logging_above() -> Iterator[None]:
    """Log lines go through rich, which writes them above the line; it has put a stream of its own in `sys.stderr`."""
    handlers = [h for h in logging.getLogger("yolov3_trt").handlers if isinstance(h, logging.StreamHandler)]
    before = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)


def line_text(stats: dict[str, Any]) -> str:
    """A snapshot in a line."""
    fps, age = stats["fps"], stats["frame_age_ms"]["p95"]
    parts = [
        f"{stats['elapsed_s']:.0f} s",
        f"{stats['processed']} frames",
        "- fps" if fps is None else f"{fps:.1f} fps",
        "age p95 -" if age is None else f"age p95 {age:.0f} ms",
        f"{stats['dropped']} dropped",
    ]
    parts += [f"{row['source']} {row['state']}" for row in stats["sources"] if row["state"] not in ("running", "ended")]
    return "  ".join(parts)
