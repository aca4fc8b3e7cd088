"""The peaks and the means of a graph's channels over pictures, one picture at a time."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.calibration.ranges import Run
from yolov3_trt.errors import CalibrationError


def peaks_of_channels(run: Run, inputs: Iterable[NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """The largest value of each channel over all inputs.

    Args:
        run: an input of the graph -> tensors by name, (N, C, 1, 1) float32.
        inputs: just as at inference.

    Returns:
        (C,) by name.

    Raises:
        CalibrationError: there are no inputs, or a tensor holds a value that is not finite.
    """
    peaks: dict[str, NDArray[np.float32]] = {}
    for values in inputs:
        for name, tensor in run(values).items():
            channels = _channels(name, tensor).max(axis=0)
            peaks[name] = np.maximum(peaks[name], channels) if name in peaks else channels
    _require_any(peaks)
    return peaks


def means_of_channels(run: Run, inputs: Iterable[NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """The mean of each channel over all inputs; see `peaks_of_channels`."""
    sums: dict[str, NDArray[np.float64]] = {}
    num_images = 0
    for values in inputs:
        num_images += len(values)
        for name, tensor in run(values).items():
            channels = _channels(name, tensor).sum(axis=0, dtype=np.float64)
            sums[name] = sums[name] + channels if name in sums else channels
    _require_any(sums)
    return {name: (total / num_images).astype(np.float32) for name, total in sums.items()}


def _channels(name: str, tensor: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(tensor).all():
        raise CalibrationError(f"tensor {name!r}: a value is NaN or infinite; expected finite values")
    return tensor.reshape(tensor.shape[:2])


def _require_any(found: dict[str, Any]) -> None:
    if not found:
        raise CalibrationError("there are no pictures to calibrate on; expected one or more")
