"""YOLOv3 as readable Python (Redmon and Farhadi, arXiv 1804.02767), its tiny and SPP variants; built-in networks by name."""

from collections.abc import Callable

from yolov3_trt.geometry import HW
from yolov3_trt.layers import MaxPool
from yolov3_trt.models.class_names import SHAPE_NAMES
from yolov3_trt.models.net import TINY_ANCHORS, Anchors, Net
from yolov3_trt.models.yolov4 import yolov4, yolov4_tiny, yolov7_tiny
from yolov3_trt.spec import ModelSpec

# k-means of COCO's boxes, input px at 416 (section 2.3 of the paper), small to large: three per scale.
YOLOV3_ANCHORS: Anchors = (
    (10, 13), (16, 30), (33, 23),
    (30, 61), (62, 45), (59, 119),
    (116, 90), (156, 198), (373, 326),
)  # fmt: skip
# The same of 2,500 boxes of `yolov3_trt.shapes`, input px at 256; shapes turn freely, so these are squares.
SHAPES_ANCHORS: Anchors = (
    (21, 21), (25, 25), (30, 30),
    (35, 35), (43, 43), (52, 52),
    (64, 64), (82, 82), (108, 108),
)  # fmt: skip


def darknet53(net: Net) -> tuple[int, int, int]:
    """The backbone; returns its maps at strides 8, 16 and 32."""
    net.conv(32, 3)
    net.residual_stage(64, 1)
    net.residual_stage(128, 2)
    stride8 = net.residual_stage(256, 8)
    stride16 = net.residual_stage(512, 8)
    stride32 = net.residual_stage(1024, 4)
    return stride8, stride16, stride32


def yolov3(num_classes: int = 80, input_hw: HW = (416, 416), name: str = "yolov3") -> ModelSpec:
    """YOLOv3: Darknet-53 and three scales; 61,949,149 parameters with 80 classes."""
    net = Net()
    stride8, stride16, _ = darknet53(net)
    branch = net.pyramid(512)
    return _upper_scales(net, branch, (stride8, stride16), num_classes, input_hw, name)


def yolov3_spp(num_classes: int = 80, input_hw: HW = (608, 608), name: str = "yolov3-spp") -> ModelSpec:
    """YOLOv3 with spatial pyramid pooling (5, 9 and 13 px windows) before its first head."""
    net = Net()
    stride8, stride16, _ = darknet53(net)
    net.conv(512, 1)
    net.conv(1024, 3)
    net.conv(512, 1)
    net.spatial_pyramid()
    net.conv(512, 1)
    net.conv(1024, 3)
    branch = net.conv(512, 1)
    return _upper_scales(net, branch, (stride8, stride16), num_classes, input_hw, name)


def _upper_scales(
    net: Net, branch: int, skips: tuple[int, int], num_classes: int, input_hw: HW, name: str
) -> ModelSpec:
    """The head at stride 32, then the scales at 16 and 8."""
    stride8, stride16 = skips
    net.head(1024, YOLOV3_ANCHORS[6:], num_classes)
    net.upsample_and_join(branch, 256, stride16)
    branch = net.pyramid(256)
    net.head(512, YOLOV3_ANCHORS[3:6], num_classes)
    net.upsample_and_join(branch, 128, stride8)
    net.pyramid(128)
    net.head(256, YOLOV3_ANCHORS[:3], num_classes)
    return ModelSpec(name, tuple(net.layers), input_hw)


def shapes(num_classes: int = len(SHAPE_NAMES), input_hw: HW = (256, 256), name: str = "shapes") -> ModelSpec:
    """The bundled demo model: YOLOv3 in small, 2 MiB of weights, trained on the pictures of `yolov3_trt.shapes`.

    Residual stages and three heads as in the big one. It halves the picture at once: maps at full size would take a third
    of the time.
    """
    net = Net()
    net.residual_stage(16, 0)
    net.residual_stage(32, 1)
    stride8 = net.residual_stage(48, 2)
    stride16 = net.residual_stage(80, 2)
    net.residual_stage(96, 1)
    branch = net.pyramid(48)
    net.head(96, SHAPES_ANCHORS[6:], num_classes)
    net.upsample_and_join(branch, 32, stride16)
    branch = net.pyramid(32)
    net.head(64, SHAPES_ANCHORS[3:6], num_classes)
    net.upsample_and_join(branch, 24, stride8)
    net.pyramid(24)
    net.head(48, SHAPES_ANCHORS[:3], num_classes)
    return ModelSpec(name, tuple(net.layers), input_hw)


def yolov3_tiny(num_classes: int = 80, input_hw: HW = (416, 416), name: str = "yolov3-tiny") -> ModelSpec:
    """YOLOv3-tiny: a plain backbone and two scales.

    The second head has anchors 1, 2, 3, with which the published weights were trained; the published cfg says 0, 1, 2
    (ultralytics/yolov3#256).
    """
    net = Net()
    for filters in (16, 32, 64, 128):
        net.conv(filters, 3)
        net.add(MaxPool(2, 2))
    stride16 = net.conv(256, 3)
    net.add(MaxPool(2, 2))
    net.conv(512, 3)
    net.add(MaxPool(2, 1))
    net.conv(1024, 3)
    branch = net.conv(256, 1)
    net.head(512, TINY_ANCHORS[3:], num_classes)
    net.upsample_and_join(branch, 128, stride16)
    net.head(256, TINY_ANCHORS[1:4], num_classes)
    return ModelSpec(name, tuple(net.layers), input_hw)


def yolov3_voc() -> ModelSpec:
    """YOLOv3 for the 20 classes of Pascal VOC; 61,626,049 parameters."""
    return yolov3(num_classes=20, name="yolov3-voc")


BUILT_IN: dict[str, Callable[[], ModelSpec]] = {
    "yolov3": yolov3,
    "yolov3-spp": yolov3_spp,
    "yolov3-tiny": yolov3_tiny,
    "yolov3-voc": yolov3_voc,
    "yolov4": yolov4,
    "yolov4-tiny": yolov4_tiny,
    "yolov7-tiny": yolov7_tiny,
    "shapes": shapes,
}
