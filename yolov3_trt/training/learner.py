"""A network that is trained: one step of the optimiser at a time, and the running average of its weights."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from yolov3_trt.arguments import spelled
from yolov3_trt.errors import TrainingError
from yolov3_trt.layers import Conv
from yolov3_trt.models.darknet_weights import Weights
from yolov3_trt.models.transfer import PRIOR_LOGIT
from yolov3_trt.reference import YoloNetwork, module_from_spec, weights_from_module
from yolov3_trt.spec import ModelSpec
from yolov3_trt.training.assign import Objects
from yolov3_trt.training.checkpoint import Checkpoint
from yolov3_trt.training.loss import Loss, yolo_loss
from yolov3_trt.training.settings import TrainSettings

LOSS_PARTS = ("box", "objectness", "classes")


def initial_weights(spec: ModelSpec, seed: int) -> Weights:
    """Random weights to train from: PyTorch's, and heads that start out calling everything background."""
    torch.manual_seed(seed)
    weights = dict(weights_from_module(module_from_spec(spec)))
    for head in spec.heads:
        conv = spec.layers[head.layer - 1]
        if isinstance(conv, Conv) and conv.bias:
            bias = weights[f"layers.{head.layer - 1}.conv.bias"].reshape(len(head.anchors_wh), -1)
            bias[:, :4] = 0
            bias[:, 4:] = PRIOR_LOGIT
            weights[f"layers.{head.layer - 1}.conv.weight"] *= 0.1
    return weights


class Learner:
    """A network, its optimiser and its average, as after `step` steps.

    Attributes:
        network: what is trained, on `device`.
        step: how many steps are done.
    """

    def __init__(self, spec: ModelSpec, settings: TrainSettings, device: torch.device, output: Path) -> None:
        """Nothing is learnt yet, see `restore`; `output` is the folder of the run, for errors."""
        self.device, self.step = device, 0
        self._spec, self._settings, self._output = spec, settings, output
        # Channels last: a third faster on a CPU, and what tensor cores want.
        self.network = YoloNetwork(spec).to(device, memory_format=torch.channels_last).train()
        self._average = _averaged(self.network, settings.average_decay)
        self._optimizer = _optimizer(self.network, settings)
        self._mixed_precision = device.type == "cuda"
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._mixed_precision)

    @property
    def average(self) -> YoloNetwork:
        """The network with the running averages of its weights and statistics: what is kept in the end."""
        network = self._average.module
        assert isinstance(network, YoloNetwork)
        return network

    def learn(self, images: Tensor, objects: Objects, learning_rate: float) -> dict[str, float]:
        """One step of the optimiser; the parts of the loss before it.

        Args:
            images: (N, 3, H, W) float32 RGB 0..1 on the device.
            objects: the labels.
            learning_rate: of this step.

        Raises:
            TrainingError: the loss is not a number any more; the network is as it was before.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(self.device.type, torch.float16, enabled=self._mixed_precision):
            outputs = self.network(images)
        loss = yolo_loss(outputs, objects, self._spec.heads, self._spec.input_hw, self._settings)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss.total).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self._settings.gradient_norm)
        values = self._values(loss)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average.update_parameters(self.network)
        self.step += 1
        return values

    def state(self) -> dict[str, Any]:
        """The fields of a `Checkpoint` that are the learner's; no copies."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Checkpoint) -> None:
        """Become what a checkpoint says."""
        self.step = state.step
        self.network.load_state_dict(state.network)
        self.average.load_state_dict(state.average or state.network)
        self._average.n_averaged.fill_(state.step)
        if state.optimizer:
            self._optimizer.load_state_dict(state.optimizer)
            self._scaler.load_state_dict(state.scaler)

    def _values(self, loss: Loss) -> dict[str, float]:
        parts = torch.stack([getattr(loss, name).detach() for name in LOSS_PARTS]).tolist()
        if not all(map(math.isfinite, parts)):
            raise TrainingError(
                f"{self._output}: the loss is not a number any more at step {self.step} ({parts}); start anew with a lower "
                f"{spelled('learning_rate')}. The checkpoint and the weights are those of before"
            )
        return dict(zip(LOSS_PARTS, parts, strict=True))


def _averaged(network: YoloNetwork, decay: float) -> AveragedModel:
    """The running average of a network's weights and statistics; it follows closely at first."""

    def average(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        ramp = (1 + int(steps)) / (10 + int(steps))  # as in Tan and Le's EfficientNet training
        return torch.lerp(averaged, current, 1 - min(decay, ramp))

    return AveragedModel(network, avg_fn=average, use_buffers=True)


def _optimizer(network: YoloNetwork, settings: TrainSettings) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},  # biases, batch norm
    ]
    return torch.optim.SGD(groups, settings.learning_rate, settings.momentum, nesterov=True)
