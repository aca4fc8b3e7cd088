"""Distillation: the gradient through rounding, the distance of heads, and a student that is the Q/DQ graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.graphs import onnx_from_module
from yolov3_trt.backends.ort import run_graph
from yolov3_trt.graph.export import onnx_from_spec
from yolov3_trt.graph.parts import graph_that_gives
from yolov3_trt.graph.plain import PlainGraph, plain_graph
from yolov3_trt.graph.qdq import qdq_from_onnx, quantised_activations
from yolov3_trt.graph.qdq_placement import QdqPolicy, WeightForm
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import INPUT_NAME, ModelMeta, meta_from_spec
from yolov3_trt.models import load_model
from yolov3_trt.models.architectures import shapes
from yolov3_trt.models.darknet_cfg import parse_cfg
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.reference import module_from_spec
from yolov3_trt.shapes import shapes_picture
from yolov3_trt.spec import Head, ModelSpec
from yolov3_trt.training import distill
from yolov3_trt.training.distill import distance, distil, learning_rate
from yolov3_trt.training.quantised import GraphModule, rounded

CPU = torch.device("cpu")
# One of each operator that a network of this package has, and a head that is no convolution's alone.
FAMILY = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[maxpool]
size=2
stride=1
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
groups=4
activation=mish
[shortcut]
from=-2
activation=linear
[local_avgpool]
size=2
stride=2
[route]
layers=-1
groups=2
group_id=1
[convolutional]
filters=16
size=1
stride=1
activation=swish
[reorg3d]
stride=2
[convolutional]
filters=8
size=1
activation=relu6
[avgpool]
[scale_channels]
from=-2
[convolutional]
filters=8
size=1
activation=logistic
[sam]
from=-2
[upsample]
stride=2
[route]
layers=-1,-8
[convolutional]
filters=12
size=1
activation=linear
[yolo]
mask=0,1
anchors=4,4,8,8
classes=1
num=2
"""


def network(spec: ModelSpec) -> tuple[PlainGraph, PlainGraph, ModelMeta, dict[str, np.ndarray], np.ndarray]:
    """FP32 and Q/DQ graphs of random weights, their sidecar, what ONNX Runtime makes of either, and of what."""
    torch.manual_seed(0)
    meta = meta_from_spec(spec, tuple(map(str, range(spec.num_classes))))
    graph = onnx_from_module(module_from_spec(spec), meta)
    amax = dict.fromkeys(quantised_activations(graph), 2.0)
    images = np.random.default_rng(0).random((2, 3, *spec.input_hw), np.float32)
    qdq = [qdq_from_onnx(graph, amax, QdqPolicy(weight_form=form)) for form in (WeightForm.PAIR, WeightForm.INT8)]
    one = images[:1]
    expected = {"fp32": run_graph(graph.SerializeToString(), {INPUT_NAME: one})}
    expected["int8"] = run_graph(qdq[1].SerializeToString(), {INPUT_NAME: one})
    return plain_graph(graph), plain_graph(qdq[0]), meta, expected, images


@pytest.fixture(scope="module")
def small() -> tuple[PlainGraph, PlainGraph, ModelMeta, np.ndarray]:
    """Graphs of the bundled model with ranges that are too wide by half, its sidecar, and two of its pictures."""
    model = load_model("shapes", input_size=96)
    meta = meta_from_spec(model.spec, model.class_names)
    graph = onnx_from_spec(model.spec, model.weights, meta)
    images = np.concatenate([prepare_batch([shapes_picture(0, index).pixels], meta)[0].copy() for index in range(2)])
    maps = [name for name in quantised_activations(graph) if name != INPUT_NAME]
    peaks = run_graph(graph_that_gives(graph, maps).SerializeToString(), {INPUT_NAME: images[:1]})
    amax = {INPUT_NAME: 1.5, **{name: 1.5 * float(np.abs(values).max()) for name, values in peaks.items()}}
    return (
        plain_graph(graph),
        plain_graph(qdq_from_onnx(graph, amax, QdqPolicy(weight_form=WeightForm.PAIR))),
        meta,
        images,
    )


def test_rounding_is_that_of_int8_and_its_gradient_goes_straight_through():
    values = torch.tensor([0.3, -0.125, 0.375, 31.7, 31.9, -32.0, -32.2], requires_grad=True)
    found = rounded(values, torch.tensor(0.25))
    # Half to even: -0.5 steps become 0, 1.5 become 2. 127 steps are 31.75, -128 are -32.
    assert found.tolist() == [0.25, 0.0, 0.5, 31.75, 31.75, -32.0, -32.25 + 0.25]
    (found * torch.arange(1.0, 8.0)).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1, 2, 3, 4, 0, 6, 0]
    scale = torch.tensor(0.25, requires_grad=True)
    rounded(values.detach(), scale).backward(torch.tensor([1.0, 0, 0, 0, 0.5, 0, 2]))
    # By step: 0.3 is 1.2 steps and becomes 1, the cut ones are 127 and -128 whatever they were.
    assert scale.grad is not None and float(scale.grad) == pytest.approx((1 - 1.2) + 0.5 * 127 - 2 * 128, rel=1e-5)
    rows = torch.tensor([[0.6, 1.6], [0.6, 1.6]])
    assert rounded(rows, torch.tensor([1.0, 0.5])).tolist() == [[1, 2], [0.5, 1.5]]


def test_the_distance_is_that_of_probabilities_and_of_boxes_where_an_object_is_seen():
    head = Head("head0", 0, ((10.0, 10.0),), 1, (1, 1))
    theirs = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0, 0.0]).reshape(1, 6, 1, 1)  # objectness and class .5
    ours = torch.tensor([1.0, 2.0, 3.0, 6.0, np.log(3.0), 0.0]).reshape(1, 6, 1, 1)  # objectness .75, one side e^2
    objectness = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert float(distance([ours], [theirs], [head])) == pytest.approx(objectness + 0.5 * (4 / 2), rel=1e-5)
    assert float(distance([theirs], [theirs], [head])) == 0
    unseen = theirs.clone()
    unseen[:, 4] = -30  # no object: boxes count for nothing
    moved = unseen.clone()
    moved[:, :4] += 5
    assert float(distance([moved], [unseen], [head])) == pytest.approx(0, abs=1e-6)
    region = replace(head, num_classes=2, kind=HeadKind.REGION)
    right = torch.tensor([0.0, 0, 0, 0, 30, 0, 0]).reshape(1, 7, 1, 1)
    wrong = torch.tensor([0.0, 0, 0, 0, 30, np.log(3.0), 0]).reshape(1, 7, 1, 1)
    assert float(distance([wrong], [right], [region])) == pytest.approx(objectness, rel=1e-4)


@pytest.mark.parametrize(
    "spec", [shapes().with_input_hw((64, 64)), parse_cfg(FAMILY.encode())], ids=["shapes", "family"]
)
def test_the_student_computes_what_the_exported_graph_computes(spec: ModelSpec):
    teacher, student, _, expected, images = network(spec)
    with torch.no_grad():
        for graph, kind in ((teacher, "fp32"), (student, "int8")):
            got = GraphModule(graph, CPU)(torch.from_numpy(images[:1]))
            for found, right in zip(got, expected[kind].values(), strict=True):
                # In another order sums round otherwise, and then a value here or there to the next step of int8.
                limit = 1e-4 if kind == "fp32" else 0.05 * np.abs(expected["fp32"][next(iter(expected[kind]))]).max()
                np.testing.assert_allclose(found.numpy(), right, atol=limit, err_msg=kind)


def test_what_learns_comes_nearer_and_the_same_seed_learns_the_same(small, monkeypatch: pytest.MonkeyPatch):
    teacher, student, meta, images = small
    monkeypatch.setattr(distill, "_LEARNING_RATE", 0.01)
    batch = torch.from_numpy(images)
    runs = [distil(teacher, student, meta.heads, [batch] * 6, [images], 6) for _ in range(2)]
    assert 0 < runs[0].steps <= 6 and runs[0].after < runs[0].before
    assert runs[0].scales == runs[1].scales and runs[0].scales[INPUT_NAME] != 1.5 / 127
    assert runs[0].weights.keys() == runs[1].weights.keys() >= {"layers.0.conv.weight", "layers.0.conv.bias"}
    for name, values in runs[0].weights.items():
        assert values.tobytes() == runs[1].weights[name].tobytes()
        assert values.shape == teacher.constants[name].shape if name in teacher.constants else True
    moved = runs[0].weights["layers.0.conv.weight"] - student.constants["layers.0.conv.weight"]
    scale = student.constants["layers.0.conv.weight.scale"]
    assert 0 < np.sqrt(np.square(moved.reshape(len(scale), -1) / scale[:, None]).mean()) < 6 * learning_rate(9, 99)


def test_it_stops_where_it_helps_no_more_and_keeps_what_was_best(small, monkeypatch: pytest.MonkeyPatch):
    teacher, student, meta, images = small
    batch = torch.from_numpy(images[:1])
    for name, value in (("EVERY", 1), ("PATIENCE", 2), ("_LEARNING_RATE", 5.0)):  # far too wild
        monkeypatch.setattr(distill, name, value)
    said: list[str] = []
    found = distil(teacher, student, meta.heads, [batch] * 9, [images[:1]], 9, say=said.append)
    assert len(said) == 2 and found.steps == 0 and found.after == found.before
    for name, values in found.weights.items():
        assert np.array_equal(values, student.constants[name])
