"""FP32 graph -> graph with Q/DQ nodes: INT8 as a property of the graph, for every TensorRT and ONNX Runtime.

A pair of QuantizeLinear and DequantizeLinear says: here a value is int8. TensorRT runs an operation in int8 where pairs
surround it. Where they stand is said in `qdq_placement`. Weights are int8 too, biases stay float.

The pair of a tensor `T` is called `T.q` and `T.dq`, as nodes and as values, and its scale `T.scale`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.fp16 import fp16_from_onnx, is_layer
from yolov3_trt.graph.qdq_placement import QdqPolicy, WeightForm, int8_readers, maps_read, scale_groups
from yolov3_trt.graph.quantize_weights import INT8_MAX, float16_above, int8_weights, weight_scales
from yolov3_trt.meta import INPUT_NAME, Precision

_HALF_SCALES_OPSET = 19


def quantised_activations(model: onnx.ModelProto, policy: QdqPolicy | None = None) -> tuple[str, ...]:
    """The tensors that get a Q/DQ pair, by their names in the FP32 graph: those whose amax calibration must find."""
    return tuple(scale_groups(int8_readers(model.graph, policy or QdqPolicy())))


def qdq_from_onnx(
    model: onnx.ModelProto,
    amax: Mapping[str, float],
    policy: QdqPolicy | None = None,
    bias_shifts: Mapping[str, Sequence[float]] | None = None,
) -> onnx.ModelProto:
    """A copy of an FP32 graph with Q/DQ nodes.

    Args:
        model: as `onnx_from_module` gives it.
        amax: largest magnitude of each tensor of `quantised_activations`; it becomes 127, what is beyond is cut off. Of
            tensors that share a scale the largest counts. More names do no harm. The network's input may always be called
            `images`, also where a stage of the graph makes it.
        policy: see `QdqPolicy`.
        bias_shifts: by how much int8 shifts the mean of what each filter writes, by the name of the convolution, as measured
            with `bias_shifts_graph` with the same scales; it is taken from the biases of those that become int8. More names
            do no harm.

    Raises:
        ExportError: an amax is missing or no positive number; shifts are not one finite number per filter; the graph is not
            an FP32 graph of this package, or of too old an opset for this policy.
    """
    policy = policy or QdqPolicy()
    if not any(map(is_layer, model.graph.node)):
        raise ExportError("no node is named layers.*; expected a graph exported by this package")
    opset = next(imported.version for imported in model.opset_import if not imported.domain)
    if policy.half_scales and opset < _HALF_SCALES_OPSET:
        raise ExportError(f"float16 scales in opset {opset}; expected an export of opset {_HALF_SCALES_OPSET} or newer")
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    readers = int8_readers(model.graph, policy)
    scales = _activation_scales(readers, model.graph, amax)
    _QdqWriter(quantised.graph, policy, scales, bias_shifts or {}).write(readers)
    if policy.float_precision == Precision.FP16:
        quantised = fp16_from_onnx(quantised, half_scales=policy.half_scales)
    onnx.checker.check_model(quantised)
    return quantised


def _activation_scales(
    readers: list[onnx.NodeProto], graph: onnx.GraphProto, amax: Mapping[str, float]
) -> dict[str, float]:
    """What one step of int8 is worth, by tensor."""
    by_layers = {value for node in graph.node if is_layer(node) for value in node.output}
    groups = scale_groups(readers)
    largest = {value: _amax(value if value in by_layers or value in amax else INPUT_NAME, amax) for value in groups}
    return {value: max(largest[member] for member in group) / INT8_MAX for value, group in groups.items()}


def _amax(value: str, amax: Mapping[str, float]) -> float:
    if value not in amax:
        raise ExportError(f"{value}: the calibration has no amax for it; calibrate this model again, with this policy")
    if not np.isfinite(amax[value]) or not np.float32(amax[value] / INT8_MAX) > 0:
        raise ExportError(
            f"{value}: its amax is {amax[value]:g}; expected a positive number: calibrate with more or other images, or "
            "leave the layers that read it in float (float_layers)"
        )
    return amax[value]


class _QdqWriter:
    """Puts pairs into a graph."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        policy: QdqPolicy,
        scales: Mapping[str, float],
        bias_shifts: Mapping[str, Sequence[float]],
    ) -> None:
        self._graph = graph
        self._policy = policy
        self._scales = scales  # of activations
        self._bias_shifts = bias_shifts
        self._initializers = {initializer.name: initializer for initializer in graph.initializer}
        self._nodes: list[onnx.NodeProto] = []

    def write(self, readers: list[onnx.NodeProto]) -> None:
        """Quantise what these nodes read."""
        names = {node.name for node in readers}
        for original in self._graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            if node.name in names:
                if node.op_type == "Conv":
                    self._quantise_weights(node)
                for position, value in enumerate(maps_read(node)):
                    self._quantise_activation(value)
                    node.input[position] = f"{value}.dq"
            self._nodes.append(node)
        used = {value for node in self._nodes for value in node.input}
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(tensor for name, tensor in self._initializers.items() if name in used)

    def _quantise_activation(self, value: str) -> None:
        if f"{value}.scale" not in self._initializers:  # else an earlier reader's pair serves this one too
            self._add_scale(value, np.asarray(self._scales[value], np.float32))
            self._append("QuantizeLinear", value)
            self._append("DequantizeLinear", value)

    def _quantise_weights(self, conv: onnx.NodeProto) -> None:
        name = conv.input[1]
        self._correct_bias(conv)
        weights, *bias = (self._constant(conv, value) for value in conv.input[1:])
        input_scale = self._scales[conv.input[0]]
        scales = weight_scales(weights, bias[0] if bias else None, input_scale, self._policy.per_channel)
        scales = self._add_scale(name, scales)
        if self._policy.weight_form == WeightForm.PAIR:
            self._append("QuantizeLinear", name)
        else:
            self._add(f"{name}.q", int8_weights(weights, scales))
        self._append("DequantizeLinear", name)
        conv.input[1] = f"{name}.dq"

    def _correct_bias(self, conv: onnx.NodeProto) -> None:
        if conv.name not in self._bias_shifts:
            return
        shifts = np.asarray(self._bias_shifts[conv.name], np.float32)
        num_filters = len(self._constant(conv, conv.input[1]))
        if shifts.shape != (num_filters,) or not np.isfinite(shifts).all():
            raise ExportError(
                f"{conv.name}: {np.isfinite(shifts).sum()} finite bias shifts; expected {num_filters}, one for each filter: "
                "calibrate this model again"
            )
        bias = self._constant(conv, conv.input[2]) if len(conv.input) > 2 else np.zeros(num_filters, np.float32)
        conv.input[2:] = [f"{conv.name}.bias"]  # the exporter drops a bias that is zero
        self._add(f"{conv.name}.bias", bias - shifts)

    def _constant(self, conv: onnx.NodeProto, name: str) -> NDArray[np.float32]:
        tensor = self._initializers.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            raise ExportError(f"{conv.name}: {name} is no float32 constant; expected an FP32 graph of this package")
        values: NDArray[np.float32] = numpy_helper.to_array(tensor)
        return values

    def _add_scale(self, value: str, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._policy.half_scales:
            scales = float16_above(scales)
        self._add(f"{value}.scale", scales)
        return scales

    def _append(self, op_type: str, value: str) -> None:
        """QuantizeLinear T -> T.q or DequantizeLinear T.q -> T.dq: int8, symmetric."""
        source, target = (value, f"{value}.q") if op_type == "QuantizeLinear" else (f"{value}.q", f"{value}.dq")
        shape = tuple(self._initializers[f"{value}.scale"].dims)
        zero_point = ".".join(("zero_point", *map(str, shape)))  # one for all of this shape; TensorRT 8.5 must have it
        if zero_point not in self._initializers:
            self._add(zero_point, np.zeros(shape, np.int8))
        axis = {"axis": 0} if shape else {}
        inputs = [source, f"{value}.scale", zero_point]
        self._nodes.append(helper.make_node(op_type, inputs, [target], name=target, **axis))

    def _add(self, name: str, values: NDArray[np.generic]) -> None:
        self._initializers[name] = numpy_helper.from_array(values, name)
