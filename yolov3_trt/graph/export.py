"""Model -> ONNX graph whose nodes and weights are named after the layers of the cfg. Needs no PyTorch."""

import onnx

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.network import write_network
from yolov3_trt.graph.stages import write_detections, write_pixels_to_tensor, write_rows
from yolov3_trt.graph.writer import GraphWriter
from yolov3_trt.meta import DEFAULT_OPSET, INPUT_NAME, InputStage, ModelMeta, OutputStage
from yolov3_trt.models.darknet_weights import Weights
from yolov3_trt.settings import OLDEST_OPSET
from yolov3_trt.spec import ModelSpec


def onnx_from_spec(spec: ModelSpec, weights: Weights, meta: ModelMeta, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Write a network with its stages in FP32, batch norms folded into the convolutions.

    Args:
        spec: a detector.
        weights: by the keys of `spec.weight_shapes`.
        meta: what the graph shall be: batch, stages, names.
        opset: of the ONNX standard operators.

    Returns:
        A graph with input `images` and outputs `meta.output_names`. Nodes and values are named after the layer they come
        from (`layers.12.conv`), those of the stages start with `input` and `output`; the heads have the names of
        `meta.heads` also where they are not outputs.

    Raises:
        ExportError: the installed onnx knows no such opset.
    """
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(f"opset {opset}; expected {OLDEST_OPSET} to {newest} ({DEFAULT_OPSET} is for TensorRT 8.6)")
    graph = GraphWriter(opset)
    first = "batch" if meta.batch.dynamic else meta.batch.max
    images = graph.input(INPUT_NAME, meta.input_dtype, (first, *meta.input_shape(1)[1:]))
    if meta.input_stage is InputStage.PIXELS:
        with graph.scope("input"):
            images = write_pixels_to_tensor(graph, images, meta)
    heads = write_network(graph, spec, weights, images)
    with graph.scope("output"):
        if meta.output_stage is OutputStage.ROWS:
            write_rows(graph, heads, meta)
        elif meta.output_stage is OutputStage.DETECTIONS:
            write_detections(graph, heads, meta)
    outputs = meta.output_shapes(meta.batch.max).items()
    # Of the shapes only that the batch varies has to be said: all else follows.
    sides = {name: (first, *(None for _ in shape[1:])) if meta.batch.dynamic else None for name, (_, shape) in outputs}
    return graph.model(meta.name, {name: (dtype, sides[name]) for name, (dtype, _) in outputs})
