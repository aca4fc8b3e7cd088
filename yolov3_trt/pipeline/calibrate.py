"""ONNX file -> calibration table."""

import importlib.metadata
from collections.abc import Callable, Iterable
from pathlib import Path

from yolov3_trt import __version__
from yolov3_trt.calibration.image_set import ChosenPictures
from yolov3_trt.calibration.observers import DEFAULT_PERCENTILE, Method
from yolov3_trt.calibration.ranges import ranges_of_tensors
from yolov3_trt.calibration.table import CalibratedModel, CalibrationTable
from yolov3_trt.errors import CalibrationError, require
from yolov3_trt.files import sha256_of_file
from yolov3_trt.images import NamedImage
from yolov3_trt.meta import INPUT_NAME, InputStage, Precision, load_model_meta
from yolov3_trt.preprocess import InputBuffer, prepare_batch


def calibrate_graph(
    path: Path,
    pictures: ChosenPictures,
    method: Method,
    percentile: float | None = None,
    *,
    all_tensors: bool = False,
    progress: Callable[[Iterable[NamedImage]], Iterable[NamedImage]] = iter,
) -> CalibrationTable:
    """Find the range of every tensor that INT8 needs, on pictures that are prepared just as at inference.

    Args:
        path: an FP32 graph with its sidecar.
        pictures: from `open_set`.
        method: how a range is chosen.
        percentile: of Method.PERCENTILE.
        all_tensors: also of those that Q/DQ leaves alone, between a convolution and its activation and at the heads: what
            implicit INT8 and DLA ask for.
        progress: wraps the iteration over the pictures.

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
    wanted = (*quantised_activations(graph), *(layer_outputs(graph) if all_tensors else ()))
    names = [name for name in dict.fromkeys(wanted) if name != INPUT_NAME]
    run = graph_runner(graph_that_gives(graph, names).SerializeToString())
    buffer = InputBuffer(meta, 1)
    inputs = (prepare_batch([picture.pixels], meta, buffer)[0] for picture in progress(pictures))
    amax = ranges_of_tensors(
        lambda images: {INPUT_NAME: images, **run({INPUT_NAME: images})},
        inputs,
        len(pictures),
        method=method,
        percentile=DEFAULT_PERCENTILE if percentile is None else percentile,
    )
    return CalibrationTable(
        model=CalibratedModel(meta.name, sha256_of_file(path), meta.layers_sha256, meta.weights_sha256),
        preprocess=meta.preprocess,
        input_hw=meta.input_hw,
        images=pictures.picture_list,
        method=method,
        amax=amax,
        percentile=percentile,
        all_tensors=all_tensors,
        seed=pictures.calibration_set.seed,
        versions={"yolov3_trt": __version__, "onnxruntime": importlib.metadata.version("onnxruntime")},
    )
