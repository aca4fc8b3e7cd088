"""What a training run is told, and the schedule that follows from it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from pydantic import TypeAdapter

from yolov3_trt.training.augment import Augmentation


class BoxLoss(str, Enum):
    """What is wrong with a box."""

    CIOU = "ciou"  # 1 - CIoU: Zheng et al., arXiv 2005.03572
    COORDINATES = "coordinates"  # of x, y, w, h one by one, as in the YOLOv3 paper


@dataclass(frozen=True)
class LossSettings:
    """How the parts of the loss are made and weighed."""

    box: BoxLoss = BoxLoss.CIOU
    box_weight: float = 1.5
    objectness_weight: float = 1.0
    class_weight: float = 1.0
    prior_iou: float = 1.0  # priors more like an object than this learn from it as well as the best one; 1: none does
    ignore_iou: float = 0.7  # a predictor that overlaps some object by more than this is not called background


@dataclass(frozen=True)
class TrainSettings:
    """Hyperparameters. With the same settings, data and machine a run gives the same weights."""

    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 0.005  # at its height
    final_learning_rate: float = 0.02  # at the end, as a fraction of that
    warmup_epochs: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 5e-4  # of kernels only
    gradient_norm: float = 10.0  # longer gradients are shortened to this
    average_decay: float = 0.999  # of the running average of the weights, which is what gets evaluated and saved
    plain_epochs: float = 0.15  # the last epochs do without mosaic, as a fraction: pictures as inference sees them
    val_every: int = 1  # epochs
    checkpoint_every_s: float = 300.0  # and after every epoch
    seed: int = 0
    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def to_plain(self) -> dict[str, Any]:
        """Numbers, texts and dicts only."""
        return asdict(self, dict_factory=_plain)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "TrainSettings":
        """From `to_plain`."""
        return TypeAdapter(cls).validate_python(dict(content))

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Linear from 0 during the warm-up, then half a cosine down (Loshchilov and Hutter, arXiv 1608.03983)."""
        warmup_steps = min(self.warmup_epochs, self.epochs / 2) * steps_per_epoch
        if step < warmup_steps:
            return self.learning_rate * (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, self.epochs * steps_per_epoch - warmup_steps)
        fraction = self.final_learning_rate + (1 - self.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * fraction

    def uses_mosaic(self, epoch: int) -> bool:
        """Whether epoch 0, 1, ... draws mosaics."""
        return epoch < self.epochs - round(self.plain_epochs * self.epochs)


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in items}
