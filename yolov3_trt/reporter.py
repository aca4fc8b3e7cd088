"""How a long job tells what it is doing, without knowing who listens."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolov3_trt.builder.progress import BuildProgress


@dataclass(frozen=True)
class Reporter:
    """Where a job's sentences and progress go; by default nowhere.

    Attributes:
        say: takes a line for the person at the terminal.
        track: wraps an iteration: items, what is done to them, how many there are (None: not known).
        building: is told how TensorRT gets on with an engine; see `builder.progress.BuildProgress`.

    >>> yolov3_trt.build("shapes", reporter=yolov3_trt.Reporter(say=print))  # doctest: +SKIP
    """

    say: Callable[[str], None] = lambda text: None
    track: Callable[[Iterable[Any], str, int | None], Iterable[Any]] = lambda items, what, total: items
    building: "BuildProgress | None" = None


SILENT = Reporter()
