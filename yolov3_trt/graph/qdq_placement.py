"""Which tensors of a graph become int8, and which of them share a scale.

Quantised are

- the input of every convolution;
- both inputs of every residual sum, which then adds int8 maps in place of float ones;
- the inputs of MaxPool, Resize, Concat, Slice, and of the Reshape and Transpose that a [reorg] or [reorg3d] consists of, where
  something quantised reads what they make. They pass values on, so with *one* scale before and after them the int8 values
  pass as they are: DQ(Q(x)) of such a value changes nothing. This is what lets TensorRT run the pools of an SPP block in int8,
  and join maps without converting them.

Averages and products stay float, that is [local_avgpool], [avgpool], [sam] and [scale_channels]: an average over a large map
is far smaller than the map, and so is a product with factors of 0..1, so one scale would not do for both sides of them.

Nothing stands between a convolution and the end of its activation, which TensorRT fuses, nor on a head. One pair serves all
quantised readers of a tensor. In-graph stages, whose nodes are not named `layers.*`, stay float.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import onnx

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.fp16 import is_layer
from yolov3_trt.meta import Precision

# Their outputs are values of their inputs; those of a bilinear Resize lie between them.
_PASSING = {"MaxPool", "Resize", "Concat", "Slice", "Reshape", "Transpose"}


class WeightForm(str, Enum):
    """How int8 weights are written."""

    INT8 = "int8"  # int8 values -> DequantizeLinear: a quarter of the bytes
    PAIR = "pair"  # float32 values -> QuantizeLinear -> DequantizeLinear: what NVIDIA's tools write


@dataclass(frozen=True)
class QdqPolicy:
    """What becomes int8, and how it is written."""

    # Indices as the cfg counts. A layer listed here, of any kind, computes in float from unquantised inputs. An index whose
    # layer has nothing to quantise changes nothing.
    float_layers: frozenset[int] = frozenset()
    first_layer: bool = True  # the convolutions that read the image
    head_layers: bool = True  # the convolutions whose outputs are the logits
    per_channel: bool = True  # a scale for each filter's weights, else one per convolution
    weight_form: WeightForm = WeightForm.INT8
    float_precision: Precision = Precision.FP32  # what everything else computes in: FP32 or FP16
    # With an FP16 rest: Q/DQ in float16 as well, from opset 19 on, else in float32 between casts. TensorRT-RTX 1.7 builds
    # plans of the same size of both, and warns that it converts every float16 scale back.
    half_scales: bool = False

    def __post_init__(self) -> None:
        if self.float_precision not in (Precision.FP32, Precision.FP16):
            raise ExportError(
                f"float_precision={self.float_precision.value}; expected fp32 or fp16: the rest is what is not int8"
            )
        if self.half_scales and self.float_precision != Precision.FP16:
            raise ExportError(
                "half_scales=True with float_precision=fp32; expected fp16: a float32 tensor takes float32 scales"
            )


def int8_readers(graph: onnx.GraphProto, policy: QdqPolicy) -> list[onnx.NodeProto]:
    """The nodes whose `maps_read` are quantised, in the order of the graph."""
    float_convs: set[str] = set()
    if not policy.first_layer:
        float_convs |= _image_convs(graph)
    if not policy.head_layers:
        float_convs |= _head_convs(graph)
    readers = []
    wanted: set[str] = set()  # values that a node further down reads as int8
    for node in filter(is_layer, reversed(graph.node)):
        if int(node.name.split(".")[1]) in policy.float_layers:
            continue
        if (
            (node.op_type == "Conv" and node.name not in float_convs)
            or node.op_type == "Add"
            or (node.op_type in _PASSING and node.output[0] in wanted)
        ):
            readers.append(node)
            wanted.update(maps_read(node))
    return readers[::-1]


def maps_read(node: onnx.NodeProto) -> list[str]:
    """A node's first inputs: those that are maps, not weights or parameters."""
    return list(node.input) if node.op_type in ("Add", "Concat") else [node.input[0]]


def scale_groups(readers: Iterable[onnx.NodeProto]) -> dict[str, set[str]]:
    """The tensors that these nodes read, in order, each with all those that share its scale."""
    groups: dict[str, set[str]] = {}
    for node in readers:
        for value in maps_read(node):
            groups.setdefault(value, {value})
        if node.op_type in _PASSING:
            values = (*maps_read(node), node.output[0])
            together = {member for value in values for member in groups.get(value, {value})}
            groups.update((value, together) for value in sorted(together))
    return groups


def _image_convs(graph: onnx.GraphProto) -> set[str]:
    """Convolutions that read the image, as it is or through operations that pass its values on."""
    computed: set[str] = set()
    convs = set()
    for node in filter(is_layer, graph.node):
        if node.op_type not in _PASSING or node.input[0] in computed:
            computed.update(node.output)
        if node.op_type == "Conv" and node.input[0] not in computed:
            convs.add(node.name)
    return convs


def _head_convs(graph: onnx.GraphProto) -> set[str]:
    """Convolutions from which a head is reached without passing another one."""
    logits = {output.name for output in graph.output}
    logits.update(value for node in graph.node if not is_layer(node) for value in node.input)
    convs = set()
    for node in filter(is_layer, reversed(graph.node)):
        if logits.isdisjoint(node.output):
            continue
        if node.op_type == "Conv":
            convs.add(node.name)
        else:
            logits.update(node.input)
    return convs
