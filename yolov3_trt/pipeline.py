"""Model -> ONNX file, compared with its reference before it is written; ONNX file -> calibration table."""

import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt import __version__
from yolov3_trt.calibration.image_set import ChosenPictures
from yolov3_trt.calibration.observers import DEFAULT_PERCENTILE, Method
from yolov3_trt.calibration.ranges import ranges_of_tensors
from yolov3_trt.calibration.table import CalibratedModel, CalibrationTable, check_table, load_table
from yolov3_trt.errors import CalibrationError, ExportError, MissingDependency, require
from yolov3_trt.files import replacing, sha256_of_file
from yolov3_trt.images import NamedImage
from yolov3_trt.meta import (
    DEFAULT_OPSET,
    INPUT_NAME,
    Batch,
    InputStage,
    ModelMeta,
    OutputStage,
    Postprocess,
    Precision,
    Preprocess,
    load_model_meta,
    meta_from_spec,
    save_sidecar,
)
from yolov3_trt.models import Model
from yolov3_trt.postprocess import candidates_from_heads, suppress
from yolov3_trt.preprocess import InputBuffer, prepare_batch

_LOG = logging.getLogger(__name__)

# Largest relative error of a head (see `_relative_error`) that an export may have. Measured on the models of this field:
# FP32 below 2e-6, FP16 below 4e-3.
# What INT8 costs shows on pictures only (`eval`); its limit on noise tells a broken graph from a coarse one.
_TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 1e-1, Precision.INT8: 1.0}


@dataclass(frozen=True)
class ExportOptions:
    """What a graph shall be."""

    precision: Precision = Precision.FP32
    batch: Batch = field(default_factory=Batch)
    input_stage: InputStage = InputStage.TENSOR
    output_stage: OutputStage = OutputStage.HEADS
    opset: int = DEFAULT_OPSET
    preprocess: Preprocess | None = None  # None: the model's own
    postprocess: Postprocess | None = None  # None: the model's own
    calibration: Path | None = None  # the table of INT8
    skip_layers: frozenset[int] = frozenset()  # of INT8: layers that stay in `rest`, as the cfg counts them
    rest: Precision = Precision.FP16  # of INT8: what all that is not int8 computes in; FP32 for TensorRT 8.6


@dataclass(frozen=True)
class ExportReport:
    """A written ONNX file and how far it is from its reference."""

    path: Path
    meta: ModelMeta
    num_bytes: int
    # Per head, over one batch of seeded noise; empty where ONNX Runtime is not installed, and so nothing was compared.
    max_difference: Mapping[str, float]  # largest absolute difference of a logit
    relative_error: Mapping[str, float]  # Euclidean norm of the difference over that of the head


def export_model(model: Model, path: Path, options: ExportOptions | None = None) -> ExportReport:
    """Export a model, compare the graph with the PyTorch reference, then write it and its sidecar.

    Args:
        model: network and weights.
        path: of the `.onnx`.
        options: see `ExportOptions`.

    Raises:
        ExportError: the export failed, or the graph differs from its reference by more than its precision explains.
        MetaError: the model is not a detector.
        OutputError: the file cannot be written.
    """
    options = options or ExportOptions()
    require("onnx", extra="export")
    require("torch", extra="export")
    from yolov3_trt.graph.export import onnx_from_module
    from yolov3_trt.graph.fp16 import fp16_from_onnx
    from yolov3_trt.graph.qdq import QdqPolicy, qdq_from_onnx
    from yolov3_trt.reference import fuse_batch_norm, module_from_spec

    meta = _meta(model, options)
    table = _calibration_table(meta, options)
    reference = module_from_spec(model.spec, model.weights)
    with replacing(path) as partial:  # opened first: an export of seconds must not end at an unwritable folder
        graph = onnx_from_module(fuse_batch_norm(reference), meta, options.opset)
        if meta.precision is Precision.FP16:
            graph = fp16_from_onnx(graph)
        if table is not None:
            policy = QdqPolicy(skip_layers=options.skip_layers, rest=options.rest)
            graph = qdq_from_onnx(graph, table.amax, policy)
        max_difference, relative_error = _verify(graph, reference, meta)
        partial.write_bytes(graph.SerializeToString())
    table_sha256 = None if options.calibration is None else sha256_of_file(options.calibration)
    meta = replace(meta, onnx_sha256=sha256_of_file(path), calibration_sha256=table_sha256)
    save_sidecar(meta, path)
    return ExportReport(path, meta, path.stat().st_size, max_difference, relative_error)


def calibrate_graph(
    path: Path,
    pictures: ChosenPictures,
    method: Method,
    percentile: float | None = None,
    progress: Callable[[Iterable[NamedImage]], Iterable[NamedImage]] = iter,
) -> CalibrationTable:
    """Find the range of every tensor that INT8 needs, on pictures that are prepared just as at inference.

    Args:
        path: an FP32 graph with its sidecar.
        pictures: from `open_set`.
        method: how a range is chosen.
        percentile: of Method.PERCENTILE.
        progress: wraps the iteration over the pictures.

    Raises:
        CalibrationError: the graph is not FP32 or takes more than one picture at a time, or a range cannot be found.
        ImageError: a picture cannot be read.
    """
    require("onnx", extra="export")
    from yolov3_trt.backends.ort import graph_runner
    from yolov3_trt.graph.export import graph_that_gives, load_graph
    from yolov3_trt.graph.qdq import quantised_activations

    meta = load_model_meta(path)
    if meta.precision is not Precision.FP32 or meta.batch.min != 1 or meta.input_stage is not InputStage.TENSOR:
        raise CalibrationError(
            f"{path}: {meta.precision.value}, batch {meta.batch}, takes {meta.input_stage.value}; expected fp32, batch 1, "
            "tensor: export it so, its table then serves every form of this model"
        )
    graph = load_graph(path)
    names = [name for name in quantised_activations(graph) if name != INPUT_NAME]
    run = graph_runner(graph_that_gives(graph, names).SerializeToString())
    buffer = InputBuffer(meta, 1)
    inputs = (prepare_batch([picture.pixels], meta, buffer)[0] for picture in progress(pictures))
    amax = ranges_of_tensors(
        lambda images: {INPUT_NAME: images, **run({INPUT_NAME: images})},
        inputs,
        len(pictures),
        method=method,
        percentile=DEFAULT_PERCENTILE if percentile is None else percentile,
    )
    return CalibrationTable(
        model=CalibratedModel(meta.name, sha256_of_file(path), meta.weights_sha256),
        preprocess=meta.preprocess,
        input_hw=meta.input_hw,
        images=pictures.picture_list,
        method=method,
        amax=amax,
        percentile=percentile,
        seed=pictures.calibration_set.seed,
        versions={"yolov3_trt": __version__, "onnxruntime": importlib.metadata.version("onnxruntime")},
    )


def _calibration_table(meta: ModelMeta, options: ExportOptions) -> CalibrationTable | None:
    """The table of an INT8 export, made for this very model."""
    if meta.precision is not Precision.INT8:
        return None
    if options.calibration is None:
        raise ExportError(
            f"{meta.name}: int8 needs a calibration table; export fp32, run `calibrate` on that, and give its table with "
            "--calibration"
        )
    table = load_table(options.calibration)
    check_table(table, options.calibration, meta=meta)
    return table


def float_graph(model: Model, options: ExportOptions) -> tuple[Any, ModelMeta]:
    """The FP32 graph of a model in memory, as `export_model` would make it, and what it is."""
    require("onnx", extra="export")
    require("torch", extra="export")
    from yolov3_trt.graph.export import onnx_from_module
    from yolov3_trt.reference import fuse_batch_norm, module_from_spec

    meta = _meta(model, replace(options, precision=Precision.FP32))
    return onnx_from_module(fuse_batch_norm(module_from_spec(model.spec, model.weights)), meta, options.opset), meta


def artifact_stem(model: Model, options: ExportOptions) -> str:
    """A file name that says what is inside: `yolov3-416-fp16`, `yolov3-416x608-fp32-pixels-detections-b1-8`."""
    height, width = model.spec.input_hw
    parts = [model.spec.name, str(height) if height == width else f"{height}x{width}", options.precision.value]
    if options.input_stage is InputStage.PIXELS:
        parts.append("pixels")
    if options.output_stage is OutputStage.DETECTIONS:
        parts.append("detections")
    if options.batch.max > 1:
        parts.append(f"b{options.batch.min}-{options.batch.max}" if options.batch.dynamic else f"b{options.batch.max}")
    return "-".join(parts)


def _meta(model: Model, options: ExportOptions) -> ModelMeta:
    meta = meta_from_spec(model.spec, model.class_names)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")}
    return replace(
        meta,
        precision=options.precision,
        batch=options.batch,
        input_stage=options.input_stage,
        output_stage=options.output_stage,
        preprocess=options.preprocess or meta.preprocess,
        postprocess=options.postprocess or meta.postprocess,
        opset=options.opset,
        weights_sha256=model.weights_sha256,
        versions={"yolov3_trt": __version__, **versions},
    )


def _verify(graph: Any, reference: Any, meta: ModelMeta) -> tuple[dict[str, float], dict[str, float]]:
    """Heads against the reference on noise; the detection stage against the host path on made-up heads."""
    from yolov3_trt.backends.ort import run_graph
    from yolov3_trt.graph.export import part_of_graph
    from yolov3_trt.reference import run_module

    names = [head.name for head in meta.heads]
    network = part_of_graph(graph, [INPUT_NAME], names) if meta.output_stage is OutputStage.DETECTIONS else graph
    pixels = np.random.default_rng(0).integers(0, 256, (meta.batch.opt, *meta.input_hw, 3), np.uint8)
    tensor = np.ascontiguousarray(pixels[..., ::-1].transpose(0, 3, 1, 2), np.float32) * np.float32(
        meta.preprocess.scale
    )
    images = pixels if meta.input_stage is InputStage.PIXELS else tensor
    try:
        got = run_graph(network.SerializeToString(), {INPUT_NAME: images})
    except MissingDependency as exc:
        _LOG.warning("%s: the graph was not compared with its reference: %s", meta.name, exc)
        return {}, {}
    expected = run_module(reference, tensor)
    differences = {name: float(np.abs(got[name] - e).max()) for name, e in zip(names, expected, strict=True)}
    errors = {name: _relative_error(got[name], e) for name, e in zip(names, expected, strict=True)}
    tolerance = _TOLERANCE[meta.precision]
    for name, error in errors.items():
        if not error <= tolerance:  # NaN is not either
            raise ExportError(
                f"{meta.name}: {name} of the {meta.precision.value} graph has a relative error of {error:.2g} against the "
                f"PyTorch reference; expected at most {tolerance:g}. Export fp32, or report this"
            )
    if meta.output_stage is OutputStage.DETECTIONS:
        stage = part_of_graph(graph, names, meta.output_names)
        _verify_detections(stage.SerializeToString(), meta)
    return differences, errors


def _relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def _verify_detections(stage: bytes, meta: ModelMeta) -> None:
    """Noise finds no objects, so the stage gets heads that are full of overlapping ones."""
    from yolov3_trt.backends.ort import run_graph

    heads = _crowded_heads(meta)
    got = run_graph(stage, heads)
    for row in range(meta.batch.opt):
        logits = [heads[head.name][row] for head in meta.heads]
        candidates = candidates_from_heads(logits, meta.heads, meta.input_hw, meta.postprocess)
        expected = suppress(candidates, meta.input_hw, meta.postprocess)
        count = int(got["num_detections"][row])
        same = (
            count == len(expected.scores)
            and np.array_equal(got["class_ids"][row, :count], expected.class_ids)
            and np.allclose(got["scores"][row, :count], expected.scores, atol=1e-5)
            and np.allclose(got["boxes"][row, :count], expected.xyxy, rtol=1e-4, atol=1e-2)
        )
        if not same:
            raise ExportError(
                f"{meta.name}: on made-up heads the in-graph detections ({count}) are not those of the host "
                f"({len(expected.scores)}); please report this"
            )


def _crowded_heads(meta: ModelMeta) -> dict[str, NDArray[Any]]:
    """Seeded logits: about 1 box in 50 is an object, one class each, boxes of about the size of their anchors."""
    rng = np.random.default_rng(0)
    heads = {}
    for head in meta.heads:
        shape = (meta.batch.opt, len(head.anchors_wh), 5 + head.num_classes, *head.grid_hw)
        logits = rng.normal(0, 0.5, shape).astype(np.float32)
        logits[:, :, 4] = np.where(rng.random(logits[:, :, 4].shape) < 0.02, 4, -8) + logits[:, :, 4]
        logits[:, :, 5:] -= 8
        logits[:, :, 5 : 5 + min(3, head.num_classes)] += 9
        heads[head.name] = logits.reshape(meta.batch.opt, head.channels, *head.grid_hw)
    return heads
