"""Model -> ONNX file, compared with the PyTorch reference before it is written, where there is PyTorch."""

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolov3_trt._version import __version__
from yolov3_trt.arguments import path as path_of
from yolov3_trt.arguments import size_text
from yolov3_trt.calibration.distilled import load_weights
from yolov3_trt.calibration.table import CalibrationTable, check_table, load_table
from yolov3_trt.errors import SettingError, require
from yolov3_trt.files import Written, replacing, sha256_of_file
from yolov3_trt.jobs.verify import verify_graph
from yolov3_trt.meta import (
    InputStage,
    ModelMeta,
    OutputStage,
    Precision,
    RowsLayout,
    meta_from_spec,
    save_sidecar,
    to_json,
)
from yolov3_trt.models import Model, load_model
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.settings import CalibrationSettings, DetectSettings, GraphSettings, check_together, settings_from
from yolov3_trt.spec import ModelSpec

OPENCV_CONF = 0.2  # up to which OpenCV's Darknet importer had 0 for scores


@dataclass(frozen=True, repr=False)
class Exported(Written):
    """A written ONNX graph and how far it is from its reference; goes wherever the path of a graph does.

    Attributes:
        path: of the `.onnx`; its sidecar lies beside it.
        meta: the sidecar.
        num_bytes: of the graph.
        max_difference: by head, the largest absolute difference of a logit to PyTorch over one batch of seeded noise; empty
            where that is not installed, or ONNX Runtime is not, and so nothing was compared.
        relative_error: by head, Euclidean norm of the difference over that of the head; empty likewise.
        not_compared: why, and how to compare; None where the graph was compared.
    """

    path: Path
    meta: ModelMeta
    num_bytes: int
    max_difference: Mapping[str, float]
    relative_error: Mapping[str, float]
    not_compared: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As `export --json` writes it."""
        return {
            "onnx": str(self.path),
            "bytes": self.num_bytes,
            "verified": bool(self.max_difference),
            "max_difference": dict(self.max_difference),
            "relative_error": dict(self.relative_error),
            "not_compared": self.not_compared,
            "meta": to_json(self.meta),
        }


def export(
    model: str | os.PathLike[str] | Model,
    path: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    input_size: Any = None,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> Exported:
    """Export a model to ONNX, compare the graph with the PyTorch reference, then write it and its sidecar.

    Where PyTorch is not installed the same graph is written; the result says that it was not compared, and how to do that.

    Args:
        model: a built-in name, a `.cfg`, or what `load_model` gave.
        path: of the `.onnx`; by default `engines/MODEL-SIZE-PRECISION.onnx`.
        weights: Darknet `.weights`; see `load_model`, as for the next two.
        names: of the classes.
        input_size: px.
        reporter: told of the progress.
        settings: any of `GraphSettings`, `CalibrationSettings` and `DetectSettings` by name, or whole ones as `graph`,
            `calibration` and `detect`. Without a precision the graph is fp32. For int8, `table` or `images` say where the
            ranges come from.

    Raises:
        SettingError: a setting has no such value, or does not go with another.
        ExportError: the export failed, or the graph differs from its reference by more than its precision explains.
        CalibrationError: the table is not this model's.
        MetaError: the model is not a detector.
        OutputError: the file cannot be written.

    >>> export("shapes", "s.onnx", precision="fp16", input_size="320x256").meta.input_hw  # doctest: +SKIP
    (256, 320)
    """
    graph, calibration, detect = settings_from(settings, GraphSettings, CalibrationSettings, DetectSettings)
    graph = graph.with_precision(Precision.FP32)
    check_together(graph, calibration)
    loaded = model_from(model, weights, names, input_size)
    onnx_path = Path("engines") / f"{artifact_stem(loaded.spec, graph)}.onnx" if path is None else path_of("path", path)
    table = None
    if graph.precision is Precision.INT8:
        from yolov3_trt.jobs.calibrate import table_for

        table = table_for(loaded, calibration, detect, reporter)
    return write_graph(loaded, onnx_path, graph, detect, table)


def model_from(model: str | os.PathLike[str] | Model, weights: Any, names: Any, input_size: Any) -> Model:
    """What a job's first arguments name; a model that was loaded already was told the rest then.

    Raises:
        SettingError: a loaded model is to be changed.
    """
    if not isinstance(model, Model):
        return load_model(model, weights, names, input_size)
    for name, value in (("weights", weights), ("names", names), ("input_size", input_size)):
        if value is not None:
            raise SettingError(
                name, f"given with a model that is loaded already; expected it there: load_model(..., {name}=)"
            )
    return model


def write_graph(
    model: Model,
    path: Path,
    graph: GraphSettings,
    detect: DetectSettings | None = None,
    table_path: Path | None = None,
    *,
    leaky_as_prelu: bool = False,
) -> Exported:
    """What `export` does once all is settled.

    Args:
        model: network and weights.
        path: of the `.onnx`.
        graph: with its precision.
        detect: see `DetectSettings`.
        table_path: of the ranges of INT8.
        leaky_as_prelu: for a DLA, which has no LeakyReLU but a PReLU.

    Raises:
        Yolov3TrtError: see `export`.
    """
    require("onnx", extra="onnx")
    from yolov3_trt.graph.equalise import equalised
    from yolov3_trt.graph.export import onnx_from_spec
    from yolov3_trt.graph.fp16 import fp16_from_onnx
    from yolov3_trt.graph.parts import save_graph
    from yolov3_trt.graph.plain import with_weights
    from yolov3_trt.graph.prelu import prelu_from_leaky
    from yolov3_trt.graph.qdq import qdq_from_onnx
    from yolov3_trt.graph.qdq_placement import QdqPolicy

    meta = model_meta(model, graph, detect)
    table = None if table_path is None else _own_table(table_path, meta, model.spec)
    distilled = None if table is None else table.distilled
    weights = {} if table_path is None else load_weights(distilled, table_path)
    with replacing(path) as partial:  # opened first: an export of seconds must not end at an unwritable folder
        onnx = onnx_from_spec(model.spec, model.weights, meta, graph.opset)
        if leaky_as_prelu:
            onnx = prelu_from_leaky(onnx)
        if meta.precision is Precision.FP16:
            onnx = fp16_from_onnx(onnx)
        if table is not None:
            policy = QdqPolicy(float_layers=graph.float_layers, float_precision=graph.float_precision or Precision.FP16)
            onnx = with_weights(equalised(onnx, table.doublings), weights)
            onnx = qdq_from_onnx(onnx, table.amax, policy, table.bias_shifts)
        differences, errors, missing = verify_graph(onnx, model, meta)
        save_graph(onnx, partial)
    table_sha256 = None if table_path is None else sha256_of_file(table_path)
    certificate = None if table is None else table.certificate_for(graph.float_layers)
    meta = replace(
        meta,
        onnx_sha256=sha256_of_file(path),
        calibration_sha256=table_sha256,
        distilled_sha256=None if distilled is None else distilled.sha256,
        certificate=certificate,
    )
    save_sidecar(meta, path)
    return Exported(path, meta, path.stat().st_size, differences, errors, missing and _how_to_compare(path, missing))


def _how_to_compare(path: Path, missing: str) -> str:
    return (
        f"not compared with the PyTorch reference: {missing}. Compare where it is installed: yolov3_trt compare MODEL {path} "
        f"--images PICTURES; a published model without it: yolov3_trt certify {path}"
    )


def _own_table(path: Path, meta: ModelMeta, spec: ModelSpec) -> CalibrationTable:
    """The table at a path, made for this very model."""
    table = load_table(path)
    if table.model.layers_sha256 == spec.former_layers_sha256:
        table = replace(table, model=replace(table.model, layers_sha256=spec.layers_sha256))
    check_table(table, path, meta=meta)
    return table


def artifact_stem(spec: ModelSpec, graph: GraphSettings) -> str:
    """A file name that says what is inside: `yolov3-416-fp16`, `yolov3-608x416-fp32-pixels-detections-b1-4-8`.

    Sizes are WIDTHxHEIGHT, as cameras have them: `yolov3-416-fp16-camera-1280x720`.
    """
    precision = graph.precision or Precision.FP32
    parts = [spec.name, size_text(spec.input_hw), precision.value]
    if graph.frame_size is not None:
        parts.append("camera-{1}x{0}".format(*graph.frame_size))
    elif graph.input_stage is InputStage.PIXELS:
        parts.append("pixels")
    if graph.output_stage is not OutputStage.HEADS:
        parts.append(graph.output_stage.value)
    if graph.rows_layout not in (None, RowsLayout.OPENCV):
        parts.append(graph.rows_layout.value.replace("_", "-"))
    if graph.batch.max > 1:
        parts.append("b" + str(graph.batch).replace(":", "-"))
    return "-".join(parts)


def model_meta(model: Model, graph: GraphSettings, detect: DetectSettings | None = None) -> ModelMeta:
    """The sidecar of an export, less the hashes of what is yet to be made and the versions of absent tools."""
    graph = graph.with_precision(Precision.FP32)
    assert graph.precision is not None
    meta = replace(
        meta_from_spec(model.spec, model.class_names, model.class_names_from),
        precision=graph.precision,
        batch=graph.batch,
        input_stage=graph.input_stage,
        frame_hw=graph.frame_size,
        output_stage=graph.output_stage,
        rows_layout=graph.rows_layout,
        opset=graph.opset,
        weights_sha256=model.weights_sha256,
        versions={"yolov3_trt": __version__, **_version_of_onnx()},
    )
    detect = detect or DetectSettings()
    if graph.rows_layout in (RowsLayout.OPENCV, RowsLayout.OPENCV_JOINED) and detect.conf is None:
        detect = replace(detect, conf=OPENCV_CONF)
    return detect.apply(meta)


def _version_of_onnx() -> dict[str, str]:
    """Where it is installed; what an export needs it asks for itself."""
    try:
        return {"onnx": importlib.metadata.version("onnx")}
    except importlib.metadata.PackageNotFoundError:
        return {}
