"""Calibration table -> the same with weights that were distilled: what the job `calibrate` does with `distill`."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from yolov3_trt.calibration.distilled import Distilled, save_weights
from yolov3_trt.calibration.table import CalibrationTable
from yolov3_trt.data.calibration_set import ChosenPictures
from yolov3_trt.errors import CalibrationError
from yolov3_trt.meta import load_model_meta
from yolov3_trt.preprocess import Image, prepare_batch
from yolov3_trt.reporter import Reporter
from yolov3_trt.settings import CalibrationSettings

_HELD = 8  # one picture of so many is held from learning, to see whether it helps
_MOST_PICTURES = 1024  # to learn from: they are kept in memory at input size


def distilled_table(
    table: CalibrationTable,
    path: Path,
    graph: Path,
    pictures: ChosenPictures,
    wanted: CalibrationSettings,
    reporter: Reporter,
) -> CalibrationTable:
    """Distil the INT8 graph of a new table from the FP32 one, on the pictures of the table; writes the weights beside it.

    Args:
        table: of the graph.
        path: where it will be written.
        graph: the FP32 graph.
        pictures: that the ranges are of; those with the lowest hashes are held from learning.
        wanted: see `CalibrationSettings`.
        reporter: told of the progress.

    Raises:
        CalibrationError: there are too few pictures.
        TrainingError: it goes astray, or the graph cannot be learnt through.
    """
    from yolov3_trt.graph.equalise import equalised
    from yolov3_trt.graph.parts import load_graph
    from yolov3_trt.graph.plain import plain_graph
    from yolov3_trt.graph.qdq import qdq_from_onnx
    from yolov3_trt.graph.qdq_placement import QdqPolicy, WeightForm, int8_readers, scale_groups
    from yolov3_trt.graph.quantize_weights import INT8_MAX
    from yolov3_trt.training.distill import distil, varied_batches
    from yolov3_trt.training.train import device_by_name

    meta, teacher = load_model_meta(graph), load_graph(graph)
    policy = QdqPolicy(weight_form=WeightForm.PAIR)
    even = equalised(teacher, table.doublings)
    student = qdq_from_onnx(even, table.amax, policy, table.bias_shifts)
    groups = scale_groups(int8_readers(even.graph, policy))
    device, steps = device_by_name("auto"), range(wanted.distill_steps)
    held: list[Image] = []
    batches = varied_batches(_learnt(pictures, held, reporter), meta, pictures.seed, device)
    num_learnt = min(len(pictures), _MOST_PICTURES) - len(held)
    reporter.say(f"distilling on {num_learnt} pictures, with {len(held)} held to see whether it helps, on {device}")
    found = distil(
        plain_graph(teacher),
        plain_graph(student),
        meta.heads,
        (images for _, images in zip(reporter.track(steps, "distilling", len(steps)), batches, strict=False)),
        [prepare_batch([picture], meta)[0].copy() for picture in held],
        len(steps),
        shared={value: min(together) for value, together in groups.items()},
        device=device,
        say=reporter.say,
    )
    weights = dict(found.weights)
    for conv, shifts in table.bias_shifts.items():  # which the graph takes from the biases of those that are int8
        if f"{conv}.bias" in weights:
            weights[f"{conv}.bias"] = weights[f"{conv}.bias"] + np.asarray(shifts, np.float32)
    name, sha256 = save_weights(weights, path)
    distilled = Distilled(name, sha256, len(steps), found.steps, found.before, found.after)
    amax = {**table.amax, **{value: scale * INT8_MAX for value, scale in found.scales.items() if value in table.amax}}
    return replace(table, amax=amax, distilled=distilled, versions={**table.versions, "torch": version("torch")})


def _learnt(pictures: ChosenPictures, held: list[Image], reporter: Reporter) -> Iterator[Image]:
    """Pictures to learn from; those to hold are put aside, by their contents: the same of a picture in whichever set it is.

    Raises:
        CalibrationError: there are too few.
    """
    order = sorted(range(len(pictures)), key=lambda index: pictures.hashes[index])[:_MOST_PICTURES]
    wanted, to_hold = frozenset(order), frozenset(order[: len(order) // _HELD])
    if not to_hold:
        raise CalibrationError(f"{len(pictures)} pictures to distil on; expected {_HELD} or more: raise num_images")
    for index, picture in enumerate(reporter.track(pictures, "reading pictures", len(pictures))):
        if index in to_hold:
            held.append(picture.pixels)
        elif index in wanted:
            yield picture.pixels
