"""A Q/DQ graph as a PyTorch module that learns: it computes what the graph computes, and gradients pass its rounding.

A pair of QuantizeLinear and DequantizeLinear rounds to whole multiples of its scale and cuts off what int8 cannot hold. Its
gradient is the straight-through one (Bengio et al., arXiv 1308.3432): that of the identity, and 0 where values were cut off.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from yolov3_trt.errors import TrainingError
from yolov3_trt.graph.plain import PlainGraph, PlainNode

_INT8 = (-128, 127)  # what QuantizeLinear saturates at
_STEP = 127  # of int8: the largest weight of a filter


class GraphModule(nn.Module):
    """A graph of this package, in FP32 or with Q/DQ pairs around float32 weights: images (N, C, H, W) -> its outputs.

    The weights of a graph with pairs learn, and the scales of its maps (Esser et al., arXiv 1902.08153). What learns of each
    filter is how far its weights are from where they began, in steps of their int8 scale, so that one learning rate fits all
    layers; likewise of a bias, in what a step of the input makes of the filter's largest weight; of a scale it is the
    logarithm. The scale of a filter follows its largest weight, as in the graph that is exported.
    """

    def __init__(self, graph: PlainGraph, device: torch.device, shared: Mapping[str, str] | None = None) -> None:
        """Take over a graph; nothing of it learns without pairs.

        Args:
            graph: to compute.
            device: to compute on.
            shared: map -> the first of those that share its scale; None: each has its own.
        """
        super().__init__()
        self._graph = graph
        self._constants = {
            name: torch.from_numpy(np.array(values)).to(device) for name, values in graph.constants.items()
        }
        pairs = {node.outputs[0]: node for node in graph.nodes if node.op_type == "QuantizeLinear"}
        self._pairs = {  # DequantizeLinear's output -> what is quantised, and the scale
            node.outputs[0]: pairs[node.inputs[0]].inputs[:2]
            for node in graph.nodes
            if node.op_type == "DequantizeLinear"
        }
        self._steps: dict[str, Tensor] = {}  # of what learns, by name
        self._floors: dict[str, Tensor] = {}  # of the scales of kernels
        self.moved = nn.ParameterDict()
        self._names: dict[str, str] = {}  # a parameter's name must have no dot
        for node in graph.nodes:
            if node.op_type == "Conv" and node.inputs[1] in self._pairs:
                self._learn(node)
        maps = [source for source, _ in self._pairs.values() if source not in self._constants]
        self._shared = {source: (shared or {}).get(source, source) for source in maps}
        self._scales = {source: self._constants[f"{source}.scale"] for source in maps}
        names = {first: f"{first.replace('.', '/')}/scale" for first in self._shared.values()}
        self._scale_names = {source: names[first] for source, first in self._shared.items()}
        for name in names.values():
            self.moved[name] = nn.Parameter(torch.zeros((), device=device))

    def _learn(self, conv: PlainNode) -> None:
        kernel, scale_name = self._pairs[conv.inputs[1]]
        input_scale = self._constants[self._pairs[conv.inputs[0]][1]]
        scale = self._constants[scale_name]
        largest = self._constants[kernel].abs().amax(dim=(1, 2, 3)) / _STEP
        # Where a scale is above what the largest weight asks for it is kept up by the bias, see `quantize_weights`.
        self._floors[kernel] = torch.where(scale > largest * 1.001, scale, torch.zeros_like(scale))
        self._add(kernel, scale[:, None, None, None])
        for bias in conv.inputs[2:]:
            self._add(bias, scale * input_scale * _STEP)

    def _add(self, name: str, step: Tensor) -> None:
        self._steps[name], self._names[name] = step, name.replace(".", "/")
        self.moved[self._names[name]] = nn.Parameter(torch.zeros_like(self._constants[name]))

    def weight(self, name: str) -> Tensor:
        """What learns, as it is now."""
        start = self._constants[name]
        return start + self._steps[name] * self.moved[self._names[name]] if name in self._steps else start

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """All that learns, arrays of their own."""
        with torch.no_grad():
            return {name: self.weight(name).contiguous().cpu().numpy().copy() for name in self._steps}

    def scale(self, name: str) -> Tensor:
        """Of a map, as it is now."""
        return self._scales[name] * self.moved[self._scale_names[name]].exp()

    def scales(self) -> dict[str, float]:
        """Of all maps that are quantised."""
        with torch.no_grad():
            return {name: float(self.scale(name)) for name in self._scales}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the graph."""
        values: dict[str, Tensor] = {self._graph.inputs[0]: images}

        def value(name: str) -> Tensor:
            return values[name] if name in values else self._constants[name]

        for node in self._graph.nodes:
            if node.op_type == "QuantizeLinear":
                continue
            if node.op_type == "DequantizeLinear":
                source, _ = self._pairs[node.outputs[0]]
                is_map = source in values
                values[node.outputs[0]] = (
                    rounded(values[source], self.scale(source)) if is_map else self._rounded_weight(source)
                )
                continue
            if node.op_type == "Conv":
                own = [value(node.inputs[0]), value(node.inputs[1]), *map(self.weight, node.inputs[2:])]
                values[node.outputs[0]] = _conv(own, node.attributes)
                continue
            values[node.outputs[0]] = self._computed(node, [value(name) if name else None for name in node.inputs])
        return tuple(values[name] for name in self._graph.outputs)

    def _rounded_weight(self, name: str) -> Tensor:
        weight = self.weight(name)
        with torch.no_grad():
            scale = torch.maximum(weight.abs().amax(dim=(1, 2, 3)) / _STEP, self._floors[name])
        return rounded(weight, scale)

    def _computed(self, node: PlainNode, inputs: Sequence[Tensor | None]) -> Tensor:
        if node.op_type not in _OPERATORS:
            raise TrainingError(
                f"{node.outputs[0]}: {node.op_type} cannot be distilled; calibrate without distillation"
            )
        return _OPERATORS[node.op_type](inputs, node.attributes)


def rounded(values: Tensor, scale: Tensor) -> Tensor:
    """Values as int8 has them; their gradient passes where nothing is cut off, that of one scale is by what it rounds and cuts.

    Args:
        values: of any shape.
        scale: of one step: (), or (F,) along the first axis.
    """
    if scale.ndim:
        scale = scale.reshape(-1, *[1] * (values.ndim - 1))
    return cast(Tensor, _Rounded.apply(values, scale))


class _Rounded(torch.autograd.Function):
    """PyTorch has such functions of its own, which take ten times as long on a CPU."""

    @staticmethod
    def forward(context: Any, values: Tensor, scale: Tensor) -> Tensor:
        """See `rounded`."""
        steps = (values / scale).round_()  # half to even, as QuantizeLinear
        cut = None
        if values.requires_grad or scale.requires_grad:
            low, high = steps.aminmax()
            if low < _INT8[0] or high > _INT8[1]:
                cut = (steps < _INT8[0]) | (steps > _INT8[1])
        context.cut = cut
        found = steps.clamp_(*_INT8).mul_(scale)
        if scale.requires_grad:
            context.save_for_backward(values, found, scale)
        return found

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """Straight through, but for what was cut off; of a scale, steps as rounded less steps as they were, or as cut."""
        passed = gradient if context.cut is None else gradient.masked_fill(context.cut, 0)
        if not context.needs_input_grad[1]:
            return passed, None
        values, found, scale = context.saved_tensors
        return passed, ((gradient * found).sum() - (passed * values).sum()) / scale


def _conv(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    bias = inputs[2] if len(inputs) > 2 else None
    pads, group = attributes["pads"], attributes["group"]
    return F.conv2d(inputs[0], inputs[1], bias, attributes["strides"], pads[:2], attributes["dilations"], group)


def _pool(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Tensor:
    top, left, bottom, right = attributes["pads"]
    kernel, strides = attributes["kernel_shape"], attributes["strides"]
    if (top, left) == (bottom, right):
        return F.max_pool2d(inputs[0], kernel, strides, (top, left))
    return F.max_pool2d(F.pad(inputs[0], (left, right, top, bottom), value=-torch.inf), kernel, strides)


def _average(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Tensor:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    kernel, strides = attributes["kernel_shape"], attributes["strides"]

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (left, right, top, bottom)), kernel, strides)

    return mean(inputs[0]) / mean(torch.ones_like(inputs[0][:1, :1]))  # padding does not count


def _resize(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Tensor:
    factors = inputs[2].tolist()[2:]
    if attributes["mode"] == "linear":
        return F.interpolate(inputs[0], scale_factor=factors, mode="bilinear", align_corners=False)
    return F.interpolate(inputs[0], scale_factor=factors, mode="nearest")


def _slice(inputs: Sequence[Any], _: Mapping[str, Any]) -> Tensor:
    x, starts, ends, axes, steps = inputs
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True):
        x = x[(*[slice(None)] * axis, slice(start, end, step))]
    return x


def _reshape(inputs: Sequence[Any], _: Mapping[str, Any]) -> Tensor:
    x, shape = inputs[0], inputs[1].tolist()
    return x.reshape([x.shape[axis] if side == 0 else side for axis, side in enumerate(shape)])


_OPERATORS: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], Tensor]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "AveragePool": _average,
    "Clip": lambda inputs, _: inputs[0].clamp(float(inputs[1]), float(inputs[2])),
    "Concat": lambda inputs, attributes: torch.cat(list(inputs), dim=attributes["axis"]),
    "Identity": lambda inputs, _: inputs[0],
    "LeakyRelu": lambda inputs, attributes: F.leaky_relu(inputs[0], attributes["alpha"]),
    "MaxPool": _pool,
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Relu": lambda inputs, _: F.relu(inputs[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda inputs, _: inputs[0].sigmoid(),
    "Slice": _slice,
    "Softmax": lambda inputs, attributes: inputs[0].softmax(dim=attributes["axis"]),
    "Softplus": lambda inputs, _: F.softplus(inputs[0]),
    "Tanh": lambda inputs, _: inputs[0].tanh(),
    "Transpose": lambda inputs, attributes: inputs[0].permute(attributes["perm"]),
}
