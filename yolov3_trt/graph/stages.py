"""The optional ends of a graph: pixels in, rows or detections out.

They are plain tensor code with static shapes, so that the exporter turns them into standard ONNX operators, TensorRT needs
no plugin and a CUDA graph can hold the result. They always compute in float32.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolov3_trt.geometry import HW, Placement
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import ModelMeta, Postprocess, Preprocess, RowsLayout
from yolov3_trt.preprocess import GREY_OF_RGB
from yolov3_trt.spec import Head, Nms


class PixelsToTensor(nn.Module):
    """(N, H, W, 3) uint8 BGR -> (N, 3, input_h, input_w) float32 RGB, scaled; whole frames are fitted in on the way.

    For a model of one channel it is the grey of that, (N, 1, input_h, input_w).
    """

    def __init__(self, preprocess: Preprocess, frame: Placement | None = None, channels: int = 3) -> None:
        """Make the stage.

        Args:
            preprocess: the scale, and the border of a frame.
            frame: where whole frames lie in the network's input; None for pictures of the input's size.
            channels: 3, or 1 for grey.
        """
        super().__init__()
        self.channels = channels
        self.scale = preprocess.scale
        self.fit = nn.Identity() if frame is None else _FitFrame(frame, preprocess.pad_value)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        # The cast comes first: TensorRT lets uint8 feed nothing else.
        planes: Tensor = self.fit(images.float().permute(0, 3, 1, 2))
        if self.channels == 1:
            parts = [planes[:, 2 - i : 3 - i] * weight for i, weight in enumerate(GREY_OF_RGB)]
            return (parts[0] + parts[1] + parts[2]) * self.scale
        return planes.flip(1) * self.scale


class _FitFrame(nn.Module):
    """(N, 3, image_h, image_w) -> (N, 3, input_h, input_w), both float32 of 0..255, as `preprocess.fit_image` does it.

    OpenCV rounds what it interpolates, in fixed point; here nothing is rounded. The two are less than one level of 0..255
    apart: 0.84 at most and 0.27 on average as measured. Rounding here too would make one value in eight a whole level wrong.
    """

    def __init__(self, frame: Placement, pad_value: int) -> None:
        super().__init__()
        self.frame = frame
        self.has_border = frame.resized_hw != frame.input_hw
        # A letterbox touches two sides of the input, so its border lies along one axis.
        self.axis = 0 if frame.resized_hw[0] != frame.input_hw[0] else 1
        position = torch.arange(frame.input_hw[self.axis]) - frame.offset_hw[self.axis]
        last = frame.resized_hw[self.axis] - 1
        inside = ((position >= 0) & (position <= last)).float().reshape((-1, 1) if self.axis == 0 else (1, -1))
        self.register_buffer("source", position.clamp(0, last))
        self.register_buffer("inside", inside)
        self.register_buffer("border", (1 - inside) * pad_value)

    def forward(self, planes: Tensor) -> Tensor:
        """See the class."""
        if self.frame.image_hw != self.frame.resized_hw:
            planes = F.interpolate(planes, size=self.frame.resized_hw, mode="bilinear", align_corners=False)
        if self.has_border:
            # The last row or column repeated, then painted over: onnx 1.23 cannot convert a Pad to opset 17.
            planes = planes.index_select(2 + self.axis, self.source) * self.inside + self.border
        return planes


class HeadsToDetections(nn.Module):
    """Heads -> num_detections (N,), boxes (N, K, 4), scores (N, K), class_ids (N, K); see meta.DETECTION_OUTPUTS.

    The same result as `postprocess.candidates_from_heads` and `suppress`, in a fixed number of steps:

    1. The best `max_candidates` boxes by their best class; every pair among the best `max_candidates` belongs to one.
    2. The best `max_candidates` pairs of those boxes.
    3. Greedy suppression as a fixed point: a pair stays if no better pair that stays is too similar. Starting from "all
       stay", round t settles every pair whose chain of suppressions is shorter than t.
    """

    # A chain is "a drops b, so b cannot drop c, so c drops d". The longest on COCO val64, at a threshold of 0.005, is 9.
    ROUNDS = 16

    def __init__(self, meta: ModelMeta) -> None:
        super().__init__()
        self.postprocess: Postprocess = meta.postprocess
        self.decoders = nn.ModuleList(_HeadDecoder(head, meta.input_hw) for head in meta.heads)
        boxes = sum(len(head.anchors_wh) * head.grid_hw[0] * head.grid_hw[1] for head in meta.heads)
        self.boxes = min(self.postprocess.max_candidates, boxes)
        self.pairs = min(self.postprocess.max_candidates, self.boxes * meta.num_classes)
        self.kept = min(self.postprocess.max_detections, self.pairs)
        self.num_classes = meta.num_classes
        self.kind = meta.heads[0].kind  # of all of them
        self.register_buffer("position", torch.arange(self.pairs, dtype=torch.float32))
        self.register_buffer("unit", torch.tensor([*meta.input_hw[::-1]] * 2, dtype=torch.float32))

    def forward(self, *heads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heads as float32 logits -> the four outputs."""
        decoded = [decoder(head) for head, decoder in zip(heads, self.decoders, strict=True)]
        values = torch.cat([values for values, _, _ in decoded], dim=1)  # (N, B, F)
        xyxy = torch.cat(
            [torch.cat([centres - sizes / 2, centres + sizes / 2], dim=2) for _, centres, sizes in decoded], dim=1
        )  # (N, B, 4)
        xyxy, scores, class_ids = self._candidates(xyxy, values)
        stays = self._survivors(xyxy, scores, class_ids)

        # Survivors first, in their order: the largest of "places from the end, if it stays".
        rank, order = (stays * (self.pairs - self.position)).topk(self.kept, dim=1)
        valid = rank > 0  # (N, K)
        boxes = _take(xyxy, order).where(valid[..., None], 0.0)
        scores = scores.gather(1, order).where(valid, 0.0)
        class_ids = class_ids.gather(1, order).where(valid, 0.0)
        return valid.float().sum(dim=1).to(torch.int32), boxes, scores, class_ids.to(torch.int32)

    def _candidates(self, xyxy: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All boxes (N, B, 4) and logits (N, B, F) -> the best pairs: boxes (N, P, 4), scores and classes (N, P)."""
        threshold, at = self.postprocess.conf, self.kind.box_values
        if self.kind is HeadKind.REGION:
            best = values[..., at].sigmoid() * values[..., at + 1 :].softmax(dim=2).amax(dim=2)
        else:
            best = _certainty(values, self.kind)[..., 0] * values[..., at + 1 :].amax(dim=2).sigmoid()
        # Comparisons first: NaN passes none, so it does not become the best of all.
        _, box = best.where(best > threshold, 0.0).topk(self.boxes, dim=1)
        xyxy, values = _take(xyxy, box), _take(values, box)

        objectness = values[..., at : at + 1].sigmoid()  # (N, boxes, 1)
        scores = _scores(values, self.kind)  # (N, boxes, C)
        scores = scores.where((scores > threshold) & (objectness > threshold), 0.0)
        scores, pair = scores.flatten(1).topk(self.pairs, dim=1)
        box = torch.div(pair, self.num_classes, rounding_mode="trunc")
        # Class ids travel as float32, exact up to 16 million: no integer arithmetic on the way out.
        return _take(xyxy, box), scores, (pair - box * self.num_classes).float()

    def _survivors(self, xyxy: Tensor, scores: Tensor, class_ids: Tensor) -> Tensor:
        """1.0 where a pair stays, 0.0 where it goes, (N, P)."""
        similar = _similarity(xyxy / self.unit, self.postprocess.nms) > self.postprocess.iou
        same_class = class_ids[:, :, None] == class_ids[:, None, :]
        better = self.position[:, None] < self.position[None, :]  # [i, j]: i before j
        drops = (similar & same_class & better).float()  # (N, P, P)
        stays = valid = (scores > 0).float()[:, None]  # (N, 1, P)
        for _ in range(self.ROUNDS):
            stays = valid * (torch.bmm(stays, drops) < 0.5).float()
        return stays[:, 0]


class HeadsToRows(nn.Module):
    """Heads -> every box decoded, none suppressed; the outputs are those of `RowsLayout`.

    As OpenCV's Darknet importer does it, its layouts have 0 in place of scores up to the threshold.
    """

    def __init__(self, meta: ModelMeta) -> None:
        super().__init__()
        assert meta.rows_layout is not None
        self.layout, self.conf = meta.rows_layout, meta.postprocess.conf
        by_cell = self.layout is not RowsLayout.CHANNELS_FIRST
        self.decoders = nn.ModuleList(_HeadDecoder(head, meta.input_hw, by_cell=by_cell) for head in meta.heads)
        self.kind = meta.heads[0].kind  # of all of them
        self.without_batch = meta.batch.max == 1
        self.register_buffer("unit", torch.tensor([*meta.input_hw[::-1]], dtype=torch.float32))

    def forward(self, *heads: Tensor) -> tuple[Tensor, ...]:
        """Heads as float32 logits -> one tensor, or one per head."""
        rows = [self._rows(*decoder(head)) for head, decoder in zip(heads, self.decoders, strict=True)]
        if self.layout is RowsLayout.CHANNELS_FIRST:
            return (torch.cat(rows, dim=1).transpose(1, 2),)
        if self.layout is RowsLayout.OPENCV_JOINED:
            rows = [torch.cat(rows, dim=1)]
        return tuple(one.flatten(0, 1) for one in rows) if self.without_batch else tuple(rows)

    def _rows(self, values: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
        scores = _scores(values, self.kind)
        if self.layout is RowsLayout.CHANNELS_FIRST:
            return torch.cat([centres, sizes, scores], dim=2)
        at = self.kind.box_values
        objectness = values[..., at : at + 1].sigmoid()
        scores = scores * (scores > self.conf).float()
        return torch.cat([centres / self.unit, sizes / self.unit, objectness, scores], dim=2)


class _HeadDecoder(nn.Module):
    """One head of logits (N, A*F, h, w) -> its values (N, B, F), centres and sizes (N, B, 2) in input px; see postprocess.py.

    The B = A*h*w boxes come anchor by anchor, in the host's order, or cell by cell.
    """

    def __init__(self, head: Head, input_hw: HW, *, by_cell: bool = False) -> None:
        super().__init__()
        self.fields, self.kind, self.by_cell = head.fields, head.kind, by_cell
        self.scale_xy = head.scale_xy
        (grid_h, grid_w), anchors = head.grid_hw, len(head.anchors_wh)
        row, column = np.divmod(np.arange(grid_h * grid_w), grid_w)
        corner = np.stack([column, row], axis=1).astype(np.float32) - np.float32((head.scale_xy - 1) / 2)  # (HW, 2)
        anchors_wh = np.array(head.anchors_wh, np.float32)
        corner, anchors_wh = (
            (np.repeat(corner, anchors, axis=0), np.tile(anchors_wh, (len(corner), 1)))
            if by_cell
            else (np.tile(corner, (anchors, 1)), np.repeat(anchors_wh, len(corner), axis=0))
        )
        self.register_buffer("corner", torch.from_numpy(corner))  # (B, 2)
        self.register_buffer("anchor_wh", torch.from_numpy(anchors_wh))  # (B, 2)
        stride_xy = np.array([input_hw[1] / grid_w, input_hw[0] / grid_h], np.float32)
        self.register_buffer("stride_xy", torch.from_numpy(stride_xy))

    def forward(self, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        batch, channels = head.shape[0], head.shape[1]
        grid = head.reshape(batch, channels // self.fields, self.fields, -1)  # (N, A, F, HW)
        grid = grid.permute(0, 3, 1, 2) if self.by_cell else grid.transpose(2, 3)
        values = grid.reshape(batch, -1, self.fields)
        txywh = values[..., 0:8:2] if self.kind is HeadKind.GAUSSIAN else values[..., :4]
        grown = (2 * txywh[..., 2:].sigmoid()).square() if self.kind is HeadKind.SCALED else txywh[..., 2:].exp()
        centres = (txywh[..., :2].sigmoid() * self.scale_xy + self.corner) * self.stride_xy
        return values, centres, grown * self.anchor_wh


def _certainty(values: Tensor, kind: HeadKind) -> Tensor:
    """What the classes' probabilities are multiplied by: (N, B, F) -> (N, B, 1)."""
    objectness = values[..., kind.box_values : kind.box_values + 1].sigmoid()
    if kind is not HeadKind.GAUSSIAN:
        return objectness
    return objectness * (1 - values[..., 1:8:2].sigmoid().sum(dim=2, keepdim=True) / 4)


def _scores(values: Tensor, kind: HeadKind) -> Tensor:
    """(N, B, F) -> (N, B, C)."""
    classes = values[..., kind.box_values + 1 :]
    return _certainty(values, kind) * (classes.softmax(dim=2) if kind is HeadKind.REGION else classes.sigmoid())


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (N, M) of values (N, B, F): (N, M, F)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[2]))


def _similarity(xyxy: Tensor, nms: Nms) -> Tensor:
    """`postprocess.similarity` of every pair of each image: (N, P, 4) -> (N, P, P)."""
    upper_left, lower_right = xyxy[..., :2], xyxy[..., 2:]
    a, b = (slice(None), slice(None), None), (slice(None), None)
    inside = (torch.minimum(lower_right[a], lower_right[b]) - torch.maximum(upper_left[a], upper_left[b])).clamp(min=0)
    intersection = inside[..., 0] * inside[..., 1]
    sides = lower_right - upper_left
    area = sides[..., 0] * sides[..., 1]
    iou = _ratio(intersection, area[a] + area[b] - intersection)
    if nms.distance_power is None:
        return iou
    centres = (upper_left + lower_right) / 2
    apart = centres[a] - centres[b]
    enclosing = torch.maximum(lower_right[a], lower_right[b]) - torch.minimum(upper_left[a], upper_left[b])
    distance = _ratio((apart * apart).sum(dim=3), (enclosing * enclosing).sum(dim=3))
    return iou - distance**nms.distance_power


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient; 0 where the denominator is 0, since then the numerator is as well."""
    return numerator / denominator.clamp(min=1e-30)
