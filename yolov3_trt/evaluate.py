"""COCO average precision of a detector, by pycocotools."""

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.coco import TruePicture, coco_instances
from yolov3_trt.detections import Detections
from yolov3_trt.errors import EvaluationError, require
from yolov3_trt.geometry import xyxy_to_xywh
from yolov3_trt.images import load_image
from yolov3_trt.preprocess import Image

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
# Darknet's detector map and valid use it; COCO's metrics want the weak detections too.
EVAL_CONF_THRESHOLD = 0.005


@dataclass(frozen=True)
class Annotations:
    """A COCO annotation file, read and checked."""

    path: Path
    content: Mapping[str, Any]
    category_ids: tuple[int, ...]  # by class id of the model

    @property
    def images(self) -> Sequence[Mapping[str, Any]]:
        """Each has `id` and `file_name`."""
        images: Sequence[Mapping[str, Any]] = self.content["images"]
        return images


def load_annotations(path: Path, class_names: Sequence[str]) -> Annotations:
    """Read COCO instances and match their categories with a model's classes: by name, else by order.

    By order means that the file has as many categories as the model has classes; COCO's own ids, 1 to 90 with gaps, go with
    Darknet's names that way, some of which are spelt differently.

    Raises:
        EvaluationError: not such a file, or its categories do not go with the classes.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as exc:
        raise EvaluationError(f"{path}: cannot be read ({exc.strerror}); expected COCO annotations (JSON)") from exc
    except (ValueError, RecursionError) as exc:
        raise EvaluationError(f"{path}: not JSON ({exc}); expected COCO annotations") from exc
    try:
        names = {category["name"]: int(category["id"]) for category in content["categories"]}
        by_id = [int(category["id"]) for category in sorted(content["categories"], key=lambda category: category["id"])]
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
    return Annotations(path, content, category_ids)


def evaluate(
    detect: Callable[[Image], Detections],
    annotations: Annotations,
    images_dir: Path,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """Average precision over all images of an annotation file.

    Args:
        detect: a picture to its detections, at a low confidence threshold (`EVAL_CONF_THRESHOLD`).
        annotations: from `load_annotations`.
        images_dir: where its `file_name`s are.
        progress: wraps the iteration over the images.

    Returns:
        `images`, their number, and METRICS as fractions; None where COCO defines none (no object of that size).

    Raises:
        EvaluationError: images are missing.
        ImageError: one cannot be read.
    """
    paths = {image["id"]: images_dir / image["file_name"] for image in annotations.images}
    if missing := [path for path in paths.values() if not path.is_file()]:
        raise EvaluationError(
            f"{images_dir}: {len(missing)} of the {len(paths)} images of {annotations.path.name} are not there, e.g. "
            f"{missing[0].name}; give their folder with --images"
        )
    results = []
    for image_id, path in progress(paths.items()):
        results += coco_results(image_id, detect(load_image(path)), annotations.category_ids)
    return {"images": len(paths), **average_precision(annotations.content, results)}


def evaluate_labelled(
    detect: Callable[[Image], Detections], labelled: Iterable[tuple[Image, TruePicture]], class_names: Sequence[str]
) -> dict[str, Any]:
    """`evaluate` for pictures in memory, one at a time, with what is in them; class ids are the model's."""
    results: list[dict[str, Any]] = []
    truths: list[TruePicture] = []
    category_ids = range(1, len(class_names) + 1)
    for image_id, (pixels, truth) in enumerate(labelled, start=1):
        results += coco_results(image_id, detect(pixels), category_ids)
        truths.append(truth)
    return {"images": len(truths), **average_precision(coco_instances(truths, class_names), results)}


def coco_results(image_id: int, detections: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections of one image in COCO's result format."""
    boxes = xyxy_to_xywh(detections.xyxy).astype(float).tolist()
    rows = zip(boxes, detections.scores.tolist(), detections.class_ids.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[class_id], "bbox": xywh, "score": score}
        for xywh, score, class_id in rows
    ]


def average_precision(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """METRICS of COCO results against COCO annotations; 100 detections an image count."""
    coco_module = require("pycocotools.coco", extra="eval")
    cocoeval = require("pycocotools.cocoeval", extra="eval")
    if not results:
        return {metric: 0.0 for metric in METRICS}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = coco_module.COCO()
        # loadRes wants `info`. iscrowd and id are optional in the files of many tools; ids that repeat, or a 0, would be
        # miscounted without a word.
        annotations = [
            {"iscrowd": 0, **row, "id": number} for number, row in enumerate(content["annotations"], start=1)
        ]
        truth.dataset = {"info": {}, **content, "annotations": annotations}
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(list(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.asarray(evaluation.stats[: len(METRICS)], float)
    return {metric: None if value < 0 else float(value) for metric, value in zip(METRICS, stats, strict=True)}
