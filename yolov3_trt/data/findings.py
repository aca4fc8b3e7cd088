"""What reading a data set came across: what is wrong, what is odd but allowed, and what was left out."""

from collections.abc import Sequence
from pathlib import Path

from yolov3_trt.arguments import spelled
from yolov3_trt.errors import DataSetError

_SHOWN = 20


class Findings:
    """Faults and notes, a line each.

    Attributes:
        faults: of the set as a whole; they must be corrected first.
        lines: of single labels and pictures, which can be left out.
        notes: what is odd but allowed.
        skip_faulty: whether what `lines` tell of is left out instead of refused.
    """

    def __init__(self, skip_faulty: bool = False) -> None:
        self.faults: list[str] = []
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.skip_faulty = skip_faulty

    @property
    def skipped(self) -> tuple[str, ...]:
        """What was left out."""
        return tuple(self.lines) if self.skip_faulty else ()

    def are_there(self) -> bool:
        """Whether the set is refused."""
        return bool(self.faults or (self.lines and not self.skip_faulty))

    def refuse(self, path: Path) -> None:
        """End here where there are faults.

        Raises:
            DataSetError: there are some; it holds all of them.
        """
        if self.are_there():
            lines = [] if self.skip_faulty else self.lines
            raise data_set_error(path, [*self.faults, *lines], self.notes, may_skip=bool(lines) and not self.faults)


def data_set_error(
    path: Path, faults: Sequence[str], notes: Sequence[str] = (), *, may_skip: bool = False
) -> DataSetError:
    """All faults of a data set as one error; one alone is told as it is."""
    if len(faults) == 1:
        text = faults[0] + (f"; correct it, or leave it out ({spelled('skip_faulty', True)})" if may_skip else "")
    else:
        way = f"or leave out what is faulty ({spelled('skip_faulty', True)})" if may_skip else "and start again"
        text = f"{path}: {len(faults)} faults in this data set; correct every one, {way}; the first: {faults[0]}"
    return DataSetError(text, faults=tuple(faults), notes=tuple(notes))


def shortened(faults: Sequence[str]) -> list[str]:
    """The first faults, and how many there are in all."""
    if len(faults) <= _SHOWN:
        return list(faults)
    return [*faults[:_SHOWN], f"... {len(faults)} faults in all"]
