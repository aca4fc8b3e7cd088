"""A graph against what it was made from: heads against the PyTorch reference, in-graph stages against the host's."""

import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import ExportError, MissingDependency, require
from yolov3_trt.geometry import FloatArray
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import INPUT_NAME, InputStage, ModelMeta, OutputStage, Precision
from yolov3_trt.models import Model
from yolov3_trt.postprocess import Candidates, Outputs, candidates_from_heads, candidates_from_rows, suppress
from yolov3_trt.preprocess import grey_plane, prepare_batch

_LOG = logging.getLogger(__name__)

# Largest relative error of a head (see `_relative_error`) that an export may have. Measured on the models of this field:
# FP32 below 2e-6, FP16 below 4e-3.
# What INT8 costs shows on pictures only (`eval`); its limit on noise tells a broken graph from a coarse one.
_TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 1e-1, Precision.INT8: 1.0}
# Levels of 0..255 that a resize in the graph may be off the host's, which rounds; 0.84 was measured, on noise.
_RESIZE_TOLERANCE = 1.5


# By head: the largest absolute difference of a logit, and the relative error. Empty where the last says what was missing.
Compared = tuple[dict[str, float], dict[str, float], str | None]


def verify_graph(graph: Any, model: Model, meta: ModelMeta) -> Compared:
    """Heads against the reference on noise, as is the resize of whole frames; detections against the host on made-up heads.

    What cannot be done without PyTorch, ONNX Runtime or OpenCV, where that is not installed, is left out.

    Raises:
        ExportError: the graph differs from its reference by more than its precision explains.
    """
    differences: dict[str, float] = {}
    errors: dict[str, float] = {}
    missing = []
    try:
        differences, errors = _compare_heads(graph, model, meta)
    except MissingDependency as exc:
        missing.append(str(exc))
    if meta.output_stage is not OutputStage.HEADS:
        try:
            _verify_stage(graph, meta)
        except MissingDependency as exc:
            missing.append(str(exc))
    return differences, errors, "; ".join(missing) or None


def _compare_heads(graph: Any, model: Model, meta: ModelMeta) -> tuple[dict[str, float], dict[str, float]]:
    frames = (
        None if meta.frame_hw is None else _heads_of_frames(graph, meta)
    )  # needs no reference to be held to the host
    require("torch", extra="export")
    got, tensor = frames or _heads_of_noise(graph, meta)
    from yolov3_trt.reference import module_from_spec, run_module

    names = [head.name for head in meta.heads]
    expected = run_module(module_from_spec(model.spec, model.weights), tensor)
    differences = {name: float(np.abs(got[name] - e).max()) for name, e in zip(names, expected, strict=True)}
    errors = {name: _relative_error(got[name], e) for name, e in zip(names, expected, strict=True)}
    tolerance = _TOLERANCE[meta.precision]
    for name, error in errors.items():
        if not error <= tolerance:  # NaN is not either
            raise ExportError(
                f"{meta.name}: {name} of the {meta.precision.value} graph has a relative error of {error:.2g} against the "
                f"PyTorch reference; expected at most {tolerance:g}. Export fp32, or report this"
            )
    return differences, errors


def check_logits(graph: Any, meta: ModelMeta) -> None:
    """Whether heads of a graph whose model is not known can be logits, on noise; nothing without ONNX Runtime, with a warning.

    Raises:
        ExportError: they are no numbers, or objectness and classes are within 0 and 1 all over.
    """
    try:
        got, _ = _heads_of_noise(graph, meta)
    except MissingDependency as exc:
        _LOG.warning("%s: the graph was not run: %s", meta.name, exc)
        return
    for head in meta.heads:
        values = got[head.name].reshape(-1, head.fields, *head.grid_hw)[:, head.kind.box_values :]
        if not np.isfinite(values).all():
            raise ExportError(
                f"{meta.name}: {head.name} holds values that are not finite on noise; the graph is damaged"
            )
        if values.min() >= 0 and values.max() <= 1:
            raise ExportError(
                f"{meta.name}: objectness and classes of {head.name} are within 0 and 1, so a sigmoid was applied already; "
                "expected logits: export the graph without it, or give its .cfg"
            )


def _heads_of_noise(graph: Any, meta: ModelMeta) -> tuple[Outputs, FloatArray]:
    """The graph's heads by name, and what the network saw: (N, C, H, W) float32."""
    from yolov3_trt.backends.ort import run_graph
    from yolov3_trt.graph.parts import part_of_graph

    pixels = _noise(meta)
    planes = np.ascontiguousarray(pixels[..., ::-1].transpose(3, 0, 1, 2))  # (3, N, H, W) RGB
    seen = planes.astype(np.float32) if meta.channels == 3 else grey_plane(planes)[None]
    tensor = np.ascontiguousarray(seen.transpose(1, 0, 2, 3)) * np.float32(meta.preprocess.scale)
    if meta.output_stage is not OutputStage.HEADS:
        graph = part_of_graph(graph, [INPUT_NAME], [head.name for head in meta.heads])
    images = pixels if meta.input_stage is InputStage.PIXELS else tensor
    return run_graph(graph.SerializeToString(), {INPUT_NAME: images}), tensor


def _heads_of_frames(graph: Any, meta: ModelMeta) -> tuple[Outputs, FloatArray]:
    """The same of a graph that resizes whole frames; what its network sees is compared with what the host would give it."""
    from yolov3_trt.backends.ort import run_graph
    from yolov3_trt.graph.parts import part_of_graph

    frames, seen = _noise(meta), _network_input(graph)
    network = part_of_graph(graph, [INPUT_NAME], [seen, *(head.name for head in meta.heads)])
    got = run_graph(network.SerializeToString(), {INPUT_NAME: frames})
    host, _ = prepare_batch(list(frames), replace(meta, input_stage=InputStage.TENSOR, frame_hw=None))
    off = float(np.abs(got[seen] - host).max() / meta.preprocess.scale)
    if not off <= _RESIZE_TOLERANCE:
        raise ExportError(
            f"{meta.name}: frames resized in the graph are up to {off:.1f} levels off those resized by the host; expected at "
            f"most {_RESIZE_TOLERANCE:g}: export without frame_size, or report this"
        )
    return got, got[seen]


def _noise(meta: ModelMeta) -> NDArray[np.uint8]:
    """A batch of seeded pictures, (N, H, W, 3), of the frames' size or the network's."""
    shape = (meta.batch.opt, *(meta.frame_hw or meta.input_hw), 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _network_input(graph: Any) -> str:
    """The value that the input stage hands to the network: what the last of the stage's own nodes writes.

    Those are called `input.OP`; what a precision puts behind them is called `input.OP.half.cast`, `input.OP.q` and so on.
    """
    own = (node for node in reversed(graph.graph.node) if re.fullmatch(rf"input\.{node.op_type}(\.\d+)?", node.name))
    return str(next(own).output[0])


def _relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def _verify_stage(graph: Any, meta: ModelMeta) -> None:
    """Noise finds no objects, so the stage gets heads that are full of overlapping ones."""
    from yolov3_trt.backends.ort import run_graph
    from yolov3_trt.graph.parts import part_of_graph

    heads = _crowded_heads(meta)
    stage = part_of_graph(graph, list(heads), meta.output_names)
    got = run_graph(stage.SerializeToString(), heads)
    for row in range(meta.batch.opt):
        logits = [heads[head.name][row] for head in meta.heads]
        candidates = candidates_from_heads(logits, meta.heads, meta.input_hw, meta.postprocess)
        if meta.output_stage is OutputStage.DETECTIONS:
            count = int(got["num_detections"][row])
            found = Candidates(*(got[name][row, :count] for name in ("boxes", "scores", "class_ids")))
            expected = suppress(candidates, meta.input_hw, meta.postprocess)
        else:
            found, expected = candidates_from_rows(got, row, meta, meta.postprocess), candidates
        if not _same(found, expected):
            raise ExportError(
                f"{meta.name}: on made-up heads the in-graph {meta.output_stage.value} ({len(found.scores)}) are not those of "
                f"the host ({len(expected.scores)}); please report this"
            )


def _same(a: Candidates, b: Candidates) -> bool:
    """Whether the pairs are the same but for rounding, and for the order of equals where that decides it."""
    if len(a.scores) != len(b.scores):
        return False
    matched = np.zeros(len(a.scores), bool)
    for shift in (0, -1, 1, -2, 2):
        other = b[np.roll(np.arange(len(matched)), shift)]
        boxes = np.isclose(a.xyxy, other.xyxy, rtol=1e-4, atol=1e-2).all(axis=1)
        matched |= boxes & (a.class_ids == other.class_ids) & np.isclose(a.scores, other.scores, atol=1e-5)
    return bool(matched.all())


def _crowded_heads(meta: ModelMeta) -> dict[str, NDArray[Any]]:
    """Seeded logits: about 1 box in 50 is an object, of up to three classes, boxes of about the size of their anchors."""
    rng = np.random.default_rng(0)
    heads = {}
    for head in meta.heads:
        at = head.kind.box_values  # of the objectness; the classes follow
        shape = (meta.batch.opt, len(head.anchors_wh), head.fields, *head.grid_hw)
        logits = rng.normal(0, 0.5, shape).astype(np.float32)
        logits[:, :, 1:at:2] -= 4 if head.kind is HeadKind.GAUSSIAN else 0  # sure of their boxes
        logits[:, :, at] = np.where(rng.random(logits[:, :, at].shape) < 0.02, 4, -8) + logits[:, :, at]
        logits[:, :, at + 1 :] -= 8
        logits[:, :, at + 1 : at + 1 + min(3, head.num_classes)] += 9
        heads[head.name] = logits.reshape(meta.batch.opt, head.channels, *head.grid_hw)
    return heads
