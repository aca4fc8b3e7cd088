"""What this package's models on a server promise, in the parameters of their config; `deploy triton` writes it.

======================  =======================================================================
`yolov3_trt_contract`   CONTRACT
`yolov3_trt_variant`    a `Variant`: what the server runs it with, and so what goes in and out
`yolov3_trt_meta`       the sidecar, as JSON
======================  =======================================================================
"""

import dataclasses
from dataclasses import dataclass
from enum import Enum

from yolov3_trt.backends.triton.connection import ServedModel, ServedTensor
from yolov3_trt.errors import BackendError, MetaError
from yolov3_trt.meta import DETECTION_OUTPUTS, INPUT_NAME, InputStage, ModelMeta, OutputStage, model_meta_from_json

CONTRACT = "yolov3_trt.triton/1"
# Inputs of the python variant: exactly one of the first two, and the thresholds if they are not the model's own.
ENCODED, FRAME, POSTPROCESS = "encoded", "frame", "postprocess"
_AGAIN = "serve it with `yolov3_trt deploy triton`"
# Two servers that differ in these only can take each other's requests.
_FREE_FIELDS = (
    "name",
    "precision",
    "opset",
    "layers_sha256",
    "weights_sha256",
    "onnx_sha256",
    "calibration_sha256",
    "versions",
)


class Variant(str, Enum):
    """What the server runs a model with."""

    TENSORRT = "tensorrt"  # the plan's own input and outputs
    ONNXRUNTIME = "onnxruntime"  # the graph's
    PYTHON = "python"  # this package's Detector: pictures in, detections in image px out


@dataclass(frozen=True)
class Contract:
    """What a model on a server is."""

    variant: Variant
    meta: ModelMeta
    max_detections: int | None = None  # most that a response of the python variant holds

    def differences(self, other: "Contract") -> str:
        """What keeps the other's requests from being taken here, as text; empty where nothing does."""
        fields = [field.name for field in dataclasses.fields(ModelMeta) if field.name not in _FREE_FIELDS]
        different = [name for name in fields if getattr(self.meta, name) != getattr(other.meta, name)]
        different += [name for name in ("variant", "max_detections") if getattr(self, name) != getattr(other, name)]
        return ", ".join(different)


def contract_of(served: ServedModel, where: str) -> Contract:
    """Read and check what a server's config promises.

    Args:
        served: the config.
        where: server and model, for errors.

    Raises:
        BackendError: the model is not this package's, of another version's contract, or its inputs and outputs are not what
            its sidecar says.
    """
    given = served.parameters
    found = given.get("yolov3_trt_contract")
    if found is None:
        raise BackendError(
            f"{where}: this model's config has no yolov3_trt_contract: it is not this package's; {_AGAIN}"
        )
    if found != CONTRACT:
        raise BackendError(
            f"{where}: its contract is {found!r}; expected {CONTRACT!r} (another version of yolov3_trt made it): {_AGAIN} of "
            "this version"
        )
    try:
        variant = Variant(given.get("yolov3_trt_variant", ""))
        meta = model_meta_from_json(given.get("yolov3_trt_meta", ""), f"{where}: yolov3_trt_meta")
    except MetaError as exc:
        raise BackendError(f"{exc}; {_AGAIN}") from exc
    except ValueError as exc:
        raise BackendError(
            f"{where}: yolov3_trt_variant: {exc}; expected tensorrt, onnxruntime or python; {_AGAIN}"
        ) from exc
    if variant is Variant.PYTHON:
        return Contract(variant, meta, _check_python(served, where))
    _check_tensors(served.inputs, (tensor_input(meta),), served.max_batch > 0, f"{where}: input")
    _check_tensors(served.outputs, tensor_outputs(meta), served.max_batch > 0, f"{where}: output")
    return Contract(variant, meta)


def _check_python(served: ServedModel, where: str) -> int:
    """Returns how many detections a response holds."""
    if served.max_batch < 1:
        raise BackendError(f"{where}: max_batch_size is {served.max_batch}; expected 1 or more; {_AGAIN}")
    inputs = (ServedTensor(ENCODED, "BYTES", (1,)), ServedTensor(FRAME, "UINT8", (-1, -1, 3)))
    thresholds = ServedTensor(POSTPROCESS, "FP32", (3,))
    _check_tensors(served.inputs, (*inputs, thresholds), True, f"{where}: input")
    boxes = next((tensor for tensor in served.outputs if tensor.name == "boxes"), None)
    most = boxes.dims[0] if boxes is not None and boxes.dims else 0
    _check_tensors(served.outputs, detection_outputs(most, (1,)), True, f"{where}: output")
    return most


def tensor_input(meta: ModelMeta) -> ServedTensor:
    """The input of a plan or graph, per picture."""
    dtype = "UINT8" if meta.input_stage is InputStage.PIXELS else "FP32"
    return ServedTensor(INPUT_NAME, dtype, meta.input_shape(meta.batch.max)[1:])


def tensor_outputs(meta: ModelMeta) -> tuple[ServedTensor, ...]:
    """The outputs of a plan or graph, per picture."""
    if meta.output_stage is OutputStage.HEADS:
        return tuple(ServedTensor(head.name, "FP32", (head.channels, *head.grid_hw)) for head in meta.heads)
    return detection_outputs(meta.postprocess.max_detections, ())


def detection_outputs(most: int, count_dims: tuple[int, ...]) -> tuple[ServedTensor, ...]:
    """DETECTION_OUTPUTS per picture, with room for so many detections."""
    kinds = (("INT32", count_dims), ("FP32", (most, 4)), ("FP32", (most,)), ("INT32", (most,)))
    return tuple(ServedTensor(name, *kind) for name, kind in zip(DETECTION_OUTPUTS, kinds, strict=True))


def _check_tensors(
    got: tuple[ServedTensor, ...], expected: tuple[ServedTensor, ...], without_batch: bool, where: str
) -> None:
    """Refuse tensors of another name, type or shape; a dimension of -1 and a missing batch dimension fit any."""
    by_name = {tensor.name: tensor for tensor in got}
    for wanted in expected:
        tensor = by_name.get(wanted.name)
        if tensor is None:
            raise BackendError(f"{where} {wanted.name!r} is not there; got {sorted(by_name)}; {_AGAIN}")
        dims = tensor.dims if without_batch else tensor.dims[1:]
        fits = len(dims) == len(wanted.dims) and all(
            -1 in pair or len(set(pair)) == 1 for pair in zip(dims, wanted.dims, strict=True)
        )
        # A scalar per picture is written as [1] where the batch is left out: Triton has no empty dims.
        fits = fits or (not wanted.dims and dims == (1,))
        if tensor.dtype != wanted.dtype or not fits:
            raise BackendError(
                f"{where} {wanted.name!r} is {tensor.dtype} {list(dims)} per picture; expected {wanted.dtype} "
                f"{list(wanted.dims)}; {_AGAIN}"
            )
