"""Those who watch a run: what they are told, and how they stop it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yolov3_trt.training.settings import TrainSettings


@dataclass(frozen=True)
class StepReport:
    """What a step tells those who watch."""

    epoch: int  # from 0
    step: int  # within the epoch, from 0
    steps: int  # of an epoch
    loss: dict[str, float]  # means of LOSS_PARTS over the epoch so far


@dataclass(frozen=True)
class Watcher:
    """Who is told of the progress, and who may stop the run."""

    on_step: Callable[[StepReport], None] = lambda report: None
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None
    stop: Callable[[], bool] = lambda: False  # asked after every step and validation picture
    on_start: Callable[[TrainSettings], None] = lambda settings: None  # a resumed run has those of its checkpoint


class Stopped(Exception):  # not an error
    """The watcher stopped the run; its checkpoint is written."""
