"""`calibrate`: pictures to the ranges that INT8 covers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolov3_trt.cli.options import JsonOption, MethodName, check_output_suffix
from yolov3_trt.cli.output import say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.calibration.image_set import CalibrationSet, ChosenPictures
    from yolov3_trt.calibration.table import CalibrationTable

ImagesOption = Annotated[
    str,
    typer.Option(metavar="SOURCE", help="To calibrate on: a folder, a list, a video, a manifest (.toml), or `shapes`."),
]
MethodOption = Annotated[MethodName, typer.Option(help="How a range is chosen.")]
NumImagesOption = Annotated[int, typer.Option(min=1, help="Pictures to choose.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the choice.")]
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
    force: ForceOption = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: calib/NAME-METHOD.json.")
    ] = None,
    tensorrt_cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write TensorRT's calibration cache too: implicit INT8 and DLA, up to 10.x."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Find the range of every tensor that INT8 needs, on pictures prepared as at inference.

    A table that was made of the same model, pictures, preprocessing and method is reused, which is said.
    """
    from yolov3_trt.calibration.tensorrt_cache import tensorrt_cache_text
    from yolov3_trt.files import write_text

    check_output_suffix(output, ".json")
    if percentile is not None and method != "percentile":
        raise typer.BadParameter("goes with --method percentile only", param_hint="--percentile")
    wanted = Wanted(
        images, method, num_images, seed, percentile, val_images, allow_overlap, force, tensorrt_cache is not None
    )
    path = output or Path("calib") / f"{graph.stem}-{method}.json"
    found = calibration_table(graph, path, wanted)
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


@dataclass(frozen=True)
class Wanted:
    """How to calibrate."""

    images: str
    method: MethodName
    num_images: int
    seed: int
    percentile: float | None = None
    val_images: str | None = None
    allow_overlap: bool = False
    force: bool = False
    all_tensors: bool = False


@dataclass(frozen=True)
class Calibrated:
    """A table, new or reused, and the pictures behind it."""

    table: "CalibrationTable"
    pictures: "ChosenPictures"
    reused: bool


def calibration_table(graph: Path, path: Path, wanted: Wanted) -> Calibrated:
    """The table of a graph at `path`: the one that is there if it was made of just this, else a new one."""
    from yolov3_trt.calibration.fingerprints import content_hashes, repeat_warnings, set_warnings
    from yolov3_trt.calibration.image_set import open_set
    from yolov3_trt.calibration.observers import DEFAULT_PERCENTILE, Method
    from yolov3_trt.calibration.table import load_table, save_table, table_differences
    from yolov3_trt.images import find_sources
    from yolov3_trt.meta import load_model_meta
    from yolov3_trt.pipeline import calibrate_graph

    meta, method = load_model_meta(graph), Method(wanted.method)
    percentile = (wanted.percentile or DEFAULT_PERCENTILE) if method is Method.PERCENTILE else None
    chosen = _calibration_set(wanted)
    pictures = open_set(chosen, lambda items: track(items, "reading pictures", chosen.count))
    evaluation = () if wanted.val_images is None else content_hashes(find_sources([wanted.val_images]))
    for warning in set_warnings(pictures.fingerprints, evaluation, allow_overlap=wanted.allow_overlap):
        say(f"warning: {warning}")
    if path.exists() and not wanted.force:
        table = load_table(path)
        differences = table_differences(
            table, meta=meta, images=pictures.picture_list, method=method, percentile=percentile
        )
        if wanted.all_tensors and not table.all_tensors:
            differences += ("tensors (the table has those of Q/DQ only; expected all)",)
        if not differences:
            say(f"{path}: reused, it was made of just this model, these pictures, this preprocessing and method")
            return Calibrated(table, pictures, True)
        say(f"{path}: calibrating again, the table there differs in {'; '.join(differences)}")
    table = calibrate_graph(
        graph,
        pictures,
        method,
        percentile,
        all_tensors=wanted.all_tensors,
        progress=lambda items: track(items, "calibrating", len(pictures)),
    )
    for warning in repeat_warnings(pictures.fingerprints, pictures.difference_hashes):
        say(f"warning: {warning}")
    save_table(table, path)
    return Calibrated(table, pictures, False)


def _calibration_set(wanted: Wanted) -> "CalibrationSet":
    from yolov3_trt.calibration.image_set import CalibrationSet
    from yolov3_trt.calibration.manifest import load_set

    if wanted.images.endswith(".toml"):
        return load_set(Path(wanted.images))
    return CalibrationSet.of(wanted.images, wanted.num_images, wanted.seed)
