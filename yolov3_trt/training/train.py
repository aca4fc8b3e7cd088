"""The training loop: a data set and a network in, Darknet weights out.

A run lives in a folder: `checkpoint.pt` (all it needs to go on), `history.json` (an entry per epoch) and the trained
network as `NAME.cfg`, `NAME.names`, `NAME.weights` (of the best epoch by AP on the validation pictures, else of the last)
and `NAME-last.weights`. Each of them is whole or absent at any moment.
"""

import copy
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yolov3_trt.arguments import spelled
from yolov3_trt.backends.pytorch import TorchBackend
from yolov3_trt.data.labelled import DataSet
from yolov3_trt.detector import Detector
from yolov3_trt.errors import TrainingError, Yolov3TrtError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, evaluate
from yolov3_trt.files import make_folder, write_text
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import meta_from_spec
from yolov3_trt.models import Model, load_model
from yolov3_trt.models.darknet_cfg import parse_cfg
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.models.darknet_weights import Weights, WeightsHeader, save_darknet_weights
from yolov3_trt.reference import module_from_spec, weights_from_module
from yolov3_trt.spec import ModelSpec
from yolov3_trt.training.augment import Samples
from yolov3_trt.training.batches import Batches
from yolov3_trt.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from yolov3_trt.training.learner import LOSS_PARTS, Learner
from yolov3_trt.training.settings import TrainSettings
from yolov3_trt.training.watcher import StepReport, Stopped, Watcher


@dataclass(frozen=True)
class Resources:
    """What a run may use; none of it changes the result beyond rounding."""

    device: str = "cpu"
    workers: int = 2  # threads that make samples
    cache_bytes: int = 512 * 2**20  # pictures kept in memory


def device_by_name(name: str) -> str:
    """`auto`, `cpu` or `cuda` -> the device to train on; auto is a CUDA GPU where PyTorch finds one.

    Raises:
        TrainingError: a GPU was asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise TrainingError(
            f"{spelled('device', 'cuda')}: PyTorch finds no CUDA GPU; leave it out, or install a CUDA build of torch"
        )
    return "cuda" if has_cuda and name != "cpu" else "cpu"


class TrainingRun:
    """One run in its folder. `start` a new one or `resume` an old one, then `run` it."""

    def __init__(
        self, state: Checkpoint, data: DataSet, output: Path, resources: Resources | None = None
    ) -> None:  # use `start` or `resume`
        self.resources = resources or Resources()
        self.output, self.data, self.name, self.cfg = output, data, state.name, state.cfg
        with _damage_told(output):
            self.settings = TrainSettings(**state.settings)
            self.spec = parse_cfg(self.cfg.encode(), name=state.name, file=f"{output / state.name}.cfg")
        self.device = torch.device(self.resources.device)
        self._learner = Learner(self.spec, self.settings, self.device, output)
        with _damage_told(output):
            self._learner.restore(state)
        self._sums = list(state.sums)
        self.history = copy.deepcopy(state.history)
        samples = Samples(
            data.train,
            self.spec.input_hw,
            meta_from_spec(self.spec, data.class_names).preprocess,
            self.settings,
            seed=self.settings.seed,
            cache_bytes=self.resources.cache_bytes,
        )
        self._batches = Batches(samples, self.settings, self.device, self.resources.workers, self.spec.channels)
        self.steps_per_epoch = self._batches.per_epoch
        self._saved_at = time.monotonic()

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self._learner.step

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
        if (kind := spec.heads[0].kind) not in (HeadKind.YOLO, HeadKind.SCALED):
            raise TrainingError(
                f"{spec.name}: its heads are of the kind {kind.value}, which can be run but not trained here; expected [yolo]"
            )
        if spec.num_classes != len(data.class_names):
            raise TrainingError(
                f"{spec.name}: {spec.num_classes} classes; {data.path} has {len(data.class_names)}: change the heads first"
            )
        if (output / "checkpoint.pt").exists():
            raise TrainingError(
                f"{output}: there is a run here already; go on with {spelled('resume', str(output))}, or give another "
                f"{spelled('folder', option='-o')}"
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
                f"a new one with {spelled('weights', f'{output / state.name}-last.weights')}"
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
        self._started = time.monotonic()
        epoch = len(self.history)
        first = self.step - epoch * self.steps_per_epoch
        for number, (images, objects) in enumerate(self._batches.of_epoch(epoch, first), start=first):
            rate = self.settings.learning_rate_at(self.step, self.steps_per_epoch)
            loss = self._learner.learn(images, objects, rate)
            for part, name in enumerate(LOSS_PARTS):
                self._sums[part] += loss[name]
            means = {name: self._sums[part] / (number + 1) for part, name in enumerate(LOSS_PARTS)}
            watcher.on_step(StepReport(epoch, number, self.steps_per_epoch, means))
            if watcher.stop():
                raise Stopped
            if time.monotonic() - self._saved_at > self.settings.checkpoint_every_s:
                self._save()
        assert self.step == stop_at

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
            "loss": {name: self._sums[part] / self.steps_per_epoch for part, name in enumerate(LOSS_PARTS)},
            "train_s": started - self._started,
            "val_s": time.monotonic() - started,
            **accuracy,
        }
        self.history.append(entry)
        self._sums = [0.0] * len(LOSS_PARTS)
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
        postprocess = backend.meta.postprocess.override(conf=EVAL_CONF_THRESHOLD)
        truth = self.data.validation.truth_for(names)

        def watched(items: Any) -> Iterator[Any]:
            for item in items:
                if watcher.stop():
                    raise Stopped
                yield item

        with Detector(backend, postprocess) as detector:
            metrics = evaluate(detector, truth, watched)
        return {name: metrics[name] for name in ("AP", "AP50", "AP75")}

    def _save_weights(self, suffix: str = "") -> Path:
        path = self.output / f"{self.name}{suffix}.weights"
        header = WeightsHeader(seen=self.step * self._batches.size)
        save_darknet_weights(self.spec, weights_from_module(self._learner.average), path, header)
        return path

    def _save(self) -> None:
        state = Checkpoint(
            settings=self.settings.to_plain(),
            cfg=self.cfg,
            name=self.name,
            class_names=list(self.data.class_names),
            fingerprint=self.data.fingerprint,
            sums=self._sums,
            history=self.history,
            **self._learner.state(),
        )
        save_checkpoint(state, self.output / "checkpoint.pt")
        self._saved_at = time.monotonic()


@contextmanager
def _damage_told(output: Path) -> Iterator[None]:
    """For what reads the state: whatever it raises is the checkpoint's fault, but for a GPU that is full."""
    try:
        yield
    except (Yolov3TrtError, torch.OutOfMemoryError):
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as exc:
        reason = f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"
        raise TrainingError(
            f"{output}: its checkpoint is damaged ({reason}); start anew with {spelled('weights')}"
        ) from exc


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
