"""ONNX graphs read from files, and parts of them. Needs no torch."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.fp16 import is_layer


def part_of_graph(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph between the named values, as a graph of its own."""
    typed = onnx.shape_inference.infer_shapes(model)  # the extractor wants a type for every value it cuts at
    return onnx.utils.Extractor(typed).extract_model(list(inputs), list(outputs))


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
