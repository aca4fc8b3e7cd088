"""Which shapes are in a scene, where they are, and how they move."""

from dataclasses import dataclass, replace

import numpy as np

from yolov3_trt.geometry import HW, FloatArray
from yolov3_trt.models.class_names import SHAPE_NAMES
from yolov3_trt.shapes.drawing import Shape
from yolov3_trt.shapes.paint import drawn_paint, mean_colours

MIN_VISIBLE = 0.65  # share of a shape's own area; a shape that is hidden more, which only a clip has, gets no label

_PLACEMENT_TRIES = 6
# Thinner shapes would be lost once the longer side is scaled to a network's input of 256 px.
_MIN_SIZE_OF_LONGER_SIDE = 18 / 256
_SIZE_OF_SHORTER_SIDE = (0.09, 0.6)
_CLIP_SIZE_OF_SHORTER_SIDE = (0.12, 0.4)


def placed_shapes(rng: np.random.Generator, background: FloatArray, count: int) -> list[Shape]:
    """Up to `count` shapes; one that would hide too much of another, wherever it is tried, is left out."""
    image_hw: HW = (background.shape[1], background.shape[2])
    behind, shapes = mean_colours(background), list[Shape]()
    labels, visible, areas = np.zeros(image_hw, np.uint8), np.zeros(count + 1), np.zeros(count + 1)  # [0]: background
    for _ in range(count):
        shape, label = _drawn_shape(rng, image_hw, _SIZE_OF_SHORTER_SIDE, behind, shapes), len(shapes) + 1
        for _ in range(_PLACEMENT_TRIES):
            margin = (0.55 if rng.random() < 0.75 else 0.1) * shape.size
            x, y = rng.uniform(margin, np.array(image_hw[::-1]) - margin)
            shape = replace(shape, centre_xy=(float(x), float(y)))
            in_picture, in_alpha = shape.window(image_hw)
            covered = labels[in_picture][shape.solid[in_alpha]]
            left = visible - np.bincount(covered, minlength=count + 1)
            left[0], left[label], areas[label] = 0, covered.size, np.count_nonzero(shape.solid)
            if np.all(left[: label + 1] >= MIN_VISIBLE * areas[: label + 1]):
                labels[in_picture][shape.solid[in_alpha]] = label
                shapes, visible = [*shapes, shape], left
                break
    return shapes


@dataclass(frozen=True, eq=False)
class Motion:
    """A shape that moves: straight on until its centre bounces, turning, and growing and shrinking by a sine."""

    start: Shape
    velocity_xy: tuple[float, float]  # px by frame
    spin: float  # radians by frame
    growth: float  # of the size, at most
    period: float  # of the growth, in frames

    def at(self, frame: int, image_hw: HW) -> Shape:
        """The shape in a frame, counted from 0."""
        margin = 0.3 * self.start.size  # so that it is sometimes cut by the border
        spans = np.array(image_hw[::-1]) - 2 * margin
        gone = np.array(self.start.centre_xy) - margin + frame * np.array(self.velocity_xy)
        x, y = margin + spans - np.abs(gone % (2 * spans) - spans)
        size = self.start.size * (1 + self.growth * np.sin(2 * np.pi * frame / self.period))
        angle = self.start.angle + frame * self.spin
        return replace(self.start, centre_xy=(float(x), float(y)), size=float(size), angle=angle)


def drawn_motions(rng: np.random.Generator, background: FloatArray, image_hw: HW) -> list[Motion]:
    """5 to 8 shapes in motion, the kinds as even as can be."""
    behind, motions = mean_colours(background), list[Motion]()
    for class_id in np.tile(rng.permutation(len(SHAPE_NAMES)), 2)[: rng.integers(5, 9)]:
        others = [motion.start for motion in motions]
        shape = _drawn_shape(rng, image_hw, _CLIP_SIZE_OF_SHORTER_SIDE, behind, others)
        x, y = rng.uniform(0.3 * shape.size, np.array(image_hw[::-1]) - 0.3 * shape.size)
        start = replace(shape, class_id=int(class_id), centre_xy=(float(x), float(y)))
        speed, heading = rng.uniform(0.003, 0.015) * min(image_hw), rng.uniform(0, 2 * np.pi)
        velocity_xy = (float(speed * np.cos(heading)), float(speed * np.sin(heading)))
        spin, growth, period = rng.uniform(-0.05, 0.05), rng.uniform(0, 0.25), rng.uniform(60, 200)
        motions.append(Motion(start, velocity_xy, spin, growth, period))
    return motions


def _drawn_shape(
    rng: np.random.Generator,
    image_hw: HW,
    of_shorter_side: tuple[float, float],
    behind: FloatArray,
    others: list[Shape],
) -> Shape:
    """A shape of any kind at the origin, its size log-uniform."""
    low, high = (min(image_hw) * share for share in of_shorter_side)
    low = max(low, max(image_hw) * _MIN_SIZE_OF_LONGER_SIDE)
    size = float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))
    aspect, angle = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))), float(rng.uniform(0, 2 * np.pi))
    paint = drawn_paint(rng, behind, [other.paint for other in others])
    return Shape(int(rng.integers(len(SHAPE_NAMES))), (0.0, 0.0), size, aspect, angle, paint)
