"""`adopt`: another program's ONNX graph -> an artifact of this package."""

from pathlib import Path
from typing import Annotated, Any

import typer

from yolov3_trt.cli.export import report_text
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import OUTPUT, JsonOption, check_output_suffix, readable, writable
from yolov3_trt.cli.output import write_result


@takes(ModelOptions)
def adopt(
    graph: Annotated[
        Path,
        typer.Argument(
            metavar="GRAPH", help="An .onnx with raw Darknet heads, of any exporter.", callback=readable("GRAPH")
        ),
    ],
    cfg: Annotated[str, typer.Option(metavar="MODEL", help="The .cfg or built-in model that it was made of.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="By default GRAPH-adopted.onnx.",
            rich_help_panel=OUTPUT,
            callback=writable("-o", is_file=True),
        ),
    ] = None,
    json: JsonOption = None,
    **model: Any,
) -> None:
    """Take over an ONNX graph that another program exported: compared with its .cfg and .weights, it gets a sidecar."""
    from yolov3_trt.jobs.adopt import adopt as job

    check_output_suffix(output, ".onnx")
    result = job(graph, cfg, output, **model)
    write_result(json, result.to_json(), report_text(result))
