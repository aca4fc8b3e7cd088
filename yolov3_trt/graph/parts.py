"""ONNX graphs in and out of files, and parts of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.fp16 import is_layer


def part_of_graph(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph between the named values, as a graph of its own."""
    typed = onnx.shape_inference.infer_shapes(model)  # the extractor wants a type for every value it cuts at
    return onnx.utils.Extractor(typed).extract_model(list(inputs), list(outputs))


def map_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of every map of a graph, by name; 0 for what varies."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {
        value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info, *graph.output)
    }
    sizes = {name: [dim.dim_value for dim in dims] for name, dims in values.items() if len(dims) == 4}
    return {name: (channels, height, width) for name, (_, channels, height, width) in sizes.items()}


def layer_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Every tensor that a layer of the network makes, heads included, in order."""
    return tuple(value for node in model.graph.node if is_layer(node) for value in node.output)


def graph_that_gives(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy of a graph whose outputs are these float32 values of it, whatever is not needed for them left in."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    copied.graph.output.extend(
        onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None) for value in values
    )
    return copied


def load_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        ExportError: it is none.
    """
    try:
        return onnx.load(path)
    except (OSError, DecodeError) as exc:
        raise ExportError(f"{path}: not an ONNX graph ({exc}); export the model again") from exc


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write an ONNX file weight by weight: protobuf takes three times the size of a graph to serialise it as a whole."""
    rest = onnx.GraphProto(name=model.graph.name)
    for own, others in (
        (rest.node, model.graph.node),
        (rest.input, model.graph.input),
        (rest.output, model.graph.output),
    ):
        own.extend(others)
    rest.value_info.extend(model.graph.value_info)
    head = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        opset_import=model.opset_import,
    )
    with path.open("wb") as file:
        for piece in _pieces(head, rest, model.graph.initializer):
            file.write(piece)


def _pieces(head: onnx.ModelProto, rest: onnx.GraphProto, weights: Sequence[onnx.TensorProto]) -> Iterator[bytes]:
    """A model, its graph, and the tensors of that, each behind its number as a field and its length."""
    sizes = [weight.ByteSize() for weight in weights]
    starts = [_start(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, size) for size in sizes]
    yield head.SerializeToString()
    yield _start(onnx.ModelProto.GRAPH_FIELD_NUMBER, rest.ByteSize() + sum(sizes) + sum(map(len, starts)))
    yield rest.SerializeToString()
    for start, weight in zip(starts, weights, strict=True):
        yield start
        yield weight.SerializeToString()


def _start(field: int, size: int) -> bytes:
    """Of a field of protobuf that is a message: its number and wire type 2, then the length, seven bits a byte."""
    coded = [field << 3 | 2]
    while size > 127:
        coded.append(size & 127 | 128)
        size >>= 7
    return bytes([*coded, size])
