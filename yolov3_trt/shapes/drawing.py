"""The six kinds of shapes, drawn at sub-pixel precision."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import require
from yolov3_trt.geometry import HW, FloatArray
from yolov3_trt.shapes.paint import Paint

_SUPERSAMPLING = 4  # by two halvings


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape at one moment, in image px."""

    class_id: int
    centre_xy: tuple[float, float]
    size: float  # diameter of a circle; the others look about as big
    aspect: float  # width by height before the rotation
    angle: float  # radians
    paint: Paint

    @cached_property
    def _axes(self) -> FloatArray:
        """(2, 2): own frame -> image px, without the centre."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        sides = self.size * np.array([self.aspect**0.5, self.aspect**-0.5])
        return np.array(np.array([[c, -s], [s, c]]) * sides, np.float32)

    @cached_property
    def _outlines(self) -> list[FloatArray]:
        """Corners (K, 2) in image px; a second outline is a hole."""
        return [outline @ self._axes.T + np.array(self.centre_xy, np.float32) for outline in OUTLINES[self.class_id]]

    @cached_property
    def origin_xy(self) -> NDArray[np.int32]:
        """Upper left pixel of `alpha` in the picture, maybe outside of it."""
        return np.array(np.floor(self._outlines[0].min(axis=0)) - 1, np.int32)

    @cached_property
    def alpha(self) -> FloatArray:
        """(h, w): the share of each pixel that the shape covers, 0..1."""
        return self._drawn()

    @cached_property
    def solid(self) -> NDArray[np.bool_]:
        """(h, w): the pixels of `alpha` that are the shape's: covered by half or more."""
        return np.greater_equal(self.alpha, 0.5)

    def _drawn(self, line_px: float | None = None) -> FloatArray:
        """The coverage (h, w) of the filled shape, or of a line along its edge."""
        cv2 = require("cv2", extra="opencv")
        width, height = np.ceil(self._outlines[0].max(axis=0) - self.origin_xy).astype(int).tolist()
        canvas = np.zeros(((height + 1) * _SUPERSAMPLING, (width + 1) * _SUPERSAMPLING), np.uint8)
        # A pixel reaches from its index to the next one, but for OpenCV its centre is at the index. Four fractional bits.
        points = [(((p - self.origin_xy) * _SUPERSAMPLING - 0.5) * 16).round().astype(np.int32) for p in self._outlines]
        if line_px is None:
            cv2.fillPoly(canvas, points, 255, shift=4)
        else:
            cv2.polylines(canvas, points, True, 255, max(1, round(line_px * _SUPERSAMPLING)), shift=4)
        for factor in (2, 1):  # OpenCV halves ten times as fast as it quarters
            canvas = cv2.resize(canvas, (factor * (width + 1), factor * (height + 1)), interpolation=cv2.INTER_AREA)
        return np.asarray(canvas * np.float32(1 / 255))

    def window(self, image_hw: HW) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of a picture that `alpha` lies on, and the part of `alpha` that lies on the picture; both may be empty."""
        in_picture, in_alpha = [], []
        for first, length, limit in zip(self.origin_xy[::-1].tolist(), self.alpha.shape, image_hw, strict=True):
            start, stop = min(max(first, 0), limit), min(max(first + length, 0), limit)
            in_picture.append(slice(start, stop))
            in_alpha.append(slice(start - first, stop - first))
        return (in_picture[0], in_picture[1]), (in_alpha[0], in_alpha[1])

    def draw(self, planes: FloatArray, labels: NDArray[np.uint8], label: int) -> None:
        """Blend the shape into a picture (3, H, W) and write its label to its pixels (H, W)."""
        (rows, columns), in_alpha = self.window((labels.shape[0], labels.shape[1]))
        colour, second_colour = self.paint.colour[:, None, None], self.paint.second_colour[:, None, None]
        if self.paint.fill != "plain":
            weight = self.paint.weight(*self._own_xy[(slice(None), *in_alpha)])
            colour = colour + weight * (second_colour - colour)
        if self.paint.has_outline:
            colour = colour + self._drawn(0.1 * self.size)[in_alpha] * (second_colour - colour)
        region = planes[:, rows, columns]
        region += self.alpha[in_alpha] * (colour - region)
        labels[rows, columns][self.solid[in_alpha]] = label

    @property
    def _own_xy(self) -> FloatArray:
        """(2, h, w): the pixel centres of `alpha` in the shape's own frame."""
        inverse = np.linalg.inv(self._axes)[:, :, None, None]  # (2, 2, 1, 1)
        x, y = (self.origin_xy - self.centre_xy + 0.5).astype(np.float32)
        height, width = self.alpha.shape
        along_y = np.arange(height, dtype=np.float32)[:, None] + y
        return np.array(inverse[:, 0] * (np.arange(width, dtype=np.float32) + x) + inverse[:, 1] * along_y, np.float32)


def _unit_outlines() -> tuple[tuple[FloatArray, ...], ...]:
    """By class, in the order of `SHAPE_NAMES`: corners (K, 2) about the origin; a second outline is a hole."""

    def on_circle(corners: int, *radii: float) -> FloatArray:
        angles = np.arange(corners) * 2 * np.pi / corners
        return np.array(np.stack([np.sin(angles), -np.cos(angles)], 1) * np.resize(radii, corners)[:, None], np.float32)

    arm, tip = 0.16, 0.52
    quarter = np.array([[arm, -tip], [arm, -arm], [tip, -arm]], np.float32)
    turn = np.array([[0, 1], [-1, 0]], np.float32)  # rows (x, y) -> (-y, x)
    cross = np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)])
    square = 0.45 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    circle = on_circle(72, 0.5)
    return ((circle,), (square,), (on_circle(3, 0.6),), (on_circle(10, 0.58, 0.25),), (cross,), (circle, 0.55 * circle))


OUTLINES = _unit_outlines()
