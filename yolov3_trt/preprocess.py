"""The host path from pictures to the network's input.

A picture is resized as uint8 BGR and padded, which gives the pixels that a PIXELS graph takes; a TENSOR graph takes the
same pixels as RGB planes scaled to 0..1. So both see the same numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import ImageError, require
from yolov3_trt.geometry import HW, FloatArray, Placement
from yolov3_trt.meta import InputStage, ModelMeta, Preprocess

Image = NDArray[np.uint8]  # (H, W, 3) BGR, as OpenCV reads


def prepare_batch(
    images: Sequence[Image], meta: ModelMeta, out: NDArray[Any] | None = None
) -> tuple[NDArray[Any], tuple[Placement, ...]]:
    """Fill the input of a graph with pictures of any sizes.

    Args:
        images: one or more pictures, uint8 (H, W, 3) BGR.
        meta: of the graph.
        out: an array to fill, as returned by an earlier call with as many pictures; one is made when it is None.

    Returns:
        The input, float32 (N, 3, H, W) or uint8 (N, H, W, 3) by `meta.input_stage`, and where each picture lies in it.

    Raises:
        ImageError: a picture is of another shape or type.
    """
    shape = meta.input_shape(len(images))
    if meta.input_stage is InputStage.PIXELS:
        batch = np.empty(shape, np.uint8) if out is None else out
        return batch, tuple(fit_image(image, meta.preprocess, batch[i]) for i, image in enumerate(images))
    batch = np.empty(shape, np.float32) if out is None else out
    pixels = np.empty((*meta.input_hw, 3), np.uint8)
    placements = []
    for planes, image in zip(batch, images, strict=True):
        placements.append(fit_image(image, meta.preprocess, pixels))
        planes_from_pixels(pixels, meta.preprocess.scale, planes)
    return batch, tuple(placements)


def fit_image(image: Image, preprocess: Preprocess, out: Image) -> Placement:
    """Resize a picture into `out`, uint8 (H, W, 3) BGR, border included; returns where it lies.

    Raises:
        ImageError: the picture is not uint8 (H, W, 3) with at least one pixel.
    """
    cv2 = require("cv2", extra="opencv")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(f"an image is {image.dtype} {image.shape}; expected uint8 (height, width, 3) BGR")
    input_hw: HW = (out.shape[0], out.shape[1])
    placement = Placement.of((image.shape[0], image.shape[1]), input_hw, preprocess.resize)
    (top, left), (height, width) = placement.offset_hw, placement.resized_hw
    inside = out[top : top + height, left : left + width]
    if placement.image_hw == placement.resized_hw:
        inside[:] = image
    else:
        cv2.resize(image, (width, height), dst=inside, interpolation=cv2.INTER_LINEAR)
    # Only the border: filling all of `out` first would touch every pixel twice.
    out[:top] = out[top + height :] = preprocess.pad_value
    out[top : top + height, :left] = out[top : top + height, left + width :] = preprocess.pad_value
    return placement


def planes_from_pixels(pixels: Image, scale: float, out: FloatArray) -> None:
    """(H, W, 3) uint8 BGR -> `out`, (3, H, W) float32 RGB times `scale`."""
    cv2 = require("cv2", extra="opencv")
    # split() first: multiplying contiguous planes is several times faster than striding over interleaved pixels.
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, [planes[2], planes[1], planes[0]])
    np.multiply(planes, np.float32(scale), out=out)
