"""Label files in YOLO text format: what one says, and every fault in it.

A line is `class cx cy w h`, relative to the picture, or `class x1 y1 x2 y2 ...`, a polygon, of which the bounding box is taken.
"""

import math
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROUNDING = 1e-3  # how far a box may stick out of its picture, as a fraction of it
_SMALLEST = 1e-9  # sides below it are none
_BOX = ("cx", "cy", "w", "h")


@dataclass
class Labels:
    """What one label file says."""

    path: Path | None  # None: the picture has none
    class_ids: list[int] = field(default_factory=list)
    cxcywh: list[tuple[float, ...]] = field(default_factory=list)
    polygons: list[str] = field(default_factory=list)  # file:line, as the next two
    repeated: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def label_paths(picture: Path) -> tuple[Path, ...]:
    """Where the labels of a picture may be, the first that exists counts."""
    beside = picture.with_suffix(".txt")
    folders = beside.parent.parts
    if "images" not in folders:
        return (beside,)
    last = len(folders) - 1 - folders[::-1].index("images")
    return Path(*folders[:last], "labels", *folders[last + 1 :], beside.name), beside


def read_labels(picture: Path, class_names: Sequence[str], yaml_name: str) -> Labels:
    """The labels of a picture, with all that is wrong with them; `yaml_name` names the classes, for texts."""
    path = next((path for path in label_paths(picture) if os.path.lexists(path)), None)
    labels = Labels(path)
    if path is None:
        return labels
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(text_lines(path, "expected labels", labels.faults), start=1):
        if not (words := tuple(line.split())):
            continue
        where = f"{path}:{number}"
        if words in seen:
            labels.repeated.append(where)
            continue
        seen.add(words)
        if len(words) < 5 or len(words) % 2 == 0:
            values = "1 value" if len(words) == 1 else f"{len(words)} values"
            expected = "5 (class cx cy w h), or a class and the x y of 3 points or more"
            labels.faults.append(f"{where}: {values}; expected {expected}")
            continue
        try:
            class_id = _class_id(words[0], class_names, yaml_name)
        except ValueError as exc:
            labels.faults.append(f"{where}: {exc}")
            class_id = 0
        try:
            cxcywh = _cxcywh(words[1:])
        except ValueError as exc:
            labels.faults.append(f"{where}: {exc}")
            continue
        labels.class_ids.append(class_id)
        labels.cxcywh.append(cxcywh)
        if len(words) > 5:
            labels.polygons.append(where)
    return labels


def _class_id(word: str, class_names: Sequence[str], yaml_name: str) -> int:
    value = _number(word)
    if value is None or not value.is_integer():  # some tools write 3.000000
        raise ValueError(f"class {shown(word)}; expected a whole number")
    if value < 0 or (class_names and value >= len(class_names)):
        names = "1 name" if len(class_names) == 1 else f"{len(class_names)} names"
        expected = f"0..{len(class_names) - 1} ({names} in {yaml_name})" if class_names else "0 or more"
        raise ValueError(f"class {word[:80]}; expected {expected}")
    return int(value)


def _cxcywh(words: Sequence[str]) -> tuple[float, ...]:
    """The box of a line, clipped to the picture where rounding made it stick out."""
    is_box = len(words) == 4
    values = []
    for index, word in enumerate(words):
        value = _number(word)
        name = _BOX[index] if is_box else f"{'xy'[index % 2]}{index // 2 + 1}"
        if value is None:
            raise ValueError(f"{name} is {shown(word)}; expected a number")
        if not -_ROUNDING <= value <= 1 + 2 * _ROUNDING:  # a box that sticks out on both sides is that wide
            raise ValueError(f"{name} is {word[:80]}; expected 0..1, a fraction of the picture's width or height")
        values.append(value)
    if is_box:
        cx, cy, w, h = values
        x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    else:
        x1, y1, x2, y2 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
        if low < -_ROUNDING * 1.001 or high > 1 + _ROUNDING * 1.001:
            raise ValueError(f"the box goes from {low:.6g} to {high:.6g} in {axis}; expected 0..1, inside the picture")
    if is_box and min(x1, y1) >= 0 and max(x2, y2) <= 1 and min(w, h) >= _SMALLEST:
        return cx, cy, w, h  # just as written
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in (x1, y1, x2, y2))
    for side, length in (("width", x2 - x1), ("height", y2 - y1)):
        if length < _SMALLEST:
            raise ValueError(f"the box has no {side}; expected more than 0")
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _number(word: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in word else None


def text_lines(path: Path, expected: str, faults: list[str]) -> list[str]:
    """The lines of a UTF-8 text file; none when it is at fault."""
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as exc:
        faults.append(f"{path}: cannot be read ({exc.strerror}); {expected}")
    except UnicodeDecodeError as exc:
        at = exc.object[: exc.start].count(b"\n") + 1  # its own bytes: the positions do not count a byte order mark
        faults.append(f"{path}:{at}: byte {exc.object[exc.start]:#04x} is not UTF-8 text; {expected}")
    return []


def shown(value: Any) -> str:
    """A value of any size and depth, shortly."""
    return repr(value[:80]) if isinstance(value, str) else reprlib.repr(value)


def first_few(names: Sequence[object]) -> str:
    """The first few of many."""
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
