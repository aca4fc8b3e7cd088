"""What is known of the accuracy that INT8 costs: a claim about the drop of AP, and whether pictures bear it out."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from yolov3_trt.errors import EvaluationError

MIN_PROOF_IMAGES = 50  # on fewer the interval itself is not to be trusted


class Verdict(str, Enum):
    """What becomes of the claim that AP drops by less than a limit."""

    PROVEN = "proven"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Certificate:
    """How much AP an INT8 graph has less than the FP32 one on the same labelled pictures, which nothing was chosen on.

    Attributes:
        max_ap_drop: the claim: AP drops by less than this, 0..1.
        drop: that was measured; below 0 where INT8 is better.
        interval: of the drop, by the bootstrap over pictures, both graphs on the same draws: the middle 99 %, either end of
            which the true drop passes in less than 5 % of sets.
        num_images: pictures it was measured on.
        images_sha256: over the contents of those, in order; see `PictureList`.
        agreement: AP of INT8 with what FP32 finds as the truth, 0..1, which needs no labels.
        agreement_interval: of that, 95 %.
    """

    max_ap_drop: float
    drop: float
    interval: tuple[float, float]
    num_images: int
    images_sha256: str | None = None
    agreement: float | None = None
    agreement_interval: tuple[float, float] | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        values = (self.max_ap_drop, self.drop, *self.interval)
        if not all(map(math.isfinite, values)) or self.interval[0] > self.interval[1] or self.num_images < 1:
            raise EvaluationError(
                f"certificate: drop {self.drop} in {self.interval} below {self.max_ap_drop} on {self.num_images} images; "
                "expected finite numbers, an interval that ascends, and images"
            )

    @property
    def verdict(self) -> Verdict:
        """Proven or refuted where the whole interval lies on one side of the limit, and there are images enough."""
        if self.num_images >= MIN_PROOF_IMAGES:
            if self.interval[1] < self.max_ap_drop:
                return Verdict.PROVEN
            if self.interval[0] > self.max_ap_drop:
                return Verdict.REFUTED
        return Verdict.UNDECIDED

    @property
    def more_images(self) -> int | None:
        """About how many more would decide, if the drop stays what it is; None where it is decided or none would.

        An interval narrows with the square root of the number of images.
        """
        room = abs(self.max_ap_drop - self.drop)
        if self.verdict is not Verdict.UNDECIDED or not room:
            return None
        reach = self.interval[1] - self.drop if self.drop < self.max_ap_drop else self.drop - self.interval[0]
        needed = max(self.num_images * (reach / room) ** 2, MIN_PROOF_IMAGES)
        return max(1, math.ceil(needed) - self.num_images) if needed < 10**9 else None

    def __str__(self) -> str:
        low, high = self.interval
        text = f"AP drop below {self.max_ap_drop:g} with 95 %: {self.verdict.value}"
        if self.verdict is Verdict.UNDECIDED:
            more = self.more_images
            text += ", no number of images would decide" if more is None else f", about {more} more images would decide"
        text += f" (drop {self.drop:+.4f} [{low:+.4f}, {high:+.4f}] on {self.num_images} images"
        if self.agreement is not None:
            text += f"; agreement with FP32 {self.agreement:.4f}"
            if self.agreement_interval is not None:
                text += " [{:.4f}, {:.4f}]".format(*self.agreement_interval)
        return f"{text})"

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` and `quantize --json` write it: the fields, `verdict` and `more_images`."""
        return {**vars(self), "verdict": self.verdict.value, "more_images": self.more_images}
