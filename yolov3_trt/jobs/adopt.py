"""A graph that another program exported -> an artifact of this package, held to the reference or to its shapes before."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import number, shown, size, spelled, text
from yolov3_trt.arguments import path as path_of
from yolov3_trt.errors import SettingError, require
from yolov3_trt.files import replacing, sha256_of_file
from yolov3_trt.jobs.export import Exported, model_from, model_meta
from yolov3_trt.jobs.verify import Compared, check_logits, verify_graph
from yolov3_trt.meta import ModelMeta, save_sidecar
from yolov3_trt.models import Model
from yolov3_trt.models.class_names import ClassNames, load_class_names, numbered
from yolov3_trt.settings import GraphSettings


def adopt(
    graph: str | os.PathLike[str],
    model: str | os.PathLike[str] | Model | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    anchors: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    input_size: Any = None,
) -> Exported:
    """Take over an ONNX graph with raw Darknet heads: compare it with the model that it was made of, and give it a sidecar.

    Args:
        graph: an `.onnx` of any exporter: float32 (N, 3, H, W) RGB 0..1 in, logits (N, A * (5 + C), h, w) of each head out.
        model: the `.cfg` or built-in network that it was made of; None: `anchors` are given, and nothing is compared.
        path: of the copy, whose input and outputs are called as in graphs of this package; by default `NAME-adopted.onnx`
            beside it.
        anchors: of YOLOv3's heads (no `scale_x_y`, no `new_coords`), input px, as in a cfg and smallest first: shared out over
            the heads, the finest grid's first, or heads with `;` between them, `10,14,23,27,37,58;81,82,135,169,344,319`.
            Classes follow from the channels, strides from the shapes; pictures are letterboxed.
        weights: Darknet `.weights` of the model; see `load_model`, as for the next two.
        names: of the classes.
        input_size: px.

    Raises:
        SettingError: not just one of model and anchors is given, or the anchors are none.
        ExportError: an input or a head is missing, what it computes is not what the model does, or anchors and shapes do not
            go together.
        Yolov3TrtError: a file cannot be read or written.

    >>> adopt("theirs.onnx", "yolov3.cfg").path  # doctest: +SKIP
    PosixPath('theirs-adopted.onnx')
    """
    require("onnx", extra="onnx")
    from yolov3_trt.graph.foreign import adopted, heads_of, opset_of
    from yolov3_trt.graph.parts import load_graph

    source = path_of("graph", graph)
    target = source.with_name(f"{source.stem}-adopted.onnx") if path is None else path_of("path", path)
    if target == source:
        raise SettingError("path", f"{target} is the graph itself; expected another file")
    if (model is None) == (anchors is None):
        given = "neither was given" if model is None else "both were given"
        raise SettingError("anchors", f"{given}; expected {spelled('model', option='--cfg')} or {spelled('anchors')}")
    theirs = load_graph(source)
    loaded = None
    if model is not None:
        require("torch", extra="export")
        loaded = model_from(model, weights, names, input_size)
        meta = model_meta(loaded, GraphSettings())
    else:
        if weights is not None:
            raise SettingError("weights", "given with anchors; they are compared where the .cfg is given too")
        hw = None if input_size is None else size("input_size", input_size)
        channels, input_hw, heads = heads_of(theirs, _groups(anchors), hw, str(source))
        classes = heads[0].num_classes
        found = (
            numbered(classes)
            if names is None
            else ClassNames(load_class_names(text("names", names), classes), Path(names).name)
        )
        meta = ModelMeta(source.stem, input_hw, heads, found.names, channels=channels, class_names_from=found.source)
    meta = replace(meta, opset=opset_of(theirs), versions={})
    onnx = adopted(theirs, meta.heads, meta.input_shape(1), str(source))
    with replacing(target) as partial:  # opened first: a comparison of minutes must not end at an unwritable folder
        if loaded is None:
            check_logits(onnx, meta)
            compared: Compared = {}, {}, "there was no model to compare with"
        else:
            compared = verify_graph(onnx, loaded, meta)
        partial.write_bytes(onnx.SerializeToString())
    meta = replace(meta, onnx_sha256=sha256_of_file(target))
    save_sidecar(meta, target)
    return Exported(target, meta, target.stat().st_size, *compared)


def _groups(anchors: Any) -> list[tuple[tuple[float, float], ...]]:
    """(width, height) of each group of a text."""
    groups = []
    for group in text("anchors", anchors).split(";"):
        try:
            sides = [number("anchors", float(side), 1e-3, 1e6) for side in group.strip(", ").split(",")]
        except ValueError as exc:
            if isinstance(exc, SettingError):
                raise
            raise SettingError("anchors", f"got {shown(anchors)}; expected numbers between commas") from None
        if len(sides) % 2:
            raise SettingError("anchors", f"{len(sides)} numbers in a group; expected pairs of width and height")
        groups.append(tuple(zip(sides[::2], sides[1::2], strict=True)))
    return groups
