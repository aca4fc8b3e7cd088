"""Texts on pictures: smooth letters in a few microseconds, half transparent where the picture matters more."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import require
from yolov3_trt.preprocess import Image

Color = tuple[int, int, int]  # BGR

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

_TALL_AND_LONG = "bdgpy"  # letters that reach as far up and down as a line does
_STROKE = 1 / 11  # of the height of a line
_BACKGROUND = 0.6  # how much of a label's background covers the picture
_INK = 96  # of 255: letters, which cover it


def line_px(canvas: Image, line_width: int | None = None) -> int:
    """The height of letters, px, with lines of `line_width`; None: as the picture is large."""
    side = int(max(canvas.shape[:2]))
    return max(9, round(side / 60 if line_width is None else line_width * 6.7))


def text_mask(text: str, height: int) -> NDArray[np.uint8]:
    """A line of text, (h, w): 0 for the background to 255 for ink; h depends on `height`, px, only."""
    canvas, (top, bottom) = _ink(text, height, _scale_per_px() * height), _line_rows(height)
    margin, columns = _stroke(height), np.flatnonzero(canvas.any(axis=0))
    left, right = (columns[0], columns[-1] + 1) if columns.size else (margin, margin)
    # A copy: a view would keep all of the canvas, several times as large, for as long as the label is kept.
    return canvas[top - margin : bottom + margin, left - margin : right + 2 * margin].copy()


# Drawing smooth letters takes 0.2 ms a label. There are few class names and 101 scores, so nearly all come from here. A status
# line is hardly ever the same twice: it does not, or labels would have to leave.
label_mask = lru_cache(maxsize=512)(text_mask)


def wrapped(canvas: Image, text: str, height: int) -> list[NDArray[np.uint8]]:
    """The lines that a text takes in the width of the picture, broken between words."""
    if (whole := text_mask(text, height)).shape[1] <= canvas.shape[1]:
        return [whole]
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        lines[-1:] = [longer] if text_mask(longer, height).shape[1] <= canvas.shape[1] else [*lines[-1:], word]
    return [text_mask(line, height) for line in lines]


def paste(
    canvas: Image, mask: NDArray[np.uint8], left_top: tuple[int, int], color: Color, background: float = 1.0
) -> None:
    """Draw text on a background, moved into the picture, and cut off where it is larger.

    Args:
        canvas: is drawn on.
        mask: of `text_mask`.
        left_top: where, px.
        color: of the background.
        background: how much of it covers the picture, 0..1.
    """
    cv2 = require("cv2", extra="opencv")
    height, width = canvas.shape[:2]
    mask = mask[:height, :width]
    text_h, text_w = mask.shape
    left, top = max(0, min(left_top[0], width - text_w)), max(0, min(left_top[1], height - text_h))
    text = cv2.applyColorMap(mask, ramp(color))
    region = canvas[top : top + text_h, left : left + text_w]
    if background < 1:
        through = cv2.addWeighted(region, 1 - background, text, background, 0)
        text = cv2.copyTo(text, cv2.threshold(mask, _INK, 255, cv2.THRESH_BINARY)[1], through)
    region[:] = text


def paste_label(canvas: Image, mask: NDArray[np.uint8], left_top: tuple[int, int], color: Color) -> None:
    """`paste` with a background that the picture is seen through."""
    paste(canvas, mask, left_top, color, _BACKGROUND)


@lru_cache(maxsize=128)
def ramp(color: Color) -> Any:
    """The colours from background to ink, uint8 (256, 1, 3); the ink is black or white, whichever is easier to read."""
    ink = BLACK if np.dot(color, (0.114, 0.587, 0.299)) > 128 else WHITE  # by luma
    share = np.linspace(0, 1, 256)[:, None, None]
    return np.round((1 - share) * np.array(color) + share * np.array(ink)).astype(np.uint8)


def _stroke(height: int) -> int:
    return max(1, round(height * _STROKE))


@lru_cache(maxsize=32)
def _line_rows(height: int) -> tuple[int, int]:
    """The rows of a line in `_ink`, from the top of its tall letters to the foot of its long ones."""
    rows = np.flatnonzero(_ink(_TALL_AND_LONG, height, _scale_per_px() * height).any(axis=1))
    return int(rows[0]), int(rows[-1]) + 1


@lru_cache(maxsize=1)
def _scale_per_px() -> float:
    """The scale of OpenCV's font by the height of a line: OpenCV 5 has another font of that name."""
    height, scale = 110, 3.5
    return scale / int(_ink(_TALL_AND_LONG, height, scale).any(axis=1).sum())


def _ink(text: str, height: int, scale: float) -> NDArray[np.uint8]:
    """A text with room on every side.

    What `getTextSize` says is a hint of the width only: its height depends on the letters from OpenCV 5 on, and before that
    some letters reach beyond it.
    """
    cv2 = require("cv2", extra="opencv")
    font, stroke = cv2.FONT_HERSHEY_SIMPLEX, _stroke(height)
    text_w = cv2.getTextSize(text, font, scale, stroke)[0][0]
    canvas = np.zeros((2 * height + 8, 2 * text_w + height + 8), np.uint8)
    origin = (height // 2, 4 + round(1.2 * height))
    return np.asarray(cv2.putText(canvas, text, origin, font, scale, 255, stroke, cv2.LINE_AA))
