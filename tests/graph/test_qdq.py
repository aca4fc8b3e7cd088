"""Q/DQ graphs: where pairs stand, what they compute, and that they build."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from tests.conftest import COCO_MODELS
from tests.engine.test_engine import RTX, needs_rtx
from tests.graphs import onnx_from_module
from tests.reference.test_reference import small_spec
from yolov3_trt.builder.build import build_engine
from yolov3_trt.engine.flavor import open_flavor
from yolov3_trt.errors import ExportError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.graph.bias_correction import bias_shifts_graph
from yolov3_trt.graph.equalise import channel_peaks_graph, doublings_from_peaks, equalised
from yolov3_trt.graph.fp16 import fp16_from_onnx
from yolov3_trt.graph.qdq import qdq_from_onnx, quantised_activations
from yolov3_trt.graph.qdq_placement import QdqPolicy, WeightForm
from yolov3_trt.graph.quantize_weights import ZERO_SCALE, float16_above, int8_weights, weight_scales
from yolov3_trt.layers import Activation, Conv, Shortcut, Yolo
from yolov3_trt.meta import InputStage, ModelMeta, OutputStage, Precision, meta_from_spec, save_sidecar
from yolov3_trt.models import Model
from yolov3_trt.models.architectures import shapes
from yolov3_trt.reference import YoloNetwork, module_from_spec
from yolov3_trt.settings import FlavorName
from yolov3_trt.spec import ModelSpec

ANCHORS = ((4.0, 4.0), (8.0, 8.0))
SMALL_META = replace(meta_from_spec(small_spec()), precision=Precision.INT8)
PASSING = ("MaxPool", "Resize", "Concat", "Slice")


def seeded(spec: ModelSpec) -> YoloNetwork:
    """A network with random weights, and biases that are not zero."""
    torch.manual_seed(0)
    network = module_from_spec(spec)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
    return network


def exported(network: YoloNetwork, opset: int = 17, **changes: object) -> onnx.ModelProto:
    meta: ModelMeta = replace(meta_from_spec(network.spec), **changes)
    return onnx_from_module(network, meta, opset)


def noise(graph: onnx.ModelProto) -> np.ndarray:
    shape = [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).random(shape, np.float32)


def run(graph: onnx.ModelProto, images: np.ndarray, integer_kernels: bool = False) -> dict[str, np.ndarray]:
    """Outputs by name; unless `integer_kernels`, ONNX Runtime computes each node as it stands, in float."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "0" if integer_kernels else "1")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def exact_amax(graph: onnx.ModelProto, images: np.ndarray) -> dict[str, float]:
    """Largest magnitude of every tensor that gets a pair, for these images."""
    names = quantised_activations(graph)
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    given = {value.name for value in (*probe.graph.input, *probe.graph.output)}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    values = run(probe, images) | {"images": images}
    return {name: float(np.abs(values[name]).max()) for name in names}


def quantised(graph: onnx.ModelProto, **policy: object) -> onnx.ModelProto:
    return qdq_from_onnx(graph, exact_amax(graph, noise(graph)), QdqPolicy(**policy))


def relative_errors(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[float]:
    return [float(np.linalg.norm(got[name] - e) / np.linalg.norm(e)) for name, e in expected.items()]


def nodes_of(graph: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in graph.graph.node if node.op_type == op_type]


def constants_of(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.graph.initializer}


def scale_filters(graph: onnx.ModelProto, weight: str, factors: Sequence[float]) -> None:
    """Multiply the first filters of a weight."""
    (tensor,) = (initializer for initializer in graph.graph.initializer if initializer.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values[: len(factors)] *= np.array(factors, np.float32).reshape(-1, 1, 1, 1)
    tensor.CopyFrom(numpy_helper.from_array(values, weight))


@pytest.fixture(scope="module")
def small() -> onnx.ModelProto:
    return exported(seeded(small_spec()))


@pytest.fixture(scope="module")
def shapes_graph() -> onnx.ModelProto:
    return exported(seeded(shapes()))


@pytest.fixture(scope="module")
def fastest(coco_model: Callable[[str], Model]) -> onnx.ModelProto:
    """Depthwise convolutions, linear bottlenecks, an SPP block, dropout."""
    model = coco_model(COCO_MODELS[0])
    return exported(module_from_spec(model.spec, model.weights))


@pytest.fixture(params=["small", "shapes_graph", "fastest"])
def graph(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return request.getfixturevalue(request.param)


# Placement


def test_the_tensors_of_every_kind_of_layer(small: onnx.ModelProto):
    """By hand, from the list of layers in small_spec."""
    assert quantised_activations(small) == (
        "images",
        "layers.0.activation",
        "layers.1.activation",  # a sum reads it; its other input is layer 0
        "layers.3",  # the average, read by a convolution; the Mish before it and the products after it stay float
        "layers.5.activation.Mul",
        *(f"layers.{index}" for index in (6, 7, 8, 9, 10)),
    )


def test_every_convolution_and_sum_reads_int8(graph: onnx.ModelProto):
    got = quantised(graph)
    pairs = {node.output[0] for node in nodes_of(got, "DequantizeLinear")}
    constants = constants_of(got)
    for conv in nodes_of(got, "Conv"):
        assert {conv.input[0], conv.input[1]} <= pairs, conv.name
        weights, scales = constants[f"{conv.name}.weight.q"], constants[f"{conv.name}.weight.scale"]
        assert weights.dtype == np.int8 and scales.shape == weights.shape[:1]
        assert f"{conv.name}.weight" not in constants, "the float weights are gone"
        assert all(constants[bias].dtype == np.float32 for bias in conv.input[2:])
    for op_type in ("Add", "Concat"):
        assert all(set(node.input) <= pairs for node in nodes_of(got, op_type))
    assert all(node.input[0] in pairs for node in nodes_of(got, "Resize"))
    axes = {node.name: [a.i for a in node.attribute if a.name == "axis"] for node in nodes_of(got, "DequantizeLinear")}
    assert all(axis == ([0] if name.endswith(".weight.dq") else []) for name, axis in axes.items())


def test_nothing_stands_inside_a_layer_nor_on_a_head(graph: onnx.ModelProto):
    def layer(name: str) -> str:
        return name.split(".")[1]

    sources = {node.output[0]: node.name for node in graph.graph.node}
    for quantize in nodes_of(quantised(graph), "QuantizeLinear"):
        tensor = quantize.input[0]
        assert not tensor.startswith("head")
        readers = [node.name for node in graph.graph.node if tensor in node.input]
        assert tensor == "images" or layer(sources[tensor]) not in map(layer, readers), (
            f"{tensor} is not a layer's last"
        )


def test_what_passes_values_on_has_one_scale(graph: onnx.ModelProto):
    got = quantised(graph)
    constants = constants_of(got)
    passing = [node for node in graph.graph.node if node.op_type in PASSING]
    assert passing
    for node in passing:
        maps = node.input if node.op_type == "Concat" else node.input[:1]
        assert len({float(constants[f"{value}.scale"]) for value in (*maps, *node.output)}) == 1, node.name


def test_a_scale_is_shared_along_chains_and_nowhere_else(small: onnx.ModelProto):
    amax = {name: float(index + 1) for index, name in enumerate(quantised_activations(small))}
    constants = constants_of(qdq_from_onnx(small, amax))
    shared = ["layers.0.activation", "layers.5.activation.Mul", *(f"layers.{i}" for i in (6, 7, 8, 9, 10))]
    for name in amax:
        expected = max(map(amax.__getitem__, shared)) if name in shared else amax[name]
        assert constants[f"{name}.scale"] == np.float32(expected / 127), name


def test_a_block_of_pools_is_int8_from_end_to_end(fastest: onnx.ModelProto):
    got = quantised(fastest)
    pools = nodes_of(got, "MaxPool")
    assert len(pools) == 3 and {pool.input[0] for pool in pools} == {"layers.108.dq"}
    (concat,) = (node for node in nodes_of(got, "Concat") if node.name == "layers.114")
    assert list(concat.input) == ["layers.113.dq", "layers.111.dq", "layers.109.dq", "layers.108.dq"]


def test_in_graph_stages_stay_float(small: onnx.ModelProto):
    network = seeded(small_spec())
    staged = exported(network, input_stage=InputStage.PIXELS, output_stage=OutputStage.DETECTIONS)
    (image,) = set(quantised_activations(staged)) - set(quantised_activations(small))
    assert image.startswith("input")
    got = qdq_from_onnx(staged, exact_amax(small, noise(small)))  # which calls the image `images`
    pairs = {node.output[0] for node in nodes_of(got, "DequantizeLinear")}
    for node in got.graph.node:
        if node.name.startswith("output"):
            assert pairs.isdisjoint(node.input)
    assert {node.input[0] for node in nodes_of(got, "QuantizeLinear")} == set(quantised_activations(staged))
    assert constants_of(got)[f"{image}.scale"] == np.float32(exact_amax(small, noise(small))["images"] / 127)


# Policies


def test_a_skipped_layer_reads_float_and_has_float_weights(small: onnx.ModelProto):
    got = quantised(small, float_layers=frozenset({1, 2}))
    nodes = {node.name: node for node in got.graph.node}
    assert list(nodes["layers.1.conv"].input[:2]) == ["layers.0.activation", "layers.1.conv.weight"]
    assert list(nodes["layers.2"].input) == ["layers.1.activation", "layers.0.activation"]
    assert "layers.1.activation" not in quantised_activations(small, QdqPolicy(frozenset({1, 2})))
    np.testing.assert_array_equal(
        constants_of(got)["layers.1.conv.weight"], constants_of(small)["layers.1.conv.weight"]
    )


def test_a_pool_whose_reader_is_float_stays_float(small: onnx.ModelProto):
    got = quantised(small, float_layers=frozenset({11}))
    assert not {f"layers.{index}.q" for index in (6, 7, 8, 9, 10)} & {node.name for node in got.graph.node}


@pytest.mark.parametrize("rest", [Precision.FP32, Precision.FP16])
def test_skipping_every_layer_changes_nothing(small: onnx.ModelProto, rest: Precision):
    got = qdq_from_onnx(small, {}, QdqPolicy(frozenset(range(13)), float_precision=rest))
    expected = small if rest is Precision.FP32 else fp16_from_onnx(small)
    assert got.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_first_and_head_layers_can_stay_float(shapes_graph: onnx.ModelProto):
    got = quantised(shapes_graph, first_layer=False, head_layers=False)
    weights = {conv.input[1] for conv in nodes_of(got, "Conv")}
    heads = {f"{node.name}.weight" for node in nodes_of(shapes_graph, "Conv") if node.output[0].startswith("head")}
    assert len(heads) == 3
    assert {name for name in weights if not name.endswith(".dq")} == heads | {"layers.0.conv.weight"}
    assert "images.q" not in {node.name for node in got.graph.node}


def test_the_first_layer_may_stand_behind_a_pool():
    nodes = [
        onnx.helper.make_node("MaxPool", ["images"], ["pooled"], "layers.0", kernel_shape=[2, 2]),
        onnx.helper.make_node("Conv", ["pooled", "w1"], ["first"], "layers.1.conv"),
        onnx.helper.make_node("Conv", ["first", "w2"], ["head0"], "layers.2.conv"),
    ]
    graph = onnx.helper.make_model(onnx.helper.make_graph(nodes, "pooled", [], []))
    assert quantised_activations(graph) == ("images", "pooled", "first")
    assert quantised_activations(graph, QdqPolicy(first_layer=False)) == ("first",)


def test_both_forms_of_weights_compute_the_same(small: onnx.ModelProto):
    images = noise(small)
    for per_channel in (True, False):
        forms = [quantised(small, per_channel=per_channel, weight_form=form) for form in WeightForm]
        first, second = (run(form, images)["head0"] for form in forms)
        np.testing.assert_array_equal(first, second)
        scales = [values for name, values in constants_of(forms[1]).items() if name.endswith(".weight.scale")]
        assert all(values.ndim == per_channel for values in scales)
    assert constants_of(forms[1])["layers.1.conv.weight"].dtype == np.float32


def test_a_float16_rest_keeps_scales_in_float32_between_casts(small: onnx.ModelProto):
    got = quantised(small, float_precision=Precision.FP16)
    constants = constants_of(got)
    assert {values.dtype for name, values in constants.items() if name.endswith(".scale")} == {np.dtype(np.float32)}
    assert {values.dtype for name, values in constants.items() if name.endswith(".bias")} == {np.dtype(np.float16)}
    sources = {node.output[0]: node for node in got.graph.node}
    for conv in nodes_of(got, "Conv"):
        for value in conv.input[:2]:
            cast = sources[value]
            assert (cast.op_type, sources[cast.input[0]].op_type) == ("Cast", "DequantizeLinear")
    assert onnx.shape_inference.infer_shapes(got, strict_mode=True).graph.output[0].type.tensor_type.elem_type == 1
    errors = relative_errors(run(got, noise(small)), run(small, noise(small)))
    assert max(errors) < 0.05


def test_float16_scales_are_never_zero_nor_cut_values_off(small: onnx.ModelProto):
    graph = onnx.version_converter.convert_version(small, 19)
    scale_filters(graph, "layers.1.conv.weight", [1e-6])
    got = quantised(graph, float_precision=Precision.FP16, half_scales=True)
    scales = {name: values for name, values in constants_of(got).items() if name.endswith(".scale")}
    assert all((values > 0).all() for values in scales.values())
    in_layers = [values for name, values in scales.items() if name.startswith("layers.")]
    assert {values.dtype for values in in_layers} == {np.dtype(np.float16)}
    assert not [node for node in nodes_of(got, "Cast") if node.name.startswith("layers.")]
    assert max(relative_errors(run(got, noise(graph)), run(graph, noise(graph)))) < 0.05
    given = np.array([1e-9, 2.0**-24, 1.0, 1.0001], np.float32)
    assert float16_above(given).tolist() == [2.0**-24, 2.0**-24, 1.0, 1.0 + 2.0**-10]


# Numbers


def rounded(values: torch.Tensor, scale: np.ndarray | float) -> torch.Tensor:
    """Fake quantisation in float64."""
    steps = torch.as_tensor(np.asarray(scale, np.float64))
    return torch.clamp(torch.round(values / steps), -127, 127) * steps


@pytest.fixture(scope="module")
def three() -> YoloNetwork:
    layers = (
        Conv(8, 3, 2, 1, activation=Activation.LEAKY),
        Conv(8, 3, 1, 1, groups=8),
        Shortcut((0,)),
        Conv(14),
        Yolo(ANCHORS, 2),
    )
    return seeded(ModelSpec("three", layers, (16, 16)))


@pytest.fixture(scope="module")
def three_graph(three: YoloNetwork) -> onnx.ModelProto:
    return exported(three)


def test_it_computes_what_fake_quantisation_does(three: YoloNetwork, three_graph: onnx.ModelProto):
    images = noise(three_graph) - 0.5
    amax = exact_amax(three_graph, images)
    got = run(qdq_from_onnx(three_graph, amax), images)["head0"]

    def conv(x: torch.Tensor, index: int, **how: int) -> torch.Tensor:
        module = three.layers[index].conv
        weight, bias = module.weight.detach().double(), module.bias.detach().double()
        scales = np.float32(weight.abs().amax((1, 2, 3)).numpy() / 127).reshape(-1, 1, 1, 1)
        return F.conv2d(x, rounded(weight, scales), bias, **how)

    def pair(x: torch.Tensor, name: str) -> torch.Tensor:
        return rounded(x, np.float32(amax[name] / 127))

    image = pair(torch.from_numpy(images).double(), "images")
    first = pair(F.leaky_relu(conv(image, 0, stride=2, padding=1), 0.1), "layers.0.activation")
    second = pair(conv(first, 1, padding=1, groups=8), "layers.1.conv")
    expected = conv(pair(second + first, "layers.2"), 3)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    assert np.abs(got - run(three_graph, images)["head0"]).max() > 1e-3, "which differs from the FP32 graph"


def test_heads_stay_near_those_of_fp32(graph: onnx.ModelProto):
    images = noise(graph)
    errors = relative_errors(run(quantised(graph), images), run(graph, images))
    assert 1e-5 < max(errors) < 0.08  # measured: .004 for random weights, .05 for the depthwise model


def test_a_scale_for_each_filter_halves_the_error_of_a_depthwise_model(fastest: onnx.ModelProto):
    images = noise(fastest)
    each, one = (
        relative_errors(run(quantised(fastest, per_channel=per_channel), images), run(fastest, images))
        for per_channel in (True, False)
    )
    assert 2 * max(each) < max(one)  # .05 and .17


def test_equalised_channels_and_corrected_biases_halve_the_error_of_a_depthwise_model(fastest: onnx.ModelProto):
    images = noise(fastest)
    expected = run(fastest, images)
    peaks = {name.removesuffix(".peak"): p[0, :, 0, 0] for name, p in run(channel_peaks_graph(fastest), images).items()}
    equal = equalised(fastest, doublings_from_peaks(fastest, peaks))
    got = run(equal, images)
    assert all(np.array_equal(got[name], head) for name, head in expected.items()), "in float no bit changes"
    amax = exact_amax(equal, images)
    measured = run(bias_shifts_graph(equal, qdq_from_onnx(equal, amax)), images)
    shifts = {name.removesuffix(".shift"): shift[0, :, 0, 0] for name, shift in measured.items()}
    plain, better = (
        max(relative_errors(run(each, images), expected))
        for each in (quantised(fastest), qdq_from_onnx(equal, amax, None, shifts))
    )
    assert 2 * better < plain


def test_weights_round_to_the_nearest_multiple():
    weights = np.array([[1.27, -0.016, 0.004], [0.0, 0.0, 0.0]], np.float32).reshape(2, 3, 1, 1)
    scales = weight_scales(weights, None, 1.0, per_channel=True)
    np.testing.assert_allclose(scales, [0.01, ZERO_SCALE], rtol=1e-6)
    assert int8_weights(weights, scales).ravel().tolist() == [127, -2, 0, 0, 0, 0]
    assert weight_scales(weights, None, 1.0, per_channel=False).shape == ()


def test_a_dead_filter_keeps_its_bias_in_integer_kernels(three_graph: onnx.ModelProto):
    """Its weights alone would give a scale at which ONNX Runtime's int32 bias overflows."""
    graph = onnx.ModelProto()
    graph.CopyFrom(three_graph)
    scale_filters(graph, "layers.1.conv.weight", [1e-12, 1e-12, 1e-7, 0, 0])
    images = noise(graph)
    errors = relative_errors(run(quantised(graph), images, integer_kernels=True), run(graph, images))
    assert max(errors) < 0.02


# Files


def test_equal_inputs_give_equal_bytes_and_leave_the_graph_as_it_was(small: onnx.ModelProto):
    before = small.SerializeToString(deterministic=True)
    amax = exact_amax(small, noise(small))
    contents = {
        qdq_from_onnx(small, given).SerializeToString(deterministic=True)
        for given in (amax, dict(sorted(amax.items())), amax | {"another": 1.0})
    }
    assert len(contents) == 1
    assert small.SerializeToString(deterministic=True) == before


def test_opset_17_suffices_and_types_fit(graph: onnx.ModelProto):
    got = quantised(graph)
    assert got.opset_import[0].version == 17
    onnx.shape_inference.infer_shapes(got, strict_mode=True)
    names = [node.name for node in got.graph.node]
    assert len(set(names)) == len(names)


def test_a_file_is_about_a_quarter(shapes_graph: onnx.ModelProto):
    assert quantised(shapes_graph).ByteSize() < 0.28 * shapes_graph.ByteSize()


# Refusals


@pytest.mark.parametrize(
    "value, message",
    [
        (None, r"layers\.3: the calibration has no amax for it; calibrate this model again, with this policy"),
        (float("nan"), r"layers\.3: its amax is nan; expected a positive number: calibrate with more or other images"),
        (float("inf"), r"layers\.3: its amax is inf; expected a positive number"),
        (0.0, r"layers\.3: its amax is 0; expected .* leave the layers that read it in float \(float_layers\)"),
        (-1.0, r"layers\.3: its amax is -1; "),
        (1e-45, r"layers\.3: its amax is 1e-45; "),
    ],
)
def test_an_amax_that_gives_no_scale_is_refused(small: onnx.ModelProto, value: float | None, message: str):
    amax = dict.fromkeys(quantised_activations(small), 1.0)
    if value is None:
        del amax["layers.3"]
    else:
        amax["layers.3"] = value
    with pytest.raises(ExportError, match=message):
        qdq_from_onnx(small, amax)


def test_policies_that_cannot_be_are_refused(small: onnx.ModelProto):
    with pytest.raises(ExportError, match="float_precision=int8; expected fp32 or fp16"):
        QdqPolicy(float_precision=Precision.INT8)
    with pytest.raises(
        ExportError, match="half_scales=True with float_precision=fp32; expected fp16: a float32 tensor"
    ):
        QdqPolicy(half_scales=True)
    with pytest.raises(ExportError, match="float16 scales in opset 17; expected an export of opset 19 or newer"):
        quantised(small, float_precision=Precision.FP16, half_scales=True)


def test_graphs_that_are_not_fp32_or_not_ours_are_refused(small: onnx.ModelProto):
    amax = dict.fromkeys(quantised_activations(small), 1.0)
    halved = fp16_from_onnx(small)
    halved_amax = dict.fromkeys(quantised_activations(halved), 1.0)
    with pytest.raises(ExportError, match=r"layers\.0\.conv: layers\.0\.conv\.weight is no float32 constant"):
        qdq_from_onnx(halved, halved_amax)
    with pytest.raises(
        ExportError, match=r"layers\.0\.conv\.weight\.dq is no float32 constant; expected an FP32 graph"
    ):
        qdq_from_onnx(qdq_from_onnx(small, amax), {f"{name}.dq": 1.0 for name in amax} | amax)
    foreign = onnx.ModelProto()
    foreign.CopyFrom(small)
    for node in foreign.graph.node:
        node.name = f"node.{node.name}"
    with pytest.raises(ExportError, match=r"no node is named layers\.\*"):
        qdq_from_onnx(foreign, amax)


# Engines


def plan_bytes(graph: onnx.ModelProto, meta: ModelMeta, folder: Path) -> tuple[int, Sequence[str]]:
    """Size of the plan, and what TensorRT-RTX complained of."""
    path = folder / "m.onnx"
    path.write_bytes(graph.SerializeToString())
    save_sidecar(replace(meta, onnx_sha256=sha256_of_file(path)), path)
    size = build_engine(path, folder / "m.engine", RTX).meta.plan_bytes
    return size, open_flavor(FlavorName.TENSORRT_RTX).log.take_problems()


@needs_rtx
def test_weights_are_int8_in_the_plan(tmp_path: Path):
    layers = (Conv(256, 3, 4, 1), Conv(512, 3, 1, 1), Conv(512, 3, 1, 1), Conv(14), Yolo(ANCHORS, 2))
    network = seeded(ModelSpec("wide", layers, (32, 32)))
    weights = network.spec.num_parameters
    graph, meta = exported(network), meta_from_spec(network.spec)
    fp32, _ = plan_bytes(graph, meta, tmp_path)
    assert fp32 > 4 * weights
    for rest in (Precision.FP32, Precision.FP16):
        got = quantised(graph, float_precision=rest)
        assert got.ByteSize() < 0.26 * graph.ByteSize()
        size, _ = plan_bytes(got, replace(meta, precision=Precision.INT8), tmp_path)
        assert weights < size < 0.35 * fp32, "kernels come on top, some 0.3 MB for each convolution"


@needs_rtx
@pytest.mark.parametrize(
    "policy",
    [
        QdqPolicy(),
        QdqPolicy(per_channel=False),
        QdqPolicy(weight_form=WeightForm.PAIR),
        QdqPolicy(float_precision=Precision.FP16),
        QdqPolicy(float_precision=Precision.FP16, weight_form=WeightForm.PAIR),
        QdqPolicy(frozenset({1, 2}), float_precision=Precision.FP16),
    ],
)
def test_every_policy_builds_without_a_warning(small: onnx.ModelProto, policy: QdqPolicy, tmp_path: Path):
    _, problems = plan_bytes(qdq_from_onnx(small, exact_amax(small, noise(small)), policy), SMALL_META, tmp_path)
    assert not problems


@needs_rtx
def test_float16_scales_build_with_a_warning_for_each(small: onnx.ModelProto, tmp_path: Path):
    graph = onnx.version_converter.convert_version(small, 19)
    got = quantised(graph, float_precision=Precision.FP16, half_scales=True)
    _, problems = plan_bytes(got, SMALL_META, tmp_path)
    assert problems and all("scales to fp32" in problem for problem in problems)


@needs_rtx
def test_a_real_model_builds(fastest: onnx.ModelProto, tmp_path: Path):
    _, problems = plan_bytes(
        quantised(fastest, float_precision=Precision.FP16), SMALL_META, tmp_path
    )  # only the batch counts
    assert not problems
