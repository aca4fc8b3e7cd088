"""Boxes and labels drawn onto a picture."""

import colorsys

import numpy as np

from yolov3_trt.detections import Detections
from yolov3_trt.errors import require
from yolov3_trt.preprocess import Image

Color = tuple[int, int, int]  # BGR


def class_color(class_id: int) -> Color:
    """A bright colour that a class keeps from picture to picture; neighbouring ids are far apart in hue."""
    golden_ratio = 0.618033988749895  # multiples of it spread evenly over the circle of hues
    red, green, blue = colorsys.hsv_to_rgb(class_id * golden_ratio % 1, 0.85, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_detections(image: Image, detections: Detections) -> Image:
    """A copy of a picture, uint8 (H, W, 3) BGR, with boxes, class names and scores; lines grow with the picture."""
    cv2 = require("cv2", extra="opencv")
    canvas = image.copy()
    unit = max(1, round(max(image.shape[:2]) / 400))  # line width, px
    font, font_scale = cv2.FONT_HERSHEY_SIMPLEX, 0.35 * unit
    for row in reversed(list(detections)):  # the best last, on top
        color = class_color(row.class_id)
        x1, y1, x2, y2 = (round(value) for value in row.xyxy)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, unit, cv2.LINE_AA)
        label = f"{row.class_name} {row.score:.2f}"
        (text_w, text_h), baseline = cv2.getTextSize(label, font, font_scale, unit)
        # Above the box, or inside it at the upper edge of the picture; shifted left at the right edge.
        left = max(0, min(x1, image.shape[1] - text_w - 2 * unit))
        top = y1 - text_h - baseline - unit
        if top < 0:
            top = y1
        bottom = top + text_h + baseline + unit
        cv2.rectangle(canvas, (left, top), (left + text_w + 2 * unit, bottom), color, cv2.FILLED)
        ink = (0, 0, 0) if np.dot(color, (0.114, 0.587, 0.299)) > 128 else (255, 255, 255)  # by luma
        cv2.putText(canvas, label, (left + unit, bottom - baseline), font, font_scale, ink, unit, cv2.LINE_AA)
    return canvas
