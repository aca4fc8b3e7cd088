"""What Darknet's `detector map` prints: mAP@.5, and hits, false alarms and misses at one confidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.detections import Detections
from yolov3_trt.geometry import iou_matrix

DARKNET_CONF, DARKNET_IOU = 0.25, 0.5


@dataclass(frozen=True)
class Counts:
    """At an IoU above DARKNET_IOU.

    Attributes:
        mAP50: mean over the classes that have objects of the area under the precision-recall curve; None without objects.
        conf: the rest counts detections above it.
        tp: detections that found an object, each object once.
        fp: other detections.
        fn: objects that none found.
        mean_iou: of all detections, 0 for those that found none.
    """

    mAP50: float | None
    conf: float
    tp: int
    fp: int
    fn: int
    mean_iou: float

    @property
    def precision(self) -> float | None:
        """Tp / (tp + fp)."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """Tp / (tp + fn)."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def f1(self) -> float | None:
        """2 tp / (2 tp + fp + fn)."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp + self.fp + self.fn else None

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` writes it."""
        return {**vars(self), "precision": self.precision, "recall": self.recall, "f1": self.f1}


def count_hits(truth: Annotations, found: Mapping[Any, Detections], conf: float = DARKNET_CONF) -> Counts:
    """As `validate_detector_map` of AlexeyAB's Darknet with its defaults (src/detector.c).

    Each detection goes to the object of its class that it covers best; of several that go to one object the first by score
    counts. Detections of classes that the set does not have are left out; those on a crowd of their class too.

    Args:
        truth: of a set.
        found: by image id, at a low threshold, best first.
        conf: for the counts.
    """
    scores, hits, classes, ious = [], [], [], []
    objects = np.zeros(len(truth.class_names), np.int64)
    for image_id, detections in found.items():
        there = truth.truth(image_id)
        objects += np.bincount(there.class_ids, minlength=len(objects))
        crowds = truth.crowd_classes(image_id)
        iou = iou_matrix(detections.xyxy, there.xyxy)
        iou[detections.class_ids[:, None] != there.class_ids[None]] = 0
        taken: set[int] = set()
        for row, class_id in enumerate(detections.class_ids.tolist()):
            best = int(iou[row].argmax()) if len(there) else -1
            covered = float(iou[row, best]) if best >= 0 else 0.0
            is_hit = covered > DARKNET_IOU and best not in taken
            if class_id not in truth.scored_classes or (covered <= DARKNET_IOU and class_id in crowds):
                continue
            if is_hit:
                taken.add(best)
            scores.append(float(detections.scores[row]))
            hits.append(is_hit)
            classes.append(class_id)
            ious.append(covered if is_hit else 0.0)
    score, hit, class_of, covers = np.array(scores), np.array(hits, bool), np.array(classes, int), np.array(ious)
    areas = [
        _area(score[class_of == one], hit[class_of == one], int(count)) for one, count in enumerate(objects) if count
    ]
    sure = score > conf
    tp = int(np.count_nonzero(hit & sure))
    return Counts(
        float(np.mean(areas)) if areas else None,
        conf,
        tp,
        int(np.count_nonzero(sure)) - tp,
        int(objects.sum()) - tp,
        float(covers[sure].mean()) if sure.any() else 0.0,
    )


def _area(scores: NDArray[np.float64], hits: NDArray[np.bool_], objects: int) -> float:
    """Under the precision-recall curve of one class, with the highest precision from each recall on."""
    order = np.argsort(-scores, kind="stable")
    hit = hits[order]
    tp = np.cumsum(hit)
    precision = tp / np.arange(1, len(hit) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest[hit].sum() / objects)
