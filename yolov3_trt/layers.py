"""The layers that a network is made of, and the shapes that they make.

A layer reads the output of the one before it unless it names other sources, by absolute index.
"""

import math
from dataclasses import dataclass
from enum import Enum

from yolov3_trt.errors import SpecError

CHW = tuple[int, int, int]
MAX_VALUES = 2**31 - 1  # of one layer's output for one image; TensorRT takes no more


class Activation(str, Enum):
    """Element-wise functions, by Darknet's names."""

    LINEAR = "linear"
    LEAKY = "leaky"  # slope 0.1 below zero
    RELU = "relu"
    RELU6 = "relu6"
    MISH = "mish"
    SWISH = "swish"
    LOGISTIC = "logistic"


class HeadKind(str, Enum):
    """How the values of a head become boxes and scores; the formulas are in `postprocess`."""

    YOLO = "yolo"  # YOLOv3 and YOLOv4
    SCALED = "scaled"  # Scaled-YOLOv4 and YOLOv7: Darknet's new_coords=1
    REGION = "region"  # YOLOv2: one softmax over the classes
    GAUSSIAN = "gaussian"  # Gaussian YOLOv3: each of x, y, w, h with its uncertainty

    @property
    def box_values(self) -> int:
        """Values before the objectness of an anchor: x, y, w, h; with Gaussian heads each is followed by its uncertainty."""
        return 8 if self is HeadKind.GAUSSIAN else 4


@dataclass(frozen=True)
class Conv:
    """Convolution, then batch norm if any, then activation: (C, H, W) -> (filters, H', W')."""

    filters: int
    size: int = 1  # kernel side, px
    stride: int = 1
    pad: int = 0  # zeros on each side, px
    groups: int = 1
    batch_norm: bool = False
    bias: bool = True  # the convolution's own; Darknet has one exactly where there is no batch norm
    activation: Activation = Activation.LINEAR
    dilation: int = 1  # px between the kernel's values; Darknet multiplies the padding by it
    shares: int | None = None  # index of the layer whose weights this one uses


@dataclass(frozen=True)
class MaxPool:
    """Darknet max pooling: (C, H, W) -> (C, ceil(H / stride), ceil(W / stride)).

    Darknet pads `size - 1` in total, the smaller half first (src/maxpool_layer.c). That one rule covers the 2/2 pools,
    the 2/1 pool of yolov3-tiny and the 5, 9 and 13 pools of SPP.
    """

    size: int
    stride: int = 1


@dataclass(frozen=True)
class LocalAvgPool:
    """Average pooling, padded as `MaxPool` is; what lies outside the map does not count."""

    size: int
    stride: int = 1


def pool_pads(pool: MaxPool | LocalAvgPool, side: int) -> tuple[int, int]:
    """Padding before and after a side of a map, px; after only as much as a window reaches."""
    before = (pool.size - 1) // 2
    last_window_end = (-(-side // pool.stride) - 1) * pool.stride - before + pool.size
    return before, max(0, last_window_end - side)


@dataclass(frozen=True)
class AvgPool:
    """Global average: (C, H, W) -> (C, 1, 1)."""


@dataclass(frozen=True)
class Upsample:
    """Enlargement by a whole factor: (C, H, W) -> (C, stride * H, stride * W)."""

    stride: int = 2
    bilinear: bool = False  # half-pixel centres; nearest neighbour otherwise, as Darknet does


@dataclass(frozen=True)
class Route:
    """Concatenation of earlier outputs along the channels; with groups, part `group_id` of each of them."""

    sources: tuple[int, ...]
    groups: int = 1
    group_id: int = 0


@dataclass(frozen=True)
class Shortcut:
    """Sum of the previous output (C, H, W) and earlier ones.

    A source of another shape takes part as in pjreddie's src/blas.c, shortcut_cpu: the first min(C, C') channels, every
    (H' / H)th pixel; the other channels stay as they are.
    """

    sources: tuple[int, ...]
    activation: Activation = Activation.LINEAR


@dataclass(frozen=True)
class ScaleChannels:
    """Squeeze-and-excite: the source (C, H, W) times the previous output (C, 1, 1)."""

    source: int
    activation: Activation = Activation.LINEAR


@dataclass(frozen=True)
class Sam:
    """Spatial attention: the source (C, H, W) times the previous output (C, H, W)."""

    source: int
    activation: Activation = Activation.LINEAR


@dataclass(frozen=True)
class Reorg:
    """YOLOv2's way from space to depth: (C, H, W) -> (C * stride², H / stride, W / stride).

    Darknet's [reorg] (src/reorg_old_layer.c) takes its input for a (C / stride², H * stride, W * stride) map, moves space
    to depth in that, and takes the result for the output; its weights were trained so.
    """

    stride: int = 2


@dataclass(frozen=True)
class SpaceToDepth:
    """Darknet's [reorg3d]: pixel (y, x) of each stride x stride block becomes channels (y * stride + x) * C onwards."""

    stride: int = 2


@dataclass(frozen=True)
class TrainingOnly:
    """A section that computes a loss and nothing else, such as [cost]: identity at inference."""

    section: str


@dataclass(frozen=True)
class Dropout:
    """Identity at inference."""

    probability: float = 0.5


@dataclass(frozen=True)
class Softmax:
    """Softmax over all values, in `groups` equal parts, as Darknet does (src/softmax_layer.c): (C, H, W) -> (C, H, W).

    On a map of one pixel, a classifier's last, that is over the channels.
    """

    groups: int = 1


@dataclass(frozen=True)
class Yolo:
    """Marks its input as an output head, of len(anchors_wh) * fields channels of logits.

    A SCALED head is read from a convolution with a logistic activation; that is left to the decoding, so that the head's
    values are logits as those of the others.
    """

    anchors_wh: tuple[
        tuple[float, float], ...
    ]  # this head's only, input px; of a REGION head in cells, as its cfg has them
    num_classes: int
    scale_xy: float = 1.0
    kind: HeadKind = HeadKind.YOLO

    @property
    def fields(self) -> int:
        """Values of one anchor in one cell."""
        return self.kind.box_values + 1 + self.num_classes


Layer = (
    Conv
    | MaxPool
    | LocalAvgPool
    | AvgPool
    | Upsample
    | Route
    | Shortcut
    | ScaleChannels
    | Sam
    | Reorg
    | SpaceToDepth
    | TrainingOnly
    | Dropout
    | Softmax
    | Yolo
)


def output_shape(layer: Layer, inputs: list[CHW]) -> CHW:
    """(C, H, W) of what a layer makes of its sources' (C, H, W).

    Raises:
        SpecError: it cannot.
    """
    shape = _output_shape(layer, inputs)
    if math.prod(shape) > MAX_VALUES:
        raise SpecError(f"its output is {_text(shape)}; expected at most 2^31 - 1 values")
    return shape


def _output_shape(layer: Layer, inputs: list[CHW]) -> CHW:  # noqa: C901 - a case for each kind
    channels, height, width = inputs[0] if inputs else (0, 0, 0)
    match layer:
        case Conv():
            return _conv_shape(layer, inputs[0])
        case MaxPool(size=size, stride=stride) | LocalAvgPool(size=size, stride=stride):
            _at_least_one(size=size, stride=stride)
            return channels, -(-height // stride), -(-width // stride)
        case AvgPool():
            return channels, 1, 1
        case Upsample(stride=stride):
            _at_least_one(stride=stride)
            return channels, height * stride, width * stride
        case Route():
            return _route_shape(layer, inputs)
        case Shortcut():
            return _shortcut_shape(inputs)
        case ScaleChannels():
            if inputs[0] != (inputs[1][0], 1, 1):
                raise SpecError(f"scales {_text(inputs[1])} by {_text(inputs[0])}; expected {inputs[1][0]}x1x1")
            return inputs[1]
        case Sam():
            if inputs[0] != inputs[1]:
                raise SpecError(f"multiplies {_text(inputs[1])} by {_text(inputs[0])}; expected the same size")
            return inputs[0]
        case Reorg(stride=stride) | SpaceToDepth(stride=stride):
            _at_least_one(stride=stride)
            if height % stride or width % stride or (isinstance(layer, Reorg) and channels % stride**2):
                raise SpecError(f"stride={stride} does not divide {_text(inputs[0])}; expected a map that it divides")
            return channels * stride**2, height // stride, width // stride
        case Dropout() | TrainingOnly():
            return inputs[0]
        case Softmax(groups=groups):
            _at_least_one(groups=groups)
            if (values := channels * height * width) % groups:
                raise SpecError(f"softmax of {values} values in groups={groups}; expected a divisor of {values}")
            return inputs[0]
        case Yolo():
            return _yolo_shape(layer, inputs[0])


def _conv_shape(conv: Conv, source: CHW) -> CHW:
    channels, height, width = source
    _at_least_one(filters=conv.filters, size=conv.size, stride=conv.stride, groups=conv.groups)
    if conv.pad < 0:
        raise SpecError(f"pad={conv.pad}; expected 0 or more")
    if channels % conv.groups or conv.filters % conv.groups:
        raise SpecError(f"groups={conv.groups} divides not both {channels} input channels and filters={conv.filters}")
    _at_least_one(dilation=conv.dilation)
    if conv.dilation > 1 and 2 * conv.pad != conv.size - 1:
        raise SpecError(
            f"dilation={conv.dilation} with a {conv.size}x{conv.size} kernel and pad={conv.pad}; expected a pad of half the "
            "kernel, where Darknet's own size of the output is right"
        )
    out_h = (height + 2 * conv.pad - conv.size) // conv.stride + 1
    out_w = (width + 2 * conv.pad - conv.size) // conv.stride + 1
    if min(out_h, out_w) < 1:
        raise SpecError(f"a {conv.size}x{conv.size} kernel with pad={conv.pad} does not fit {height}x{width}")
    return conv.filters, out_h, out_w


def _route_shape(route: Route, inputs: list[CHW]) -> CHW:
    if not inputs:
        raise SpecError("routes no layer; expected one or more")
    _at_least_one(groups=route.groups)
    if not 0 <= route.group_id < route.groups:
        raise SpecError(f"group_id={route.group_id}; expected 0..{route.groups - 1}")
    if len({shape[1:] for shape in inputs}) > 1:
        sizes = ", ".join(f"layer {i}: {_text(shape)}" for i, shape in zip(route.sources, inputs, strict=True))
        raise SpecError(f"joins maps of different sizes ({sizes})")
    if any(shape[0] % route.groups for shape in inputs):
        raise SpecError(f"groups={route.groups} does not divide the channels of {', '.join(map(_text, inputs))}")
    return sum(shape[0] // route.groups for shape in inputs), *inputs[0][1:]


def _shortcut_shape(inputs: list[CHW]) -> CHW:
    if len(inputs) < 2:
        raise SpecError("adds no layer; expected one or more")
    here = inputs[0]
    for source in inputs[1:]:
        step = source[1] // here[1]
        if step < 1 or (here[1] * step, here[2] * step) != source[1:]:
            raise SpecError(f"adds {_text(source)} to {_text(here)}; expected the same size or a whole multiple of it")
    return here


def _yolo_shape(yolo: Yolo, source: CHW) -> CHW:
    if not yolo.anchors_wh:
        raise SpecError("this head has no anchors; expected one or more")
    _at_least_one(classes=yolo.num_classes)
    expected = len(yolo.anchors_wh) * yolo.fields
    if source[0] != expected:
        raise SpecError(
            f"the layer before this head has filters={source[0]}; expected masks x ({yolo.kind.box_values + 1} + classes) = "
            f"{len(yolo.anchors_wh)} x ({yolo.kind.box_values + 1} + {yolo.num_classes}) = {expected}"
        )
    return source


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise SpecError(f"{name}={value}; expected 1 or more")


def _text(shape: CHW) -> str:
    return "x".join(map(str, shape))
