"""COCO annotations, read and checked, and what they are to one model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.errors import EvaluationError


@dataclass(frozen=True)
class Annotations:
    """What is in the pictures of a set, with the class ids of one model.

    Attributes:
        path: of the file that says so.
        content: COCO instances.
        category_ids: by class id of the model.
        class_names: of the model.
        paths: image id -> its file.
        own_ids: whether the image ids are the file's own; else they just count.
    """

    path: Path
    content: Mapping[str, Any]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    paths: Mapping[Any, Path] = field(default_factory=dict)
    own_ids: bool = True

    @property
    def images(self) -> Sequence[Mapping[str, Any]]:
        """Each has `id` and `file_name`."""
        images: Sequence[Mapping[str, Any]] = self.content["images"]
        return images

    def truth(self, image_id: Any) -> Detections:
        """The objects of an image that count, with scores of 1; crowds are left out."""
        rows = [row for row in self._by_image.get(image_id, ()) if not row.get("iscrowd")]
        if not rows:
            return Detections.none(self.class_names)
        xyxy = np.array([[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)], np.float32)
        class_ids = np.array([self._class_ids[row["category_id"]] for row in rows], np.int32)
        return Detections(xyxy, np.ones(len(rows), np.float32), class_ids, self.class_names)

    def crowd_classes(self, image_id: Any) -> frozenset[int]:
        """Class ids of which an image has a crowd, an area where objects are not told apart."""
        rows = self._by_image.get(image_id, ())
        return frozenset(self._class_ids[row["category_id"]] for row in rows if row.get("iscrowd"))

    @cached_property
    def _class_ids(self) -> dict[int, int]:
        return {category_id: class_id for class_id, category_id in enumerate(self.category_ids)}

    @cached_property
    def _by_image(self) -> dict[Any, list[Mapping[str, Any]]]:
        """Annotations of the model's classes."""
        found: dict[Any, list[Mapping[str, Any]]] = {}
        for row in self.content["annotations"]:
            if row["category_id"] in self._class_ids:
                found.setdefault(row["image_id"], []).append(row)
        return found


def load_annotations(path: Path, class_names: Sequence[str]) -> Annotations:
    """COCO instances without their images, to score detections that are there already; else see `data.labelled_set`.

    Raises:
        EvaluationError: not such a file, or its categories do not go with the classes.
    """
    return annotations_for(path, read_instances(path), class_names)


def annotations_for(
    path: Path,
    content: Mapping[str, Any],
    class_names: Sequence[str],
    paths: Mapping[Any, Path] | None = None,
    *,
    own_ids: bool = True,
) -> Annotations:
    """Match the categories of COCO instances with a model's classes: by name, else by order.

    By order means that the file has as many categories as the model has classes; COCO's own ids, 1 to 90 with gaps, go with
    Darknet's names that way, some of which are spelt differently.

    Raises:
        EvaluationError: the categories do not go with the classes.
    """
    names = {category["name"]: int(category["id"]) for category in content["categories"]}
    by_id = sorted(int(category["id"]) for category in content["categories"])
    if all(name in names for name in class_names):
        category_ids = tuple(names[name] for name in class_names)
    elif len(by_id) == len(class_names):
        category_ids = tuple(by_id)
    else:
        missing = next(name for name in class_names if name not in names)
        raise EvaluationError(
            f"{path}: {len(by_id)} categories, none called {missing!r}; expected the model's {len(class_names)} classes, by "
            "name or in order"
        )
    return Annotations(path, content, category_ids, tuple(class_names), paths or {}, own_ids)


def read_instances(path: Path) -> Mapping[str, Any]:
    """The checked content of a COCO JSON.

    Raises:
        EvaluationError: not such a file.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as exc:
        raise EvaluationError(f"{path}: cannot be read ({exc.strerror}); expected COCO annotations (JSON)") from exc
    except (ValueError, RecursionError) as exc:
        raise EvaluationError(f"{path}: not JSON ({exc}); expected COCO annotations") from exc
    try:
        for category in content["categories"]:
            _ = (hash(category["name"]), int(category["id"]), category["id"] < 0)  # as they are compared later
        for image in content["images"]:
            _ = (int(image["id"]), str(image["file_name"]))
        for annotation in content["annotations"]:
            _ = (annotation["image_id"], annotation["category_id"], float(annotation["area"]))
            _x, _y, _w, _h = map(float, annotation["bbox"])
    except KeyError as exc:
        raise EvaluationError(f"{path}: {exc} is missing; expected COCO annotations") from exc
    except (TypeError, ValueError) as exc:
        raise EvaluationError(f"{path}: {exc}; expected COCO annotations") from exc
    if not content["images"]:
        raise EvaluationError(f"{path}: there are no images; expected one or more")
    return dict(content)
