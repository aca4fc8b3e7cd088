"""The labels of one picture, in any format: what they say, and every fault in them.

A line in YOLO's text format is `class cx cy w h`, relative to the picture, or `class x1 y1 x2 y2 ...`, a polygon, of which the
bounding box is taken, or, where the set says so, a box and the points of a pose.
"""

import math
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.geometry import HW

_ROUNDING = 1e-3  # how far a box may stick out of its picture at least, as a fraction of it
_ROUNDING_PX, _MOST = 1.0, 1e-2  # ... and 1 px, where that is not more than a hundredth
_SMALLEST = 1e-9  # sides below it are none
_WRITTEN = 8e-7  # how far off x may be, as a fraction of the width, where six decimals of cx and w are written
_BOX = ("cx", "cy", "w", "h")
# Darknet's `labels` for `images` and for VOC's `JPEGImages`.
_PICTURE_FOLDERS = ("images", "JPEGImages")

Box = tuple[float, float, float, float]


@dataclass
class Labels:
    """What is said of one picture."""

    path: Path | None  # None: nothing is
    class_ids: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)  # x y w h in px; relative: cx cy w h, 0..1
    where: list[str] = field(default_factory=list)  # of each box, for texts
    crowds: list[bool] = field(default_factory=list)  # of each box where there are any
    areas: list[float | None] = field(default_factory=list)  # px, of each box where any is not the box's own
    is_relative: bool = True
    stated_hw: HW | None = None  # the size of the picture by the file
    polygons: list[str] = field(default_factory=list)  # file:line, as the next
    repeated: list[str] = field(default_factory=list)
    outside: list[tuple[str, list[float]]] = field(default_factory=list)  # a fault, and the numbers that are no box


def label_paths(picture: Path) -> tuple[Path, ...]:
    """Where the labels of a picture may be, the first that exists counts."""
    beside = picture.with_suffix(".txt")
    folders = beside.parent.parts
    found = [at for at, folder in enumerate(folders) if folder in _PICTURE_FOLDERS]
    if not found:
        return (beside,)
    return Path(*folders[: found[-1]], "labels", *folders[found[-1] + 1 :], beside.name), beside


def read_labels(
    picture: Path, class_names: Sequence[str], names_from: str, faults: list[str], point_values: int = 0
) -> Labels:
    """The labels of a picture in YOLO's text format.

    Args:
        picture: its file; the labels are looked for by `label_paths`.
        class_names: none where they are not known.
        names_from: what names them, for texts.
        faults: gets what is wrong, line by line.
        point_values: how many numbers follow the box of a line, for the points of a pose.
    """
    path = next((path for path in label_paths(picture) if os.path.lexists(path)), None)
    labels = Labels(path)
    if path is None:
        return labels
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(text_lines(path, "expected labels", faults), start=1):
        if not (words := tuple(line.split())):
            continue
        where = f"{path}:{number}"
        if words in seen:
            labels.repeated.append(where)
            continue
        seen.add(words)
        _read_line(labels, words, where, (class_names, names_from), faults, point_values)
    return labels


def _read_line(
    labels: Labels,
    words: Sequence[str],
    where: str,
    names: tuple[Sequence[str], str],
    faults: list[str],
    point_values: int,
) -> None:
    if point_values:
        if len(words) not in (5, 5 + point_values):
            faults.append(
                f"{where}: {_values(words)}; expected {5 + point_values} (class cx cy w h and the points of kpt_shape), or 5"
            )
            return
        words = words[:5]
    elif len(words) < 5 or len(words) % 2 == 0:
        expected = "5 (class cx cy w h), or a class and the x y of 3 points or more"
        faults.append(f"{where}: {_values(words)}; expected {expected}")
        return
    class_id, box = -1, None
    try:
        class_id = _class_id(words[0], *names)
    except ValueError as exc:
        faults.append(f"{where}: {exc}")
    try:
        values = _numbers(words[1:])
        try:
            box = _cxcywh(values, words[1:])
        except ValueError as exc:
            labels.outside.append((f"{where}: {exc}", values))
            raise
    except ValueError as exc:
        faults.append(f"{where}: {exc}")
    if box is not None and class_id >= 0:
        labels.class_ids.append(class_id)
        labels.boxes.append(box)
        labels.where.append(where)
        if len(words) > 5:
            labels.polygons.append(where)


def _values(words: Sequence[str]) -> str:
    return "1 value" if len(words) == 1 else f"{len(words)} values"


def _class_id(word: str, class_names: Sequence[str], names_from: str) -> int:
    value = finite(word)
    if value is None or not value.is_integer() or value > 1e9:  # some tools write 3.000000
        raise ValueError(f"class {shown(word)}; expected a whole number")
    if value < 0 or (class_names and value >= len(class_names)):
        names = "1 name" if len(class_names) == 1 else f"{len(class_names)} names"
        expected = f"0..{len(class_names) - 1} ({names} in {names_from})" if class_names else "0 or more"
        raise ValueError(f"class {word[:80]}; expected {expected}")
    return int(value)


def _names_of(count: int) -> list[str]:
    return list(_BOX) if count == 4 else [f"{'xy'[index % 2]}{index // 2 + 1}" for index in range(count)]


def _numbers(words: Sequence[str]) -> list[float]:
    values = []
    for name, word in zip(_names_of(len(words)), words, strict=True):
        value = finite(word)
        if value is None:
            raise ValueError(f"{name} is {shown(word)}; expected a number")
        values.append(value)
    return values


def _cxcywh(values: Sequence[float], words: Sequence[str]) -> Box:
    for name, value, word in zip(_names_of(len(values)), values, words, strict=True):
        if not -_MOST <= value <= 1 + 2 * _MOST:  # a box that sticks out on both sides is that wide
            raise ValueError(f"{name} is {word[:80]}; expected 0..1, a fraction of the picture's width or height")
    if len(values) == 4:
        cx, cy, w, h = values
        return cx, cy, w, h
    x1, y1, x2, y2 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def boxes_in_picture(
    labels: Labels, image_hw: HW, faults: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """The boxes in px, clipped where rounding made them stick out of the picture.

    Args:
        labels: of the picture.
        image_hw: its size.
        faults: gets a line for each box that lies outside or has no area.

    Returns:
        xywh (N, 4) in image px; which of the N boxes of the labels are good, (M,); how many were clipped.
    """
    xywh = np.array(labels.boxes, np.float64).reshape(-1, 4)
    sides = np.array((image_hw[1], image_hw[0]), np.float64)
    if not len(xywh):
        return xywh, np.ones(0, bool), 0
    if labels.is_relative:
        xywh[:, :2] -= xywh[:, 2:] / 2
        four = np.array(2 * (image_hw[1], image_hw[0]), np.float64)
        xywh = _as_written(xywh * four, four)
    low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    over = np.maximum(-low, high - sides)
    if over.max() <= 0 and xywh[:, 2:].min() >= _SMALLEST:
        return xywh + 0.0, np.ones(len(xywh), bool), 0  # no -0.0
    is_out = over > 1.001 * np.maximum(_ROUNDING * sides, np.minimum(_ROUNDING_PX, _MOST * sides))
    clipped_low, clipped_high = low.clip(0, sides), high.clip(0, sides)
    flat = clipped_high - clipped_low < _SMALLEST
    good = ~np.asarray((is_out | flat).any(axis=1))
    units = sides if labels.is_relative else np.ones(2)
    faults += (
        f"{labels.where[row]}: {_why(low[row] / units, high[row] / units, is_out[row], sides / units)}"
        for row in np.flatnonzero(~good)
    )
    clipped = np.concatenate([clipped_low, clipped_high - clipped_low], axis=1).round(6)
    xywh = np.where((over > 0).any(axis=1, keepdims=True), clipped, xywh) + 0.0
    return xywh[good], good, int(np.count_nonzero((over > 1e-4).any(axis=1) & good))


def _why(
    low: NDArray[np.float64], high: NDArray[np.float64], is_out: NDArray[np.bool_], whole: NDArray[np.float64]
) -> str:
    px = "" if whole.max() == 1 else " px"
    for axis, name in enumerate("xy"):
        if is_out[axis]:
            ends = f"from {low[axis]:.6g} to {high[axis]:.6g}{px} in {name}"
            return f"the box goes {ends}; expected 0..{whole[axis]:g}, inside the picture"
    flat = "width" if min(high[0], whole[0]) - max(low[0], 0) < _SMALLEST else "height"
    return f"the box has no {flat}; expected more than 0"


def _as_written(xywh: NDArray[np.float64], sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hundredths of a px, as annotation tools have them, wherever the six decimals of a relative box allow them.

    So a set gives the same boxes whether its labels are relative or in px.
    """
    rounded = xywh.round(2)
    result: NDArray[np.float64] = np.where(np.abs(xywh - rounded) <= _WRITTEN * sides, rounded, xywh.round(6))
    return result


def finite(word: str) -> float | None:
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
