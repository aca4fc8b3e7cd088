"""A graph that another program exported -> an artifact of this package, held to the reference before."""

import os
from dataclasses import replace
from typing import Any

from yolov3_trt.arguments import path as path_of
from yolov3_trt.errors import SettingError, require
from yolov3_trt.files import replacing, sha256_of_file
from yolov3_trt.jobs.export import Exported, model_from, model_meta
from yolov3_trt.jobs.verify import verify_graph
from yolov3_trt.meta import save_sidecar
from yolov3_trt.models import Model
from yolov3_trt.settings import GraphSettings


def adopt(
    graph: str | os.PathLike[str],
    model: str | os.PathLike[str] | Model,
    path: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    input_size: Any = None,
) -> Exported:
    """Take over an ONNX graph with raw Darknet heads: compare it with the model that it was made of, and give it a sidecar.

    Args:
        graph: an `.onnx` of any exporter: float32 (N, 3, H, W) RGB 0..1 in, logits (N, A * (5 + C), h, w) of each head out.
        model: the `.cfg` or built-in network that it was made of.
        path: of the copy, whose input and outputs are called as in graphs of this package; by default `NAME-adopted.onnx`
            beside it.
        weights: Darknet `.weights` of the model; see `load_model`, as for the next two.
        names: of the classes.
        input_size: px.

    Raises:
        ExportError: an input or a head is missing, or what it computes is not what the model does.
        Yolov3TrtError: a file cannot be read or written.

    >>> adopt("theirs.onnx", "yolov3.cfg").path  # doctest: +SKIP
    PosixPath('theirs-adopted.onnx')
    """
    require("onnx", extra="export")
    require("torch", extra="export")
    from yolov3_trt.graph.foreign import adopted, opset_of
    from yolov3_trt.graph.parts import load_graph
    from yolov3_trt.reference import module_from_spec

    source = path_of("graph", graph)
    target = source.with_name(f"{source.stem}-adopted.onnx") if path is None else path_of("path", path)
    if target == source:
        raise SettingError("path", f"{target} is the graph itself; expected another file")
    loaded = model_from(model, weights, names, input_size)
    theirs = load_graph(source)
    meta = replace(model_meta(loaded, GraphSettings()), opset=opset_of(theirs), versions={})
    onnx = adopted(theirs, meta.heads, meta.input_shape(1), str(source))
    with replacing(target) as partial:  # opened first: a comparison of minutes must not end at an unwritable folder
        difference, error = verify_graph(onnx, module_from_spec(loaded.spec, loaded.weights), meta)
        partial.write_bytes(onnx.SerializeToString())
    meta = replace(meta, onnx_sha256=sha256_of_file(target))
    save_sidecar(meta, target)
    return Exported(target, meta, target.stat().st_size, difference, error)
