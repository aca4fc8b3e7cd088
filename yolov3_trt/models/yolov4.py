"""YOLOv4 (Bochkovskiy and others, arXiv 2004.10934), its tiny variant (2011.08036), and YOLOv7-tiny (2207.02696).

As AlexeyAB's Darknet has them: pictures are stretched to the input.
"""

from yolov3_trt.geometry import HW, Resize
from yolov3_trt.layers import Activation, HeadKind, MaxPool, Route, Shortcut, Upsample
from yolov3_trt.models.net import TINY_ANCHORS, Anchors, Net
from yolov3_trt.spec import ModelSpec, Nms, NmsKind

# Of COCO's boxes, input px: at 512 for YOLOv4, at 416 for the tiny ones.
_YOLOV4_ANCHORS: Anchors = (
    (12, 16), (19, 36), (40, 28),
    (36, 75), (76, 55), (72, 146),
    (142, 110), (192, 243), (459, 401),
)  # fmt: skip
_YOLOV7_ANCHORS: Anchors = (
    (10, 13), (16, 30), (33, 23),
    (30, 61), (62, 45), (59, 119),
    (116, 90), (156, 198), (373, 326),
)  # fmt: skip


def yolov4(num_classes: int = 80, input_hw: HW = (608, 608), name: str = "yolov4") -> ModelSpec:
    """YOLOv4: CSPDarknet-53, spatial pyramid pooling, path aggregation; three scales, fine to coarse."""
    net = Net()
    net.conv(32, 3, activation=Activation.MISH)
    _csp_stage(net, 64, 1, whole=True)
    _csp_stage(net, 128, 2)
    stride8 = _csp_stage(net, 256, 8)
    stride16 = _csp_stage(net, 512, 8)
    _csp_stage(net, 1024, 4)
    for filters, size in ((512, 1), (1024, 3), (512, 1)):
        net.conv(filters, size)
    net.spatial_pyramid()
    for filters, size in ((512, 1), (1024, 3)):
        net.conv(filters, size)
    top = net.conv(512, 1)
    _join_finer(net, 256, stride16)
    middle = net.pyramid(256)
    _join_finer(net, 128, stride8)
    fine = net.pyramid(128)
    net.head(256, _YOLOV4_ANCHORS[:3], num_classes, 1.2)
    middle = _join_coarser(net, fine, 256, middle)
    net.head(512, _YOLOV4_ANCHORS[3:6], num_classes, 1.1)
    _join_coarser(net, middle, 512, top)
    net.head(1024, _YOLOV4_ANCHORS[6:], num_classes, 1.05)
    return _spec(net, name, input_hw, NmsKind.GREEDY)


def _csp_stage(net: Net, filters: int, blocks: int, *, whole: bool = False) -> int:
    """Halve the map and split its channels: one part goes through residual blocks, the other around them.

    The first stage keeps all channels in both parts (`whole`) and squeezes inside its block instead.
    """
    part = filters if whole else filters // 2
    mish = Activation.MISH
    down = net.conv(filters, 3, 2, mish)
    around = net.conv(part, 1, activation=mish)
    net.route(down)
    last = net.conv(part, 1, activation=mish)
    for _ in range(blocks):
        net.conv(filters // 2, 1, activation=mish)
        net.conv(part, 3, activation=mish)
        last = net.add(Shortcut((last,)))
    through = net.conv(part, 1, activation=mish)
    net.route(through, around)
    return net.conv(filters, 1, activation=mish)


def _join_finer(net: Net, filters: int, skip: int) -> None:
    """The last map squeezed and doubled in size, behind the backbone's squeezed map of that size."""
    net.conv(filters, 1)
    upsampled = net.add(Upsample(2))
    net.route(skip)
    squeezed = net.conv(filters, 1)
    net.route(squeezed, upsampled)


def _join_coarser(net: Net, finer: int, filters: int, coarser: int) -> int:
    """The finer map halved in size, before the coarser one."""
    net.route(finer)
    halved = net.conv(filters, 3, 2)
    net.route(halved, coarser)
    return net.pyramid(filters)


def yolov4_tiny(num_classes: int = 80, input_hw: HW = (416, 416), name: str = "yolov4-tiny") -> ModelSpec:
    """YOLOv4-tiny: two scales; three stages that send half of their channels around."""
    net = Net()
    net.conv(32, 3, 2)
    net.conv(64, 3, 2)
    for filters in (64, 128, 256):
        first = net.conv(filters, 3)
        net.add(Route((first,), groups=2, group_id=1))
        inner = net.conv(filters // 2, 3)
        net.route(net.conv(filters // 2, 3), inner)
        stride16 = net.conv(filters, 1)
        net.route(first, stride16)
        net.add(MaxPool(2, 2))
    net.conv(512, 3)
    branch = net.conv(256, 1)
    net.head(512, TINY_ANCHORS[3:], num_classes, 1.05)
    net.upsample_and_join(branch, 128, stride16)
    net.head(256, TINY_ANCHORS[1:4], num_classes, 1.05)
    return _spec(net, name, input_hw, NmsKind.GREEDY)


def yolov7_tiny(num_classes: int = 80, input_hw: HW = (416, 416), name: str = "yolov7-tiny") -> ModelSpec:
    """YOLOv7-tiny: blocks whose steps all go into what they give; three scales of `new_coords` heads."""
    net = Net()
    net.conv(32, 3, 2)
    net.conv(64, 3, 2)
    maps = [_elan(net, 32)]
    for filters in (64, 128, 256):
        net.add(MaxPool(2, 2))
        maps.append(_elan(net, filters))
    _, stride8, stride16, last = maps
    squeezed = net.conv(256, 1)
    net.route(last)
    net.conv(256, 1)
    net.spatial_pyramid()
    pooled = net.conv(256, 1)
    net.route(squeezed, pooled)
    top = net.conv(256, 1)
    _join_finer(net, 128, stride16)
    middle = _elan(net, 64)
    _join_finer(net, 64, stride8)
    fine = _elan(net, 32)
    halved = net.conv(128, 3, 2)
    net.route(halved, middle)
    middle = _elan(net, 64)
    halved = net.conv(256, 3, 2)
    net.route(halved, top)
    coarse = _elan(net, 128)
    for scale, source in enumerate((fine, middle, coarse)):
        net.route(source)
        anchors = _YOLOV7_ANCHORS[3 * scale : 3 * scale + 3]
        net.head(128 << scale, anchors, num_classes, 2.0, HeadKind.SCALED)
    return _spec(net, name, input_hw, NmsKind.DIOU)


def _elan(net: Net, filters: int) -> int:
    """One part around, three steps one behind the other, all of them side by side and squeezed to twice the channels."""
    source = len(net.layers) - 1
    around = net.conv(filters, 1)
    net.route(source)
    steps = [net.conv(filters, 1), net.conv(filters, 3), net.conv(filters, 3)]
    net.route(around, *steps)
    return net.conv(2 * filters, 1)


def _spec(net: Net, name: str, input_hw: HW, nms: NmsKind) -> ModelSpec:
    return ModelSpec(name, tuple(net.layers), input_hw, resize=Resize.STRETCH, nms=Nms(nms, 0.6))
