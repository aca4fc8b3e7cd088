"""The loss by hand: one object, one head, numbers that a pocket calculator gives."""

import math

import numpy as np
import pytest
import torch

from yolov3_trt.spec import Head
from yolov3_trt.training.assign import Objects
from yolov3_trt.training.loss import Loss, yolo_loss
from yolov3_trt.training.settings import BoxLoss, LossSettings

INPUT_HW = (32, 32)
HEAD = Head("head0", 0, ((16.0, 16.0),), 2, (2, 2))  # cells of 16 px, one prior as large as a cell
LN2 = math.log(2)
PLAIN = LossSettings(box_weight=1, objectness_weight=1, class_weight=1)
COORDINATES = LossSettings(box_loss=BoxLoss.COORDINATES, box_weight=1)


def objects(*rows: tuple[float, ...], images: tuple[int, ...] | None = None) -> Objects:
    """Rows of (cx, cy, w, h, class)."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    image_ids = np.zeros(len(table), np.int64) if images is None else np.array(images, np.int64)
    return Objects(table[:, :4], table[:, 4].astype(np.int64), image_ids)


def loss_of(
    truth: Objects, logits: torch.Tensor | None = None, head: Head = HEAD, settings: LossSettings = PLAIN
) -> tuple[float, float, float]:
    """(box, objectness, classes); logits of zeros unless given."""
    output = torch.zeros(1, head.channels, *head.grid_hw) if logits is None else logits
    loss = yolo_loss([output], truth, [head], INPUT_HW, settings)
    return float(loss.box), float(loss.objectness), float(loss.classes)


def test_a_perfect_box_with_undecided_objectness_and_classes():
    # Zero logits decode to the prior at the cell's centre: just this object. Each sigmoid says 0.5 and costs ln 2.
    box, objectness, classes = loss_of(objects((8, 8, 16, 16, 1)))
    assert box == pytest.approx(0, abs=1e-6)
    assert objectness == pytest.approx(4 * LN2)  # one that should say yes, three that should say no
    assert classes == pytest.approx(2 * LN2)


def test_confident_and_right_costs_nothing_confident_and_wrong_costs_the_logit():
    logits = torch.full((1, 7, 2, 2), 0.0)
    logits[:, 4] = -20
    logits[0, 4, 0, 0] = 20
    logits[0, 5:, 0, 0] = torch.tensor([20.0, -20.0])  # class 0 for sure
    assert loss_of(objects((8, 8, 16, 16, 0)), logits) == pytest.approx((0, 0, 0), abs=1e-6)
    assert loss_of(objects((8, 8, 16, 16, 1)), logits)[2] == pytest.approx(40)


def test_ciou_of_a_box_half_as_wide():
    # IoU 1/2, centres equal; v = 4/π² (atan 1/2 - atan 1)² = .041957, α = v / (1/2 + v) = .077417.
    box, _, _ = loss_of(objects((8, 8, 8, 16, 0)))
    assert box == pytest.approx(0.5 + 0.077417 * 0.041957, abs=1e-5)


def test_ciou_of_a_shifted_box():
    # (4, 0)..(20, 16) against (0, 0)..(16, 16): IoU 12/20; d² = 16, c² = 20² + 16² = 656; same aspect.
    # Its centre 12 is still in the first cell.
    box, _, _ = loss_of(objects((12, 8, 16, 16, 0)))
    assert box == pytest.approx(1 - 12 / 20 + 16 / 656, abs=1e-5)


def test_ciou_leaves_the_aspect_ratio_alone_below_an_iou_of_a_half():
    # 4 wide: IoU 1/4, and v does not count.
    assert loss_of(objects((8, 8, 4, 16, 0)))[0] == pytest.approx(0.75, abs=1e-6)


def test_coordinate_loss_of_a_box_half_as_wide():
    # x, y: target 1/2 at logit 0 costs ln 2 each; w: (ln 8/16)² / 2; times 2 - 8 * 16 / 32².
    box, _, _ = loss_of(objects((8, 8, 8, 16, 0)), settings=COORDINATES)
    assert box == pytest.approx((2 - 0.125) * (2 * LN2 + LN2**2 / 2), abs=1e-5)


def test_coordinate_gradient_is_prediction_minus_target():
    # The paper's rule; here target x is 12/16 of the cell, so sigmoid(0) - 0.75, times 2 - 16² / 32².
    logits = torch.zeros(1, 7, 2, 2, requires_grad=True)
    yolo_loss([logits], objects((12, 8, 16, 8, 0)), [HEAD], INPUT_HW, COORDINATES).box.backward()
    assert logits.grad is not None
    small = 2 - 16 * 8 / 32**2
    expected = [small * (0.5 - 0.75), 0, 0, small * LN2]
    np.testing.assert_allclose(logits.grad[0, :4, 0, 0], expected, atol=1e-6)
    assert not logits.grad[0, :, 1, 1].any()


def test_a_predictor_that_overlaps_an_object_is_not_called_background():
    # The second prior in the object's cell decodes to 16 x 15: IoU 15/16 with the object, so it counts neither way.
    head = Head("head0", 0, ((16.0, 16.0), (16.0, 15.0)), 2, (2, 2))
    truth = objects((8, 8, 16, 16, 0))
    assert loss_of(truth, head=head)[1] == pytest.approx(7 * LN2)
    strict = LossSettings(box_weight=1, ignore_iou=0.95)
    assert loss_of(truth, head=head, settings=strict)[1] == pytest.approx(8 * LN2)


def test_scale_xy_widens_where_a_centre_can_be():
    # With scale_x_y = 2 a logit of 0 is still the cell's centre, and large ones reach half a cell beyond its border.
    head = Head("head0", 0, ((16.0, 16.0),), 2, (2, 2), scale_xy=2.0)
    assert loss_of(objects((8, 8, 16, 16, 0)), head=head)[0] == pytest.approx(0, abs=1e-6)
    logits = torch.zeros(1, 7, 2, 2)
    logits[0, 0, 0, 0] = 50  # centre at (1 * 2 - 0.5) * 16 = 24
    box, _, _ = loss_of(objects((8, 8, 16, 16, 0)), logits, head)
    assert box == pytest.approx(1 + 16**2 / (32**2 + 16**2), abs=1e-5)


def test_no_objects_only_background_remains():
    assert loss_of(objects()) == pytest.approx((0, 4 * LN2, 0))


def test_the_size_of_the_batch_does_not_change_the_loss():
    truth = objects((8, 8, 16, 16, 1), (8, 8, 16, 16, 1), images=(0, 1))
    twice = yolo_loss([torch.zeros(2, 7, 2, 2)], truth, [HEAD], INPUT_HW, PLAIN)
    assert loss_of(objects((8, 8, 16, 16, 1))) == pytest.approx(
        (float(twice.box), float(twice.objectness), float(twice.classes))
    )


def test_weights_multiply_their_part():
    truth, base = objects((8, 8, 8, 16, 1)), loss_of(objects((8, 8, 8, 16, 1)))
    weighed = loss_of(truth, settings=LossSettings(box_weight=2, objectness_weight=3, class_weight=5))
    assert weighed == pytest.approx((2 * base[0], 3 * base[1], 5 * base[2]))


def random_case(seed: int) -> tuple[torch.Tensor, Objects]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 0.7, (2, 7, 2, 2))).requires_grad_()
    boxes = np.concatenate([rng.uniform(3, 29, (3, 2)), rng.uniform(4, 30, (3, 2))], axis=1).astype(np.float32)
    return logits, Objects(boxes, rng.integers(0, 2, 3), np.array([0, 0, 1]))


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_every_part_but_the_aspect_ratio_are_right(seed: int):
    logits, truth = random_case(seed)
    settings = LossSettings(
        box_loss=BoxLoss.COORDINATES, ignore_iou=1.0
    )  # the ignored set must not change under the probe

    def total(x: torch.Tensor) -> torch.Tensor:
        return yolo_loss([x], truth, [HEAD], INPUT_HW, settings).total

    assert torch.autograd.gradcheck(total, (logits,), eps=1e-6, atol=1e-6)


def reference_ciou(txywh: np.ndarray, true: np.ndarray, alpha: float | None) -> tuple[float, float]:
    """Loss and alpha of the predictor in cell (0, 0) in plain Python, with alpha given or its own."""
    tx, ty, tw, th = txywh
    cx, cy = 16 / (1 + math.exp(-tx)), 16 / (1 + math.exp(-ty))
    w, h = 16 * math.exp(tw), 16 * math.exp(th)
    gx, gy, gw, gh = true
    overlap_w = min(cx + w / 2, gx + gw / 2) - max(cx - w / 2, gx - gw / 2)
    overlap_h = min(cy + h / 2, gy + gh / 2) - max(cy - h / 2, gy - gh / 2)
    iou = overlap_w * overlap_h / (w * h + gw * gh - overlap_w * overlap_h)
    enclosing_w = max(cx + w / 2, gx + gw / 2) - min(cx - w / 2, gx - gw / 2)
    enclosing_h = max(cy + h / 2, gy + gh / 2) - min(cy - h / 2, gy - gh / 2)
    distance = ((cx - gx) ** 2 + (cy - gy) ** 2) / (enclosing_w**2 + enclosing_h**2)
    v = 4 / math.pi**2 * (math.atan(gw / gh) - math.atan(w / h)) ** 2
    if alpha is None:
        alpha = v / (1 - iou + v) if iou >= 0.5 else 0.0
    return 1 - iou + distance + alpha * v, alpha


def test_ciou_and_its_gradient_agree_with_finite_differences_at_fixed_alpha():
    point, true = np.array([0.3, -0.2, 0.25, -0.15]), np.array([9.0, 7.0, 17.0, 15.0])
    logits = torch.zeros(1, 7, 2, 2, dtype=torch.float64)
    logits[0, :4, 0, 0] = torch.from_numpy(point)
    logits.requires_grad_()
    loss = yolo_loss([logits], objects((*true, 0)), [HEAD], INPUT_HW, PLAIN).box
    value, alpha = reference_ciou(point, true, None)
    assert alpha > 0 and float(loss.detach()) == pytest.approx(value, abs=1e-6)
    loss.backward()
    steps = np.eye(4) * 1e-5
    expected = [
        (reference_ciou(point + step, true, alpha)[0] - reference_ciou(point - step, true, alpha)[0]) / 2e-5
        for step in steps
    ]
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[0, :4, 0, 0], expected, atol=1e-6)


def test_wild_logits_do_not_make_the_loss_infinite():
    logits = torch.full((1, 7, 2, 2), 1e4, requires_grad=True)
    loss: Loss = yolo_loss([logits], objects((8, 8, 16, 16, 0)), [HEAD], INPUT_HW, PLAIN)
    loss.total.backward()
    assert math.isfinite(float(loss.total.detach())) and logits.grad is not None and torch.isfinite(logits.grad).all()
