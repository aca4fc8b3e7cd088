"""The camera frames of the suite: the same pictures wherever they are needed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acceptance.cases import SIMULATED
from yolov3_trt.files import replacing
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image
from yolov3_trt.shapes import iter_shapes_clip

FRAME_HW: HW = (135, 240) if SIMULATED else (1080, 1920)  # the simulation is slow
NUM_EXPECTED = 2  # of the frames, for which ONNX Runtime computes the heads
_NUM_FRAMES = 4
_SEED = 7_000_001


def clip(count: int, image_hw: HW) -> list[Image]:
    """Consecutive frames of a made-up clip."""
    return [frame.pixels for frame in iter_shapes_clip(_SEED, count, image_hw)]


def suite_frames(work: Path) -> NDArray[np.uint8]:
    """(4, *FRAME_HW, 3), kept in the work folder: another OpenCV could draw them a little otherwise."""
    path = work / "frames.npy"
    if not path.exists():
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, np.stack(clip(_NUM_FRAMES, FRAME_HW)))
    frames: NDArray[np.uint8] = np.load(path)
    return frames
