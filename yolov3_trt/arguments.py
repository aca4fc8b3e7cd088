"""What callers hand in becomes the value it stands for, or is refused in one line that names the argument.

Each function takes the argument's name first, since the name is how the caller knows it: a keyword in Python, a key in a
recipe, an option on the command line (which shows `float_layers` as `--float-layers`).
"""

import operator
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from yolov3_trt.errors import SettingError
from yolov3_trt.sizes import HW

MAX_SIDE = 99_999  # px
MAX_COUNT = 10**9  # of anything that has no limit of its own

_Choice = TypeVar("_Choice", bound=Enum)


def shown(value: Any) -> str:
    """A value for a message: short, on one line."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not write integers of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def escaped(text: str) -> str:
    r"""A text for a terminal, with what controls one or turns the direction of writing as `\x1b`; lines stay lines."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_plain(text: str) -> bool:
    """Whether a name is one line, without anything that controls a terminal."""
    return not re.search(r"[\n\t\u2028\u2029]", text) and not _CONTROLS.search(text)


def spelled(name: str, value: object = None, *, option: str | None = None) -> str:
    """How this caller gives an argument: `sha256=` in Python, `--sha256` on the command line.

    Args:
        name: of the argument in Python.
        value: that is given, where one is named: `batch_size=16`, `--batch-size 16`.
        option: on the command line, where it has another name.
    """
    if not _asked_by.command_line:
        return f"{name}=" if value is None else f"{name}={value!r}"
    typed = option or f"--{name.replace('_', '-')}"
    return typed if value in (None, True) else f"{typed} {value:g}" if isinstance(value, float) else f"{typed} {value}"


@contextmanager
def spelled_as_options() -> Iterator[None]:
    """Within this, `spelled` speaks to who typed a command; for the command line alone, in all threads."""
    before, _asked_by.command_line = _asked_by.command_line, True
    try:
        yield
    finally:
        _asked_by.command_line = before


class _AskedBy:
    command_line = False


_asked_by = _AskedBy()


# C0 but tab and line feed, DEL and C1, and Unicode's overrides of direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def one_of(name: str, value: Any, choices: type[_Choice]) -> _Choice:
    """A member of an enum, or its value: `one_of("precision", "fp16", Precision) -> Precision.FP16`.

    Raises:
        SettingError: it is neither.
    """
    try:
        return choices(value)
    except ValueError:
        expected = ", ".join(str(member.value) for member in choices)
        raise SettingError(name, f"got {shown(value)}; expected one of {expected}") from None


def integer(name: str, value: Any, least: int, most: int) -> int:
    """A whole number within limits, of Python or NumPy; a bool or a text is none.

    Raises:
        SettingError: it is none, or out of its limits.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise SettingError(name, f"got {shown(value)}; expected a whole number, {least} to {most}") from None
    if isinstance(value, bool) or not least <= number <= most:
        raise SettingError(name, f"got {shown(value)}; expected {least} to {most}")
    return number


def number(name: str, value: Any, least: float, most: float) -> float:
    """A finite number within limits, of Python or NumPy; a bool or a text is none.

    Raises:
        SettingError: it is none, or out of its limits.
    """
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise SettingError(name, f"got {shown(value)}; expected a number, {least:g} to {most:g}")
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise SettingError(name, f"got {shown(value)}; expected a number, {least:g} to {most:g}") from None
    if not least <= found <= most:  # NaN is not either
        raise SettingError(name, f"got {shown(value)}; expected {least:g} to {most:g}")
    return found


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that only counts as such.

    Raises:
        SettingError: it is neither.
    """
    if not isinstance(value, bool):
        raise SettingError(name, f"got {shown(value)}; expected True or False")
    return value


def text(name: str, value: Any) -> str:
    """A text, or a path as a text.

    Raises:
        SettingError: it is neither.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise SettingError(name, f"got {shown(value)}; expected a text")
    return os.fsdecode(value)


def path(name: str, value: Any) -> Path:
    """A path, given as a text or as one.

    Raises:
        SettingError: it is neither, or empty.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or "\0" in os.fsdecode(value):
        raise SettingError(name, f"got {shown(value)}; expected a path")
    return Path(os.fsdecode(value))


def size(name: str, value: Any, multiple: int = 1) -> HW:
    """A size in px as (height, width).

    Args:
        name: of the argument.
        value: one number for a square, a text `WIDTHxHEIGHT` as cameras and video tools write it (or `N`), or a pair (height,
            width) as NumPy's shape has it.
        multiple: both sides must be multiples of it.

    Raises:
        SettingError: it is none of these, or out of its limits.

    >>> size("frame_size", "1280x720")
    (720, 1280)
    """
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", value.strip())
        if not found:
            raise SettingError(name, f"got {shown(value)}; expected WIDTHxHEIGHT or one number, e.g. 1280x720 or 416")
        sides: tuple[Any, ...] = (int(found[2] or found[1]), int(found[1]))
    elif isinstance(value, Iterable):
        sides = tuple(value)
    else:
        sides = (value, value)
    if len(sides) != 2:
        raise SettingError(name, f"got {shown(value)}; expected a pair (height, width)")
    most = MAX_SIDE // multiple * multiple
    steps = f" in steps of {multiple}, e.g. 416" if multiple > 1 else ""
    try:
        height, width = (integer(name, side, multiple, most) for side in sides)
    except SettingError:
        raise SettingError(name, f"got {shown(value)}; expected {multiple} to {most} px a side{steps}") from None
    if height % multiple or width % multiple:
        raise SettingError(name, f"got width {width}, height {height}; expected {multiple} to {most} px{steps}")
    return height, width


def size_text(hw: HW) -> str:
    """A size as people write it, `WIDTHxHEIGHT`; one number for a square."""
    height, width = hw
    return str(width) if height == width else f"{width}x{height}"


@dataclass(frozen=True)
class Settings:
    """Base of the settings classes: what is given becomes what it stands for, as each field's `setting` says.

    Raises:
        SettingError: at construction, a value is none that its field takes.
    """

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None or item.default is not None:
                object.__setattr__(self, item.name, item.metadata["check"](item.name, value))


def setting(
    check: Callable[[str, Any], Any],
    default: Any = None,
    *,
    metavar: str | None = None,
    panel: str | None = None,
    option: bool = True,
) -> Any:
    """A field of a settings class: its default, its check, and how the command line shows it.

    Args:
        check: given the name and a value, what the value stands for; None, where it is the default, is not asked about.
        default: where nothing is given.
        metavar: what is typed behind the option.
        panel: of the options; None: that of its class.
        option: whether there is an option for it.
    """
    return field(default=default, metadata={"check": check, "metavar": metavar, "panel": panel, "option": option})


@dataclass(frozen=True)
class Range:
    """A check by `integer` or `number`, with the limits that the command line shows."""

    check: Callable[[str, Any, Any, Any], Any]
    least: float
    most: float | None = None  # None: none that anybody would meet

    def __call__(self, name: str, value: Any) -> Any:
        """The number, or a refusal."""
        most = (MAX_COUNT if self.check is integer else 1e30) if self.most is None else self.most
        return self.check(name, value, self.least, most)

    def __str__(self) -> str:
        return f"N>={self.least:g}" if self.most is None else f"{self.least:g}..{self.most:g}"


def whole(least: int, most: int | None = None) -> Range:
    """A check: a whole number from `least` on."""
    return Range(integer, least, most)


def within(least: float, most: float | None = None) -> Range:
    """A check: a number from `least` on."""
    return Range(number, least, most)


def choice(choices: type[Enum]) -> Callable[[str, Any], Any]:
    """A check: a member of an enum, or its value."""
    return lambda name, value: one_of(name, value, choices)
