"""The picture with which a server warms up a model: drawn shapes, as noise gives suppression nothing or too much to do."""

import struct

import numpy as np

from yolov3_trt.backends.triton.contract import Variant
from yolov3_trt.deploy.triton import ServedModel
from yolov3_trt.errors import require
from yolov3_trt.geometry import HW
from yolov3_trt.meta import ModelMeta
from yolov3_trt.preprocess import Image, prepare_batch
from yolov3_trt.shapes import shapes_picture

_CAMERA_HW: HW = (480, 640)
_SEED = 9


def warmup_content(model: ServedModel) -> bytes:
    """The model's first input for one picture, as the file that Triton reads: a JPEG, or the input tensor's bytes."""
    picture = _picture(model.meta)
    if model.variant is Variant.PYTHON:
        encoded = _jpeg(picture)
        return struct.pack("<I", len(encoded)) + encoded  # how Triton writes down a string
    # As many as a call takes where that is fixed: Triton then counts the batch among the dimensions.
    rows = 1 if model.max_batch_size else model.meta.batch.max
    batch, _ = prepare_batch([picture] * rows, model.meta)
    return np.ascontiguousarray(batch).tobytes()


def _picture(meta: ModelMeta) -> Image:
    """Shapes before a background: edges and areas, as a camera sees them."""
    cv2 = require("cv2", extra="opencv")
    height, width = meta.frame_hw or _CAMERA_HW
    # Frames of any size: the painter wants 64 px a side at least.
    drawn = shapes_picture(_SEED, 0, (max(height, 64), max(width, 64))).pixels
    return np.asarray(drawn if drawn.shape[:2] == (height, width) else cv2.resize(drawn, (width, height)))


def _jpeg(picture: Image) -> bytes:
    cv2 = require("cv2", extra="opencv")
    _, encoded = cv2.imencode(".jpg", picture)
    return bytes(encoded.tobytes())
