"""What is in the pictures of a set, to one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.detections import Detections


@dataclass(frozen=True)
class Annotations:
    """What is in the pictures of a set, with the class ids of one model.

    Attributes:
        path: of what describes the set.
        content: COCO instances, of the classes that both have; image ids count from 1 in the order of the pictures.
        category_ids: by class id of the model; None for a class that the set does not have: it is not scored.
        class_names: of the model.
        paths: image id -> its file.
        notes: how the classes were matched, where that is to be known, and what was left out.
    """

    path: Path
    content: Mapping[str, Any]
    category_ids: tuple[int | None, ...]
    class_names: tuple[str, ...] = ()
    paths: Mapping[int, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> Sequence[Mapping[str, Any]]:
        """Each has `id`, `file_name`, `width`, `height`, and `own_id` where its file has one."""
        images: Sequence[Mapping[str, Any]] = self.content["images"]
        return images

    def truth(self, image_id: Any) -> Detections:
        """The objects of an image that count, with scores of 1; crowds are left out."""
        rows = [row for row in self._by_image.get(image_id, ()) if not row["iscrowd"]]
        if not rows:
            return Detections.none(self.class_names)
        xyxy = np.array([[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)], np.float32)
        class_ids = np.array([self._class_ids[row["category_id"]] for row in rows], np.int32)
        return Detections(xyxy, np.ones(len(rows), np.float32), class_ids, self.class_names)

    def crowd_classes(self, image_id: Any) -> frozenset[int]:
        """Class ids of which an image has a crowd, an area where objects are not told apart."""
        rows = self._by_image.get(image_id, ())
        return frozenset(self._class_ids[row["category_id"]] for row in rows if row["iscrowd"])

    @cached_property
    def scored_classes(self) -> frozenset[int]:
        """Class ids of the model that the set has."""
        return frozenset(self._class_ids.values())

    @cached_property
    def _class_ids(self) -> dict[int, int]:
        return {number: class_id for class_id, number in enumerate(self.category_ids) if number is not None}

    @cached_property
    def _by_image(self) -> dict[int, list[Mapping[str, Any]]]:
        found: dict[int, list[Mapping[str, Any]]] = {}
        for row in self.content["annotations"]:
            found.setdefault(row["image_id"], []).append(row)
        return found
