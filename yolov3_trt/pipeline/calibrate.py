"""ONNX file -> calibration table."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt import __version__
from yolov3_trt.calibration.fingerprints import content_hashes, repeat_warnings, set_warnings
from yolov3_trt.calibration.image_set import CalibrationSet, ChosenPictures, open_set
from yolov3_trt.calibration.observers import DEFAULT_PERCENTILE, Method
from yolov3_trt.calibration.ranges import ranges_of_tensors
from yolov3_trt.calibration.table import (
    CalibratedModel,
    CalibrationTable,
    load_table,
    save_table,
    table_differences,
)
from yolov3_trt.errors import CalibrationError, require
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import INPUT_NAME, InputStage, ModelMeta, Precision, load_model_meta
from yolov3_trt.pipeline.reporter import SILENT, Reporter
from yolov3_trt.preprocess import InputBuffer, prepare_batch


@dataclass(frozen=True)
class Calibration:
    """How a table shall be made.

    Attributes:
        pictures: to calibrate on.
        method: how a range is chosen.
        percentile: of Method.PERCENTILE, there by default `DEFAULT_PERCENTILE`.
        evaluation: files of pictures that accuracy is measured on, none of which may be among `pictures`...
        allow_overlap: ... unless this is set.
        all_tensors: also of tensors that Q/DQ leaves alone, between a convolution and its activation and at the heads: what
            implicit INT8 and DLA ask for.
    """

    pictures: CalibrationSet
    method: Method = Method.MSE
    percentile: float | None = None
    evaluation: tuple[Path, ...] = ()
    allow_overlap: bool = False
    all_tensors: bool = False

    def __post_init__(self) -> None:
        if self.method is Method.PERCENTILE and self.percentile is None:
            object.__setattr__(self, "percentile", DEFAULT_PERCENTILE)


@dataclass(frozen=True)
class Calibrated:
    """A table, new or reused, and the pictures behind it."""

    table: CalibrationTable
    pictures: ChosenPictures
    reused: bool


def calibrated_table(
    graph: Path, path: Path, wanted: Calibration, *, force: bool = False, reporter: Reporter = SILENT
) -> Calibrated:
    """The table of an FP32 graph at `path`: the one that is there if it was made of just this, else a new one.

    Args:
        graph: with its sidecar; see `calibrate_graph`.
        path: of the table.
        wanted: see `Calibration`.
        force: make a new one in any case.
        reporter: told of warnings, and whether and why a table is reused or made again.

    Raises:
        CalibrationError: pictures that must not be calibrated on, or see `calibrate_graph`.
    """
    pictures = open_pictures(wanted, reporter)
    table = None if force else fitting_table(path, load_model_meta(graph), pictures, wanted, reporter)
    if table is not None:
        return Calibrated(table, pictures, True)
    table = calibrate_graph(graph, pictures, wanted, reporter)
    for warning in repeat_warnings(pictures.fingerprints, pictures.difference_hashes):
        reporter.say(f"warning: {warning}")
    save_table(table, path)
    return Calibrated(table, pictures, False)


def open_pictures(wanted: Calibration, reporter: Reporter = SILENT) -> ChosenPictures:
    """The pictures to calibrate on; what speaks against them is said.

    Raises:
        CalibrationError: evaluation pictures are among them and may not be.
    """
    count = wanted.pictures.count
    pictures = open_set(wanted.pictures, lambda items: reporter.track(items, "reading pictures", count))
    evaluation = content_hashes(wanted.evaluation)
    for warning in set_warnings(pictures.fingerprints, evaluation, allow_overlap=wanted.allow_overlap):
        reporter.say(f"warning: {warning}")
    return pictures


def fitting_table(
    path: Path, meta: ModelMeta, pictures: ChosenPictures, wanted: Calibration, reporter: Reporter = SILENT
) -> CalibrationTable | None:
    """The table at `path` if it is there and was made of just this; why it does not fit is said."""
    if not path.exists():
        return None
    table = load_table(path)
    differences = table_differences(
        table, meta=meta, images=pictures.picture_list, method=wanted.method, percentile=wanted.percentile
    )
    if wanted.all_tensors and not table.all_tensors:
        differences += ("tensors (the table has those of Q/DQ only; expected all)",)
    if differences:
        reporter.say(f"{path}: calibrating again, the table there differs in {'; '.join(differences)}")
        return None
    reporter.say(f"{path}: reused, it was made of just this model, these pictures, this preprocessing and method")
    return table


def calibrate_graph(
    path: Path, pictures: ChosenPictures, wanted: Calibration, reporter: Reporter = SILENT
) -> CalibrationTable:
    """Find the range of every tensor that INT8 needs, on pictures that are prepared just as at inference.

    Args:
        path: an FP32 graph with its sidecar.
        pictures: of `wanted`, opened.
        wanted: see `Calibration`.
        reporter: told of the progress.

    Raises:
        CalibrationError: the graph is not FP32 or takes more than one picture at a time, or a range cannot be found.
        ImageError: a picture cannot be read.
    """
    require("onnx", extra="export")
    from yolov3_trt.backends.ort import graph_runner
    from yolov3_trt.graph.parts import graph_that_gives, layer_outputs, load_graph
    from yolov3_trt.graph.qdq import quantised_activations

    meta = load_model_meta(path)
    if meta.precision is not Precision.FP32 or meta.batch.min != 1 or meta.input_stage is not InputStage.TENSOR:
        raise CalibrationError(
            f"{path}: {meta.precision.value}, batch {meta.batch}, takes {meta.input_stage.value}; expected fp32, batch 1, "
            "tensor: export it so, its table then serves every form of this model"
        )
    graph = load_graph(path)
    tensors = (*quantised_activations(graph), *(layer_outputs(graph) if wanted.all_tensors else ()))
    names = [name for name in dict.fromkeys(tensors) if name != INPUT_NAME]
    run = graph_runner(graph_that_gives(graph, names).SerializeToString())
    buffer = InputBuffer(meta, 1)
    seen = reporter.track(pictures, "calibrating", len(pictures))
    inputs = (prepare_batch([picture.pixels], meta, buffer)[0] for picture in seen)
    amax = ranges_of_tensors(
        lambda images: {INPUT_NAME: images, **run({INPUT_NAME: images})},
        inputs,
        len(pictures),
        method=wanted.method,
        percentile=wanted.percentile,
    )
    return CalibrationTable(
        model=CalibratedModel(meta.name, sha256_of_file(path), meta.layers_sha256, meta.weights_sha256),
        preprocess=meta.preprocess,
        input_hw=meta.input_hw,
        images=pictures.picture_list,
        method=wanted.method,
        amax=amax,
        percentile=wanted.percentile,
        all_tensors=wanted.all_tensors,
        seed=pictures.calibration_set.seed,
        versions={"yolov3_trt": __version__, "onnxruntime": importlib.metadata.version("onnxruntime")},
    )
