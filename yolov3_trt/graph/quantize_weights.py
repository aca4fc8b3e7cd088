"""Weights of a convolution -> int8 and their scales."""

import numpy as np
from numpy.typing import NDArray

INT8_MAX = 127  # -128 is not used: the range is symmetric

# The scale of weights that are all zero, for which any positive one is right. This one is a float16 too.
ZERO_SCALE = 2.0**-20
# Integer kernels, as those of ONNX Runtime, add the bias as a whole number of input scale * weight scale. Where a filter has
# next to no weights but a bias, which is what folding batch norm leaves of a dead channel, that must still fit an int32.
_LARGEST_BIAS = 2.0**30


def weight_scales(
    weights: NDArray[np.float32], bias: NDArray[np.float32] | None, input_scale: float, per_channel: bool
) -> NDArray[np.float32]:
    """Scales at which the largest weight is 127.

    Args:
        weights: (F, C, h, w).
        bias: (F,) or None.
        input_scale: of the activations that the weights meet.
        per_channel: one scale per filter, else one for all.

    Returns:
        (F,) or (), all positive. A filter whose bias dwarfs its weights gets a larger one, see `_LARGEST_BIAS`; rounding
        to it moves its outputs by less than 1e-7 of the bias for each weight.
    """
    largest = np.abs(weights.astype(np.float64)).reshape(len(weights), -1).max(axis=1)  # (F,)
    floor = np.zeros(len(weights)) if bias is None else np.abs(bias) / (input_scale * _LARGEST_BIAS)
    if not per_channel:
        largest, floor = largest.max(), floor.max()
    scales = np.maximum(largest / INT8_MAX, floor).astype(np.float32)
    return np.where(scales > 0, scales, np.float32(ZERO_SCALE))


def int8_weights(weights: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Weights (F, C, h, w) as whole multiples of their scales, (F,) or (): values in -127..127.

    Rounds as QuantizeLinear does: divides in float32, then half to even.
    """
    divisors = scales.reshape(-1, *[1] * (weights.ndim - 1)) if scales.ndim else scales  # (F, 1, 1, 1)
    quantized: NDArray[np.int8] = np.clip(np.rint(weights / divisors), -INT8_MAX, INT8_MAX).astype(np.int8)
    return quantized


def float16_above(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest float16 values that are not below the scales, as float32: none becomes 0 and no value is cut off."""
    half = scales.astype(np.float16)
    return np.where(half < scales, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)
