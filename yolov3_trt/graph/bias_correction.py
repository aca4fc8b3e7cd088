"""How far INT8 shifts the mean of what each convolution writes: what `qdq_from_onnx` then takes from the biases.

Rounding errors are not zero on average. Those of a filter's weights meet activations that are mostly of one sign, values that
are cut off are all too small, and of a channel that is small against its map most values round the same way. Such an error is
the same at every pixel of every picture, so a bias can undo it. Nagel et al. (2019), section 4.2.

Each convolution is measured by itself, on what the float network gives it to read. So its shift is its own, and holds
whichever of the others are quantised.
"""

import onnx
from onnx import helper

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.parts import graph_that_gives

_TWIN = ".int8"


def bias_shifts_graph(model: onnx.ModelProto, quantised: onnx.ModelProto) -> onnx.ModelProto:
    """A graph in which each convolution runs in float and beside it as INT8 has it, both on what the float one reads.

    Its outputs are called `CONV.shift`: (N, F, 1, 1) float32, by how much the second is larger, on average over the map.

    Args:
        model: an FP32 graph.
        quantised: what `qdq_from_onnx` makes of it, with an FP32 rest and without shifts.

    Raises:
        ExportError: the second graph has no pairs, or is not of FP32.
    """
    pairs = [node for node in quantised.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    twins = [node for node in quantised.graph.node if node.op_type == "Conv" and node.input[1].endswith(".dq")]
    if not twins:
        raise ExportError("no convolution of this graph reads int8; expected what qdq_from_onnx gives, with rest=fp32")
    written = {node.name: node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    nodes = copied.graph.node
    nodes.extend(pairs)  # they read maps by the names that the float layers write them under
    for conv in twins:
        twin, shifts, shift = f"{conv.name}{_TWIN}", f"{conv.name}.shifts", f"{conv.name}.shift"
        nodes.add().CopyFrom(conv)
        nodes[-1].name = nodes[-1].output[0] = twin
        nodes.append(helper.make_node("Sub", [twin, written[conv.name]], [shifts], name=shifts))
        nodes.append(helper.make_node("GlobalAveragePool", [shifts], [shift], name=shift))
    own = {initializer.name for initializer in copied.graph.initializer}
    copied.graph.initializer.extend(tensor for tensor in quantised.graph.initializer if tensor.name not in own)
    return graph_that_gives(copied, [f"{conv.name}.shift" for conv in twins])
