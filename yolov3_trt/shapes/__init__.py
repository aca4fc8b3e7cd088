"""Made-up pictures and clips of six kinds of shapes, with exact labels, which need no download.

Picture `index` of a seed depends on these two numbers alone. A shape is drawn at sub-pixel precision; its box is read off
the label map, which holds the topmost shape of each pixel.
"""

from yolov3_trt.models.class_names import SHAPE_NAMES
from yolov3_trt.shapes.paint import MIN_CONTRAST
from yolov3_trt.shapes.placement import MIN_VISIBLE
from yolov3_trt.shapes.scenes import PICTURE_SIZES_HW, LabelledPicture, iter_shapes_clip, shapes_picture

__all__ = [
    "MIN_CONTRAST",
    "MIN_VISIBLE",
    "PICTURE_SIZES_HW",
    "SHAPE_NAMES",
    "LabelledPicture",
    "iter_shapes_clip",
    "shapes_picture",
]
