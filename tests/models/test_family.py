"""The wider Darknet family against Darknet itself: heads, boxes and suppression of every kind of head and layer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.graphs import run_stage
from tests.runtime.test_kernels import Runner, assert_as_on_the_host, device  # noqa: F401  (a fixture)
from tests.sim.device import SimulatedDevice
from yolov3_trt.errors import TrainingError
from yolov3_trt.graph.stages import write_detections
from yolov3_trt.layers import Activation, Conv, HeadKind, LocalAvgPool, Reorg, SpaceToDepth, Yolo
from yolov3_trt.meta import MAX_CANDIDATES, ModelMeta, OutputStage, Postprocess, meta_from_spec
from yolov3_trt.models.darknet_cfg import spec_from_cfg
from yolov3_trt.models.darknet_weights import save_darknet_weights, weights_from_darknet
from yolov3_trt.postprocess import Candidates, candidates_from_heads, decode_head, suppress
from yolov3_trt.reference import module_from_spec, run_module
from yolov3_trt.spec import ModelSpec

FAMILY = (
    "Gaussian_yolov3_BDD",
    "csresnext50-panet-spp",
    "enet-coco",
    "resnet152_trident",
    "yolov2-tiny-voc",
    "yolov2-tiny",
    "yolov2",
    "yolov3-tiny-prn",
    "yolov4-csp-s-mish",
    "yolov4-csp",
    "yolov4-p5",
    "yolov4-sam-mish-csp-reorg-bfm",
    "yolov4-tiny",
    "yolov4",
    "yolov4_new",
    "yolov7-tiny",
)


@pytest.mark.parametrize("name", FAMILY)
def test_heads_boxes_and_suppression_are_darknets(name: str, data: Path, fabricated_family: Callable[[str], Path]):
    golden = np.load(data / "goldens" / "family" / f"{name}.npz")
    spec = spec_from_cfg(data / "models" / "family" / f"{name}.cfg")
    spec = spec.with_input_hw(tuple(int(side) for side in golden["input_hw"]))
    weights = weights_from_darknet(spec, fabricated_family(name)).arrays
    image = np.random.RandomState(1).random_sample((1, spec.channels, *spec.input_hw)).astype("<f4")
    outputs = run_module(module_from_spec(spec, weights), image)
    for index, (head, output) in enumerate(zip(spec.heads, outputs, strict=True)):
        assert head.layer - 1 == golden[f"head{index}_layer"] and output.shape == tuple(golden[f"head{index}_shape"])
        # The layer before a SCALED head is logistic in Darknet; here that is left to the decoding.
        values = 1 / (1 + np.exp(-output.astype(np.float64))) if head.kind is HeadKind.SCALED else output
        largest = np.abs(golden[f"head{index}_stats"][2:4]).max()
        got, expected = values.reshape(-1)[golden[f"head{index}_index"]], golden[f"head{index}_darknet"]
        np.testing.assert_allclose(
            got, expected, rtol=0, atol=(1e-3 if head.kind is HeadKind.GAUSSIAN else 1e-4) * largest
        )

    conf = float(golden["threshold"])
    postprocess = Postprocess(
        conf=conf, iou=0.45, max_candidates=MAX_CANDIDATES, max_detections=MAX_CANDIDATES, nms=spec.nms
    )
    found = joined(
        [decode_head(output[0], head, spec.input_hw, conf) for output, head in zip(outputs, spec.heads, strict=True)]
    )
    unsure = np.abs(found.scores - conf) < 1e-4
    assert abs(len(found.scores) - golden["num_pairs"]) <= unsure.sum()
    height, width = spec.input_hw
    corners = found.xyxy / np.array([width, height] * 2, np.float32)
    cxcywh = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    for class_id, score, *box in golden["pairs"]:
        close = (found.class_ids == class_id) & (np.abs(found.scores - score) < 1e-4)
        # Of the Gaussian head's exponentials some boxes are thousands of inputs wide: relative to their own size.
        limit = 1e-3 * max(1, *np.abs(box))
        assert (np.abs(cxcywh[close] - box).max(axis=1, initial=0) < limit).any(), (class_id, score, box)
    if len(found.scores) < 5000:  # suppression on the host is quadratic
        assert abs(len(suppress(found, spec.input_hw, postprocess).scores) - golden["num_after_nms"]) <= unsure.sum()


def joined(parts: list[Candidates]) -> Candidates:
    """All pairs of some heads, however many, by descending score."""
    fields = zip(*((part.xyxy, part.scores, part.class_ids) for part in parts), strict=True)
    whole = Candidates(*map(np.concatenate, fields))
    return whole[np.argsort(-whole.scores, kind="stable")]


# --- each kind of head, by hand and on every way to detections ---


def kind_meta(kind: HeadKind, num_classes: int = 3) -> ModelMeta:
    last = Activation.LOGISTIC if kind is HeadKind.SCALED else Activation.LINEAR
    anchors = ((1.0, 2.0), (3.0, 1.5)) if kind is HeadKind.REGION else ((10.0, 20.0), (30.0, 15.0))
    head = Yolo(anchors, num_classes, 1.0 if kind is HeadKind.REGION else 1.5, kind)
    layers = (Conv(4, 3, 8, 1), Conv(2 * head.fields, activation=last), head)
    return meta_from_spec(ModelSpec("m", layers, (48, 80)))


def test_a_scaled_head_by_hand():
    meta = kind_meta(HeadKind.SCALED, 2)
    values = np.full((1, 14, 6, 10), -20, np.float32)
    # sigmoid(ln 3) = .75: x and y = .75 * 1.5 - .25 = .875 cells; w = (2 * .75)^2 = 2.25 anchors; sigmoid(0) = .5: h = 1 anchor
    values[0, 7:, 2, 4] = [np.log(3), np.log(3), np.log(3), 0, np.log(4), -20, np.log(9)]
    found = candidates_from_heads([values[0]], meta.heads, meta.input_hw, meta.postprocess)
    np.testing.assert_allclose(found.scores, [0.8 * 0.9], rtol=1e-6)
    centre = np.array([(4 + 0.875) * 8, (2 + 0.875) * 8])
    half = np.array([2.25 * 30, 15]) / 2
    np.testing.assert_allclose(found.xyxy[0], [*(centre - half), *(centre + half)], rtol=1e-6)
    assert found.class_ids.tolist() == [1]


def test_a_region_head_by_hand():
    meta = kind_meta(HeadKind.REGION, 3)
    assert meta.heads[0].anchors_wh == ((8.0, 16.0), (24.0, 12.0))  # cells of 8 px
    values = np.full((1, 16, 6, 10), -20, np.float32)
    # softmax of logits ln 1, ln 2, ln 7 = .1, .2, .7
    values[0, :8, 1, 3] = [0, 0, 0, np.log(2), np.log(4), np.log(1), np.log(2), np.log(7)]
    found = candidates_from_heads([values[0]], meta.heads, meta.input_hw, meta.postprocess)
    np.testing.assert_allclose(found.scores, [0.8 * 0.7], rtol=1e-6)
    np.testing.assert_allclose(found.xyxy[0], [28 - 4, 12 - 16, 28 + 4, 12 + 16], rtol=1e-6)


def test_a_gaussian_head_by_hand():
    meta = kind_meta(HeadKind.GAUSSIAN, 1)
    values = np.full((1, 20, 6, 10), -20, np.float32)
    # Uncertainties .25, .5, .25, .5: a mean of .375.
    low, half = -np.log(3), 0.0
    values[0, :10, 0, 0] = [0, low, 0, half, np.log(2), low, 0, half, np.log(4), np.log(9)]
    found = candidates_from_heads([values[0]], meta.heads, meta.input_hw, replace(meta.postprocess, conf=0.1))
    np.testing.assert_allclose(found.scores, [0.8 * 0.9 * 0.625], rtol=1e-6)
    np.testing.assert_allclose(found.xyxy[0], [4 - 10, 4 - 10, 4 + 10, 4 + 10], rtol=1e-6)


def crowded(kind: HeadKind, seed: int, conf: float) -> tuple[ModelMeta, np.ndarray]:
    meta = replace(
        kind_meta(kind), postprocess=Postprocess(conf=conf, iou=0.05, max_candidates=256, max_detections=200)
    )
    shape = (2, meta.heads[0].channels, *meta.heads[0].grid_hw)
    return meta, np.random.default_rng(seed).normal(0, 1.5, shape).astype(np.float32)


@pytest.mark.parametrize("kind", HeadKind)
@pytest.mark.parametrize("seed", range(3))
def test_the_detection_stage_equals_the_host_for_each_kind_of_head(kind: HeadKind, seed: int):
    meta, values = crowded(kind, seed, conf=0.2)
    outputs = run_stage(write_detections, replace(meta, output_stage=OutputStage.DETECTIONS), [values])
    count, boxes, scores, class_ids = outputs.values()
    for row in range(2):
        candidates = candidates_from_heads([values[row]], meta.heads, meta.input_hw, meta.postprocess)
        expected = suppress(candidates, meta.input_hw, meta.postprocess)
        kept = int(count[row])
        assert 5 < kept == len(expected.scores) < len(candidates.scores), "suppression has something to do"
        np.testing.assert_array_equal(class_ids[row, :kept], expected.class_ids)
        np.testing.assert_allclose(scores[row, :kept], expected.scores, atol=1e-6)
        np.testing.assert_allclose(boxes[row, :kept], expected.xyxy, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", HeadKind)
def test_the_kernels_give_the_hosts_detections_for_each_kind_of_head(
    kind: HeadKind,
    dtype: str,
    device: SimulatedDevice,  # noqa: F811
):
    meta, values = crowded(kind, 5, conf=0.2)
    outputs = assert_as_on_the_host(Runner(device, meta, 2), [values.astype(dtype)], kind)
    assert (outputs["num_candidates"] > 20).all()


def test_classes_that_are_not_numbers_give_no_detection(device: SimulatedDevice):  # noqa: F811
    meta, values = crowded(HeadKind.REGION, 6, conf=0.2)
    values[:, 5::8, 2:, :] = np.nan
    outputs = assert_as_on_the_host(Runner(device, meta, 2), [values], "NaN")
    assert (outputs["num_candidates"] > 5).all()


# --- layers ---


def test_reorg_takes_darknets_odd_order():
    # Written out from reorg_cpu (AlexeyAB src/blas.c) as [reorg] calls it, with the input's own sizes for the output's.
    channels, height, width, stride = 8, 4, 6, 2
    x = np.arange(channels * height * width, dtype=np.float32)
    expected = np.empty_like(x)
    in_c = channels // stride**2
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                c2, offset = k % in_c, k // in_c
                w2, h2 = i * stride + offset % stride, j * stride + offset // stride
                expected[i + width * (j + height * k)] = x[w2 + width * stride * (h2 + height * stride * c2)]
    spec = ModelSpec("r", (Reorg(stride),), (height, width), channels)
    (got,) = run_module_without_weights(spec, x.reshape(1, channels, height, width))
    assert got.shape == (1, 32, 2, 3)
    np.testing.assert_array_equal(got.reshape(-1), expected)


def test_space_to_depth_puts_each_pixel_of_a_block_into_channels_of_its_own():
    x = np.arange(2 * 4 * 4, dtype=np.float32).reshape(1, 2, 4, 4)
    (got,) = run_module_without_weights(ModelSpec("s", (SpaceToDepth(2),), (4, 4), 2), x)
    assert got.shape == (1, 8, 2, 2)
    for offset in range(4):
        np.testing.assert_array_equal(got[0, 2 * offset : 2 * offset + 2], x[0, :, offset // 2 :: 2, offset % 2 :: 2])


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 1), (2, 1), (3, 2), (5, 3), (4, 4), (1, 2)])
def test_local_averages_count_what_lies_in_the_map_only(size: int, stride: int):
    x = np.random.default_rng(0).normal(0, 1, (1, 1, 7, 5)).astype(np.float32)
    (got,) = run_module_without_weights(ModelSpec("a", (LocalAvgPool(size, stride),), (7, 5), 1), x)
    before = (size - 1) // 2
    for row in range(got.shape[2]):
        for column in range(got.shape[3]):
            top, left = row * stride - before, column * stride - before
            window = x[0, 0, max(0, top) : top + size, max(0, left) : left + size]
            assert got[0, 0, row, column] == pytest.approx(window.mean(), abs=1e-6)


def test_shared_weights_are_read_once_and_written_once(tmp_path: Path):
    layers = (Conv(3, 3, 1, 1), Conv(3, 3, 1, 1, dilation=2, shares=0))
    spec = ModelSpec("shared", layers, (8, 8))
    path = tmp_path / "shared.weights"
    own = {"layers.0.conv.bias": np.arange(3.0), "layers.0.conv.weight": np.arange(81.0).reshape(3, 3, 3, 3) / 80}
    arrays = {key: array.astype(np.float32) for key, array in own.items()}
    arrays |= {key.replace("layers.0", "layers.1"): array for key, array in arrays.items()}
    save_darknet_weights(spec, arrays, path)
    assert path.stat().st_size == 20 + 4 * (3 + 81)
    read = weights_from_darknet(spec, path).arrays
    np.testing.assert_array_equal(read["layers.1.conv.weight"], arrays["layers.0.conv.weight"])


def test_a_kind_that_has_no_loss_is_not_trained(tmp_path: Path):
    from yolov3_trt.training.train import TrainingRun

    spec = ModelSpec("v2", (Conv(7), Yolo(((1.0, 1.0),), 2, kind=HeadKind.REGION)), (32, 32))
    with pytest.raises(
        TrainingError, match=r"^v2: its heads are of the kind region, which can be run but not trained here"
    ):
        TrainingRun.start((spec, {}), None, None, tmp_path / "run")


def run_module_without_weights(spec: ModelSpec, x: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in module_from_spec(spec, {})(torch.from_numpy(x))]
