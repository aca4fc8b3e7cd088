"""What verbs print: results on stdout, everything else on stderr."""

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from yolov3_trt.arguments import escaped

if TYPE_CHECKING:
    from rich.progress import Progress

    from yolov3_trt.builder.progress import BuildProgress, BuildState
    from yolov3_trt.reporter import Reporter

_Item = TypeVar("_Item")

_TELL_EVERY_S = 10.0  # where no bar can be drawn


def set_up_logging(verbose: bool) -> None:
    """Log this package to stderr; other packages' notes stay theirs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain("%(levelname)s: %(message)s"))
    logger = logging.getLogger("yolov3_trt")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


def write_result(json_target: str | None, content: dict[str, Any], text: str) -> None:
    """Give a verb's result: as text on stdout, and as JSON in a file, or on stdout instead of the text for `-`."""
    if json_target == "-":
        show(json.dumps(content, indent=1, allow_nan=False))
        return
    show(text)
    if json_target is not None:
        from yolov3_trt.files import write_text

        write_text(Path(json_target), json.dumps(content, indent=1, allow_nan=False) + "\n")


def show(text: str) -> None:
    """A line or more of the result on stdout, there at once."""
    # File names need not be text in the terminal's encoding; a result must not be lost to that.
    encoding = sys.stdout.encoding or "utf-8"
    # In one piece: where Python does not buffer, `print` writes the line's end by itself, and a reader may be gone by then.
    sys.stdout.write(escaped(text).encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(escaped(message), file=sys.stderr)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def track(items: Iterable[_Item], description: str, total: int | None = None, *, bar: bool = True) -> Iterator[_Item]:
    """Iterate with a progress bar on stderr when it is a terminal (and `bar`), with a plain line now and then otherwise."""
    if not (bar and sys.stderr.isatty()):
        yield from _told_now_and_then(items, description, total)
        return
    with progress_bar() as progress:
        yield from progress.track(items, total=total, description=description)


def _told_now_and_then(items: Iterable[_Item], description: str, total: int | None) -> Iterator[_Item]:
    say(f"{description} ..." if total is None else f"{description}: {total} ...")
    started_s = told_s = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now_s = time.monotonic()
        if now_s - told_s >= _TELL_EVERY_S:
            told_s = now_s
            say(f"{description}: {progress_text(done, total, now_s - started_s)} ...")


def progress_text(done: int, total: int | None, elapsed_s: float) -> str:
    """How far a job is: `717 of 5000, 10 s, 60 s to go`."""
    if total is None or total < done:  # a video may have more frames than it says
        return f"{done}, {elapsed_s:.0f} s"
    return f"{done} of {total}, {elapsed_s:.0f} s, {elapsed_s / done * (total - done):.0f} s to go"


def reporter(building: "BuildProgress | None" = None) -> "Reporter":
    """What verbs pass to their jobs: lines and bars on stderr."""
    from yolov3_trt.reporter import Reporter

    return Reporter(say, track, building)


@contextmanager
def build_bar() -> "Iterator[BuildProgress | None]":
    """What `build_engine` reports as a bar on stderr; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with progress_bar() as bar:
        yield _BuildBar(bar)


class _BuildBar:
    """TensorRT's own phases where it tells them, else the time that the build took the last time."""

    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._task = bar.add_task("TensorRT", total=None)

    def update(self, state: "BuildState") -> None:
        """See `BuildProgress`."""
        share = state.fraction
        if share is None and state.estimate_s:
            share = min(state.elapsed_s / state.estimate_s, 1.0)
        last_time = f", {state.estimate_s:.0f} s last time" if state.estimate_s else ""
        text = f"TensorRT{last_time}: {state.phase or 'building'}"
        self._bar.update(
            self._task, description=text, total=None if share is None else 100, completed=round(100 * (share or 0))
        )


def progress_bar() -> "Progress":
    """A bar on stderr that vanishes when its work is done: text, share, elapsed time, estimate."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Rich would draw what is printed to stdout on stderr, above the bar: right on a terminal, but not for a file or pipe.
    is_terminal = sys.stdout.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=is_terminal)
