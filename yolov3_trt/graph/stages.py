"""The optional ends of a graph: pixels in, rows or detections out.

They consist of standard ONNX operators with static shapes, so that TensorRT needs no plugin and a CUDA graph can hold the
result. They always compute in float32.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from yolov3_trt.geometry import HW, Placement
from yolov3_trt.graph.writer import GraphWriter, Value
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import DETECTION_OUTPUTS, ModelMeta, RowsLayout
from yolov3_trt.preprocess import GREY_OF_RGB
from yolov3_trt.spec import Head, Nms

# Rounds of suppression. A chain is "a drops b, so b cannot drop c, so c drops d". The longest on COCO val64, at a threshold of
# 0.005, is 9.
_ROUNDS = 16


def write_pixels_to_tensor(graph: GraphWriter, images: Value, meta: ModelMeta) -> Value:
    """(N, H, W, 3) uint8 BGR -> (N, 3, input_h, input_w) float32 RGB, scaled; whole frames are fitted in on the way.

    For a model of one channel it is the grey of that, (N, 1, input_h, input_w).
    """
    # The cast comes first: TensorRT lets uint8 feed nothing else.
    planes = images.cast("float32").transpose(0, 3, 1, 2)
    if meta.frame_placement is not None:
        with graph.scope("fit"):
            planes = _fit_frames(planes, meta.frame_placement, meta)
    if meta.channels == 1:
        red, green, blue = (planes.slice(1, 2 - i, 3 - i) * weight for i, weight in enumerate(GREY_OF_RGB))
        return (red + green + blue) * meta.preprocess.scale
    return planes.slice(1, -1, step=-1) * meta.preprocess.scale


def _fit_frames(planes: Value, frame: Placement, meta: ModelMeta) -> Value:
    """(N, 3, image_h, image_w) -> (N, 3, input_h, input_w), both float32 of 0..255, as `preprocess.fit_image` does it.

    OpenCV rounds what it interpolates, in fixed point; here nothing is rounded. The two are less than one level of 0..255
    apart: 0.84 at most and 0.27 on average as measured. Rounding here too would make one value in eight a whole level wrong.
    """
    if frame.image_hw != frame.resized_hw:
        fixed = (3, *frame.resized_hw)
        batch = planes.op("Shape").slice(0, 0, 1) if meta.batch.dynamic else None
        sizes = (meta.batch.max, *fixed) if batch is None else batch.op("Concat", fixed, axis=0)
        planes = planes.op("Resize", None, None, sizes, mode="linear", coordinate_transformation_mode="half_pixel")
    if frame.resized_hw == frame.input_hw:
        return planes
    # A letterbox touches two sides of the input, so its border lies along one axis.
    axis = 0 if frame.resized_hw[0] != frame.input_hw[0] else 1
    position = np.arange(frame.input_hw[axis]) - frame.offset_hw[axis]
    last = frame.resized_hw[axis] - 1
    inside = ((position >= 0) & (position <= last)).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
    # The last row or column repeated, then painted over.
    repeated = planes.op("Gather", position.clip(0, last), axis=2 + axis)
    return repeated * inside + (1 - inside) * np.float32(meta.preprocess.pad_value)


def write_detections(graph: GraphWriter, heads: Sequence[Value], meta: ModelMeta) -> None:
    """Heads -> num_detections (N,), boxes (N, K, 4), scores (N, K), class_ids (N, K); see meta.DETECTION_OUTPUTS.

    The same result as `postprocess.candidates_from_heads` and `suppress`, in a fixed number of steps:

    1. The best `max_candidates` boxes by their best class; every pair among the best `max_candidates` belongs to one.
    2. The best `max_candidates` pairs of those boxes.
    3. Greedy suppression as a fixed point: a pair stays if no better pair that stays is too similar. Starting from "all
       stay", round t settles every pair whose chain of suppressions is shorter than t.
    """
    decoded = _decoded(graph, heads, meta)
    values = _joined([values for values, _, _ in decoded], axis=1)  # (N, B, F)
    halves = [(centres, sizes / 2) for _, centres, sizes in decoded]
    xyxy = _joined([_joined([c - half, c + half], axis=2) for c, half in halves], axis=1)  # (N, B, 4)
    xyxy, scores, class_ids, pairs = _candidates(graph, xyxy, values, meta)
    stays = _survivors(graph, xyxy, scores, class_ids, pairs, meta)

    # Survivors first, in their order: the largest of "places from the end, if it stays".
    rank, order = (stays * np.arange(pairs, 0, -1, dtype=np.float32)).top(min(meta.postprocess.max_detections, pairs))
    valid = rank > 0  # (N, K)
    scores, class_ids = (kept.op("GatherElements", order, axis=1).where(valid, 0) for kept in (scores, class_ids))
    outputs = (
        valid.cast("float32").op("ReduceSum", (1,), keepdims=0).cast("int32"),
        _taken(xyxy, order, 4).where(valid.unsqueeze(2), 0),
        scores,
        class_ids.cast("int32"),
    )
    for name, output in zip(DETECTION_OUTPUTS, outputs, strict=True):
        graph.called(output, name)


def _candidates(graph: GraphWriter, xyxy: Value, values: Value, meta: ModelMeta) -> tuple[Value, Value, Value, int]:
    """All boxes (N, B, 4) and logits (N, B, F) -> the best P pairs: boxes (N, P, 4), scores and classes (N, P); and P."""
    postprocess, kind, num_classes = meta.postprocess, meta.heads[0].kind, meta.num_classes
    boxes = min(postprocess.max_candidates, sum(len(head.anchors_wh) * prod(head.grid_hw) for head in meta.heads))
    pairs = min(postprocess.max_candidates, boxes * num_classes)
    threshold, at = postprocess.conf, kind.box_values
    classes = values.slice(2, at + 1)
    if kind is HeadKind.REGION:
        best = values.pick(2, at).sigmoid() * _largest(graph, classes.op("Softmax", axis=2))
    else:
        best = _certainty(values, kind).pick(2, 0) * _largest(graph, classes).sigmoid()
    # Comparisons first: NaN passes none, so it does not become the best of all.
    _, box = best.where(best > threshold, 0).top(boxes)
    xyxy, values = _taken(xyxy, box, 4), _taken(values, box, meta.heads[0].fields)

    objectness = values.slice(2, at, at + 1).sigmoid()  # (N, boxes, 1)
    scores = _scores(values, kind)  # (N, boxes, C)
    scores = scores.where((scores > threshold) & (objectness > threshold), 0)
    scores, pair = scores.reshape(0, boxes * num_classes).top(pairs)
    # Class ids travel as float32, exact up to 16 million: no integer arithmetic on the way out.
    pair = pair.cast("float32")
    box = (pair / num_classes).op("Floor")
    return _taken(xyxy, box.cast("int64"), 4), scores, pair - box * num_classes, pairs


def _survivors(graph: GraphWriter, xyxy: Value, scores: Value, class_ids: Value, pairs: int, meta: ModelMeta) -> Value:
    """1.0 where a pair stays, 0.0 where it goes, (N, P)."""
    unit = np.array(meta.input_hw[::-1] * 2, np.float32)
    similar = _similarity(xyxy / unit, meta.postprocess.nms) > meta.postprocess.iou
    same_class = class_ids.unsqueeze(2).op("Equal", class_ids.unsqueeze(1))
    place = np.arange(pairs, dtype=np.float32)
    better = graph.node("Less", place[:, None], place)  # [i, j]: i before j
    drops = (similar & same_class & better).cast("float32")  # (N, P, P)
    stays = valid = (scores > 0).cast("float32").unsqueeze(1)  # (N, 1, P)
    for _ in range(_ROUNDS):
        stays = valid * (stays.op("MatMul", drops) < 0.5).cast("float32")
    return stays.pick(1, 0)


def write_rows(graph: GraphWriter, heads: Sequence[Value], meta: ModelMeta) -> None:
    """Heads -> every box decoded, none suppressed; the outputs are those of `RowsLayout`.

    As OpenCV's Darknet importer does it, its layouts have 0 in place of scores up to the threshold.
    """
    channels_first = meta.rows_layout is RowsLayout.CHANNELS_FIRST
    rows = [_rows(*one, meta) for one in _decoded(graph, heads, meta, by_cell=not channels_first)]
    if meta.rows_layout is not RowsLayout.OPENCV:
        rows = [_joined(rows, axis=1)]
    if channels_first:
        rows = [rows[0].transpose(0, 2, 1)]
    elif meta.batch.max == 1:
        rows = [one.reshape(-1, 5 + meta.num_classes) for one in rows]
    for name, one in zip(meta.output_names, rows, strict=True):
        graph.called(one, name)


def _rows(values: Value, centres: Value, sizes: Value, meta: ModelMeta) -> Value:
    kind = meta.heads[0].kind  # of all of them
    scores = _scores(values, kind)
    if meta.rows_layout is RowsLayout.CHANNELS_FIRST:
        return _joined([centres, sizes, scores], axis=2)
    unit, at = np.array(meta.input_hw[::-1], np.float32), kind.box_values
    scores = scores * (scores > meta.postprocess.conf).cast("float32")
    return _joined([centres / unit, sizes / unit, values.slice(2, at, at + 1).sigmoid(), scores], axis=2)


def _decoded(
    graph: GraphWriter, heads: Sequence[Value], meta: ModelMeta, *, by_cell: bool = False
) -> list[tuple[Value, Value, Value]]:
    """Of each head its values (N, B, F), centres and sizes (N, B, 2) in input px; see postprocess.py."""
    decoded = []
    for place, (logits, head) in enumerate(zip(heads, meta.heads, strict=True)):
        with graph.scope(f"decoders.{place}"):
            decoded.append(_decoded_head(logits, head, meta.input_hw, by_cell=by_cell))
    return decoded


def _decoded_head(logits: Value, head: Head, input_hw: HW, *, by_cell: bool) -> tuple[Value, Value, Value]:
    """The B = A*h*w boxes come anchor by anchor, in the host's order, or cell by cell."""
    (grid_h, grid_w), anchors = head.grid_hw, len(head.anchors_wh)
    cells = grid_h * grid_w
    row, column = np.divmod(np.arange(cells), grid_w)
    corner = np.stack([column, row], axis=1).astype(np.float32) - np.float32((head.scale_xy - 1) / 2)  # (HW, 2)
    anchors_wh = np.array(head.anchors_wh, np.float32)
    if by_cell:
        order, corner, anchors_wh = (0, 3, 1, 2), corner.repeat(anchors, axis=0), np.tile(anchors_wh, (cells, 1))
    else:
        order, corner, anchors_wh = (0, 1, 3, 2), np.tile(corner, (anchors, 1)), anchors_wh.repeat(cells, axis=0)
    stride_xy = np.array([input_hw[1] / grid_w, input_hw[0] / grid_h], np.float32)

    grid = logits.reshape(0, anchors, head.fields, cells).transpose(*order)
    values = grid.reshape(0, anchors * cells, head.fields)
    txywh = values.slice(2, 0, 8, 2) if head.kind is HeadKind.GAUSSIAN else values.slice(2, 0, 4)
    txy, twh = txywh.slice(2, 0, 2), txywh.slice(2, 2)
    if head.kind is HeadKind.SCALED:
        grown = twh.sigmoid() * 2
        grown = grown * grown
    else:
        grown = twh.op("Exp")
    centres = txy.sigmoid() if head.scale_xy == 1 else txy.sigmoid() * head.scale_xy
    return values, (centres + corner) * stride_xy, grown * anchors_wh


def _certainty(values: Value, kind: HeadKind) -> Value:
    """What the classes' probabilities are multiplied by: (N, B, F) -> (N, B, 1)."""
    objectness = values.slice(2, kind.box_values, kind.box_values + 1).sigmoid()
    if kind is not HeadKind.GAUSSIAN:
        return objectness
    return objectness * (1 - values.slice(2, 1, 8, 2).sigmoid().op("ReduceSum", (2,), keepdims=1) / 4)


def _scores(values: Value, kind: HeadKind) -> Value:
    """(N, B, F) -> (N, B, C)."""
    classes = values.slice(2, kind.box_values + 1)
    return _certainty(values, kind) * (classes.op("Softmax", axis=2) if kind is HeadKind.REGION else classes.sigmoid())


def _joined(values: Sequence[Value], axis: int) -> Value:
    return values[0] if len(values) == 1 else values[0].op("Concat", *values[1:], axis=axis)


def _largest(graph: GraphWriter, values: Value) -> Value:
    """Along the last of three axes."""
    axes = {"axes": (2,)} if graph.opset < 18 else {}  # an input since
    return values.op("ReduceMax", *(() if axes else ((2,),)), keepdims=0, **axes)


def _taken(values: Value, rows: Value, width: int) -> Value:
    """Rows (N, M) of values (N, B, width): (N, M, width)."""
    return values.op("GatherElements", rows.unsqueeze(2).op("Expand", (1, 1, width)), axis=1)


def _similarity(xyxy: Value, nms: Nms) -> Value:
    """`postprocess.similarity` of every pair of each image: (N, P, 4) -> (N, P, P)."""
    upper_left, lower_right = xyxy.slice(2, 0, 2), xyxy.slice(2, 2)
    low, high = _both(upper_left, "Max"), _both(lower_right, "Min")
    inside = (high - low).op("Max", 0.0)
    intersection = inside.pick(3, 0) * inside.pick(3, 1)
    sides = lower_right - upper_left
    iou = _ratio(intersection, _both(sides.pick(2, 0) * sides.pick(2, 1), "Add") - intersection)
    if nms.distance_power is None:
        return iou
    apart = _both((upper_left + lower_right) / 2, "Sub")
    enclosing = _both(lower_right, "Max") - _both(upper_left, "Min")
    squares = ((one * one).op("ReduceSum", (3,), keepdims=0) for one in (apart, enclosing))
    return iou - _ratio(*squares).op("Pow", nms.distance_power)


def _both(values: Value, op_type: str) -> Value:
    """What an operator makes of every pair of rows: (N, P, ...) -> (N, P, P, ...)."""
    return values.unsqueeze(2).op(op_type, values.unsqueeze(1))


def _ratio(numerator: Value, denominator: Value) -> Value:
    """Their quotient; 0 where the denominator is 0, since then the numerator is as well."""
    return numerator / denominator.op("Max", 1e-30)
