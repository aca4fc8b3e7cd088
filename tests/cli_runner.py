"""The command line inside this process, which spares each test the import of torch."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov3_trt.cli import entrypoint

PROGRESS = " ..."  # how a line on stderr ends that only says what is under way


@dataclass(frozen=True)
class Outcome:
    """How a run ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON value and nothing else."""
        return json.loads(self.stdout)

    @property
    def complaints(self) -> list[str]:
        """What stderr says beyond the progress."""
        return [line for line in self.stderr.splitlines() if not line.endswith(PROGRESS)]

    @property
    def usage_error(self) -> str:
        """Stderr without the frame that is drawn around a usage error."""
        return " ".join(self.stderr.replace("│", " ").split())


Run = Callable[..., Outcome]  # what the fixture `run` gives


def call(*args: str | Path) -> int:
    """Run the command line; returns the exit code and leaves the package's logging as it was."""
    logger = logging.getLogger("yolov3_trt")
    before = (logger.handlers, logger.propagate, logger.level)
    try:
        entrypoint([str(arg) for arg in args])
    except SystemExit as exc:
        return int(exc.code or 0)
    finally:
        logger.handlers, logger.propagate = before[0], before[1]
        logger.setLevel(before[2])
    raise AssertionError("the command line did not end the process")


def files_in(folder: Path) -> set[str]:
    """Everything below a folder, hidden files included; empty where there is no folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
