"""ONNX graphs as plain values, for who runs or changes them without onnx; and weights put into a graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from yolov3_trt.errors import ExportError


@dataclass(frozen=True)
class PlainNode:
    """One operator."""

    op_type: str
    inputs: tuple[str, ...]  # the empty name is one left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class PlainGraph:
    """Nodes in the order in which they compute, constants by name, and what goes in and comes out."""

    nodes: tuple[PlainNode, ...]
    constants: Mapping[str, NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Kernels and biases of the convolutions, float32 constants that the nodes read as they are or through a pair."""
        pairs = {node.outputs[0]: node.inputs[0] for node in self.nodes if node.op_type.endswith("uantizeLinear")}
        found: dict[str, None] = {}
        for node in self.nodes:
            for name in node.inputs[1:] if node.op_type == "Conv" else ():
                while name in pairs:
                    name = pairs[name]
                found[name] = None
        return tuple(found)


def plain_graph(model: onnx.ModelProto) -> PlainGraph:
    """A graph without its types and shapes."""
    graph = model.graph
    return PlainGraph(
        tuple(
            PlainNode(
                node.op_type,
                tuple(node.input),
                tuple(node.output),
                {attribute.name: _plain(helper.get_attribute_value(attribute)) for attribute in node.attribute},
            )
            for node in graph.node
        ),
        {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer},
        tuple(value.name for value in graph.input),
        tuple(value.name for value in graph.output),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value


def with_weights(model: onnx.ModelProto, weights: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """A copy of a graph with other values of its weights.

    Args:
        model: as `equalised` gives it.
        weights: by the names of its constants; those that are not named stay.

    Raises:
        ExportError: these are no weights of this graph.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copied.graph.initializer}
    for name, values in weights.items():
        expected = tuple(constants[name].dims) if name in constants else None
        if values.shape != expected or values.dtype != np.float32 or not np.isfinite(values).all():
            raise ExportError(
                f"{name}: distilled weights {values.dtype} {values.shape}; expected finite float32 {expected}: "
                "calibrate again with distillation"
            )
        constants[name].CopyFrom(numpy_helper.from_array(values, name))
    return copied
