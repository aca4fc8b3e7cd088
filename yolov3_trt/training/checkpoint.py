"""The state of a training run as one file, whole or absent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yolov3_trt.errors import TrainingError
from yolov3_trt.files import replacing

FORMAT = 1


@dataclass
class Checkpoint:
    """Everything that a run needs to go on as if it had not stopped."""

    settings: dict[str, Any]  # of TrainSettings, as plain values
    cfg: str  # text of the network's .cfg
    name: str  # of the network
    class_names: list[str]
    fingerprint: str  # of the data set
    step: int  # optimiser steps done
    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    sums: list[float]  # of the loss's parts over the steps of the epoch under way
    history: list[dict[str, Any]]  # of the epochs that are over


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as partial:
        torch.save({"format": FORMAT, **vars(checkpoint)}, partial)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are ever unpickled.

    Raises:
        TrainingError: it is missing, damaged, or another program's.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(
            f"{path}: there is no checkpoint; --resume expects the folder (-o) of an earlier run"
        ) from None
    except Exception as exc:  # what a damaged file makes its readers raise has no common base
        reason = str(exc).partition("\n")[0]
        raise TrainingError(f"{path}: not a checkpoint of this program, or damaged ({reason})") from exc
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise TrainingError(f"{path}: not a checkpoint of this version; start anew with --weights")
    try:
        return Checkpoint(**content)
    except TypeError as exc:
        raise TrainingError(f"{path}: not a checkpoint of this version ({exc}); start anew with --weights") from exc
