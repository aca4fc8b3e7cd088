"""ONNX file -> calibration table."""

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from yolov3_trt._version import __version__
from yolov3_trt.calibration.channels import means_of_channels, peaks_of_channels
from yolov3_trt.calibration.ranges import Run, ranges_of_tensors
from yolov3_trt.calibration.table import (
    CalibratedModel,
    CalibrationTable,
    load_table,
    save_table,
    table_differences,
)
from yolov3_trt.data.calibration_set import CalibrationSet, ChosenPictures, open_set
from yolov3_trt.data.fingerprints import content_hashes, repeat_warnings, set_warnings
from yolov3_trt.errors import CalibrationError, require
from yolov3_trt.files import sha256_of_file
from yolov3_trt.jobs.reporter import SILENT, Reporter
from yolov3_trt.meta import INPUT_NAME, InputStage, ModelMeta, Precision, load_model_meta
from yolov3_trt.preprocess import InputBuffer, prepare_batch
from yolov3_trt.settings import DEFAULT_PERCENTILE, Method


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
            implicit INT8 and DLA ask for. Goes with the graph as it is, so not with `equalise`.
        equalise: bring channels to like size first; see `graph.equalise`. One more pass over the pictures.
        correct_biases: measure by how much INT8 shifts means; see `graph.bias_correction`. Another pass.
    """

    pictures: CalibrationSet
    method: Method = Method.MSE
    percentile: float | None = None
    evaluation: tuple[Path, ...] = ()
    allow_overlap: bool = False
    all_tensors: bool = False
    equalise: bool = True
    correct_biases: bool = True

    def __post_init__(self) -> None:
        if self.all_tensors and (self.equalise or self.correct_biases):
            raise CalibrationError(
                "all_tensors with equalise or correct_biases; expected one: TensorRT's calibration cache goes with the FP32 "
                "graph as it is"
            )
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
    return Calibrated(make_table(graph, path, pictures, wanted, reporter), pictures, False)


def make_table(
    graph: Path, path: Path, pictures: ChosenPictures, wanted: Calibration, reporter: Reporter = SILENT
) -> CalibrationTable:
    """Calibrate, and write the table to `path`; pictures that nearly repeat others are warned about.

    Raises:
        CalibrationError, ImageError: see `calibrate_graph`.
        OutputError: the table cannot be written.
    """
    table = calibrate_graph(graph, pictures, wanted, reporter)
    for warning in repeat_warnings(pictures.fingerprints, pictures.difference_hashes):
        reporter.say(f"warning: {warning}")
    save_table(table, path)
    return table


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
    if (table.equalised, table.biases_corrected) != (wanted.equalise, wanted.correct_biases):
        differences += (
            f"preparation (the table has equalised {table.equalised}, biases corrected {table.biases_corrected}; expected "
            f"{wanted.equalise}, {wanted.correct_biases})",
        )
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
    from yolov3_trt.graph.equalise import equalised
    from yolov3_trt.graph.parts import load_graph

    meta = load_model_meta(path)
    if meta.precision is not Precision.FP32 or meta.batch.min != 1 or meta.input_stage is not InputStage.TENSOR:
        raise CalibrationError(
            f"{path}: {meta.precision.value}, batch {meta.batch}, takes {meta.input_stage.value}; expected fp32, batch 1, "
            "tensor: export it so, its table then serves every form of this model"
        )
    graph = load_graph(path)
    prepared = _Prepared(pictures, meta, reporter)
    doublings = _doublings(graph, prepared) if wanted.equalise else {}
    graph = equalised(graph, doublings)
    amax = _amax(graph, prepared, wanted)
    return CalibrationTable(
        model=CalibratedModel(
            meta.name, meta.onnx_sha256 or sha256_of_file(path), meta.layers_sha256, meta.weights_sha256
        ),
        preprocess=meta.preprocess,
        input_hw=meta.input_hw,
        images=pictures.picture_list,
        method=wanted.method,
        amax=amax,
        percentile=wanted.percentile,
        all_tensors=wanted.all_tensors,
        equalised=wanted.equalise,
        doublings=doublings,
        biases_corrected=wanted.correct_biases,
        bias_shifts=_bias_shifts(graph, amax, prepared) if wanted.correct_biases else {},
        seed=pictures.calibration_set.seed,
        versions={"yolov3_trt": __version__, "onnxruntime": importlib.metadata.version("onnxruntime")},
    )


class _Prepared:
    """The pictures as the network's inputs, as often as they are needed and one at a time."""

    def __init__(self, pictures: ChosenPictures, meta: ModelMeta, reporter: Reporter) -> None:
        self._pictures, self._meta, self._reporter = pictures, meta, reporter
        self._buffer = InputBuffer(meta, 1)

    def __len__(self) -> int:
        return len(self._pictures)

    def inputs(self, what: str) -> Iterator[NDArray[Any]]:
        """Each (1, 3, H, W) float32, valid until the next one; `what` is done to them."""
        for picture in self._reporter.track(self._pictures, what, len(self)):
            yield prepare_batch([picture.pixels], self._meta, self._buffer)[0]


def _doublings(graph: Any, prepared: _Prepared) -> dict[str, tuple[int, ...]]:
    from yolov3_trt.graph.equalise import channel_peaks_graph, doublings_from_peaks

    peaks = peaks_of_channels(_runner(channel_peaks_graph(graph)), prepared.inputs("calibrating, channels"))
    return doublings_from_peaks(graph, {name.removesuffix(".peak"): values for name, values in peaks.items()})


def _amax(graph: Any, prepared: _Prepared, wanted: Calibration) -> dict[str, float]:
    from yolov3_trt.graph.parts import graph_that_gives, layer_outputs
    from yolov3_trt.graph.qdq import quantised_activations

    tensors = (*quantised_activations(graph), *(layer_outputs(graph) if wanted.all_tensors else ()))
    run = _runner(graph_that_gives(graph, [name for name in dict.fromkeys(tensors) if name != INPUT_NAME]))
    return ranges_of_tensors(
        lambda images: {INPUT_NAME: images, **run(images)},
        prepared.inputs("calibrating, ranges"),
        len(prepared),
        method=wanted.method,
        percentile=wanted.percentile,
    )


def _bias_shifts(graph: Any, amax: Mapping[str, float], prepared: _Prepared) -> dict[str, tuple[float, ...]]:
    from yolov3_trt.graph.bias_correction import bias_shifts_graph
    from yolov3_trt.graph.qdq import qdq_from_onnx

    run = _runner(bias_shifts_graph(graph, qdq_from_onnx(graph, amax)))
    shifts = means_of_channels(run, prepared.inputs("calibrating, biases"))
    return {name.removesuffix(".shift"): tuple(values.tolist()) for name, values in shifts.items()}


def _runner(graph: Any) -> Run:
    from yolov3_trt.backends.ort import graph_runner

    run = graph_runner(graph.SerializeToString())
    return lambda images: run({INPUT_NAME: images})
