"""COCO average precision of a detector."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.data.coco import TruePicture, coco_instances
from yolov3_trt.data.images import load_image
from yolov3_trt.detections import Detections
from yolov3_trt.evaluation.columns import Index, found_by
from yolov3_trt.evaluation.scores import METRICS, ClassScore, Scores, average_precision, coco_results, score, scored
from yolov3_trt.preprocess import Image

__all__ = [
    "EVAL_CONF_THRESHOLD",
    "METRICS",
    "ClassScore",
    "Scores",
    "average_precision",
    "coco_results",
    "detect_all",
    "evaluate",
    "evaluate_labelled",
    "score",
    "score_detections",
    "score_labelled",
]

# Darknet's detector map and valid use it; COCO's metrics want the weak detections too.
EVAL_CONF_THRESHOLD = 0.005


def evaluate(
    detect: Callable[[Image], Detections],
    annotations: Annotations,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """Average precision over all pictures of a labelled set.

    Args:
        detect: a picture to its detections, at a low confidence threshold (`EVAL_CONF_THRESHOLD`).
        annotations: of a set for this model: `data.labelled_set(...).truth_for(class_names)`.
        progress: wraps the iteration over the images.

    Returns:
        `images`, their number, and METRICS as fractions; None where COCO defines none (no object of that size).

    Raises:
        ImageError: a picture cannot be read.
    """
    found = detect_all(detect, annotations, progress)
    return {"images": len(found), **score_detections(annotations, found).metrics}


def detect_all(
    detect: Callable[[Image], Detections],
    annotations: Annotations,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[Any, Detections]:
    """Image id -> what is found in it; see `evaluate`."""
    return {image_id: detect(load_image(path)) for image_id, path in progress(annotations.paths.items())}


def score_detections(annotations: Annotations, found: Mapping[Any, Detections]) -> Scores:
    """COCO's evaluation of the detections of all images."""
    index = Index.of(annotations.content)
    return scored(annotations.content, index, found_by(found, annotations.category_ids, index))


def evaluate_labelled(
    detect: Callable[[Image], Detections], labelled: Iterable[tuple[Image, TruePicture]], class_names: Sequence[str]
) -> dict[str, Any]:
    """`evaluate` for pictures in memory, one at a time, with what is in them; class ids are the model's."""
    count, scores = score_labelled(detect, labelled, class_names)
    return {"images": count, **scores.metrics}


def score_labelled(
    detect: Callable[[Image], Detections], labelled: Iterable[tuple[Image, TruePicture]], class_names: Sequence[str]
) -> tuple[int, Scores]:
    """How many pictures there are, and all that COCO's evaluation says of them; see `evaluate_labelled`."""
    results: list[dict[str, Any]] = []
    truths: list[TruePicture] = []
    category_ids = range(1, len(class_names) + 1)
    for image_id, (pixels, truth) in enumerate(labelled, start=1):
        results += coco_results(image_id, detect(pixels), category_ids)
        truths.append(truth)
    return len(truths), score(coco_instances(truths, class_names), results)
