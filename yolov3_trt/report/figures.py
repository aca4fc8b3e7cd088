"""Numbers as readers want them, and careful access to content that may lack any part."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

NONE = "–"


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def part(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part that is a mapping; empty where it is missing or null."""
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def listed(content: Mapping[str, Any], key: str) -> Sequence[Any]:
    """A part that is a list; empty where it is missing or null."""
    found = content.get(key)
    return found if isinstance(found, list | tuple) else ()


def interval(value: Any) -> tuple[float, float] | None:
    """`[low, high]`, or None where it is anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def plain(value: Any, form: str = ".3g") -> str:
    """A number in this form, a dash for none, text as it is."""
    found = number(value)
    if found is not None:
        return format(found, form)
    return NONE if value is None or isinstance(value, float) else str(value)


def ms(value: Any) -> str:
    """Milliseconds, to about three digits."""
    found = number(value)
    if found is None:
        return NONE
    return f"{found:.3f}" if found < 1 else f"{found:.2f}" if found < 100 else f"{found:.0f}"


def size(value: Any) -> str:
    """Bytes in units of 1024."""
    found = number(value)
    if found is None:
        return NONE
    for unit in ("B", "KiB", "MiB"):
        if found < 1024:
            return f"{found:.0f} {unit}" if unit == "B" else f"{found:.1f} {unit}"
        found /= 1024
    return f"{found:.2f} GiB"


def percent(value: Any) -> str:
    """A share of 1."""
    found = number(value)
    return NONE if found is None else f"{found:.1%}"


def within(value: Any, bounds: Any, form: str, sign: str = "") -> str:
    """`0.312 [0.290, 0.334]`, the bounds only where there are some."""
    found, ends = number(value), interval(bounds)
    if found is None:
        return NONE
    shown = f"{found:{form}}{sign}"
    return shown if ends is None else f"{shown} [{ends[0]:{form}}, {ends[1]:{form}}]"
