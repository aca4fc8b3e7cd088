"""Boxes and where an image lies in the network's input.

Frames: *image px* (the picture as read), *input px* (the network's input), *grid cells* (a head). Pixels are areas, so
pixel (0, 0) spans 0..1 and has its centre at (0.5, 0.5); coordinates are continuous and never rounded.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.sizes import HW as HW
from yolov3_trt.sizes import Resize as Resize

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """Where a resized image lies in the input, and the exact map between the two frames.

    One value for both policies: a stretched image is one without a border. It is made once per image, by whoever
    resizes it, and travels with the input.
    """

    image_hw: HW  # image px
    input_hw: HW  # input px
    resized_hw: HW  # input px covered by the image
    offset_hw: HW  # input px above and left of the image

    @classmethod
    def of(cls, image_hw: HW, input_hw: HW, resize: Resize) -> "Placement":
        """Place an image of `image_hw` in an input of `input_hw`.

        The letterbox follows Darknet (src/image.c, letterbox_image): the longer side fills the input, the other is
        truncated to whole pixels, the offset too.
        """
        if Resize(resize) is Resize.STRETCH:
            return cls(image_hw, input_hw, input_hw, (0, 0))
        (image_h, image_w), (input_h, input_w) = image_hw, input_hw
        if input_w * image_h < input_h * image_w:
            resized_hw = (max(1, image_h * input_w // image_w), input_w)
        else:
            resized_hw = (input_h, max(1, image_w * input_h // image_h))
        offset_hw = ((input_h - resized_hw[0]) // 2, (input_w - resized_hw[1]) // 2)
        return cls(image_hw, input_hw, resized_hw, offset_hw)

    def to_input(self, xyxy: FloatArray) -> FloatArray:
        """Boxes (N, 4) in image px -> boxes (N, 4) in input px."""
        corners = xyxy.reshape(-1, 2, 2) * self._scale_xy + self._offset_xy
        return corners.reshape(-1, 4)

    def to_image(self, xyxy: FloatArray) -> FloatArray:
        """Boxes (N, 4) in input px -> boxes (N, 4) in image px, clipped to the image."""
        # Undo the truncated size and offset that were really used. Darknet pastes at the truncated offset but maps back
        # with the exact half (src/yolo_layer.c): up to half a pixel off.
        corners: FloatArray = (xyxy.reshape(-1, 2, 2) - self._offset_xy) / self._scale_xy
        image_wh = np.array(self.image_hw[::-1], np.float32)
        return corners.clip(0, image_wh).reshape(-1, 4)

    @property
    def _scale_xy(self) -> FloatArray:
        return np.array(np.divide(self.resized_hw[::-1], self.image_hw[::-1]), np.float32)

    @property
    def _offset_xy(self) -> FloatArray:
        return np.array(self.offset_hw[::-1], np.float32)


def cxcywh_to_xyxy(cxcywh: FloatArray) -> FloatArray:
    """Boxes (N, 4) as centre and size -> boxes (N, 4) as corners, same unit."""
    centres, half_sizes = cxcywh[:, :2], cxcywh[:, 2:] / 2
    return np.concatenate([centres - half_sizes, centres + half_sizes], axis=1)


def xyxy_to_xywh(xyxy: FloatArray) -> FloatArray:
    """Boxes (N, 4) as corners -> boxes (N, 4) as upper left corner and size, same unit (COCO's form)."""
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def iou(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), broadcast: (...), 0 where both are empty."""
    # By coordinate: an operation on whole columns is several times faster than one along an axis of 2.
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = _columns(a_xyxy), _columns(b_xyxy)
    width, height = np.minimum(ax2, bx2) - np.maximum(ax1, bx1), np.minimum(ay2, by2) - np.maximum(ay1, by1)
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    result: FloatArray = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return result


def iou_matrix(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """`iou` of every box of `a` (N, 4) with every box of `b` (M, 4): (N, M)."""
    return iou(a_xyxy[:, None], b_xyxy[None])


def centre_distance(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Squared distance of centres over the squared diagonal of the enclosing box: the d²/c² of DIoU, shapes as `iou`.

    Zheng et al., "Distance-IoU Loss", arXiv 1911.08287, equation 7. 0 where the enclosing box is empty.
    """
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = _columns(a_xyxy), _columns(b_xyxy)
    distance = ((ax1 + ax2) / 2 - (bx1 + bx2) / 2) ** 2 + ((ay1 + ay2) / 2 - (by1 + by2) / 2) ** 2
    width, height = np.maximum(ax2, bx2) - np.minimum(ax1, bx1), np.maximum(ay2, by2) - np.minimum(ay1, by1)
    diagonal = width**2 + height**2
    ratio: FloatArray = np.divide(distance, diagonal, out=np.zeros_like(distance), where=diagonal > 0)
    return ratio


def _columns(xyxy: FloatArray) -> FloatArray:
    """(..., 4) -> (4, ...), each contiguous."""
    return np.ascontiguousarray(np.moveaxis(xyxy, -1, 0))
