"""The host path from heads to detections: threshold on the logits, decode what is left, suppress what overlaps.

The formulas are Darknet's (src/yolo_layer.c). With t the logits of one anchor in one cell, s = scale_x_y, (column, row)
the cell, (W, H) the grid and the input measured in input px:

    x = (sigmoid(t_x) * s - (s - 1) / 2 + column) * input_w / W        y alike
    w = exp(t_w) * anchor_w                                            h alike
    score[c] = sigmoid(t_obj) * sigmoid(t_c)

Other kinds of heads (`layers.HeadKind`) differ in one of these each:

    SCALED (new_coords=1)    w = (2 sigmoid(t_w))^2 * anchor_w
    REGION                   score[c] = sigmoid(t_obj) * softmax(t_classes)[c]
    GAUSSIAN                 score[c] = sigmoid(t_obj) * sigmoid(t_c) * (1 - mean of the four sigmoid(t_uncertainty))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import HW, FloatArray, Placement, centre_distance, cxcywh_to_xyxy, iou
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import ROWS_OUTPUT, ModelMeta, OutputStage, Postprocess, RowsLayout
from yolov3_trt.spec import Head, Nms

IntArray = NDArray[np.int32]
_BLOCK = 512  # candidates that are compared pair by pair at a time
Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Candidates:
    """(box, class) pairs above the threshold."""

    xyxy: FloatArray  # (N, 4) input px
    scores: FloatArray  # (N,)
    class_ids: IntArray  # (N,)

    def __getitem__(self, rows: Any) -> "Candidates":
        """The rows of a mask, slice or index array."""
        return Candidates(self.xyxy[rows], self.scores[rows], self.class_ids[rows])


def detections_from_outputs(
    outputs: Outputs, meta: ModelMeta, postprocess: Postprocess, placements: Sequence[Placement]
) -> list[Detections]:
    """What a graph gave for a batch -> detections in image px, one per placement.

    Args:
        outputs: arrays by `meta.output_names`; rows of the batch beyond the placements are ignored.
        meta: of the graph.
        postprocess: thresholds; for a DETECTIONS or ROWS graph they can only be narrower than the graph's own.
        placements: where each picture of the batch lies in the input.

    Raises:
        BackendError: the outputs are no numbers, or not what `meta` says.
    """
    results = []
    for row, placement in enumerate(placements):
        if meta.output_stage is OutputStage.DETECTIONS:
            found = _graph_detections({name: outputs[name][row] for name in meta.output_names}, meta, postprocess)
        elif meta.output_stage is OutputStage.ROWS:
            found = suppress(candidates_from_rows(outputs, row, meta, postprocess), meta.input_hw, postprocess)
        else:
            found = candidates_from_heads(
                [outputs[h.name][row] for h in meta.heads], meta.heads, meta.input_hw, postprocess
            )
            found = suppress(found, meta.input_hw, postprocess)
        if not len(found.scores) and meta.output_stage is not OutputStage.DETECTIONS:
            check_numbers(outputs, row, meta)
        results.append(
            Detections(placement.to_image(found.xyxy), found.scores, found.class_ids, class_names=meta.class_names)
        )
    return results


def check_numbers(outputs: Outputs, row: int, meta: ModelMeta) -> None:
    """Whether a network computed something where nothing was found: NaN passes no threshold, and looks like an empty scene.

    Args:
        outputs: of a HEADS or ROWS graph.
        row: of the batch.
        meta: of the graph.

    Raises:
        BackendError: an output is NaN all over.
    """
    for name in meta.output_names:
        values = outputs[name] if outputs[name].ndim == 2 else outputs[name][row]
        if np.isnan(values.flat[0]) and np.isnan(values).all():
            raise BackendError(
                f"{meta.name}: all of {name} is NaN, so nothing can be found: the network overflows in {meta.precision.value}, "
                "or its weights are damaged; `compare --layers` names the first layer at fault, fp32 has the widest range"
            )


def candidates_from_heads(
    logits: Sequence[FloatArray], heads: Sequence[Head], input_hw: HW, postprocess: Postprocess
) -> Candidates:
    """Heads of one image, each (A*F, h, w) -> its best `max_candidates` pairs, by descending score."""
    parts = [decode_head(array, head, input_hw, postprocess.conf) for array, head in zip(logits, heads, strict=True)]
    merged = Candidates(
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.class_ids for part in parts]),
    )
    # Stable: equal scores keep the order of heads, anchors, cells and classes, on every machine.
    return merged[np.argsort(-merged.scores, kind="stable")[: postprocess.max_candidates]]


def candidates_from_rows(outputs: Outputs, row: int, meta: ModelMeta, postprocess: Postprocess) -> Candidates:
    """What a ROWS graph gave for one image of a batch -> its best `max_candidates` pairs, by descending score."""
    if meta.rows_layout is RowsLayout.CHANNELS_FIRST:
        rows, unit = outputs[ROWS_OUTPUT][row].T, np.ones(4, np.float32)  # (B, 4+C)
        scores = rows[:, 4:]
    else:
        arrays = [outputs[name] for name in meta.output_names]
        parts = [array if array.ndim == 2 else array[row] for array in arrays]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)  # (B, 5+C)
        scores, unit = rows[:, 5:], np.array([*meta.input_hw[::-1]] * 2, np.float32)
    box, class_id = np.nonzero(scores > postprocess.conf)
    found = scores[box, class_id]
    if (found > 1).any():
        raise BackendError(f"{meta.name}: it gave scores above 1; its graph is not what its sidecar says")
    best = np.argsort(-found, kind="stable")[: postprocess.max_candidates]
    with np.errstate(over="ignore", invalid="ignore"):  # infinite boxes, as in `decode_head`
        xyxy = cxcywh_to_xyxy(rows[box[best], :4] * unit)
    valid = ~np.isnan(xyxy).any(axis=1)
    return Candidates(xyxy, found[best], class_id[best].astype(np.int32))[valid]


def decode_head(logits: FloatArray, head: Head, input_hw: HW, conf: float) -> Candidates:
    """One head of one image, (A*F, h, w) -> the pairs whose objectness and score exceed the threshold.

    Everything is compared as logits; only what passes meets an exponential. NaN passes no comparison.
    """
    grid_h, grid_w = logits.shape[1:]
    at = head.kind.box_values  # of the objectness; the classes follow
    values = logits.reshape(len(head.anchors_wh), head.fields, grid_h * grid_w)  # (A, F, HW)
    anchor, cell = np.nonzero(values[:, at] > logit(np.float32(conf)))
    values = values[anchor, :, cell].astype(np.float32, copy=False)  # (M, F)

    certainty = _sigmoid(values[:, at])  # what each class's probability is multiplied by
    if head.kind is HeadKind.GAUSSIAN:
        certainty = certainty * (1 - _sigmoid(values[:, 1:8:2]).mean(axis=1))
    box, class_id, scores = _scores(values[:, at + 1 :], certainty, head.kind, np.float32(conf))

    with np.errstate(over="ignore", invalid="ignore"):  # a wild logit gives an infinite box, clipped to the image later
        txywh = values[:, 0:8:2] if head.kind is HeadKind.GAUSSIAN else values[:, :4]
        cxcywh = _decode_boxes(txywh, anchor, cell, head, input_hw, (grid_h, grid_w))
        xyxy = cxcywh_to_xyxy(cxcywh)[box]
    valid = ~np.isnan(xyxy).any(axis=1)
    return Candidates(xyxy, scores, class_id.astype(np.int32))[valid]


def _scores(
    classes: FloatArray, certainty: FloatArray, kind: HeadKind, conf: np.float32
) -> tuple[NDArray[Any], NDArray[Any], FloatArray]:
    """Class logits (M, C) of boxes with a certainty (M,) -> the pairs above the threshold: box, class and score, (P,) each."""
    if kind is HeadKind.REGION:
        by_class = np.ascontiguousarray(classes.T)  # (C, M): sums go class by class, as on the GPU
        with np.errstate(invalid="ignore", over="ignore"):
            exponentials = np.exp(by_class - by_class.max(axis=0, initial=-np.inf))
            scores = (certainty * (exponentials / exponentials.sum(axis=0))).T
        box, class_id = np.nonzero(scores > conf)
        return box, class_id, scores[box, class_id]
    # sigmoid(class) > threshold / certainty, without a sigmoid per class.
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where both are 0
        class_threshold = logit(conf / certainty)
    box, class_id = np.nonzero(classes > class_threshold[:, None])
    return box, class_id, certainty[box] * _sigmoid(classes[box, class_id])


def suppress(candidates: Candidates, input_hw: HW, postprocess: Postprocess) -> Candidates:
    """Greedy non-maximum suppression per class: keep the best, drop what is too similar, go on with what is left.

    Args:
        candidates: by descending score.
        input_hw: the unit in which box distances are measured; Darknet does it in fractions of the network's input.
        postprocess: threshold, similarity and how many to keep.
    """
    unit = np.array([*input_hw[::-1], *input_hw[::-1]], np.float32)
    boxes, class_ids = candidates.xyxy / unit, candidates.class_ids
    kept = np.empty(0, int)
    # In blocks, as the pairs of all might not fit into memory: what is kept of the blocks before is better than all of this.
    for start in range(0, len(class_ids), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(class_ids)))
        rows = np.concatenate([kept, block])
        same = (class_ids[rows][:, None] == class_ids[block]) & (rows[:, None] < block)
        better, worse = np.nonzero(same)  # pairs of a class, by descending score
        similar = similarity(boxes[rows[better]], boxes[block[worse]], postprocess.nms) > postprocess.iou
        keep = np.ones(len(rows), bool)
        for i, j in zip(better[similar].tolist(), (worse[similar] + len(kept)).tolist(), strict=True):
            if keep[i]:  # final: all that could drop it came before
                keep[j] = False
        kept = rows[keep]
        if len(kept) >= postprocess.max_detections:
            break
    return candidates[kept[: postprocess.max_detections]]


def similarity(a_xyxy: FloatArray, b_xyxy: FloatArray, nms: Nms) -> FloatArray:
    """What suppression compares with its threshold, of boxes (..., 4) and boxes (..., 4), broadcast: (...)."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # infinite boxes; 0 to a negative power
        overlap = iou(a_xyxy, b_xyxy)
        if nms.distance_power is None:
            return overlap
        penalty: FloatArray = centre_distance(a_xyxy, b_xyxy) ** np.float32(nms.distance_power)
        return overlap - penalty


def _decode_boxes(
    txywh: FloatArray, anchor: NDArray[Any], cell: NDArray[Any], head: Head, input_hw: HW, grid_hw: HW
) -> FloatArray:
    """Logits (M, 4) of the given anchors and cells -> boxes (M, 4) as centre and size, input px."""
    row, column = np.divmod(cell, grid_hw[1])
    stride_xy = np.array([input_hw[1] / grid_hw[1], input_hw[0] / grid_hw[0]], np.float32)
    corner = np.stack([column, row], axis=1).astype(np.float32) - np.float32((head.scale_xy - 1) / 2)
    centres = (_sigmoid(txywh[:, :2]) * np.float32(head.scale_xy) + corner) * stride_xy
    grown = np.square(2 * _sigmoid(txywh[:, 2:])) if head.kind is HeadKind.SCALED else np.exp(txywh[:, 2:])
    sizes: FloatArray = grown * np.array(head.anchors_wh, np.float32)[anchor]
    return np.concatenate([centres, sizes], axis=1)


def _graph_detections(outputs: Outputs, meta: ModelMeta, postprocess: Postprocess) -> Candidates:
    """Row of a DETECTIONS graph -> its pairs above the threshold."""
    xyxy, scores, class_ids = checked_detections(outputs, meta)
    found = Candidates(xyxy, scores, class_ids)
    return found[found.scores > postprocess.conf][: postprocess.max_detections]


def checked_detections(outputs: Outputs, meta: ModelMeta) -> tuple[FloatArray, FloatArray, IntArray]:
    """What a graph or a server says it found in a picture: boxes (N, 4), scores (N,) and classes (N,), views.

    Args:
        outputs: a row of DETECTION_OUTPUTS.
        meta: of the graph.

    Raises:
        BackendError: these are no detections: not as many as there are rows, no numbers, scores beyond 0..1 or not descending,
            classes that the model has not.
    """
    count = int(outputs["num_detections"])
    xyxy, scores, class_ids = (outputs[name][:count] for name in ("boxes", "scores", "class_ids"))
    fault = None
    if not 0 <= count <= len(outputs["scores"]):
        fault = f"{count} of them; expected 0 to {len(outputs['scores'])}"
    elif not ((scores >= 0) & (scores <= 1)).all() or (np.diff(scores) > 0).any():
        fault = "scores that are not 0 to 1, best first"
    elif np.isnan(xyxy).any():
        fault = "boxes that are no numbers"
    elif not ((class_ids >= 0) & (class_ids < meta.num_classes)).all():
        fault = f"classes that are not 0 to {meta.num_classes - 1}"
    if fault:
        raise BackendError(
            f"{meta.name}: what it gave are no detections: {fault}; its graph is not what its sidecar says"
        )
    return xyxy, scores, class_ids


def _sigmoid(x: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):  # exp overflows to infinity for x < -88, and 1 / inf is the right 0
        return np.float32(1) / (np.float32(1) + np.exp(-x))


def logit(p: Any) -> Any:
    """Inverse of the sigmoid; -inf at 0 and below, inf at 1 and above."""
    with np.errstate(divide="ignore"):
        p = np.clip(p, np.float32(0), np.float32(1))
        return np.log(p) - np.log1p(-p)
