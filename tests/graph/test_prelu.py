"""LeakyRelu as PRelu: the same numbers from ONNX Runtime, in every precision, and a graph that TensorRT-RTX builds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.graphs import onnx_from_module
from yolov3_trt.builder.build import build_engine
from yolov3_trt.engine.flavor import installed_flavors
from yolov3_trt.errors import ExportError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.graph.fp16 import fp16_from_onnx
from yolov3_trt.graph.prelu import prelu_from_leaky
from yolov3_trt.graph.qdq import qdq_from_onnx, quantised_activations
from yolov3_trt.layers import Activation, Conv, Shortcut, Yolo
from yolov3_trt.meta import INPUT_NAME, ModelMeta, Precision, meta_from_spec, save_sidecar
from yolov3_trt.reference import YoloNetwork, module_from_spec
from yolov3_trt.settings import EngineSettings, FlavorName
from yolov3_trt.spec import ModelSpec

ORT = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def network() -> YoloNetwork:
    """Two branches with leaky activations between the image and one head; random weights, biases that are not zero."""
    leaky = Activation.LEAKY
    layers = (
        Conv(8, 3, 2, 1, activation=leaky),
        Conv(8, 1, activation=leaky),
        Conv(8, 3, 1, 1, activation=leaky),
        Shortcut((0,)),
        Conv(14),
        Yolo(((4.0, 4.0), (8.0, 8.0)), 2),
    )
    torch.manual_seed(0)
    network = module_from_spec(ModelSpec("small", layers, (32, 32)))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
    return network


@pytest.fixture(scope="module")
def meta(network: YoloNetwork) -> ModelMeta:
    return meta_from_spec(network.spec)


@pytest.fixture(scope="module")
def leaky(network: YoloNetwork, meta: ModelMeta) -> onnx.ModelProto:
    return onnx_from_module(network, meta, 17)


def run(graph: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=ORT).run(None, {INPUT_NAME: images})


def operators(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


def test_both_graphs_give_the_same_heads(leaky: onnx.ModelProto, meta: ModelMeta):
    parametric = prelu_from_leaky(leaky)
    assert "LeakyRelu" in operators(leaky), "the graph given stays as it was"
    assert "LeakyRelu" not in operators(parametric)
    assert [node.name for node in parametric.graph.node] == [node.name for node in leaky.graph.node]
    images = np.random.default_rng(0).random(meta.input_shape(1), np.float32)
    for expected, got in zip(run(leaky, images), run(parametric, images), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_one_slope_is_stored_once_as_a_constant_of_rank_4(leaky: onnx.ModelProto):
    parametric = prelu_from_leaky(leaky)
    nodes = [node for node in parametric.graph.node if node.op_type == "PRelu"]
    assert len(nodes) == sum(node.op_type == "LeakyRelu" for node in leaky.graph.node) > 0
    assert {node.input[1] for node in nodes} == {"slope.0.1"}
    (slope,) = (tensor for tensor in parametric.graph.initializer if tensor.name == "slope.0.1")
    np.testing.assert_array_equal(numpy_helper.to_array(slope), np.full((1, 1, 1, 1), 0.1, np.float32))


def test_each_slope_is_its_own_and_a_missing_one_is_onnx_s_default():
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["a"], "layers.0.activation", alpha=0.5),
        helper.make_node("LeakyRelu", ["a"], ["y"], "layers.1.activation"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "two", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(prelu_from_leaky(model).SerializeToString(), providers=ORT)
    (got,) = session.run(None, {"x": np.array([[[[-8.0, 3.0]]]], np.float32)})
    np.testing.assert_allclose(got, [[[[-0.04, 3.0]]]], rtol=1e-6)  # -8 * 0.5 * 0.01


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_the_graph_can_still_become_fp16_and_int8(precision: Precision, leaky: onnx.ModelProto, meta: ModelMeta):
    def typed(graph: onnx.ModelProto) -> onnx.ModelProto:
        if precision is Precision.FP16:
            return fp16_from_onnx(graph)
        return qdq_from_onnx(graph, dict.fromkeys(quantised_activations(graph), 8.0))

    images = np.random.default_rng(0).random(meta.input_shape(1), np.float32)
    for expected, got in zip(run(typed(leaky), images), run(typed(prelu_from_leaky(leaky)), images), strict=True):
        # Rounding to half, or to a step of int8, may fall to the other side here and there.
        assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)


def test_a_graph_that_is_fp16_already_is_refused(leaky: onnx.ModelProto):
    with pytest.raises(
        ExportError, match="has float16 weights; expected an FP32 graph: PRelu comes before fp16 and int8"
    ):
        prelu_from_leaky(fp16_from_onnx(leaky))


@pytest.mark.skipif(
    FlavorName.TENSORRT_RTX not in installed_flavors(), reason="TensorRT-RTX is not installed (extra rtx)"
)
def test_tensorrt_reads_and_builds_it(leaky: onnx.ModelProto, meta: ModelMeta, tmp_path: Path):
    path = tmp_path / "m.onnx"
    path.write_bytes(fp16_from_onnx(prelu_from_leaky(leaky)).SerializeToString())
    save_sidecar(replace(meta, precision=Precision.FP16, onnx_sha256=sha256_of_file(path)), path)
    assert build_engine(path, tmp_path / "m.engine", EngineSettings(FlavorName.TENSORRT_RTX)).meta.plan_bytes > 0
