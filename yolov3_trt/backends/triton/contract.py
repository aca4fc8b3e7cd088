"""What this package's models on a server promise, in the parameters of their configuration; `deploy triton` writes it.

======================  =======================================================================
`yolov3_trt_contract`   CONTRACT
`yolov3_trt_variant`    a `Variant`: what the server runs it with, and so what goes in and out
`yolov3_trt_meta`       the sidecar, as JSON
======================  =======================================================================
"""

import json
import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from yolov3_trt.backends.triton.model_config import ModelConfig, parameters_of
from yolov3_trt.errors import BackendError, MetaError
from yolov3_trt.meta import (
    INPUT_NAME,
    InputStage,
    ModelMeta,
    OutputStage,
    model_meta_from_json,
    to_json,
)

CONTRACT = "yolov3_trt.triton/1"
CONTRACT_KEY, VARIANT_KEY, META_KEY = "yolov3_trt_contract", "yolov3_trt_variant", "yolov3_trt_meta"
# Inputs of the python variant: exactly one of the first two, and the thresholds if they are not the model's own.
ENCODED, FRAME, POSTPROCESS = "encoded", "frame", "postprocess"
# What clients rely on of the sidecar; precision, hashes and versions may change from version to version and server to server.
_CLIENT_FIELDS = (
    "class_names",
    "input_stage",
    "output_stage",
    "rows_layout",
    "channels",
    "input_hw",
    "frame_hw",
    "heads",
    "batch",
    "preprocess",
    "postprocess",
)
_DTYPES = {"float32": "FP32", "int32": "INT32"}  # Triton's, by NumPy's
_SERVE_IT = "serve it with `yolov3_trt deploy triton` of this version"


class Variant(str, Enum):
    """What the server runs a model with."""

    TENSORRT = "tensorrt"  # the plan's own input and outputs
    ONNXRUNTIME = "onnxruntime"  # the graph's
    PYTHON = "python"  # this package's Detector: pictures in, detections in image px out


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model."""

    name: str
    dtype: str  # Triton's, e.g. "FP32"; "BYTES" is a text, which a configuration calls TYPE_STRING
    dims: tuple[int, ...]  # per picture; -1 is any


@dataclass(frozen=True)
class Contract:
    """What a model on a server is."""

    variant: Variant
    meta: ModelMeta
    max_batch: int  # pictures of a request at most; 0: as many as the batch, which is fixed

    @property
    def result_bytes(self) -> int:
        """Of the largest answer to a request."""
        per_picture = sum(4 * math.prod(tensor.dims) for tensor in outputs_of(self.variant, self.meta))
        return per_picture * max(self.max_batch, self.meta.batch.max)

    def difference(self, other: "Contract") -> str:
        """The first thing that keeps requests for one from being taken by the other, with both values; empty: nothing does."""
        if self.variant is not other.variant:
            return f"variant: {self.variant.value} and {other.variant.value}"
        mine, others = to_json(self.meta), to_json(other.meta)
        different = (name for name in _CLIENT_FIELDS if mine[name] != others[name])
        return next((f"{name}: {_short(mine[name])} and {_short(others[name])}" for name in different), "")


def contract_of(config: ModelConfig, where: str, fix: str = _SERVE_IT) -> Contract:
    """Read and check what a model's configuration promises.

    Args:
        config: as the server says it.
        where: server and model, for errors.
        fix: what to do about a fault, for errors.

    Raises:
        BackendError: the model is not this package's, of another version's contract, or its inputs and outputs are not what
            its sidecar says.
    """
    given = parameters_of(config)
    found = given.get(CONTRACT_KEY)
    if found != CONTRACT:
        got = "there is none: the model is not this package's" if found is None else f"got {found!r}"
        raise BackendError(f"{where}: {CONTRACT_KEY}: {got}; expected {CONTRACT!r}; {fix}")
    try:
        variant = Variant(given.get(VARIANT_KEY, ""))
        meta = model_meta_from_json(given.get(META_KEY, ""), f"{where}: {META_KEY}")
    except MetaError as exc:
        raise BackendError(f"{exc}; {fix}") from exc
    except ValueError as exc:
        raise BackendError(f"{where}: {VARIANT_KEY}: {exc}; expected tensorrt, onnxruntime or python; {fix}") from exc
    max_batch = int(config.get("max_batch_size", 0))
    if variant is Variant.PYTHON and max_batch < 1:
        raise BackendError(f"{where}: max_batch_size is {max_batch}; expected 1 or more; {fix}")
    for kind, expected in (("input", inputs_of(variant, meta)), ("output", outputs_of(variant, meta))):
        if fault := _fault(_tensors(config, kind, max_batch), expected):
            raise BackendError(f"{where}: {kind} {fault}; {fix}")
    if (
        variant is not Variant.PYTHON and 0 < max_batch < meta.batch.max
    ):  # the server takes less than the artifact could
        batch = replace(meta.batch, opt=min(meta.batch.opt, max_batch), max=max_batch)
        meta = replace(meta, batch=batch)
    return Contract(variant, meta, max_batch)


def inputs_of(variant: Variant, meta: ModelMeta) -> tuple[TensorSpec, ...]:
    """What goes into a model."""
    if variant is Variant.PYTHON:
        frame = TensorSpec(FRAME, "UINT8", (*(meta.frame_hw or (-1, -1)), 3))
        return TensorSpec(ENCODED, "BYTES", (1,)), frame, TensorSpec(POSTPROCESS, "FP32", (3,))
    dtype = "UINT8" if meta.input_stage is InputStage.PIXELS else "FP32"
    return (TensorSpec(INPUT_NAME, dtype, meta.input_shape(meta.batch.max)[1:]),)


def outputs_of(variant: Variant, meta: ModelMeta) -> tuple[TensorSpec, ...]:
    """What comes out of a model: its heads, or DETECTION_OUTPUTS with room for the most detections of a picture."""
    is_python = variant is Variant.PYTHON
    shapes = (replace(meta, output_stage=OutputStage.DETECTIONS) if is_python else meta).output_shapes(1)
    return tuple(
        TensorSpec(name, _DTYPES[dtype], (1,) if is_python and len(shape) == 1 else shape[1:])
        for name, (dtype, shape) in shapes.items()
    )


def _tensors(config: ModelConfig, kind: str, max_batch: int) -> dict[str, TensorSpec]:
    """The inputs or outputs of a configuration by their names; where it has no batch, the first of its dims is one."""
    found = {}
    for tensor in config.get(kind, ()):
        name, dtype = tensor.get("name", ""), str(tensor.get("data_type", "none")).removeprefix("TYPE_")
        dims = tuple(int(dim) for dim in tensor.get("dims", ()))
        found[name] = TensorSpec(name, "BYTES" if dtype == "STRING" else dtype, dims if max_batch > 0 else dims[1:])
    return found


def _fault(got: dict[str, TensorSpec], expected: tuple[TensorSpec, ...]) -> str:
    """Which tensor has another name, type or shape; empty: none. A dimension of -1 fits any."""
    for wanted in expected:
        tensor = got.get(wanted.name)
        if tensor is None:
            return f"{wanted.name!r} is not there; got {sorted(got)}"
        fits = len(tensor.dims) == len(wanted.dims) and all(
            -1 in pair or len(set(pair)) == 1 for pair in zip(tensor.dims, wanted.dims, strict=True)
        )
        # A scalar per picture is written as [1] where the batch is left out: Triton has no empty dims.
        fits = fits or (not wanted.dims and tensor.dims == (1,))
        if tensor.dtype != wanted.dtype or not fits:
            return (
                f"{wanted.name!r} is {tensor.dtype} {list(tensor.dims)} per picture; expected {wanted.dtype} "
                f"{list(wanted.dims)}"
            )
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
