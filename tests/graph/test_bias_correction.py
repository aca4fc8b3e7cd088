"""Bias correction: shifts by hand, and that what was measured is gone once it is taken from the biases."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.graph.test_equalise import conv, graph_of
from tests.graph.test_qdq import ANCHORS, constants_of, exact_amax, exported, noise, run, seeded
from yolov3_trt.errors import ExportError
from yolov3_trt.graph.bias_correction import bias_shifts_graph
from yolov3_trt.graph.qdq import qdq_from_onnx
from yolov3_trt.graph.qdq_placement import QdqPolicy, WeightForm
from yolov3_trt.layers import Activation, Conv, Shortcut, Yolo
from yolov3_trt.meta import Precision
from yolov3_trt.spec import ModelSpec


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    layers = (
        Conv(8, 3, 2, 1, activation=Activation.LEAKY),
        Conv(8, 3, 1, 1, groups=8, activation=Activation.RELU),
        Conv(8),
        Shortcut((0,)),
        Conv(14),
        Yolo(ANCHORS, 2),
    )
    return exported(seeded(ModelSpec("small", layers, (16, 16))))


@pytest.fixture(scope="module")
def amax(graph: onnx.ModelProto) -> dict[str, float]:
    """Half of what occurs: much is cut off, always towards zero."""
    return {name: value / 2 for name, value in exact_amax(graph, noise(graph)).items()}


def shifts_of(graph: onnx.ModelProto, quantised: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    measured = run(bias_shifts_graph(graph, quantised), images)
    return {name.removesuffix(".shift"): shifts.mean(axis=(0, 2, 3)) for name, shifts in measured.items()}


def test_a_shift_by_hand():
    graph = graph_of(conv(0, "images", 2, 3))
    weights = np.array([[1.27, 0.014, 0], [0, 1.27, -1.27]], np.float32).reshape(2, 3, 1, 1)
    bias = np.array([5, -5], np.float32)
    for tensor, values in zip(graph.graph.initializer, (weights, bias), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    # Steps of .1 up to 12.7 for the image, of .01 for the weights: .014 becomes .01, which is -.004.
    images = np.ones((1, 3, 8, 8), np.float32) * np.array([1.04, 10, 20], np.float32).reshape(1, 3, 1, 1)
    images[0, 0, :4] = 2  # half of the map: there nothing is lost, in the other half .04
    got = shifts_of(graph, qdq_from_onnx(graph, {"images": 12.7}), images)
    assert set(got) == {"layers.0.conv"}
    expected = [1.27 * -0.04 / 2 - 0.004 * 10, -1.27 * -7.3]  # 20 is cut off to 12.7
    np.testing.assert_allclose(got["layers.0.conv"], expected, rtol=1e-4)


@pytest.mark.parametrize("policy", [QdqPolicy(), QdqPolicy(per_channel=False), QdqPolicy(weight_form=WeightForm.PAIR)])
def test_once_corrected_no_shift_is_left(graph: onnx.ModelProto, amax: dict[str, float], policy: QdqPolicy):
    images = noise(graph)
    shifts = shifts_of(graph, qdq_from_onnx(graph, amax, policy), images)
    assert set(shifts) == {f"layers.{index}.conv" for index in (0, 1, 2, 4)}
    corrected = qdq_from_onnx(graph, amax, policy, shifts)
    left = shifts_of(graph, corrected, images)
    for name, shift in shifts.items():
        assert np.abs(left[name]).max() < 1e-5 < 1e-3 < np.abs(shift).max()


def test_the_heads_keep_their_mean_and_come_nearer(graph: onnx.ModelProto, amax: dict[str, float]):
    images = noise(graph)
    plain = qdq_from_onnx(graph, amax)
    expected = run(graph, images)["head0"]
    errors = [
        run(each, images)["head0"] - expected
        for each in (plain, qdq_from_onnx(graph, amax, None, shifts_of(graph, plain, images)))
    ]
    means = [np.linalg.norm(error.mean(axis=(0, 2, 3))) for error in errors]
    assert 1.4 * means[1] < means[0]  # not to 0: what the activations bend is not measured
    assert np.linalg.norm(errors[1]) < np.linalg.norm(errors[0])


def test_layers_left_float_keep_their_biases(graph: onnx.ModelProto, amax: dict[str, float]):
    shifts = shifts_of(graph, qdq_from_onnx(graph, amax), noise(graph))
    got = constants_of(qdq_from_onnx(graph, amax, QdqPolicy(frozenset({2})), shifts))
    biases = {name: values for name, values in constants_of(graph).items() if name.endswith("bias")}
    for name, bias in biases.items():
        shift = 0 if name == "layers.2.conv.bias" else shifts[name.removesuffix(".bias")]
        np.testing.assert_array_equal(got[name], bias - np.float32(shift))
    halved = constants_of(qdq_from_onnx(graph, amax, QdqPolicy(float_precision=Precision.FP16), shifts))
    assert halved["layers.0.conv.bias"].dtype == np.float16
    np.testing.assert_allclose(halved["layers.0.conv.bias"], got["layers.0.conv.bias"], rtol=1e-3)


def test_a_convolution_without_a_bias_gets_one(graph: onnx.ModelProto, amax: dict[str, float]):
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    (node,) = (node for node in bare.graph.node if node.name == "layers.2.conv")
    del node.input[2:]
    images = noise(graph)
    shifts = shifts_of(bare, qdq_from_onnx(bare, amax), images)
    corrected = qdq_from_onnx(bare, amax, None, shifts)
    np.testing.assert_array_equal(constants_of(corrected)["layers.2.conv.bias"], -shifts["layers.2.conv"])
    assert np.abs(shifts_of(bare, corrected, images)["layers.2.conv"]).max() < 1e-5


def test_graphs_are_left_as_they_were(graph: onnx.ModelProto, amax: dict[str, float]):
    quantised = qdq_from_onnx(graph, amax)
    before = [each.SerializeToString(deterministic=True) for each in (graph, quantised)]
    shifts = shifts_of(graph, quantised, noise(graph))
    assert [each.SerializeToString(deterministic=True) for each in (graph, quantised)] == before
    assert qdq_from_onnx(graph, amax, None, {}).SerializeToString(deterministic=True) == before[1]
    more = qdq_from_onnx(graph, amax, None, shifts | {"layers.77.conv": [1.0]})
    assert more == qdq_from_onnx(graph, amax, None, shifts), "names of other graphs do no harm"


@pytest.mark.parametrize("shifts", [[0.0] * 7, [0.0] * 7 + [float("nan")], [0.0] * 7 + [float("inf")], []])
def test_shifts_that_are_not_a_finite_number_for_each_filter_are_refused(
    graph: onnx.ModelProto, amax: dict[str, float], shifts: list[float]
):
    finite = min(len(shifts), 7)
    message = (
        rf"layers\.2\.conv: {finite} finite bias shifts; expected 8, one for each filter: calibrate this model again"
    )
    with pytest.raises(ExportError, match=message):
        qdq_from_onnx(graph, amax, None, {"layers.2.conv": shifts})


def test_what_is_not_int8_in_a_float32_rest_cannot_be_measured(graph: onnx.ModelProto, amax: dict[str, float]):
    for other in (graph, qdq_from_onnx(graph, amax, QdqPolicy(float_precision=Precision.FP16))):
        with pytest.raises(
            ExportError, match="no convolution of this graph reads int8; expected what qdq_from_onnx gives"
        ):
            bias_shifts_graph(graph, other)
