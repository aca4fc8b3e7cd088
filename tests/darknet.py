"""Darknet's own resize, so that a comparison with its detections is not one of resizing methods.

Darknet's bilinear maps corner pixel to corner pixel, on floats, without antialiasing, first along x and then along y
(src/image.c, resize_image); the product maps half-pixel centres, as OpenCV does.
"""

import numpy as np

from yolov3_trt.geometry import Placement, Resize


def darknet_input(image: np.ndarray, input_hw: tuple[int, int], resize: Resize) -> tuple[np.ndarray, Placement]:
    """Picture, uint8 (H, W, 3) BGR -> (1, 3, h, w) float32 RGB 0..1, and where it lies in it."""
    placement = Placement.of(image.shape[:2], input_hw, resize)
    (top, left), (height, width) = placement.offset_hw, placement.resized_hw
    planes = image[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255  # (3, H, W)
    resized = _resize_rows(_resize_columns(planes, width), height)
    batch = np.full((1, 3, *input_hw), 0.5, np.float32)
    batch[0, :, top : top + height, left : left + width] = resized
    # Darknet pastes at the truncated offset but maps boxes back with the exact half.
    exact_offset = ((input_hw[0] - height) / 2, (input_hw[1] - width) / 2)
    return batch, Placement(placement.image_hw, input_hw, placement.resized_hw, exact_offset)


def _resize_columns(planes: np.ndarray, width: int) -> np.ndarray:
    """(3, H, W) -> (3, H, width)."""
    old = planes.shape[2]
    column, share = _positions(old, width)
    resized = (1 - share) * planes[:, :, column] + share * planes[:, :, np.minimum(column + 1, old - 1)]
    resized[:, :, -1] = planes[:, :, -1]
    return resized


def _resize_rows(planes: np.ndarray, height: int) -> np.ndarray:
    """(3, H, W) -> (3, height, W).

    Darknet never adds the second half of the last row's sum. Where rounding puts that row just below the last one of the
    picture, all its weight is in that half, and the row turns out black. A letterbox has it in the middle of the input.
    """
    old = planes.shape[1]
    row, share = _positions(old, height)
    after = share.copy()
    after[-1] = 0
    return (1 - share)[:, None] * planes[:, row] + after[:, None] * planes[:, np.minimum(row + 1, old - 1)]


def _positions(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each new pixel lies: the old one before it, and how far towards the next, in Darknet's float32 arithmetic."""
    scale = np.float32(old - 1) / np.float32(new - 1)
    position = np.arange(new, dtype=np.float32) * scale
    before = position.astype(int)
    return before, position - before.astype(np.float32)
