"""Which boxes of two lists stand for the same object."""

from dataclasses import dataclass, field

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.geometry import iou_matrix

MATCH_IOU = 0.5


def match(a: Detections, b: Detections, min_iou: float = MATCH_IOU) -> list[tuple[int, int, float]]:
    """Pairs (row of `a`, row of `b`, IoU) of one class: each row of `a`, best first, takes the closest free row of `b`."""
    iou = iou_matrix(a.xyxy, b.xyxy)
    iou[a.class_ids[:, None] != b.class_ids[None]] = 0
    pairs = []
    for row in range(len(a)):
        if len(b) and iou[row].max() >= min_iou:
            other = int(iou[row].argmax())
            pairs.append((row, other, float(iou[row, other])))
            iou[:, other] = 0
    return pairs


@dataclass
class MatchedPairs:
    """How far the detections of two sides are apart, over any number of pictures."""

    images: int = 0
    detections_a: int = 0
    detections_b: int = 0
    matched: int = 0  # same class, IoU at least MATCH_IOU
    min_iou: float | None = None  # of a matched pair; None where there is none
    score_differences: list[float] = field(default_factory=list)  # absolute, of each matched pair

    def add(self, a: Detections, b: Detections) -> list[tuple[int, int, float]]:
        """Take what both found in a picture; returns the pairs, as `match` does."""
        pairs = match(a, b)
        self.images += 1
        self.detections_a += len(a)
        self.detections_b += len(b)
        self.matched += len(pairs)
        self.score_differences += [float(abs(a.scores[row] - b.scores[other])) for row, other, _ in pairs]
        if pairs:
            least = min(iou for _, _, iou in pairs)
            self.min_iou = least if self.min_iou is None else min(self.min_iou, least)
        return pairs

    @property
    def agreement(self) -> float:
        """Share of all detections that have a partner, 0..1; 1 where there are none at all."""
        detections = self.detections_a + self.detections_b
        return 2 * self.matched / detections if detections else 1.0

    @property
    def max_score_difference(self) -> float:
        """The largest of a matched pair; 0 where there is none."""
        return max(self.score_differences, default=0.0)

    @property
    def mean_score_difference(self) -> float:
        """The mean over the matched pairs; 0 where there is none."""
        return float(np.mean(self.score_differences)) if self.score_differences else 0.0
