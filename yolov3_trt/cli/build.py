"""`build`: everything up to an engine and its sidecar."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from yolov3_trt.cli.calibrate import MethodOption, SeedOption
from yolov3_trt.cli.export import (
    BatchOption,
    CalibrationOption,
    FrameSizeOption,
    InputStageOption,
    OpsetOption,
    OutputStageOption,
    PrecisionOption,
    SkipLayersOption,
    parse_frame_hw,
    report_json,
    report_text,
)
from yolov3_trt.cli.options import (
    ConfOption,
    FlavorChoice,
    InputSizeOption,
    IouOption,
    JsonOption,
    MaxDetectionsOption,
    NamesOption,
    NmsOption,
    ResizeOption,
    RestName,
    WeightsOption,
    check_output_suffix,
    parse_batch,
    parse_input_hw,
    parse_layers,
)
from yolov3_trt.cli.output import build_bar, say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.jobs.build import Built
    from yolov3_trt.meta import EngineMeta
    from yolov3_trt.recipe import BuildRecipe, CalibrationRecipe
    from yolov3_trt.settings import EngineSettings

CompatibilityName = Literal["none", "ampere_plus", "same_compute_capability"]
RefitName = Literal["none", "all", "identical", "individual"]

# What may be given along with a recipe, and along with a graph.
_WITH_RECIPE = frozenset("weights names images calibration flavor timing_cache output force save_recipe json".split())
_WITH_GRAPH = frozenset(
    "flavor workspace opt_level timing_cache hardware_compatibility version_compatible dla refit strip_weights "
    "compute_capabilities output force json".split()
)


def build(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|MODEL|ONNX", help="A recipe (.toml, or a packaged one's name), a model, or an .onnx."
        ),
    ],
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    batch: BatchOption = "1",
    precision: PrecisionOption = "fp16",
    input_stage: InputStageOption = "tensor",
    frame_size: FrameSizeOption = None,
    output_stage: OutputStageOption = "heads",
    opset: OpsetOption = 17,
    calibration: CalibrationOption = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Of INT8: pictures to make the table from, as `calibrate` takes them."),
    ] = None,
    method: MethodOption = "mse",
    num_images: Annotated[
        int | None, typer.Option(min=1, help="Pictures to choose; default: 64, or as the manifest says.")
    ] = None,
    seed: SeedOption = 0,
    skip_layers: SkipLayersOption = None,
    rest: Annotated[
        RestName | None,
        typer.Option(help="Of INT8: what the rest computes in; default: fp16, for TensorRT 8 fp32, which it needs."),
    ] = None,
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
    opt_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="0 (quick build) to 5 (quick engine); default: TensorRT's, 3.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep and reuse timings there; a file per GPU and version.")
    ] = None,
    hardware_compatibility: Annotated[
        CompatibilityName, typer.Option(help="Other GPUs that the engine shall run on.")
    ] = "none",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run in newer TensorRT of this major version too.")
    ] = False,
    dla: Annotated[
        int | None, typer.Option(min=0, metavar="CORE", help="Run on this deep learning accelerator (Jetson).")
    ] = None,
    refit: Annotated[RefitName, typer.Option(help="Which weights can be exchanged later.")] = "none",
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="Leave out weights that a refit brings back.")
    ] = False,
    compute_capabilities: Annotated[
        str | None, typer.Option(metavar="8.6,8.9,...", help="Of TensorRT-RTX: GPUs to build for; default: 8.0 and up.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the engine there is up to date.")] = False,
    save_recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write these settings as a recipe too.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: engines/NAME.engine.")] = None,
    json: JsonOption = None,
) -> None:
    """Compile a recipe, a model or an exported graph into a TensorRT engine and its sidecar.

    An engine that was built of just this is left as it is, which is said.
    """
    from yolov3_trt.jobs import Reporter
    from yolov3_trt.jobs.build import build_from_graph, build_from_recipe, engine_stem
    from yolov3_trt.recipe import find_recipe, load_found
    from yolov3_trt.recipe import save_recipe as write_recipe

    check_output_suffix(output, ".engine", ".plan")
    given = {name for name in ctx.params if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")} - {"source"}
    reporter = Reporter(say, track)
    if source.endswith(".onnx"):
        _refuse(given - _WITH_GRAPH, f"{source} was exported with its own; leave it out, or build from the model")
        options = _engine_options(ctx.params)
        path = output or Path(source).with_suffix(".engine")
        with build_bar() as progress:
            built = build_from_graph(Path(source), path, options, force=force, reporter=reporter, progress=progress)
    else:
        found = find_recipe(source)
        if found is not None:
            _refuse(given - _WITH_RECIPE, f"{source} says it itself; leave it out, or change the recipe")
            recipe = _overridden(load_found(found), ctx.params, given)
            path = output or Path("engines") / f"{found.stem}.engine"
        else:
            recipe = _recipe(source, ctx.params)
            path = output or Path("engines") / f"{engine_stem(recipe)}.engine"
        if save_recipe is not None:
            write_recipe(recipe, save_recipe)
            say(f"{save_recipe}: written")
        with build_bar() as progress:
            built = build_from_recipe(recipe, path, force=force, reporter=reporter, progress=progress)
    write_result(json, built_json(built), built_text(built))


def _refuse(names: set[str], why: str) -> None:
    if names:
        flag = min(names).replace("_", "-")
        raise typer.BadParameter(why, param_hint=f"--{flag}")


def _recipe(model: str, given: dict[str, Any]) -> "BuildRecipe":
    """What the options say."""
    from yolov3_trt.geometry import Resize
    from yolov3_trt.meta import InputStage, OutputStage, Precision
    from yolov3_trt.recipe import BuildRecipe, DetectRecipe, GraphRecipe

    precision, rest = Precision(given["precision"]), given["rest"]
    if precision is Precision.INT8 and given["calibration"] is None and given["images"] is None:
        raise typer.BadParameter(
            "int8 needs ranges: --images SOURCE to find them on, or --calibration TABLE from `calibrate`",
            param_hint="--precision",
        )
    return BuildRecipe(
        model=model,
        graph=GraphRecipe(
            precision=precision,
            batch=parse_batch(given["batch"]),
            input_stage=InputStage(given["input_stage"]),
            output_stage=OutputStage(given["output_stage"]),
            frame_size=parse_frame_hw(given["frame_size"]),
            opset=given["opset"],
            skip_layers=parse_layers(given["skip_layers"]),
            rest=None if rest is None else Precision(rest),
        ),
        weights=None if given["weights"] is None else Path(given["weights"]),
        names=given["names"],
        input_size=parse_input_hw(given["input_size"]),
        calibration=_calibration(given, Path("calib") / f"{Path(model).stem}-{given['method']}.json"),
        detect=DetectRecipe(
            given["conf"],
            given["iou"],
            given["max_detections"],
            given["nms"],
            None if given["resize"] is None else Resize(given["resize"]),
        ),
        engine=_engine_options(given),
    )


def _calibration(given: dict[str, Any], default_table: Path) -> "CalibrationRecipe | None":
    from yolov3_trt.recipe import CalibrationRecipe
    from yolov3_trt.settings import Method

    if given["calibration"] is None and given["images"] is None:
        return None
    return CalibrationRecipe(
        table=given["calibration"] or default_table,
        images=given["images"],
        method=Method(given["method"]),
        num_images=given["num_images"],
        seed=given["seed"] or None,
    )


def _overridden(recipe: "BuildRecipe", params: dict[str, Any], given: set[str]) -> "BuildRecipe":
    """A recipe with what differs from place to place: files, and the TensorRT at hand."""
    from yolov3_trt.settings import FlavorName

    changes: dict[str, Any] = {name: params[name] for name in given & {"weights", "names"}}
    if "weights" in changes:
        changes["weights"] = Path(changes["weights"])
    if given & {"calibration", "images"}:
        if recipe.calibration is None:
            raise typer.BadParameter(
                f"the recipe is for {recipe.graph.precision.value}, which needs no calibration", param_hint="--images"
            )
        asked = {"table": params["calibration"], "images": params["images"]}
        changes["calibration"] = replace(
            recipe.calibration, **{name: value for name, value in asked.items() if value is not None}
        )
    engine: dict[str, Any] = {"flavor": FlavorName(params["flavor"])} if "flavor" in given else {}
    if "timing_cache" in given:
        engine["timing_cache"] = params["timing_cache"]
    return replace(recipe, engine=replace(recipe.engine, **engine), **changes)


def _engine_options(given: dict[str, Any]) -> "EngineSettings":
    from yolov3_trt.settings import EngineSettings, FlavorName, HardwareCompatibility, Refit

    capabilities = given["compute_capabilities"]
    return EngineSettings(
        flavor=FlavorName(given["flavor"]),
        workspace_mib=given["workspace"],
        optimization_level=given["opt_level"],
        timing_cache=given["timing_cache"],
        hardware_compatibility=HardwareCompatibility(given["hardware_compatibility"]),
        version_compatible=given["version_compatible"],
        dla_core=given["dla"],
        refit=Refit(given["refit"]),
        strip_weights=given["strip_weights"],
        compute_capabilities=tuple(capabilities.split(",")) if capabilities else (),
    )


def built_json(built: "Built") -> dict[str, Any]:
    """An engine that is there now, as JSON."""
    from yolov3_trt.meta import to_json

    return {
        "engine": str(built.path),
        "reused": built.reused,
        "reason": built.reason,
        "bytes": built.meta.plan_bytes,
        "build_s": built.meta.build_s,
        "notes": list(built.engine.notes) if built.engine else [],
        "dla": to_json(built.engine.dla) if built.engine and built.engine.dla else None,
        "export": report_json(built.export) if built.export else None,
        "meta": to_json(built.meta),
    }


def built_text(built: "Built") -> str:
    """The same in some lines."""
    lines = [report_text(built.export)] if built.export else []
    lines.append(engine_text(built.path, built.meta))
    lines.append(f"  {'left as it is' if built.reused else 'built'}: {built.reason}")
    if built.engine is not None:
        lines += [f"  note: {note}" for note in built.engine.notes]
        if built.engine.dla is not None:
            dla = built.engine.dla
            lines += [
                f"  {dla}",
                *(f"  on the GPU: {name}  {dla.reasons.get(name, '')}".rstrip() for name in dla.on_gpu),
            ]
    return "\n".join(lines)


def engine_text(path: Path, engine: "EngineMeta") -> str:
    """A built engine in a line."""
    target = engine.gpu or "built on the CPU, for GPUs of compute capability "
    if engine.gpu is None:
        target += ", ".join(engine.compute_capabilities) or "8.0 (Ampere) and newer"
    return (
        f"{path}  {engine.plan_bytes / 1e6:.1f} MB  {engine.model.precision.value}  {engine.build_s:.1f} s  "
        f"({engine.flavor} {engine.flavor_version}; {target})"
    )
