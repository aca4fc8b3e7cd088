"""The layers of a network as ONNX nodes, batch norms folded into their convolutions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.graph.writer import GraphWriter, Value
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
    TrainingOnly,
    Upsample,
    Yolo,
    pool_pads,
)
from yolov3_trt.models.darknet_weights import Weights
from yolov3_trt.spec import BATCH_NORM_PARTS, IMAGE, ModelSpec


def write_network(graph: GraphWriter, spec: ModelSpec, weights: Weights, images: Value) -> list[Value]:
    """Write the layers that the heads depend on; what each computes is said in `layers`, and how in `reference`.

    Args:
        graph: to write to.
        spec: the network.
        weights: by the keys of `spec.weight_shapes`.
        images: (N, C, H, W) float32.

    Returns:
        The heads, (N, A * F, h, w) of logits, under their names. A node of layer 12 is called `layers.12`, those of a
        convolution `layers.12.conv` and `layers.12.activation`, and its weights `layers.12.conv.weight` and `.bias`.
    """
    values = {IMAGE: images}
    needed = spec.needed_for(spec.outputs)
    for index in range(len(spec.layers)):
        if index in needed:
            with graph.scope(f"layers.{index}"):
                values[index] = _layer(graph, spec, weights, index, [values[source] for source in spec.sources(index)])
    heads = []
    for head in spec.heads:
        with graph.scope(f"layers.{head.layer}"):
            heads.append(graph.called(values[head.layer], head.name))
    return heads


def folded(weights: Weights, spec: ModelSpec, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Kernel (F, C, h, w) and bias (F,), if any, of a convolution and its batch norm as one."""
    layer, key = spec.layers[index], f"layers.{index}"
    assert isinstance(layer, Conv)
    kernel, bias = weights[f"{key}.conv.weight"], weights.get(f"{key}.conv.bias")
    if not layer.batch_norm:
        return kernel, bias
    scale, shift, mean, variance = (weights[f"{key}.batch_norm.{part}"] for part in BATCH_NORM_PARTS)
    epsilon = np.float32(spec.batch_norm.epsilon)
    divisor = np.sqrt(variance) + epsilon if spec.batch_norm.after_sqrt else np.sqrt(variance + epsilon)
    inverse = 1 / divisor
    centred = -mean if bias is None else bias - mean
    return kernel * (scale * inverse)[:, None, None, None], centred * inverse * scale + shift


def _layer(graph: GraphWriter, spec: ModelSpec, weights: Weights, index: int, sources: Sequence[Value]) -> Value:
    layer, x = spec.layers[index], sources[0]
    _, height, width = spec.input_shape(index)
    match layer:
        case Conv():
            return _conv(graph, spec, weights, index, x)
        case MaxPool() | LocalAvgPool():
            before, after = zip(*(pool_pads(layer, side) for side in (height, width)), strict=True)
            windows = {"kernel_shape": (layer.size,) * 2, "strides": (layer.stride,) * 2, "pads": before + after}
            return x.op("MaxPool" if isinstance(layer, MaxPool) else "AveragePool", **windows)
        case AvgPool():
            return x.op("AveragePool", kernel_shape=(height, width), strides=(height, width))
        case Upsample(stride=stride, bilinear=bilinear):
            scales = np.array([1, 1, stride, stride], np.float32)
            if bilinear:
                return x.op("Resize", None, scales, mode="linear", coordinate_transformation_mode="half_pixel")
            floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            return x.op("Resize", None, scales, mode="nearest", **floor)
        case Route():
            return _route(spec, layer, sources)
        case Shortcut(activation=activation):
            return _activated(graph, _sum(spec, index, sources), activation)
        case ScaleChannels(activation=activation) | Sam(activation=activation):
            return _activated(graph, x * sources[1], activation)
        case Reorg(stride=stride) | SpaceToDepth(stride=stride):
            return _space_to_depth(spec, index, stride, x)
        case Softmax(groups=groups):
            return x.reshape(0, groups, -1).op("Softmax", axis=2).reshape(0, *spec.shapes[index])
        case Dropout() | Yolo() | TrainingOnly():
            return x


def _conv(graph: GraphWriter, spec: ModelSpec, weights: Weights, index: int, x: Value) -> Value:
    conv = spec.layers[index]
    assert isinstance(conv, Conv)
    named = zip(("weight", "bias"), folded(weights, spec, index), strict=True)
    with graph.scope("conv"):
        x = x.op(
            "Conv",
            *(graph.weight(f"layers.{index}.conv.{part}", values) for part, values in named if values is not None),
            kernel_shape=(conv.size,) * 2,
            strides=(conv.stride,) * 2,
            pads=(conv.pad * conv.dilation,) * 4,
            dilations=(conv.dilation,) * 2,
            group=conv.groups,
        )
    return _activated(graph, x, spec.activation(index))


def _activated(graph: GraphWriter, x: Value, activation: Activation) -> Value:
    with graph.scope("activation"):
        match activation:
            case Activation.LINEAR:
                return x
            case Activation.LEAKY:
                return x.op("LeakyRelu", alpha=0.1)
            case Activation.RELU:
                return x.op("Relu")
            case Activation.RELU6:
                return x.op("Clip", 0.0, 6.0)
            case Activation.MISH:  # ONNX has one of its own from opset 18 on only
                return x * x.op("Softplus").op("Tanh")
            case Activation.SWISH:
                return x * x.sigmoid()
            case Activation.LOGISTIC:
                return x.sigmoid()


def _route(spec: ModelSpec, route: Route, sources: Sequence[Value]) -> Value:
    parts = list(sources)
    if route.groups > 1:
        for place, source in enumerate(route.sources):
            channels = spec.source_shape(source)[0] // route.groups
            parts[place] = sources[place].slice(1, route.group_id * channels, (route.group_id + 1) * channels)
    return parts[0] if len(parts) == 1 else parts[0].op("Concat", *parts[1:], axis=1)


def _sum(spec: ModelSpec, index: int, sources: Sequence[Value]) -> Value:
    """See layers.Shortcut."""
    channels, height, _ = spec.shapes[index]
    x = sources[0]
    for number, source in zip(spec.sources(index)[1:], sources[1:], strict=True):
        others, other_height, _ = spec.source_shape(number)
        if others > channels:
            source = source.slice(1, 0, channels)
        if (step := other_height // height) > 1:
            source = source.slice(2, 0, step=step).slice(3, 0, step=step)
        both = x.slice(1, 0, others) if others < channels else x
        x = both + source if both is x else (both + source).op("Concat", x.slice(1, others), axis=1)
    return x


def _space_to_depth(spec: ModelSpec, index: int, stride: int, x: Value) -> Value:
    channels, height, width = spec.input_shape(index)
    if isinstance(spec.layers[index], Reorg):  # takes its input for a wider map of fewer channels
        channels, height, width = channels // stride**2, height * stride, width * stride
    blocks = x.reshape(0, channels, height // stride, stride, width // stride, stride)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(0, *spec.shapes[index])
