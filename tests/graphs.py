"""Graphs of networks that a test made, and of stages alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from yolov3_trt.backends.ort import run_graph
from yolov3_trt.graph.export import onnx_from_spec
from yolov3_trt.graph.stages import write_pixels_to_tensor
from yolov3_trt.graph.writer import GraphWriter, Value
from yolov3_trt.meta import DEFAULT_OPSET, INPUT_NAME, ModelMeta
from yolov3_trt.models import Model
from yolov3_trt.reference import YoloNetwork, weights_from_module


def onnx_from_module(network: YoloNetwork, meta: ModelMeta, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    return onnx_from_spec(network.spec, weights_from_module(network), meta, opset)


def run_stage(
    write: Callable[[GraphWriter, Sequence[Value], ModelMeta], None], meta: ModelMeta, heads: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs of `write_detections` or `write_rows` by name."""
    graph, given = GraphWriter(DEFAULT_OPSET), dict(zip((head.name for head in meta.heads), heads, strict=True))
    with graph.scope("output"):
        write(graph, [graph.input(name, str(head.dtype), head.shape) for name, head in given.items()], meta)
    kinds = {name: (kind, None) for name, (kind, _) in meta.output_shapes(1).items()}
    return run_graph(graph.model("stage", kinds).SerializeToString(), given)


def tensor_from_pixels(images: np.ndarray, meta: ModelMeta) -> np.ndarray:
    """What the network sees of pixels in the graph."""
    graph = GraphWriter(DEFAULT_OPSET)
    with graph.scope("input"):
        graph.called(write_pixels_to_tensor(graph, graph.input(INPUT_NAME, "uint8", images.shape), meta), "tensor")
    return run_graph(graph.model("stage", {"tensor": ("float32", None)}).SerializeToString(), {INPUT_NAME: images})[
        "tensor"
    ]


def model_of(network: YoloNetwork) -> Model:
    names = tuple(map(str, range(network.spec.num_classes)))
    return Model(network.spec, weights_from_module(network), names, Path("made-here.weights"))
