"""Average precision by pycocotools, as a whole, by class, and with what a bootstrap needs."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.errors import EvaluationError, require
from yolov3_trt.evaluation.bootstrap import ClassMatches
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
class Scores:
    """What COCO's evaluation says of some detections."""

    metrics: Mapping[str, float | None]  # METRICS, as fractions; None where COCO defines none
    per_class: tuple[ClassScore, ...]
    matches: tuple[ClassMatches, ...]  # by class


def coco_results(image_id: int, detections: Detections, category_ids: Sequence[int | None]) -> list[dict[str, Any]]:
    """Detections of one image in COCO's result format; those of classes without a category are left out.

    Raises:
        EvaluationError: a score or a box is not a finite number: such a box would match any object.
    """
    if not (np.isfinite(detections.scores).all() and np.isfinite(detections.xyxy).all()):
        raise EvaluationError(
            f"image {image_id}: a detection whose score or box is not a finite number; expected numbers: the artifact is "
            "damaged, or overflows in its precision"
        )
    boxes = xyxy_to_xywh(detections.xyxy).astype(float).tolist()
    rows = zip(boxes, detections.scores.tolist(), detections.class_ids.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[class_id], "bbox": xywh, "score": score}
        for xywh, score, class_id in rows
        if category_ids[class_id] is not None
    ]


def average_precision(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """METRICS of COCO results against COCO annotations; 100 detections an image count."""
    return dict(score(content, results).metrics)


def score(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Scores:
    """COCO's evaluation of COCO results against COCO annotations; 100 detections an image count."""
    evaluation = _evaluated(content, results)
    stats = np.asarray(evaluation.stats[: len(METRICS)], float)
    metrics = {metric: _defined(value) for metric, value in zip(METRICS, stats, strict=True)}
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    matches = tuple(_matches(evaluation, index) for index in range(len(evaluation.params.catIds)))
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (T, R, K): all sizes, 100 detections an image
    per_class = tuple(
        ClassScore(
            names[category_id],
            int(matches[index].objects.sum()),
            _defined(precision[:, :, index].mean()),
            _defined(precision[0, :, index].mean()),
        )
        for index, category_id in enumerate(evaluation.params.catIds)
    )
    return Scores(metrics, per_class, matches)


def _evaluated(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Any:
    """A COCOeval that has done its work."""
    coco_module = require("pycocotools.coco", extra="eval")
    cocoeval = require("pycocotools.cocoeval", extra="eval")
    rows = [row["bbox"] for row in content["annotations"]]
    if not np.isfinite(np.array(rows, np.float64)).all():  # a box of NaN would match any other
        raise EvaluationError("annotations with a box that is not of finite numbers; expected px")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = coco_module.COCO()
        # loadRes wants `info`. iscrowd and id are optional in the files of many tools; ids that repeat, or a 0, would be
        # miscounted without a word.
        annotations = [
            {"iscrowd": 0, **row, "id": number} for number, row in enumerate(content["annotations"], start=1)
        ]
        truth.dataset = {"info": {}, **content, "annotations": annotations}
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, _loaded(truth, results, coco_module), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _loaded(truth: Any, results: Sequence[Mapping[str, Any]], coco_module: Any) -> Any:
    """Results as pycocotools wants them; its own loadRes fails where there are none, and writes into what it gets."""
    if results:
        return truth.loadRes([dict(row) for row in results])
    found = coco_module.COCO()
    found.dataset = {**truth.dataset, "annotations": []}
    found.createIndex()
    return found


def _matches(evaluation: Any, index: int) -> ClassMatches:
    """What `evaluate` of pycocotools noted of one class in all images, whatever the size of objects."""
    params = evaluation.params
    num_images, thresholds = len(params.imgIds), len(params.iouThrs)
    start = index * len(params.areaRng) * num_images
    notes = evaluation.evalImgs[start : start + num_images]
    objects = np.array([0 if note is None else np.count_nonzero(note["gtIgnore"] == 0) for note in notes], np.int64)
    there = [(number, note) for number, note in enumerate(notes) if note is not None and len(note["dtScores"])]
    if not there:
        nothing = np.zeros((thresholds, 0), bool)
        return ClassMatches(np.zeros(0, np.int64), nothing, nothing, objects)
    best_first = np.argsort(-np.concatenate([note["dtScores"] for _, note in there]), kind="mergesort")
    image = np.concatenate([np.full(len(note["dtScores"]), number) for number, note in there])
    hit = np.concatenate([note["dtMatches"] for _, note in there], axis=1) > 0
    ignored = np.concatenate([note["dtIgnore"] for _, note in there], axis=1).astype(bool)
    return ClassMatches(image[best_first], hit[:, best_first], ignored[:, best_first], objects)


def _defined(value: float) -> float | None:
    """None for the -1 that stands for no objects."""
    return None if value < 0 else float(value)
