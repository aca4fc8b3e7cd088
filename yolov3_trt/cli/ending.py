"""How verbs end before their time: by Ctrl-C, by SIGTERM, or because nobody reads their output any more.

Each way unwinds the verb, so that files are finished or removed on the way out, and has the exit code that a shell gives a
program which a signal ended: 128 and the signal's number.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from yolov3_trt.files import silence

_SIGPIPE = 13  # not in `signal` everywhere


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a verb as Ctrl-C does."""

    def __init__(self) -> None:
        super().__init__(signal.SIGTERM.name)


class Verbs(TyperGroup):
    """A command group that knows the exit codes of early ends; Ctrl-C's, 130, is Typer's own."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was asked for."""
        try:
            return super().invoke(ctx)
        except Terminated:
            raise typer.Exit(exit_code(signal.SIGTERM.name)) from None
        except BrokenPipeError:  # `| head` has seen enough: no fault
            silence(sys.stdout)
            raise typer.Exit(128 + _SIGPIPE) from None


def exit_code(signal_name: str) -> int:
    """Of a verb that this signal ended."""
    return 128 + signal.Signals[signal_name]


def name_of_end(end: KeyboardInterrupt) -> str:
    """Which signal it was."""
    return str(end) or signal.SIGINT.name


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Within it SIGTERM raises `Terminated`; a second one ends the process at once, as it would have done without.

    In a thread other than the main one, which gets no signals, and where SIGTERM is ignored nothing changes.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ended_by_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `stop` with its name; after it the signals do what they did before.

    In a thread other than the main one, which gets no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        restore()
        stop(signal.Signals(number).name)

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()


@contextmanager
def undivided() -> Iterator[None]:
    """What is done within it is done whole: the first signal takes effect at its end, a second one at once."""
    names: list[str] = []
    with ended_by_signals(names.append):
        yield
    for name in names:
        signal.raise_signal(signal.Signals[name])
