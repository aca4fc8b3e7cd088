"""`build`: everything up to an engine and its sidecar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.export import report_text
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import OUTPUT, JsonOption, check_output_suffix, writes
from yolov3_trt.cli.output import build_bar, reporter, say, write_result
from yolov3_trt.settings import CalibrationSettings, DetectSettings, EngineSettings, GraphSettings

if TYPE_CHECKING:
    from yolov3_trt.jobs.build import Built
    from yolov3_trt.meta import EngineMeta


@takes(ModelOptions, GraphSettings, CalibrationSettings, DetectSettings, EngineSettings)
def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|MODEL|ONNX", help="A recipe (.toml, or a packaged one's name), a model, or an .onnx."
        ),
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Build even if the engine there is up to date.", rich_help_panel=OUTPUT),
    ] = False,
    require_certificate: Annotated[
        bool,
        typer.Option(
            "--require-certificate",
            help="Refuse INT8 whose AP drop is not proven to be within its limit; see quantize.",
        ),
    ] = False,
    save_recipe: Annotated[
        Path | None,
        writes("FILE", "Write these settings as a recipe too.", "--save-recipe"),
    ] = None,
    output: Annotated[
        Path | None,
        writes("FILE", "By default engines/NAME.engine.", "-o", "--output"),
    ] = None,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Compile a recipe, a model or an exported graph into a TensorRT engine and its sidecar.

    If nothing changed since the last build, the engine that is there is kept.
    """
    from yolov3_trt.jobs.build import build as job
    from yolov3_trt.jobs.build import recipe_of
    from yolov3_trt.recipe import save_recipe as write_recipe

    check_output_suffix(output, ".engine", ".plan")
    if save_recipe is not None:
        if source.endswith(".onnx"):
            raise typer.BadParameter("goes with a model or a recipe, not with a graph", param_hint="--save-recipe")
        write_recipe(recipe_of(source, **settings), save_recipe)
        say(f"{save_recipe}: written")
    with build_bar() as bar:
        built = job(
            source, output, force=force, require_certificate=require_certificate, reporter=reporter(bar), **settings
        )
    write_result(json, built.to_json(), built_text(built))


def built_text(built: "Built") -> str:
    """An engine that is there now, in some lines."""
    lines = [report_text(built.export)] if built.export else []
    lines.append(engine_text(built.path, built.meta))
    lines.append(f"  {'kept' if built.reused else 'built'}: {built.reason}")
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
