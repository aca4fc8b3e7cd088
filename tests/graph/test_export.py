"""ONNX graphs: names, stages, precision, and that they compute what the reference does."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.conftest import COCO_MODELS
from tests.graphs import model_of, onnx_from_module, run_stage, tensor_from_pixels
from tests.reference.test_reference import small_spec
from yolov3_trt.backends import open_backend
from yolov3_trt.comparison import compare_detectors
from yolov3_trt.data.images import NamedImage, load_image
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError, ExportError, ImageError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD
from yolov3_trt.geometry import HW, Resize
from yolov3_trt.graph import network as network_of_graphs
from yolov3_trt.graph.fp16 import _round_filters, fp16_from_onnx
from yolov3_trt.graph.network import folded
from yolov3_trt.graph.parts import part_of_graph
from yolov3_trt.graph.qdq import qdq_from_onnx, quantised_activations
from yolov3_trt.graph.stages import write_detections
from yolov3_trt.jobs.export import artifact_stem, export
from yolov3_trt.jobs.verify import verify_graph
from yolov3_trt.meta import (
    Batch,
    InputStage,
    ModelMeta,
    OutputStage,
    Postprocess,
    Precision,
    Preprocess,
    RowsLayout,
    load_model_meta,
    meta_from_spec,
)
from yolov3_trt.models import Model, load_model
from yolov3_trt.models.darknet_weights import Weights
from yolov3_trt.postprocess import candidates_from_heads, detections_from_outputs, suppress
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.reference import YoloNetwork, module_from_spec
from yolov3_trt.settings import GraphSettings
from yolov3_trt.shapes import shapes_picture
from yolov3_trt.spec import ModelSpec, Nms, NmsKind


@pytest.fixture(scope="module")
def network() -> YoloNetwork:
    torch.manual_seed(0)
    network = module_from_spec(small_spec())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-1, 1)
    return network


@pytest.fixture(scope="module")
def graph(network: YoloNetwork) -> onnx.ModelProto:
    return onnx_from_module(network, meta_from_spec(network.spec))


def run(graph: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.SerializeToString(), options).run(None, {"images": images})


def test_nodes_and_weights_are_named_after_their_layers(graph: onnx.ModelProto, network: YoloNetwork):
    convs = [node for node in graph.graph.node if node.op_type == "Conv"]
    assert [node.name for node in convs] == [f"layers.{i}.conv" for i in (0, 1, 4, 11)]
    assert [node.input[1] for node in convs] == [f"layers.{i}.conv.weight" for i in (0, 1, 4, 11)]
    weights = {i.name for i in graph.graph.initializer}
    assert {name for i in (0, 1, 4, 11) for name in (f"layers.{i}.conv.weight", f"layers.{i}.conv.bias")} <= weights
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert all(name.startswith("layers.") for name in names)


def test_equal_weights_keep_their_own_names(network: YoloNetwork):
    twins = copy.deepcopy(network)
    with torch.no_grad():
        twins.layers[1].batch_norm.bias.copy_(twins.layers[0].batch_norm.bias)
    weights = {i.name for i in onnx_from_module(twins, meta_from_spec(twins.spec)).graph.initializer}
    assert {"layers.0.conv.bias", "layers.1.conv.bias"} <= weights


def test_the_graph_is_what_its_meta_says(graph: onnx.ModelProto):
    assert [value.name for value in graph.graph.input] == ["images"]
    assert [value.name for value in graph.graph.output] == ["head0"]
    assert graph.opset_import[0].version == 17
    onnx.shape_inference.infer_shapes(graph, strict_mode=True)


def test_equal_exports_are_equal_bytes_and_hold_no_path_of_this_machine(network: YoloNetwork, graph: onnx.ModelProto):
    content = graph.SerializeToString(deterministic=True)
    again = onnx_from_module(network, meta_from_spec(network.spec))
    assert again.SerializeToString(deterministic=True) == content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_a_pool_of_size_2_and_stride_1_has_uneven_pads_and_no_pad_node(graph: onnx.ModelProto):
    assert not [node.name for node in graph.graph.node if node.op_type == "Pad"]
    (pool,) = [node for node in graph.graph.node if node.name == "layers.10"]
    pads = [list(attribute.ints) for attribute in pool.attribute if attribute.name == "pads"]
    assert pads == [[0, 0, 1, 1]]


@pytest.mark.parametrize("opset", [14, 17, 18, 19])
def test_every_opset_computes_what_the_reference_does(network: YoloNetwork, opset: int):
    exported = onnx_from_module(network, meta_from_spec(network.spec), opset)
    assert exported.opset_import[0].version == opset
    images = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    with torch.inference_mode():
        (expected,) = network(torch.from_numpy(images))
    np.testing.assert_allclose(run(exported, images)[0], expected.numpy(), atol=1e-5)


def test_an_opset_too_old_is_refused(network: YoloNetwork):
    with pytest.raises(ExportError, match=r"opset 13; expected 14 to \d+ \(17 is for TensorRT 8\.6\)"):
        onnx_from_module(network, meta_from_spec(network.spec), 13)


@pytest.mark.parametrize(
    ("input_stage", "output_stage"),
    [
        (InputStage.TENSOR, OutputStage.HEADS),
        (InputStage.TENSOR, OutputStage.ROWS),
        (InputStage.PIXELS, OutputStage.DETECTIONS),
        pytest.param(InputStage.TENSOR, OutputStage.DETECTIONS, marks=pytest.mark.slow),
        pytest.param(InputStage.PIXELS, OutputStage.HEADS, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_dynamic_batch_gives_each_image_what_it_gets_alone(
    network: YoloNetwork, input_stage: InputStage, output_stage: OutputStage, precision: Precision
):
    meta = replace(
        meta_from_spec(network.spec),
        batch=Batch(1, 2, 3),
        input_stage=input_stage,
        output_stage=output_stage,
        rows_layout=RowsLayout.OPENCV if output_stage is OutputStage.ROWS else None,
        postprocess=Postprocess(conf=0.05, max_candidates=64, max_detections=8),
    )
    exported = onnx_from_module(network, meta)
    if precision is Precision.FP16:
        exported = fp16_from_onnx(exported)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    images = prepare_batch(list(pixels), meta)[0]
    together = run(exported, images)
    assert len(together) == len(meta.output_names)
    assert all(array.shape[0] == 3 for array in together)
    if output_stage is OutputStage.DETECTIONS:
        assert together[0].min() > 0, "this test needs detections"
    for row in range(3):
        for array, alone in zip(together, run(exported, images[row : row + 1]), strict=True):
            np.testing.assert_allclose(array[row], alone[0], atol=1e-5)


def test_pixels_and_tensor_graphs_agree(network: YoloNetwork, graph: onnx.ModelProto):
    meta = replace(meta_from_spec(network.spec), input_stage=InputStage.PIXELS)
    picture = np.random.default_rng(1).integers(0, 256, (10, 24, 3), np.uint8)
    pixels, _ = prepare_batch([picture], meta)
    tensor, _ = prepare_batch([picture], meta_from_spec(network.spec))
    (from_pixels,), (from_tensor,) = run(onnx_from_module(network, meta), pixels), run(graph, tensor)
    np.testing.assert_allclose(from_pixels, from_tensor, atol=1e-5)


def test_an_fp16_graph_has_float16_layers_and_float32_ends(graph: onnx.ModelProto):
    half = fp16_from_onnx(graph)
    types = {i.name: i.data_type for i in half.graph.initializer}
    for node in half.graph.node:
        if node.op_type == "Conv":
            assert all(types[value] == onnx.TensorProto.FLOAT16 for value in node.input[1:])
        if node.op_type == "Resize":
            assert types[node.input[2]] == onnx.TensorProto.FLOAT, "every opset reads Resize's scales as float32"
    ends = [*half.graph.input, *half.graph.output]
    assert [value.type.tensor_type.elem_type for value in ends] == [onnx.TensorProto.FLOAT] * 2
    assert [n.name for n in half.graph.node if n.op_type == "Cast"] == ["images.half.cast", "head0.cast"]
    onnx.shape_inference.infer_shapes(half, strict_mode=True)
    images = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    np.testing.assert_allclose(run(half, images)[0], run(graph, images)[0], atol=2e-3)


def test_rounding_to_fp16_keeps_the_sum_of_each_filter():
    kernels = np.random.default_rng(0).normal(0, 0.1, (4, 8, 3, 3)).astype(np.float32)
    rounded, nearest = _round_filters(kernels), kernels.astype(np.float16)
    assert rounded.dtype == np.float16 and rounded.shape == kernels.shape
    sums = kernels.astype(np.float64).sum(axis=(1, 2, 3))

    def error(half: np.ndarray) -> np.ndarray:
        return np.abs(half.astype(np.float64).sum(axis=(1, 2, 3)) - sums)

    last_step = np.spacing(np.abs(rounded[:, -1, -1, -1]).astype(np.float16)).astype(np.float64)
    assert (error(rounded) <= last_step).all(), "what is left is the last weight's own rounding"
    assert error(rounded).max() < error(nearest).max() / 4
    assert np.abs(rounded.astype(np.float32) - kernels).max() < 2e-4, "no weight moves far"


def test_a_weight_beyond_float16_is_refused_by_name(graph: onnx.ModelProto):
    wild = onnx.ModelProto()
    wild.CopyFrom(graph)
    for initializer in wild.graph.initializer:
        if initializer.name == "layers.11.conv.bias":
            values = onnx.numpy_helper.to_array(initializer).copy()
            values[3] = 1e6
            initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
    with pytest.raises(
        ExportError, match=r"layers\.11\.conv\.bias: its largest value is 1e\+06; float16 ends at 65504"
    ):
        fp16_from_onnx(wild)


CROWDED = Postprocess(conf=0.05, max_candidates=128, max_detections=100)


@pytest.mark.parametrize("nms", [Nms(), Nms(NmsKind.GREEDY), Nms(NmsKind.DIOU, 0.4)])
@pytest.mark.parametrize("seed", range(8))
def test_the_detection_stage_equals_the_host_on_crowded_heads(nms: Nms, seed: int):
    meta = meta_from_spec(small_spec())
    meta = replace(meta, output_stage=OutputStage.DETECTIONS, postprocess=replace(CROWDED, nms=nms))
    (head,) = meta.heads
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (2, head.channels, *head.grid_hw)).astype(np.float32)
    count, boxes, scores, class_ids = run_stage(write_detections, meta, [logits]).values()
    for row in range(2):
        candidates = candidates_from_heads([logits[row]], meta.heads, meta.input_hw, meta.postprocess)
        expected = suppress(candidates, meta.input_hw, meta.postprocess)
        kept, n = len(expected.scores), int(count[row])
        assert 10 < kept < len(candidates.scores), "suppression has something to do"
        assert n == kept
        np.testing.assert_array_equal(class_ids[row, :n], expected.class_ids)
        np.testing.assert_allclose(scores[row, :n], expected.scores, atol=1e-6)
        np.testing.assert_allclose(boxes[row, :n], expected.xyxy, atol=1e-3)
        assert not boxes[row, n:].any() and not scores[row, n:].any() and not class_ids[row, n:].any()


def test_the_detection_stage_ignores_nan_and_survives_infinity():
    meta = replace(meta_from_spec(small_spec()), output_stage=OutputStage.DETECTIONS, postprocess=CROWDED)
    (head,) = meta.heads
    logits = np.full((1, head.channels, *head.grid_hw), -10, np.float32)
    values = logits.reshape(2, 7, *head.grid_hw)
    values[0, :, 0, 0] = np.nan
    values[0, 4:6, 2, 3] = 5  # one object
    values[1, 2:6, 1, 1] = np.inf  # one infinitely large
    count, _, scores, class_ids = run_stage(write_detections, meta, [logits]).values()
    expected = suppress(
        candidates_from_heads([logits[0]], meta.heads, meta.input_hw, meta.postprocess), meta.input_hw, meta.postprocess
    )
    assert count.tolist() == [2] == [len(expected.scores)]
    np.testing.assert_allclose(scores[0, :2], expected.scores, atol=1e-6)
    assert class_ids[0, :2].tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", COCO_MODELS)
def test_detections_output_equals_heads_output_plus_host_postprocess_on_val64(
    name: str, coco_model: Callable[[str], Model], data: Path
):
    model = coco_model(name)
    heads_meta = meta_from_spec(model.spec, model.class_names)
    heads_meta = replace(heads_meta, postprocess=heads_meta.postprocess.override(conf=EVAL_CONF_THRESHOLD))
    meta: ModelMeta = replace(heads_meta, output_stage=OutputStage.DETECTIONS)
    exported = onnx_from_module(module_from_spec(model.spec, model.weights), meta)
    # One graph, cut at the heads: both ways see the same logits.
    names = [head.name for head in meta.heads]
    network = onnxruntime.InferenceSession(part_of_graph(exported, ["images"], names).SerializeToString())
    stage = onnxruntime.InferenceSession(part_of_graph(exported, names, meta.output_names).SerializeToString())
    found = 0
    for path in sorted((data / "coco" / "val64" / "images").iterdir()):
        batch, placements = prepare_batch([load_image(path)], meta)
        heads = dict(zip(names, network.run(names, {"images": batch}), strict=True))
        outputs = dict(zip(meta.output_names, stage.run(list(meta.output_names), heads), strict=True))
        (host,) = detections_from_outputs(heads, heads_meta, heads_meta.postprocess, placements)
        (graph,) = detections_from_outputs(outputs, meta, meta.postprocess, placements)
        assert graph.class_ids.tolist() == host.class_ids.tolist(), path.name
        np.testing.assert_allclose(graph.scores, host.scores, atol=1e-5, err_msg=path.name)
        np.testing.assert_allclose(graph.xyxy, host.xyxy, atol=1e-2, err_msg=path.name)
        found += len(host)
    assert found > 5000, "a low threshold, so that suppression is put to the test"


def test_an_exported_file_is_verified_and_described(coco_model: Callable[[str], Model], tmp_path: Path):
    model = coco_model(COCO_MODELS[0])
    report = export(
        model, tmp_path / "a.onnx", precision="fp16", input_stage="pixels", output_stage="detections", conf=0.3
    )
    assert set(report.max_difference) == {"head0", "head1"}
    assert all(0 < error < 1e-2 for error in report.relative_error.values())
    meta = load_model_meta(report.path)
    assert meta == report.meta
    assert (meta.precision, meta.opset, meta.postprocess.conf) == (Precision.FP16, 17, 0.3)
    assert meta.weights_sha256 == model.weights_sha256
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "a.onnx.json"}
    backend = open_backend(report.path)
    with pytest.raises(BackendError, match=r"conf=0\.1 and at most 300 detections were asked for"):
        Detector(backend, replace(meta.postprocess, conf=0.1))
    with pytest.raises(BackendError, match=r"iou=0\.6 with greedynms was asked for.*iou=0\.45 with greedynms built in"):
        Detector(backend, replace(meta.postprocess, iou=0.6))


def test_a_graph_that_is_not_its_reference_is_not_written(
    coco_model: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(weights: Weights, spec: ModelSpec, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        kernel, bias = folded(weights, spec, index)
        return kernel * np.float32(1.5 if index == 40 else 1), bias

    monkeypatch.setattr(network_of_graphs, "folded", broken)
    with pytest.raises(
        ExportError, match=r"head. of the fp32 graph has a relative error of .* expected at most 0\.0001"
    ):
        export(coco_model(COCO_MODELS[0]), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


# --- whole frames, resized in the graph ---


def camera_meta(network: YoloNetwork, frame_hw: HW = (20, 37), **changes: Any) -> ModelMeta:
    return replace(meta_from_spec(network.spec), input_stage=InputStage.PIXELS, frame_hw=frame_hw, **changes)


def noise_frames(count: int, frame_hw: HW) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *frame_hw, 3), np.uint8)


def staged(frames: np.ndarray, input_hw: HW, preprocess: Preprocess) -> np.ndarray:
    (head,) = meta_from_spec(small_spec()).heads
    given = {"batch": Batch.of("batch", len(frames)), "frame_hw": frames.shape[1:3], "input_stage": InputStage.PIXELS}
    return tensor_from_pixels(frames, ModelMeta("m", input_hw, (head,), ("a", "b"), preprocess=preprocess, **given))


def test_a_frame_becomes_rgb_planes_in_a_border():
    frame = np.zeros((1, 1, 2, 3), np.uint8)
    frame[0, 0, :, 0] = 0, 100  # blue
    frame[0, 0, :, 2] = 200  # red
    got = staged(frame, (4, 4), Preprocess(pad_value=51))
    border = [0.2, 0.2, 0.2, 0.2]
    blue = np.divide([0, 25, 75, 100], 255)  # centres at -.25, .25, .75, 1.25
    expected = [[border, row, row, border] for row in (np.full(4, 200 / 255), np.zeros(4), blue)]
    np.testing.assert_allclose(got, [expected], rtol=1e-6)


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize(
    "frame_hw, input_hw",
    [
        ((720, 1280), (416, 416)),
        ((1280, 720), (320, 608)),
        ((480, 640), (320, 320)),
        ((96, 130), (416, 416)),
        ((64, 96), (64, 96)),
        ((33, 500), (32, 32)),
        ((32, 3000), (32, 96)),
    ],
    ids=lambda hw: "x".join(map(str, hw)),
)
def test_frames_are_fitted_as_the_host_does_it(frame_hw: HW, input_hw: HW, resize: Resize):
    preprocess = Preprocess(resize, pad_value=99)
    (head,) = meta_from_spec(small_spec()).heads
    meta = ModelMeta("m", input_hw, (head,), ("a", "b"), preprocess=preprocess)
    frames = noise_frames(2, frame_hw)
    host, (placement, _) = prepare_batch(list(frames), meta)
    got = staged(frames, input_hw, preprocess)
    assert got.shape == host.shape and got.dtype == np.float32
    assert np.abs(got - host).max() < 1 / 255
    (top, left), (height, width) = placement.offset_hw, placement.resized_hw
    border = np.ones(input_hw, bool)
    border[top : top + height, left : left + width] = False
    np.testing.assert_array_equal(got[..., border], host[..., border])
    if frame_hw == placement.resized_hw:
        np.testing.assert_array_equal(got, host)


@pytest.mark.parametrize("batch", [Batch(), Batch(1, 2, 3)], ids=str)
@pytest.mark.parametrize("opset", [17, 18, 20])
def test_a_graph_for_whole_frames_agrees_with_the_tensor_graph(
    network: YoloNetwork, graph: onnx.ModelProto, batch: Batch, opset: int
):
    meta = camera_meta(network, batch=batch)
    exported = onnx_from_module(network, meta, opset)
    frames = noise_frames(batch.max, (20, 37))
    (got,) = run(exported, prepare_batch(list(frames), meta)[0])
    seen = staged(frames, (16, 16), meta.preprocess)
    host, _ = prepare_batch(list(frames), meta_from_spec(network.spec))
    for row in range(batch.max):
        np.testing.assert_allclose(got[row : row + 1], run(graph, seen[row : row + 1])[0], atol=1e-5)
        np.testing.assert_allclose(got[row : row + 1], run(graph, host[row : row + 1])[0], atol=5e-3)


def test_a_frame_is_cast_first_and_resized_between_half_pixel_centres(network: YoloNetwork):
    exported = onnx_from_module(network, camera_meta(network)).graph
    assert [node.op_type for node in exported.node if "images" in node.input] == ["Cast"], (
        "TensorRT allows nothing else"
    )
    (resize,) = [node for node in exported.node if node.op_type == "Resize" and node.name.startswith("input")]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in resize.attribute}
    assert (attributes["mode"], attributes["coordinate_transformation_mode"]) == (b"linear", b"half_pixel")
    assert "antialias" not in attributes, "opset 17 has none"


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_frames_are_resized_in_float32_whatever_the_layers_compute_in(network: YoloNetwork, precision: Precision):
    meta = camera_meta(network, batch=Batch(1, 2, 3))
    single = onnx_from_module(network, meta)
    if precision is Precision.FP16:
        exported = fp16_from_onnx(single)
    else:
        amax = dict.fromkeys(quantised_activations(single), 4.0)
        stage_output = next(iter(amax))  # the table was made on a graph whose input it is
        assert stage_output.startswith("input")
        exported = qdq_from_onnx(single, {"images": 1.0, **{k: v for k, v in amax.items() if k != stage_output}})
        scales = {i.name: onnx.numpy_helper.to_array(i) for i in exported.graph.initializer}
        assert scales[f"{stage_output}.scale"] == np.float32(1 / 127)
    kinds = {value.name: value.type.tensor_type.elem_type for value in typed_values(exported)}
    stage = [node.name for node in single.graph.node if node.name.startswith("input")]
    assert {"input.Cast", "input.fit.Resize", "input.Mul"} <= set(stage)
    sizes = ("input.fit.Shape", "input.fit.Slice", "input.fit.Concat")
    assert {kinds[name] for name in stage if not name.startswith(sizes)} == {onnx.TensorProto.FLOAT}
    frames = noise_frames(3, (20, 37))
    np.testing.assert_allclose(run(exported, frames)[0], run(single, frames)[0], atol=0.1)


def typed_values(graph: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return list(onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph.value_info)


@pytest.mark.parametrize("precision", Precision)
def test_verification_tells_a_resize_that_is_not_the_hosts(network: YoloNetwork, precision: Precision):
    meta = camera_meta(network, precision=precision, batch=Batch(1, 2, 2))
    exported = onnx_from_module(network, meta)
    amax = {"images": 1.0, **dict.fromkeys(quantised_activations(exported), 8.0)}
    make = {
        Precision.FP32: lambda: exported,
        Precision.FP16: lambda: fp16_from_onnx(exported),
        Precision.INT8: lambda: qdq_from_onnx(exported, amax),
    }[precision]
    assert set(verify_graph(make(), model_of(network), meta)[0]) == {"head0"}
    (resize,) = [node for node in exported.graph.node if node.name == "input.fit.Resize"]
    for attribute in resize.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"align_corners"
    with pytest.raises(
        ExportError, match=r"small: frames resized in the graph are up to \d+\.\d levels off those resized by the host"
    ):
        verify_graph(make(), model_of(network), meta)


def test_each_layout_of_rows_has_a_file_of_its_own():
    spec = load_model("shapes").spec
    names = [artifact_stem(spec, GraphSettings(output_stage="rows", rows_layout=layout)) for layout in RowsLayout]
    assert names == [
        "shapes-256-fp32-rows",
        "shapes-256-fp32-rows-opencv-joined",
        "shapes-256-fp32-rows-channels-first",
    ]


def test_whole_frames_detect_as_pictures_resized_by_the_host_do(tmp_path: Path):
    model = load_model("shapes", input_size=416)  # 1280 px are no whole multiple: every pixel is interpolated
    options = GraphSettings(
        Precision.FP16, input_stage=InputStage.PIXELS, output_stage=OutputStage.DETECTIONS, frame_size=(720, 1280)
    )
    assert artifact_stem(model.spec, options) == "shapes-416-fp16-camera-1280x720-detections"
    report = export(model, tmp_path / "camera.onnx", graph=options)
    assert load_model_meta(report.path).frame_hw == (720, 1280)
    pictures = [NamedImage(str(i), shapes_picture(77, i, (720, 1280)).pixels) for i in range(12)]
    with Detector(open_backend(report.path)) as camera, Detector(open_backend(model)) as host:
        comparison = compare_detectors(host, camera, pictures)
        with pytest.raises(ImageError, match=r"an image is uint8 \(480, 640, 3\); expected uint8 \(720, 1280, 3\)"):
            camera([pictures[0].pixels, np.zeros((480, 640, 3), np.uint8)])
        assert len(camera(pictures[0].pixels)) == len(host(pictures[0].pixels)), "a refusal does no harm"
        with pytest.raises(
            BackendError,
            match=r"shapes: resize=stretch was asked for, .* with resize=letterbox built in; export it again",
        ):
            Detector(camera.backend, resize=Resize.STRETCH)
    assert comparison.pairs.matched > 40
    # What lies next to the threshold may be found by one of the two only.
    assert max(comparison.pairs.detections_a, comparison.pairs.detections_b) - comparison.pairs.matched <= 1
    assert comparison.pairs.max_score_difference < 0.01
    assert comparison.pairs.min_iou is not None and comparison.pairs.min_iou > 0.98
