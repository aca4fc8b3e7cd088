"""From heads to detections: decoding by hand, and suppression against Darknet's algorithm in plain Python."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.fakes import FakeBackend
from yolov3_trt import postprocess as postprocess_module
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import Placement, Resize
from yolov3_trt.meta import ModelMeta, OutputStage, Postprocess, RowsLayout
from yolov3_trt.postprocess import (
    Candidates,
    candidates_from_heads,
    checked_detections,
    decode_head,
    detections_from_outputs,
    similarity,
    suppress,
)
from yolov3_trt.spec import Head, Nms, NmsKind

INPUT_HW = (416, 416)
KINDS = (Nms(), Nms(NmsKind.GREEDY), Nms(NmsKind.DIOU, 0.9))


def head(anchors_wh=((32.0, 64.0),), num_classes=2, grid_hw=(13, 13), scale_xy=1.0, name="head0") -> Head:
    return Head(name, 0, anchors_wh, num_classes, grid_hw, scale_xy)


def logits(of: Head, **fields: float) -> np.ndarray:
    """(A*(5+C), h, w) of -20, so that nothing is found, but for the given fields, by name, of every anchor and cell."""
    names = ["x", "y", "w", "h", "obj", *(f"class{i}" for i in range(of.num_classes))]
    array = np.full((len(of.anchors_wh), len(names), *of.grid_hw), -20, np.float32)
    array[:, :4] = 0
    for name, value in fields.items():
        array[:, names.index(name)] = value
    return array.reshape(of.channels, *of.grid_hw)


def one_cell(of: Head, row: int, column: int, **fields: float) -> np.ndarray:
    array = logits(of)
    array[:, row, column] = logits(of, **fields)[:, row, column]
    return array


# --- decoding ---


def test_zero_logit_box_lies_at_the_cell_centre_with_its_anchors_size():
    of = head()
    found = decode_head(np.zeros((7, 13, 13), np.float32), of, INPUT_HW, conf=0.2)
    assert len(found.scores) == 13 * 13 * 2  # both classes of every cell
    row, column = 3, 5
    at = (row * 13 + column) * 2
    assert_allclose(found.xyxy[at], [160, 80, 192, 144])  # centre (176, 112)
    assert_allclose(found.xyxy[at + 1], [160, 80, 192, 144])
    assert_allclose(found.scores, 0.25)  # sigmoid(0) squared
    assert_array_equal(found.class_ids[:4], [0, 1, 0, 1])


def test_logits_move_and_size_the_box():
    of = head(anchors_wh=((10.0, 20.0), (30.0, 40.0)), grid_hw=(2, 3))
    array = logits(of)
    # sigmoid(ln 3) = .75, exp(ln 2) = 2; score = sigmoid(ln 4) * sigmoid(ln 9) = .8 * .9
    array[7:, 1, 2] = [math.log(3), -math.log(3), math.log(2), 0, math.log(4), -20, math.log(9)]
    found = decode_head(array, of, (64, 96), 0.25)
    # Centre ((2 + .75) * 32, (1 + .25) * 32) = (88, 40), size (60, 40) by the second anchor.
    assert_allclose(found.xyxy, [[58, 20, 118, 60]], rtol=1e-6)
    assert_allclose(found.scores, [0.72], rtol=1e-6)
    assert_array_equal(found.class_ids, [1])


@pytest.mark.parametrize(
    "x, scale_xy, centre",
    [
        (0, 1.2, 2.5),
        (np.inf, 1.2, 3.1),
        (-np.inf, 1.2, 1.9),
        (math.log(3), 1.2, 2.8),
        (np.inf, 1.0, 3),
        (np.inf, 2.0, 3.5),
    ],
)
def test_scale_xy_lets_a_box_leave_its_cell(x: float, scale_xy: float, centre: float):
    of = head(anchors_wh=((8.0, 8.0),), grid_hw=(4, 4), scale_xy=scale_xy)  # cells of 16 px
    centre *= 16
    found = decode_head(one_cell(of, 1, 2, x=x, y=x, obj=5, class0=5), of, (64, 64), 0.25)
    assert_allclose(found.xyxy, [[centre - 4, centre - 20, centre + 4, centre - 12]], rtol=1e-6)


def test_stride_may_differ_in_each_direction():
    of = head(anchors_wh=((2.0, 4.0),), grid_hw=(2, 4))
    found = decode_head(one_cell(of, 1, 3, obj=5, class0=5), of, (64, 64), 0.25)
    assert_allclose(found.xyxy, [[55, 46, 57, 50]])  # cells of 16 x 32, centre (56, 48)


@pytest.mark.parametrize(
    "obj, class0, threshold, found",
    [
        (0, 0, 0.25, 0),  # a score of .25 does not exceed .25
        (0, 0, 0.2499, 1),
        (0.01, 0, 0.25, 1),
        (0, 20, 0.5, 0),  # nor does an objectness of .5 exceed .5
        (0, 20, 0.4999, 1),
        (-1.2, 20, 0.25, 0),  # objectness .23: below, whatever the class says
        (20, -1.2, 0.25, 0),
        (1, 1, 0.53, 1),  # .7311 squared = .5344
        (1, 1, 0.54, 0),
        (20, 20, 1.0, 0),
        (-15, -15, 0.0, 1),
        (-200, -200, 0.0, 0),  # both 0 in float32
    ],
)
def test_objectness_and_score_must_exceed_the_threshold(obj: float, class0: float, threshold: float, found: int):
    of = head(grid_hw=(1, 1), num_classes=1)
    scores = decode_head(logits(of, obj=obj, class0=class0), of, INPUT_HW, threshold).scores
    assert len(scores) == found
    assert_allclose(scores, [1 / (1 + math.exp(-obj)) / (1 + math.exp(-class0))] * found, rtol=1e-5)


@pytest.mark.parametrize("field", ["x", "y", "w", "h", "obj", "class0"])
def test_nan_drops_its_box_only(field: str):
    of = head(grid_hw=(1, 2))
    array = logits(of, obj=5, class0=5)
    array[["x", "y", "w", "h", "obj", "class0"].index(field), 0, 0] = np.nan
    found = decode_head(array, of, INPUT_HW, 0.25)
    assert len(found.scores) == 1
    assert_allclose(found.xyxy[0].mean(), (312 + 208) / 2)  # the other cell's


@pytest.mark.parametrize("size", [np.inf, 1000.0])
def test_infinite_logits_give_a_sure_box_clipped_to_the_image(size: float):
    of = head(grid_hw=(2, 2), num_classes=1)
    outputs = {"head0": one_cell(of, 0, 0, w=size, h=-size, obj=np.inf, class0=np.inf)[None]}
    meta = ModelMeta("m", INPUT_HW, (of,), ("thing",))
    placement = Placement.of((101, 201), INPUT_HW, Resize.STRETCH)
    (found,) = detections_from_outputs(outputs, meta, meta.postprocess, [placement])
    assert_allclose(found.xyxy, [[0, 25.25, 201, 25.25]], rtol=1e-6)
    assert_allclose(found.scores, [1])


@pytest.mark.parametrize("value", [-np.inf, -1e30])
def test_heads_without_an_object_give_none(value: float):
    of = head()
    meta = ModelMeta("m", INPUT_HW, (of,), ("a", "b"))
    placement = Placement.of((50, 50), INPUT_HW, Resize.LETTERBOX)
    (found,) = detections_from_outputs(
        {"head0": np.full((1, 7, 13, 13), value, np.float32)}, meta, meta.postprocess, [placement]
    )
    assert len(found) == 0 and found.class_names == ("a", "b")
    assert detections_from_outputs({"head0": np.zeros((0, 7, 13, 13), np.float32)}, meta, meta.postprocess, []) == []


def test_an_output_that_is_nan_all_over_is_no_empty_scene():
    of, empty = head(), head(name="head1")
    meta = ModelMeta("m", INPUT_HW, (of, empty), ("a", "b"), precision="fp16")
    placements = [Placement.of((50, 50), INPUT_HW, Resize.LETTERBOX)] * 2
    outputs = {name: np.full((2, 7, 13, 13), -9, np.float32) for name in ("head0", "head1")}
    outputs["head1"][1] = np.nan
    outputs["head1"][1, 0, 0, 0] = 1
    assert [len(found) for found in detections_from_outputs(outputs, meta, meta.postprocess, placements)] == [0, 0]
    outputs["head1"][1] = np.nan
    with pytest.raises(BackendError, match=r"m: all of head1 is NaN, so nothing can be found: .* overflows in fp16"):
        detections_from_outputs(outputs, meta, meta.postprocess, placements)
    rows = replace(meta, output_stage="rows", rows_layout=RowsLayout.CHANNELS_FIRST)
    with pytest.raises(BackendError, match="all of rows is NaN"):
        detections_from_outputs({"rows": np.full((1, 6, 338), np.nan)}, rows, meta.postprocess, placements[:1])


def test_candidates_of_all_heads_descend_and_ties_keep_their_order():
    coarse, fine = head(grid_hw=(1, 1)), head(grid_hw=(1, 2), anchors_wh=((2.0, 2.0), (4.0, 4.0)), name="head1")
    arrays = [np.zeros((7, 1, 1), np.float32), np.zeros((14, 1, 2), np.float32)]
    arrays[1][5 + 7 + 1, 0, 1] = 3  # second anchor, second cell, class 1: the best
    found = candidates_from_heads(arrays, [coarse, fine], INPUT_HW, Postprocess(conf=0.1))
    widths = found.xyxy[:, 2] - found.xyxy[:, 0]
    centres = found.xyxy[:, [0, 2]].mean(axis=1)
    # Then heads, anchors, cells, classes.
    assert_allclose(widths, [4, 32, 32, 2, 2, 2, 2, 4, 4, 4])
    assert_allclose(centres, [312, 208, 208, 104, 104, 312, 312, 104, 104, 312])
    assert_array_equal(found.class_ids, [1, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    assert_allclose(found.scores, [0.5 / (1 + math.exp(-3))] + [0.25] * 9, rtol=1e-6)


def test_max_candidates_keeps_the_best():
    of = head(num_classes=1, grid_hw=(1, 5))
    array = logits(of, obj=20)
    array[5, 0] = [0, 3, 1, 4, 2]
    found = candidates_from_heads([array], [of], INPUT_HW, Postprocess(max_candidates=3, max_detections=3))
    assert_allclose(found.scores, 1 / (1 + np.exp([-4.0, -3.0, -2.0])), rtol=1e-6)


def darknet_decode(array: np.ndarray, of: Head, input_hw, threshold: float) -> list[tuple]:
    """(x1, y1, x2, y2, score, class) of every pair above the threshold, one by one and in float64."""
    found = []
    values = array.astype(float).reshape(len(of.anchors_wh), 5 + of.num_classes, *of.grid_hw)
    for a, (anchor_w, anchor_h) in enumerate(of.anchors_wh):
        for row, column in np.ndindex(*of.grid_hw):
            x, y, w, h, *rest = values[a, :, row, column]
            obj, *classes = (1 / (1 + math.exp(-t)) for t in rest)
            cx, cy = (
                (of.scale_xy / (1 + math.exp(-t)) - (of.scale_xy - 1) / 2 + cell) * side / cells
                for t, cell, side, cells in zip((x, y), (column, row), input_hw[::-1], of.grid_hw[::-1], strict=True)
            )
            half_w, half_h = math.exp(w) * anchor_w / 2, math.exp(h) * anchor_h / 2
            for class_id, probability in enumerate(classes):
                assume(abs(obj - threshold) > 1e-4 and abs(obj * probability - threshold) > 1e-4)
                if obj > threshold and obj * probability > threshold:
                    found.append((cx - half_w, cy - half_h, cx + half_w, cy + half_h, obj * probability, class_id))
    return found


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), threshold=st.floats(0.01, 0.9), scale_xy=st.sampled_from([1.0, 1.05, 2.0]))
def test_decoding_is_darknets(seed: int, threshold: float, scale_xy: float):
    of = head(((10.0, 13.0), (33.0, 23.0)), num_classes=3, grid_hw=(2, 3), scale_xy=scale_xy)
    array = np.random.default_rng(seed).normal(0, 2, (16, 2, 3)).astype(np.float32)
    expected = np.array(darknet_decode(array, of, (64, 96), threshold)).reshape(-1, 6)
    found = decode_head(array, of, (64, 96), threshold)
    assert_array_equal(found.class_ids, expected[:, 5])
    assert_allclose(found.xyxy, expected[:, :4], rtol=1e-4, atol=1e-3)
    assert_allclose(found.scores, expected[:, 4], rtol=1e-5)


# --- suppression ---


def candidates(*rows: tuple[list[float], float, int]) -> Candidates:
    xyxy, scores, class_ids = zip(*rows, strict=True) if rows else ((), (), ())
    return Candidates(
        np.array(xyxy, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(class_ids, np.int32)
    )


def test_similar_boxes_of_a_class_give_way_to_the_best():
    found = suppress(
        candidates(
            ([0, 0, 10, 10], 0.9, 0),
            ([0, 0, 10, 9], 0.8, 1),  # another class stays
            ([0, 0, 10, 8], 0.7, 0),  # IoU .8 with the first: dropped
            ([0, 5, 10, 13], 0.6, 0),  # IoU 50 / 130 with the first; its better neighbour is gone: stays
            ([0, 0, 10, 10], 0.5, 0),  # the first again: dropped
        ),
        INPUT_HW,
        Postprocess(),
    )
    assert_allclose(found.scores, [0.9, 0.8, 0.6])


def test_box_as_similar_as_the_threshold_stays():
    pair = candidates(([0, 0, 8, 8], 0.9, 0), ([0, 0, 8, 4], 0.8, 0))  # IoU .5; exact, as a power of 2 is the unit
    assert len(suppress(pair, (64, 64), Postprocess(iou=0.5)).scores) == 2
    assert len(suppress(pair, (64, 64), Postprocess(iou=0.499)).scores) == 1


@pytest.mark.parametrize(
    "nms, expected",
    [
        (Nms(), 1 / 3),
        (Nms(NmsKind.GREEDY, beta=9.0), 1 / 3 - (25 / 325) ** 0.6),
        (Nms(NmsKind.DIOU, beta=2.0), 1 / 3 - (25 / 325) ** 2),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Nms) else "",
)
def test_similarity_of_two_shifted_boxes_by_hand(nms: Nms, expected: float):
    # IoU 50 / 150; centres 5 apart, enclosing box 15 x 10: d² / c² = 25 / 325.
    pair = np.array([[0, 0, 10, 10], [5, 0, 15, 10]], np.float32)
    matrix = similarity(pair[:, None], pair, nms)
    assert_allclose(matrix, [[1, expected], [expected, 1]], rtol=1e-5)


@pytest.mark.parametrize("nms", [*KINDS, Nms(NmsKind.DIOU, 0.0), Nms(NmsKind.DIOU, -1.0)], ids=str)
def test_infinite_and_empty_boxes_are_compared_without_a_warning(nms: Nms):
    wild = candidates(
        ([-np.inf, -np.inf, np.inf, np.inf], 0.9, 0),
        ([-np.inf, 0, np.inf, 1], 0.8, 0),
        ([5, 5, 5, 5], 0.7, 0),
        ([5, 5, 5, 5], 0.6, 0),
        ([3e38, -3e38, 3e38, 3e38], 0.5, 0),
    )
    assert_allclose(suppress(wild, INPUT_HW, Postprocess(nms=nms)).scores, [0.9, 0.8, 0.7, 0.6, 0.5])


@pytest.mark.parametrize("nms", KINDS, ids=str)
def test_no_boxes_stay_no_boxes(nms: Nms):
    found = suppress(candidates(), INPUT_HW, Postprocess(nms=nms))
    assert (found.xyxy.shape, found.scores.shape, found.class_ids.shape) == ((0, 4), (0,), (0,))


def test_max_detections_counts_what_suppression_leaves():
    rows = [([10.0 * (i // 2), 0, 10.0 * (i // 2) + 5, 5], 0.9 - 0.1 * i, 0) for i in range(6)]  # each box twice
    assert_allclose(suppress(candidates(*rows), INPUT_HW, Postprocess(max_detections=2)).scores, [0.9, 0.7])


def darknet_nms(rows: list[tuple], input_hw, threshold: float, nms: Nms) -> list[int]:
    """Indices that stay: Darknet's do_nms_sort and diounms_sort (src/box.c), one box after the other, in float64."""

    def similarity(a, b) -> float:
        (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = (
            [side / of for side, of in zip(box, (*input_hw[::-1], *input_hw[::-1]), strict=True)] for box in (a, b)
        )
        inside = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
        union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inside
        iou = inside / union if union else 0.0
        c = (max(ax2, bx2) - min(ax1, bx1)) ** 2 + (max(ay2, by2) - min(ay1, by1)) ** 2
        if nms.kind is NmsKind.PLAIN or c == 0:
            return iou
        d = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
        return iou - (d / c) ** (0.6 if nms.kind is NmsKind.GREEDY else nms.beta)

    dead: set[int] = set()
    for i, (box, _, class_id) in enumerate(rows):
        for j in range(i + 1, len(rows)):
            if i in dead or rows[j][2] != class_id:
                continue
            value = similarity(box, rows[j][0])
            assume(abs(value - threshold) > 1e-4)
            if value > threshold:
                dead.add(j)
    return [i for i in range(len(rows)) if i not in dead]


boxes = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(boxes, st.integers(1, 8).map(lambda n: n / 8), st.integers(0, 1)), max_size=20),
    threshold=st.sampled_from([0.0, 0.05, 0.2, 0.4501, 0.7, 1.0]),
    nms=st.sampled_from(KINDS),
)
def test_suppression_is_darknets(rows: list[tuple], threshold: float, nms: Nms):
    input_hw = (64, 128)  # distances depend on its shape
    rows.sort(key=lambda row: -row[1])  # stable
    threshold = min(1.0, threshold + 3e-4)  # off the fractions that boxes of whole pixels have
    kept = darknet_nms(rows, input_hw, threshold, nms)
    found = suppress(candidates(*rows), input_hw, Postprocess(iou=threshold, nms=nms))
    expected = candidates(*(rows[i] for i in kept))
    assert_array_equal(found.xyxy, expected.xyxy)
    assert_array_equal(found.scores, expected.scores)
    assert_array_equal(found.class_ids, expected.class_ids)


# --- whole batches ---

HEAD = head(anchors_wh=((26.0, 26.0),))
META = ModelMeta("m", INPUT_HW, (HEAD,), ("cat", "dog"))
PLACEMENTS = (
    Placement.of((720, 1280), INPUT_HW, Resize.LETTERBOX),  # scale .325, 91 px above
    Placement.of((33, 65), INPUT_HW, Resize.LETTERBOX),  # scale 6.4, 102 px above
)


def test_each_picture_of_a_batch_gets_its_own_boxes():
    outputs = {
        "head0": np.stack(
            [
                one_cell(HEAD, 6, 3, obj=20, class1=20),
                one_cell(HEAD, 6, 6, obj=20, class0=20),
                one_cell(HEAD, 0, 0, obj=20, class0=20),  # padding of the batch
            ]
        )
    }
    first, second = detections_from_outputs(outputs, META, META.postprocess, PLACEMENTS)
    # Input px: centre (3.5 * 32, 6.5 * 32) = (112, 208), 26 px a side.
    assert_allclose(first.xyxy, [[99 / 0.325, 104 / 0.325, 125 / 0.325, 130 / 0.325]], rtol=1e-6)
    assert [row.class_name for row in first] == ["dog"]
    (scale_x, scale_y) = (416 / 65, 211 / 33)  # 33 * 416 // 65 = 211 rows, so 102 above
    assert_allclose(
        second.xyxy, [[195 / scale_x, (195 - 102) / scale_y, 221 / scale_x, (221 - 102) / scale_y]], rtol=1e-6
    )
    assert [row.class_name for row in second] == ["cat"]


def test_overlapping_boxes_of_a_head_are_suppressed_unless_told_otherwise():
    array = one_cell(HEAD, 6, 3, obj=20, class1=20)
    array[:, 6, 4] = logits(HEAD, x=-2, obj=10, class1=1)[:, 6, 4]  # .12 into the next cell: 19.8 px away
    outputs = {"head0": array[None]}
    counts = [len(detections_from_outputs(outputs, META, Postprocess(iou=t), PLACEMENTS[:1])[0]) for t in (0.1, 0.45)]
    assert counts == [1, 2]  # IoU 6.2 / 45.8 = .135


def test_detections_of_a_graph_are_cut_thresholded_and_moved():
    meta = replace(META, output_stage=OutputStage.DETECTIONS)
    boxes = np.zeros((2, 4, 4), np.float32)
    boxes[0, :3] = [[0, 91, 416, 325], [0, 91, 208, 208], [0, 91, 104, 104]]
    outputs = {
        "num_detections": np.array([3, 0], np.int32),
        "boxes": boxes,
        "scores": np.array([[0.9, 0.8, 0.3, 0.7], [0.9, 0, 0, 0]], np.float32),  # the rest is not to be read
        "class_ids": np.array([[1, 0, 1, 1], [1, 0, 0, 0]], np.int32),
    }
    first, second = detections_from_outputs(outputs, meta, Postprocess(), PLACEMENTS)
    assert_allclose(first.xyxy, [[0, 0, 1280, 720], [0, 0, 640, 360], [0, 0, 320, 40]], rtol=1e-6)
    assert [row.class_name for row in first] == ["dog", "cat", "dog"]
    assert len(second) == 0
    (narrower, _) = detections_from_outputs(outputs, meta, Postprocess(conf=0.3), PLACEMENTS)
    assert_allclose(narrower.scores, [0.9, 0.8])
    (fewer, _) = detections_from_outputs(outputs, meta, Postprocess(max_detections=1), PLACEMENTS)
    assert_allclose(fewer.scores, [0.9])


def test_suppression_in_blocks_finds_what_all_pairs_at_once_find(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 80, (400, 2)).astype(np.float32)
    xyxy = np.concatenate([corners, corners + rng.uniform(5, 40, (400, 2)).astype(np.float32)], axis=1)
    scores = np.sort(rng.uniform(0, 1, 400).astype(np.float32))[::-1]
    candidates = Candidates(xyxy, scores, rng.integers(0, 3, 400).astype(np.int32))
    for most in (7, 300):
        found = []
        for block in (1, 7, 64, 1000):
            monkeypatch.setattr(postprocess_module, "_BLOCK", block)
            found.append(suppress(candidates, (128, 128), Postprocess(max_detections=most)).scores.tolist())
        assert found[0] and found == [found[-1]] * 4


@pytest.mark.parametrize(
    "change", [{"scores": [2.5, 0.5]}, {"scores": [float("nan"), 0.5]}, {"scores": [0.1, 0.5]}, {"num_detections": 3},
               {"num_detections": -1}, {"class_ids": [0, 9]}, {"boxes": [[float("nan")] * 4] * 2}]
)  # fmt: skip
def test_what_are_no_detections_are_refused(change: dict):
    meta = FakeBackend.meta
    good = {"num_detections": 2, "boxes": np.ones((2, 4)), "scores": [0.9, 0.5], "class_ids": [0, 0]}
    arrays = {name: np.asarray(value) for name, value in good.items()}
    assert len(checked_detections(arrays, meta)[1]) == 2
    with pytest.raises(BackendError, match="what it gave are no detections: "):
        checked_detections({**arrays, **{name: np.asarray(value) for name, value in change.items()}}, meta)
