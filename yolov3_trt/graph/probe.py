"""What each layer of the network gives, inside a graph of any precision."""

import re
from collections.abc import Sequence

import onnx

_LAYER = re.compile(r"layers\.(\d+)(\.|$)")
GIVEN = "given"  # an input of `probed`
# Nodes that bring a value into another type or onto another grid, for the layers that read it; the layer ends before them.
_CARRIERS = {"QuantizeLinear", "DequantizeLinear", "Cast"}


def layer_of(name: str) -> int | None:
    """Index in the cfg of the layer that a node is named after; None for a stage of the graph."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def layer_values(model: onnx.ModelProto) -> dict[int, str]:
    """Layer -> the value that it ends in, in order; layers that the graph does without, such as dropout, are missing."""
    ends = {}
    for node in model.graph.node:
        layer = layer_of(node.name)
        if layer is not None and node.op_type not in _CARRIERS:
            ends[layer] = node.output[0]
    return dict(sorted(ends.items()))


def layer_sources(model: onnx.ModelProto) -> dict[int, tuple[int, ...]]:
    """Layer -> the layers whose values it reads; none of those that read the input only."""
    wrote = {value: layer_of(node.name) for node in model.graph.node for value in node.output}
    found: dict[int, set[int]] = {}
    for node in model.graph.node:
        layer = layer_of(node.name)
        if layer is None or node.op_type in _CARRIERS:
            continue
        sources = {wrote.get(value) for value in node.input} - {layer, None}
        found.setdefault(layer, set()).update(source for source in sources if source is not None)
    return {layer: tuple(sorted(sources)) for layer, sources in sorted(found.items())}


def layer_operators(model: onnx.ModelProto) -> dict[int, str]:
    """Layer -> what its nodes do, e.g. `Conv, LeakyRelu`."""
    found: dict[int, list[str]] = {}
    for node in model.graph.node:
        layer = layer_of(node.name)
        if layer is not None and node.op_type not in _CARRIERS:
            found.setdefault(layer, []).append(node.op_type)
    return {layer: ", ".join(operators) for layer, operators in sorted(found.items())}


def probed(model: onnx.ModelProto, values: Sequence[str], given: str | None = None) -> onnx.ModelProto:
    """A copy of a graph that gives these values of it, in whatever type they are, and nothing else.

    What reads the value `given` reads the input GIVEN instead, float32, in the value's own type.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=value) for value in values)  # the type follows from the graph
    if given is not None:
        readers = [(node, n) for node in graph.node for n, value in enumerate(node.input) if value == given]
        for node, n in readers:
            node.input[n] = f"{GIVEN}.like"
        writer = next(n for n, node in enumerate(graph.node) if given in node.output)
        like = onnx.helper.make_node("CastLike", [GIVEN, given], [f"{GIVEN}.like"], f"{GIVEN}.like")
        graph.node.insert(writer + 1, like)
        graph.input.append(onnx.helper.make_tensor_value_info(GIVEN, onnx.TensorProto.FLOAT, None))
    return copied
