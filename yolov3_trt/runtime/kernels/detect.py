"""How to launch the kernels that turn heads into detections: `decode`, then `nms`.

Between the two lies a list of candidates per image. One that is full loses candidates, and which ones depends on which thread
came first; so such an image gets `num_detections` -1 and no detections, and its heads are to be decoded on the host.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from yolov3_trt.errors import EngineError
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import ModelMeta, Postprocess
from yolov3_trt.postprocess import logit
from yolov3_trt.runtime.kernels.source import Launch, ceil_div, struct_bytes
from yolov3_trt.spec import Head

# Candidates of an image that are kept for the best to be chosen from: 384 KiB. A threshold of 0.25 leaves tens of them, the
# 0.005 of an evaluation hundreds.
CAPACITY = 16384

MAX_HEADS, MAX_ANCHORS = 8, 16  # of decode.cu
MAX_CANDIDATES = 1024  # of nms.cu

HEAD = np.dtype(
    [
        ("logits", "u8"),
        ("anchors", "i4"),
        ("grid_h", "i4"),
        ("grid_w", "i4"),
        ("first_block", "i4"),
        ("first_box", "i4"),
        ("scale_xy", "f4"),
        ("corner", "f4"),
        ("stride_x", "f4"),
        ("stride_y", "f4"),
        ("anchors_wh", "f4", (MAX_ANCHORS, 2)),
    ],
    align=True,
)
DECODE = np.dtype(
    [
        ("heads", HEAD, (MAX_HEADS,)),
        ("counts", "u8"),
        ("keys", "u8"),
        ("boxes", "u8"),
        ("num_heads", "i4"),
        ("num_classes", "i4"),
        ("capacity", "i4"),
        ("kind", "i4"),
        ("box_values", "i4"),
        ("conf_threshold", "f4"),
        ("conf_logit", "f4"),
    ],
    align=True,
)
NMS = np.dtype(
    [
        ("counts", "u8"),
        ("keys", "u8"),
        ("boxes", "u8"),
        ("num_candidates", "u8"),
        ("num_detections", "u8"),
        ("detected_boxes", "u8"),
        ("scores", "u8"),
        ("class_ids", "u8"),
        ("capacity", "i4"),
        ("num_classes", "i4"),
        ("max_candidates", "i4"),
        ("max_detections", "i4"),
        ("input_w", "f4"),
        ("input_h", "f4"),
        ("iou_threshold", "f4"),
        ("distance_power", "f4"),
    ],
    align=True,
)

_DECODE_BLOCK = (128, 1, 1)
_BLOCK_CELLS = 512
_NMS_BLOCK = (512, 1, 1)
_DECODE_KERNELS = {"float32": "decode_f32", "float16": "decode_f16"}

Shapes = dict[str, tuple[tuple[int, ...], DTypeLike]]  # shape and dtype of an array by its name


@dataclass(frozen=True)
class CandidateBuffers:
    """Addresses of the arrays of `candidate_shapes`; `counts` starts as zero, and `nms` leaves it so."""

    counts: int
    keys: int
    boxes: int
    capacity: int = CAPACITY


def candidate_shapes(rows: int, capacity: int = CAPACITY) -> Shapes:
    """Arrays between `decode` and `nms` for a batch of up to `rows` images."""
    return {"counts": ((rows,), "i4"), "keys": ((rows, capacity), "u8"), "boxes": ((rows, capacity, 4), "f4")}


def detection_shapes(rows: int, max_detections: int) -> Shapes:
    """What `nms` writes: meta.DETECTION_OUTPUTS, and `num_candidates` (N,) that passed the threshold.

    `boxes`, here and among the candidates, must lie at a multiple of 16 bytes.
    """
    return {
        "num_detections": ((rows,), "i4"),
        "boxes": ((rows, max_detections, 4), "f4"),
        "scores": ((rows, max_detections), "f4"),
        "class_ids": ((rows, max_detections), "i4"),
        "num_candidates": ((rows,), "i4"),
    }


def decode(
    meta: ModelMeta, postprocess: Postprocess, rows: int, heads: Sequence[int], dtype: DTypeLike, into: CandidateBuffers
) -> Launch:
    """Heads -> candidates, as `postprocess.decode_head` finds them on the host, in no order.

    Args:
        meta: of the graph that gave the heads.
        postprocess: its confidence threshold counts.
        rows: images of the batch.
        heads: addresses of the graph's outputs, each (N, A*F, h, w), in the order of `meta.heads`.
        dtype: of the heads, float32 or float16.
        into: what is appended to.

    Raises:
        EngineError: the heads are more, larger or of another dtype than the kernel takes.
    """
    kernel = _DECODE_KERNELS.get(np.dtype(dtype).name)
    if kernel is None:
        raise EngineError(f"heads of {np.dtype(dtype).name}; expected {' or '.join(_DECODE_KERNELS)}")
    check_heads(meta)
    structs = np.zeros(MAX_HEADS, HEAD)
    blocks = boxes = 0
    for index, (head, address) in enumerate(zip(meta.heads, heads, strict=True)):
        struct = structs[index]
        _fill_head(struct, head, meta)
        struct["logits"], struct["first_block"], struct["first_box"] = address, blocks, boxes
        cells = head.grid_hw[0] * head.grid_hw[1]
        blocks += len(head.anchors_wh) * ceil_div(cells, _BLOCK_CELLS)
        boxes += len(head.anchors_wh) * cells
    args = struct_bytes(
        DECODE,
        heads=structs,
        counts=into.counts,
        keys=into.keys,
        boxes=into.boxes,
        num_heads=len(meta.heads),
        num_classes=meta.num_classes,
        capacity=into.capacity,
        kind=list(HeadKind).index(meta.heads[0].kind),
        box_values=meta.heads[0].kind.box_values,
        conf_threshold=postprocess.conf,
        conf_logit=logit(np.float32(postprocess.conf)),
    )
    return Launch(kernel, (blocks, rows, 1), _DECODE_BLOCK, args)


def nms(
    meta: ModelMeta, postprocess: Postprocess, rows: int, candidates: CandidateBuffers, into: Mapping[str, int]
) -> Launch:
    """Candidates -> detections, as `candidates_from_heads` and `suppress` choose them on the host; clears `counts`.

    Args:
        meta: of the graph.
        postprocess: all but its confidence threshold counts.
        rows: images of the batch.
        candidates: of `decode`.
        into: addresses of the arrays of `detection_shapes`, by name.

    Raises:
        EngineError: `max_candidates` is more than the kernel takes.
    """
    _check_candidates(postprocess)
    power = postprocess.nms.distance_power
    args = struct_bytes(
        NMS,
        counts=candidates.counts,
        keys=candidates.keys,
        boxes=candidates.boxes,
        num_candidates=into["num_candidates"],
        num_detections=into["num_detections"],
        detected_boxes=into["boxes"],
        scores=into["scores"],
        class_ids=into["class_ids"],
        capacity=candidates.capacity,
        num_classes=meta.num_classes,
        max_candidates=postprocess.max_candidates,
        max_detections=postprocess.max_detections,
        input_w=meta.input_hw[1],
        input_h=meta.input_hw[0],
        iou_threshold=postprocess.iou,
        distance_power=np.nan if power is None else power,
    )
    return Launch("nms", (rows, 1, 1), _NMS_BLOCK, args)


def check_heads(meta: ModelMeta) -> None:
    """Whether `decode` takes the heads of a graph.

    Raises:
        EngineError: it does not.
    """
    anchors = max(len(head.anchors_wh) for head in meta.heads)
    if len(meta.heads) > MAX_HEADS or anchors > MAX_ANCHORS:
        raise EngineError(
            f"{meta.name}: {len(meta.heads)} heads of up to {anchors} anchors; decoding on the GPU takes up to {MAX_HEADS} of "
            f"{MAX_ANCHORS}: decode on the host"
        )
    pairs = sum(len(head.anchors_wh) * head.grid_hw[0] * head.grid_hw[1] for head in meta.heads) * meta.num_classes
    if pairs >= 2**31:  # they are numbered in 32 bits
        raise EngineError(
            f"{meta.name}: {pairs} pairs of a box and a class; decoding on the GPU takes up to {2**31 - 1}"
        )


def check_detection(meta: ModelMeta, postprocess: Postprocess) -> None:
    """Whether `decode` and `nms` can do all that is asked for.

    Raises:
        EngineError: they cannot.
    """
    check_heads(meta)
    _check_candidates(postprocess)


def _check_candidates(postprocess: Postprocess) -> None:
    if postprocess.max_candidates > MAX_CANDIDATES:
        raise EngineError(
            f"max_candidates={postprocess.max_candidates}; suppression on the GPU takes up to {MAX_CANDIDATES}: lower it, or "
            "leave suppression to the host"
        )


def _fill_head(struct: Any, head: Head, meta: ModelMeta) -> None:
    (grid_h, grid_w), (input_h, input_w) = head.grid_hw, meta.input_hw
    struct["anchors"], struct["grid_h"], struct["grid_w"] = len(head.anchors_wh), grid_h, grid_w
    struct["scale_xy"], struct["corner"] = head.scale_xy, (head.scale_xy - 1) / 2
    struct["stride_x"], struct["stride_y"] = input_w / grid_w, input_h / grid_h
    struct["anchors_wh"][: len(head.anchors_wh)] = head.anchors_wh
