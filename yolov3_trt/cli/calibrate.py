"""`calibrate`: pictures to the ranges that INT8 covers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from yolov3_trt.cli.data_options import DataOption, SkipFaultyOption, faults_told, list_skipped
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import OUTPUT, JsonOption, check_output_suffix, writes
from yolov3_trt.cli.output import reporter, write_result
from yolov3_trt.settings import CalibrationSettings


@takes(ModelOptions, CalibrationSettings, without={"table"})
def calibrate(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL|ONNX", help="A model (built-in or .cfg), or an FP32 graph made by `export`."),
    ],
    data: DataOption = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which part of a data.yaml: train, val or test; default: train.")
    ] = None,
    skip_faulty: SkipFaultyOption = False,
    val_images: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Evaluation pictures, none of which may be calibrated on.", rich_help_panel="INT8"
        ),
    ] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option("--allow-overlap", help="Calibrate on evaluation pictures nevertheless.", rich_help_panel="INT8"),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Calibrate again even if the table there fits.", rich_help_panel=OUTPUT),
    ] = False,
    output: Annotated[
        Path | None,
        writes("FILE", "By default calib/NAME-METHOD.json.", "-o", "--output"),
    ] = None,
    tensorrt_cache: Annotated[
        Path | None,
        writes(
            "FILE",
            "Write TensorRT's calibration cache too, for implicit INT8 and DLA up to 10.x. The table is then of the graph "
            "as it is: not equalised, biases as they are.",
            "--tensorrt-cache",
        ),
    ] = None,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Find the range of every tensor that INT8 needs, on pictures prepared as at inference.

    A table that was made of the same model, pictures, preprocessing and method is reused.
    """
    from yolov3_trt.calibration.tensorrt_cache import tensorrt_cache_text
    from yolov3_trt.files import write_text
    from yolov3_trt.jobs.calibrate import calibrate as job

    check_output_suffix(output, ".json")
    if (settings.get("images") is None) == (data is None):
        raise typer.BadParameter("expected one of --images and --data", param_hint="--images")
    if skip_faulty and data is None:
        raise typer.BadParameter("given without --data", param_hint="--skip-faulty")
    if data is not None:
        settings["images"] = data
    with faults_told():
        result = job(
            source,
            table=output,
            split=split,
            skip_faulty=skip_faulty,
            val_images=val_images,
            allow_overlap=allow_overlap,
            all_tensors=tensorrt_cache is not None,
            force=force,
            reporter=reporter(),
            **settings,
        )
    if data is not None:
        list_skipped(data, result.skipped)
    if tensorrt_cache is not None:
        write_text(tensorrt_cache, tensorrt_cache_text(result.table))
    table = result.table
    text = f"{result.path}  {len(table.amax)} tensors, {table.images.count} pictures, {table.method.value}"
    write_result(json, result.to_json(), text + (", reused" if result.reused else ""))
