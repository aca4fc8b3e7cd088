"""An ONNX graph in the making, written as plain tensor code; its nodes are named after where in the network they stand."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from yolov3_trt._version import __version__

_END = np.iinfo(np.int64).max  # of a slice that goes to the end; its negative: to the end, backwards

_Shape = Sequence[int | str | None] | None  # a side that varies has a name


class Value:
    """A tensor of a graph in the making: what is computed with it becomes nodes of that graph."""

    def __init__(self, graph: "GraphWriter", key: str) -> None:
        self._graph = graph
        self.key = key

    def op(self, op_type: str, *others: Any, **attributes: Any) -> "Value":
        """The node of any operator that reads this value first."""
        return self._graph.node(op_type, self, *others, **attributes)

    def __add__(self, other: Any) -> "Value":
        return self.op("Add", other)

    def __sub__(self, other: Any) -> "Value":
        return self.op("Sub", other)

    def __rsub__(self, other: Any) -> "Value":
        return self._graph.node("Sub", other, self)

    def __mul__(self, other: Any) -> "Value":
        return self.op("Mul", other)

    def __truediv__(self, other: Any) -> "Value":
        return self.op("Div", other)

    def __gt__(self, other: Any) -> "Value":
        return self.op("Greater", other)

    def __lt__(self, other: Any) -> "Value":
        return self.op("Less", other)

    def __and__(self, other: Any) -> "Value":
        return self.op("And", other)

    def sigmoid(self) -> "Value":
        """Element by element."""
        return self.op("Sigmoid")

    def cast(self, dtype: Any) -> "Value":
        """As another type of NumPy's."""
        return self.op("Cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, *shape: int) -> "Value":
        """0 keeps a side, -1 follows from the others."""
        return self.op("Reshape", shape)

    def transpose(self, *axes: int) -> "Value":
        """All axes in another order."""
        return self.op("Transpose", perm=axes)

    def unsqueeze(self, axis: int) -> "Value":
        """With a new axis of one."""
        return self.op("Unsqueeze", (axis,))

    def slice(self, axis: int, start: int, stop: int | None = None, step: int = 1) -> "Value":
        """As NumPy slices one axis."""
        end = stop if stop is not None else _END if step > 0 else -_END
        return self.op("Slice", (start,), (end,), (axis,), (step,))

    def pick(self, axis: int, index: int) -> "Value":
        """One place of an axis, without that axis."""
        return self.op("Gather", np.int64(index), axis=axis)

    def where(self, condition: "Value", other: float) -> "Value":
        """This where a condition holds, else a number."""
        return self._graph.node("Where", condition, self, other)

    def top(self, count: int) -> tuple["Value", "Value"]:
        """The largest along axis 1, in descending order, and where they are."""
        best, places = self._graph.nodes("TopK", self, (count,), outputs=2, axis=1)
        return best, places


@dataclass(frozen=True)
class _Node:
    scope: str
    op_type: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


class GraphWriter:
    """Collects nodes; `model` names them.

    A node is called after the scope that it was written in, such as `layers.12.conv`, and after its operator too where there
    are several in that scope: `layers.12.activation.Mul`. What a node gives is called as the node, a constant after its first
    reader; equal constants are one.
    """

    def __init__(self, opset: int) -> None:
        """Begin an empty graph of an opset of the standard operators."""
        self.opset = opset
        self._scope = ""
        self._inputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[_Node] = []
        self._names: dict[str, str] = {"": ""}  # final ones, by key; the empty one is an input left out
        self._constants: dict[tuple[Any, ...], tuple[str, NDArray[Any]]] = {}  # key and values, by what they are
        self._weights: dict[str, NDArray[Any]] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """What is written within is called after this, and after the scope around it."""
        outer = self._scope
        self._scope = f"{outer}.{name}" if outer else name
        yield
        self._scope = outer

    def input(self, name: str, dtype: str, shape: _Shape) -> Value:
        """An input of the graph."""
        self._inputs.append(_typed(name, dtype, shape))
        return self.called(Value(self, name), name)

    def weight(self, name: str, values: NDArray[Any]) -> Value:
        """An initialiser of this very name, whatever others hold."""
        self._weights[name] = values
        return self.called(Value(self, name), name)

    def called(self, value: Value, name: str) -> Value:
        """A value under a name that it shall keep: itself, or a copy where it has one already."""
        if value.key in self._names:
            value = self.node("Identity", value)
        self._names[value.key] = name
        return value

    def node(self, op_type: str, *inputs: Any, **attributes: Any) -> Value:
        """What an operator gives of values, arrays, whole numbers in a tuple (int64), numbers (float32) or None, left out."""
        return self.nodes(op_type, *inputs, outputs=1, **attributes)[0]

    def nodes(self, op_type: str, *inputs: Any, outputs: int, **attributes: Any) -> tuple[Value, ...]:
        """The same of an operator with several outputs."""
        keys = [f"%{len(self._nodes)}.{position}" for position in range(outputs)]
        self._nodes.append(_Node(self._scope, op_type, [self._key(one) for one in inputs], keys, attributes))
        return tuple(Value(self, key) for key in keys)

    def model(self, name: str, outputs: Mapping[str, tuple[str, _Shape]]) -> onnx.ModelProto:
        """The graph, checked, with the shapes of all its values; the writer is empty then.

        Args:
            name: of the graph.
            outputs: names that values were `called`, in order, and their types and shapes; None is what follows.
        """
        nodes = self._named_nodes()
        constants = [numpy_helper.from_array(values, self._names[key]) for key, values in self._constants.values()]
        # Weights are inputs while it is checked, which copies all that a graph holds.
        weights = [_typed(key, str(values.dtype), values.shape) for key, values in self._weights.items()]
        model = helper.make_model(
            helper.make_graph(
                nodes,
                name,
                [*self._inputs, *weights],
                [_typed(output, *kind) for output, kind in outputs.items()],
                constants,
            ),
            opset_imports=[helper.make_operatorsetid("", self.opset)],
            producer_name="yolov3_trt",
            producer_version=__version__,
        )
        model.ir_version = helper.find_min_ir_version_for(model.opset_import)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model)
        del model.graph.input[len(self._inputs) :], model.graph.initializer[:]
        for key in list(self._weights):
            model.graph.initializer.add().CopyFrom(numpy_helper.from_array(self._weights.pop(key), key))
        model.graph.initializer.extend(constants)
        return model

    def _named_nodes(self) -> list[onnx.NodeProto]:
        in_scope = Counter(node.scope for node in self._nodes)
        taken = Counter(self._names.values())

        def unique(name: str) -> str:
            taken[name] += 1
            return name if taken[name] == 1 else f"{name}.{taken[name]}"

        named = []
        for node in self._nodes:
            name = unique(node.scope if in_scope[node.scope] == 1 else f"{node.scope}.{node.op_type}")
            for position, key in enumerate(node.outputs):
                self._names.setdefault(key, name if position == 0 else f"{name}.{position}")
            for key in node.inputs:
                if key not in self._names:  # a constant: nodes that come before have named what they give
                    self._names[key] = unique(f"{name}.constant")
            inputs, outputs = ([self._names[key] for key in keys] for keys in (node.inputs, node.outputs))
            named.append(helper.make_node(node.op_type, inputs, outputs, name=name, **node.attributes))
        return named

    def _key(self, operand: Any) -> str:
        if isinstance(operand, Value):
            return operand.key
        if operand is None:
            return ""
        kind = np.float32 if isinstance(operand, int | float) else np.int64 if isinstance(operand, tuple) else None
        values = np.asarray(operand, kind)
        what = (values.dtype.str, values.shape, values.tobytes())
        return self._constants.setdefault(what, (f"%constant.{len(self._constants)}", values))[0]


def _typed(name: str, dtype: str, shape: _Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
