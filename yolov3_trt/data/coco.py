"""Labelled pictures in memory as COCO instances, the form in which accuracy is computed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.labelled import LabelledFile, instances
from yolov3_trt.geometry import HW, FloatArray, xyxy_to_xywh


@dataclass(frozen=True, eq=False)
class TruePicture:
    """What is really in a picture."""

    file_name: str
    image_hw: HW
    xyxy: FloatArray  # (N, 4) image px
    class_ids: NDArray[np.int32]  # (N,)

    def as_file(self) -> LabelledFile:
        """The same with its boxes as files have them."""
        xywh = np.asarray(xyxy_to_xywh(self.xyxy), np.float64)
        return LabelledFile(Path(self.file_name), self.image_hw, xywh, self.class_ids, name=self.file_name)


def coco_instances(pictures: Iterable[TruePicture], class_names: Sequence[str]) -> dict[str, Any]:
    """The content of an annotation file: image and annotation ids count from 1, a class's category is its id plus 1.

    `area` is the box's area.
    """
    return instances([picture.as_file() for picture in pictures], class_names)
