"""`calibrate`: pictures to the ranges that INT8 covers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolov3_trt.cli.options import JsonOption, MethodName, check_output_suffix
from yolov3_trt.cli.output import say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.data.calibration_set import CalibrationSet

ImagesOption = Annotated[
    str,
    typer.Option(metavar="SOURCE", help="To calibrate on: a folder, a list, a video, a manifest (.toml), or `shapes`."),
]
MethodOption = Annotated[MethodName, typer.Option(help="How a range is chosen.")]
NumImagesOption = Annotated[int, typer.Option(min=1, help="Pictures to choose.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the choice.")]
EqualiseOption = Annotated[
    bool,
    typer.Option(help="Bring channels to like size first, exactly, so that INT8 is less coarse for the small ones."),
]
BiasCorrectionOption = Annotated[bool, typer.Option(help="Take from the biases what INT8 adds to means.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Calibrate anew even if the table there fits.")]


def calibrate(
    graph: Annotated[Path, typer.Argument(metavar="ARTIFACT.onnx", help="An FP32 graph made by `export`.")],
    images: ImagesOption,
    method: MethodOption = "mse",
    percentile: Annotated[
        float | None, typer.Option(min=0, max=100, help="Of `percentile`: share that is not cut off; default 99.99.")
    ] = None,
    num_images: NumImagesOption = 64,
    seed: SeedOption = 0,
    val_images: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Evaluation pictures, none of which may be calibrated on.")
    ] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Calibrate on evaluation pictures nevertheless.")
    ] = False,
    equalise: EqualiseOption = True,
    bias_correction: BiasCorrectionOption = True,
    force: ForceOption = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: calib/NAME-METHOD.json.")
    ] = None,
    tensorrt_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write TensorRT's calibration cache too: implicit INT8 and DLA, up to 10.x. The "
            "table is then of the graph as it is: not equalised, biases as they are.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Find the range of every tensor that INT8 needs, on pictures prepared as at inference.

    A table that was made of the same model, pictures, preprocessing and method is reused, which is said.
    """
    from yolov3_trt.calibration.tensorrt_cache import tensorrt_cache_text
    from yolov3_trt.data.images import find_sources
    from yolov3_trt.files import write_text
    from yolov3_trt.jobs import Calibration, Reporter, calibrated_table
    from yolov3_trt.settings import Method

    check_output_suffix(output, ".json")
    if percentile is not None and method != "percentile":
        raise typer.BadParameter("goes with --method percentile only", param_hint="--percentile")
    wanted = Calibration(
        calibration_set(images, num_images, seed),
        Method(method),
        percentile,
        () if val_images is None else find_sources([val_images]),
        allow_overlap,
        all_tensors=tensorrt_cache is not None,
        equalise=equalise and tensorrt_cache is None,
        correct_biases=bias_correction and tensorrt_cache is None,
    )
    path = output or Path("calib") / f"{graph.stem}-{method}.json"
    found = calibrated_table(graph, path, wanted, force=force, reporter=Reporter(say, track))
    if tensorrt_cache is not None:
        write_text(tensorrt_cache, tensorrt_cache_text(found.table))
    text = f"{path}  {len(found.table.amax)} tensors, {found.table.images.count} pictures, {method}"
    content = {
        "table": str(path),
        "reused": found.reused,
        "model": found.table.model.name,
        "images": found.table.images.count,
        "method": method,
        "tensors": len(found.table.amax),
    }
    write_result(json, content, text + (", reused" if found.reused else ""))


def calibration_set(images: str, num_images: int, seed: int) -> "CalibrationSet":
    """What --images, --num-images and --seed say; a manifest says the last two itself."""
    from yolov3_trt.data.calibration_set import CalibrationSet
    from yolov3_trt.data.manifest import load_set

    return load_set(Path(images)) if images.endswith(".toml") else CalibrationSet.of(images, num_images, seed)
