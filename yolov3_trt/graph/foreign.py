"""Graphs that another program exported: the heads found by their shapes, inputs and outputs called as here."""

from collections.abc import Sequence

import onnx

from yolov3_trt.errors import ExportError
from yolov3_trt.meta import INPUT_NAME
from yolov3_trt.spec import Head


def adopted(model: onnx.ModelProto, heads: Sequence[Head], input_shape: Sequence[int], where: str) -> onnx.ModelProto:
    """A copy whose input is `images` and whose outputs are the heads, in their order; other outputs are left away.

    Args:
        model: one float32 input, (N, 3, H, W), and an output (N, A * F, h, w) of logits per head.
        heads: expected; each is the output of its shape.
        input_shape: expected, N aside.
        where: the graph is from, for errors.

    Raises:
        ExportError: the input or a head is not there.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    constants = {item.name for item in copied.graph.initializer}
    inputs = [item for item in copied.graph.input if item.name not in constants]
    shapes = [_shape(item) for item in inputs]
    if len(inputs) != 1 or shapes[0][1:] not in (list(input_shape[1:]), [input_shape[1], 0, 0]):
        raise ExportError(
            f"{where}: its inputs are {shapes}; expected one, Nx{'x'.join(map(str, input_shape[1:]))} (0 is any)"
        )
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ExportError(f"{where}: its input is not float32; expected RGB, 0 to 1")
    renamed = {inputs[0].name: INPUT_NAME}
    given = {item.name: _shape(item) for item in onnx.shape_inference.infer_shapes(copied).graph.output}
    for head in heads:
        wanted = [head.channels, *head.grid_hw]
        fits = [name for name, shape in given.items() if shape[1:] == wanted and name not in renamed]
        if len(fits) != 1:
            raise ExportError(
                f"{where}: {len(fits)} outputs are Nx{'x'.join(map(str, wanted))}, as {head.name} is; it has {given}; expected "
                "the raw heads, before decoding"
            )
        renamed[fits[0]] = head.name
    taken = {value for node in copied.graph.node for value in (*node.input, *node.output)} - set(renamed)
    if clash := taken & set(renamed.values()):
        raise ExportError(
            f"{where}: it calls another value {min(clash)}; expected that name free for an input or a head"
        )
    for node in copied.graph.node:
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
    for item in (*copied.graph.input, *copied.graph.output, *copied.graph.value_info):
        item.name = renamed.get(item.name, item.name)
    outputs = {item.name: item for item in copied.graph.output}
    kept = [outputs[head.name] for head in heads]
    del copied.graph.output[:]
    copied.graph.output.extend(kept)
    return copied


def opset_of(model: onnx.ModelProto) -> int:
    """Of the standard operators."""
    return next((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Sides; 0 for one that is open."""
    return [int(side.dim_value) for side in value.type.tensor_type.shape.dim]
