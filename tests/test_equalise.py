"""Equalised channels: which convolutions write larger ones, that no output changes, and what INT8 gains."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import COCO_MODELS
from tests.test_qdq import constants_of, exact_amax, exported, noise, quantised, relative_errors, run, seeded
from tests.test_reference import small_spec
from yolov3_trt.errors import ExportError
from yolov3_trt.graph.equalise import MAX_DOUBLINGS, channel_peaks_graph, doublings_from_peaks, equalised
from yolov3_trt.graph.fp16 import fp16_from_onnx
from yolov3_trt.graph.prelu import prelu_from_leaky
from yolov3_trt.graph.qdq import qdq_from_onnx, quantised_activations
from yolov3_trt.layers import Activation, AvgPool, Conv, MaxPool, Route, Shortcut, Upsample, Yolo
from yolov3_trt.meta import InputStage, OutputStage
from yolov3_trt.models import Model
from yolov3_trt.reference import YoloNetwork, fuse_batch_norm, module_from_spec
from yolov3_trt.spec import ModelSpec

ANCHORS = ((4.0, 4.0), (8.0, 8.0))
LEAKY, RELU, LOGISTIC, RELU6 = Activation.LEAKY, Activation.RELU, Activation.LOGISTIC, Activation.RELU6
HEAD = (Conv(14), Yolo(ANCHORS, 2))


def network_of(*layers: object) -> YoloNetwork:
    return seeded(ModelSpec("small", layers, (16, 16)))


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


def made_up_peaks(graph: onnx.ModelProto, **peaks: Sequence[float]) -> dict[str, np.ndarray]:
    """Ones, but for the tensors given; `layers.0.activation` is written layers_0_activation."""
    known = peaks_of(graph, noise(graph))
    given = {name.replace("_", "."): np.array(values, np.float32) for name, values in peaks.items()}
    assert given.keys() <= known.keys()
    return {name: np.ones_like(values) for name, values in known.items()} | given


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """Two images, all kinds of nodes that pass channels on."""
    layers = (
        Conv(8, 3, 2, 1, activation=LEAKY),
        Conv(8, 3, 1, 1, groups=8, activation=RELU),
        Conv(8),
        Shortcut((0,)),
        MaxPool(3, 1),
        Upsample(2),
        Conv(4, activation=LEAKY),
        Route((-1, -2)),
        Conv(8, 3, 1, 1, groups=4, activation=LEAKY),
        *HEAD,
    )
    return exported(uneven(network_of(*layers)))


# Which


def test_a_channel_goes_seven_tenths_of_the_octaves_towards_the_peak():
    graph = exported(network_of(Conv(6, activation=LEAKY), *HEAD))
    # Octaves below 8:                                              0, .7, 1, 3, 10, 20
    peaks = made_up_peaks(graph, layers_0_activation=[8, 8 * 2**-0.7, 4, 1, 2.0**-7, 2.0**-17])
    # .7 of them, to the nearest whole, but never above the peak: 0, 0 (not 1), 1, 2, 7, 9 (not 14)
    assert doublings_from_peaks(graph, peaks) == {"layers.0.conv": (0, 0, 1, 2, 7, MAX_DOUBLINGS)}


def test_a_channel_that_is_always_zero_stays_unless_its_other_maps_say_more():
    graph = exported(network_of(Conv(2, activation=LEAKY), Conv(2, activation=LEAKY), Shortcut((0,)), *HEAD))
    dead = made_up_peaks(graph, layers_0_activation=[0, 1], layers_1_activation=[0, 1], layers_2=[0, 1])
    assert doublings_from_peaks(graph, dead) == {}
    one_dead = dead | {"layers.1.activation": np.array([0.125, 1], np.float32)}
    assert doublings_from_peaks(graph, one_dead) == {"layers.0.conv": (2, 0), "layers.1.conv": (2, 0)}


def test_maps_that_a_sum_joins_are_doubled_alike_by_the_least():
    graph = exported(network_of(Conv(2, activation=LEAKY), Conv(2, activation=LEAKY), Shortcut((0,)), *HEAD))
    peaks = made_up_peaks(graph, layers_0_activation=[0.125, 1], layers_1_activation=[0.25, 0.25], layers_2=[1 / 64, 1])
    # By map: 2 0 of octaves 3 0; none of 0 0, since the peak is that of the map; 4 0 of 6 0.
    assert doublings_from_peaks(graph, peaks) == {}
    peaks["layers.1.activation"] = np.array([0.25, 1], np.float32)
    assert doublings_from_peaks(graph, peaks) == {"layers.0.conv": (1, 0), "layers.1.conv": (1, 0)}


def test_maps_that_share_a_scale_are_measured_by_the_largest_of_them():
    graph = exported(network_of(Conv(2, activation=LEAKY), Conv(1, activation=LEAKY), Route((-1, 0)), *HEAD))
    peaks = made_up_peaks(graph, layers_0_activation=[1, 8], layers_1_activation=[2], layers_2=[2, 1, 8])
    assert doublings_from_peaks(graph, peaks) == {"layers.0.conv": (2, 0), "layers.1.conv": (1,)}


@pytest.mark.parametrize(
    "layers",
    [
        (Conv(2, activation=LOGISTIC),),
        (Conv(2, activation=RELU6),),
        (Conv(2, activation=Activation.SWISH),),
        (Conv(2), AvgPool(), Conv(2, activation=LOGISTIC)),
    ],
    ids=["logistic", "relu6", "swish", "excitation"],
)
def test_what_bends_keeps_its_inputs_as_they_are(layers: tuple[object, ...]):
    graph = exported(network_of(*layers, *HEAD))
    peaks = {name: values * [1, *[2.0**-8] * (len(values) - 1)] for name, values in made_up_peaks(graph).items()}
    doubled = doublings_from_peaks(graph, peaks)
    bent = f"layers.{len(layers) - 1}.conv"
    assert bent not in doubled and not any(name.startswith(f"layers.{len(layers)}.") for name in doubled)


def test_neither_the_image_nor_heads_are_scaled(graph: onnx.ModelProto):
    everything_uneven = {
        name: (2.0 ** -np.arange(len(peaks))).astype(np.float32)
        for name, peaks in peaks_of(graph, noise(graph)).items()
    }
    doublings = doublings_from_peaks(graph, everything_uneven)
    assert "layers.0.conv" in doublings and "layers.9.conv" not in doublings
    # Where a pool reads the image, they are one group of scales; the image still is as it comes.
    pooled = exported(network_of(MaxPool(2, 2), Conv(2, activation=LEAKY), *HEAD))
    peaks = made_up_peaks(pooled, images=[1, 0.01, 0.01], layers_0=[1, 0.01, 0.01])
    assert doublings_from_peaks(pooled, peaks) == {}


# The graph


def test_weights_are_scaled_on_both_sides():
    graph = exported(network_of(Conv(4, activation=LEAKY), Conv(4, 3, 1, 1, groups=2, activation=LEAKY), *HEAD))
    got = equalised(graph, {"layers.0.conv": (0, 1, 2, 3), "layers.1.conv": (0, 0, 4, 0)})
    before, after = constants_of(graph), constants_of(got)
    ratio = {name: after[name] / before[name] for name in before if name.endswith(("weight", "bias"))}
    assert ratio["layers.0.conv.weight"][:, 0, 0, 0].tolist() == [1, 2, 4, 8]
    assert ratio["layers.0.conv.bias"].tolist() == [1, 2, 4, 8]
    # Filters 0 and 1 read channels 0 and 1, filters 2 and 3 the others; filter 2 writes 16 times as much.
    assert ratio["layers.1.conv.weight"][:, :, 1, 1].tolist() == [[1, 1 / 2], [1, 1 / 2], [4, 2], [1 / 4, 1 / 8]]
    assert ratio["layers.1.conv.bias"].tolist() == [1, 1, 16, 1]
    assert ratio["layers.2.conv.weight"][5, :, 0, 0].tolist() == [1, 1, 1 / 16, 1]
    assert (ratio["layers.2.conv.bias"] == 1).all()


def test_no_bit_of_an_output_changes(graph: onnx.ModelProto):
    doublings = doublings_of(graph)
    assert len(doublings) == 5 and max(map(max, doublings.values())) >= 3
    images = noise(graph) - 0.5
    np.testing.assert_array_equal(run(equalised(graph, doublings), images)["head0"], run(graph, images)["head0"])


def test_no_bit_changes_in_a_real_model(coco_model: Callable[[str], Model]):
    model = coco_model(COCO_MODELS[0])
    real = exported(fuse_batch_norm(module_from_spec(model.spec, model.weights)))
    images = noise(real)
    doublings = doublings_of(real)
    assert len(doublings) > 50
    got, expected = run(equalised(real, doublings), images), run(real, images)
    assert all(np.array_equal(got[name], expected[name]) for name in expected)
    errors = [
        max(relative_errors(run(quantised(each), images), expected)) for each in (real, equalised(real, doublings))
    ]
    assert errors[1] < errors[0]


def test_no_channel_exceeds_what_was_the_peak_of_its_scale(graph: onnx.ModelProto):
    images = noise(graph)
    equal = equalised(graph, doublings_of(graph))
    before, after = (qdq_from_onnx(each, exact_amax(each, images)) for each in (graph, equal))
    scales = {name: scale for name, scale in constants_of(before).items() if name.endswith(".scale")}
    activations = [name for name in scales if ".weight" not in name]
    assert len(activations) == len(quantised_activations(graph))
    assert all(constants_of(after)[name] <= scales[name] for name in activations)


def test_int8_is_several_times_as_fine(graph: onnx.ModelProto):
    images = noise(graph)
    expected = run(graph, images)
    plain, equal = (
        max(relative_errors(run(quantised(each), images), expected))
        for each in (graph, equalised(graph, doublings_of(graph)))
    )
    assert 2 * equal < plain


def test_the_same_doublings_serve_a_graph_with_stages_and_one_for_a_dla(graph: onnx.ModelProto):
    network = uneven(seeded(ModelSpec("small", (Conv(8, 3, 2, 1, activation=LEAKY), *HEAD), (16, 16))))
    plain = exported(network)
    doublings = doublings_of(plain)
    assert doublings
    staged = exported(network, input_stage=InputStage.PIXELS, output_stage=OutputStage.DETECTIONS)
    equal = constants_of(equalised(plain, doublings))
    for other in (staged, prelu_from_leaky(plain)):
        constants = constants_of(equalised(other, doublings))
        for name in ("layers.0.conv.weight", "layers.0.conv.bias", "layers.1.conv.weight"):
            np.testing.assert_array_equal(constants[name], equal[name])
    peaks = peaks_of(plain, noise(plain))
    assert doublings_from_peaks(prelu_from_leaky(plain), peaks) == doublings


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


def test_peaks_that_are_missing_or_of_another_graph_are_refused(graph: onnx.ModelProto):
    peaks = peaks_of(graph, noise(graph))
    with pytest.raises(ExportError, match=r"layers\.3: peaks \(7,\); expected \(8,\): calibrate this model again"):
        doublings_from_peaks(graph, peaks | {"layers.3": np.ones(7, np.float32)})
    del peaks["layers.3"]
    with pytest.raises(ExportError, match=r"layers\.3: peaks none; expected \(8,\)"):
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
    graph = exported(network_of(Conv(2, activation=LOGISTIC), *HEAD))
    with pytest.raises(ExportError, match=r"layers\.0\.activation: layers\.0\.conv would reach it doubled"):
        equalised(graph, {"layers.0.conv": (1, 0)})


def test_a_sum_with_a_constant_lets_nothing_pass():
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["first"], "layers.0.conv"),
        helper.make_node("Add", ["first", "c"], ["sum"], "layers.1"),
        helper.make_node("Conv", ["sum", "v"], ["head0"], "layers.2.conv"),
    ]
    constants = {"w": np.ones((2, 3, 1, 1)), "c": np.ones((1, 2, 1, 1)), "v": np.ones((2, 2, 1, 1))}
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, count, 4, 4))
        for name, count in (("images", 3), ("head0", 2))
    ]
    graph = helper.make_model(
        helper.make_graph(nodes, "sum", ends[:1], ends[1:], tensors), opset_imports=[helper.make_opsetid("", 17)]
    )
    with pytest.raises(ExportError, match=r"layers\.1: first would reach it doubled"):
        equalised(graph, {"layers.0.conv": (1, 0)})


def test_a_graph_that_is_not_fp32_is_refused(graph: onnx.ModelProto):
    doublings = doublings_of(graph)
    with pytest.raises(
        ExportError, match=r"layers\.0\.conv: its weights are no float32 constants; expected an FP32 graph"
    ):
        equalised(fp16_from_onnx(graph), doublings)
