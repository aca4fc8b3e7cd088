"""Weights that learnt to be int8: an .npz beside the calibration table, which names it and its hash."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import CalibrationError
from yolov3_trt.files import replacing, sha256_of_file

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Distilled:
    """The weights that an INT8 graph of a table has instead of the model's.

    Attributes:
        file: name of the .npz in the folder of the table: float32 by the name of the constant in the graph, after `doublings`
            and before `bias_shifts`.
        sha256: of that file.
        steps: of the optimiser that were asked for.
        taken: after how many of them these are the weights.
        before: distance of the heads to those of FP32 on held pictures with the model's weights; see `training.distill`.
        after: with these.
    """

    file: str
    sha256: str
    steps: int
    taken: int
    before: float
    after: float

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file:
            raise CalibrationError(f"distilled: file {self.file!r}; expected a name in the folder of the table")


def save_weights(weights: Weights, table_path: Path) -> tuple[str, str]:
    """Write weights beside a table, atomically; equal ones give equal bytes.

    Returns:
        Name and SHA-256 of the file.

    Raises:
        OutputError: it cannot be written.
    """
    path = table_path.with_suffix(".npz")
    with replacing(path, ".npz") as partial:
        np.savez(partial, **dict(sorted(weights.items())))  # type: ignore[arg-type]  # of which none is `allow_pickle`
    return path.name, sha256_of_file(path)


def load_weights(distilled: Distilled | None, table_path: Path) -> dict[str, NDArray[np.float32]]:
    """Read what `save_weights` wrote; nothing where nothing was distilled.

    Raises:
        CalibrationError: it is missing, damaged, or not the one that the table was written with.
    """
    if distilled is None:
        return {}
    path = table_path.with_name(distilled.file)
    try:
        same = sha256_of_file(path) == distilled.sha256
        found = dict(np.load(path, allow_pickle=False)) if same else None
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise CalibrationError(
            f"{path}: the distilled weights of {table_path.name} cannot be read ({exc}); keep both files together, or "
            "calibrate again with distillation"
        ) from exc
    if found is None:
        raise CalibrationError(
            f"{path}: these are not the distilled weights that {table_path.name} was written with; calibrate again with "
            "distillation"
        )
    return found
