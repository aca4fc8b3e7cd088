"""Sets of pictures with labels: what is really in each picture, for training and for evaluation."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.data.coco import TruePicture
from yolov3_trt.data.pictures import FilePictures
from yolov3_trt.geometry import HW, FloatArray, cxcywh_to_xyxy


@dataclass(frozen=True, eq=False)
class LabelledFile:
    """A picture and the objects in it, as training takes them."""

    path: Path  # of the picture
    image_hw: HW  # image px, upright
    cxcywh: FloatArray  # (N, 4) relative to the picture, 0..1
    class_ids: NDArray[np.int32]  # (N,)

    def in_pixels(self, file_name: str) -> TruePicture:
        """The same with corners in px."""
        height, width = self.image_hw
        xyxy = cxcywh_to_xyxy(self.cxcywh) * np.array((width, height, width, height), np.float32)
        return TruePicture(file_name, self.image_hw, xyxy, self.class_ids)


class LabelledSet(FilePictures):
    """Pictures with labels: a `PictureSet` that also knows what is in each.

    Attributes:
        path: of the file that describes it.
        class_names: in the order of its own class ids.
        notes: what is odd about it but allowed, one line each.
    """

    def __init__(
        self, name: str, path: Path, pictures: Sequence[Path], class_names: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        super().__init__(name, pictures)
        self.path, self.class_names, self.notes = path, tuple(class_names), tuple(notes)

    @abstractmethod
    def truth_for(self, class_names: Sequence[str]) -> Annotations:
        """The labels with the class ids of a model that has these classes.

        Raises:
            EvaluationError: the classes of the two do not go together.
        """
