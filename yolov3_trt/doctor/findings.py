"""What a check reports."""

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"  # it works, but worse than it could
    MISSING = "missing"  # it is not there: what it is for cannot be done
    ERROR = "error"  # it is there, but broken


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str  # one line
    fix: str | None = None  # what to do, with the command; None where all is well

    def __post_init__(self) -> None:
        if (self.fix is None) != (self.status is Status.OK):
            raise ValueError(f"{self.name}: status {self.status.value} with fix={self.fix!r}; expected a fix unless ok")


def ok(name: str, detail: str) -> Finding:
    """All is well."""
    return Finding(name, Status.OK, _line(detail))


def warning(name: str, detail: str, fix: str) -> Finding:
    """It works, but worse than it could."""
    return Finding(name, Status.WARNING, _line(detail), fix)


def missing(name: str, detail: str, fix: str) -> Finding:
    """It is not there."""
    return Finding(name, Status.MISSING, _line(detail), fix)


def error(name: str, detail: str, fix: str) -> Finding:
    """It is there, but broken."""
    return Finding(name, Status.ERROR, _line(detail), fix)


def _line(text: str) -> str:
    """A program's own words may come in several lines, or without end."""
    line = " ".join(text.split())
    return line if len(line) <= 240 else f"{line[:239]}…"
