"""INT8 for the layers and heads of the wider Darknet family: where it stands, what it costs, and that engines build of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.engine.test_engine import needs_rtx
from tests.graph.test_qdq import exact_amax, exported, nodes_of, noise, plan_bytes, relative_errors, run, seeded
from yolov3_trt.graph.qdq import qdq_from_onnx
from yolov3_trt.graph.qdq_placement import QdqPolicy
from yolov3_trt.layers import Activation, Conv, HeadKind, LocalAvgPool, Reorg, Route, Sam, SpaceToDepth, Yolo
from yolov3_trt.meta import Precision, meta_from_spec
from yolov3_trt.postprocess import candidates_from_heads
from yolov3_trt.spec import ModelSpec

LEAKY = Activation.LEAKY


def family_spec(kind: HeadKind) -> ModelSpec:
    """Dilation with shared weights, [sam], [reorg], [reorg3d], [local_avgpool], and a head of the kind."""
    anchors = ((1.0, 2.0), (3.0, 1.5)) if kind is HeadKind.REGION else ((10.0, 20.0), (30.0, 15.0))
    head = Yolo(anchors, 3, kind=kind)
    layers = (
        Conv(16, 3, 2, 1, activation=LEAKY),
        Conv(16, 3, 1, 1, activation=LEAKY),
        Conv(16, 3, 1, 1, activation=LEAKY, dilation=2, shares=1),
        Conv(16, activation=Activation.LOGISTIC),
        Sam(2),
        Reorg(2),
        Route((2,)),
        SpaceToDepth(2),
        Route((2,)),
        LocalAvgPool(2, 2),
        Route((5, 7, 9)),
        Conv(16, activation=LEAKY),
        Conv(2 * head.fields, activation=Activation.LOGISTIC if kind is HeadKind.SCALED else Activation.LINEAR),
        head,
    )
    return ModelSpec("family", layers, (48, 80))


@pytest.fixture(
    scope="module",
    params=[
        HeadKind.SCALED,
        pytest.param(HeadKind.REGION, marks=pytest.mark.slow),
        pytest.param(HeadKind.GAUSSIAN, marks=pytest.mark.slow),
    ],
)
def kind(request: pytest.FixtureRequest) -> HeadKind:
    return request.param


@pytest.fixture(scope="module")
def graph(kind: HeadKind) -> onnx.ModelProto:
    return exported(seeded(family_spec(kind)))


def test_reorg_passes_int8_on_and_averages_and_products_stay_float(graph: onnx.ModelProto):
    got = qdq_from_onnx(graph, exact_amax(graph, noise(graph)), QdqPolicy())
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in got.graph.initializer}
    for layer in (5, 7):
        inside = [
            node for node in got.graph.node if node.name.startswith(f"layers.{layer}.") and "Linear" not in node.op_type
        ]
        assert {node.op_type for node in inside} == {"Reshape", "Transpose"}
        assert all(node.input[0].endswith(".dq") for node in inside)
        scales = {float(constants[node.input[0].replace(".dq", ".scale")]) for node in inside}
        (joined,) = nodes_of(got, "Concat")
        assert scales == {float(constants[name.replace(".dq", ".scale")]) for name in joined.input}
    assert all(name.endswith(".dq") for conv in nodes_of(got, "Conv") for name in conv.input[:2])
    floats = [
        node for node in got.graph.node if node.op_type in ("AveragePool", "Mul") and node.name.startswith("layers.")
    ]
    assert {int(node.name.split(".")[1]) for node in floats} == {4, 9}
    assert not any(name.endswith(".dq") for node in floats for name in node.input)
    assert got.graph.output[0].name == "head0"


def test_heads_and_pairs_stay_near_those_of_fp32(graph: onnx.ModelProto, kind: HeadKind):
    images = noise(graph)
    expected, got = run(graph, images), run(qdq_from_onnx(graph, exact_amax(graph, images), QdqPolicy()), images)
    (error,) = relative_errors(got, expected)
    assert error < 0.02
    meta = meta_from_spec(family_spec(kind))
    post = replace(meta.postprocess, conf=0.0, max_candidates=10_000)
    a, b = (candidates_from_heads([heads["head0"][0]], meta.heads, meta.input_hw, post) for heads in (expected, got))
    assert len(a.scores) == len(b.scores) == 3 * 2 * 12 * 20
    np.testing.assert_allclose(b.scores, a.scores, atol=0.02)


@needs_rtx
@pytest.mark.parametrize("rest", [Precision.FP32, Precision.FP16])
def test_engines_build_of_it_without_a_warning(graph: onnx.ModelProto, kind: HeadKind, rest: Precision, tmp_path: Path):
    got = qdq_from_onnx(graph, exact_amax(graph, noise(graph)), QdqPolicy(float_precision=rest))
    _, problems = plan_bytes(got, replace(meta_from_spec(family_spec(kind)), precision=Precision.INT8), tmp_path)
    assert not problems
