"""The layer-spec IR: what a model is, before any framework sees it.

A `ModelSpec` is a list of layers as Darknet counts them. Layer `i` reads the output of layer `i - 1` (layer 0 reads the
image) unless it names other sources; source indices are absolute, the cfg parser resolves negative ones. A spec is
checked once, when it is made; whoever holds one can rely on its shapes.
"""

import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import cached_property

from yolov3_trt.arguments import size_text
from yolov3_trt.errors import SpecError
from yolov3_trt.layers import (
    CHW,
    Activation,
    Conv,
    HeadKind,
    Layer,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Yolo,
    output_shape,
)
from yolov3_trt.sizes import HW, Resize

IMAGE = -1  # source index of the network's input
BATCH_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


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
class Head:
    """What decodes one output head, (N, A * F, grid_h, grid_w) of logits; F is `fields`: box, objectness, classes."""

    name: str  # of the graph's output
    layer: int  # index of its Yolo layer
    anchors_wh: tuple[tuple[float, float], ...]  # input px
    num_classes: int
    grid_hw: HW
    scale_xy: float = 1.0
    kind: HeadKind = HeadKind.YOLO

    @property
    def fields(self) -> int:
        """Values of one anchor in one cell: box, objectness, classes."""
        return self.kind.box_values + 1 + self.num_classes

    @property
    def channels(self) -> int:
        """A * F."""
        return len(self.anchors_wh) * self.fields


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
        kinds = {head.kind for head in self.heads}
        if len(kinds) > 1:
            raise SpecError(f"{self.name}: the heads are {', '.join(sorted(kinds))}; expected one kind")
        for index, layer in enumerate(self.layers):
            if isinstance(layer, Yolo) and layer.kind is HeadKind.SCALED:
                self._check_logits(index)
            if isinstance(layer, Conv) and layer.shares is not None:
                self._check_shared(index, layer)

    @cached_property
    def shapes(self) -> tuple[CHW, ...]:
        """Output (C, H, W) of each layer, for `input_hw`."""
        shapes: list[CHW] = []
        for index, layer in enumerate(self.layers):
            for source in self.sources(index):
                if not IMAGE <= source < index:
                    raise SpecError(f"layer {index} reads layer {source}; expected 0..{index - 1}", layer=index)
                if source != IMAGE and isinstance(self.layers[source], Yolo):
                    raise SpecError(
                        f"layer {index} reads layer {source}, a head: Darknet passes on its activated values, this package has "
                        "its logits only; expected a head to be read by no layer",
                        layer=index,
                    )
            inputs = [self._input_shape if i == IMAGE else shapes[i] for i in self.sources(index)]
            try:
                shapes.append(output_shape(layer, inputs))
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
            case ScaleChannels(source=source) | Sam(source=source):
                return (index - 1, source)
            case _:
                return (index - 1,)

    def needed_for(self, layers: Collection[int]) -> frozenset[int]:
        """The layers whose outputs some layers depend on, themselves included; a branch that only training reads is none."""
        needed: set[int] = set()
        waiting = list(layers)
        while waiting:
            index = waiting.pop()
            if index != IMAGE and index not in needed:
                needed.add(index)
                waiting.extend(self.sources(index))
        return frozenset(needed)

    def input_shape(self, index: int) -> CHW:
        """(C, H, W) of what layer `index` reads first."""
        return self.source_shape(self.sources(index)[0])

    def source_shape(self, source: int) -> CHW:
        """(C, H, W) of what a layer makes, or of the network's input."""
        return self._input_shape if source == IMAGE else self.shapes[source]

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The detection heads in layer order; empty for a classifier."""
        yolos = [(i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, Yolo)]
        return tuple(
            Head(
                f"head{n}", i, self._anchors_px(i, yolo), yolo.num_classes, self.shapes[i][1:], yolo.scale_xy, yolo.kind
            )
            for n, (i, yolo) in enumerate(yolos)
        )

    def activation(self, index: int) -> Activation:
        """What a convolution ends in: its own activation, or none where it makes the logits of a SCALED head."""
        after = self.layers[index + 1] if index + 1 < len(self.layers) else None
        conv = self.layers[index]
        assert isinstance(conv, Conv)
        if isinstance(after, Yolo) and after.kind is HeadKind.SCALED:
            return Activation.LINEAR
        return conv.activation

    def _anchors_px(self, index: int, yolo: Yolo) -> tuple[tuple[float, float], ...]:
        if yolo.kind is not HeadKind.REGION:
            return yolo.anchors_wh
        _, grid_h, grid_w = self.shapes[index]
        cell_h, cell_w = self.input_hw[0] / grid_h, self.input_hw[1] / grid_w
        return tuple((width * cell_w, height * cell_h) for width, height in yolo.anchors_wh)

    def _check_logits(self, index: int) -> None:
        """A SCALED head gets the logits of the convolution before it, so that must be one whose activation can wait."""
        before = self.layers[index - 1] if index else None
        if not isinstance(before, Conv) or before.activation is not Activation.LOGISTIC:
            raise SpecError(
                f"layer {index}: a head with new_coords=1 follows {type(before).__name__}"
                f"{f' with activation={before.activation.value}' if isinstance(before, Conv) else ''}; expected a "
                "convolution with activation=logistic, as the networks that were trained so have it",
                layer=index,
            )
        for other in range(index + 1, len(self.layers)):
            if index - 1 in self.sources(other):
                raise SpecError(
                    f"layer {other} reads layer {index - 1}, the values of a head with new_coords=1; expected the head alone "
                    "to read them",
                    layer=other,
                )

    def _check_shared(self, index: int, conv: Conv) -> None:
        owner = self.layers[conv.shares] if conv.shares is not None and 0 <= conv.shares < index else None
        if not isinstance(owner, Conv) or owner.shares is not None:
            raise SpecError(
                f"layer {index}: shares the weights of layer {conv.shares}; expected a convolution before it that has its own",
                layer=index,
            )
        assert conv.shares is not None
        if self.conv_shapes(index) != self.conv_shapes(conv.shares):
            raise SpecError(
                f"layer {index}: shares the weights of layer {conv.shares}, which are of other shapes", layer=index
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
            if isinstance(layer, Conv):
                shapes |= {f"layers.{index}.{part}": shape for part, shape in self.conv_shapes(index).items()}
        return shapes

    def conv_shapes(self, index: int) -> dict[str, tuple[int, ...]]:
        """Shape of each weight of a convolution, by the part of its key behind the layer, e.g. `conv.weight`."""
        conv = self.layers[index]
        assert isinstance(conv, Conv)
        shapes: dict[str, tuple[int, ...]] = {
            "conv.weight": (conv.filters, self.input_shape(index)[0] // conv.groups, conv.size, conv.size)
        }
        if conv.bias:
            shapes["conv.bias"] = (conv.filters,)
        if conv.batch_norm:
            shapes |= {f"batch_norm.{part}": (conv.filters,) for part in BATCH_NORM_PARTS}
        return shapes

    @property
    def num_values(self) -> int:
        """Weights in all, running statistics of the batch norms included."""
        return sum(math.prod(shape) for shape in self.weight_shapes.values())

    @property
    def num_statistics(self) -> int:
        """Running means and variances of the batch norms."""
        return sum(math.prod(shape) for key, shape in self.weight_shapes.items() if ".running_" in key)

    @property
    def num_parameters(self) -> int:
        """Trained weights: without the running statistics."""
        return self.num_values - self.num_statistics

    @cached_property
    def conv_macs(self) -> dict[int, int]:
        """Multiply-adds of each convolution for one image of `input_hw`, by layer."""
        return {
            index: math.prod(self.shapes[index]) * math.prod(self.weight_shapes[f"layers.{index}.conv.weight"][1:])
            for index, layer in enumerate(self.layers)
            if isinstance(layer, Conv)
        }

    @property
    def layers_sha256(self) -> str:
        """Hex SHA-256 of what is computed: layers and batch norm, whatever the input size.

        Two models with the same weights can differ in it: activations and anchors are not in a `.weights` file.
        """
        return self._layers_digest(int)

    @property
    def former_layers_sha256(self) -> str:
        """What `layers_sha256` was where a cfg, whose anchors are floats, was read: files that hold it stay good."""
        return self._layers_digest(float)

    def _layers_digest(self, whole: type[int] | type[float]) -> str:
        """With whole anchors as numbers of that type, for they may be either and mean the same."""
        layers = [(type(layer).__name__, _hashed(layer, whole)) for layer in self.layers]
        return hashlib.sha256(json.dumps([layers, asdict(self.batch_norm)]).encode()).hexdigest()

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
                f"{self.name}: input size {size_text(input_hw)} does not fit ({exc}); multiples of 32 do",
                layer=exc.layer,
            ) from None

    @property
    def _input_shape(self) -> CHW:
        return (self.channels, *self.input_hw)


# Fields that layers got later; with these values a layer is what it was, and so is its hash in sidecars and tables.
_LATER_FIELDS: dict[str, object] = {"dilation": 1, "shares": None, "kind": HeadKind.YOLO}


def _hashed(layer: Layer, whole: type[int] | type[float]) -> dict[str, object]:
    values: dict[str, object] = asdict(layer)
    if isinstance(layer, Yolo):
        anchors = layer.anchors_wh
        values["anchors_wh"] = [[whole(x) if float(x).is_integer() else x for x in anchor] for anchor in anchors]
    return {name: value for name, value in values.items() if name not in _LATER_FIELDS or value != _LATER_FIELDS[name]}
