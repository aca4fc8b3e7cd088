"""`deploy`: what NVIDIA's own servers need to run an artifact."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from yolov3_trt.cli.needs import CheckedVerb
from yolov3_trt.cli.options import JsonOption, check_output_suffix, writable
from yolov3_trt.cli.output import say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.deploy.plan import Plan

VariantChoice = Literal["auto", "tensorrt", "onnxruntime", "python"]

app = typer.Typer(help="Write what NVIDIA's own servers need to run an artifact.", no_args_is_help=True)


@app.command(cls=CheckedVerb)
def triton(
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT...", help="Engines and .onnx files.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=writable("-o"), metavar="DIR", help="The model repository.")
    ],
    name: Annotated[
        str | None, typer.Option(help="All become versions of this model; default: models named after their files.")
    ] = None,
    variant: Annotated[VariantChoice, typer.Option(help="What runs it in the server.")] = "auto",
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Images per call at most; default: the artifact's.")
    ] = None,
    queue_delay_us: Annotated[int, typer.Option(min=0, help="A request waits at most so long for others.")] = 1000,
    instances: Annotated[int, typer.Option(min=1, help="Calls at the same time, per GPU.")] = 1,
    versions: Annotated[int, typer.Option(min=1, help="Newest versions that are served at the same time.")] = 1,
    cuda_graphs: Annotated[bool, typer.Option("--cuda-graphs", help="Of `tensorrt`: let Triton capture them.")] = False,
    json: JsonOption = None,
) -> None:
    """Write or extend a model repository for Triton Inference Server.

    A server may be reading it meanwhile: a version appears as a whole, or not at all.
    """
    from yolov3_trt.deploy.plan import plan_models
    from yolov3_trt.deploy.repository import add_version
    from yolov3_trt.deploy.triton import Serving

    serving = Serving(max_batch, queue_delay_us, instances, versions, cuda_graphs)
    plans = plan_models(artifacts, name, variant, serving)
    rows: list[dict[str, Any]] = []
    for plan in track(plans, "deploying", len(plans)):
        for reason in plan.fallbacks:
            say(f"{plan.artifact}: {reason}")
        deployed = add_version(output, plan.artifact, plan.model)
        rows.append({**_row(plan), "version": deployed.version, "folder": str(deployed.folder)})
    lines = [f"{row['folder']}  {row['variant']}, max_batch_size {row['max_batch_size']}" for row in rows]
    lines.append(f"serve with: tritonserver --model-repository={output}")
    write_result(json, {"repository": str(output), "versions": rows}, "\n".join(lines))


@app.command()
def deepstream(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An engine or .onnx with float input.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=writable("-o"), metavar="FILE.txt", help="The configuration.")
    ],
    parser_library: Annotated[
        Path | None, typer.Option(metavar="LIB.so", help="Yours, which reads the outputs inside Gst-nvinfer.")
    ] = None,
    parser_function: Annotated[str | None, typer.Option(metavar="NAME", help="Of that library.")] = None,
    json: JsonOption = None,
) -> None:
    """Write the configuration of DeepStream's Gst-nvinfer for an artifact, and its labels beside it.

    What it needs besides is said in its comments.
    """
    from yolov3_trt.deploy.deepstream import Parser, config_from_artifact
    from yolov3_trt.deploy.plan import load_meta
    from yolov3_trt.files import write_text
    from yolov3_trt.meta import EngineMeta

    if (parser_library is None) != (parser_function is None):
        raise typer.BadParameter("--parser-library and --parser-function go together", param_hint="--parser-library")
    check_output_suffix(output, ".txt")
    meta = load_meta(artifact)
    labels = output.with_suffix(".labels.txt")
    parser = Parser(parser_library, parser_function) if parser_library and parser_function else None
    # Gst-nvinfer takes paths from where its configuration lies.
    text = config_from_artifact(Path(os.path.relpath(artifact, output.parent)), meta, Path(labels.name), parser)
    names = (meta.model if isinstance(meta, EngineMeta) else meta).class_names
    write_text(labels, "".join(f"{name}\n" for name in names))
    write_text(output, text)
    content = {"artifact": str(artifact), "config": str(output), "labels": str(labels), "parser": parser_function}
    write_result(json, content, f"{output}\n{labels}")


def _row(plan: "Plan") -> dict[str, Any]:
    model = plan.model
    return {
        "model": model.name,
        "artifact": str(plan.artifact),
        "variant": model.variant.value,
        "max_batch_size": model.max_batch_size,
        "fallbacks": list(plan.fallbacks),
    }
