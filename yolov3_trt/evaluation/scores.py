"""Average precision as a whole, by class, and with what a bootstrap needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.evaluation.bootstrap import ClassMatches
from yolov3_trt.evaluation.coco import evaluate_class
from yolov3_trt.evaluation.columns import Floats, Found, Index, Ints, Objects, check_finite, found_in, objects_of
from yolov3_trt.geometry import xyxy_to_xywh

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


@dataclass(frozen=True)
class ClassScore:
    """One class; AP is None where the images hold no object of it."""

    class_name: str
    objects: int
    AP: float | None
    AP50: float | None


@dataclass(frozen=True, eq=False)
class Pairs:
    """Objects and detections of a set, and which stand for the same at an IoU of 0.5."""

    objects: Objects
    found: Found  # those that count, by class and there best first
    taken: Ints  # (D,) the object of each detection, or -1


@dataclass(frozen=True, eq=False)
class Scores:
    """What COCO's evaluation says of some detections."""

    metrics: Mapping[str, float | None]  # METRICS, as fractions; None where COCO defines none
    per_class: tuple[ClassScore, ...]
    matches: tuple[ClassMatches, ...]  # by class
    pairs: Pairs
    precision: Floats  # (T, 101, K) at COCO's IoUs and recalls, of each class; -1 for one without objects


def coco_results(image_id: int, detections: Detections, category_ids: Sequence[int | None]) -> list[dict[str, Any]]:
    """Detections of one image in COCO's result format; those of classes without a category are left out.

    Raises:
        EvaluationError: see `check_finite`.
    """
    check_finite(image_id, detections)
    boxes = xyxy_to_xywh(detections.xyxy).astype(float).tolist()
    rows = zip(boxes, detections.scores.tolist(), detections.class_ids.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[class_id], "bbox": xywh, "score": score}
        for xywh, score, class_id in rows
        if category_ids[class_id] is not None
    ]


def average_precision(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """METRICS of COCO results against COCO annotations."""
    return dict(score(content, results).metrics)


def score(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Scores:
    """COCO's evaluation of COCO results against COCO annotations."""
    index = Index.of(content)
    return scored(content, index, found_in(results, index))


def scored(content: Mapping[str, Any], index: Index, found: Found) -> Scores:
    """COCO's evaluation; 100 detections of a class count in a picture.

    Raises:
        EvaluationError: a box of the annotations is not of finite numbers.
    """
    objects = objects_of(content, index)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    classes = [
        (names[category_id], evaluate_class(objects, found, place, len(index.images)))
        for category_id, place in index.classes.items()
    ]
    precision = np.stack([result.precision for _, result in classes], axis=2)  # (T, R, K, A)
    per_class = tuple(
        ClassScore(
            name,
            int(result.matches.objects.sum()),
            _mean(result.precision[..., 0]),
            _mean(result.precision[0, :, 0]),
        )
        for name, result in classes
    )
    parts = (precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., n] for n in (1, 2, 3)))
    metrics = {metric: _mean(part) for metric, part in zip(METRICS, parts, strict=True)}
    rows, taken = (np.concatenate([getattr(result, name) for _, result in classes]) for name in ("rows", "taken"))
    pairs = Pairs(objects, found[rows], taken)
    return Scores(metrics, per_class, tuple(result.matches for _, result in classes), pairs, precision[..., 0])


def _mean(precision: Floats) -> float | None:
    """Over all that is defined; -1 stands for no objects."""
    defined = precision[precision > -1]
    return float(np.mean(defined)) if defined.size else None
