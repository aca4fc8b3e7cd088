"""What published weights make of a picture that comes with the package: what `certify` compares with.

The picture is Darknet's data/dog.jpg (public domain), 192x144 px in 128 colours: PNG, so that every decoder gives the same
pixels, and smaller than any input, so that the way it is resized shows. The figures are those of the PyTorch reference, whose
heads the tests hold to Darknet's own for these weights.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.geometry import HW, FloatArray
from yolov3_trt.models.class_names import COCO_NAMES

# The whole of Darknet's dog.jpg, by the SHA-256 of the file: certify knows it where someone has it.
DOG_SHA256 = "5a9522051c3cec2bbd2f6323fccba32e8fbf3ddcc2b3e2fd46b04c720bc6f866"


@dataclass(frozen=True)
class Golden:
    """Of one model, at its own input size.

    Attributes:
        input_hw: px.
        heads: by name: positions in the flat (A * F, H, W) head, and the values there.
        found: in the small picture, conf .25 and iou .45.
        printout: what Darknet's makers printed of dog.jpg: class, score in whole percent.
    """

    input_hw: HW
    heads: Mapping[str, tuple[list[int], FloatArray]]
    found: Detections
    printout: tuple[tuple[str, int], ...]


def small_picture() -> Path:
    """The picture that comes with the package."""
    return Path(__file__).with_name("dog.png")


@cache
def goldens() -> dict[str, Golden]:
    """By the name of the model."""
    content = json.loads(Path(__file__).with_name("goldens.json").read_text())
    return {name: _golden(entry) for name, entry in content.items()}


def _golden(entry: dict[str, Any]) -> Golden:
    rows = np.array(entry["found"], np.float32)  # class, score, x1, y1, x2, y2
    found = Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(np.int32), COCO_NAMES)
    heads = {name: ([int(i) for i in index], np.array(values, np.float32)) for name, index, values in entry["heads"]}
    height, width = entry["input_hw"]
    return Golden((height, width), heads, found, tuple(map(tuple, entry["printout"])))
