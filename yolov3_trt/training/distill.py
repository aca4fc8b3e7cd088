"""Distillation: a network in INT8 learns, without labels, to say what the FP32 one says of the same pictures."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from yolov3_trt.errors import TrainingError
from yolov3_trt.graph.plain import PlainGraph
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import ModelMeta
from yolov3_trt.preprocess import Image
from yolov3_trt.spec import Head
from yolov3_trt.training.augment import Samples
from yolov3_trt.training.batches import Batches
from yolov3_trt.training.quantised import GraphModule
from yolov3_trt.training.settings import TrainSettings

BATCH_SIZE = 4
EVERY = 25  # steps, after which the held pictures are looked at
PATIENCE = 5  # of these looks without a better one end it
_LEARNING_RATE = 0.001  # steps of int8
_LAST_LEARNING_RATE = 0.05  # as a fraction of that
_WARMUP = 10  # steps, the first of which would be of full length in any direction
_BETAS = (0.9, 0.99)  # of the running means of the gradient and of its square


@dataclass(frozen=True)
class DistilledWeights:
    """What came of it.

    Attributes:
        weights: by the name of the constant in the graph; those of the best look at the held pictures.
        scales: of the maps, by their names; likewise.
        before: how far INT8 was from FP32 on the held pictures, see `distance`.
        after: with these weights.
        steps: after which they were taken; 0: none was better than those it began with.
    """

    weights: dict[str, NDArray[np.float32]]
    scales: dict[str, float]
    before: float
    after: float
    steps: int


def distil(
    teacher: PlainGraph,
    student: PlainGraph,
    heads: Sequence[Head],
    batches: Iterable[Tensor],
    held: Sequence[NDArray[np.float32]],
    steps: int,
    *,
    shared: Mapping[str, str] | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> DistilledWeights:
    """Learn until the steps are over, or the held pictures say that it helps no more.

    Args:
        teacher: the FP32 graph, whose outputs are the heads.
        student: the same with Q/DQ pairs, also around its float32 weights, and an FP32 rest.
        heads: in the order of the outputs.
        batches: to learn from, (N, C, H, W) float32 each, one a step.
        held: pictures that are not learnt from, (1, C, H, W) each.
        steps: of the optimiser at most.
        shared: map of the student -> the first of those that share its scale; None: each has its own.
        device: to compute on.
        say: is told how it gets on.

    Raises:
        TrainingError: it goes astray, or the graph has an operator that cannot be learnt through.
    """
    fp32 = GraphModule(teacher, torch.device(device))
    int8 = GraphModule(student, torch.device(device), shared)
    optimiser = _Optimiser(int8.parameters())
    with torch.no_grad():
        looked_at = [torch.from_numpy(images).to(device) for images in held]
        expected = [fp32(images) for images in looked_at]

    def on_held() -> float:
        with torch.no_grad():
            found = [distance(int8(images), right, heads) for images, right in zip(looked_at, expected, strict=True)]
        return float(torch.stack(found).mean())

    before = best = on_held()
    kept, kept_at, looks = (int8.weights(), int8.scales()), 0, 0
    for step, images in enumerate(batches):
        with torch.no_grad():
            targets = fp32(images)
        loss = distance(int8(images), targets, heads)
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the distance to FP32 is not a number any more at step {step}; leave distill out")
        loss.backward()
        optimiser.step(learning_rate(step, steps))
        if (step + 1) % EVERY and step + 1 < steps:
            continue
        now = on_held()
        say(f"step {step + 1}: {now:.4f} from FP32 on the held pictures, {before:.4f} at first")
        looks += 1
        if now < best:
            best, kept, kept_at, looks = now, (int8.weights(), int8.scales()), step + 1, 0
        if looks == PATIENCE:
            break
    return DistilledWeights(*kept, before, best, kept_at)


class _Optimiser:
    """Adam with one second moment for each tensor: what has next to no gradient hardly moves.

    With a moment for each weight, as Adam has it, the millions that the pictures say nothing of wander at full speed.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros((), device=parameter.device) for parameter in self._parameters]
        self._steps = 0

    def step(self, rate: float) -> None:
        """Move each tensor by about `rate`, in root mean square, and forget its gradient."""
        self._steps += 1
        rate *= math.sqrt(1 - _BETAS[1] ** self._steps) / (1 - _BETAS[0] ** self._steps)
        with torch.no_grad():
            for parameter, mean, square in zip(self._parameters, self._means, self._squares, strict=True):
                if parameter.grad is not None:
                    mean.lerp_(parameter.grad, 1 - _BETAS[0])
                    square.lerp_(parameter.grad.square().mean(), 1 - _BETAS[1])
                    parameter -= mean * (rate / (square.sqrt() + 1e-12))
                    parameter.grad = None


def varied_batches(pictures: Iterable[Image], meta: ModelMeta, seed: int, device: str = "cpu") -> Iterator[Tensor]:
    """Pictures varied at random but reproducibly, `BATCH_SIZE` at a time, without end.

    They vary by less than in training, since ranges are of pictures as they are.

    Args:
        pictures: uint8 (H, W, 3) BGR, each of any size; all are read at once and kept at input size.
        meta: of the network.
        seed: of chance.
        device: where the batches, (N, C, H, W) float32, shall be.
    """
    settings = TrainSettings(
        batch_size=BATCH_SIZE, seed=seed, plain_epochs=0, mosaic=0.5, scale=0.3, saturation=0.4, value=0.3
    )
    samples = Samples.of_pictures(pictures, meta.input_hw, meta.preprocess, settings, seed=seed)
    batches = Batches(samples, settings, torch.device(device), workers=1, channels=meta.channels)
    return (images.contiguous() for epoch in count() for images, _ in batches.of_epoch(epoch, 0))


def learning_rate(step: int, steps: int) -> float:
    """A short rise, then half a cosine down."""
    falling = _LAST_LEARNING_RATE + (1 - _LAST_LEARNING_RATE) * (1 + math.cos(math.pi * step / steps)) / 2
    return _LEARNING_RATE * falling * min(1.0, (step + 1) / _WARMUP)


def distance(found: Sequence[Tensor], expected: Sequence[Tensor], heads: Sequence[Head]) -> Tensor:
    """How far the heads of one network are from those of another, which counts for right; 0 where they are the same.

    Objectness counts everywhere; classes and boxes as much as the other network sees an object there. Of probabilities it is
    the Kullback-Leibler divergence, of boxes half the squared difference of the logits: each in sum, by the number of objects.

    Args:
        found: per head (N, A * F, h, w) logits.
        expected: likewise.
        heads: likewise.
    """
    total = objects = found[0].new_zeros(())
    for logits, right, head in zip(found, expected, heads, strict=True):
        at = head.kind.box_values
        ours, theirs = (
            values.reshape(len(values), len(head.anchors_wh), head.fields, -1) for values in (logits, right)
        )
        seen = theirs[:, :, at].sigmoid()  # (N, A, h * w)
        classes = ours[:, :, at + 1 :], theirs[:, :, at + 1 :]
        apart = (_softmax_divergence if head.kind is HeadKind.REGION else _divergence)(*classes).sum(dim=2)
        apart = apart + (ours[:, :, :at] - theirs[:, :, :at]).square().sum(dim=2) / 2
        total = total + _divergence(ours[:, :, at], theirs[:, :, at]).sum() + (seen * apart).sum()
        objects = objects + seen.sum()
    return total / objects.clamp(min=1.0)


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Kullback-Leibler of two logits' probabilities, element by element."""
    right = theirs.sigmoid()
    cross = F.binary_cross_entropy_with_logits(ours, right, reduction="none")
    return cross - F.binary_cross_entropy_with_logits(theirs, right, reduction="none")


def _softmax_divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    right = theirs.log_softmax(dim=2)
    return right.exp() * (right - ours.log_softmax(dim=2))
