"""`build`: everything up to an engine and its sidecar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.export import (
    BatchOption,
    CalibrationOption,
    GraphOptions,
    InputStageOption,
    OpsetOption,
    OutputStageOption,
    PrecisionOption,
    RestOption,
    SkipLayersOption,
    report_json,
    report_text,
)
from yolov3_trt.cli.options import (
    ConfOption,
    DetectOptions,
    FlavorChoice,
    InputSizeOption,
    IouOption,
    JsonOption,
    MaxDetectionsOption,
    ModelOptions,
    NamesOption,
    NmsOption,
    ResizeOption,
    WeightsOption,
    check_output_suffix,
)
from yolov3_trt.cli.output import say, write_result

if TYPE_CHECKING:
    from yolov3_trt.meta import EngineMeta


def build(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="MODEL|ONNX", help="Built-in model, a .cfg, or an exported .onnx.")],
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    batch: BatchOption = "1",
    precision: PrecisionOption = "fp16",
    input_stage: InputStageOption = "tensor",
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
    flavor: Annotated[
        FlavorChoice, typer.Option(help="auto: tensorrt with a GPU, else TensorRT-RTX on the CPU.")
    ] = "auto",
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Scratch memory of a layer at most.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: engines/MODEL-SIZE-PRECISION.engine.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Compile a model or an exported graph into a TensorRT engine and its sidecar."""
    from yolov3_trt.engine.build import build_engine
    from yolov3_trt.engine.options import EngineOptions, FlavorName
    from yolov3_trt.pipeline import artifact_stem, export_model

    check_output_suffix(output, ".engine", ".plan")
    options = EngineOptions(FlavorName(flavor), workspace)
    if source.endswith(".onnx"):
        _refuse_export_options(ctx, source)
        onnx_path = Path(source)
        engine_path = output or onnx_path.with_suffix(".engine")
        exported: dict[str, Any] = {"onnx": source}
    else:
        model = ModelOptions(weights, names, input_size).load(source)
        detect = DetectOptions(conf, iou, max_detections, nms, resize)
        options_of_graph = GraphOptions(
            batch, precision, input_stage, output_stage, opset, calibration, skip_layers, rest
        )
        graph = options_of_graph.for_export(model, detect)
        engine_path = output or Path("engines") / f"{artifact_stem(model, graph)}.engine"
        report = export_model(model, engine_path.with_suffix(".onnx"), graph)
        say(report_text(report))
        onnx_path, exported = report.path, report_json(report)
    engine = build_engine(onnx_path, engine_path, options)
    write_result(json, {"export": exported, **engine_json(engine_path, engine)}, engine_text(engine_path, engine))


def engine_json(path: Path, engine: "EngineMeta") -> dict[str, Any]:
    """A built engine as JSON."""
    from yolov3_trt.meta import to_json

    return {"engine": str(path), "bytes": engine.plan_bytes, "build_s": engine.build_s, "meta": to_json(engine)}


def engine_text(path: Path, engine: "EngineMeta") -> str:
    """A built engine in a line."""
    target = engine.gpu or "built on the CPU, for Ampere and newer GPUs"
    return (
        f"{path}  {engine.plan_bytes / 1e6:.1f} MB  {engine.model.precision.value}  {engine.build_s:.1f} s  "
        f"({engine.flavor} {engine.flavor_version}; {target})"
    )


# Options of the export, which an .onnx has behind it.
_EXPORT_ONLY = frozenset(
    "weights names input_size batch precision input_stage output_stage opset calibration skip_layers rest conf iou "
    "max_detections nms resize".split()
)


def _refuse_export_options(ctx: typer.Context, source: str) -> None:
    given = [name for name in sorted(_EXPORT_ONLY) if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")]
    if given:
        flag = given[0].replace("_", "-")
        raise typer.BadParameter(
            f"{source} was exported with its own; leave it out, or build from the model", param_hint=f"--{flag}"
        )
