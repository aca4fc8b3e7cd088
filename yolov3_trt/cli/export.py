"""`export`: PyTorch -> ONNX + sidecar."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import (
    ConfOption,
    DetectOptions,
    InputSizeOption,
    InputStageName,
    IouOption,
    JsonOption,
    MaxDetectionsOption,
    ModelArgument,
    ModelOptions,
    NamesOption,
    NmsOption,
    OutputStageName,
    PrecisionName,
    ResizeOption,
    RestName,
    WeightsOption,
    check_output_suffix,
    parse_batch,
    parse_layers,
)
from yolov3_trt.cli.output import write_result

if TYPE_CHECKING:
    from yolov3_trt.geometry import HW
    from yolov3_trt.jobs import ExportOptions, ExportReport
    from yolov3_trt.models import Model

PrecisionOption = Annotated[PrecisionName, typer.Option(help="What the graph computes in.")]
BatchOption = Annotated[str, typer.Option(metavar="N|MIN:OPT:MAX", help="Images per call.")]
InputStageOption = Annotated[InputStageName, typer.Option(help="`tensor`: float32 RGB 0..1; `pixels`: uint8 BGR.")]
FrameSizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="HxW", help="Of `pixels`: take whole camera frames of this size, and resize them in the graph."
    ),
]
OutputStageOption = Annotated[
    OutputStageName, typer.Option(help="`heads`: logits; `detections`: decoded and suppressed.")
]
CalibrationOption = Annotated[
    Path | None, typer.Option(metavar="TABLE", help="Of INT8: the table made by `calibrate`.")
]
SkipLayersOption = Annotated[
    str | None, typer.Option(metavar="N,N,...", help="Of INT8: layers that stay float, as the cfg counts them.")
]
RestOption = Annotated[
    RestName, typer.Option(help="Of INT8: what the rest computes in; fp32 for TensorRT 8.6, which casts by itself.")
]
OpsetOption = Annotated[int, typer.Option(help="ONNX opset; 17 is the newest that TensorRT 8.6 reads.")]


def export(
    model: ModelArgument,
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    batch: BatchOption = "1",
    precision: PrecisionOption = "fp32",
    input_stage: InputStageOption = "tensor",
    frame_size: FrameSizeOption = None,
    output_stage: OutputStageOption = "heads",
    opset: OpsetOption = 17,
    calibration: CalibrationOption = None,
    skip_layers: SkipLayersOption = None,
    rest: RestOption = "fp16",
    conf: ConfOption = None,
    iou: IouOption = None,
    max_detections: MaxDetectionsOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: engines/MODEL-SIZE-PRECISION.onnx.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Export a model to ONNX, compared with the PyTorch reference before it is written."""
    from yolov3_trt.jobs import artifact_stem, export_model

    check_output_suffix(output, ".onnx")
    loaded = ModelOptions(weights, names, input_size).load(model)
    graph = GraphOptions(batch, precision, input_stage, output_stage, opset, calibration, skip_layers, rest, frame_size)
    options = graph.for_export(loaded, DetectOptions(conf, iou, max_detections, nms, resize))
    report = export_model(loaded, output or Path("engines") / f"{artifact_stem(loaded.spec, options)}.onnx", options)
    write_result(json, report_json(report), report_text(report))


@dataclass(frozen=True)
class GraphOptions:
    """What a graph shall be, as `export` and `build` take it."""

    batch: str
    precision: PrecisionName
    input_stage: InputStageName
    output_stage: OutputStageName
    opset: int
    calibration: Path | None = None
    skip_layers: str | None = None
    rest: RestName = "fp16"
    frame_size: str | None = None

    def for_export(self, model: "Model", detect: DetectOptions) -> "ExportOptions":
        """The same as values, with the model's own pre- and postprocessing where `detect` says nothing."""
        from yolov3_trt.geometry import Resize
        from yolov3_trt.jobs import ExportOptions
        from yolov3_trt.meta import InputStage, OutputStage, Precision, meta_from_spec
        from yolov3_trt.spec import Nms

        meta = meta_from_spec(model.spec, model.class_names)
        return ExportOptions(
            precision=Precision(self.precision),
            batch=parse_batch(self.batch),
            input_stage=InputStage(self.input_stage),
            frame_hw=parse_frame_hw(self.frame_size),
            output_stage=OutputStage(self.output_stage),
            opset=self.opset,
            calibration=self.calibration,
            skip_layers=parse_layers(self.skip_layers),
            rest=Precision(self.rest),
            preprocess=meta.preprocess.override(resize=detect.resize and Resize(detect.resize)),
            postprocess=meta.postprocess.override(
                conf=detect.conf,
                iou=detect.iou,
                max_detections=detect.max_detections,
                nms=Nms() if detect.nms == "plain" else None,
            ),
        )


def parse_frame_hw(text: str | None) -> "HW | None":
    """`720x1280` (height x width) -> (height, width)."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not found:
        raise typer.BadParameter(f"{text!r}; expected HEIGHTxWIDTH, e.g. 720x1280", param_hint="--frame-size")
    return int(found[1]), int(found[2])


def report_json(report: "ExportReport") -> dict[str, Any]:
    """An export as JSON."""
    from yolov3_trt.meta import to_json

    return {
        "onnx": str(report.path),
        "bytes": report.num_bytes,
        "verified": bool(report.max_difference),
        "max_difference": dict(report.max_difference),
        "relative_error": dict(report.relative_error),
        "meta": to_json(report.meta),
    }


def report_text(report: "ExportReport") -> str:
    """An export in two lines."""
    worst = max(report.max_difference.values(), default=None)
    compared = (
        "not compared with its reference: ONNX Runtime is not installed"
        if worst is None
        else f"largest difference to PyTorch: {worst:.2g} in a logit, {max(report.relative_error.values()):.2g} relative"
    )
    return f"{report.path}  {report.num_bytes / 1e6:.1f} MB\n  {compared}"
