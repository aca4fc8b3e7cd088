"""File names that have the time in them: `door-%Y%m%d-%H%M%S.mp4`."""

import re
import time
from pathlib import Path

from yolov3_trt.errors import CameraError

_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3}
_PART = re.compile("%(.?)")


def has_time(path: Path) -> bool:
    """Whether there is a part of a time in it."""
    return "%" in str(path)


class TimedNames:
    """Names of the files of one kind, in UTC.

    Attributes:
        folder: where they are.
        own: what their names match.
    """

    def __init__(self, pattern: Path) -> None:
        """Take a pattern.

        Raises:
            CameraError: there is something else behind a %, or one in the name of a folder.
        """
        self.folder, self._pattern = pattern.parent, pattern.name
        unknown = [part for part in _PART.findall(pattern.name) if part not in _DIGITS]
        if unknown or has_time(pattern.parent):
            fault = f"there is no %{unknown[0]}" if unknown else "the time may stand in the name of the file only"
            raise CameraError(f"{pattern}: {fault}; expected e.g. %Y%m%d-%H%M%S")
        stem, suffix = (_PART.sub(_digits, re.escape(part)) for part in (pattern.stem, pattern.suffix))
        self.own = re.compile(rf"{stem}(-\d{{1,6}})?{suffix}")

    def at(self, unix_s: float) -> Path:
        """The name for a moment."""
        return self.folder / time.strftime(self._pattern, time.gmtime(unix_s))

    def new_at(self, unix_s: float) -> Path:
        """As `at`; where there is such a file already, with a number from 1."""
        path = first = self.at(unix_s)
        number = 0
        while path.exists():
            number += 1
            path = first.with_name(f"{first.stem}-{number}{first.suffix}")
        return path


def _digits(found: re.Match[str]) -> str:
    return rf"\d{{{_DIGITS[found[1]]}}}"
