"""Which boxes of two lists stand for the same object."""

from yolov3_trt.detections import Detections
from yolov3_trt.geometry import iou_matrix

MATCH_IOU = 0.5


def match(a: Detections, b: Detections, min_iou: float = MATCH_IOU) -> list[tuple[int, int, float]]:
    """Pairs (row of `a`, row of `b`, IoU) of one class: each row of `a`, best first, takes the closest free row of `b`."""
    iou = iou_matrix(a.xyxy, b.xyxy)
    iou[a.class_ids[:, None] != b.class_ids[None]] = 0
    pairs = []
    for row in range(len(a)):
        if len(b) and iou[row].max() >= min_iou:
            other = int(iou[row].argmax())
            pairs.append((row, other, float(iou[row, other])))
            iou[:, other] = 0
    return pairs
