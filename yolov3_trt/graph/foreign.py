"""Graphs that another program exported: the heads found by their shapes, inputs and outputs called as here."""

from collections.abc import Sequence

import onnx

from yolov3_trt.arguments import size_text
from yolov3_trt.errors import ExportError
from yolov3_trt.meta import INPUT_NAME
from yolov3_trt.sizes import HW
from yolov3_trt.spec import Head

AnchorsWh = tuple[tuple[float, float], ...]


def heads_of(
    model: onnx.ModelProto, anchors: Sequence[AnchorsWh], input_hw: HW | None, where: str
) -> tuple[int, HW, tuple[Head, ...]]:
    """Channels and size of a graph's input, and what its heads must be, of what their shapes say.

    Args:
        model: an output (N, A * (5 + C), h, w) of logits per head; its other outputs are passed over.
        anchors: (width, height) in input px of each head, the head of the finest grid first; a single group is shared out.
        input_hw: px, where the graph leaves that open.
        where: the graph is from, for errors.

    Raises:
        ExportError: shapes and anchors do not go together.
    """
    given = _inputs(model)
    channels, *sides = given[0][1][1:] if len(given) == 1 and len(given[0][1]) == 4 else (0, 0, 0)
    height, width = sides if all(sides) else input_hw or (0, 0)
    if channels not in (1, 3) or not height or input_hw not in (None, (height, width)):
        asked = "" if input_hw is None else f", of {size_text(input_hw)}"
        raise ExportError(
            f"{where}: its inputs are {[shape for _, shape in given]}; expected one, Nx3xHxW{asked} (0 is any: give input_size)"
        )
    shapes = [shape[1:] for shape in _outputs(model).values() if len(shape) == 4 and all(shape[1:])]
    grids = [(c, h, w) for c, h, w in shapes if height % h == 0 and width % w == 0 and height // h == width // w]
    grids.sort(key=lambda grid: -grid[1])
    if len(anchors) == 1 and grids and len(anchors[0]) % len(grids) == 0:
        share = len(anchors[0]) // len(grids)
        anchors = [anchors[0][i : i + share] for i in range(0, len(anchors[0]), share)]
    if not grids or len(anchors) != len(grids):
        counts = "+".join(str(len(group)) for group in anchors)
        raise ExportError(
            f"{where}: {len(grids)} outputs are raw heads, Nx(A*(5+C))xHxW, of {_outputs(model)}; expected as many as groups "
            f"of anchors (here {counts}), or a number that shares them out"
        )
    areas = [sum(w * h for w, h in group) / len(group) for group in anchors]
    if areas != sorted(areas):
        raise ExportError(
            f"{where}: the anchors get smaller from group to group; expected those of the finest grid first"
        )
    heads = []
    for number, ((c, h, w), group) in enumerate(zip(grids, anchors, strict=True)):
        fields, rest = divmod(c, len(group))
        if rest or fields < 6:
            raise ExportError(
                f"{where}: the head of {w}x{h} cells has {c} channels; expected A * (5 + classes), with A = {len(group)}"
            )
        heads.append(Head(f"head{number}", number, group, fields - 5, (h, w)))
    if len(counts_of := {head.num_classes for head in heads}) > 1:
        raise ExportError(f"{where}: by their channels the heads have {sorted(counts_of)} classes; expected one number")
    return channels, (height, width), tuple(heads)


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
    inputs, shapes = zip(*_inputs(copied), strict=True)
    if len(inputs) != 1 or shapes[0][1:] not in (list(input_shape[1:]), [input_shape[1], 0, 0]):
        raise ExportError(
            f"{where}: its inputs are {list(shapes)}; expected one, Nx{'x'.join(map(str, input_shape[1:]))} (0 is any)"
        )
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ExportError(f"{where}: its input is not float32; expected RGB, 0 to 1")
    renamed = {inputs[0].name: INPUT_NAME}
    given = _outputs(copied)
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


def _inputs(model: onnx.ModelProto) -> list[tuple[onnx.ValueInfoProto, list[int]]]:
    constants = {item.name for item in model.graph.initializer}
    return [(item, _shape(item)) for item in model.graph.input if item.name not in constants]


def _outputs(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {item.name: _shape(item) for item in onnx.shape_inference.infer_shapes(model).graph.output}


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Sides; 0 for one that is open."""
    return [int(side.dim_value) for side in value.type.tensor_type.shape.dim]
