"""Labelled pictures as COCO instances, the form in which accuracy is computed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.geometry import HW, FloatArray, xyxy_to_xywh


@dataclass(frozen=True, eq=False)
class TruePicture:
    """What is really in a picture."""

    file_name: str
    image_hw: HW
    xyxy: FloatArray  # (N, 4) image px
    class_ids: NDArray[np.int32]  # (N,)


def coco_instances(pictures: Iterable[TruePicture], class_names: Sequence[str]) -> dict[str, Any]:
    """The content of an annotation file: image and annotation ids count from 1, a class's category is its id plus 1.

    `area` is the box's area.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, start=1):
        height, width = picture.image_hw
        images.append({"id": image_id, "file_name": picture.file_name, "width": width, "height": height})
        for class_id, (x, y, w, h) in zip(picture.class_ids.tolist(), xyxy_to_xywh(picture.xyxy).tolist(), strict=True):
            found = {"id": len(annotations) + 1, "image_id": image_id, "category_id": class_id + 1}
            annotations.append(found | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
    categories = [{"id": class_id, "name": name} for class_id, name in enumerate(class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
