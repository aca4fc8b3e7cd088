"""The state of a training run as one file, whole or absent."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yolov3_trt.arguments import spelled
from yolov3_trt.errors import OutputError, TrainingError
from yolov3_trt.files import replacing

FORMAT = 2


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
        try:
            torch.save({"format": FORMAT, **vars(checkpoint)}, partial)
        except RuntimeError as exc:  # its own, of a full disk
            raise OutputError(f"{path}: cannot be written ({str(exc).splitlines()[0]})") from exc


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are ever unpickled.

    Raises:
        TrainingError: it is missing, damaged, or another program's.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(
            f"{path}: there is no checkpoint; {spelled('resume')} expects the folder of an earlier run"
        ) from None
    except Exception as exc:  # what a damaged file makes its readers raise has no common base
        reason = str(exc).partition("\n")[0]
        raise TrainingError(f"{path}: not a checkpoint of this program, or damaged ({reason})") from exc
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise TrainingError(f"{path}: not a checkpoint of this version; start anew with {spelled('weights')}")
    try:
        checkpoint = Checkpoint(**content)
    except TypeError as exc:
        raise TrainingError(
            f"{path}: not a checkpoint of this version ({exc}); start anew with {spelled('weights')}"
        ) from exc
    if wrong := _fault(checkpoint):
        raise TrainingError(
            f"{path}: not a checkpoint of this program, or damaged ({wrong}); start anew with {spelled('weights')}"
        )
    return checkpoint


def _fault(checkpoint: Checkpoint) -> str | None:
    """What is not of its type, or no name for a file in the run's folder."""
    kinds: dict[str, type] = {
        "cfg name fingerprint": str,
        "step": int,
        "settings network average optimizer scaler": dict,
        "class_names sums history": list,
    }
    for names, kind in kinds.items():
        for name in names.split():
            value = getattr(checkpoint, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                return f"{name} is no {kind.__name__}"
    items: dict[str, type | tuple[type, ...]] = {"class_names": str, "sums": (int, float), "history": dict}
    for name, kinds_of_items in items.items():
        if not all(isinstance(item, kinds_of_items) for item in getattr(checkpoint, name)):
            return f"{name} holds something else"
    for name in ("network", "average"):
        if not all(isinstance(value, torch.Tensor) for value in getattr(checkpoint, name).values()):
            return f"{name} holds something else than tensors"
    if not re.fullmatch(r"[\w+-][\w.+ -]{0,99}", checkpoint.name):
        return f"name is {checkpoint.name!r}, which names no file"
    return None
