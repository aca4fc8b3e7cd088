"""The CUDA kernels against the host's own code, on a simulated device; and whether nvcc takes them."""

import math
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.conftest import EACH_COCO_MODEL
from tests.sim import SimulatedDevice, SimulationError
from tests.sim.device import COMPILE, HERE, has_compiler
from yolov3_trt.backends import open_backend
from yolov3_trt.data.images import load_image
from yolov3_trt.errors import EngineError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD
from yolov3_trt.geometry import Placement, Resize, iou
from yolov3_trt.meta import DETECTION_OUTPUTS, InputStage, ModelMeta, Postprocess, Preprocess
from yolov3_trt.models import Model
from yolov3_trt.postprocess import Candidates, candidates_from_heads, suppress
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.runtime.kernels import detect
from yolov3_trt.runtime.kernels.detect import DECODE, HEAD, NMS, CandidateBuffers, candidate_shapes, detection_shapes
from yolov3_trt.runtime.kernels.letterbox import LETTERBOX, Frames, letterbox, lines_read, staged_hw
from yolov3_trt.runtime.kernels.source import COMPILE_OPTIONS, FOLDER, KERNELS, source, source_sha256
from yolov3_trt.spec import Head, Nms, NmsKind

simulated = pytest.mark.skipif(not has_compiler(), reason="g++ is not installed: nothing compiles the simulation")
KINDS = (Nms(), Nms(NmsKind.GREEDY), Nms(NmsKind.DIOU, 0.9))


@pytest.fixture(params=[0, 1], ids=["in order", "shuffled"])
def device(request: pytest.FixtureRequest) -> Iterator[SimulatedDevice]:
    if not has_compiler():
        pytest.skip("g++ is not installed: nothing compiles the simulation")
    with SimulatedDevice(request.param) as opened:
        yield opened


# --- the simulation finds what a GPU might hide ---


def faulty(
    kernel: str, values: Sequence[float], count: int, threads: int, seed: int = 0, blocks: int = 1
) -> np.ndarray:
    names = tuple(re.findall(r"__global__ void (\w+)", (HERE / "faults.cu").read_text()))
    with SimulatedDevice(seed, HERE / "faults.cu", names) as device:
        array = device.copy(np.array(values, np.float32))
        layout = np.dtype([("values", "u8"), ("count", "i4")], align=True)
        args = np.array((array.ctypes.data, count), layout).tobytes()
        device.launch(kernel, (blocks, 1, 1), (threads, 1, 1), 0, args)
        return array.copy()


@simulated
@pytest.mark.parametrize(
    "kernel, message",
    [
        ("barrier_in_a_branch", "some threads of a block ended before a barrier at which others wait"),
        ("write_beyond_the_end", "it read or wrote where it must not, or at a misaligned address"),
        ("misaligned_vector", "it read or wrote where it must not, or at a misaligned address"),
    ],
)
def test_the_simulation_ends_a_launch_that_does_what_it_must_not(kernel: str, message: str):
    with pytest.raises(SimulationError) as caught:
        faulty(kernel, [0] * 16, count=3, threads=32)
    assert str(caught.value) == f"{kernel} with grid (1, 1, 1), block (32, 1, 1): {message}"
    assert_array_equal(faulty("sum", [0] * 32, 0, threads=32), 32)  # and goes on


@simulated
def test_the_order_of_threads_shows_where_a_barrier_is_missing():
    results = [faulty("missing_barrier", [0] * 32, 0, threads=32, seed=seed) for seed in (0, 1, 2)]
    assert not np.array_equal(results[0], results[1]) and not np.array_equal(results[1], results[2])


@simulated
@pytest.mark.parametrize(
    "kernel, block, shared_bytes, args, message",
    [
        ("nms_f64", (1, 1, 1), 0, b"", "there is no such kernel"),
        ("nms", (1, 1, 1), 0, b"1234", "its struct has another size"),
        ("nms", (1025, 1, 1), 0, bytes(NMS.itemsize), "the block has more than 1024 threads"),
        ("nms", (512, 1, 1), 4, bytes(NMS.itemsize), "expected 0: it is all static"),
    ],
)
def test_the_simulation_refuses_launches_that_do_not_fit(kernel, block, shared_bytes, args, message: str):
    with SimulatedDevice() as device, pytest.raises(SimulationError, match=message):
        device.launch(kernel, (1, 1, 1), block, shared_bytes, args)


@simulated
def test_the_simulations_float16_is_numpys():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves = halves[np.isfinite(halves)]
    between = [
        halves,
        np.nextafter(halves, np.float32(np.inf)),
        (halves[:-1] + halves[1:]) / 2,
        [65519.9, 65520, 1e9, 0],
    ]
    values = np.resize(np.concatenate(between), 256 * 1024).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    assert_array_equal(faulty("through_half", values, 0, threads=1024, blocks=256), expected)


# --- letterbox ---

DTYPES = ("float32", "float16", "uint8")
# OpenCV for ARM may bring a resize of its own, which rounds differently now and then.
LEVELS = 0 if platform.machine() == "x86_64" else 1


def frames_on(device: SimulatedDevice, pictures: Sequence[np.ndarray], padding: int, start: int) -> Frames:
    """Pictures of one size, one after another, from an odd byte on and with padded lines."""
    height, width, _ = pictures[0].shape
    row_stride = 3 * width + padding
    frame_stride = height * row_stride + padding
    memory = device.empty((start + len(pictures) * frame_stride - 2 * padding,), np.uint8)
    for index, picture in enumerate(pictures):
        lines = np.ndarray(picture.shape, np.uint8, memory, start + index * frame_stride, (row_stride, 3, 1))
        lines[:] = picture
    return Frames(memory.ctypes.data + start, row_stride, len(pictures), frame_stride)


def letterboxed(
    device: SimulatedDevice,
    pictures: Sequence[np.ndarray],
    meta: ModelMeta,
    dtype: str,
    padding: int = 0,
    start: int = 0,
    *,
    is_packed: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel and the host make of pictures of one size."""
    stage = InputStage.PIXELS if dtype == "uint8" else InputStage.TENSOR
    expected, placements = prepare_batch(pictures, replace(meta, input_stage=stage))
    batch = device.empty(expected.shape, dtype)
    lines = lines_read(placements[0]) if is_packed else None
    given = pictures if lines is None else [picture[lines] for picture in pictures]
    frames = replace(frames_on(device, given, padding, start), is_packed=lines is not None)
    device.run(letterbox(placements[0], meta.preprocess, frames, batch.ctypes.data, dtype, meta.channels))
    return batch, expected.astype(dtype)


def assert_same_levels(got: np.ndarray, expected: np.ndarray, what: object):
    if LEVELS == 0:
        assert_array_equal(got, expected, err_msg=str(what))
    else:
        level = 1 if got.dtype == np.uint8 else 1.01 / 255
        assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=0, atol=level, err_msg=str(what))


def input_meta(input_hw: tuple[int, int], resize: Resize = Resize.LETTERBOX, pad_value: int = 128) -> ModelMeta:
    heads = (Head("head0", 0, ((1.0, 1.0),), 1, (1, 1)),)
    return ModelMeta("m", input_hw, heads, ("thing",), preprocess=Preprocess(resize, pad_value))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("resize", Resize)
def test_frames_of_any_size_enter_as_the_host_prepares_them(resize: Resize, dtype: str, device: SimulatedDevice):
    rng = np.random.default_rng(7)
    for case in range(20 if device.seed else 84):
        input_hw = [(32, 64), (33, 51), (24, 24), (9, 130)][case % 4]
        image_hw = tuple(int(side) for side in rng.integers(1, [2, 7, 60, 250][case // 4 % 4], 2, endpoint=True))
        if case % 20 == 0:
            image_hw = (2 * input_hw[0], 2 * input_hw[1])  # for which OpenCV takes another way
        if case % 20 == 1:
            image_hw = input_hw
        pictures = rng.integers(0, 256, (1 + case % 3, *image_hw, 3), np.uint8)
        meta = input_meta(input_hw, resize, pad_value=int(rng.integers(256)))
        got, expected = letterboxed(
            device, pictures, meta, dtype, padding=case % 5, start=case % 7, is_packed=case % 3 > 0
        )
        assert_same_levels(got, expected, (image_hw, input_hw))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_of_one_channel_gets_the_grey_that_the_host_makes(dtype: str, device: SimulatedDevice):
    pictures = np.random.default_rng(5).integers(0, 256, (2, 61, 47, 3), np.uint8)
    got, expected = letterboxed(device, pictures, replace(input_meta((33, 51)), channels=1), dtype, padding=3, start=1)
    assert got.shape == (2, 1, 33, 51)
    assert_same_levels(got, expected, "grey")


@pytest.mark.parametrize("image_hw", [(720, 1280), (1080, 1920), (480, 640), (1300, 700)])
def test_camera_frames_enter_as_the_host_prepares_them(image_hw: tuple[int, int], device: SimulatedDevice):
    pictures = np.random.default_rng(0).integers(0, 256, (1, *image_hw, 3), np.uint8)
    got, expected = letterboxed(device, pictures, input_meta((416, 416)), "float32", padding=64)
    assert_same_levels(got, expected, image_hw)


def test_only_the_lines_that_are_read_go_to_the_gpu():
    def nbytes(image_hw: tuple[int, int], side: int) -> int:
        return 3 * math.prod(staged_hw(Placement.of(image_hw, (side, side), Resize.LETTERBOX)))

    # 1080p: 6.2 MB a frame, of which 2 x 234 lines are read at 416 and 2 x 342 at 608.
    assert [nbytes((1080, 1920), side) for side in (416, 608)] == [468 * 5760, 684 * 5760]
    assert [nbytes((480, 640), side) for side in (416, 608)] == [480 * 1920] * 2
    lines = lines_read(Placement.of((9, 9), (3, 3), Resize.LETTERBOX))
    assert lines is not None and lines.tolist() == [1, 2, 4, 5, 7, 8]


def test_one_blue_pixel_fills_the_blue_plane_by_hand(device: SimulatedDevice):
    got, _ = letterboxed(device, [np.array([[[255, 0, 51]]], np.uint8)], input_meta((4, 4)), "float32")
    assert_allclose(got, np.broadcast_to(np.array([0.2, 0, 1])[:, None, None], (1, 3, 4, 4)), rtol=1e-6)


def test_rows_of_the_batch_that_are_not_written_stay_as_they_are(device: SimulatedDevice):
    meta = input_meta((32, 32))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 20, 50, 3), np.uint8)
    expected, placements = prepare_batch(pictures, meta)
    batch = device.copy(np.full((4, 3, 32, 32), 99, np.float32))
    device.run(
        letterbox(placements[0], meta.preprocess, frames_on(device, pictures, 0, 0), batch[1].ctypes.data, np.float32)
    )
    assert (batch[[0, 3]] == 99).all()
    assert_same_levels(batch[1:3], expected, "rows 1 and 2")


@pytest.mark.parametrize(
    "row_stride, dtype, message",
    [
        (150, np.float64, "letterbox writes float32, float16, uint8; got float64"),
        (149, np.float32, "row_stride=149; a line of 50 BGR pixels has 150 bytes"),
    ],
)
def test_frames_that_the_letterbox_kernels_do_not_take_are_refused(row_stride: int, dtype, message: str):
    placement = Placement.of((20, 50), (32, 32), Resize.LETTERBOX)
    with pytest.raises(EngineError) as caught:
        letterbox(placement, Preprocess(), Frames(0, row_stride), 0, dtype)
    assert str(caught.value) == message


# --- from heads to detections ---


def head(anchors: int = 2, num_classes: int = 3, grid_hw=(3, 5), scale_xy: float = 1.0, name: str = "head0") -> Head:
    return Head(name, 0, tuple((8.0 + 9 * i, 30.0 - 7 * i) for i in range(anchors)), num_classes, grid_hw, scale_xy)


def head_meta(*heads: Head, input_hw=(96, 160), **thresholds: Any) -> ModelMeta:
    classes = tuple(f"class{i}" for i in range(heads[0].num_classes))
    return ModelMeta("m", input_hw, heads, classes, postprocess=Postprocess(**thresholds))


def random_heads(meta: ModelMeta, rows: int, seed: int, spread: float = 2.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, spread, (rows, of.channels, *of.grid_hw)).astype(np.float32) for of in meta.heads]


Arrays = dict[str, np.ndarray]


class Runner:
    """The two kernels with their buffers, which keep what a run leaves in them."""

    def __init__(self, device: SimulatedDevice, meta: ModelMeta, rows: int, capacity: int = 4096) -> None:
        self.device, self.meta, self.rows = device, meta, rows
        self.candidates = {name: device.empty(*shape) for name, shape in candidate_shapes(rows, capacity).items()}
        self.candidates["counts"][:] = 0
        shapes = detection_shapes(rows, meta.postprocess.max_detections)
        self.outputs = {name: device.empty(*shape) for name, shape in shapes.items()}
        self.buffers = CandidateBuffers(
            **{name: a.ctypes.data for name, a in self.candidates.items()}, capacity=capacity
        )

    def decode(self, heads: Sequence[np.ndarray]):
        with SimulatedDevice(self.device.seed) as device:  # memory for the heads, which ends with them
            arrays = [device.copy(array) for array in heads]
            addresses, postprocess = [array.ctypes.data for array in arrays], self.meta.postprocess
            device.run(detect.decode(self.meta, postprocess, self.rows, addresses, arrays[0].dtype, self.buffers))

    def append(self, xyxy: np.ndarray, scores: np.ndarray, host_index: np.ndarray):
        """What `decode` does, for the first image."""
        count = len(scores)
        self.candidates["counts"][0] = count
        self.candidates["boxes"][0, :count] = xyxy
        keys = (~scores.astype(np.float32).view(np.uint32)).astype(np.uint64) << np.uint64(32)
        self.candidates["keys"][0, :count] = keys | host_index.astype(np.uint64)

    def nms(self) -> Arrays:
        postprocess = self.meta.postprocess
        addresses = {name: array.ctypes.data for name, array in self.outputs.items()}
        for array in self.outputs.values():
            array[...] = 99
        self.device.run(detect.nms(self.meta, postprocess, self.rows, self.buffers, addresses))
        assert not self.candidates["counts"].any(), "ready for the next frame"
        return self.outputs

    def __call__(self, heads: Sequence[np.ndarray]) -> Arrays:
        self.decode(heads)
        return self.nms()


def host_detections(heads: Sequence[np.ndarray], meta: ModelMeta, row: int) -> Candidates:
    found = candidates_from_heads([array[row] for array in heads], meta.heads, meta.input_hw, meta.postprocess)
    return suppress(found, meta.input_hw, meta.postprocess)


def assert_detections(outputs: Arrays, row: int, expected: Candidates, *, what: object = "", exact: bool = False):
    count = len(expected.scores)
    assert outputs["num_detections"][row] == count, what
    assert_array_equal(outputs["class_ids"][row, :count], expected.class_ids, err_msg=str(what))
    close = (lambda a, b, **_: assert_array_equal(a, b, err_msg=str(what))) if exact else assert_allclose
    close(outputs["scores"][row, :count], expected.scores, rtol=0, atol=1e-6, err_msg=str(what))
    close(outputs["boxes"][row, :count], expected.xyxy, rtol=1e-5, atol=1e-3, err_msg=str(what))
    for name in ("scores", "class_ids", "boxes"):
        assert not outputs[name][row, count:].any(), f"{what}: {name} beyond the detections are zero"


def assert_as_on_the_host(run: Runner, heads: Sequence[np.ndarray], what: object = "") -> Arrays:
    outputs = run(heads)
    for row in range(run.rows):
        assert_detections(outputs, row, host_detections(heads, run.meta, row), what=(what, row))
    return outputs


def test_outputs_are_those_of_a_graph_and_the_number_of_candidates():
    shapes = detection_shapes(rows=2, max_detections=7)
    assert tuple(shapes)[:4] == DETECTION_OUTPUTS and tuple(shapes)[4:] == ("num_candidates",)
    assert [shape for shape, _ in shapes.values()] == [(2,), (2, 7, 4), (2, 7), (2, 7), (2,)]


def test_one_box_by_hand(device: SimulatedDevice):
    of = Head("head0", 0, ((10.0, 20.0), (30.0, 40.0)), 2, (2, 3))
    meta = head_meta(of, input_hw=(64, 96))
    array = np.full((1, 14, 2, 3), -20, np.float32)
    # sigmoid(ln 3) = .75, exp(ln 2) = 2; score = sigmoid(ln 4) * sigmoid(ln 9) = .8 * .9
    array[0, 7:, 1, 2] = [np.log(3), -np.log(3), np.log(2), 0, np.log(4), -20, np.log(9)]
    outputs = Runner(device, meta, 1)([array])
    # Centre ((2 + .75) * 32, (1 + .25) * 32) = (88, 40), size (60, 40) by the second anchor.
    assert (outputs["num_detections"], outputs["num_candidates"]) == (1, 1)
    assert_allclose(outputs["boxes"][0, 0], [58, 20, 118, 60], rtol=1e-6)
    assert_allclose(outputs["scores"][0, 0], 0.72, rtol=1e-6)
    assert outputs["class_ids"][0, 0] == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("nms", KINDS, ids=str)
def test_random_heads_give_the_hosts_detections(nms: Nms, dtype: str, device: SimulatedDevice):
    # Grids of less and more than a block's 512 cells, of odd sizes and of multiples of four.
    heads = (head(2, 3, (3, 5)), head(3, 3, (24, 25), 1.05, "head1"), head(1, 3, (6, 10), 2.0, "head2"))
    for seed, conf in enumerate((0.5,) if device.seed else (0.3, 0.5, 0.8)):
        meta = head_meta(*heads, input_hw=(192, 320), conf=conf, iou=0.4, nms=nms)
        arrays = [array.astype(dtype) for array in random_heads(meta, 2, seed)]
        outputs = assert_as_on_the_host(Runner(device, meta, 2), arrays, conf)
        assert (outputs["num_candidates"] > 50).all()


def test_every_image_of_a_batch_gets_its_own_and_the_next_batch_starts_afresh(device: SimulatedDevice):
    meta = head_meta(head(), head(1, grid_hw=(7, 11), name="head1"), conf=0.4)
    run = Runner(device, meta, 4)
    for seed in (0, 1):
        arrays = random_heads(meta, 4, seed)
        for array in arrays:
            array[2] = -20  # nothing is found in this one
        outputs = assert_as_on_the_host(run, arrays, seed)
        assert (outputs["num_detections"] > 0).tolist() == [True, True, False, True]


@pytest.mark.parametrize("conf", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 0.0, -200.0, 1e30])
def test_heads_of_one_value_are_read_as_on_the_host(value: float, conf: float, device: SimulatedDevice):
    meta = head_meta(head(), conf=conf)
    assert_as_on_the_host(Runner(device, meta, 1), [np.full((1, 16, 3, 5), value, np.float32)])


@pytest.mark.parametrize("nms", [*KINDS, Nms(NmsKind.DIOU, 0.0), Nms(NmsKind.DIOU, -1.0)], ids=str)
def test_wild_logits_are_read_as_on_the_host(nms: Nms, device: SimulatedDevice):
    # Few values, so that there are many ties, infinite boxes and boxes that are not numbers.
    values = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 90, -90, 3, 1, 0, -1], np.float32)
    meta = head_meta(head(3, 2, (8, 8)), head(2, 2, (4, 4), name="head1"), nms=nms, conf=0.1)
    for seed in range(2 if device.seed else 5):
        rng = np.random.default_rng(seed)
        arrays = [rng.choice(values, (1, of.channels, *of.grid_hw)) for of in meta.heads]
        outputs = assert_as_on_the_host(Runner(device, meta, 1), arrays, seed)
        assert outputs["num_candidates"] > 50


@pytest.mark.parametrize(
    "obj, class0, conf", [(0, 0, 0.25), (0, 20, 0.5), (1, 1, 0.5344), (-200, -200, 0.0), (3, -3, 0.045)]
)
def test_scores_at_the_threshold_fall_on_the_hosts_side(
    obj: float, class0: float, conf: float, device: SimulatedDevice
):
    of = head(1, 1, (1, 4))
    array = np.zeros((1, 6, 1, 4), np.float32)
    array[0, 4, 0], array[0, 5, 0] = obj, class0
    array[0, 4, 0, 1] = np.nextafter(np.float32(obj), np.float32(9))
    array[0, 5, 0, 2] = np.nextafter(np.float32(class0), np.float32(9))
    assert_as_on_the_host(Runner(device, head_meta(of, conf=conf), 1), [array])


def test_an_objectness_at_the_threshold_does_not_exceed_it(device: SimulatedDevice):
    of = head(1, 1, (1, 2))
    for conf in np.arange(0.05, 1, 0.05, np.float32):
        array = np.full((1, 6, 1, 2), np.inf, np.float32)  # the class is sure
        array[0, :4] = 0
        array[0, 4, 0, 0] = np.log(conf) - np.log1p(-conf)
        array[0, 4, 0, 1] = array[0, 4, 0, 0] + 0.01
        outputs = assert_as_on_the_host(Runner(device, head_meta(of, conf=float(conf)), 1), [array], conf)
        assert outputs["num_candidates"] == 1


def test_equal_scores_keep_the_order_of_heads_anchors_cells_and_classes(device: SimulatedDevice):
    meta = head_meta(head(2, 2, (2, 3)), head(1, 2, (1, 3), name="head1"), conf=0.2, iou=1.0)
    arrays = [np.zeros((1, of.channels, *of.grid_hw), np.float32) for of in meta.heads]
    arrays[1][0, 6, 0, 1] = 3  # head1's second cell, class 1: the best
    outputs = assert_as_on_the_host(Runner(device, meta, 1), arrays)
    assert outputs["num_detections"] == 2 * (2 * 6 + 3)
    assert outputs["class_ids"][0, :5].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("num_candidates", [512, 513, 4096])
def test_all_candidates_are_cut_to_the_best_whatever_their_order(num_candidates: int, device: SimulatedDevice):
    of = head(1, 1, (num_candidates // 8 + 1, 8))
    meta = head_meta(of, conf=0.1, iou=0.99, max_detections=512)
    array = np.full((1, 6, *of.grid_hw), -20, np.float32)
    fields = array.reshape(6, -1)[:, :num_candidates]
    fields[:4] = 0
    fields[4:] = np.random.default_rng(0).integers(0, 40, (2, num_candidates)) / 8  # many ties, at the cut as well
    outputs = assert_as_on_the_host(Runner(device, meta, 1), [array])
    assert (outputs["num_candidates"], outputs["num_detections"]) == (num_candidates, 512)


def test_more_candidates_than_there_is_room_for_are_reported_not_guessed(device: SimulatedDevice):
    meta = head_meta(head(1, 1, (8, 8)), conf=0.1)
    run = Runner(device, meta, 3, capacity=60)
    array = np.full((3, 6, 8, 8), -20, np.float32)
    array.reshape(3, 6, 64)[0, 4:, :61] = 1
    array.reshape(3, 6, 64)[1, 4:, :60] = 1
    outputs = run([array])
    assert outputs["num_candidates"].tolist() == [61, 60, 0]
    assert outputs["num_detections"][0] == -1
    assert not outputs["scores"][0].any() and not outputs["boxes"][0].any()
    for row in (1, 2):
        assert_detections(outputs, row, host_detections([array], meta, row))
    array[0] = array[1]
    assert_as_on_the_host(run, [array])  # it recovers


@pytest.mark.parametrize("nms", KINDS, ids=str)
def test_suppression_is_the_hosts_to_the_last_bit(nms: Nms, device: SimulatedDevice):
    # Candidates, how many scores they share, and how many detections may be left.
    cases = (
        (0, 300, 200),
        (1, 300, 200),
        (150, 300, 60),
        (200, 300, 200),
        (201, 300, 200),
        (900, 300, 200),
        (900, 1, 200),
    )
    for seed, (count, num_scores, max_detections) in enumerate(cases):
        limits = {"iou": 0.35, "max_candidates": 200, "max_detections": max_detections}
        meta = head_meta(head(1, 3), input_hw=(352, 608), nms=nms, **limits)
        rng = np.random.default_rng(seed)
        corners = rng.uniform(-20, 600, (count, 2))
        xyxy = np.concatenate([corners, corners + rng.uniform(0, 200, (count, 2))], axis=1).astype(np.float32)
        xyxy[rng.random((count, 4)) < 0.02] = np.inf
        scores = (rng.integers(1, num_scores, count, endpoint=True) / 300).astype(np.float32)
        index = rng.permutation(5 * count)[:count].astype(np.uint64)  # its class: index % 3

        run = Runner(device, meta, 1)
        run.append(xyxy, scores, index)
        order = np.lexsort((index, -scores))[:200]
        best = Candidates(xyxy[order], scores[order], (index[order] % 3).astype(np.int32))
        expected = suppress(best, meta.input_hw, meta.postprocess)
        assert count < 200 or len(expected.scores) > 59
        assert_detections(run.nms(), 0, expected, what=seed, exact=True)


def test_a_thousand_candidates_are_suppressed_with_few_barriers(device: SimulatedDevice):
    for spread, left in ((20_000, 512), (700, 100)):  # px: nearly all are kept, and few
        limits = {"max_candidates": 1024, "max_detections": 512}
        meta = head_meta(head(1, 3), input_hw=(608, 608), **limits)
        rng = np.random.default_rng(spread)
        corners = rng.uniform(0, spread, (1000, 2))
        xyxy = np.concatenate([corners, corners + rng.uniform(100, 200, (1000, 2))], axis=1).astype(np.float32)
        scores, index = rng.random(1000, np.float32), np.arange(1000, dtype=np.uint64)
        run = Runner(device, meta, 1)
        run.append(xyxy, scores, index)
        order = np.argsort(-scores)
        best = Candidates(xyxy[order], scores[order], (index[order] % 3).astype(np.int32))
        expected = suppress(best, meta.input_hw, meta.postprocess)
        assert (len(expected.scores) == left) if left == 512 else (left < len(expected.scores) < 512)
        assert_detections(run.nms(), 0, expected, what=spread, exact=True)
        assert device.barriers < 80  # two for 32 candidates, and a few to sort them; not one for each that is kept


@pytest.mark.parametrize("size", [300, 3])
def test_a_box_as_similar_as_the_threshold_stays_to_the_last_bit(size: int, device: SimulatedDevice):
    meta = head_meta(head(1, 1), input_hw=(352, 608))
    rng = np.random.default_rng(size)
    for _ in range(40):
        corners = rng.uniform(0, size / 5, (2, 2))
        pair = np.concatenate([corners, corners + rng.uniform(size / 2, size, (2, 2))], axis=1).astype(np.float32)
        boxes = pair / np.array([608, 352, 608, 352], np.float32)
        overlap = iou(boxes[0], boxes[1])
        for threshold, left in ((overlap, 2), (np.nextafter(overlap, np.float32(0)), 1)):
            limits = replace(meta.postprocess, iou=float(threshold))
            run = Runner(device, replace(meta, postprocess=limits), 1, capacity=2)
            run.append(pair, np.array([0.9, 0.8]), np.array([0, 1]))
            assert run.nms()["num_detections"] == left


@pytest.mark.parametrize("name", EACH_COCO_MODEL)
def test_real_heads_give_the_hosts_detections(
    name: str, coco_model: Callable[[str], Model], data: Path, simulation: SimulatedDevice
):
    backend = open_backend(coco_model(name))
    meta, compared = backend.meta, 0
    runs = [
        Runner(simulation, replace(meta, postprocess=replace(meta.postprocess, conf=conf, nms=nms)), 1)
        for conf, nms in ((0.25, Nms()), (0.25, meta.postprocess.nms), (EVAL_CONF_THRESHOLD, meta.postprocess.nms))
    ]
    for number, path in enumerate(sorted((data / "coco" / "val64" / "images").glob("*.jpg"))):
        batch, _ = prepare_batch([load_image(path)], meta)
        outputs = backend.infer(batch)
        for run in runs if number % 4 == 0 else runs[:1]:
            found = assert_as_on_the_host(
                run, [outputs[of.name] for of in meta.heads], (path.name, run.meta.postprocess)
            )
            compared += int(found["num_detections"][0])
    assert compared > 1000


@pytest.fixture
def simulation() -> Iterator[SimulatedDevice]:
    if not has_compiler():
        pytest.skip("g++ is not installed: nothing compiles the simulation")
    with SimulatedDevice(seed=1) as opened:
        yield opened


ADDRESSES = CandidateBuffers(0, 0, 0)


def test_what_the_kernels_cannot_hold_is_refused():
    wide = head_meta(Head("head0", 0, ((1.0, 1.0),) * 17, 1, (1, 1)))
    many = head_meta(*(head(name=f"head{i}") for i in range(9)))
    huge = head_meta(*(Head(f"head{i}", i, ((1.0, 1.0),), 80, (2**12, 2**12)) for i in range(2)))
    messages = {}
    for name, meta in {"wide": wide, "many": many, "huge": huge}.items():
        with pytest.raises(EngineError) as caught:
            detect.decode(meta, meta.postprocess, 1, [0] * len(meta.heads), np.float32, ADDRESSES)
        messages[name] = str(caught.value)
    assert messages == {
        "wide": "m: 1 heads of up to 17 anchors; decoding on the GPU takes up to 8 of 16: decode on the host",
        "many": "m: 9 heads of up to 2 anchors; decoding on the GPU takes up to 8 of 16: decode on the host",
        "huge": "m: 2684354560 pairs of a box and a class; decoding on the GPU takes up to 2147483647",
    }
    meta = head_meta(head(), max_candidates=1025)
    with pytest.raises(EngineError, match="max_candidates=1025; suppression on the GPU takes up to 1024: lower it"):
        detect.nms(meta, meta.postprocess, 1, ADDRESSES, dict.fromkeys(detection_shapes(1, 1), 0))
    with pytest.raises(EngineError, match="heads of int8; expected float32 or float16"):
        detect.decode(meta, meta.postprocess, 1, [0], np.int8, ADDRESSES)


# --- the source ---


def layout_checks() -> str:
    """C++ that compiles if the structs and sizes of the source are those that Python packs."""
    lines = ["#include <cstddef>"]
    for name, layout in {"Letterbox": LETTERBOX, "Head": HEAD, "Decode": DECODE, "Nms": NMS}.items():
        lines.append(f'static_assert(sizeof({name}) == {layout.itemsize}, "size of {name}");')
        for field in layout.names or ():
            offset = layout.fields[field][1]  # type: ignore[index]
            lines.append(f'static_assert(offsetof({name}, {field}) == {offset}, "{name}.{field}");')
    for name, value in {
        "MAX_CANDIDATES": detect.MAX_CANDIDATES,
        "BLOCK_CELLS": 512,
        "NMS_THREADS": 512,
        "TILE_W": 128,
    }.items():
        lines.append(f'static_assert({name} == {value}, "{name}");')
    return "\n".join(lines) + "\n"


def test_every_kernel_of_the_source_has_a_name_in_python():
    text = "".join(path.read_text() for path in FOLDER.glob("*.cu"))
    assert sorted(re.findall(r"__global__ void (\w+)", text)) == sorted(KERNELS)
    assert source_sha256() == source_sha256() and len(source_sha256()) == 64


@simulated
def test_structs_are_laid_out_as_python_packs_them():
    text = '#include "simulated_cuda.h"\n' + source() + layout_checks()
    command = [*(flag for flag in COMPILE if flag != "-shared"), f"-I{FOLDER}", "-fsyntax-only", "-x", "c++", "-"]
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="nvcc is not installed: nothing compiles the kernels for a GPU"
)
@pytest.mark.parametrize("arch", ["75", "90"])
def test_nvcc_compiles_every_kernel_without_a_warning(arch: str, tmp_path: Path):
    (tmp_path / "module.cu").write_text(source() + layout_checks())
    flags = [*COMPILE_OPTIONS, f"-I{FOLDER}", f"-arch=sm_{arch}", "-Werror", "all-warnings", "-Xptxas", "-v"]
    command = ["nvcc", "-cubin", *flags, "module.cu", "-o", "module.cubin"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.findall(r"Compiling entry function '(\w+)'", result.stderr) and "lmem" not in result.stderr
    assert {int(n) for n in re.findall(r"(\d+) bytes spill", result.stderr)} == {0}
    assert (tmp_path / "module.cubin").stat().st_size > 0
