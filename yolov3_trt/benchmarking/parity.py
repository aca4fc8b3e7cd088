"""The gate before any figure: whether a row finds what the reference finds in the same pictures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.matching import MatchedPairs

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
    # FP16's ten bits; boxes wider, by what a simulation of it showed (.85). No GPU has shown it yet.
    "tf32": Tolerance(0.03, 0.004, 0.8, 0.98, 0.02),
    "fp16": Tolerance(0.03, 0.004, 0.9, 0.98, 0.02),
    "bf16": Tolerance(0.25, 0.03, 0.5, 0.92, 0.05),
    "int8": Tolerance(0.6, 0.08, 0.5, 0.85, 0.1),
}
# Another importer with another epsilon in its batch norm.
BASELINE_TOLERANCE = Tolerance(0.02, 0.002, 0.95, 0.98, 0.01)


@dataclass
class Parity:
    """Of one row with the reference, over all pictures."""

    reference: str
    tolerance: Tolerance
    pairs: MatchedPairs = field(default_factory=MatchedPairs)  # a: the reference's, b: the row's
    missing: int = 0  # the reference's alone
    extra: int = 0  # the row's alone
    at_threshold: int = 0  # on one side alone, but within the margin of the threshold

    def add(self, reference: Detections, found: Detections, conf: float) -> None:
        """Take what both found in a picture."""
        pairs = self.pairs.add(reference, found)
        # Near 1 scores crowd together, and so must the margin.
        surely = conf + min(self.tolerance.threshold_margin, _MARGIN_OF_ROOM * (1 - conf))
        self.missing += self._alone(reference, [row for row, _, _ in pairs], surely)
        self.extra += self._alone(found, [other for _, other, _ in pairs], surely)

    @property
    def share_matched(self) -> float:
        """Of all detections; 1 where there are none."""
        everything = self.pairs.matched + self.missing + self.extra
        return self.pairs.matched / everything if everything else 1.0

    @property
    def conclusive(self) -> bool:
        """Whether anything was found at all; otherwise the gate says nothing."""
        return self.pairs.matched + self.missing + self.extra + self.at_threshold > 0

    @property
    def faults(self) -> tuple[str, ...]:
        """What is beyond the tolerance: got and expected."""
        limit = self.tolerance
        faults = []
        if self.share_matched < limit.min_matched:
            alone = f"{self.missing} missing, {self.extra} extra"
            faults.append(f"{self.share_matched:.0%} matched ({alone}); expected {limit.min_matched:.0%}")
        for name in ("max_score_difference", "mean_score_difference"):
            measured, most = getattr(self.pairs, name), getattr(limit, name)
            if measured > most:
                faults.append(f"{name.replace('_', ' ')} {measured:.4f}; expected at most {most}")
        if self.pairs.min_iou is not None and self.pairs.min_iou < limit.min_iou:
            faults.append(f"IoU of a pair {self.pairs.min_iou:.3f}; expected at least {limit.min_iou}")
        return tuple(faults)

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        own = ("missing", "extra", "at_threshold", "share_matched", "conclusive", "faults", "passed")
        measured = ("images", "matched", "max_score_difference", "mean_score_difference", "min_iou")
        return {
            "reference": self.reference,
            **{name: getattr(self.pairs, name) for name in measured},
            **{name: getattr(self, name) for name in own},
            "tolerance": asdict(self.tolerance),
        }

    @property
    def passed(self) -> bool:
        """Whether nothing is beyond the tolerance."""
        return not self.faults

    def _alone(self, detections: Detections, paired: Sequence[int], surely: float) -> int:
        alone = np.delete(detections.scores, list(paired))
        sure = int((alone >= surely).sum())
        self.at_threshold += len(alone) - sure
        return sure
