"""The gate before any figure: whether a row finds what the reference finds in the same pictures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.matching import match

_MARGIN_OF_ROOM = 0.15  # the margin of a threshold at most, as a share of what is above it


@dataclass(frozen=True)
class Tolerance:
    """How far a row may be from the reference and still count as the same model."""

    max_score_difference: float  # of any matched pair
    mean_score_difference: float  # over all matched pairs
    min_iou: float  # of any matched pair
    min_matched: float  # share of all detections of either side that the other side has too
    threshold_margin: float  # a detection on one side alone counts only when its score exceeds the threshold by this


# By precision: about twice what the models of the reference data showed on 64 pictures (docs/benchmark.md), and short of what
# they show with red and blue swapped: 60 to 80 % shared, scores apart by 0.1 on average. FP32 may differ by the order of sums.
# Half precision moves logits by hundredths, INT8 by tenths: there single detections come and go near the threshold, so what
# is held tight is how many are shared and how far scores are apart on average.
TOLERANCES = {
    "fp32": Tolerance(0.005, 0.001, 0.95, 0.99, 0.005),
    "fp16": Tolerance(0.03, 0.004, 0.9, 0.98, 0.02),
    "bf16": Tolerance(0.25, 0.03, 0.5, 0.92, 0.05),
    "int8": Tolerance(0.6, 0.08, 0.5, 0.85, 0.1),
}
# Another importer with another epsilon in its batch norm.
PEER_TOLERANCE = Tolerance(0.02, 0.002, 0.95, 0.98, 0.01)


@dataclass
class Parity:
    """Of one row with the reference, over all pictures."""

    reference: str
    tolerance: Tolerance
    images: int = 0
    matched: int = 0
    missing: int = 0  # the reference's alone
    extra: int = 0  # the row's alone
    at_threshold: int = 0  # on one side alone, but within the margin of the threshold
    max_score_difference: float = 0.0
    min_iou: float | None = None
    _differences: list[float] = field(default_factory=list)

    def add(self, reference: Detections, found: Detections, conf: float) -> None:
        """Take what both found in a picture."""
        pairs = match(reference, found)
        self.images += 1
        self.matched += len(pairs)
        for row, other, iou in pairs:
            self._differences.append(float(abs(reference.scores[row] - found.scores[other])))
            self.min_iou = iou if self.min_iou is None else min(self.min_iou, iou)
        self.max_score_difference = max(self._differences, default=0.0)
        # Near 1 scores crowd together, and so must the margin.
        surely = conf + min(self.tolerance.threshold_margin, _MARGIN_OF_ROOM * (1 - conf))
        self.missing += self._alone(reference, [row for row, _, _ in pairs], surely)
        self.extra += self._alone(found, [other for _, other, _ in pairs], surely)

    @property
    def mean_score_difference(self) -> float:
        """Of matched pairs."""
        return float(np.mean(self._differences)) if self._differences else 0.0

    @property
    def share_matched(self) -> float:
        """Of all detections; 1 where there are none."""
        everything = self.matched + self.missing + self.extra
        return self.matched / everything if everything else 1.0

    @property
    def conclusive(self) -> bool:
        """Whether anything was found at all; otherwise the gate says nothing."""
        return self.matched + self.missing + self.extra + self.at_threshold > 0

    @property
    def faults(self) -> tuple[str, ...]:
        """What is beyond the tolerance: got and expected."""
        limit = self.tolerance
        faults = []
        if self.share_matched < limit.min_matched:
            alone = f"{self.missing} missing, {self.extra} extra"
            faults.append(f"{self.share_matched:.0%} matched ({alone}); expected {limit.min_matched:.0%}")
        for name in ("max_score_difference", "mean_score_difference"):
            if getattr(self, name) > getattr(limit, name):
                text = name.replace("_", " ")
                faults.append(f"{text} {getattr(self, name):.4f}; expected at most {getattr(limit, name)}")
        if self.min_iou is not None and self.min_iou < limit.min_iou:
            faults.append(f"IoU of a pair {self.min_iou:.3f}; expected at least {limit.min_iou}")
        return tuple(faults)

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        names = ("reference", "images", "matched", "missing", "extra", "at_threshold", "share_matched")
        measured = ("max_score_difference", "mean_score_difference", "min_iou", "conclusive", "faults")
        content = {name: getattr(self, name) for name in (*names, *measured)}
        return {**content, "tolerance": asdict(self.tolerance), "passed": not self.faults}

    def _alone(self, detections: Detections, paired: Sequence[int], surely: float) -> int:
        alone = np.delete(detections.scores, list(paired))
        sure = int((alone >= surely).sum())
        self.at_threshold += len(alone) - sure
        return sure
