"""Operations and bytes of a network, layer by layer."""

import pytest

from yolov3_trt.costs import BYTES_PER_VALUE, layer_costs, total_bytes, total_flops
from yolov3_trt.layers import Conv, Dropout, MaxPool, Route, Shortcut, Upsample, Yolo
from yolov3_trt.meta import Precision
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.spec import ModelSpec

SPEC = ModelSpec(
    "small",
    (
        Conv(8, size=3, pad=1, batch_norm=True, bias=False),  # 3x16x16 -> 8x16x16
        MaxPool(2, 2),  # -> 8x8x8
        Conv(8, groups=2),  # -> 8x8x8
        Shortcut((1,)),
        Dropout(),
        Upsample(2),  # -> 8x16x16
        Route((5, 0)),  # -> 16x16x16
        Route((6,), groups=2, group_id=1),  # -> 8x16x16
        Conv(14),  # -> 14x16x16
        Yolo(((8.0, 8.0), (16.0, 16.0)), 2),
    ),
    (16, 16),
)


@pytest.mark.parametrize(
    "name, side, gflops",
    [("yolov3", 416, 65.9), ("yolov3-tiny", 416, 5.6), ("yolov3-spp", 608, 141.5), ("yolov3", 608, 140.7)],
)
def test_operations_are_those_that_darknet_prints(name: str, side: int, gflops: float):
    costs = layer_costs(BUILT_IN[name]().with_input_hw((side, side)))
    assert total_flops(costs) / 1e9 == pytest.approx(gflops, rel=0.01)


def test_operations_of_each_layer_by_hand():
    conv = 2 * 3 * 3 * 3 * 8 * 16 * 16
    pool, grouped, added = 2 * 2 * 8 * 8 * 8, 2 * 4 * 8 * 8 * 8, 8 * 8 * 8
    head = 2 * 8 * 14 * 16 * 16
    assert [cost.flops for cost in layer_costs(SPEC)] == [conv, pool, grouped, added, 0, 0, 0, 0, head, 0]


def test_weights_are_those_of_folded_batch_norms():
    assert [cost.weight_values for cost in layer_costs(SPEC) if cost.kind == "Conv"] == [
        3 * 3 * 3 * 8 + 8,
        4 * 8 + 8,
        8 * 14 + 14,
    ]


def test_values_moved_are_sources_and_output_and_nothing_where_nothing_is_computed():
    big, small = 8 * 16 * 16, 8 * 8 * 8
    expected = [3 * 16 * 16 + big, big + small, 2 * small, 3 * small, 0, small + big, 4 * big, 0, big + 14 * 16 * 16, 0]
    assert [cost.moved_values for cost in layer_costs(SPEC)] == expected


def test_a_batch_reads_weights_once_and_pictures_each():
    cost = layer_costs(SPEC)[2]
    assert cost.moved_bytes(4) == 4 * (40 + 1024)
    assert cost.moved_bytes(2, batch=8) == 2 * (40 + 8 * 1024)
    assert cost.intensity(2, batch=8) == pytest.approx(8 * 4096 / (2 * (40 + 8 * 1024)))
    assert layer_costs(SPEC)[-1].intensity(4) == 0
    assert total_bytes([cost, cost], 1) == 2 * (40 + 1024)


def test_every_precision_has_its_bytes():
    assert {precision.value for precision in Precision} <= BYTES_PER_VALUE.keys()
