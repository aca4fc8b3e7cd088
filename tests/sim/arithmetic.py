"""Convolutions as tensor cores compute them: what an engine rounds that ONNX Runtime does not.

A graph's other operations are onnx's reference, so that small graphs at small sizes are run in a second or two.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

_TF32_DROPS = 13  # of float32's 23 bits
_STEP = 16  # products that a tensor core adds up at once


class Arithmetic(Enum):
    """What happens in a convolution."""

    TF32 = "float32 rounded to 10 bits before each product"
    HALF_SUMS = "float16, also the sum so far: the f16f16_f16f16_f16 kernels of TensorRT"
    FLOAT_SUMS = "float16, summed up in float32"


def runner(graph: bytes, arithmetic: Arithmetic) -> Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """As `backends.ort.graph_runner`, with another arithmetic."""
    model = onnx.load_from_string(graph)
    conv = type("Conv", (_Conv,), {"op_domain": "", "arithmetic": arithmetic})
    session = ReferenceEvaluator(model, new_ops=[conv, Resize, MaxPool, LeakyRelu])
    names = [output.name for output in model.graph.output]
    return lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True))


def as_tf32(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to the nearest of 10 bits, ties away from zero as `cvt.rna.tf32` does."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32(1 << (_TF32_DROPS - 1))
    return ((bits + half) >> _TF32_DROPS << _TF32_DROPS).view(np.float32)


class _Conv(OpRun):
    arithmetic: Arithmetic

    def _run(  # type: ignore[no-untyped-def]
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None
    ):
        top, left, bottom, right = pads or (0, 0, 0, 0)
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        step_y, step_x = strides or (1, 1)
        windows = sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::step_y, ::step_x]
        out, count = [], group or 1
        for taps, kernels in zip(np.split(windows, count, axis=1), np.split(w, count), strict=True):
            # (N, C, h, w, kh, kw) -> (N, h, w, K), a pixel's channels side by side as in TensorRT's NHWC
            columns = taps.transpose(0, 2, 3, 4, 5, 1).reshape(*taps.shape[:1], *taps.shape[2:4], -1)
            out.append(self._product(columns, kernels.transpose(2, 3, 1, 0).reshape(-1, len(kernels))))
        sums = np.concatenate(out, axis=-1)
        whole = sums if b is None else (sums + b).astype(x.dtype)
        return (np.ascontiguousarray(whole.transpose(0, 3, 1, 2)),)

    def _product(self, columns: NDArray[Any], kernels: NDArray[Any]) -> NDArray[Any]:
        if self.arithmetic is Arithmetic.TF32:
            return as_tf32(columns) @ as_tf32(kernels)
        columns, kernels = columns.astype(np.float32), kernels.astype(np.float32)
        if self.arithmetic is Arithmetic.FLOAT_SUMS:
            return (columns @ kernels).astype(np.float16)
        sums = np.zeros((*columns.shape[:-1], kernels.shape[1]), np.float16)
        for k in range(0, len(kernels), _STEP):
            sums = (sums + columns[..., k : k + _STEP] @ kernels[k : k + _STEP]).astype(np.float16)
        return sums


class Resize(OpRun):
    """Nearest, by whole factors: onnx's own goes value by value."""

    op_domain = ""

    def _run(self, x, roi, scales, *others, **how):  # type: ignore[no-untyped-def]
        assert how["mode"] == "nearest" and tuple(scales[:2]) == (1, 1)
        return (x.repeat(int(scales[2]), axis=2).repeat(int(scales[3]), axis=3),)


class MaxPool(OpRun):
    """Without what onnx's own rounds off a map that is padded on one side alone."""

    op_domain = ""

    def _run(self, x, **how):  # type: ignore[no-untyped-def]
        top, left, bottom, right = how.get("pads") or (0, 0, 0, 0)
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
        step_y, step_x = how.get("strides") or (1, 1)
        windows = sliding_window_view(padded, tuple(how["kernel_shape"]), axis=(2, 3))[:, :, ::step_y, ::step_x]
        return (windows.max(axis=(4, 5)),)


class LeakyRelu(OpRun):
    """In the type of its input: onnx's own gives float32 for float16."""

    op_domain = ""

    def _run(self, x, alpha=None):  # type: ignore[no-untyped-def]
        return (np.where(x < 0, x * x.dtype.type(alpha), x),)
