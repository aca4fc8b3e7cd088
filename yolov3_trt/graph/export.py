"""PyTorch module -> ONNX graph whose nodes and weights are named after the layers of the cfg."""

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from onnx import version_converter
from torch import Tensor, nn

from yolov3_trt.errors import ExportError
from yolov3_trt.graph.stages import HeadsToDetections, HeadsToRows, PixelsToTensor
from yolov3_trt.meta import DEFAULT_OPSET, INPUT_NAME, InputStage, ModelMeta, OutputStage

OLDEST_OPSET = 14  # the oldest that the converter reaches
_EXPORTER_OPSET = 18  # the oldest that torch.onnx writes by itself


def onnx_from_module(network: nn.Module, meta: ModelMeta, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Export a network with its stages in FP32.

    Args:
        network: images (N, C, H, W) float32 -> one tensor of logits per head; in eval mode, batch norm folded.
        meta: what the graph shall be: input size, batch, stages, names.
        opset: of the ONNX standard operators.

    Returns:
        A graph with input `images` and outputs `meta.output_names`. Nodes and values are named after the layer they come
        from (`layers.12.conv`), those of the stages start with `input` and `output`; the heads have the names of
        `meta.heads` also where they are not outputs.

    Raises:
        ExportError: the exporter or the conversion to `opset` failed.
    """
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(f"opset {opset}; expected {OLDEST_OPSET} to {newest} ({DEFAULT_OPSET} is for TensorRT 8.6)")
    model = _export(_Staged(network, meta), meta, max(opset, _EXPORTER_OPSET))
    _merge_pads_into_pools(model.graph)
    _name_after_layers(model.graph, meta)
    _unshare_weights(model.graph)
    if opset < _EXPORTER_OPSET:
        try:
            model = version_converter.convert_version(model, opset)
        except (RuntimeError, onnx.checker.ValidationError) as exc:
            raise ExportError(f"{meta.name}: this graph cannot be expressed in opset {opset}: {exc}") from exc
    got = next(imported.version for imported in model.opset_import if not imported.domain)
    if got != opset:  # the exporter only logs that it cannot
        raise ExportError(f"{meta.name}: opset {opset} was asked for, PyTorch's exporter gave {got}")
    _strip_metadata(model)
    onnx.checker.check_model(model)
    return model


class _Staged(nn.Module):
    """A network with the stages that `meta` asks for at its ends."""

    def __init__(self, network: nn.Module, meta: ModelMeta) -> None:
        super().__init__()
        self.input = (
            PixelsToTensor(meta.preprocess, meta.frame_placement, meta.channels)
            if meta.input_stage is InputStage.PIXELS
            else nn.Identity()
        )
        self.network = network
        self.output: nn.Module | None = None
        if meta.output_stage is not OutputStage.HEADS:
            self.output = HeadsToRows(meta) if meta.output_stage is OutputStage.ROWS else HeadsToDetections(meta)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        heads: tuple[Tensor, ...] = self.network(self.input(images))
        return heads if self.output is None else self.output(*heads)


def _export(module: nn.Module, meta: ModelMeta, opset: int) -> onnx.ModelProto:
    kind = torch.uint8 if meta.input_stage is InputStage.PIXELS else torch.float32
    # A batch of 1 would be taken for a constant, so a dynamic one is traced with 2.
    example = torch.zeros(meta.input_shape(2 if meta.batch.dynamic else meta.batch.max), dtype=kind)
    batch = torch.export.Dim("batch", min=meta.batch.min, max=meta.batch.max) if meta.batch.dynamic else None
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                input_names=[INPUT_NAME],
                output_names=list(meta.output_names),
                opset_version=opset,
                dynamic_shapes=None if batch is None else {INPUT_NAME: {0: batch}},
                dynamo=True,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as exc:
        raise ExportError(f"{meta.name}: torch.onnx.export failed: {' '.join(str(exc).split())[:500]}") from exc
    assert program is not None  # only None when writing to a file
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on missing torchvision and its own deprecated calls say nothing about the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_after_layers(graph: onnx.GraphProto, meta: ModelMeta) -> None:  # noqa: C901 - one pass
    """Rename nodes, values and initialisers after the module they come from."""
    scopes = [_scope(node) for node in graph.node]
    in_scope = Counter(scopes)
    renamed: dict[str, str] = {output.name: output.name for output in graph.output} | {INPUT_NAME: INPUT_NAME}
    taken: Counter[str] = Counter(renamed)

    def unique(name: str) -> str:
        taken[name] += 1
        return name if taken[name] == 1 else f"{name}.{taken[name]}"

    for head, value in zip(meta.heads, _values_between_layers_and_output(graph, scopes), strict=False):
        renamed[value] = unique(head.name)
    for initializer in graph.initializer:
        if initializer.name.startswith(("network.", "output.")):
            renamed[initializer.name] = unique(initializer.name.removeprefix("network."))
    for node, scope in zip(graph.node, scopes, strict=True):
        node.name = unique(scope if in_scope[scope] == 1 else f"{scope}.{node.op_type}")
        for position, value in enumerate(node.output):
            renamed.setdefault(value, node.name if position == 0 else f"{node.name}.{position}")
    for node in graph.node:  # constants, by their first reader
        for value in node.input:
            if value and value not in renamed:
                renamed[value] = unique(f"{node.name}.constant")

    for node in graph.node:
        node.input[:] = [renamed[value] if value else "" for value in node.input]
        node.output[:] = [renamed[value] for value in node.output]
    for values in (graph.initializer, graph.value_info):
        for value in values:
            value.name = renamed.get(value.name, value.name)


def _scope(node: onnx.NodeProto) -> str:
    """Path of the module a node comes from: `layers.12.conv`, `output`."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            modules = [path for path in ast.literal_eval(prop.value)[:-1] if path]
            if modules:
                return re.sub(r"^network\.", "", modules[-1])
    return "graph"


def _values_between_layers_and_output(graph: onnx.GraphProto, scopes: Sequence[str]) -> list[str]:
    """The heads that an output stage reads, in the order in which it first reads them."""
    by_layers = {
        value
        for node, scope in zip(graph.node, scopes, strict=True)
        if scope.startswith("layers.")
        for value in node.output
    }
    reads = (
        value
        for node, scope in zip(graph.node, scopes, strict=True)
        if scope.startswith("output")
        for value in node.input
    )
    return list(dict.fromkeys(value for value in reads if value in by_layers))


def _merge_pads_into_pools(graph: onnx.GraphProto) -> None:
    """Pad with -inf, then MaxPool -> MaxPool with those pads, which pads with -inf by definition.

    PyTorch has no uneven padding, ONNX and TensorRT do; and an explicit -inf is nothing to quantise.
    """
    producers = {node.output[0]: node for node in graph.node}
    readers = Counter(value for node in graph.node for value in node.input)
    constants = {initializer.name: initializer for initializer in graph.initializer}
    merged = []
    for pool in graph.node:
        pad = producers.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        if pad is None or pad.op_type != "Pad" or readers[pad.output[0]] != 1 or pad.input[1] not in constants:
            continue
        top, left, bottom, right = (onnx.numpy_helper.to_array(constants[pad.input[1]])[i] for i in (2, 3, 6, 7))
        own = next((attribute for attribute in pool.attribute if attribute.name == "pads"), None)
        if own is not None:
            pool.attribute.remove(own)
        pool.attribute.append(onnx.helper.make_attribute("pads", [int(top), int(left), int(bottom), int(right)]))
        pool.input[0] = pad.input[0]
        merged.append(pad)
    for pad in merged:
        graph.node.remove(pad)
    used = {value for node in graph.node for value in node.input}
    for initializer in [i for i in graph.initializer if i.name not in used]:
        graph.initializer.remove(initializer)


def _unshare_weights(graph: onnx.GraphProto) -> None:
    """Give every convolution weights under its own name: the exporter merges equal ones, e.g. biases that are all zero."""
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        for position, part in ((1, "weight"), (2, "bias")):
            own = f"{node.name}.{part}"
            if len(node.input) > position and node.input[position] != own:
                copied = onnx.numpy_helper.to_array(initializers[node.input[position]])
                graph.initializer.append(onnx.numpy_helper.from_array(copied, own))
                node.input[position] = own


def _strip_metadata(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces: they hold paths of this machine and make equal exports differ."""
    for item in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
