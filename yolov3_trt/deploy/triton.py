"""From a sidecar to the configuration of a Triton model.

A client needs no file of the model: `config.pbtxt` carries the sidecar itself, as the parameter META_KEY; what clients rely
on is in `backends/triton/contract.py`. Of the variants, TENSORRT and ONNXRUNTIME serve the plan or graph as it is, with its
own inputs and outputs; PYTHON runs this package's `Detector` inside the server, pictures in, detections in image px out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from yolov3_trt.backends.triton.contract import CONTRACT, ENCODED, FRAME, POSTPROCESS, Variant
from yolov3_trt.deploy.pbtxt import Message, Symbol
from yolov3_trt.errors import BackendError
from yolov3_trt.meta import DETECTION_OUTPUTS, INPUT_NAME, InputStage, ModelMeta, OutputStage, to_json

CONTRACT_KEY = "yolov3_trt_contract"
VARIANT_KEY = "yolov3_trt_variant"
META_KEY = "yolov3_trt_meta"

LABELS_FILE = "labels.txt"
WARMUP_FILE = "frame"  # in the folder `warmup`, which is Triton's name for it

# What of the sidecar clients rely on; the rest (precision, hashes, versions) may change from version to version.
_META_FIELDS = (
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
_CONFIG_FIELDS = ("backend", "max_batch_size", "input", "output")
_TENSOR_FIELDS = ("name", "data_type", "dims", "optional")
_PLATFORMS = {Variant.TENSORRT: "tensorrt_plan", Variant.ONNXRUNTIME: "onnxruntime_onnx"}
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
            value = getattr(self, name)
            if value is not None and value < least:
                raise BackendError(f"{name}={value}; expected {least} or more")


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


def config_from_model(model: ServedModel) -> Message:
    """The content of `config.pbtxt`.

    Raises:
        BackendError: the artifact cannot be served like that.
    """
    if model.serving.cuda_graphs and model.variant is not Variant.TENSORRT:
        raise BackendError(
            f"{model.name}: CUDA graphs were asked for, but Triton captures them of the tensorrt variant only; this is "
            f"{model.variant.value}"
        )
    config: Message = {"name": model.name, "backend": model.variant.value}
    if model.variant in _PLATFORMS:
        config["platform"] = _PLATFORMS[model.variant]
    config |= {
        "default_model_filename": model.model_file,
        "max_batch_size": model.max_batch_size,
        "input": list(_inputs(model)),
        "output": list(_outputs(model)),
        "version_policy": {"latest": {"num_versions": model.serving.num_versions}},
        "instance_group": [_instance_group(model)],
    }
    if model.max_batch_size > 1:
        config["dynamic_batching"] = _dynamic_batching(model)
    if model.serving.cuda_graphs:
        config["optimization"] = {"cuda": {"graphs": True}}
    config["model_warmup"] = [_warmup(model, size) for size in sorted({1, model.max_batch_size or 1})]
    config["parameters"] = [
        _parameter(CONTRACT_KEY, CONTRACT),
        _parameter(VARIANT_KEY, model.variant.value),
        _parameter(META_KEY, json.dumps(to_json(model.meta), separators=(",", ":"))),
    ]
    return config


def contract_difference(old: dict[str, list[Any]], new: dict[str, list[Any]]) -> str | None:
    """What a client of a model would notice if one configuration took the place of the other.

    Args:
        old: a configuration as `message_from_text` reads it.
        new: another.

    Returns:
        The first difference, as `what: old, new`; None where there is none.
    """
    before, after = parameters_of(old), parameters_of(new)
    if CONTRACT_KEY not in before:
        return f"the parameter {CONTRACT_KEY}: none, it was not written by `deploy triton`; {CONTRACT}"
    pairs: list[tuple[str, Any, Any]] = [(key, before.get(key), after.get(key)) for key in (CONTRACT_KEY, VARIANT_KEY)]
    old_meta, new_meta = (_meta_json(parameters) for parameters in (before, after))
    pairs += [(key, old_meta.get(key), new_meta.get(key)) for key in _META_FIELDS]
    pairs += [(key, _visible(old, key), _visible(new, key)) for key in _CONFIG_FIELDS]
    for key, was, now in pairs:
        if was != now:
            return f"{key}: {_short(was)} there, {_short(now)} here"
    return None


def parameters_of(config: dict[str, list[Any]]) -> dict[str, str]:
    """The parameters of a configuration, as `message_from_text` reads it, by their keys."""
    return {
        str(entry.get("key", [""])[0]): str(value.get("string_value", [""])[0])
        for entry in config.get("parameters", ())
        for value in entry.get("value", ())
    }


def _inputs(model: ServedModel) -> Iterator[Message]:
    meta = model.meta
    if model.variant is not Variant.PYTHON:
        data_type = Symbol("TYPE_UINT8" if meta.input_stage is InputStage.PIXELS else "TYPE_FP32")
        yield {"name": INPUT_NAME, "data_type": data_type, "dims": _dims(model, meta.input_shape(meta.batch.max))}
        return
    height, width = meta.frame_hw or (-1, -1)
    yield {"name": ENCODED, "data_type": Symbol("TYPE_STRING"), "dims": [1], "optional": True}
    yield {
        "name": FRAME,
        "data_type": Symbol("TYPE_UINT8"),
        "dims": [height, width, 3],
        "optional": True,
        "allow_ragged_batch": True,  # frames of different sizes may share a call
    }
    yield {"name": POSTPROCESS, "data_type": Symbol("TYPE_FP32"), "dims": [3], "optional": True}


def _outputs(model: ServedModel) -> Iterator[Message]:
    meta = model.meta
    if model.variant is not Variant.PYTHON and meta.output_stage is OutputStage.HEADS:
        for head in meta.heads:
            dims = _dims(model, (meta.batch.max, head.channels, *head.grid_hw))
            yield {"name": head.name, "data_type": Symbol("TYPE_FP32"), "dims": dims}
        return
    rows, count = meta.batch.max, meta.postprocess.max_detections
    shapes: tuple[tuple[int, ...], ...] = ((rows,), (rows, count, 4), (rows, count), (rows, count))
    for name, shape in zip(DETECTION_OUTPUTS, shapes, strict=True):
        is_whole = name in ("num_detections", "class_ids")
        output: Message = {"name": name, "data_type": Symbol("TYPE_INT32" if is_whole else "TYPE_FP32")}
        output["dims"] = _dims(model, shape) or [1]
        if not _dims(model, shape) and model.variant is not Variant.PYTHON:
            output["reshape"] = {"shape": []}  # Triton wants one dimension besides the batch, the graph has none
        if name == "class_ids":
            output["label_filename"] = LABELS_FILE
        yield output


def _dims(model: ServedModel, shape: tuple[int, ...]) -> list[int]:
    """A shape as Triton lists it: without the batch where that may vary."""
    return list(shape[1:] if model.max_batch_size else shape)


def _instance_group(model: ServedModel) -> Message:
    group: Message = {"count": model.serving.instances}
    if model.variant is Variant.TENSORRT:
        return {**group, "kind": Symbol("KIND_GPU")}
    if model.variant is Variant.ONNXRUNTIME:
        return {**group, "kind": Symbol("KIND_AUTO")}  # a GPU where there is one
    return {**group, "kind": Symbol("KIND_GPU"), "gpus": [0]} if model.on_gpu else {**group, "kind": Symbol("KIND_CPU")}


def _dynamic_batching(model: ServedModel) -> Message:
    """Batches of the sizes that the artifact was made for, as far as requests come in time."""
    sizes = {min(model.meta.batch.opt, model.max_batch_size), model.max_batch_size} - {1}
    return {
        "preferred_batch_size": sorted(sizes),
        "max_queue_delay_microseconds": model.serving.queue_delay_us,
    }


def _warmup(model: ServedModel, batch_size: int) -> Message:
    """A request that Triton makes before it says that the model is ready."""
    if model.variant is Variant.PYTHON:
        name, data_type, dims = ENCODED, Symbol("TYPE_STRING"), [1]
    else:
        first = next(_inputs(model))
        name, data_type, dims = first["name"], first["data_type"], first["dims"]
    content = {"data_type": data_type, "dims": dims, "input_data_file": WARMUP_FILE}
    return {"name": f"batch {batch_size}", "batch_size": batch_size, "inputs": {"key": name, "value": content}}


def _parameter(key: str, value: str) -> Message:
    return {"key": key, "value": {"string_value": value}}


def _meta_json(parameters: dict[str, str]) -> dict[str, Any]:
    try:
        content = json.loads(parameters.get(META_KEY, ""))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _visible(config: dict[str, list[Any]], key: str) -> list[Any]:
    """A field of a configuration, of tensors what a client sees."""
    values = config.get(key, [])
    if key not in ("input", "output"):
        return values
    return [{name: tensor.get(name, []) for name in _TENSOR_FIELDS} for tensor in values]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
