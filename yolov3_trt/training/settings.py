"""What a training run is told, and the schedule that follows from it. Loads no NumPy: these are options of `train` too."""

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from yolov3_trt.arguments import Settings, choice, setting, whole, within


class BoxLoss(str, Enum):
    """What is wrong with a box."""

    CIOU = "ciou"  # 1 - CIoU: Zheng et al., arXiv 2005.03572
    COORDINATES = "coordinates"  # of x, y, w, h one by one, as in the YOLOv3 paper


@dataclass(frozen=True)
class LossSettings(Settings):
    """How the parts of the loss are made and weighed.

    Attributes:
        box_loss: `ciou`, or `coordinates` as in the YOLOv3 paper.
        prior_iou: priors more like an object than this learn from it as well as the best one; at 1 none does.
        box_weight: of the boxes' part.
        objectness_weight: of that of the objectness.
        class_weight: of that of the classes.
        ignore_iou: a predictor that overlaps some object by more than this is not called background.
    """

    box_loss: BoxLoss = setting(choice(BoxLoss), BoxLoss.CIOU)
    prior_iou: float = setting(within(0, 1), 1.0)
    box_weight: float = setting(within(0), 1.5, option=False)
    objectness_weight: float = setting(within(0), 1.0, option=False)
    class_weight: float = setting(within(0), 1.0, option=False)
    ignore_iou: float = setting(within(0, 1), 0.7, option=False)


@dataclass(frozen=True)
class Augmentation(Settings):
    """How far samples vary. All zeros is none: the picture as inference sees it.

    Attributes:
        mosaic: share of samples made of four pictures.
        flip: share of samples mirrored left to right.
        scale: size varies by up to this share.
        translate: position varies by up to this share of the input.
        hue: hue varies by up to this share of the circle.
        saturation: saturation varies by up to this share.
        value: brightness varies by up to this share.
    """

    mosaic: float = setting(within(0, 1), 1.0)
    flip: float = setting(within(0, 1), 0.5)
    scale: float = setting(within(0, 0.99), 0.5)
    translate: float = setting(within(0, 1), 0.1)
    hue: float = setting(within(0, 1), 0.015)
    saturation: float = setting(within(0, 1), 0.7)
    value: float = setting(within(0, 1), 0.4)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Augmentation, LossSettings):
    """Hyperparameters. With the same settings, data and machine a run gives the same weights.

    Attributes:
        epochs: passes over the training pictures.
        batch_size: pictures a step.
        learning_rate: peak learning rate.
        warmup_epochs: epochs that the learning rate rises to its peak.
        val_every: epochs between validations.
        seed: random seed of weights, order and augmentation.
        final_learning_rate: at the end, as a fraction of the peak.
        momentum: of the optimiser.
        weight_decay: of kernels only.
        gradient_norm: longer gradients are shortened to this.
        average_decay: of the running average of the weights, which is what gets evaluated and saved.
        plain_epochs: the last epochs do without mosaic, as a fraction: pictures as inference sees them.
        checkpoint_every_s: seconds between checkpoints; there is one after every epoch too.
    """

    epochs: int = setting(whole(1), 100)
    batch_size: int = setting(whole(1), 16)
    learning_rate: float = setting(within(1e-9), 0.005)
    warmup_epochs: float = setting(within(0), 2.0)
    val_every: int = setting(whole(1), 1)
    seed: int = setting(whole(0), 0)
    final_learning_rate: float = setting(within(0, 1), 0.02, option=False)
    momentum: float = setting(within(0, 1), 0.9, option=False)
    weight_decay: float = setting(within(0), 5e-4, option=False)
    gradient_norm: float = setting(within(0), 10.0, option=False)
    average_decay: float = setting(within(0, 1), 0.999, option=False)
    plain_epochs: float = setting(within(0, 1), 0.15, option=False)
    checkpoint_every_s: float = setting(within(0), 300.0, option=False)

    def to_plain(self) -> dict[str, Any]:
        """Numbers and texts only, of which `TrainSettings(**plain)` is the same again."""
        return asdict(self, dict_factory=_plain)

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
