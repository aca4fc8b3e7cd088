"""YOLOv3's loss: where the boxes are, whether there is an object, which class it has.

Every part is a sum over predictors divided by the number of those that have an object (by 1 when none has), so that its
size depends neither on the batch nor on how crowded the pictures are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yolov3_trt.geometry import HW
from yolov3_trt.layers import HeadKind
from yolov3_trt.spec import Head
from yolov3_trt.training.assign import Assignment, Objects, assign
from yolov3_trt.training.settings import BoxLoss, LossSettings


@dataclass(frozen=True)
class Loss:
    """The parts of one batch's loss, weighed: scalar tensors, or numbers once read."""

    box: Tensor
    objectness: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        """What is to be made small."""
        return self.box + self.objectness + self.classes


def yolo_loss(
    outputs: Sequence[Tensor], objects: Objects, heads: Sequence[Head], input_hw: HW, settings: LossSettings
) -> Loss:
    """Loss of a batch.

    Args:
        outputs: per head (N, A * F, grid_h, grid_w) logits of YOLO or SCALED heads, as YoloNetwork gives them.
        objects: the labels, their image_ids below N.
        heads: of the network's spec.
        input_hw: px.
        settings: see `LossSettings`.
    """
    grids = [_by_predictor(output, head) for output, head in zip(outputs, heads, strict=True)]
    assignments = assign(objects, heads, input_hw, settings.prior_iou)
    count = max(1, sum(len(assignment.objects) for assignment in assignments))
    box = objectness = classes = grids[0].new_zeros(())
    for head, grid, assignment in zip(heads, grids, assignments, strict=True):
        chosen = _Chosen.of(assignment, objects, grid.device)
        with torch.no_grad():
            counts = ~_overlaps_an_object(_decode(grid, head, input_hw), objects, settings.ignore_iou)
            is_object = torch.zeros_like(counts)
            is_object[chosen.place] = True
        missed = F.binary_cross_entropy_with_logits(grid[..., 4], is_object.to(grid.dtype), reduction="none")
        objectness = objectness + missed[counts | is_object].sum()
        if not len(assignment.objects):
            continue
        logits = grid[chosen.place]  # (P, 5 + C)
        wrong = _ciou_loss if settings.box_loss is BoxLoss.CIOU else _coordinate_loss
        box = box + wrong(logits, chosen, head, input_hw).sum()
        one_hot = F.one_hot(chosen.class_ids, head.num_classes).to(grid.dtype)
        classes = classes + F.binary_cross_entropy_with_logits(logits[:, 5:], one_hot, reduction="sum")
    return Loss(
        settings.box_weight * box / count,
        settings.objectness_weight * objectness / count,
        settings.class_weight * classes / count,
    )


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The predictors of one head that have an object, and what they should say."""

    place: tuple[Tensor, Tensor, Tensor, Tensor]  # each (P,): image, anchor, row, column
    cxcywh: Tensor  # (P, 4), input px
    class_ids: Tensor  # (P,)

    @classmethod
    def of(cls, assignment: Assignment, objects: Objects, device: torch.device) -> "_Chosen":
        own = assignment.objects
        place = (objects.image_ids[own], assignment.anchors, assignment.rows, assignment.columns)
        image, anchor, row, column = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in place)
        boxes, class_ids = torch.from_numpy(objects.cxcywh[own]), torch.from_numpy(objects.class_ids[own])
        return cls((image, anchor, row, column), boxes.to(device), class_ids.to(device))


def _by_predictor(output: Tensor, head: Head) -> Tensor:
    """(N, A * F, H, W) -> (N, A, H, W, F), at least float32."""
    n, _, height, width = output.shape
    output = output if output.dtype == torch.float64 else output.float()
    return output.view(n, len(head.anchors_wh), head.fields, height, width).permute(0, 1, 3, 4, 2)


def _decode(grid: Tensor, head: Head, input_hw: HW) -> Tensor:
    """Boxes (N, A, H, W, 4) xyxy in input px; the arithmetic of `postprocess`, on tensors."""
    _, _, height, width, _ = grid.shape
    rows = torch.arange(height, device=grid.device, dtype=grid.dtype)[:, None].expand(height, width)
    columns = torch.arange(width, device=grid.device, dtype=grid.dtype)[None].expand(height, width)
    anchors_wh = grid.new_tensor(head.anchors_wh)[:, None, None]  # (A, 1, 1, 2)
    return _boxes(grid, torch.stack([columns, rows], dim=-1), anchors_wh, head, input_hw)


def _boxes(logits: Tensor, cells_xy: Tensor, anchors_wh: Tensor, head: Head, input_hw: HW) -> Tensor:
    """Boxes (..., 4) xyxy in input px of logits (..., 5 + C) in cells (..., 2) with priors (..., 2)."""
    px_per_cell = logits.new_tensor([input_hw[1] / head.grid_hw[1], input_hw[0] / head.grid_hw[0]])
    spread = head.scale_xy  # AlexeyAB's scale_x_y: the centre can reach the cell's border
    centres = (torch.sigmoid(logits[..., :2]) * spread - (spread - 1) / 2 + cells_xy) * px_per_cell
    # e^8 times the prior is beyond every input; without a limit one wild logit makes the whole loss infinite.
    if head.kind is HeadKind.SCALED:
        half_sizes = (2 * torch.sigmoid(logits[..., 2:4])).square() * anchors_wh / 2
    else:
        half_sizes = torch.exp(logits[..., 2:4].clamp(max=8)) * anchors_wh / 2
    return torch.cat([centres - half_sizes, centres + half_sizes], dim=-1)


def _overlaps_an_object(boxes: Tensor, objects: Objects, threshold: float) -> Tensor:
    """(N, A, H, W) bool: whether a predicted box (N, A, H, W, 4) has an IoU above the threshold with an object."""
    result = torch.zeros(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
    for image in np.unique(objects.image_ids).tolist():
        own = torch.from_numpy(objects.cxcywh[objects.image_ids == image]).to(boxes)
        result[image] = (_iou(boxes[image].unsqueeze(-2), _corners(own)) > threshold).any(dim=-1)
    return result


def _ciou_loss(logits: Tensor, chosen: _Chosen, head: Head, input_hw: HW) -> Tensor:
    """(P,) 1 - IoU + d²/c² + alpha * v (arXiv 2005.03572, equations 5 to 11); alpha is a constant for the gradient."""
    _, anchors, rows, columns = chosen.place
    cells_xy = torch.stack([columns, rows], dim=1).to(logits)
    predicted = _boxes(logits, cells_xy, logits.new_tensor(head.anchors_wh)[anchors], head, input_hw)
    true = _corners(chosen.cxcywh.to(logits))
    iou = _iou(predicted, true)
    distance = ((predicted[:, :2] + predicted[:, 2:] - true[:, :2] - true[:, 2:]) / 2).square().sum(dim=1)
    enclosing = torch.maximum(predicted[:, 2:], true[:, 2:]) - torch.minimum(predicted[:, :2], true[:, :2])
    diagonal = enclosing.square().sum(dim=1)
    (w, h), (true_w, true_h) = (predicted[:, 2:] - predicted[:, :2]).T, (true[:, 2:] - true[:, :2]).T
    v = 4 / math.pi**2 * (torch.atan2(true_w, true_h) - torch.atan2(w, h)).square()
    with torch.no_grad():
        # Below an IoU of 0.5 the aspect ratio does not matter yet (equation 11).
        alpha = torch.where(iou >= 0.5, v / (1 - iou + v).clamp(min=1e-9), 0)
    return 1 - iou + distance / diagonal + alpha * v


def _coordinate_loss(logits: Tensor, chosen: _Chosen, head: Head, input_hw: HW) -> Tensor:
    """(P,) cross-entropy of x and y within the cell and squared error of w and h in log space, small boxes up to twice.

    The gradients are those of the paper and of Darknet (src/yolo_layer.c, delta_yolo_box): target minus prediction, times
    2 - w * h with w and h as fractions of the input.
    """
    _, anchors, rows, columns = chosen.place
    true = chosen.cxcywh.to(logits)
    cells_per_px = logits.new_tensor([head.grid_hw[1] / input_hw[1], head.grid_hw[0] / input_hw[0]])
    within = true[:, :2] * cells_per_px - torch.stack([columns, rows], dim=1)
    target_xy = ((within + (head.scale_xy - 1) / 2) / head.scale_xy).clamp(0, 1)
    target_wh = torch.log(true[:, 2:] / logits.new_tensor(head.anchors_wh)[anchors])
    missed_xy = F.binary_cross_entropy_with_logits(logits[:, :2], target_xy, reduction="none").sum(dim=1)
    if head.kind is HeadKind.SCALED:  # (2 sigmoid)^2 stays below 4, and so must what it is to reach
        log_wh, target_wh = 2 * (math.log(2) + F.logsigmoid(logits[:, 2:4])), target_wh.clamp(max=math.log(3.9))
    else:
        log_wh = logits[:, 2:4]
    missed_wh = (log_wh - target_wh).square().sum(dim=1) / 2
    small = 2 - true[:, 2:].prod(dim=1) / (input_hw[0] * input_hw[1])
    return small * (missed_xy + missed_wh)


def _corners(cxcywh: Tensor) -> Tensor:
    centres, half_sizes = cxcywh[:, :2], cxcywh[:, 2:] / 2
    return torch.cat([centres - half_sizes, centres + half_sizes], dim=1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) with boxes (..., 4), xyxy, broadcast."""
    # By coordinate, not along the last axis: several times faster on a CPU.
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.unbind(-1), b.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    overlap = width * height
    return overlap / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap).clamp(min=1e-9)
