"""The pictures that every row gets, and what reading them took."""

import time
from dataclasses import dataclass
from itertools import islice

import numpy as np

from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image
from yolov3_trt.shapes import iter_shapes_clip

GENERATED = 16
_GENERATED_HW: HW = (480, 640)
_SEED = 7_000_000  # the bundled model was trained on others


@dataclass(frozen=True)
class Frames:
    """Pictures in memory, uint8 (H, W, 3) BGR."""

    names: tuple[str, ...]
    pictures: tuple[Image, ...]
    source: str
    decode_ms: float | None = None  # median, from file to picture; None where none was read


def read_frames(pictures: PictureSet, most: int) -> Frames:
    """The first pictures of a set, `most` at most.

    Raises:
        ImageError: a picture cannot be read.
    """
    names, read, seconds = list[str](), list[Image](), list[float]()
    started = time.perf_counter()
    for image in islice(pictures, most):
        seconds.append(time.perf_counter() - started)
        names.append(image.name)
        read.append(image.pixels)
        started = time.perf_counter()
    return Frames(tuple(names), tuple(read), pictures.name, float(np.median(seconds) * 1e3))


def generated_frames(most: int, image_hw: HW | None = None) -> Frames:
    """Frames of a made-up clip of shapes, the same on every machine; of the size of a graph that takes whole frames."""
    height, width = image_hw or _GENERATED_HW
    clip = iter_shapes_clip(_SEED, min(most, GENERATED), (height, width))
    pictures = tuple(frame.pixels for frame in clip)
    return Frames(
        tuple(f"frame {n}" for n in range(len(pictures))), pictures, f"generated shapes, seed {_SEED}, {width}x{height}"
    )
