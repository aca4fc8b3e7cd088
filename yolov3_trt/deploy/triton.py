"""Makes the configuration of a Triton model from a sidecar.

A client needs no file of the model: `config.pbtxt` carries the sidecar itself, as the parameter META_KEY; what clients rely
on is in `backends/triton/contract.py`. Of the variants, TENSORRT and ONNXRUNTIME serve the plan or graph as it is, with its
own inputs and outputs; PYTHON runs this package's `Detector` inside the server, pictures in, detections in image px out.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from yolov3_trt.arguments import integer
from yolov3_trt.backends.triton.contract import (
    CONTRACT,
    CONTRACT_KEY,
    FRAME,
    META_KEY,
    VARIANT_KEY,
    TensorSpec,
    Variant,
    inputs_of,
    outputs_of,
)
from yolov3_trt.backends.triton.model_config import ModelConfig
from yolov3_trt.errors import BackendError
from yolov3_trt.meta import ModelMeta, to_json

LABELS_FILE = "labels.txt"
WARMUP_FILE = "frame"  # in the folder `warmup`, which is Triton's name for it

_PLATFORMS = {Variant.TENSORRT: "tensorrt_plan", Variant.ONNXRUNTIME: "onnxruntime_onnx", Variant.PYTHON: ""}
_MODEL_FILES = {Variant.TENSORRT: "model.plan", Variant.ONNXRUNTIME: "model.onnx", Variant.PYTHON: "model.py"}


@dataclass(frozen=True)
class Serving:
    """How a server shall run a model."""

    max_batch: int | None = None  # pictures of one call at most; None: what the artifact takes
    queue_delay_us: int = 1000  # that a request waits at most for others to share its call
    instances: int = 1  # calls that run at the same time, per GPU
    num_versions: int = 1  # newest versions that are served at the same time
    cuda_graphs: bool = False  # of TENSORRT

    def __post_init__(self) -> None:
        for name, least in (("queue_delay_us", 0), ("instances", 1), ("num_versions", 1), ("max_batch", 1)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, integer(name, getattr(self, name), least, 2**31 - 1))


@dataclass(frozen=True)
class ServedModel:
    """A model as a server shall see it."""

    name: str
    meta: ModelMeta
    variant: Variant
    on_gpu: bool  # of PYTHON: whether its artifact is an engine
    serving: Serving = field(default_factory=Serving)

    @property
    def model_file(self) -> str:
        """What Triton looks for in the folder of a version."""
        return _MODEL_FILES[self.variant]

    @property
    def max_batch_size(self) -> int:
        """As Triton counts it: 0 where the graph's own first dimension is a fixed batch.

        Raises:
            BackendError: the artifact does not take that many pictures, or not as few as one.
        """
        batch, asked = self.meta.batch, self.serving.max_batch
        if self.variant is Variant.PYTHON:
            return asked or batch.max
        if not batch.dynamic:
            if asked not in (None, batch.max):
                raise BackendError(
                    f"{self.name}: --max-batch {asked}, but its batch is fixed to {batch}; leave the option out, or export "
                    f"with --batch 1:N:{asked}"
                )
            return 0
        if batch.min > 1:
            raise BackendError(
                f"{self.name}: batch {batch}, but Triton may run any number of pictures from 1 on; export with --batch "
                f"1:{batch.opt}:{batch.max}"
            )
        if asked is not None and asked > batch.max:
            raise BackendError(f"{self.name}: --max-batch {asked}, but it takes {batch}; expected at most {batch.max}")
        return asked or batch.max


def config_from_model(model: ServedModel) -> ModelConfig:
    """Make the content of a `config.pbtxt`.

    Raises:
        BackendError: the artifact cannot be served like that.
    """
    if model.serving.cuda_graphs and model.variant is not Variant.TENSORRT:
        raise BackendError(
            f"{model.name}: CUDA graphs were asked for, but Triton captures them of the tensorrt variant only; this is "
            f"{model.variant.value}"
        )
    sizes = sorted({1, model.max_batch_size or 1})
    config: dict[str, Any] = {
        "name": model.name,
        "backend": model.variant.value,
        "platform": _PLATFORMS[model.variant],
        "default_model_filename": model.model_file,
        "max_batch_size": model.max_batch_size,
        "input": [_input(model, tensor) for tensor in inputs_of(model.variant, model.meta)],
        "output": [_output(model, tensor) for tensor in outputs_of(model.variant, model.meta)],
        "version_policy": {"latest": {"num_versions": model.serving.num_versions}},
        "instance_group": [_instance_group(model)],
        "model_warmup": [_warmup(model, size) for size in sizes],
        "parameters": {
            CONTRACT_KEY: {"string_value": CONTRACT},
            VARIANT_KEY: {"string_value": model.variant.value},
            META_KEY: {"string_value": json.dumps(to_json(model.meta), separators=(",", ":"))},
        },
    }
    if model.max_batch_size > 1:
        config["dynamic_batching"] = _dynamic_batching(model)
    if model.serving.cuda_graphs:
        config["optimization"] = {"cuda": {"graphs": True}}
    return config


def _input(model: ServedModel, tensor: TensorSpec) -> ModelConfig:
    if model.variant is not Variant.PYTHON:
        return _tensor(model, tensor)
    # Frames of different sizes may share a call.
    return {**_tensor(model, tensor), "optional": True, "allow_ragged_batch": tensor.name == FRAME}


def _output(model: ServedModel, tensor: TensorSpec) -> ModelConfig:
    output = _tensor(model, tensor)
    if not output["dims"]:
        output |= {
            "dims": [1],
            "reshape": {"shape": []},
        }  # Triton wants one dimension besides the batch, the graph has none
    if tensor.name == "class_ids":
        output["label_filename"] = LABELS_FILE
    return output


def _tensor(model: ServedModel, tensor: TensorSpec) -> dict[str, Any]:
    dtype = "STRING" if tensor.dtype == "BYTES" else tensor.dtype
    # As Triton lists dimensions: without the batch where that may vary.
    dims = tensor.dims if model.max_batch_size else (model.meta.batch.max, *tensor.dims)
    return {"name": tensor.name, "data_type": f"TYPE_{dtype}", "dims": list(dims)}


def _instance_group(model: ServedModel) -> ModelConfig:
    count = model.serving.instances
    if model.variant is Variant.PYTHON:
        return (
            {"count": count, "kind": "KIND_GPU", "gpus": [0]} if model.on_gpu else {"count": count, "kind": "KIND_CPU"}
        )
    # AUTO: a GPU where there is one
    return {"count": count, "kind": "KIND_GPU" if model.variant is Variant.TENSORRT else "KIND_AUTO"}


def _dynamic_batching(model: ServedModel) -> ModelConfig:
    """Let Triton put requests together to the sizes that the artifact was made for, as far as they come in time."""
    sizes = {min(model.meta.batch.opt, model.max_batch_size), model.max_batch_size} - {1}
    return {
        "preferred_batch_size": sorted(sizes),
        "max_queue_delay_microseconds": model.serving.queue_delay_us,
    }


def _warmup(model: ServedModel, batch_size: int) -> ModelConfig:
    """Describe a request that Triton makes before it calls the model ready; it holds the first of the inputs."""
    tensor = _tensor(model, inputs_of(model.variant, model.meta)[0])
    content = {"data_type": tensor["data_type"], "dims": tensor["dims"], "input_data_file": WARMUP_FILE}
    return {"name": f"batch {batch_size}", "batch_size": batch_size, "inputs": {tensor["name"]: content}}
