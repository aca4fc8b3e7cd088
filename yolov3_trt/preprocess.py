"""The host path from pictures to the network's input.

A picture is resized as uint8 BGR and padded, which gives the pixels that a PIXELS graph takes; a TENSOR graph takes the
same pixels as RGB planes scaled to 0..1, or their grey where the model has one channel. So both see the same numbers. A graph
for whole frames takes them as they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import ImageError, require
from yolov3_trt.geometry import HW, Placement
from yolov3_trt.meta import InputStage, ModelMeta, Preprocess

Image = NDArray[np.uint8]  # (H, W, 3) BGR, as OpenCV reads
GREY_OF_RGB = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and Darknet make grey of colour


class InputBuffer:
    """The input of a graph and the scratch memory to fill it, kept from call to call.

    Fresh memory for every frame would cost a third of the time, in page faults.
    """

    def __init__(self, meta: ModelMeta, rows: int, batch: NDArray[Any] | None = None) -> None:
        """Make the memory for a batch, or take `batch` for it, of `meta.input_shape(rows)`."""
        is_pixels = meta.input_stage is InputStage.PIXELS
        self.batch: NDArray[Any] = np.zeros(meta.input_shape(rows), meta.input_dtype) if batch is None else batch
        self._frame = meta.frame_placement
        self._is_grey = meta.channels == 1
        self._pixels = None if is_pixels else np.empty((*meta.input_hw, 3), np.uint8)
        self._planes = None if is_pixels else np.empty((3, *meta.input_hw), np.uint8)
        self._scratch = np.empty(meta.input_hw, np.float32) if self._is_grey and not is_pixels else None

    def fill(self, row: int, image: Image, preprocess: Preprocess) -> Placement:
        """Put a picture into a row of the batch; returns where it lies."""
        if self._frame is not None:
            return copy_frame(image, self._frame, self.batch[row])
        if self._pixels is None or self._planes is None:
            return fit_image(image, preprocess, self.batch[row])
        cv2 = require("cv2", extra="opencv")
        placement = fit_image(image, preprocess, self._pixels)
        # split() first: scaling whole planes is several times faster than striding over interleaved pixels.
        red, green, blue = self._planes
        cv2.split(self._pixels, [blue, green, red])
        if self._is_grey:
            grey_plane(self._planes, self.batch[row, 0], self._scratch)
            self.batch[row, 0] *= np.float32(preprocess.scale)
        else:
            np.multiply(self._planes, np.float32(preprocess.scale), out=self.batch[row])
        return placement


def grey_plane(
    rgb: NDArray[np.uint8], out: NDArray[np.float32] | None = None, scratch: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """RGB planes (3, ...) uint8 -> their grey (...) float32, 0..255; sums go from red to blue, as on the GPU.

    Both `out`, which it is written to, and `scratch` are memory of that shape; None: new.
    """
    first, *others = (np.float32(weight) for weight in GREY_OF_RGB)
    grey: NDArray[np.float32] = np.multiply(rgb[0], first, out=out)
    for plane, weight in zip(rgb[1:], others, strict=True):
        grey += np.multiply(plane, weight, out=scratch)
    return grey


def prepare_batch(
    images: Sequence[Image], meta: ModelMeta, buffer: InputBuffer | None = None
) -> tuple[NDArray[Any], tuple[Placement, ...]]:
    """Make the input of a graph from pictures of any sizes.

    Args:
        images: any number of pictures, uint8 (H, W, 3) BGR; of `meta.frame_hw` where the graph takes whole frames.
        meta: of the graph.
        buffer: memory for as many rows or more; surplus rows keep what they hold. One of just this size is made when it
            is None.

    Returns:
        The buffer's batch, float32 (N, C, H, W) or uint8 (N, H, W, 3) by `meta.input_stage`, valid until the buffer is
        filled again; and where each picture lies in the network's input.

    Raises:
        ImageError: a picture is of another shape or type.
    """
    buffer = buffer or InputBuffer(meta, len(images))
    return buffer.batch, tuple(buffer.fill(row, image, meta.preprocess) for row, image in enumerate(images))


def fit_image(image: Image, preprocess: Preprocess, out: Image) -> Placement:
    """Resize a picture into `out`, uint8 (H, W, 3) BGR, border included; returns where it lies.

    Raises:
        ImageError: the picture is not uint8 (H, W, 3) with at least one pixel.
    """
    cv2 = require("cv2", extra="opencv")
    check_image(image)
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


def copy_frame(image: Image, frame: Placement, out: Image) -> Placement:
    """Copy a whole frame into `out`, uint8 (H, W, 3) BGR, for a graph that resizes it; returns where that puts it.

    Raises:
        ImageError: the picture is not uint8 (H, W, 3), or not of the size of the frames.
    """
    check_image(image)
    if image.shape != out.shape:
        raise ImageError(
            f"an image is {image.dtype} {image.shape}; expected {out.dtype} {out.shape}: this graph takes whole frames and "
            "resizes them itself; feed frames of that size, or export the model without frame_size"
        )
    out[:] = image
    return frame


def check_image(image: Image) -> None:
    """Whether a picture is one.

    Raises:
        ImageError: it is not uint8 (H, W, 3) with at least one pixel.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image is a {type(image).__name__}; expected uint8 (height, width, 3) BGR")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(f"an image is {image.dtype} {image.shape}; expected uint8 (height, width, 3) BGR")
