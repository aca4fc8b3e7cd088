"""The kernels on a GPU against the host's own code."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from acceptance.cases import SIMULATED
from acceptance.on_device import Detection, OnDevice
from tests.runtime.test_kernels import (
    KINDS,
    assert_same_levels,
    head,
    head_meta,
    host_detections,
    input_meta,
    random_heads,
)
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import InputStage, ModelMeta
from yolov3_trt.postprocess import Candidates
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.runtime.kernels.letterbox import Frames, letterbox
from yolov3_trt.spec import Head, Nms

pytestmark = pytest.mark.gpu

# A GPU's exponential is not the host's to the last bit: scores so near to each other may swap places.
SAME_SCORE = 2e-6
# The simulation is slow, and tests/runtime/test_kernels.py has it do all of this at length.
NUM_SIZES = 16 if SIMULATED else 210
LARGEST_SIDES = (1, 7, 60, 90) if SIMULATED else (1, 7, 250, 1400)
THRESHOLDS = (0.8,) if SIMULATED else (0.3, 0.5, 0.8)
CAMERA_FRAMES = ((108, 192),) if SIMULATED else ((720, 1280), (1080, 1920), (1300, 700))


def letterboxed(on: OnDevice, pictures: np.ndarray, meta: ModelMeta, dtype: str, padding: int, start: int) -> Any:
    """What the kernel and the host make of pictures of one size; theirs lie at an odd byte and have padded lines."""
    stage = InputStage.PIXELS if dtype == "uint8" else InputStage.TENSOR
    expected, placements = prepare_batch(list(pictures), replace(meta, input_stage=stage))
    count, height, width, _ = pictures.shape
    row_stride = 3 * width + padding
    memory = np.zeros(start + count * height * row_stride, np.uint8)
    lines = memory[start:].reshape(count, height, row_stride)
    lines[:, :, : 3 * width] = pictures.reshape(count, height, 3 * width)
    source, batch = on.put(memory), on.put(np.full(expected.shape, 99).astype(dtype))
    frames = Frames(source.address + start, row_stride, count, height * row_stride)
    on.run(letterbox(placements[0], meta.preprocess, frames, batch.address, dtype))
    got = on.get(batch)
    on.device.free(source, batch)
    return got, expected.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("resize", Resize, ids=lambda resize: resize.value)
def test_frames_of_any_size_enter_as_the_host_prepares_them(resize: Resize, dtype: str, on_device: OnDevice):
    rng = np.random.default_rng(11)
    for index in range(NUM_SIZES):
        input_hw = [(32, 64), (33, 51), (24, 24), (9, 130)][index % 4]
        image_hw = tuple(int(side) for side in rng.integers(1, LARGEST_SIDES[index // 4 % 4], 2, endpoint=True))
        if index % 20 == 0:
            image_hw = (2 * input_hw[0], 2 * input_hw[1])  # for which OpenCV takes another way
        if index % 20 == 1:
            image_hw = input_hw
        pictures = rng.integers(0, 256, (1 + index % 3, *image_hw, 3), np.uint8)
        meta = input_meta(input_hw, resize, pad_value=int(rng.integers(256)))
        got, expected = letterboxed(on_device, pictures, meta, dtype, padding=index % 5, start=index % 7)
        assert_same_levels(got, expected, (image_hw, input_hw))


@pytest.mark.parametrize("image_hw", CAMERA_FRAMES, ids=str)
def test_camera_frames_enter_as_the_host_prepares_them(image_hw: tuple[int, int], on_device: OnDevice):
    pictures = np.random.default_rng(0).integers(0, 256, (1, *image_hw, 3), np.uint8)
    got, expected = letterboxed(on_device, pictures, input_meta((416, 416)), "float32", padding=64, start=0)
    assert_same_levels(got, expected, image_hw)


@contextmanager
def detection(on: OnDevice, meta: ModelMeta, rows: int = 1, capacity: int = 16384) -> Iterator[Detection]:
    opened = Detection(on, meta, rows, capacity)
    yield opened
    opened.close()


def assert_as_on_the_host(found: Mapping[str, np.ndarray], heads: Sequence[np.ndarray], meta: ModelMeta) -> None:
    for row in range(len(heads[0])):
        expected = host_detections(heads, meta, row)
        count = len(expected.scores)
        assert found["num_detections"][row] == count
        got = Candidates(*(found[name][row, :count] for name in ("boxes", "scores", "class_ids")))
        order = order_within_ties(expected)
        expected, got = expected[order], got[order_within_ties(got)]
        np.testing.assert_array_equal(got.class_ids, expected.class_ids)
        np.testing.assert_allclose(got.scores, expected.scores, rtol=0, atol=1e-5)
        np.testing.assert_allclose(got.xyxy, expected.xyxy, rtol=1e-5, atol=1e-3)
        assert not found["scores"][row, count:].any() and not found["boxes"][row, count:].any()


def order_within_ties(found: Candidates) -> np.ndarray:
    """By score, and by class and box where scores are as near as SAME_SCORE."""
    group = np.cumsum(np.diff(found.scores, prepend=found.scores[:1]) < -SAME_SCORE)
    return np.lexsort((found.xyxy[:, 0].round(1), found.class_ids, group))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("nms", KINDS, ids=str)
def test_random_heads_give_the_hosts_detections(nms: Nms, dtype: str, on_device: OnDevice):
    # Grids of less and more than a block's 512 cells, of odd sizes and of multiples of four.
    heads = (head(2, 3, (3, 5)), head(3, 3, (24, 25), 1.05, "head1"), head(1, 3, (6, 10), 2.0, "head2"))
    for seed, conf in enumerate(THRESHOLDS):
        meta = head_meta(*heads, input_hw=(192, 320), conf=conf, iou=0.4, nms=nms)
        arrays = [array.astype(dtype) for array in random_heads(meta, 2, seed)]
        with detection(on_device, meta, rows=2) as detect:
            found = detect(arrays)
            assert (found["num_candidates"] > 20).all()
            assert_as_on_the_host(found, arrays, meta)


def test_heads_of_the_size_of_yolov3_give_the_hosts_detections(on_device: OnDevice):
    anchors = ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0))
    heads = [Head(f"head{i}", i, anchors, 80, (side, side)) for i, side in enumerate((13, 26, 52))]
    meta = head_meta(*heads, input_hw=(416, 416))
    arrays = random_heads(meta, 2, seed=5, spread=1.5)
    for array in arrays:
        array.reshape(2, 3, 85, -1)[:, :, 4] -= 5  # few boxes are objects
        array.reshape(2, 3, 85, -1)[:, :, 5:] -= 3
    with detection(on_device, meta, rows=2) as detect:
        found = detect(arrays)
        assert (found["num_candidates"] > 10).all()
        assert_as_on_the_host(found, arrays, meta)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 0.0, -200.0, 1e30])
def test_heads_of_one_value_are_read_as_on_the_host(value: float, on_device: OnDevice):
    meta = head_meta(head(), conf=0.25)
    heads = [np.full((1, 16, 3, 5), value, np.float32)]
    with detection(on_device, meta) as detect:
        assert_as_on_the_host(detect(heads), heads, meta)


def test_wild_logits_are_read_as_on_the_host(on_device: OnDevice):
    # Few values, so that there are many ties, infinite boxes and boxes that are not numbers.
    values = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 90, -90, 3, 1, 0, -1], np.float32)
    meta = head_meta(head(3, 2, (8, 8)), head(2, 2, (4, 4), name="head1"), conf=0.1)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        heads = [rng.choice(values, (1, of.channels, *of.grid_hw)) for of in meta.heads]
        with detection(on_device, meta) as detect:
            assert_as_on_the_host(detect(heads), heads, meta)


def test_equal_scores_keep_the_order_of_heads_anchors_cells_and_classes(on_device: OnDevice):
    meta = head_meta(head(2, 2, (2, 3)), head(1, 2, (1, 3), name="head1"), conf=0.2, iou=1.0)
    heads = [np.zeros((1, of.channels, *of.grid_hw), np.float32) for of in meta.heads]
    heads[1][0, 6, 0, 1] = 3  # head1's second cell, class 1: the best
    with detection(on_device, meta) as detect:
        found = detect(heads)
    expected = host_detections(heads, meta, 0)
    assert found["num_detections"] == len(expected.scores) == 2 * (2 * 6 + 3)
    np.testing.assert_array_equal(found["class_ids"][0, :30], expected.class_ids)
    np.testing.assert_allclose(found["boxes"][0, :30], expected.xyxy, rtol=1e-5)


@pytest.mark.parametrize("num_candidates", [512, 513, 4096])
def test_all_candidates_are_cut_to_the_best(num_candidates: int, on_device: OnDevice):
    of = head(1, 1, (num_candidates // 8 + 1, 8))
    meta = head_meta(of, conf=0.1, iou=0.99, max_detections=512)
    array = np.full((1, 6, *of.grid_hw), -20, np.float32)
    fields = array.reshape(6, -1)[:, :num_candidates]
    fields[:4] = 0
    fields[4:] = np.random.default_rng(0).integers(0, 40, (2, num_candidates)) / 8  # many ties
    with detection(on_device, meta) as detect:
        found = detect([array])
    expected = host_detections([array], meta, 0)
    assert (found["num_candidates"][0], found["num_detections"][0]) == (num_candidates, 512)
    np.testing.assert_allclose(found["scores"][0], expected.scores, rtol=0, atol=1e-5)


def test_more_candidates_than_there_is_room_for_are_reported_and_the_next_batch_works(on_device: OnDevice):
    meta = head_meta(head(1, 1, (8, 8)), conf=0.1)
    array = np.full((3, 6, 8, 8), -20, np.float32)
    array.reshape(3, 6, 64)[0, 4:, :61] = 1
    array.reshape(3, 6, 64)[1, 4:, :60] = 1
    with detection(on_device, meta, rows=3, capacity=60) as detect:
        found = detect([array])
        assert found["num_candidates"].tolist() == [61, 60, 0]
        assert found["num_detections"][0] == -1 and not found["scores"][0].any()
        array[0] = array[1]
        assert_as_on_the_host(detect([array]), [array], meta)
