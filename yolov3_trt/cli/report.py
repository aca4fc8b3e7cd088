"""`report`: what each precision of a model costs and gives, in one file."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from yolov3_trt.cli.bench_text import bench_text
from yolov3_trt.cli.data_options import DataOption, SkipFaultyOption, SplitOption, sets_from_options
from yolov3_trt.cli.eval import evaluation_text
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import JsonOption, ModelArgument, writes
from yolov3_trt.cli.output import reporter, say, write_result
from yolov3_trt.settings import CalibrationSettings, DetectSettings


@takes(ModelOptions, CalibrationSettings, DetectSettings)
def report(
    model: ModelArgument,
    data: DataOption = None,
    split: SplitOption = None,
    skip_faulty: SkipFaultyOption = False,
    precisions: Annotated[
        str, typer.Option(metavar="P,...", help="Some of fp32, fp16 and int8; the others are compared with the first.")
    ] = "fp32,fp16,int8",
    engines: Annotated[
        bool, typer.Option("--engines", help="Build a TensorRT engine of each, and measure these; wants a GPU.")
    ] = False,
    max_ap_drop: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Say whether AP is proven to drop by less than this below the first's."),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Show the N pictures that came out worst.")] = 6,
    frames: Annotated[int, typer.Option(min=1, help="Timed calls of each row.")] = 50,
    output: Annotated[
        Path,
        writes("FILE", "The report: .html, .md or .json.", "-o", "--output"),
    ] = Path("report.html"),
    folder: Annotated[
        Path,
        writes("FOLDER", "For graphs, tables and engines.", "--folder", is_folder=True),
    ] = Path("engines"),
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Export a model in several precisions, measure accuracy and speed of all, and write one report.

    INT8 is calibrated on the train part of --data, unless --images or --table is given.
    """
    from yolov3_trt.jobs.report import report_on

    labelled = sets_from_options(None, data, split, None, skip_faulty=skip_faulty)[1]
    if labelled is None:
        raise typer.BadParameter("expected a labelled set, e.g. a data.yaml or a COCO JSON", param_hint="--data")
    result = report_on(
        model,
        output,
        data=labelled,
        precisions=precisions,
        engines=engines,
        max_ap_drop=max_ap_drop,
        worst=worst,
        frames=frames,
        folder=folder,
        command=["yolov3_trt", *sys.argv[1:]],
        reporter=reporter(),
        **settings,
    )
    say(f"wrote {result.path}")
    write_result(
        json, result.to_json(), f"{evaluation_text(result.evaluation)}\n\n{bench_text(result.benchmark, layers=False)}"
    )
