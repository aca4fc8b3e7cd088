"""Boxes, labels, zones and the status line drawn onto a picture, in a millisecond or two."""

import colorsys
import threading
import unicodedata
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.camera.frames import FrameStatus, Result
from yolov3_trt.camera.label_places import label_places
from yolov3_trt.camera.lettering import BLACK, Color, label_mask, line_px, paste, paste_label, text_mask, wrapped
from yolov3_trt.detections import Detection, Detections
from yolov3_trt.errors import require
from yolov3_trt.places import Line, Places, Points, Zone
from yolov3_trt.preprocess import Image, check_image
from yolov3_trt.settings import ColorBy, DrawSettings, Labels, settings_from

_RED, _GREY, _AMBER = (40, 40, 200), (60, 60, 60), (0, 190, 255)

_ANNOTATED: WeakKeyDictionary[Result, Image] = WeakKeyDictionary()
_ANNOTATED_LOCK = threading.Lock()


def class_color(class_id: int) -> Color:
    """A bright colour that a class keeps from picture to picture; neighbouring ids are far apart in hue."""
    golden_ratio = 0.618033988749895  # multiples of it spread evenly over the circle of hues
    red, green, blue = colorsys.hsv_to_rgb(class_id * golden_ratio % 1, 0.85, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_detections(image: Image, detections: Detections, **settings: Any) -> Image:
    """A copy of a picture, uint8 (H, W, 3) BGR, with boxes and labels, which keep off each other; lines grow with the picture.

    Args:
        image: is not changed.
        detections: those that are tracked have their numbers in their labels.
        settings: any of `DrawSettings`.

    Raises:
        ImageError: it is no such array.
        SettingError: a setting has no such value.

    >>> picture = cv2.imread("dog.jpg")
    >>> cv2.imwrite("boxes.jpg", yolov3_trt.draw_detections(picture, detect(picture), labels="name"))
    """
    return drawn(image, detections, *settings_from(settings, DrawSettings))


def drawn(image: Image, detections: Detections, how: DrawSettings) -> Image:
    """As `draw_detections`."""
    check_image(image)
    canvas = image.copy()
    _draw_objects(canvas, detections, how)
    return canvas


def annotated(result: Result) -> Image:
    """The picture of a result with its boxes; drawn once, whichever sink and thread asks first, and not to be changed."""
    with _ANNOTATED_LOCK:
        canvas = _ANNOTATED.get(result)
        if canvas is None:
            canvas = _ANNOTATED[result] = _all_of(result)
        return canvas


def _all_of(result: Result) -> Image:
    how = result.look.settings
    canvas = drawn(result.frame.pixels, result.detections, how)
    _draw_places(canvas, result.look.places, result.crossings, how)
    if how.clock:
        clock = text_mask(result.frame.clock, line_px(canvas, how.line_width))
        paste(canvas, clock, (canvas.shape[1], canvas.shape[0]), BLACK)  # which moves it into the corner
    return canvas


def blank_picture(text: str) -> Image:
    """A grey picture of 480x640 px with a text in its lower left corner, in the place of one that is not there."""
    canvas = np.full((480, 640, 3), _GREY, np.uint8)
    _draw_lines(canvas, wrapped(canvas, text, line_px(canvas)), len(canvas), _GREY)
    return canvas


def draw_status(
    canvas: Image, status: FrameStatus | None, stale_s: float | None = None, clock: str | None = None
) -> None:
    """Draw the status line into the lower left corner of a picture, and a banner over its top when it is stale.

    Args:
        canvas: uint8 (H, W, 3) BGR, drawn on.
        status: of the frame; None where there has been none.
        stale_s: how long its source has given no frame, where that is too long.
        clock: when the frame was taken.
    """
    height = line_px(canvas)
    if status is not None:
        fps = "" if status.fps is None else f"{status.fps:.1f} fps, "
        text = f"{fps}age {duration_text(status.age_ms / 1e3)}, {status.dropped} dropped"
        lines = wrapped(canvas, text if clock is None else f"{clock}  {text}", height)
        _draw_lines(canvas, lines, canvas.shape[0] - sum(len(line) for line in lines), BLACK)
    if stale_s is not None:
        lines = wrapped(canvas, f"no frame for {duration_text(stale_s)}", round(1.6 * height))
        canvas[: sum(len(line) for line in lines)] = _RED
        _draw_lines(canvas, lines, 0, _RED)


def duration_text(seconds: float) -> str:
    """A time as one reads it: `45 ms`, `2.5 s`, `130 s`, `15 min`."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _draw_objects(canvas: Image, detections: Detections, how: DrawSettings) -> None:
    rows = list(detections)
    height, width = canvas.shape[:2]
    unit, letters = how.line_width or max(1, round(max(height, width) / 400)), line_px(canvas, how.line_width)
    limits = np.array([width, height, width, height]) - 1
    boxes = np.round(np.clip(detections.xyxy, 0, limits)).astype(np.int64)
    colors = [_color(row, how) for row in rows]
    for box, color in reversed(list(zip(boxes.tolist(), colors, strict=True))):  # the best last, on top
        _draw_box(canvas, box, unit, color)
    if how.labels is Labels.NONE:
        return
    masks = [_label(row, letters, width, how) for row in rows]
    sizes_wh = [(mask.shape[1], mask.shape[0]) for mask in masks]
    for mask, place, color in zip(masks, label_places(boxes, sizes_wh, (height, width)), colors, strict=True):
        if place is not None:
            paste_label(canvas, mask, place, color)


def _color(row: Detection, how: DrawSettings) -> Color:
    return class_color(row.class_id if how.color_by is ColorBy.CLASS or row.track_id is None else row.track_id)


def _label(row: Detection, letters: int, width: int, how: DrawSettings) -> NDArray[np.uint8]:
    """`#12 person 0.87`, without the score where it is too wide for the picture."""
    name = label_mask(_in_ascii(row), letters)
    masks = [name] if row.track_id is None else [text_mask(f"#{row.track_id}", letters), name]
    if how.labels is Labels.FULL:
        masks.append(label_mask(f"{row.score:.2f}", letters))
    whole = np.concatenate(masks, axis=1)
    return whole if whole.shape[1] <= width else name


def _draw_places(canvas: Image, places: Places, crossings: dict[str, tuple[int, int]], how: DrawSettings) -> None:
    """Zones, and lines with a tick at the side that is `in`."""
    cv2 = require("cv2", extra="opencv")
    height, width = canvas.shape[:2]
    letters = line_px(canvas, how.line_width)

    def px(points: Points) -> NDArray[np.int32]:
        return np.asarray(np.round(np.array(points) * (width - 1, height - 1)), np.int32)

    for zone in places.zones:
        color = _GREY if zone.ignore else _AMBER
        cv2.polylines(canvas, [px(zone.points)], True, color, max(1, letters // 11), cv2.LINE_AA)
        _name(canvas, zone, px(zone.points), zone.name, letters)
    for line in places.lines:
        start, end = (np.array(point) for point in px(line.points))
        cv2.line(canvas, start.tolist(), end.tolist(), _AMBER, max(2, letters // 6), cv2.LINE_AA)
        step = (end - start) / max(1.0, float(np.hypot(*(end - start))))
        middle = (start + end) / 2
        tip = middle + letters * np.array([-step[1], step[0]])
        cv2.arrowedLine(
            canvas, middle.astype(int).tolist(), tip.astype(int).tolist(), _AMBER, max(2, letters // 6), tipLength=0.5
        )
        counts = crossings.get(line.name)
        text = line.name if counts is None else f"{line.name}: {counts[0]} in, {counts[1]} out"
        _name(canvas, line, px(line.points), text, letters)


def _name(canvas: Image, place: Zone | Line, points: NDArray[np.int32], text: str, letters: int) -> None:
    """At the uppermost point."""
    left, top = points[points[:, 1].argmin()].tolist()
    color = _GREY if isinstance(place, Zone) and place.ignore else _AMBER
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    paste_label(canvas, text_mask(plain, letters), (left, top), color)


def _draw_box(canvas: Image, corners: Sequence[int], unit: int, color: Color) -> None:
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


def _in_ascii(row: Detection) -> str:
    """A class name in what OpenCV's font has: without accents; the class's number where no letter would be left."""
    if row.class_name.isascii():
        return row.class_name
    letters = [letter for letter in unicodedata.normalize("NFKD", row.class_name) if not unicodedata.combining(letter)]
    plain = "".join(letter if letter.isascii() else "?" for letter in letters)
    return plain if any(letter.isalnum() for letter in plain) else str(row.class_id)


def _draw_lines(canvas: Image, lines: Sequence[NDArray[np.uint8]], top: int, color: Color) -> None:
    for line in lines:
        paste(canvas, line, (0, top), color)
        top += len(line)
