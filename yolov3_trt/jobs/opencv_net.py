"""Darknet models for OpenCV, whose own importer is gone since version 5."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.arguments import path as path_of
from yolov3_trt.errors import CfgError, ExportError, require
from yolov3_trt.jobs.export import OPENCV_CONF, model_meta
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import Batch, OutputStage, RowsLayout
from yolov3_trt.models import load_model
from yolov3_trt.models.darknet_sections import sections_of
from yolov3_trt.settings import DetectSettings, GraphSettings
from yolov3_trt.spec import BatchNorm

# Of OpenCV's importer: what it adds to variances, and the scores up to which the rows of a [region] head had 0.
_EPSILON = 1e-6
_REGION_CONF = 0.001


def read_net_from_darknet(
    cfg: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    input_size: Any = None,
    batch: int = 1,
) -> Any:
    """A `cv2.dnn.Net` of a Darknet model that answers as `cv2.dnn.readNetFromDarknet` did, with OpenCV 4 and 5.

    Its outputs, one per head, are float32 rows (cells, 5 + C), or (batch, cells, 5 + C): centre and size in fractions of the
    input, objectness, and the classes' scores = objectness x class probability, with 0 in place of those up to the `thresh` of
    the cfg's heads (0.2 where it has none). Unlike the importer, the rows of a YOLOv2 model are not suppressed yet either.

    Args:
        cfg: path of a Darknet `.cfg`, or the name of a built-in model.
        weights: path of its `.weights`; by default the file beside the cfg.
        input_size: of the blobs that `setInput` will get, px; by default the cfg's width and height.
        batch: pictures in a blob.

    Raises:
        CfgError, SpecError, WeightsError: a file is at fault; says where and what.
        MetaError: the model is not a detector.
        ExportError: OpenCV does not read the graph; says what it said.

    >>> net = read_net_from_darknet("yolov3.cfg", "yolov3.weights")  # doctest: +SKIP
    >>> outputs = net.forward(net.getUnconnectedOutLayersNames())  # doctest: +SKIP
    """
    cv2 = require("cv2", extra="opencv")
    require("onnx", extra="onnx")
    from yolov3_trt.graph.export import onnx_from_spec

    model = load_model(cfg, weights, input_size=input_size)
    model = replace(model, spec=replace(model.spec, batch_norm=BatchNorm(_EPSILON)))
    kind = model.spec.heads[0].kind if model.spec.heads else HeadKind.YOLO
    graph = GraphSettings(batch=Batch.of("batch", batch), output_stage=OutputStage.ROWS, rows_layout=RowsLayout.OPENCV)
    meta = model_meta(model, graph, DetectSettings(conf=_thresh(cfg, kind)))
    onnx = onnx_from_spec(model.spec, model.weights, meta)
    try:
        return cv2.dnn.readNetFromONNX(np.frombuffer(onnx.SerializeToString(), np.uint8))
    except cv2.error as exc:
        raise ExportError(
            f"{cfg}: OpenCV {cv2.__version__} does not read its graph: {' '.join(str(exc).split())[:300]}"
        ) from exc


def _thresh(cfg: str | os.PathLike[str], kind: HeadKind) -> float:
    """Up to which scores the importer had 0: what the heads say."""
    default = _REGION_CONF if kind is HeadKind.REGION else OPENCV_CONF
    path = path_of("cfg", cfg)
    sections = sections_of(path.read_bytes(), str(path)) if path.is_file() else []
    heads = [section for section in sections if section.kind in ("yolo", "region", "Gaussian_yolo")]
    values = {head.number("thresh", default) for head in heads} or {default}
    if len(values) > 1:
        raise CfgError(
            f"{Path(cfg)}: its heads have thresh={', '.join(f'{value:g}' for value in sorted(values))}; expected one value"
        )
    return values.pop()
