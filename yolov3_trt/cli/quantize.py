"""`quantize`: INT8 within an accuracy budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.data_options import DataOption, SkipFaultyOption, SplitOption, sets_from_options
from yolov3_trt.cli.export import report_text
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import JsonOption, ModelArgument, reads, writes
from yolov3_trt.cli.output import reporter, table, write_result
from yolov3_trt.settings import CalibrationSettings, DetectSettings, GraphSettings

if TYPE_CHECKING:
    from yolov3_trt.jobs.quantize import Quantized

_WORST_SHOWN = 10
_ACCURACY = "Accuracy"


@takes(ModelOptions, GraphSettings, CalibrationSettings, DetectSettings, without={"precision", "float_layers"})
def quantize(
    model: ModelArgument,
    data: DataOption = None,
    split: SplitOption = None,
    skip_faulty: SkipFaultyOption = False,
    val_images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the images of a COCO JSON that accuracy is measured on.",
            rich_help_panel=_ACCURACY,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        reads("FILE", "COCO instances (JSON) of those; the same as --data.", "--annotations", panel=_ACCURACY),
    ] = None,
    max_ap_drop: Annotated[
        float, typer.Option(min=0, max=1, help="How much AP INT8 may cost.", rich_help_panel=_ACCURACY)
    ] = 0.005,
    layer_ap: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Measure AP with one layer alone in int8 for this many of the noisiest layers.",
            rich_help_panel=_ACCURACY,
        ),
    ] = _WORST_SHOWN,
    output: Annotated[
        Path,
        writes("FOLDER", "For graphs and table.", "-o", "--output", is_folder=True),
    ] = Path("engines"),
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Calibrate, quantise, and leave as few layers float as the accuracy budget allows.

    With a data.yaml as --data, INT8 is calibrated on its train part and measured on its val part, unless --images and --split
    say otherwise.
    """
    from yolov3_trt.jobs.quantize import quantize as job

    labelled = sets_from_options(val_images, data, split, annotations, "--val-images", skip_faulty=skip_faulty)[1]
    if labelled is None:
        raise typer.BadParameter(
            "expected a data.yaml or a COCO JSON (or --val-images FOLDER --annotations FILE)", param_hint="--data"
        )
    if settings.get("images") is None and not labelled.has_splits:
        raise typer.BadParameter(
            "expected pictures to calibrate on, others than those of the set, which has one part", param_hint="--images"
        )
    result = job(
        model,
        output,
        data=labelled,
        max_ap_drop=max_ap_drop,
        layer_ap=layer_ap,
        reporter=reporter(),
        **settings,
    )
    write_result(json, result.to_json(), quantized_text(result))


def quantized_text(found: "Quantized") -> str:
    """An INT8 graph within its budget, and the layers that cost most."""
    rows = [
        (
            f"{row.layer} {row.kind}",
            f"{row.snr_db:.1f}",
            "" if row.ap is None else f"{row.ap:.4f}",
            f"{row.macs / 1e6:.1f}",
            "float" if row.layer in found.float_layers else "int8",
        )
        for row in found.sensitivities[:_WORST_SHOWN]
    ]
    proof = "" if found.certificate is None else f"{found.certificate}\n"
    return (
        f"{report_text(found.export)}\nAP {found.ap_fp32:.4f} fp32, {found.ap_int8_throughout:.4f} int8 throughout, "
        f"{found.ap:.4f} with {len(found.float_layers)} of {found.num_layers} layers float; {found.int8_share_of_macs:.1%} of "
        f"the multiply-adds are int8\n{proof}{table(('layer', 'snr dB', 'AP alone', 'MMACs', 'computes in'), rows)}"
    )
