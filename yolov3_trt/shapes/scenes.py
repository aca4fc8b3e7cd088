"""Whole pictures and clips, with the labels of what is visible."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.geometry import HW, FloatArray
from yolov3_trt.preprocess import Image
from yolov3_trt.shapes.backgrounds import drawn_background
from yolov3_trt.shapes.drawing import Shape
from yolov3_trt.shapes.look import Look
from yolov3_trt.shapes.placement import MIN_VISIBLE, drawn_motions, placed_shapes

PICTURE_SIZES_HW: tuple[HW, ...] = ((256, 256), (240, 320), (320, 240), (216, 384))


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """A picture and what is on it, the rearmost shape first.

    Attributes:
        pixels: uint8 (H, W, 3) BGR.
        xyxy: (N, 4) float32 in image px, tight around the visible part of each shape; the right and lower edge are
            exclusive, so a single pixel at the origin is (0, 0, 1, 1).
        class_ids: (N,) int32, indices in `SHAPE_NAMES`.
        track_ids: (N,) int32, from 1: in a clip each shape keeps its own, also while it is hidden.
    """

    pixels: Image
    xyxy: FloatArray
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int32]


def shapes_picture(seed: int, index: int, image_hw: HW | None = None) -> LabelledPicture:
    """Draw a picture of 0 to 8 shapes, of each of which `MIN_VISIBLE` is to be seen at least.

    Args:
        seed: of the set, 0 or more.
        index: of the picture in the set, 0 or more.
        image_hw: its size in px, at least 64 each; one of `PICTURE_SIZES_HW` by chance when it is None.
    """
    rng = np.random.default_rng((seed, index))
    drawn_hw = PICTURE_SIZES_HW[rng.integers(len(PICTURE_SIZES_HW))]
    background = drawn_background(rng, image_hw or drawn_hw)
    count = 0 if rng.random() < 1 / 30 else int(rng.integers(1, 9))
    return render(placed_shapes(rng, background, count), background, Look.drawn(rng), rng)


def iter_shapes_clip(seed: int, num_frames: int, image_hw: HW = (480, 640)) -> Iterator[LabelledPicture]:
    """Draw the frames of a clip in which 5 to 8 shapes move before a background that is fixed or slowly panning.

    They pass in front of each other; a shape has no label while less than `MIN_VISIBLE` of it is.

    Args:
        seed: of the clip, 0 or more.
        num_frames: how many; a longer clip begins like a shorter one.
        image_hw: size of each frame in px, at least 64 each.
    """
    rng = np.random.default_rng((seed, 0, 1))  # no picture's: those have two numbers
    reach = int(rng.integers(1, min(image_hw) // 8)) if rng.random() < 0.5 else 0
    background = drawn_background(rng, (image_hw[0] + 2 * reach, image_hw[1] + 2 * reach))
    motions = drawn_motions(rng, background, image_hw)
    look, (period_y, period_x) = Look.drawn(rng), rng.uniform(200, 500, 2)
    for frame in range(num_frames):
        top = reach + round(reach * np.sin(2 * np.pi * frame / period_y))
        left = reach + round(reach * np.sin(2 * np.pi * frame / period_x))
        behind = background[:, top : top + image_hw[0], left : left + image_hw[1]]
        yield render([motion.at(frame, image_hw) for motion in motions], behind, look, rng)


def render(shapes: list[Shape], background: FloatArray, look: Look, rng: np.random.Generator) -> LabelledPicture:
    """Draw shapes, the rearmost first, on a background (3, H, W); the noise comes from `rng`."""
    image_hw: HW = (background.shape[1], background.shape[2])
    scene, labels = background.copy(), np.zeros(image_hw, np.uint8)
    for label, shape in enumerate(shapes, start=1):
        shape.draw(scene, labels, label)
    boxes, class_ids, track_ids = [], [], []
    for label, shape in enumerate(shapes, start=1):
        (rows, columns), _ = shape.window(image_hw)
        visible = labels[rows, columns] == label
        if np.count_nonzero(visible) >= max(1, MIN_VISIBLE * np.count_nonzero(shape.solid)):
            xs, ys = np.flatnonzero(visible.any(axis=0)), np.flatnonzero(visible.any(axis=1))
            left, top = columns.start, rows.start
            boxes.append((left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1))
            class_ids.append(shape.class_id)
            track_ids.append(label)
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return LabelledPicture(look.apply(scene, rng), xyxy, np.array(class_ids, np.int32), np.array(track_ids, np.int32))
