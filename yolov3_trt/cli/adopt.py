"""`adopt`: another program's ONNX graph -> an artifact of this package."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.export import report_text
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import JsonOption, check_output_suffix, readable, writes
from yolov3_trt.cli.output import write_result

if TYPE_CHECKING:
    from yolov3_trt.jobs.export import Exported


@takes(ModelOptions)
def adopt(
    graph: Annotated[
        Path,
        typer.Argument(
            metavar="GRAPH", help="An .onnx with raw Darknet heads, of any exporter.", callback=readable("GRAPH")
        ),
    ],
    cfg: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The .cfg or built-in model that it was made of.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(
            metavar="W,H,W,H,...",
            help="Where there is no .cfg: anchors of YOLOv3 heads in px, smallest first; `;` between heads that share some.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        writes("FILE", "By default GRAPH-adopted.onnx.", "-o", "--output"),
    ] = None,
    json: JsonOption = None,
    **model: Any,
) -> None:
    """Take over an ONNX graph that another program exported: it gets a sidecar.

    With --cfg it is compared with what the .cfg and .weights compute; with --anchors its shapes are all there is to check.
    """
    from yolov3_trt.jobs.adopt import adopt as job

    check_output_suffix(output, ".onnx")
    result = job(graph, cfg, output, anchors=anchors, **model)
    compared = report_text(result) if cfg is not None else f"{result.path}\n  {_heads_text(result)}"
    write_result(json, result.to_json(), compared)


def _heads_text(result: "Exported") -> str:
    meta = result.meta
    heads = ", ".join(
        f"{head.grid_hw[1]}x{head.grid_hw[0]} cells with {len(head.anchors_wh)} anchors" for head in meta.heads
    )
    return f"{meta.num_classes} classes; {heads}; compared with nothing: look at what it finds in a picture"
