"""The layer-spec IR: what a model is, before any framework sees it.

A `ModelSpec` is a list of layers as Darknet counts them. Layer `i` reads the output of layer `i - 1` (layer 0 reads the
image) unless it names other sources; source indices are absolute, the cfg parser resolves negative ones. A spec is
checked once, when it is made; whoever holds one can rely on its shapes.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

from yolov3_trt.errors import SpecError
from yolov3_trt.geometry import HW, Resize

CHW = tuple[int, int, int]
IMAGE = -1  # source index of the network's input
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


class NmsKind(str, Enum):
    """What non-maximum suppression compares with its threshold, by Darknet's names (AlexeyAB src/box.c)."""

    PLAIN = "default"  # IoU
    GREEDY = "greedynms"  # IoU - (d²/c²)^0.6, whatever beta_nms says
    DIOU = "diounms"  # IoU - (d²/c²)^beta_nms


@dataclass(frozen=True)
class Nms:
    """The similarity of two boxes during non-maximum suppression: IoU, less a power of their distance."""

    kind: NmsKind = NmsKind.PLAIN
    beta: float = 0.6

    @property
    def distance_power(self) -> float | None:
        """Power p of similarity = IoU - (d²/c²)^p; None for plain IoU."""
        if self.kind is NmsKind.PLAIN:
            return None
        return 0.6 if self.kind is NmsKind.GREEDY else self.beta


@dataclass(frozen=True)
class BatchNorm:
    """How batch normalisation divides: by sqrt(var + epsilon), or by sqrt(var) + epsilon.

    AlexeyAB's Darknet and the forks after it do the first with 1e-5, pjreddie's the second with 1e-6. Channels whose
    variance is near zero tell them apart.
    """

    epsilon: float = 1e-5
    after_sqrt: bool = False


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


@dataclass(frozen=True)
class MaxPool:
    """Darknet max pooling: (C, H, W) -> (C, ceil(H / stride), ceil(W / stride)).

    Darknet pads `size - 1` in total, the smaller half first (src/maxpool_layer.c). That one rule covers the 2/2 pools,
    the 2/1 pool of yolov3-tiny and the 5, 9 and 13 pools of SPP.
    """

    size: int
    stride: int = 1


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
class Dropout:
    """Identity at inference."""

    probability: float = 0.5


@dataclass(frozen=True)
class Softmax:
    """Softmax over the channels, in `groups` equal parts: (C, H, W) -> (C, H, W)."""

    groups: int = 1


@dataclass(frozen=True)
class Yolo:
    """Marks its input as an output head of len(anchors_wh) * (5 + num_classes) channels of logits."""

    anchors_wh: tuple[tuple[float, float], ...]  # input px, this head's only
    num_classes: int
    scale_xy: float = 1.0


Layer = Conv | MaxPool | AvgPool | Upsample | Route | Shortcut | ScaleChannels | Dropout | Softmax | Yolo


@dataclass(frozen=True)
class Head:
    """What decodes one output head, (N, A * (5 + C), grid_h, grid_w) of logits in the order x, y, w, h, obj, classes."""

    name: str  # of the graph's output
    layer: int  # index of its Yolo layer
    anchors_wh: tuple[tuple[float, float], ...]  # input px
    num_classes: int
    grid_hw: HW
    scale_xy: float = 1.0

    @property
    def channels(self) -> int:
        """A * (5 + C)."""
        return len(self.anchors_wh) * (5 + self.num_classes)


@dataclass(frozen=True)
class ModelSpec:
    """A whole network: its layers, its default input size, and what Darknet keeps outside the layers.

    Raises:
        SpecError: at construction, when the layers do not fit together.
    """

    name: str
    layers: tuple[Layer, ...]
    input_hw: HW  # input px
    channels: int = 3
    resize: Resize = Resize.LETTERBOX
    batch_norm: BatchNorm = field(default_factory=BatchNorm)
    nms: Nms = field(default_factory=Nms)

    def __post_init__(self) -> None:
        if min(*self.input_hw, self.channels) < 1:
            raise SpecError(
                f"{self.name}: input {self.channels}x{self.input_hw}; expected at least one pixel, one channel"
            )
        if not self.layers:
            raise SpecError(f"{self.name}: there are no layers")
        _ = self.shapes  # checks every layer
        classes = {head.num_classes for head in self.heads}
        if len(classes) > 1:
            raise SpecError(f"{self.name}: the heads have {sorted(classes)} classes; expected one number")

    @cached_property
    def shapes(self) -> tuple[CHW, ...]:
        """Output (C, H, W) of each layer, for `input_hw`."""
        shapes: list[CHW] = []
        for index, layer in enumerate(self.layers):
            for source in self.sources(index):
                if not IMAGE <= source < index:
                    raise SpecError(f"layer {index} reads layer {source}; expected 0..{index - 1}", layer=index)
            inputs = [self._input_shape if i == IMAGE else shapes[i] for i in self.sources(index)]
            try:
                shape = _output_shape(layer, inputs)
                if _volume(shape) > MAX_VALUES:
                    raise SpecError(f"its output is {_text(shape)}; expected at most 2^31 - 1 values")
                shapes.append(shape)
            except SpecError as exc:
                raise SpecError(f"layer {index}: {exc}", layer=index) from None
        return tuple(shapes)

    def sources(self, index: int) -> tuple[int, ...]:
        """Indices of the layers that layer `index` reads, the previous one first; IMAGE for the network's input."""
        layer = self.layers[index]
        match layer:
            case Route(sources=sources):
                return sources
            case Shortcut(sources=sources):
                return (index - 1, *sources)
            case ScaleChannels(source=source):
                return (index - 1, source)
            case _:
                return (index - 1,)

    def input_shape(self, index: int) -> CHW:
        """(C, H, W) of what layer `index` reads first."""
        source = self.sources(index)[0]
        return self._input_shape if source == IMAGE else self.shapes[source]

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The detection heads in layer order; empty for a classifier."""
        yolos = [(i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, Yolo)]
        return tuple(
            Head(f"head{n}", i, yolo.anchors_wh, yolo.num_classes, self.shapes[i][1:], yolo.scale_xy)
            for n, (i, yolo) in enumerate(yolos)
        )

    @property
    def outputs(self) -> tuple[int, ...]:
        """Layers whose outputs are the network's: the heads, or the last layer of a classifier."""
        return tuple(head.layer for head in self.heads) or (len(self.layers) - 1,)

    @property
    def num_classes(self) -> int:
        """Of the heads; for a classifier the channels of its last layer."""
        return self.heads[0].num_classes if self.heads else self.shapes[-1][0]

    @cached_property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight by its key, e.g. `layers.12.conv.weight`: the keys of the module's state_dict."""
        shapes: dict[str, tuple[int, ...]] = {}
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Conv):
                continue
            prefix = f"layers.{index}"
            in_channels = self.input_shape(index)[0]
            shapes[f"{prefix}.conv.weight"] = (layer.filters, in_channels // layer.groups, layer.size, layer.size)
            if layer.bias:
                shapes[f"{prefix}.conv.bias"] = (layer.filters,)
            if layer.batch_norm:
                for part in BATCH_NORM_PARTS:
                    shapes[f"{prefix}.batch_norm.{part}"] = (layer.filters,)
        return shapes

    @property
    def num_values(self) -> int:
        """Weights in all, running statistics of the batch norms included."""
        return sum(_volume(shape) for shape in self.weight_shapes.values())

    @property
    def num_statistics(self) -> int:
        """Running means and variances of the batch norms."""
        return sum(_volume(shape) for key, shape in self.weight_shapes.items() if ".running_" in key)

    @property
    def num_parameters(self) -> int:
        """Trained weights: without the running statistics."""
        return self.num_values - self.num_statistics

    def with_input_hw(self, input_hw: HW) -> "ModelSpec":
        """The same network for another input size.

        Raises:
            SpecError: the size does not fit this network.
        """
        try:
            return replace(self, input_hw=input_hw)
        except SpecError as exc:
            # All layers' strides multiply to 32 in every YOLOv3; other networks may differ, so this is only advice.
            raise SpecError(
                f"{self.name}: input size {input_hw[0]}x{input_hw[1]} does not fit ({exc}); multiples of 32 do",
                layer=exc.layer,
            ) from None

    @property
    def _input_shape(self) -> CHW:
        return (self.channels, *self.input_hw)


BATCH_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def _output_shape(layer: Layer, inputs: list[CHW]) -> CHW:
    channels, height, width = inputs[0] if inputs else (0, 0, 0)
    match layer:
        case Conv():
            return _conv_shape(layer, inputs[0])
        case MaxPool(size=size, stride=stride):
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
        case Dropout():
            return inputs[0]
        case Softmax(groups=groups):
            _at_least_one(groups=groups)
            if channels % groups:
                raise SpecError(f"softmax of {channels} channels in groups={groups}; expected a divisor of {channels}")
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
    expected = len(yolo.anchors_wh) * (5 + yolo.num_classes)
    if source[0] != expected:
        raise SpecError(
            f"the layer before this head has filters={source[0]}; expected masks x (5 + classes) = "
            f"{len(yolo.anchors_wh)} x (5 + {yolo.num_classes}) = {expected}"
        )
    return source


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise SpecError(f"{name}={value}; expected 1 or more")


def _volume(shape: tuple[int, ...]) -> int:
    volume = 1
    for side in shape:
        volume *= side
    return volume


def _text(shape: CHW) -> str:
    return "x".join(map(str, shape))
