"""How to launch the letterbox kernels: frames on the device -> rows of the network's input."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import DTypeLike, NDArray

from yolov3_trt.errors import EngineError
from yolov3_trt.geometry import HW, Placement
from yolov3_trt.meta import Preprocess
from yolov3_trt.runtime.kernels.source import Launch, ceil_div, struct_bytes

LETTERBOX = np.dtype(
    [
        ("frames", "u8"),
        ("batch", "u8"),
        ("row_stride", "i8"),
        ("frame_stride", "i8"),
        ("step_y", "f8"),
        ("step_x", "f8"),
        ("image_h", "i4"),
        ("image_w", "i4"),
        ("resized_h", "i4"),
        ("resized_w", "i4"),
        ("offset_y", "i4"),
        ("offset_x", "i4"),
        ("input_h", "i4"),
        ("input_w", "i4"),
        ("scale", "f4"),
        ("pad_value", "i4"),
        ("channels", "i4"),
        ("is_packed", "i4"),
        ("parts", "i4"),
        ("pitch", "i4"),
    ],
    align=True,
)

_BLOCK = (32, 8, 1)
_TILE_WH = (128, 8)  # px of a block
_STAGED_BYTES, _PIECE = 28928, 16  # of letterbox.cu
_MAX_PARTS = 32  # of a block's columns: four a thread are not divided
_KERNELS = {"float32": "letterbox_f32", "float16": "letterbox_f16", "uint8": "letterbox_u8"}


@dataclass(frozen=True)
class Frames:
    """Frames of one size on the device, uint8 (H, W, 3) BGR, at any byte; or of each only the lines of `lines_read`."""

    address: int
    row_stride: int  # bytes from one line to the next, 3 W or more
    count: int = 1
    frame_stride: int = 0  # bytes from one frame to the next
    is_packed: bool = False  # whether they are only those lines


def letterbox(
    placement: Placement, preprocess: Preprocess, frames: Frames, batch: int, dtype: DTypeLike, channels: int = 3
) -> Launch:
    """Fit frames into consecutive rows of a batch, as `InputBuffer.fill` does on the host, to the last bit.

    Args:
        placement: of each frame in the input.
        preprocess: scale and border.
        frames: what is read.
        batch: address of the first row that is written, a row being one image.
        dtype: of the batch: float32 or float16 for RGB planes (N, 3, H, W) scaled, uint8 for BGR pixels (N, H, W, 3).
        channels: of planes: 3, or 1 for grey (N, 1, H, W).

    Raises:
        EngineError: another dtype, or lines that overlap.
    """
    (image_h, image_w), (resized_h, resized_w) = placement.image_hw, placement.resized_hw
    kernel = _KERNELS.get(np.dtype(dtype).name)
    if kernel is None:
        raise EngineError(f"letterbox writes {', '.join(_KERNELS)}; got {np.dtype(dtype).name}")
    if frames.row_stride < 3 * image_w:
        raise EngineError(f"row_stride={frames.row_stride}; a line of {image_w} BGR pixels has {3 * image_w} bytes")
    args = struct_bytes(
        LETTERBOX,
        frames=frames.address,
        batch=batch,
        row_stride=frames.row_stride,
        frame_stride=frames.frame_stride,
        # Divided twice, as OpenCV does: once would round differently.
        step_y=1 / (resized_h / image_h),
        step_x=1 / (resized_w / image_w),
        image_h=image_h,
        image_w=image_w,
        resized_h=resized_h,
        resized_w=resized_w,
        offset_y=placement.offset_hw[0],
        offset_x=placement.offset_hw[1],
        input_h=placement.input_hw[0],
        input_w=placement.input_hw[1],
        scale=preprocess.scale,
        pad_value=preprocess.pad_value,
        channels=channels if kernel != "letterbox_u8" else 3,
        is_packed=frames.is_packed,
        **_staging(placement),
    )
    grid = (ceil_div(placement.input_hw[1], _TILE_WH[0]), ceil_div(placement.input_hw[0], _TILE_WH[1]), frames.count)
    return Launch(kernel, grid, _BLOCK, args)


def _staging(placement: Placement) -> dict[str, int]:
    """In how many parts a block brings its lines to shared memory, and the bytes of a line there."""
    step_x = placement.image_hw[1] / placement.resized_hw[1]
    parts = 1
    while parts <= _MAX_PARTS:
        columns = min(int(_TILE_WH[0] / parts * step_x) + 3, placement.image_hw[1])
        pitch = ceil_div(3 * columns + _PIECE - 1, _PIECE) * _PIECE  # they may begin at any byte of a piece
        if 2 * _TILE_WH[1] * pitch <= _STAGED_BYTES:
            return {"parts": parts, "pitch": pitch}
        parts *= 2
    return {"parts": 0, "pitch": 0}


@lru_cache(maxsize=64)
def lines_read(placement: Placement) -> NDArray[np.intp] | None:
    """The lines of a picture that its letterbox reads, two for each line that it makes; None where those are not fewer.

    By the arithmetic of `taps` in letterbox.cu.
    """
    image_h, resized_h = placement.image_hw[0], placement.resized_hw[0]
    if 2 * resized_h >= image_h:
        return None
    centres = ((np.arange(resized_h) + 0.5) * (1 / (resized_h / image_h)) - 0.5).astype(np.float32)
    first = np.floor(centres).astype(np.intp)
    return np.stack([first, first + 1], axis=1).clip(0, image_h - 1).reshape(-1)


def staged_hw(placement: Placement) -> HW:
    """Lines and columns of a picture that go to the GPU."""
    lines = lines_read(placement)
    return placement.image_hw if lines is None else (len(lines), placement.image_hw[1])
