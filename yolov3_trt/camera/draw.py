"""Boxes, labels and the status line drawn onto a picture, in a millisecond or two."""

import colorsys
import threading
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.camera.frames import FrameStatus, Result
from yolov3_trt.detections import Detection, Detections
from yolov3_trt.errors import require
from yolov3_trt.preprocess import Image, check_image

Color = tuple[int, int, int]  # BGR

_BLACK, _WHITE, _RED, _GREY = (0, 0, 0), (255, 255, 255), (40, 40, 200), (60, 60, 60)

_TALL_AND_LONG = "bdgpy"  # letters that reach as far up and down as a line does

_ANNOTATED: WeakKeyDictionary[Result, Image] = WeakKeyDictionary()
_ANNOTATED_LOCK = threading.Lock()


def class_color(class_id: int) -> Color:
    """A bright colour that a class keeps from picture to picture; neighbouring ids are far apart in hue."""
    golden_ratio = 0.618033988749895  # multiples of it spread evenly over the circle of hues
    red, green, blue = colorsys.hsv_to_rgb(class_id * golden_ratio % 1, 0.85, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_detections(image: Image, detections: Detections) -> Image:
    """A copy of a picture, uint8 (H, W, 3) BGR, with boxes, class names and scores; lines grow with the picture.

    Raises:
        ImageError: it is no such array.

    >>> picture = cv2.imread("dog.jpg")
    >>> cv2.imwrite("boxes.jpg", yolov3_trt.draw_detections(picture, detect(picture)))
    """
    check_image(image)
    canvas = image.copy()
    for row in reversed(list(detections)):  # the best last, on top
        _draw_object(canvas, row)
    return canvas


def annotated(result: Result) -> Image:
    """The picture of a result with its boxes; drawn once, whichever sink and thread asks first, and not to be changed."""
    with _ANNOTATED_LOCK:
        canvas = _ANNOTATED.get(result)
        if canvas is None:
            canvas = _ANNOTATED[result] = draw_detections(result.frame.pixels, result.detections)
        return canvas


def blank_picture(text: str) -> Image:
    """A grey picture of 480x640 px with a text in its lower left corner, in the place of one that is not there."""
    canvas = np.full((480, 640, 3), _GREY, np.uint8)
    _draw_lines(canvas, _wrapped(canvas, text), len(canvas), _GREY)
    return canvas


def draw_status(canvas: Image, status: FrameStatus | None, stale_s: float | None = None) -> None:
    """Draw the status line into the lower left corner of a picture, and a banner over its top when it is stale.

    Args:
        canvas: uint8 (H, W, 3) BGR, drawn on.
        status: of the frame; None where there has been none.
        stale_s: how long its source has given no frame, where that is too long.
    """
    if status is not None:
        fps = "" if status.fps is None else f"{status.fps:.1f} fps, "
        lines = _wrapped(canvas, f"{fps}age {duration_text(status.age_ms / 1e3)}, {status.dropped} dropped")
        _draw_lines(canvas, lines, canvas.shape[0] - sum(len(line) for line in lines), _BLACK)
    if stale_s is not None:
        _draw_lines(canvas, _wrapped(canvas, f"no frame for {duration_text(stale_s)}"), 0, _RED)


def duration_text(seconds: float) -> str:
    """A time as one reads it: `45 ms`, `2.5 s`, `130 s`, `15 min`."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _draw_object(canvas: Image, row: Detection) -> None:
    height, width = canvas.shape[:2]
    unit, color = _unit_px(canvas), class_color(row.class_id)
    x1, x2 = (round(min(max(x, 0), width - 1)) for x in row.xyxy[::2])
    y1, y2 = (round(min(max(y, 0), height - 1)) for y in row.xyxy[1::2])
    _draw_box(canvas, (x1, y1, x2, y2), unit, color)
    name, score = _label_mask(_in_ascii(row), unit), _label_mask(f"{row.score:.2f}", unit)
    label = np.concatenate([name, score], axis=1) if name.shape[1] + score.shape[1] <= width else name
    # Above the box, or inside it at the upper edge of the picture.
    top = y1 - len(label) if y1 >= len(label) else y1
    _paste(canvas, label, (x1, top), color)


def _draw_box(canvas: Image, corners: tuple[int, int, int, int], unit: int, color: Color) -> None:
    """Four bars around the corners (x1, y1, x2, y2), `unit` px wide; much faster than OpenCV's smoothed lines."""
    cv2 = require("cv2", extra="opencv")
    x1, y1, x2, y2 = corners
    low, high = unit // 2, (unit - 1) // 2  # px to either side of a line's middle
    outer = (x1 - low, y1 - low, x2 + high, y2 + high)
    inner = (x1 + high, y1 + high, x2 - low, y2 - low)
    cv2.rectangle(canvas, outer[:2], (outer[2], inner[1]), color, cv2.FILLED)
    cv2.rectangle(canvas, (outer[0], inner[3]), outer[2:], color, cv2.FILLED)
    cv2.rectangle(canvas, outer[:2], (inner[0], outer[3]), color, cv2.FILLED)
    cv2.rectangle(canvas, (inner[2], outer[1]), outer[2:], color, cv2.FILLED)


def _unit_px(canvas: Image) -> int:
    """The width of a line; texts grow with it."""
    height, width = canvas.shape[:2]
    return max(1, round(int(max(height, width)) / 400))


def _in_ascii(row: Detection) -> str:
    """A class name in what OpenCV's font has: without accents; the class's number where no letter would be left."""
    if row.class_name.isascii():
        return row.class_name
    letters = [letter for letter in unicodedata.normalize("NFKD", row.class_name) if not unicodedata.combining(letter)]
    plain = "".join(letter if letter.isascii() else "?" for letter in letters)
    return plain if any(letter.isalnum() for letter in plain) else str(row.class_id)


def _text_mask(text: str, unit: int) -> NDArray[np.uint8]:
    """A line of text, (h, w): 0 for the background to 255 for ink; the height depends on `unit` only."""
    canvas, (top, bottom) = _ink(text, unit, _font_scale() * unit), _line_rows(unit)
    columns = np.flatnonzero(canvas.any(axis=0))
    left, right = (columns[0], columns[-1] + 1) if columns.size else (unit, unit)
    # A copy: a view would keep all of the canvas, several times as large, for as long as the label is kept.
    return canvas[top - unit : bottom + unit, left - unit : right + 2 * unit].copy()


# Drawing smooth letters takes 0.2 ms a label. There are few class names and 101 scores, so nearly all come from here. A status
# line is hardly ever the same twice: it does not, or labels would have to leave.
_label_mask = lru_cache(maxsize=512)(_text_mask)


@lru_cache(maxsize=32)
def _line_rows(unit: int) -> tuple[int, int]:
    """The rows of a line in `_ink`, from the top of its tall letters to the foot of its long ones."""
    rows = np.flatnonzero(_ink(_TALL_AND_LONG, unit, _font_scale() * unit).any(axis=1))
    return int(rows[0]), int(rows[-1]) + 1


@lru_cache(maxsize=1)
def _font_scale() -> float:
    """The scale of OpenCV's font, per `unit`, at which a line is 11.1 units high: OpenCV 5 has another font of that name."""
    unit, scale = 10, 0.35
    return scale * 11.1 * unit / int(_ink(_TALL_AND_LONG, unit, scale * unit).any(axis=1).sum())


def _ink(text: str, unit: int, scale: float) -> NDArray[np.uint8]:
    """A text in lines of `unit` px, with room on every side.

    What `getTextSize` says is a hint of the width only: its height depends on the letters from OpenCV 5 on, and before that
    some letters reach beyond it.
    """
    cv2 = require("cv2", extra="opencv")
    text_w = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, unit)[0][0]
    canvas = np.zeros((20 * unit, 2 * text_w + 8 * unit), np.uint8)
    origin = (4 * unit, 12 * unit)
    return np.asarray(cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, unit, cv2.LINE_AA))


def _wrapped(canvas: Image, text: str) -> list[NDArray[np.uint8]]:
    """The lines that a text takes in the width of the picture, broken between words."""
    unit = _unit_px(canvas)
    if (whole := _text_mask(text, unit)).shape[1] <= canvas.shape[1]:
        return [whole]
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        lines[-1:] = [longer] if _text_mask(longer, unit).shape[1] <= canvas.shape[1] else [*lines[-1:], word]
    return [_text_mask(line, unit) for line in lines]


def _draw_lines(canvas: Image, lines: Sequence[NDArray[np.uint8]], top: int, color: Color) -> None:
    for line in lines:
        _paste(canvas, line, (0, top), color)
        top += len(line)


def _paste(canvas: Image, mask: NDArray[np.uint8], left_top: tuple[int, int], color: Color) -> None:
    """Draw text on a background, moved into the picture, and cut off where it is larger."""
    height, width = canvas.shape[:2]
    mask = mask[:height, :width]
    text_h, text_w = mask.shape
    left, top = max(0, min(left_top[0], width - text_w)), max(0, min(left_top[1], height - text_h))
    cv2 = require("cv2", extra="opencv")
    canvas[top : top + text_h, left : left + text_w] = cv2.applyColorMap(mask, _ramp(color))


@lru_cache(maxsize=128)
def _ramp(color: Color) -> Any:
    """The colours from background to ink, uint8 (256, 1, 3); the ink is black or white, whichever is easier to read."""
    ink = _BLACK if np.dot(color, (0.114, 0.587, 0.299)) > 128 else _WHITE  # by luma
    share = np.linspace(0, 1, 256)[:, None, None]
    return np.round((1 - share) * np.array(color) + share * np.array(ink)).astype(np.uint8)
