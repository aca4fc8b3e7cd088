"""Boxes of another kind than their format has: fractions for px, px for fractions, corners for sizes.

A set in which most boxes are wrong in the same way is told so in one line, rather than box by box.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.labels import Labels
from yolov3_trt.geometry import HW

_FEWEST, _FEWEST_OUT = 2, 8  # boxes of which a kind can be told; that may just be wrong
_SHARE = 0.05  # of boxes that leave their picture, from which the whole set is looked at
_MOST = 0.98  # of boxes that fit as the other kind
_OUT_PX, _OUT_SHARE = 2.0, 0.02
_LEAVE, _FIT, _FORMER = "leave their pictures as", "and fit as", "expected the former"


def kind_faults(path: Path, labels: Mapping[Path, Labels], sizes_hw: Mapping[Path, HW]) -> list[str]:
    """One line where the boxes of a set are of another kind; none where they are of the right one, or just wrong."""
    given = [(found, sizes_hw[picture]) for picture, found in labels.items() if picture in sizes_hw]
    faults = [_px_fault(path, [(one, hw) for one, hw in given if not one.is_relative])]
    faults.append(_relative_fault(path, [(one, hw) for one, hw in given if one.is_relative]))
    return [fault for fault in faults if fault]


def _px_fault(path: Path, given: list[tuple[Labels, HW]]) -> str:
    boxes, sides = _arrays([(one.boxes, one.stated_hw or hw) for one, hw in given])
    if len(boxes) < _FEWEST:
        return ""
    if boxes.max() <= 1.01 and boxes.min() >= -0.01 and sides.min() > 8:
        return f"{path}: all {len(boxes)} boxes lie within 0..1: fractions of the picture; expected px"
    if len(boxes) >= _FEWEST_OUT and _is_out(boxes, sides).mean() > _SHARE and _are_corners(boxes, sides):
        return f"{path}: its boxes ({len(boxes)}) {_LEAVE} x, y, width, height, {_FIT} x1, y1, x2, y2; {_FORMER}"
    return ""


def _relative_fault(path: Path, given: list[tuple[Labels, HW]]) -> str:
    outside = [(one, values, hw) for one, hw in given for _, values in one.outside if len(values) == 4]
    good, _ = _arrays([(one.boxes, hw) for one, hw in given])
    count = len(outside) + len(good)
    if count < _FEWEST:
        return ""
    if outside:
        values = np.array([row for _, row, _ in outside])
        sides = np.array([hw[::-1] for _, _, hw in outside], float)
        if (
            len(outside) > 0.9 * count
            and (values[:, :2] <= sides * 1.02).all()
            and values.min() >= 0
            and values.max() > 2
        ):
            return f"{path}: its label files hold px ({len(outside)} of {count} boxes); expected fractions of the picture, 0..1"
        return ""
    corner = good.copy()
    corner[:, :2] -= corner[:, 2:] / 2
    ones = np.ones((len(good), 2))
    if count >= _FEWEST_OUT and _is_out(corner, ones).mean() > _SHARE:
        if _are_corners(good, ones):
            return f"{path}: its boxes ({count}) {_LEAVE} cx, cy, w, h, {_FIT} x1, y1, x2, y2; {_FORMER}"
        if (~_is_out(good, ones)).mean() > _MOST:
            return f"{path}: its boxes ({count}) {_LEAVE} cx, cy, w, h, {_FIT} x, y, w, h; {_FORMER}"
    return ""


def _arrays(
    given: list[tuple[list[tuple[float, float, float, float]], HW]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes (N, 4), and width and height of the picture of each (N, 2)."""
    boxes = np.array([box for some, _ in given for box in some], np.float64).reshape(-1, 4)
    sides = np.array([hw[::-1] for some, hw in given for _ in some], np.float64).reshape(-1, 2)
    return boxes, sides


def _is_out(xywh: NDArray[np.float64], sides: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) Which boxes leave their picture by more than rounding."""
    allowed = np.where(sides > 1, np.maximum(_OUT_PX, _OUT_SHARE * sides), _OUT_SHARE)
    return np.asarray(((xywh[:, :2] < -allowed) | (xywh[:, :2] + xywh[:, 2:] > sides + allowed)).any(axis=1))


def _are_corners(boxes: NDArray[np.float64], sides: NDArray[np.float64]) -> bool:
    """Whether (almost) all are x1 y1 x2 y2 inside their pictures."""
    fit = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= sides * 1.01 + (sides > 1)).all(axis=1)
    return bool(fit.mean() > _MOST)
