"""Train or fine-tune a model on a user's own classes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import flag, integer, one_of, text
from yolov3_trt.arguments import path as path_of
from yolov3_trt.arguments import size as size_of
from yolov3_trt.backends import DeviceName
from yolov3_trt.data.labelled import DataSet
from yolov3_trt.data.reading import load_data_set
from yolov3_trt.errors import SettingError, require
from yolov3_trt.files import Written
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.settings import settings_from
from yolov3_trt.training.cfg_keys import unused_keys
from yolov3_trt.training.settings import TrainSettings
from yolov3_trt.training.watcher import Stopped, Watcher

_MAX_CACHE_MIB = 1 << 20


@dataclass(frozen=True, repr=False)
class Trained(Written):
    """A trained network; goes wherever the path of a `.cfg` does: its weights and names lie beside it.

    Attributes:
        path: of the `.cfg`.
        best: entry of the epoch that the weights are of: its number, losses, and AP where there were pictures to validate.
        history: an entry per epoch.
        finished: all epochs are done; otherwise `watcher` stopped it, and it can be resumed.
    """

    path: Path
    best: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    finished: bool = True

    def to_json(self) -> dict[str, Any]:
        """As `train --json` writes it."""
        return {"cfg": str(self.path), "best": dict(self.best), "history": [dict(entry) for entry in self.history]}


def train(
    model: Any = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    data: str | os.PathLike[str] | DataSet,
    split: str | None = None,
    skip_faulty: bool = False,
    resume: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    input_size: Any = None,
    from_scratch: bool = False,
    device: str = "auto",
    workers: int = 2,
    cache_mib: int = 512,
    watcher: Watcher | None = None,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> Trained:
    """Train or fine-tune a model on a labelled set; writes a Darknet `.cfg`, `.names` and `.weights`.

    Args:
        model: a built-in name or a `.cfg`; its heads are made for the classes of the data.
        folder: of the run; None: `runs/train`.
        data: a labelled set, see `data.labelled_set`: a YOLO data.yaml, a Darknet .data file, a COCO JSON, a VOC folder.
        split: which part of it is validated on; None: `val`, where there is one.
        skip_faulty: leave out faulty labels and pictures, which is said, instead of refusing the set.
        resume: folder of a run to go on with; everything but `data` comes from there.
        weights: Darknet `.weights` to begin with; so are the next two of the model, see `load_model`.
        names: of the classes of those weights.
        input_size: px.
        from_scratch: begin with random weights.
        device: `cpu`, `cuda` or `auto`.
        workers: threads that read and augment pictures.
        cache_mib: memory for pictures, so that they are read once.
        watcher: is told of each step and epoch, and may stop the run.
        reporter: is told how it gets on.
        settings: `epochs`, `batch_size`, `learning_rate` (its peak), `warmup_epochs`, `val_every`, `seed`, `prior_iou`,
            `box_loss` (`ciou` or `coordinates`); how far samples vary: `mosaic`, `flip`, `scale`, `translate`, `hue`,
            `saturation`, `value`; and the others of `training.settings.TrainSettings`.

    Raises:
        SettingError: an argument has no such value, or does not go with another.
        DataSetError: faults of the data set; it holds all of them.
        TrainingError: the run cannot start or go on.
        MissingDependency: PyTorch is not installed.

    >>> trained = train("yolov3-tiny", data="data.yaml", epochs=50)  # doctest: +SKIP
    >>> export(trained, precision="fp16")  # doctest: +SKIP
    """
    require("torch", extra="train")  # which these import
    from yolov3_trt.training.start import random_start, starting_point
    from yolov3_trt.training.train import Resources, TrainingRun, device_by_name

    resources = Resources(
        device_by_name(one_of("device", device, DeviceName).value),
        integer("workers", workers, 1, 1024),
        integer("cache_mib", cache_mib, 0, _MAX_CACHE_MIB) * 2**20,
    )
    model, weights, names = (
        None if value is None else text(name, value)
        for name, value in (("model", model), ("weights", weights), ("names", names))
    )
    begin_with = {"model": model, "folder": folder, "weights": weights, "names": names, "input_size": input_size}
    told = check_start(resume, from_scratch, **begin_with, **settings)
    data_set = _read(data, split, flag("skip_faulty", skip_faulty), reporter)
    if resume is not None:
        run = TrainingRun.resume(path_of("resume", resume), data_set, resources)
        reporter.say(f"resuming {resume}: {len(run.history)} of {run.settings.epochs} epochs done, step {run.step}")
    else:
        classes, hw = data_set.class_names, None if input_size is None else size_of("input_size", input_size)
        begin = (
            random_start(model, classes, told.seed, hw)
            if from_scratch
            else starting_point(model, classes, told.seed, weights=weights, names=names, input_size=hw)
        )
        for note in begin.notes:
            reporter.say(note)
        output = Path("runs/train") if folder is None else path_of("folder", folder)
        run = TrainingRun.start((begin.spec, begin.weights), data_set, told, output, resources)
        if Path(model).is_file():
            for line in unused_keys(Path(model).read_bytes(), told):
                reporter.say(f"note: {line}")
    reporter.say(
        f"{run.name}: {len(data_set.train)} pictures to train on, {len(data_set.val)} to validate; "
        f"{run.settings.epochs} epochs of {run.steps_per_epoch} steps on {run.device.type}"
    )
    watcher, finished = watcher or Watcher(), True
    watcher.on_start(run.settings)
    try:
        run.run(watcher)
    except Stopped:
        finished = False
    return Trained(run.output / f"{run.name}.cfg", _best(run.history), tuple(run.history), finished)


def check_start(resume: Any, from_scratch: Any, **given: Any) -> TrainSettings:
    """Refuse at once what `train` cannot begin with.

    Args:
        resume: see `train`.
        from_scratch: see `train`.
        given: the other arguments of `train` that are of the model, and its settings.

    Raises:
        SettingError: an argument has no such value, or does not go with another.
    """
    start = ("model", "folder", "weights", "names", "input_size")
    told: TrainSettings
    (told,) = settings_from({name: value for name, value in given.items() if name not in start}, TrainSettings)
    if flag("from_scratch", from_scratch):
        given["from_scratch"] = True
    if resume is not None:
        for name, value in given.items():
            if value is not None:
                raise SettingError(name, "given with resume, which takes everything from the checkpoint; leave it out")
    elif given["model"] is None:
        raise SettingError("model", "missing; expected a built-in model or a .cfg, or resume")
    elif from_scratch and given["weights"] is not None:
        raise SettingError("from_scratch", "given with weights; give one of them")
    return told


def _best(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The epoch whose weights are kept: the last of the best, and of all where nothing was validated."""
    return max(reversed(history), key=lambda entry: entry.get("AP") or 0.0, default={})


def _read(data: str | os.PathLike[str] | DataSet, split: str | None, skip_faulty: bool, reporter: Reporter) -> DataSet:
    if isinstance(data, DataSet):
        return data
    data_set = load_data_set(
        path_of("data", data),
        lambda items: reporter.track(items, "checking pictures", None),
        split=split,
        skip_faulty=skip_faulty,
    )
    for note in data_set.notes:
        reporter.say(f"note: {note}")
    return data_set
