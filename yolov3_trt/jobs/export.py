"""Model -> ONNX file, compared with its reference before it is written."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from yolov3_trt._version import __version__
from yolov3_trt.calibration.table import CalibrationTable, check_table, load_table
from yolov3_trt.errors import ExportError, require
from yolov3_trt.files import replacing, sha256_of_file
from yolov3_trt.geometry import HW
from yolov3_trt.jobs.verify import verify_graph
from yolov3_trt.meta import (
    DEFAULT_OPSET,
    Batch,
    InputStage,
    ModelMeta,
    OutputStage,
    Postprocess,
    Precision,
    Preprocess,
    meta_from_spec,
    save_sidecar,
)
from yolov3_trt.models import Model
from yolov3_trt.spec import ModelSpec


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
    leaky_as_prelu: bool = False  # for a DLA, which has no LeakyReLU but a PReLU
    frame_hw: HW | None = None  # of PIXELS, see `ModelMeta.frame_hw`


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
        MetaError: the model is not a detector, or `options.frame_hw` does not go with the input stage.
        OutputError: the file cannot be written.
    """
    options = options or ExportOptions()
    require("onnx", extra="export")
    require("torch", extra="export")
    from yolov3_trt.graph.equalise import equalised
    from yolov3_trt.graph.export import onnx_from_module
    from yolov3_trt.graph.fp16 import fp16_from_onnx
    from yolov3_trt.graph.prelu import prelu_from_leaky
    from yolov3_trt.graph.qdq import QdqPolicy, qdq_from_onnx
    from yolov3_trt.reference import fuse_batch_norm, module_from_spec

    meta = model_meta(model, options)
    table = _calibration_table(meta, options)
    reference = module_from_spec(model.spec, model.weights)
    with replacing(path) as partial:  # opened first: an export of seconds must not end at an unwritable folder
        graph = onnx_from_module(fuse_batch_norm(reference), meta, options.opset)
        if options.leaky_as_prelu:
            graph = prelu_from_leaky(graph)
        if meta.precision is Precision.FP16:
            graph = fp16_from_onnx(graph)
        if table is not None:
            policy = QdqPolicy(skip_layers=options.skip_layers, rest=options.rest)
            graph = qdq_from_onnx(equalised(graph, table.doublings), table.amax, policy, table.bias_shifts)
        max_difference, relative_error = verify_graph(graph, reference, meta)
        partial.write_bytes(graph.SerializeToString())
    table_sha256 = None if options.calibration is None else sha256_of_file(options.calibration)
    meta = replace(meta, onnx_sha256=sha256_of_file(path), calibration_sha256=table_sha256)
    save_sidecar(meta, path)
    return ExportReport(path, meta, path.stat().st_size, max_difference, relative_error)


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


def artifact_stem(spec: ModelSpec, options: ExportOptions) -> str:
    """A file name that says what is inside: `yolov3-416-fp16`, `yolov3-416x608-fp32-pixels-detections-b1-4-8`.

    The size of whole frames is written as cameras have it, width first: `yolov3-416-fp16-camera-1280x720`.
    """
    height, width = spec.input_hw
    parts = [spec.name, str(height) if height == width else f"{height}x{width}", options.precision.value]
    if options.frame_hw is not None:
        parts.append(f"camera-{options.frame_hw[1]}x{options.frame_hw[0]}")
    elif options.input_stage is InputStage.PIXELS:
        parts.append("pixels")
    if options.output_stage is OutputStage.DETECTIONS:
        parts.append("detections")
    if options.batch.max > 1:
        parts.append("b" + str(options.batch).replace(":", "-"))
    return "-".join(parts)


def model_meta(model: Model, options: ExportOptions) -> ModelMeta:
    """The sidecar of an export, less the hashes of what is yet to be made."""
    meta = meta_from_spec(model.spec, model.class_names)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")}
    return replace(
        meta,
        precision=options.precision,
        batch=options.batch,
        input_stage=options.input_stage,
        frame_hw=options.frame_hw,
        output_stage=options.output_stage,
        preprocess=options.preprocess or meta.preprocess,
        postprocess=options.postprocess or meta.postprocess,
        opset=options.opset,
        weights_sha256=model.weights_sha256,
        versions={"yolov3_trt": __version__, **versions},
    )
