"""The training loop: a data set and a network in, Darknet weights out.

A run lives in a folder: `checkpoint.pt` (all it needs to go on), `history.json` (an entry per epoch) and the trained
network as `NAME.cfg`, `NAME.names`, `NAME.weights` (of the best epoch by AP on the validation pictures, else of the last)
and `NAME-last.weights`. Each of them is whole or absent at any moment.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from yolov3_trt.backends.pytorch import TorchBackend
from yolov3_trt.detector import Detector
from yolov3_trt.errors import TrainingError
from yolov3_trt.evaluate import EVAL_CONF_THRESHOLD, Annotations, evaluate
from yolov3_trt.files import make_folder, write_text
from yolov3_trt.layers import Conv
from yolov3_trt.meta import meta_from_spec
from yolov3_trt.models import Model, load_model
from yolov3_trt.models.darknet_cfg import parse_cfg
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.models.darknet_weights import Weights, WeightsHeader, save_darknet_weights
from yolov3_trt.models.transfer import PRIOR_LOGIT
from yolov3_trt.reference import YoloNetwork, module_from_spec, weights_from_module
from yolov3_trt.spec import ModelSpec
from yolov3_trt.training.assign import Objects
from yolov3_trt.training.augment import Sample, Samples
from yolov3_trt.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from yolov3_trt.training.dataset import DataSet, annotations_of
from yolov3_trt.training.loss import Loss, yolo_loss
from yolov3_trt.training.settings import TrainSettings

LOSS_PARTS = ("box", "objectness", "classes")


@dataclass(frozen=True)
class StepReport:
    """What a step tells those who watch."""

    epoch: int  # from 0
    step: int  # within the epoch, from 0
    steps: int  # of an epoch
    loss: dict[str, float]  # means of LOSS_PARTS over the epoch so far


@dataclass(frozen=True)
class Resources:
    """What a run may use; none of it changes the result beyond rounding."""

    device: str = "cpu"
    workers: int = 2  # threads that make samples
    cache_bytes: int = 512 * 2**20  # pictures kept in memory


@dataclass(frozen=True)
class Watcher:
    """Who is told of the progress, and who may stop the run."""

    on_step: Callable[[StepReport], None] = lambda report: None
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None
    stop: Callable[[], bool] = lambda: False  # asked after every step and validation picture


class Stopped(Exception):  # not an error
    """The watcher stopped the run; its checkpoint is written."""


def device_by_name(name: str) -> str:
    """`auto`, `cpu` or `cuda` -> the device to train on; auto is a CUDA GPU where PyTorch finds one.

    Raises:
        TrainingError: a GPU was asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise TrainingError("--device cuda: PyTorch finds no CUDA GPU; leave it out, or install a CUDA build of torch")
    return "cuda" if has_cuda and name != "cpu" else "cpu"


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


class TrainingRun:
    """One run in its folder. `start` a new one or `resume` an old one, then `run` it."""

    def __init__(
        self, state: Checkpoint, data: DataSet, output: Path, resources: Resources | None = None
    ) -> None:  # use `start` or `resume`
        self.resources = resources or Resources()
        self.output, self.data, self.name, self.cfg = output, data, state.name, state.cfg
        self.settings = TrainSettings.from_plain(state.settings)
        self.spec = parse_cfg(self.cfg.encode(), name=state.name, file=f"{output / state.name}.cfg")
        self.device = torch.device(self.resources.device)
        # Channels last: a third faster on a CPU, and what tensor cores want.
        self.network = YoloNetwork(self.spec).to(self.device, memory_format=torch.channels_last)
        self.average = _averaged(self.network, self.settings.average_decay)
        self.optimizer = _optimizer(self.network, self.settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self._mixed_precision)
        self.step, self.sums = state.step, list(state.sums)
        self.history = copy.deepcopy(state.history)
        self._restore(state)
        preprocess = meta_from_spec(self.spec, data.class_names).preprocess
        self.samples = Samples(
            data.train,
            self.spec.input_hw,
            preprocess,
            self.settings.augmentation,
            seed=self.settings.seed,
            cache_bytes=self.resources.cache_bytes,
        )
        self.batch_size = min(self.settings.batch_size, len(self.samples))
        self.steps_per_epoch = len(self.samples) // self.batch_size
        self._saved_at = time.monotonic()

    @classmethod
    def start(
        cls,
        model: tuple[ModelSpec, Weights],
        data: DataSet,
        settings: TrainSettings,
        output: Path,
        resources: Resources | None = None,
    ) -> "TrainingRun":
        """Begin a run in a folder that holds none yet.

        Raises:
            TrainingError: the model is no detector of the data's classes, or the folder holds a run.
            CfgError: the network cannot be written as a cfg.
            OutputError: the folder cannot be written.
        """
        spec, weights = model
        if not spec.heads:
            raise TrainingError(f"{spec.name}: a classifier; only detectors ([yolo] heads) can be trained here")
        if spec.num_classes != len(data.class_names):
            raise TrainingError(
                f"{spec.name}: {spec.num_classes} classes; {data.path} has {len(data.class_names)}: change the heads first"
            )
        if (output / "checkpoint.pt").exists():
            raise TrainingError(
                f"{output}: there is a run here already; go on with --resume {output}, or give another -o"
            )
        make_folder(output)
        cfg = cfg_from_spec(spec, _training_keys(settings, len(data.train)))
        network = module_from_spec(spec, weights)
        state = Checkpoint(
            settings=settings.to_plain(),
            cfg=cfg,
            name=spec.name,
            class_names=list(data.class_names),
            fingerprint=data.fingerprint,
            step=0,
            network=network.state_dict(),
            average={},
            optimizer={},
            scaler={},
            sums=[0.0] * len(LOSS_PARTS),
            history=[],
        )
        write_text(output / f"{spec.name}.cfg", cfg)
        write_text(output / f"{spec.name}.names", "\n".join(data.class_names) + "\n")
        run = cls(state, data, output, resources)
        run._save()
        return run

    @classmethod
    def resume(cls, output: Path, data: DataSet, resources: Resources | None = None) -> "TrainingRun":
        """Go on with the run of a folder.

        Raises:
            TrainingError: there is no checkpoint, or the data set is not the one it was trained on.
        """
        state = load_checkpoint(output / "checkpoint.pt")
        if state.fingerprint != data.fingerprint:
            raise TrainingError(
                f"{output}: the data set {data.path} has changed since this run began (classes, pictures or labels); start "
                f"a new one with --weights {output / state.name}-last.weights"
            )
        return cls(state, data, output, resources)

    def run(self, watcher: Watcher | None = None) -> list[dict[str, Any]]:
        """Train until the last epoch is over; returns the history, an entry per epoch.

        Raises:
            Stopped: by the watcher.
            TrainingError: the loss is not a number any more.
            ImageError: a picture cannot be read any more.
        """
        watcher = watcher or Watcher()
        total = self.settings.epochs * self.steps_per_epoch
        try:
            while len(self.history) < self.settings.epochs:
                # An epoch whose steps are done but which has no entry was stopped during its validation.
                done = len(self.history) * self.steps_per_epoch
                stop_at = min(total, done + self.steps_per_epoch)
                self._train(stop_at, watcher)
                self._save()
                self._finish_epoch(watcher)
        except Stopped:
            self._save()
            raise
        return self.history

    def _train(self, stop_at: int, watcher: Watcher) -> None:
        """Steps up to `stop_at`, all of one epoch."""
        self.network.train()
        self._started = time.monotonic()
        epoch = len(self.history)
        first = self.step - epoch * self.steps_per_epoch
        for number, batch in enumerate(self._batches(epoch, first), start=first):
            loss = self._step(*batch)
            for part, name in enumerate(LOSS_PARTS):
                self.sums[part] += loss[name]
            means = {name: self.sums[part] / (number + 1) for part, name in enumerate(LOSS_PARTS)}
            watcher.on_step(StepReport(epoch, number, self.steps_per_epoch, means))
            if watcher.stop():
                raise Stopped
            if time.monotonic() - self._saved_at > self.settings.checkpoint_every_s:
                self._save()
        assert self.step == stop_at

    def _step(self, images: Tensor, objects: Objects) -> dict[str, float]:
        """One step of the optimiser; the parts of the loss before it."""
        rate = self.settings.learning_rate_at(self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.float16, enabled=self._mixed_precision):
            outputs = self.network(images)
        loss = yolo_loss(outputs, objects, self.spec.heads, self.spec.input_hw, self.settings.loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss.total).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        values = self._values(loss)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.network)
        self.step += 1
        return values

    def _values(self, loss: Loss) -> dict[str, float]:
        parts = torch.stack([getattr(loss, name).detach() for name in LOSS_PARTS]).tolist()
        if not all(map(math.isfinite, parts)):
            raise TrainingError(
                f"{self.output}: the loss is not a number any more at step {self.step} ({parts}); start anew with a lower "
                "--learning-rate. The checkpoint and the weights are those of before"
            )
        return dict(zip(LOSS_PARTS, parts, strict=True))

    def _finish_epoch(self, watcher: Watcher) -> None:
        """Weights, accuracy, history."""
        epoch, started = len(self.history), time.monotonic()
        self._save_weights("-last")  # whether validated or not
        is_last = epoch + 1 == self.settings.epochs
        accuracy: dict[str, Any] = {}
        if self.data.val and (is_last or (epoch + 1) % self.settings.val_every == 0):
            accuracy = self.validate(watcher)
        best = max((entry.get("AP") or 0.0 for entry in self.history), default=0.0)
        if (accuracy.get("AP") or 0.0) >= best and (accuracy or not self.data.val):
            self._save_weights()
        entry = {
            "epoch": epoch + 1,
            "step": self.step,
            "learning_rate": self.settings.learning_rate_at(self.step - 1, self.steps_per_epoch),
            "loss": {name: self.sums[part] / self.steps_per_epoch for part, name in enumerate(LOSS_PARTS)},
            "train_s": started - self._started,
            "val_s": time.monotonic() - started,
            **accuracy,
        }
        self.history.append(entry)
        self.sums = [0.0] * len(LOSS_PARTS)
        self._save()
        write_text(self.output / "history.json", json.dumps(self.history, indent=1) + "\n")
        watcher.on_epoch(entry)

    def validate(self, watcher: Watcher | None = None) -> dict[str, Any]:
        """AP, AP50 and AP75 on the validation pictures of the weights as they are, written and read back as a user would.

        Raises:
            Stopped: by the watcher.
        """
        watcher = watcher or Watcher()
        names, weights_path = self.data.class_names, self._save_weights("-last")
        loaded = load_model(self.output / f"{self.name}.cfg", weights_path, str(self.output / f"{self.name}.names"))
        model = Model(self.spec, loaded.weights, names, weights_path)
        backend = TorchBackend(model, device=self.resources.device)
        postprocess = backend.meta.postprocess.override(conf_threshold=EVAL_CONF_THRESHOLD)
        truth = Annotations(self.data.path, annotations_of(self.data.val, names), tuple(range(1, len(names) + 1)))

        def watched(items: Any) -> Iterator[Any]:
            for item in items:
                if watcher.stop():
                    raise Stopped
                yield item

        with Detector(backend, postprocess) as detector:
            metrics = evaluate(detector, truth, Path("/"), watched)
        return {name: metrics[name] for name in ("AP", "AP50", "AP75")}

    def _save_weights(self, suffix: str = "") -> Path:
        path = self.output / f"{self.name}{suffix}.weights"
        header = WeightsHeader(seen=self.step * self.batch_size)
        save_darknet_weights(self.spec, weights_from_module(self._average_network()), path, header)
        return path

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Objects]]:
        """Batches `first`, `first` + 1, ... of an epoch, made ahead by threads."""
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.samples))
        mosaic = self.settings.uses_mosaic(epoch)
        indices = iter(order[first * self.batch_size : self.steps_per_epoch * self.batch_size].tolist())
        with ThreadPoolExecutor(self.resources.workers) as pool:
            pending = [
                pool.submit(self.samples, epoch, index, mosaic=mosaic) for index in islice(indices, 3 * self.batch_size)
            ]
            try:
                while pending:
                    samples = [future.result() for future in pending[: self.batch_size]]
                    ahead = islice(indices, self.batch_size)
                    pending = pending[self.batch_size :]
                    pending += [pool.submit(self.samples, epoch, index, mosaic=mosaic) for index in ahead]
                    yield _batch_from_samples(samples, self.device)
            finally:
                for future in pending:
                    future.cancel()

    @property
    def _mixed_precision(self) -> bool:
        return self.device.type == "cuda"

    def _average_network(self) -> YoloNetwork:
        network = self.average.module
        assert isinstance(network, YoloNetwork)
        return network

    def _save(self) -> None:
        network, average = self.network.state_dict(), self._average_network().state_dict()
        state = Checkpoint(
            settings=self.settings.to_plain(),
            cfg=self.cfg,
            name=self.name,
            class_names=list(self.data.class_names),
            fingerprint=self.data.fingerprint,
            step=self.step,
            network=network,
            average=average,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            sums=self.sums,
            history=self.history,
        )
        save_checkpoint(state, self.output / "checkpoint.pt")
        self._saved_at = time.monotonic()

    def _restore(self, state: Checkpoint) -> None:
        self.network.load_state_dict(state.network)
        self._average_network().load_state_dict(state.average or state.network)
        self.average.n_averaged.fill_(state.step)
        if state.optimizer:
            self.optimizer.load_state_dict(state.optimizer)
            self.scaler.load_state_dict(state.scaler)


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


def _batch_from_samples(samples: Sequence[Sample], device: torch.device) -> tuple[Tensor, Objects]:
    """(N, 3, H, W) float32 RGB 0..1 on the device, channels last, and the labels."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples])).to(device, non_blocking=True)
    # Reversed channels seen as NCHW: the memory stays (N, H, W, 3).
    images = pixels.flip(3).permute(0, 3, 1, 2).float() / 255
    objects = Objects(
        np.concatenate([sample.cxcywh for sample in samples]),
        np.concatenate([sample.class_ids for sample in samples]).astype(np.int64),
        np.repeat(np.arange(len(samples)), [len(sample.class_ids) for sample in samples]),
    )
    return images, objects


def _training_keys(settings: TrainSettings, num_images: int) -> dict[str, object]:
    """For the record, by Darknet's names, in the [net] section."""
    steps_per_epoch = max(1, num_images // settings.batch_size)
    return {
        "learning_rate": settings.learning_rate,
        "momentum": settings.momentum,
        "decay": settings.weight_decay,
        "burn_in": round(settings.warmup_epochs * steps_per_epoch),
        "max_batches": settings.epochs * steps_per_epoch,
    }
