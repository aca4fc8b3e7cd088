"""What is in the pictures of a set and what was found there, in columns: a row per box, whatever its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.detections import Detections
from yolov3_trt.errors import EvaluationError
from yolov3_trt.geometry import xyxy_to_xywh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Index:
    """Places of pictures and of classes in the columns: both in the order of their ids."""

    images: Mapping[Any, int]
    classes: Mapping[Any, int]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Index":
        """Of COCO instances."""
        ids = (sorted(row["id"] for row in content[kind]) for kind in ("images", "categories"))
        return cls(*({one: place for place, one in enumerate(kind)} for kind in ids))


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a set."""

    image: Ints  # (G,) place of the picture
    class_id: Ints  # (G,) place of the class
    xywh: Floats  # (G, 4) px
    area: Floats  # (G,) px², as annotated: of a mask where there is one
    crowd: Bools  # (G,) an area where objects are not told apart


@dataclass(frozen=True, eq=False)
class Found:
    """All detections, those of a picture in the order in which they were given."""

    image: Ints  # (D,)
    class_id: Ints  # (D,)
    xywh: Floats  # (D, 4) px
    scores: Floats  # (D,)

    def __getitem__(self, rows: Ints | Bools) -> "Found":
        """Some of them, in this order."""
        return Found(self.image[rows], self.class_id[rows], self.xywh[rows], self.scores[rows])


def objects_of(content: Mapping[str, Any], index: Index) -> Objects:
    """Of COCO instances.

    Raises:
        EvaluationError: a box is not of finite numbers.
    """
    rows = content["annotations"]
    xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    if not np.isfinite(xywh).all():
        raise EvaluationError("annotations with a box that is not of finite numbers; expected px")
    return Objects(
        np.array([index.images[row["image_id"]] for row in rows], np.int64),
        np.array([index.classes[row["category_id"]] for row in rows], np.int64),
        xywh,
        np.array([row["area"] for row in rows], np.float64),
        np.array([bool(row.get("iscrowd")) for row in rows], np.bool_),
    )


def found_in(results: Sequence[Mapping[str, Any]], index: Index) -> Found:
    """Of COCO results; those of other classes are left out."""
    rows = [row for row in results if row["category_id"] in index.classes]
    return Found(
        np.array([index.images[row["image_id"]] for row in rows], np.int64),
        np.array([index.classes[row["category_id"]] for row in rows], np.int64),
        np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        np.array([row["score"] for row in rows], np.float64),
    )


def found_by(detections: Mapping[Any, Detections], category_ids: Sequence[int | None], index: Index) -> Found:
    """Of detections by image id; those of classes without a category are left out.

    Raises:
        EvaluationError: see `check_finite`.
    """
    for image_id, found in detections.items():
        check_finite(image_id, found)
    place = np.array([index.classes.get(one, -1) for one in category_ids], np.int64)
    parts: list[tuple[Ints, Ints, Floats, Floats]] = [
        (
            np.full(len(found), index.images[image_id]),
            place[found.class_ids] if len(found) else np.zeros(0, np.int64),
            xyxy_to_xywh(found.xyxy).astype(np.float64).reshape(-1, 4),
            found.scores.astype(np.float64),
        )
        for image_id, found in detections.items()
    ]
    if not parts:
        return found_in([], index)
    image, class_id, xywh, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    known = class_id >= 0
    return Found(image[known], class_id[known], xywh[known], scores[known])


def check_finite(image_id: Any, found: Detections) -> None:
    """Refuse what would match any object.

    Raises:
        EvaluationError: a score or a box is not a finite number.
    """
    if not (np.isfinite(found.scores).all() and np.isfinite(found.xyxy).all()):
        raise EvaluationError(
            f"image {image_id}: a detection whose score or box is not a finite number; expected numbers: the artifact is "
            "damaged, or overflows in its precision"
        )


def pairs_of(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Each row with each of a run of others, given by where its run starts and how long it is: (row, other) of all pairs."""
    row = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return row, np.arange(len(row)) - first[row] + starts[row]


def iou_of_pairs(found: Floats, objects: Floats, crowd: Bools) -> Floats:
    """Of boxes (P, 4) xywh with as many others: (P,); of a crowd the share of the first box that lies in it.

    The sums are those of COCO's evaluation, in its order, so that results are equal to the last digit.
    """
    low = np.maximum(found[:, :2], objects[:, :2])
    high = np.minimum(found[:, 2:] + found[:, :2], objects[:, 2:] + objects[:, :2])
    side = high - low
    shared = np.where((side > 0).all(axis=1), side[:, 0] * side[:, 1], 0.0)
    area, other = found[:, 2] * found[:, 3], objects[:, 2] * objects[:, 3]
    union = np.where(crowd, area, area + other - shared)
    result: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return result
