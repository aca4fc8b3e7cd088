"""ONNX file or model -> calibration table."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from yolov3_trt._version import __version__
from yolov3_trt.arguments import flag, size_text
from yolov3_trt.calibration.channels import means_of_channels, peaks_of_channels
from yolov3_trt.calibration.distilled import load_weights
from yolov3_trt.calibration.ranges import Run, ranges_of_tensors
from yolov3_trt.calibration.table import (
    CalibratedModel,
    CalibrationTable,
    load_table,
    save_table,
    table_differences,
)
from yolov3_trt.data import calibration_pictures, picture_set
from yolov3_trt.data.calibration_set import ChosenPictures
from yolov3_trt.data.fingerprints import hashes_of, repeat_warnings, set_warnings
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.errors import CalibrationError, SettingError, require
from yolov3_trt.files import Written, sha256_of_file
from yolov3_trt.jobs.export import model_from, model_meta, write_graph
from yolov3_trt.jobs.opening import sets_from
from yolov3_trt.meta import INPUT_NAME, InputStage, ModelMeta, Precision, load_model_meta
from yolov3_trt.models import Model, is_model
from yolov3_trt.preprocess import InputBuffer, prepare_batch
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.settings import (
    CalibrationSettings,
    DetectSettings,
    GraphSettings,
    settings_from,
)

# Graphs from so many bytes on, without depthwise convolutions, are not equalised, and their biases are measured on a few
# pictures; ranges are of all. That saves most of the time, which only large networks take, and nothing is lost: of the official
# yolov3-tiny the heads are 28.6 and 26.8 dB above what INT8 changes, 27.6 and 26.1 where it is equalised.
_LARGE_GRAPH = 16 << 20
_FEW_IMAGES = 8


@dataclass(frozen=True, repr=False)
class Calibrated(Written):
    """A table of ranges, new or reused, and the pictures behind it; goes wherever the path of a table does.

    Attributes:
        path: of the table.
        table: its content.
        pictures: that it was made on.
        reused: it was there already, made of just this.
        skipped: the faulty labels and pictures of their set, one line each, where those were to be left out.
    """

    path: Path
    table: CalibrationTable
    pictures: ChosenPictures
    reused: bool
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `calibrate --json` writes it."""
        return {
            "table": str(self.path),
            "reused": self.reused,
            "model": self.table.model.name,
            "images": self.table.images.count,
            "method": self.table.method.value,
            "tensors": len(self.table.amax),
        }


def calibrate(
    source: str | os.PathLike[str] | Model,
    *,
    weights: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    input_size: Any = None,
    split: str | None = None,
    skip_faulty: bool = False,
    val_images: str | os.PathLike[str] | PictureSet | None = None,
    allow_overlap: bool = False,
    all_tensors: bool = False,
    force: bool = False,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> Calibrated:
    """Find the range of every tensor that INT8 needs, on pictures prepared as at inference.

    A table that is there and was made of the same model, pictures, preprocessing and method is reused.

    Args:
        source: a model (a built-in name, a `.cfg`, or what `load_model` gave), or an FP32 graph made by `export`.
        weights: of a model; see `load_model`, as for the next two.
        names: of its classes.
        input_size: px.
        split: of a data.yaml given as `images`: `train`, `val` or `test`; None: `train`.
        skip_faulty: `images` is a labelled set, of which pictures that are faulty are left out (see `skipped` of the result).
        val_images: pictures that accuracy is measured on, none of which may be among those calibrated on...
        allow_overlap: ... unless this is set.
        all_tensors: also of tensors that Q/DQ leaves alone, between a convolution and its activation and at the heads: what
            TensorRT's own calibration cache holds. It goes with the graph as it is, neither equalised nor bias corrected.
        force: calibrate again even if the table there fits.
        reporter: told of warnings, progress, and whether and why a table is reused or made again.
        settings: any of `CalibrationSettings`, or a whole one as `calibration`; and `resize`. `images` is needed. By default
            the table is `calib/MODEL-SIZE-METHOD.json`.

    Raises:
        SettingError: a setting has no such value, or does not go with another.
        CalibrationError: pictures that must not be calibrated on, or see `calibrate_graph`.
        ImageError: a picture cannot be read.
        OutputError: the table cannot be written.

    >>> calibrate("shapes", images="shapes", num_images=64).path  # doctest: +SKIP
    PosixPath('calib/shapes-256-mse.json')
    """
    wanted, detect = settings_from(settings, CalibrationSettings, DetectSettings)
    if all_tensors:
        if wanted.distill:
            raise SettingError(
                "distill", "given with all_tensors, whose ranges are of the graph as it is; leave it out"
            )
        wanted = replace(wanted, equalise=False, correct_biases=False)
    evaluation = None if val_images is None else picture_set(val_images, default_split="val")
    images: LabelledSet | None = None
    if flag("skip_faulty", skip_faulty) and wanted.images is not None:
        images = sets_from(None, wanted.images, split, None, reporter, skip_faulty=True, default_split="train")[1]
        split = None
    pictures = open_pictures(wanted, reporter, evaluation, images=images, split=split, allow_overlap=allow_overlap)
    skipped = () if images is None else images.skipped
    if isinstance(source, Model) or is_model(source):
        loaded = model_from(source, weights, names, input_size)
        made = _calibrated_model(loaded, wanted, detect, pictures, reporter, all_tensors=all_tensors, force=force)
        return replace(made, skipped=skipped)
    for name, value in (("weights", weights), ("names", names), ("input_size", input_size), *vars(detect).items()):
        if value not in (None, "cfg"):
            raise SettingError(name, f"given with {os.fspath(source)}, which was exported with its own; leave it out")
    path = wanted.table or Path("calib") / f"{Path(source).stem}-{wanted.kind}.json"
    made = calibrated_at(Path(source), path, pictures, wanted, reporter, all_tensors=all_tensors, force=force)
    return replace(made, skipped=skipped)


def table_for(model: Model, wanted: CalibrationSettings, detect: DetectSettings, reporter: Reporter = SILENT) -> Path:
    """The table that INT8 takes: the one named, made of just this model and these pictures where pictures are named."""
    if wanted.images is None:
        assert wanted.table is not None  # see `check_together`
        return wanted.table
    return _calibrated_model(model, wanted, detect, open_pictures(wanted, reporter), reporter).path


def table_path(model: Model, wanted: CalibrationSettings) -> Path:
    """Where the table of a model lies, or will be made."""
    name = f"{model.spec.name}-{size_text(model.spec.input_hw)}-{wanted.kind}.json"
    return wanted.table or Path("calib") / name


def _calibrated_model(
    model: Model,
    wanted: CalibrationSettings,
    detect: DetectSettings,
    pictures: ChosenPictures,
    reporter: Reporter,
    *,
    all_tensors: bool = False,
    force: bool = False,
) -> Calibrated:
    path, meta = table_path(model, wanted), model_meta(model, GraphSettings(), detect)
    fitting = None if force else fitting_table(path, meta, pictures, wanted, reporter, all_tensors=all_tensors)
    if fitting is not None:
        return Calibrated(path, fitting, pictures, True)
    with tempfile.TemporaryDirectory() as folder:
        graph = write_graph(model, Path(folder) / f"{model.spec.name}.onnx", GraphSettings(), detect).path
        return calibrated_at(graph, path, pictures, wanted, reporter, all_tensors=all_tensors, force=True)


def calibrated_at(
    graph: Path,
    path: Path,
    pictures: ChosenPictures,
    wanted: CalibrationSettings,
    reporter: Reporter,
    *,
    all_tensors: bool = False,
    force: bool = False,
) -> Calibrated:
    """The table at `path` where it fits an FP32 graph and the opened pictures, else a new one, written there."""
    if not force:
        meta = load_model_meta(graph)
        fitting = fitting_table(path, meta, pictures, wanted, reporter, all_tensors=all_tensors)
        if fitting is not None:
            return Calibrated(path, fitting, pictures, True)
    table = calibrate_graph(graph, pictures, wanted, reporter, all_tensors=all_tensors)
    for warning in repeat_warnings(pictures.fingerprints, pictures.difference_hashes):
        reporter.say(f"warning: {warning}")
    if wanted.distill:
        from yolov3_trt.jobs.distill import distilled_table

        table = distilled_table(table, path, graph, pictures, wanted, reporter)
    save_table(table, path)
    return Calibrated(path, table, pictures, False)


def open_pictures(
    wanted: CalibrationSettings,
    reporter: Reporter = SILENT,
    evaluation: PictureSet | None = None,
    *,
    images: PictureSet | None = None,
    split: str | None = None,
    allow_overlap: bool = False,
) -> ChosenPictures:
    """The pictures to calibrate on; what speaks against them is said.

    Raises:
        SettingError: none are named.
        CalibrationError: evaluation pictures are among them and may not be.
    """
    if wanted.images is None:
        raise SettingError("images", "missing; expected pictures to find the ranges on")
    if wanted.distill:
        require("torch", extra="train")
    pictures = calibration_pictures(
        wanted.images if images is None else images,
        wanted.num_images,
        wanted.seed,
        split=split,
        progress=lambda items: reporter.track(items, "reading pictures", wanted.num_images),
    )
    hashes = () if evaluation is None else hashes_of(evaluation)
    for warning in set_warnings(pictures.fingerprints, hashes, allow_overlap=allow_overlap):
        reporter.say(f"warning: {warning}")
    return pictures


def fitting_table(
    path: Path,
    meta: ModelMeta,
    pictures: ChosenPictures,
    wanted: CalibrationSettings,
    reporter: Reporter = SILENT,
    *,
    all_tensors: bool = False,
) -> CalibrationTable | None:
    """The table at `path` if it is there and was made of just this; why it does not fit is said."""
    if not path.exists():
        return None
    table = load_table(path)
    differences = table_differences(
        table, meta=meta, images=pictures.picture_list, method=wanted.method, percentile=wanted.share
    )
    if all_tensors and not table.all_tensors:
        differences += ("tensors (the table has those of Q/DQ only; expected all)",)
    if (table.equalised, table.biases_corrected) != (wanted.equalise, wanted.correct_biases):
        differences += (
            f"preparation (the table has equalised {table.equalised}, biases corrected {table.biases_corrected}; expected "
            f"{wanted.equalise}, {wanted.correct_biases})",
        )
    has = None if table.distilled is None else table.distilled.steps
    if has != wanted.steps:
        differences += (f"distillation (the table has {has or 'no'} steps; expected {wanted.steps or 'none'})",)
    else:
        try:
            load_weights(table.distilled, path)
        except CalibrationError as exc:
            differences += (f"distilled weights ({exc})",)
    if differences:
        reporter.say(f"{path}: calibrating again, the table there differs in {'; '.join(differences)}")
        return None
    reporter.say(f"{path}: reused, it was made of just this model, these pictures, this preprocessing and method")
    return table


def calibrate_graph(
    path: Path,
    pictures: ChosenPictures,
    wanted: CalibrationSettings,
    reporter: Reporter = SILENT,
    *,
    all_tensors: bool = False,
) -> CalibrationTable:
    """Find the range of every tensor that INT8 needs, on pictures that are prepared just as at inference.

    Args:
        path: an FP32 graph with its sidecar.
        pictures: of `wanted`, opened.
        wanted: see `CalibrationSettings`.
        reporter: told of the progress.
        all_tensors: see `calibrate`.

    Raises:
        CalibrationError: the graph is not FP32 or takes more than one picture at a time, or a range cannot be found.
        ImageError: a picture cannot be read.
    """
    require("onnx", extra="export")
    from yolov3_trt.backends.ort import runtime_version
    from yolov3_trt.graph.equalise import equalised, has_groups
    from yolov3_trt.graph.parts import load_graph

    meta = load_model_meta(path)
    if meta.precision is not Precision.FP32 or meta.batch.min != 1 or meta.input_stage is not InputStage.TENSOR:
        raise CalibrationError(
            f"{path}: {meta.precision.value}, batch {meta.batch}, takes {meta.input_stage.value}; expected fp32, batch 1, "
            "tensor: export it so, its table then serves every form of this model"
        )
    graph = load_graph(path)
    prepared = _Prepared(pictures, meta, reporter)
    large = graph.ByteSize() > _LARGE_GRAPH and not has_groups(graph)
    doublings = _doublings(graph, prepared) if wanted.equalise and not large else {}
    graph = equalised(graph, doublings)
    amax = _amax(graph, prepared, wanted, all_tensors)
    shifts = _bias_shifts(graph, amax, prepared, _FEW_IMAGES if large else None) if wanted.correct_biases else {}
    return CalibrationTable(
        model=CalibratedModel(
            meta.name, meta.onnx_sha256 or sha256_of_file(path), meta.layers_sha256, meta.weights_sha256
        ),
        preprocess=meta.preprocess,
        input_hw=meta.input_hw,
        images=pictures.picture_list,
        method=wanted.method,
        amax=amax,
        percentile=wanted.share,
        all_tensors=all_tensors,
        equalised=wanted.equalise,
        doublings=doublings,
        biases_corrected=wanted.correct_biases,
        bias_shifts=shifts,
        seed=pictures.seed,
        versions={"yolov3_trt": __version__, "onnxruntime": runtime_version()},
    )


class _Prepared:
    """The pictures as the network's inputs, all or some, as often as they are needed and one at a time."""

    def __init__(self, pictures: ChosenPictures, meta: ModelMeta, reporter: Reporter) -> None:
        self._pictures, self._meta, self._reporter = pictures, meta, reporter
        self._buffer = InputBuffer(meta, 1)

    def __len__(self) -> int:
        return len(self._pictures)

    def inputs(self, what: str, count: int | None = None) -> Iterator[NDArray[Any]]:
        """Each (1, 3, H, W) float32, or `count` of them, valid until the next one; `what` is done to them."""
        pictures: PictureSet = self._pictures
        if count is not None and count < len(pictures):
            pictures = pictures.chosen(count, self._pictures.seed)
        for picture in self._reporter.track(pictures, what, len(pictures)):
            yield prepare_batch([picture.pixels], self._meta, self._buffer)[0]


def _doublings(graph: Any, prepared: _Prepared) -> dict[str, tuple[int, ...]]:
    from yolov3_trt.graph.equalise import channel_peaks_graph, doublings_from_peaks

    peaks = peaks_of_channels(_runner(channel_peaks_graph(graph)), prepared.inputs("calibrating, channels"))
    return doublings_from_peaks(graph, {name.removesuffix(".peak"): values for name, values in peaks.items()})


def _amax(graph: Any, prepared: _Prepared, wanted: CalibrationSettings, all_tensors: bool) -> dict[str, float]:
    from yolov3_trt.graph.parts import graph_that_gives, layer_outputs
    from yolov3_trt.graph.qdq import quantised_activations

    tensors = (*quantised_activations(graph), *(layer_outputs(graph) if all_tensors else ()))
    run = _runner(graph_that_gives(graph, [name for name in dict.fromkeys(tensors) if name != INPUT_NAME]))
    return ranges_of_tensors(
        lambda images: {INPUT_NAME: images.copy(), **run(images)},
        prepared.inputs("calibrating, ranges"),
        len(prepared),
        method=wanted.method,
        percentile=wanted.share,
    )


def _bias_shifts(
    graph: Any, amax: Mapping[str, float], prepared: _Prepared, count: int | None
) -> dict[str, tuple[float, ...]]:
    from yolov3_trt.graph.bias_correction import bias_shifts_graph
    from yolov3_trt.graph.qdq import qdq_from_onnx

    run = _runner(bias_shifts_graph(graph, qdq_from_onnx(graph, amax)))
    shifts = means_of_channels(run, prepared.inputs("calibrating, biases", count))
    return {name.removesuffix(".shift"): tuple(values.tolist()) for name, values in shifts.items()}


def _runner(graph: Any) -> Run:
    from yolov3_trt.backends.ort import graph_runner

    run = graph_runner(graph.SerializeToString())
    return lambda images: run({INPUT_NAME: images})
