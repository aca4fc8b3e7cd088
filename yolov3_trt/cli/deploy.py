"""`deploy`: what other programs need to run an artifact: NVIDIA's servers, Frigate."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from yolov3_trt.cli.needs import CheckedVerb
from yolov3_trt.cli.options import JsonOption, check_output_suffix, writes
from yolov3_trt.cli.output import say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.deploy.deployment import Deployment

VariantChoice = Literal["auto", "tensorrt", "onnxruntime", "python"]

app = typer.Typer(help="Write what NVIDIA's servers or Frigate need to run an artifact.", no_args_is_help=True)


@app.command(cls=CheckedVerb)
def triton(
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT...", help="Engines and .onnx files to serve.")],
    output: Annotated[
        Path,
        writes("DIR", "Folder of models that the server reads; it may exist.", "-o", "--output", is_folder=True),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Make all of them versions of this model, the last the newest; default: one model per file."),
    ] = None,
    variant: Annotated[
        VariantChoice, typer.Option(help="What runs them in the server; auto takes what the artifact was made for.")
    ] = "auto",
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Most images per request; default: the artifact's.")
    ] = None,
    queue_delay_us: Annotated[
        int, typer.Option(min=0, help="How long a request may wait for others to share its batch.")
    ] = 1000,
    instances: Annotated[int, typer.Option(min=1, help="How many batches run at the same time, per GPU.")] = 1,
    versions: Annotated[
        int, typer.Option(min=1, help="How many of the newest versions are served at the same time.")
    ] = 1,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Let Triton capture CUDA graphs (variant tensorrt only).")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Write or extend a model repository for Triton Inference Server.

    A server may read it meanwhile: a new version appears as a whole or not at all.
    """
    from yolov3_trt.deploy.deployment import plan_deployments
    from yolov3_trt.deploy.repository import add_version
    from yolov3_trt.deploy.triton import Serving

    serving = Serving(max_batch, queue_delay_us, instances, versions, cuda_graphs)
    deployments = plan_deployments(artifacts, name, variant, serving)
    rows: list[dict[str, Any]] = []
    for deployment in track(deployments, "deploying", len(deployments)):
        for reason in deployment.fallbacks:
            say(f"{deployment.artifact}: {reason}")
        deployed = add_version(output, deployment.artifact, deployment.model)
        rows.append({**_row(deployment), "version": deployed.version, "folder": str(deployed.folder)})
    lines = [f"{row['folder']}  {row['variant']}, max_batch_size {row['max_batch_size']}" for row in rows]
    lines.append(f"serve with: tritonserver --model-repository={output}")
    write_result(json, {"repository": str(output), "versions": rows}, "\n".join(lines))


@app.command()
def deepstream(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="An engine or .onnx exported with --input-stage tensor.")
    ],
    output: Annotated[
        Path,
        writes("FILE.txt", "The configuration to write.", "-o", "--output"),
    ],
    parser_library: Annotated[
        Path | None,
        typer.Option(metavar="LIB.so", help="Your library that turns outputs into boxes inside Gst-nvinfer."),
    ] = None,
    parser_function: Annotated[
        str | None, typer.Option(metavar="NAME", help="The parser function in that library.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write the configuration with which DeepStream's Gst-nvinfer runs an artifact, and its labels beside it.

    The comments of the configuration say what else your pipeline needs.
    """
    from yolov3_trt.deploy.deepstream import Parser, config_from_artifact
    from yolov3_trt.deploy.deployment import load_meta
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


@app.command()
def frigate(
    artifact: Annotated[
        Path,
        typer.Argument(metavar="MODEL.onnx", help="Exported with --output-stage rows --rows-layout channels_first."),
    ],
    output: Annotated[
        Path,
        writes("DIR", "Frigate's folder model_cache, or any other.", "-o", "--output", is_folder=True),
    ],
    json: JsonOption = None,
) -> None:
    """Write graph, labels and a block of configuration for Frigate's onnx detector."""
    from yolov3_trt.deploy.frigate import write_frigate
    from yolov3_trt.meta import load_model_meta

    check_output_suffix(artifact, ".onnx")
    paths = dict(
        zip(("model", "labels", "config"), write_frigate(artifact, load_model_meta(artifact), output), strict=True)
    )
    write_result(json, {name: str(path) for name, path in paths.items()}, "\n".join(map(str, paths.values())))


def _row(deployment: "Deployment") -> dict[str, Any]:
    model = deployment.model
    return {
        "model": model.name,
        "artifact": str(deployment.artifact),
        "variant": model.variant.value,
        "max_batch_size": model.max_batch_size,
        "fallbacks": list(deployment.fallbacks),
    }
