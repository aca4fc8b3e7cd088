"""What this package's models on a server promise, in the parameters of their configuration; `deploy triton` writes it.

======================  =======================================================================
`yolov3_trt_contract`   CONTRACT
`yolov3_trt_variant`    a `Variant`: what the server runs it with, and so what goes in and out
`yolov3_trt_meta`       the sidecar, as JSON
======================  =======================================================================
"""

from dataclasses import dataclass
from enum import Enum

from yolov3_trt.backends.triton.model_config import ModelConfig, parameters_of
from yolov3_trt.errors import BackendError, MetaError
from yolov3_trt.meta import DETECTION_OUTPUTS, INPUT_NAME, InputStage, ModelMeta, OutputStage, model_meta_from_json

CONTRACT = "yolov3_trt.triton/1"
CONTRACT_KEY, VARIANT_KEY, META_KEY = "yolov3_trt_contract", "yolov3_trt_variant", "yolov3_trt_meta"
# Inputs of the python variant: exactly one of the first two, and the thresholds if they are not the model's own.
ENCODED, FRAME, POSTPROCESS = "encoded", "frame", "postprocess"
# What clients rely on of the sidecar; precision, hashes and versions may change from version to version and server to server.
CLIENT_FIELDS = (
    "class_names",
    "input_stage",
    "output_stage",
    "input_hw",
    "frame_hw",
    "heads",
    "batch",
    "preprocess",
    "postprocess",
)
_AGAIN = "serve it with `yolov3_trt deploy triton`"


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

    def differences(self, other: "Contract") -> str:
        """What keeps the other's requests from being taken here, as text; empty where nothing does."""
        different = [name for name in CLIENT_FIELDS if getattr(self.meta, name) != getattr(other.meta, name)]
        return ", ".join([*different, *(["variant"] if self.variant is not other.variant else [])])


def contract_of(config: ModelConfig, where: str) -> Contract:
    """Read and check what a model's configuration promises.

    Args:
        config: as the server says it.
        where: server and model, for errors.

    Raises:
        BackendError: the model is not this package's, of another version's contract, or its inputs and outputs are not what
            its sidecar says.
    """
    given = parameters_of(config)
    found = given.get(CONTRACT_KEY)
    if found is None:
        raise BackendError(f"{where}: this model's config has no {CONTRACT_KEY}: it is not this package's; {_AGAIN}")
    if found != CONTRACT:
        raise BackendError(
            f"{where}: its contract is {found!r}; expected {CONTRACT!r} (another version of yolov3_trt made it): {_AGAIN} of "
            "this version"
        )
    try:
        variant = Variant(given.get(VARIANT_KEY, ""))
        meta = model_meta_from_json(given.get(META_KEY, ""), f"{where}: {META_KEY}")
    except MetaError as exc:
        raise BackendError(f"{exc}; {_AGAIN}") from exc
    except ValueError as exc:
        raise BackendError(
            f"{where}: {VARIANT_KEY}: {exc}; expected tensorrt, onnxruntime or python; {_AGAIN}"
        ) from exc
    max_batch = int(config.get("max_batch_size", 0))
    if variant is Variant.PYTHON and max_batch < 1:
        raise BackendError(f"{where}: max_batch_size is {max_batch}; expected 1 or more; {_AGAIN}")
    for kind, expected in (("input", inputs_of(variant, meta)), ("output", outputs_of(variant, meta))):
        _check_tensors(_tensors(config, kind, max_batch), expected, f"{where}: {kind}")
    return Contract(variant, meta)


def inputs_of(variant: Variant, meta: ModelMeta) -> tuple[TensorSpec, ...]:
    """What goes into a model."""
    if variant is Variant.PYTHON:
        frame = TensorSpec(FRAME, "UINT8", (*(meta.frame_hw or (-1, -1)), 3))
        return TensorSpec(ENCODED, "BYTES", (1,)), frame, TensorSpec(POSTPROCESS, "FP32", (3,))
    dtype = "UINT8" if meta.input_stage is InputStage.PIXELS else "FP32"
    return (TensorSpec(INPUT_NAME, dtype, meta.input_shape(meta.batch.max)[1:]),)


def outputs_of(variant: Variant, meta: ModelMeta) -> tuple[TensorSpec, ...]:
    """What comes out of a model: its heads, or DETECTION_OUTPUTS with room for the most detections of a picture."""
    if variant is not Variant.PYTHON and meta.output_stage is OutputStage.HEADS:
        return tuple(TensorSpec(head.name, "FP32", (head.channels, *head.grid_hw)) for head in meta.heads)
    most = meta.postprocess.max_detections
    kinds = (
        ("INT32", (1,) if variant is Variant.PYTHON else ()),
        ("FP32", (most, 4)),
        ("FP32", (most,)),
        ("INT32", (most,)),
    )
    return tuple(TensorSpec(name, *kind) for name, kind in zip(DETECTION_OUTPUTS, kinds, strict=True))


def _tensors(config: ModelConfig, kind: str, max_batch: int) -> dict[str, TensorSpec]:
    """The inputs or outputs of a configuration by their names; where it has no batch, the first of its dims is one."""
    found = {}
    for tensor in config.get(kind, ()):
        name, dtype = tensor.get("name", ""), str(tensor.get("data_type", "none")).removeprefix("TYPE_")
        dims = tuple(int(dim) for dim in tensor.get("dims", ()))
        found[name] = TensorSpec(name, "BYTES" if dtype == "STRING" else dtype, dims if max_batch > 0 else dims[1:])
    return found


def _check_tensors(got: dict[str, TensorSpec], expected: tuple[TensorSpec, ...], where: str) -> None:
    """Refuse tensors of another name, type or shape; a dimension of -1 fits any."""
    for wanted in expected:
        tensor = got.get(wanted.name)
        if tensor is None:
            raise BackendError(f"{where} {wanted.name!r} is not there; got {sorted(got)}; {_AGAIN}")
        fits = len(tensor.dims) == len(wanted.dims) and all(
            -1 in pair or len(set(pair)) == 1 for pair in zip(tensor.dims, wanted.dims, strict=True)
        )
        # A scalar per picture is written as [1] where the batch is left out: Triton has no empty dims.
        fits = fits or (not wanted.dims and tensor.dims == (1,))
        if tensor.dtype != wanted.dtype or not fits:
            raise BackendError(
                f"{where} {wanted.name!r} is {tensor.dtype} {list(tensor.dims)} per picture; expected {wanted.dtype} "
                f"{list(wanted.dims)}; {_AGAIN}"
            )
