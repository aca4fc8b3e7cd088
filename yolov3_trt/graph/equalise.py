"""FP32 graph -> the same function with channels of like size, which INT8 is far less coarse for.

A map has one scale, so a channel that stays below a tenth of the map's peak gets a tenth of the steps; depthwise models are
full of such channels. What lies between two convolutions lets a positive factor pass, channel by channel, if it is a leaky or
plain ReLU, a pool, a resize, a sum or a concatenation. So the convolution before may write a channel larger, and the one after
read it with smaller weights; weights have a scale for each filter and hardly notice.

Nagel et al. (2019), "Data-free quantization through weight equalization and bias correction", choose the factors by ranges of
weights. On the depthwise models of this field, with scales per filter, that buys next to nothing; the peaks of the channels on
the calibration pictures buy 3 to 6 dB at the heads.

Factors are powers of two, `doublings` their exponents. So float32 rounds as before, and no bit of an output changes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.parts import graph_that_gives, map_shapes
from yolov3_trt.graph.qdq import quantised_activations
from yolov3_trt.graph.qdq_placement import QdqPolicy, int8_readers, maps_read, scale_groups

MAX_DOUBLINGS = 9
# How far a channel is brought towards its map's peak, in octaves. All the way (1) would make the weights that read the map,
# which have one scale per filter, too uneven. COCO models do as well with .85, and 1 to 2 dB worse with .5.
_SHARE = 0.7
_PASSING = {"LeakyRelu", "PRelu", "Relu", "MaxPool", "AveragePool", "Resize", "Add", "Concat"}
_UNBOUND = MAX_DOUBLINGS + 1  # of a channel that nothing is known of but zeros

Exponents = NDArray[np.int64]


def has_groups(model: onnx.ModelProto) -> bool:
    """Whether a convolution is depthwise or in groups, so that its channels do not meet and may differ much in size."""
    return any(
        attribute.i > 1 for node in model.graph.node for attribute in node.attribute if attribute.name == "group"
    )


def channel_peaks_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that measures, by the name of each tensor of `quantised_activations`, the peak of its channels.

    Its outputs are called `TENSOR.peak`: (N, C, 1, 1) float32, the largest magnitude of each channel of each image.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = quantised_activations(model)
    for tensor in tensors:
        magnitudes, peak = f"{tensor}.magnitudes", f"{tensor}.peak"
        copied.graph.node.append(helper.make_node("Abs", [tensor], [magnitudes], name=magnitudes))
        copied.graph.node.append(helper.make_node("GlobalMaxPool", [magnitudes], [peak], name=peak))
    return graph_that_gives(copied, [f"{tensor}.peak" for tensor in tensors])


def doublings_from_peaks(
    model: onnx.ModelProto, peaks: Mapping[str, NDArray[np.float32]]
) -> dict[str, tuple[int, ...]]:
    """How often each convolution shall double what it writes.

    No channel ends above what was the peak of its map, or of the maps that share its scale.

    Args:
        model: an FP32 graph of this package.
        peaks: (C,) largest magnitude of each channel over all pictures, by tensor of `quantised_activations`.

    Returns:
        An exponent for each filter, 0 to `MAX_DOUBLINGS`, by the name of the convolution; those with none are left out.

    Raises:
        ExportError: a tensor has no peaks, or not a finite one for each channel.
    """
    graph = model.graph
    counts = _channel_counts(model)
    doublings = {value: np.full(count, _UNBOUND) for value, count in counts.items()}
    doublings.update(_room_for_doublings(graph, counts, peaks))
    fixed = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        if node.op_type != "Conv" and not _passes_channels(node, counts):
            fixed.update((*node.input, *node.output))
    for value in fixed & set(counts):
        doublings[value] = np.zeros(counts[value], np.int64)
    passing = [node for node in graph.node if _passes_channels(node, counts)]
    while any([_agree(node, doublings) for node in passing]):  # each of them every time; numbers only fall, so it ends
        pass
    found = {}
    for node in graph.node:
        if node.op_type == "Conv":
            exponents = doublings[node.output[0]]
            found[node.name] = tuple(np.where(exponents == _UNBOUND, 0, exponents).tolist())
    return {name: exponents for name, exponents in found.items() if any(exponents)}


def equalised(model: onnx.ModelProto, doublings: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """A copy of an FP32 graph whose convolutions write larger channels and read them with smaller weights.

    Args:
        model: as `onnx_from_module` or `prelu_from_leaky` gives it, with stages or without.
        doublings: from `doublings_from_peaks`.

    Raises:
        ExportError: these are no doublings of this graph: its outputs would change.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if not doublings:
        return copied
    counts = _channel_counts(model)
    constants = {initializer.name: initializer for initializer in copied.graph.initializer}
    convs = {node.name for node in model.graph.node if node.op_type == "Conv"}
    if unknown := sorted(set(doublings) - convs):
        raise ExportError(
            f"{unknown[0]}: doublings for a convolution that is not in this graph; calibrate this model again"
        )
    carried = {value: np.zeros(count, np.int64) for value, count in counts.items()}
    for node in copied.graph.node:
        if node.op_type == "Conv":
            after = _checked(node.name, doublings.get(node.name), counts[node.output[0]])
            _rescale(node, constants, carried[node.input[0]], after)
            carried[node.output[0]] = after
        elif _passes_channels(node, counts):
            carried[node.output[0]] = _passed_on(node, carried)
        else:
            _require_plain(node, carried)
    for output in copied.graph.output:
        if output.name in carried and carried[output.name].any():
            raise ExportError(f"the graph: {output.name} would come out doubled; calibrate this model again")
    return copied


def _channel_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Channels of every map, (N, C, H, W)."""
    return {value: channels for value, (channels, _, _) in map_shapes(model).items() if channels}


def _room_for_doublings(
    graph: onnx.GraphProto, counts: Mapping[str, int], peaks: Mapping[str, NDArray[np.float32]]
) -> dict[str, Exponents]:
    """How often the channels of each quantised tensor should be doubled; those that are always zero as often as you like."""
    groups = scale_groups(int8_readers(graph, QdqPolicy()))
    for value in groups:
        found = np.asarray(peaks.get(value, ()))
        if found.shape != (counts[value],) or not np.isfinite(found).all():
            raise ExportError(
                f"{value}: {np.isfinite(found).sum()} finite peaks; expected {counts[value]}, one for each channel: calibrate "
                "this model again"
            )
    rooms = {}
    for value, group in groups.items():
        alive = peaks[value] > 0
        largest = max(float(peaks[member].max()) for member in group)
        octaves = np.log2(largest / peaks[value][alive].astype(np.float64))  # below the peak
        rooms[value] = np.full(counts[value], _UNBOUND)
        rooms[value][alive] = np.minimum(np.rint(_SHARE * octaves), np.floor(octaves)).clip(0, MAX_DOUBLINGS)
    return rooms


def _passes_channels(node: onnx.NodeProto, counts: Mapping[str, int]) -> bool:
    """Whether a factor on a channel of what this node reads comes out as that factor, on the channel's own place."""
    maps = maps_read(node)
    if node.op_type not in _PASSING or not {*maps, node.output[0]} <= counts.keys():
        return False
    num_channels = counts[node.output[0]]
    if node.op_type == "Concat":
        return sum(counts[value] for value in maps) == num_channels  # else along another axis
    return all(counts[value] == num_channels for value in maps)


def _agree(node: onnx.NodeProto, doublings: dict[str, Exponents]) -> bool:
    """Lower the doublings before and after a node that passes channels on to the least of both; False: nothing changed."""
    maps, output = maps_read(node), node.output[0]
    sides = [doublings[value] for value in maps]
    joined = np.concatenate(sides) if node.op_type == "Concat" else np.minimum.reduce(sides)
    agreed = np.minimum(joined, doublings[output])
    ends = np.cumsum([len(side) for side in sides])
    parts = np.split(agreed, ends[:-1]) if node.op_type == "Concat" else [agreed] * len(maps)
    changed = False
    for value, part in zip((*maps, output), (*parts, agreed), strict=True):
        changed |= not np.array_equal(doublings[value], part)
        doublings[value] = part
    return changed


def _checked(conv: str, given: Sequence[int] | None, num_filters: int) -> Exponents:
    if given is None:
        return np.zeros(num_filters, np.int64)
    exponents = np.asarray(given, np.int64)
    if exponents.shape != (num_filters,) or exponents.min() < 0 or exponents.max() > MAX_DOUBLINGS:
        raise ExportError(
            f"{conv}: {exponents.size} doublings from {min(given, default=0)} to {max(given, default=0)}; expected one for "
            f"each of {num_filters} filters, 0 to {MAX_DOUBLINGS}: calibrate this model again"
        )
    return exponents


def _rescale(
    conv: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], before: Exponents, after: Exponents
) -> None:
    """Multiply filters by 2 to the power of `after`, (F,), and divide what they read by 2 to that of `before`, (C,)."""
    weights, *bias = (_float32(conv, constants.get(value)) for value in conv.input[1:])
    num_read = weights.shape[1]  # channels by each filter
    by_group = before.reshape(-1, num_read)
    read = by_group.repeat(len(after) // len(by_group), axis=0)  # (F, num_read)
    exponents = after.reshape(-1, 1) - read
    rescaled = [np.ldexp(weights, exponents[:, :, None, None]), *(np.ldexp(values, after) for values in bias)]
    for name, values in zip(conv.input[1:], rescaled, strict=True):
        constants[name].CopyFrom(numpy_helper.from_array(values, name))


def _float32(conv: onnx.NodeProto, tensor: onnx.TensorProto | None) -> NDArray[np.float32]:
    if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
        raise ExportError(f"{conv.name}: its weights are no float32 constants; expected an FP32 graph of this package")
    values: NDArray[np.float32] = numpy_helper.to_array(tensor)
    return values


def _passed_on(node: onnx.NodeProto, carried: Mapping[str, Exponents]) -> Exponents:
    sides = [carried[value] for value in maps_read(node)]
    if node.op_type == "Concat":
        return np.concatenate(sides)
    if any(not np.array_equal(side, sides[0]) for side in sides):
        raise ExportError(f"{node.name}: its inputs are doubled differently; calibrate this model again")
    return sides[0]


def _require_plain(node: onnx.NodeProto, carried: Mapping[str, Exponents]) -> None:
    for value in node.input:
        if value in carried and carried[value].any():
            raise ExportError(f"{node.name}: {value} would reach it doubled; calibrate this model again")
