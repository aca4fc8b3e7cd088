"""Which predictor is responsible for which object: YOLOv3's rule (arXiv 1804.02767, section 2.1).

Of all priors (anchors) of all heads an object takes the one whose shape is most like its own, centres put together; the
predictor is that prior in the grid cell where the object's centre lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.geometry import HW, FloatArray
from yolov3_trt.spec import Head

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Objects:
    """The labelled objects of a batch, image after image."""

    cxcywh: FloatArray  # (T, 4), input px
    class_ids: IntArray  # (T,)
    image_ids: IntArray  # (T,), index in the batch


@dataclass(frozen=True, eq=False)
class Assignment:
    """The objects that one head is responsible for, P of them, and where in it."""

    objects: IntArray  # (P,), index in Objects
    anchors: IntArray  # (P,), index in Head.anchors_wh
    rows: IntArray  # (P,), grid cell
    columns: IntArray  # (P,)


def assign(objects: Objects, heads: Sequence[Head], input_hw: HW, prior_iou: float = 1.0) -> tuple[Assignment, ...]:
    """Give every object a predictor of its own: one Assignment per head.

    Where two objects want the same predictor (same cell, same prior) the earlier one has it and the later one takes its
    next best prior that is free; only an object that finds all priors of its cell taken goes without.

    Args:
        objects: of a batch.
        heads: of the network.
        input_hw: px.
        prior_iou: below 1, an object also gets every free prior whose shape has a greater IoU with its own than this
            (`iou_thresh` of AlexeyAB's [yolo]): more predictors learn from each object.
    """
    priors = [(head, anchor) for head in range(len(heads)) for anchor in range(len(heads[head].anchors_wh))]
    similarity = shape_iou(
        objects.cxcywh[:, 2:], np.concatenate([np.array(head.anchors_wh, np.float32) for head in heads])
    )
    order = np.argsort(-similarity, axis=1, kind="stable")  # (T, all priors), best first; the first of equals
    cells = [_cells(objects.cxcywh[:, :2], head.grid_hw, input_hw) for head in heads]  # per head (T, 2): row, column
    taken: set[tuple[int, ...]] = set()
    found: list[list[tuple[int, ...]]] = [[] for _ in heads]

    def take(index: int, prior: int) -> bool:
        """Give the object this prior, if it is free."""
        head, anchor = priors[prior]
        row, column = cells[head][index].tolist()
        place = (int(objects.image_ids[index]), head, anchor, row, column)
        if is_free := place not in taken:
            taken.add(place)
            found[head].append((index, anchor, row, column))
        return is_free

    for index, ranked in enumerate(order.tolist()):
        any(take(index, prior) for prior in ranked)  # stops at the first that is free
    for index, prior in np.argwhere(similarity > prior_iou).tolist():
        take(index, prior)
    return tuple(Assignment(*np.array(rows, np.int64).reshape(-1, 4).T) for rows in found)


def shape_iou(a_wh: FloatArray, b_wh: FloatArray) -> FloatArray:
    """IoU of boxes of sizes a (T, 2) with boxes of sizes b (A, 2) when their centres coincide: (T, A)."""
    overlap = np.minimum(a_wh[:, None], b_wh[None]).prod(axis=2)
    union = a_wh.prod(axis=1)[:, None] + b_wh.prod(axis=1)[None] - overlap
    result: FloatArray = overlap / union
    return result


def _cells(centres_xy: FloatArray, grid_hw: HW, input_hw: HW) -> IntArray:
    """(row, column) of the cell that holds each centre; one on the lower or right border belongs to the last cell."""
    per_px = np.divide(grid_hw, input_hw)
    cells = np.floor(centres_xy[:, ::-1] * per_px).astype(np.int64)
    return cells.clip(0, np.array(grid_hw) - 1)
