"""What INT8 costs on pictures that nothing was chosen on, as a certificate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.certificate import Certificate
from yolov3_trt.detections import Detections
from yolov3_trt.errors import EvaluationError
from yolov3_trt.evaluation.bootstrap import draw_images, interval, resampled_ap
from yolov3_trt.evaluation.columns import Index, found_by
from yolov3_trt.evaluation.scores import Scores, scored
from yolov3_trt.geometry import xyxy_to_xywh

DRAWS = 1000
# Draws of few pictures spread too little to the side of larger drops: of simulated sets of 100 pictures the upper end of the
# middle 95 % was passed by the true drop in 8 of 100, that of the middle 99 % in 3. A claim "with 95 %" rests on the latter.
SPREAD = 0.99
CERTAIN = 0.25  # the score from which on what FP32 finds counts as the truth


def certificate(
    fp32: Scores,
    int8: Scores,
    max_ap_drop: float,
    num_images: int,
    *,
    images_sha256: str | None = None,
    agreement: Scores | None = None,
    seed: int = 0,
) -> Certificate:
    """The certificate of an INT8 graph.

    Args:
        fp32: of the FP32 graph on labelled pictures.
        int8: of the INT8 one on the same, in the same order.
        max_ap_drop: the limit of the drop, 0..1.
        num_images: how many pictures these are.
        images_sha256: of those pictures.
        agreement: of INT8 against what FP32 finds; see `agreement_scores`.
        seed: of the draws of the bootstrap.

    Raises:
        EvaluationError: there is no object in the pictures, so there is no AP.
    """
    draws = draw_images(num_images, DRAWS, seed)
    low_high = interval((resampled_ap(fp32.matches, draws) - resampled_ap(int8.matches, draws))[:, 0], SPREAD)
    reference, other = fp32.metrics["AP"], int8.metrics["AP"]
    if reference is None or other is None or low_high is None:
        raise EvaluationError("no object is in the pictures of the proof; expected some of each class")
    agreed, agreed_interval = (None, None) if agreement is None else with_interval(agreement, draws)
    return Certificate(max_ap_drop, reference - other, low_high, num_images, images_sha256, agreed, agreed_interval)


def with_interval(
    scores: Scores, draws: NDArray[np.int64]
) -> tuple[float, tuple[float, float] | None] | tuple[None, None]:
    """AP and its 95 % interval over draws of the images; None where there are no objects."""
    ap = scores.metrics["AP"]
    return (None, None) if ap is None else (ap, interval(resampled_ap(scores.matches, draws)[:, 0]))


def agreement_scores(
    fp32: Mapping[Any, Detections], int8: Mapping[Any, Detections], class_names: Sequence[str]
) -> Scores:
    """How well INT8 finds what FP32 finds, by COCO's evaluation with FP32's certain detections as the truth: no labels.

    Args:
        fp32: image id -> what the FP32 graph finds.
        int8: the same of the INT8 graph, at a low confidence threshold.
        class_names: of the model.
    """
    annotations: list[dict[str, Any]] = []
    for image_id, found in fp32.items():
        certain = found.scores >= CERTAIN
        boxes = xyxy_to_xywh(found.xyxy[certain]).astype(float).tolist()
        for xywh, class_id in zip(boxes, found.class_ids[certain].tolist(), strict=True):
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": class_id + 1}
            annotations.append(row | {"bbox": xywh, "area": float(np.prod(xywh[2:])), "iscrowd": 0})
    content = {
        "images": [{"id": image_id, "file_name": str(image_id)} for image_id in fp32],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names, start=1)],
    }
    index = Index.of(content)
    return scored(content, index, found_by(int8, tuple(range(1, len(class_names) + 1)), index))
