"""Equalised channels: which convolutions write larger ones, that no output changes, and what INT8 gains."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.graph.test_qdq import (
    ANCHORS,
    constants_of,
    exact_amax,
    exported,
    noise,
    quantised,
    relative_errors,
    run,
    seeded,
)
from tests.reference.test_reference import small_spec
from yolov3_trt.errors import ExportError
from yolov3_trt.graph.equalise import MAX_DOUBLINGS, channel_peaks_graph, doublings_from_peaks, equalised
from yolov3_trt.graph.fp16 import fp16_from_onnx
from yolov3_trt.graph.prelu import prelu_from_leaky
from yolov3_trt.graph.qdq import qdq_from_onnx, quantised_activations
from yolov3_trt.layers import Activation, Conv, MaxPool, Route, Shortcut, Upsample, Yolo
from yolov3_trt.meta import InputStage, OutputStage
from yolov3_trt.reference import YoloNetwork
from yolov3_trt.spec import ModelSpec


def uneven(network: YoloNetwork) -> YoloNetwork:
    """The same with channels whose sizes differ by up to 2**6, as training leaves them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.layers:
            if hasattr(layer, "conv"):
                factors = 2 ** -(6 * torch.rand(len(layer.conv.weight), generator=generator))
                layer.conv.weight *= factors.reshape(-1, 1, 1, 1)
                if layer.conv.bias is not None:
                    layer.conv.bias *= factors
    return network


def peaks_of(graph: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    measured = run(channel_peaks_graph(graph), images)
    return {name.removesuffix(".peak"): peaks.max(axis=(0, 2, 3)) for name, peaks in measured.items()}


def doublings_of(graph: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return doublings_from_peaks(graph, peaks_of(graph, noise(graph)))


def graph_of(*rows: tuple[str, str, Sequence[str], tuple[int, int] | None]) -> onnx.ModelProto:
    """A graph of nodes given by their type, name, inputs and, for convolutions, (filters, channels each reads).

    A node writes what is called as itself, the last one `head0`. Weights are random.
    """
    generator = np.random.default_rng(0)
    counts, nodes, tensors = {"images": 3}, [], []
    for op_type, name, maps, shape in rows:
        output = "head0" if name == rows[-1][1] else name
        inputs, options = list(maps), {}
        counts[output] = sum(counts[value] for value in maps) if op_type == "Concat" else counts[maps[0]]
        if shape is not None:
            counts[output] = shape[0]
            options = {"group": counts[maps[0]] // shape[1]}
            inputs += [f"{name}.weight", f"{name}.bias"]
            values = (generator.normal(size=(*shape, 1, 1)), generator.normal(size=shape[0]))
            tensors += [
                numpy_helper.from_array(v.astype(np.float32), n) for v, n in zip(values, inputs[1:], strict=True)
            ]
        options |= {"axis": 1} if op_type == "Concat" else {"kernel_shape": [1, 1]} if "Pool" in op_type else {}
        nodes.append(helper.make_node(op_type, inputs, [output], name, **options))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, counts[name], 8, 8)) for name in ("images", "head0")
    ]
    opsets = [helper.make_opsetid("", 17)]
    graph = helper.make_graph(nodes, "made", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def conv(index: int, reads: str, filters: int, channels: int) -> tuple[str, str, Sequence[str], tuple[int, int]]:
    return "Conv", f"layers.{index}.conv", [reads], (filters, channels)


def after(op_type: str, index: int, *reads: str) -> tuple[str, str, Sequence[str], None]:
    return op_type, f"layers.{index}", reads, None


def peaks_for(graph: onnx.ModelProto, **peaks: Sequence[float]) -> dict[str, np.ndarray]:
    """Of each tensor to be quantised: those given for `layers.INDEX` as _INDEX, else ones."""
    return {
        name: np.array(peaks.get(f"_{name.split('.')[1]}" if "." in name else name, np.ones_like(own)), np.float32)
        for name, own in peaks_of(graph, noise(graph)).items()
    }


@pytest.fixture(scope="module")
def network() -> YoloNetwork:
    """What lets factors pass: activations, a sum, a pool, a resize, a concatenation; depthwise and grouped convolutions."""
    layers = (
        Conv(8, 3, 2, 1, activation=Activation.LEAKY),
        Conv(8, 3, 1, 1, groups=8, activation=Activation.RELU),
        Conv(8),
        Shortcut((0,)),
        MaxPool(3, 1),
        Upsample(2),
        Conv(4, activation=Activation.LEAKY),
        Route((6, 5)),
        Conv(8, 3, 1, 1, groups=4, activation=Activation.LEAKY),
        Conv(14),
        Yolo(ANCHORS, 2),
    )
    return uneven(seeded(ModelSpec("small", layers, (16, 16))))


@pytest.fixture(scope="module")
def graph(network: YoloNetwork) -> onnx.ModelProto:
    return exported(network)


# Which


def test_a_channel_goes_seven_tenths_of_the_octaves_towards_the_peak():
    graph = graph_of(conv(0, "images", 6, 3), after("LeakyRelu", 1, "layers.0.conv"), conv(2, "layers.1", 14, 6))
    # Octaves below 8:                 0, .7, 1, 3, 10, 20
    peaks = peaks_for(graph, _1=[8, 8 * 2**-0.7, 4, 1, 2.0**-7, 2.0**-17])
    # .7 of them, to the nearest whole, but never above the peak: 0, 0 (not 1), 1, 2, 7, 9 (not 14)
    assert doublings_from_peaks(graph, peaks) == {"layers.0.conv": (0, 0, 1, 2, 7, MAX_DOUBLINGS)}


@pytest.fixture(scope="module")
def residual() -> onnx.ModelProto:
    return graph_of(
        conv(0, "images", 2, 3),
        conv(1, "layers.0.conv", 2, 2),
        after("Add", 2, "layers.1.conv", "layers.0.conv"),
        conv(3, "layers.2", 14, 2),
    )


def test_maps_that_a_sum_joins_are_doubled_alike_by_the_least(residual: onnx.ModelProto):
    peaks = peaks_for(residual, _0=[0.125, 1], _1=[0.25, 1], _2=[1 / 64, 1])  # by map: 2, 1 and 4
    assert doublings_from_peaks(residual, peaks) == {"layers.0.conv": (1, 0), "layers.1.conv": (1, 0)}
    peaks = peaks_for(residual, _0=[0.125, 1], _1=[0.25, 0.25], _2=[1 / 64, 1])  # the second peaks in both channels
    assert doublings_from_peaks(residual, peaks) == {}


def test_a_channel_that_is_always_zero_stays_unless_its_other_maps_say_more(residual: onnx.ModelProto):
    dead = peaks_for(residual, _0=[0, 1], _1=[0, 1], _2=[0, 1])
    assert doublings_from_peaks(residual, dead) == {}
    in_one = peaks_for(residual, _0=[0, 1], _1=[0.125, 1], _2=[0.125, 1])
    assert doublings_from_peaks(residual, in_one) == {"layers.0.conv": (2, 0), "layers.1.conv": (2, 0)}
    assert doublings_from_peaks(residual, {name: 0 * values for name, values in dead.items()}) == {}


def test_maps_that_share_a_scale_are_measured_by_the_largest_of_them():
    graph = graph_of(
        conv(0, "images", 2, 3),
        conv(1, "layers.0.conv", 1, 2),
        after("Concat", 2, "layers.1.conv", "layers.0.conv"),
        conv(3, "layers.2", 14, 3),
    )
    peaks = peaks_for(graph, _0=[1, 8], _1=[2], _2=[2, 1, 8])
    assert doublings_from_peaks(graph, peaks) == {"layers.0.conv": (2, 0), "layers.1.conv": (1,)}


@pytest.mark.parametrize("op_type", ["Sigmoid", "HardSwish", "Tanh"])
def test_what_does_not_let_factors_pass_reads_no_doubled_channels(op_type: str):
    bends = after(op_type, 1, "layers.0.conv")
    graph = graph_of(conv(0, "images", 2, 3), bends, conv(2, "layers.1", 2, 2), conv(3, "layers.2.conv", 14, 2))
    peaks = peaks_for(graph, _1=[1, 0.01], _2=[1, 2.0**-3])
    assert doublings_from_peaks(graph, peaks) == {"layers.2.conv": (0, 2)}


@pytest.mark.parametrize("op_type", ["LeakyRelu", "Relu", "MaxPool", "AveragePool"])
def test_what_is_as_large_as_its_input_lets_factors_pass(op_type: str):
    graph = graph_of(conv(0, "images", 2, 3), after(op_type, 1, "layers.0.conv"), conv(2, "layers.1", 14, 2))
    peaks = peaks_for(graph, _0=[1, 0.125], _1=[1, 0.125])
    doublings = doublings_from_peaks(graph, peaks)
    assert doublings == {"layers.0.conv": (0, 2)}
    images = noise(graph) - 0.5
    np.testing.assert_array_equal(run(equalised(graph, doublings), images)["head0"], run(graph, images)["head0"])


def test_neither_the_image_nor_heads_are_scaled():
    graph = graph_of(after("MaxPool", 0, "images"), conv(1, "layers.0", 14, 3))
    # The pool and the image are one group of scales; the image still is as it comes.
    assert doublings_from_peaks(graph, peaks_for(graph, images=[1, 0.01, 0.01], _0=[1, 0.01, 0.01])) == {}
    read_again = graph_of(conv(0, "images", 14, 3), conv(1, "layers.0.conv", 14, 14))
    peaks = peaks_for(read_again, _0=2.0 ** -np.arange(14))
    assert doublings_from_peaks(read_again, peaks)
    read_again.graph.output.append(helper.make_tensor_value_info("layers.0.conv", TensorProto.FLOAT, (1, 14, 8, 8)))
    assert doublings_from_peaks(read_again, peaks) == {}


# The graph


def test_weights_are_scaled_on_both_sides():
    graph = graph_of(conv(0, "images", 4, 3), conv(1, "layers.0.conv", 4, 2), conv(2, "layers.1.conv", 14, 4))
    got = equalised(graph, {"layers.0.conv": (0, 1, 2, 3), "layers.1.conv": (0, 0, 4, 0)})
    before, after = constants_of(graph), constants_of(got)
    ratio = {name: after[name] / values for name, values in before.items()}
    assert ratio["layers.0.conv.weight"][:, 0, 0, 0].tolist() == [1, 2, 4, 8]
    assert ratio["layers.0.conv.bias"].tolist() == [1, 2, 4, 8]
    # Filters 0 and 1 read channels 0 and 1, filters 2 and 3 the others; filter 2 writes 16 times as much.
    assert ratio["layers.1.conv.weight"][:, :, 0, 0].tolist() == [[1, 1 / 2], [1, 1 / 2], [4, 2], [1 / 4, 1 / 8]]
    assert ratio["layers.1.conv.bias"].tolist() == [1, 1, 16, 1]
    assert ratio["layers.2.conv.weight"][5, :, 0, 0].tolist() == [1, 1, 1 / 16, 1]
    assert (ratio["layers.2.conv.bias"] == 1).all()


def test_no_bit_of_an_output_changes(graph: onnx.ModelProto):
    doublings = doublings_of(graph)
    assert len(doublings) == 5 and max(map(max, doublings.values())) >= 3
    images = noise(graph) - 0.5
    np.testing.assert_array_equal(run(equalised(graph, doublings), images)["head0"], run(graph, images)["head0"])


def test_no_channel_exceeds_what_was_the_peak_of_its_scale(graph: onnx.ModelProto):
    images = noise(graph)
    equal = equalised(graph, doublings_of(graph))
    before, after = (qdq_from_onnx(each, exact_amax(each, images)) for each in (graph, equal))
    scales = {name: scale for name, scale in constants_of(before).items() if name.endswith(".scale")}
    activations = [name for name in scales if ".weight" not in name]
    assert len(activations) == len(quantised_activations(graph))
    assert all(constants_of(after)[name] <= scales[name] for name in activations)


def test_int8_is_three_times_as_fine_where_small_channels_count():
    graph = graph_of(conv(0, "images", 16, 3), after("LeakyRelu", 1, "layers.0.conv"), conv(2, "layers.1", 14, 16))
    factors = (2.0 ** -(np.arange(16) % 7)).astype(np.float32)  # down to a 64th, read with weights 64 times as large
    for tensor in graph.graph.initializer:
        scaled = numpy_helper.to_array(tensor).copy()
        if tensor.name.startswith("layers.0"):
            scaled *= factors.reshape(-1, *[1] * (scaled.ndim - 1))
        elif scaled.ndim == 4:
            scaled /= factors.reshape(1, -1, 1, 1)
        tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    images = noise(graph)
    expected = run(graph, images)
    plain, equal = (
        max(relative_errors(run(quantised(each), images), expected))
        for each in (graph, equalised(graph, doublings_of(graph)))
    )
    assert 3 * equal < plain


def test_the_same_doublings_serve_a_graph_with_stages_and_one_for_a_dla(network: YoloNetwork, graph: onnx.ModelProto):
    doublings = doublings_of(graph)
    equal = constants_of(equalised(graph, doublings))
    staged = exported(network, input_stage=InputStage.PIXELS, output_stage=OutputStage.DETECTIONS)
    for other in (staged, prelu_from_leaky(graph)):
        constants = constants_of(equalised(other, doublings))
        for name in (name for name in equal if name.endswith((".weight", ".bias"))):
            np.testing.assert_array_equal(constants[name], equal[name])
    assert doublings_from_peaks(prelu_from_leaky(graph), peaks_of(graph, noise(graph))) == doublings


def test_a_graph_with_every_kind_of_layer_can_be_equalised():
    small = exported(uneven(seeded(small_spec())))
    doublings = doublings_of(small)
    np.testing.assert_array_equal(
        run(equalised(small, doublings), noise(small))["head0"], run(small, noise(small))["head0"]
    )


def test_without_doublings_it_is_a_copy_and_the_graph_stays_as_it_was(graph: onnx.ModelProto):
    before = graph.SerializeToString(deterministic=True)
    assert equalised(graph, {}).SerializeToString(deterministic=True) == before
    assert equalised(graph, doublings_of(graph)).SerializeToString(deterministic=True) != before
    assert graph.SerializeToString(deterministic=True) == before


def test_peaks_are_those_of_each_channel_of_each_image(graph: onnx.ModelProto):
    images = noise(graph) - 0.5
    got = run(channel_peaks_graph(graph), images)
    assert set(got) == {f"{name}.peak" for name in quantised_activations(graph)}
    np.testing.assert_array_equal(got["images.peak"], np.abs(images).max(axis=(2, 3), keepdims=True))


# Refusals


@pytest.mark.parametrize("values, finite", [(None, 0), ([1.0] * 7, 7), ([1.0] * 7 + [float("nan")], 7)])
def test_peaks_that_are_not_a_finite_number_for_each_channel_are_refused(
    graph: onnx.ModelProto, values: list[float] | None, finite: int
):
    peaks = peaks_of(graph, noise(graph))
    del peaks["layers.3"]
    if values is not None:
        peaks["layers.3"] = np.array(values, np.float32)
    message = rf"layers\.3: {finite} finite peaks; expected 8, one for each channel: calibrate this model again"
    with pytest.raises(ExportError, match=message):
        doublings_from_peaks(graph, peaks)


@pytest.mark.parametrize(
    "doublings, message",
    [
        ({"layers.99.conv": (1,)}, r"layers\.99\.conv: doublings for a convolution that is not in this graph"),
        (
            {"layers.2.conv": (1, 2)},
            r"layers\.2\.conv: 2 doublings from 1 to 2; expected one for each of 8 filters, 0 to 9",
        ),
        ({"layers.2.conv": (0, 0, 0, 0, 0, 0, 0, 10)}, r"layers\.2\.conv: 8 doublings from 0 to 10; expected"),
        ({"layers.2.conv": (0, 0, 0, 0, 0, 0, 0, -1)}, r"layers\.2\.conv: 8 doublings from -1 to 0; expected"),
        ({"layers.2.conv": (1,) * 8}, r"layers\.3: its inputs are doubled differently; calibrate this model again"),
        ({"layers.9.conv": (1,) * 14}, r"the graph: head0 would come out doubled; calibrate this model again"),
    ],
)
def test_doublings_that_would_change_an_output_are_refused(
    graph: onnx.ModelProto, doublings: dict[str, tuple[int, ...]], message: str
):
    with pytest.raises(ExportError, match=message):
        equalised(graph, doublings)


def test_doublings_before_what_bends_are_refused():
    graph = graph_of(conv(0, "images", 2, 3), after("Sigmoid", 1, "layers.0.conv"), conv(2, "layers.1", 14, 2))
    with pytest.raises(ExportError, match=r"layers\.1: layers\.0\.conv would reach it doubled"):
        equalised(graph, {"layers.0.conv": (1, 0)})


def test_a_sum_with_a_constant_lets_no_factor_pass():
    graph = graph_of(conv(0, "images", 2, 3), after("Relu", 1, "layers.0.conv"), conv(2, "layers.1", 14, 2))
    graph.graph.node[1].op_type = "Add"
    graph.graph.node[1].input.append("layers.0.conv.bias")
    graph.graph.initializer[1].dims[:] = [2, 1, 1]
    with pytest.raises(ExportError, match=r"layers\.1: layers\.0\.conv would reach it doubled"):
        equalised(graph, {"layers.0.conv": (1, 0)})


def test_a_graph_that_is_not_fp32_is_refused(graph: onnx.ModelProto):
    doublings = doublings_of(graph)
    with pytest.raises(
        ExportError, match=r"layers\.0\.conv: its weights are no float32 constants; expected an FP32 graph"
    ):
        equalised(fp16_from_onnx(graph), doublings)
