"""Networks as graphs: node by node as PyTorch's exporter wrote them, and number by number as PyTorch computes."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.graphs import onnx_from_module
from yolov3_trt.backends.ort import run_graph
from yolov3_trt.graph import network as network_module
from yolov3_trt.graph.network import write_network
from yolov3_trt.graph.parts import graph_that_gives, save_graph
from yolov3_trt.graph.probe import layer_values
from yolov3_trt.graph.writer import GraphWriter
from yolov3_trt.jobs.export import export
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    Dropout,
    LocalAvgPool,
    MaxPool,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    SpaceToDepth,
    Upsample,
    Yolo,
)
from yolov3_trt.meta import INPUT_NAME, Batch, meta_from_spec
from yolov3_trt.models import load_spec
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.reference import module_from_spec, run_layers
from yolov3_trt.spec import BatchNorm, ModelSpec

# By model: SHA-256 of the nodes, see `digest_of`, as torch.onnx.export of PyTorch 2.13 and what this package then made of its
# graph gave them at opset 17, less attributes at their defaults and the nodes by which PyTorch keeps softplus from overflowing,
# which ONNX's does itself. Left out are enet-coco and yolov3-tiny-prn, in which the exporter gave two layers one slice.
EXPORTED = json.loads(Path(__file__).with_name("exported_by_torch.json").read_text())


@pytest.mark.parametrize("source", ["built-in", "cfg"])
def test_nodes_are_those_that_pytorchs_exporter_wrote(source: str, request, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network_module, "folded", lambda weights, spec, index: weights)  # only their names count here
    models = [name for name in EXPORTED if name.endswith(".cfg") == (source == "cfg")]
    assert source == "cfg" or {*models} == {*BUILT_IN}
    folder = request.getfixturevalue("data") / "models" if source == "cfg" else None
    for name in models:
        spec = load_spec(name if folder is None else folder / name)
        graph, kernel = GraphWriter(17), np.zeros(1, np.float32)
        write_network(graph, spec, (kernel, kernel), graph.input(INPUT_NAME, "float32", (1, 3, *spec.input_hw)))
        assert digest_of(graph._named_nodes()).startswith(EXPORTED[name]), name


def digest_of(nodes: list[onnx.NodeProto]) -> str:
    lines = []
    for node in nodes:
        found = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        attributes = sorted((name, tuple(v) if isinstance(v, list) else v) for name, v in found.items())
        lines.append(f"{node.name} {node.op_type} {' '.join(node.input)} -> {' '.join(node.output)} {attributes}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def every_layer(rule: BatchNorm) -> ModelSpec:
    """Each kind of layer and activation, each way in which maps of different shapes are added, and two heads."""
    act = Activation
    layers = (
        Conv(8, 3, 2, 1, batch_norm=True, bias=False, activation=act.LEAKY),  # 0: 8x16x16
        Conv(8, 3, 1, 1, groups=8, batch_norm=True, bias=True, activation=act.RELU6),  # 1
        Shortcut((0,), act.MISH),  # 2
        AvgPool(),  # 3: 8x1x1
        Conv(8, 1, activation=act.LOGISTIC),  # 4
        ScaleChannels(2, act.SWISH),  # 5: 8x16x16
        MaxPool(2, 2),  # 6: 8x8x8
        Upsample(2),  # 7: 8x16x16
        Route((7, 0)),  # 8: 16x16x16
        Route((8,), groups=2, group_id=1),  # 9: 8x16x16
        MaxPool(2, 1),  # 10
        Conv(8, 3, 1, 1, activation=act.RELU, dilation=2),  # 11
        Sam(10),  # 12
        Shortcut((11, 9, 0)),  # 13
        Reorg(2),  # 14: 32x8x8
        SpaceToDepth(2),  # 15: 128x4x4
        LocalAvgPool(2, 2),  # 16: 128x2x2
        LocalAvgPool(3, 1),  # 17
        LocalAvgPool(4, 1),  # 18
        Upsample(4, bilinear=True),  # 19: 128x8x8
        Conv(8, 1, bias=False, activation=act.SWISH),  # 20: 8x8x8
        Shortcut((0,)),  # 21: every second pixel
        Conv(16, 1, activation=act.LEAKY),  # 22
        Shortcut((0,), act.LEAKY),  # 23: of fewer channels
        Conv(6, 1),  # 24
        Shortcut((0,)),  # 25: of more channels
        Softmax(2),  # 26
        Dropout(0.5),  # 27
        Route((27, 26, 6), groups=2),  # 28: 10x8x8
        MaxPool(5, 2),  # 29: 10x4x4
        Conv(14, 1),  # 30
        Yolo(((4.0, 4.0), (8.0, 8.0)), 2),  # 31
        Route((30,)),  # 32
        Yolo(((4.0, 4.0), (8.0, 8.0)), 2),  # 33: the same logits
    )
    return ModelSpec("every", layers, (32, 32), batch_norm=rule)


@pytest.mark.parametrize("rule", [BatchNorm(), BatchNorm(1e-6, after_sqrt=True), BatchNorm(1e-3)])
@pytest.mark.parametrize("opset", [14, 18, 25])
def test_each_layer_computes_what_pytorch_does(rule: BatchNorm, opset: int):
    torch.manual_seed(0)
    network = module_from_spec(every_layer(rule))
    with torch.no_grad():
        for name, values in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("running_var"):  # small enough for the form of the epsilon to show
                values.copy_(10 ** torch.linspace(-4, 1, values.numel()))
            elif not name.endswith("conv.weight"):
                values.uniform_(-0.5, 0.5)
    meta = replace(meta_from_spec(network.spec), batch=Batch(1, 2, 3))
    graph = onnx_from_module(network, meta, opset)
    shapes = [
        [side.dim_value or side.dim_param for side in out.type.tensor_type.shape.dim] for out in graph.graph.output
    ]
    assert shapes == [["batch", 14, 4, 4]] * 2
    ends = layer_values(graph)
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    expected = run_layers(network, images, ends)
    got = run_graph(graph_that_gives(graph, list(ends.values())).SerializeToString(), {INPUT_NAME: images})
    passed_on = {27, 31, 32}
    assert set(ends) == set(range(34)) - passed_on
    for layer, value in ends.items():
        limit = 1e-4 * np.abs(expected[layer]).max()
        np.testing.assert_allclose(got[value], expected[layer], rtol=0, atol=limit, err_msg=value)


def test_a_graph_is_the_same_without_pytorch_and_says_that_it_was_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = {"precision": "fp16", "input_stage": "pixels", "output_stage": "detections", "frame_size": "300x200"}
    compared = export("shapes", tmp_path / "a.onnx", **given)
    assert compared.not_compared is None and compared.to_json()["verified"] is True
    monkeypatch.setitem(sys.modules, "torch", None)
    alone = export("shapes", tmp_path / "b.onnx", **given)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert alone.meta == compared.meta
    assert (alone.max_difference, alone.to_json()["verified"]) == ({}, False)
    assert alone.not_compared is not None
    assert alone.not_compared.startswith(
        "not compared with the PyTorch reference: torch is not installed; run: pip install"
    )
    assert f"yolov3_trt compare MODEL {alone.path} --images PICTURES" in alone.not_compared
    assert f"yolov3_trt certify {alone.path}" in alone.not_compared


def test_a_graph_written_weight_by_weight_is_the_whole_graph(tmp_path: Path):
    graph = onnx_from_module(module_from_spec(every_layer(BatchNorm())), meta_from_spec(every_layer(BatchNorm())))
    save_graph(graph, tmp_path / "a.onnx")
    assert onnx.load(tmp_path / "a.onnx") == graph
    onnx.checker.check_model(str(tmp_path / "a.onnx"))
