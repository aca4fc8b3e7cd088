"""ModelSpec -> the text of a Darknet `.cfg`.

Sections and keys come in the order of Darknet's own files, so that AlexeyAB's and pjreddie's Darknet, OpenCV's importer
and `parse_cfg` read the text. `parse_cfg` gives the spec back, and what it could not give back is refused. Not in a cfg are
the spec's name and its batch norm rule: each Darknet has a rule of its own.
"""

import re
from collections import Counter
from collections.abc import Mapping

from yolov3_trt._version import __version__
from yolov3_trt.errors import CfgError
from yolov3_trt.geometry import Resize
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    Dropout,
    HeadKind,
    LocalAvgPool,
    MaxPool,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    SpaceToDepth,
    TrainingOnly,
    Upsample,
    Yolo,
)
from yolov3_trt.spec import IMAGE, BatchNorm, ModelSpec, Nms, NmsKind

_Values = dict[str, object]  # of one section, by key
_Anchors = tuple[tuple[float, float], ...]

_DARKNET_RULES = (BatchNorm(), BatchNorm(1e-6, after_sqrt=True))  # AlexeyAB's, pjreddie's
_NEAR = 9  # layers back that a route names relative to itself; further ones by their index, as Darknet's cfgs do


def cfg_from_spec(spec: ModelSpec, training: Mapping[str, object] | None = None) -> str:
    """Write a network as a `.cfg`.

    A spec knows the anchors of its heads only: one that an original cfg lists and no head masks is gone.

    Args:
        spec: the network.
        training: entries of `[net]` for the record, e.g. `{"momentum": 0.9, "steps": (400, 450)}`.

    Raises:
        CfgError: a cfg cannot express it; the text names the layer.
    """
    if spec.batch_norm not in _DARKNET_RULES:
        raise CfgError(f"{spec.name}: no Darknet divides by {spec.batch_norm}; expected {_DARKNET_RULES[0]}")
    texts = [f"# Written by yolov3-trt {__version__}\n", _section_text("net", _net(spec, training or {}))]
    for index, layer in enumerate(spec.layers):
        try:
            texts.append(_section_text(*_layer(spec, index)))
        except CfgError as exc:
            raise CfgError(f"{spec.name}: layer {index} ({type(layer).__name__}): {exc}") from None
    return "\n".join(texts)


def _net(spec: ModelSpec, training: Mapping[str, object]) -> _Values:
    height, width = spec.input_hw
    values: _Values = {
        "batch": 1,
        "subdivisions": 1,
        "width": width,
        "height": height,
        "channels": spec.channels,
        "letter_box": int(spec.resize is Resize.LETTERBOX),
    }
    for key in training:
        if key in values or not re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", key):
            own = ", ".join(values)
            raise CfgError(f"{spec.name}: training entry {key!r}; expected a key of [net] other than {own}")
    return {**values, **training}


def _layer(spec: ModelSpec, index: int) -> tuple[str, _Values]:  # noqa: C901 - a case for each kind
    """Kind and values of a layer's section."""
    match spec.layers[index]:
        case Conv() as conv:
            return "convolutional", _conv(conv, index)
        case MaxPool(size=size, stride=stride):
            return "maxpool", {"size": size, "stride": stride}
        case LocalAvgPool(size=size, stride=stride):
            return "local_avgpool", {"size": size, "stride": stride}
        case Reorg(stride=stride):
            return "reorg", {"stride": stride}
        case SpaceToDepth(stride=stride):
            return "reorg3d", {"stride": stride}
        case TrainingOnly(section=section):
            return section, {}
        case AvgPool():
            return "avgpool", {}
        case Upsample(stride=stride, bilinear=bilinear):
            if bilinear:
                raise CfgError("is bilinear; a .cfg has nearest neighbours only")
            return "upsample", {"stride": stride}
        case Route() as route:
            sources = [_relative(source, index, near=_NEAR) for source in route.sources]
            groups = {"groups": route.groups, "group_id": route.group_id} if route.groups != 1 else {}
            return "route", {"layers": sources, **groups}
        case Shortcut(sources=absolute, activation=activation):
            return "shortcut", {"from": [_relative(i, index) for i in absolute], "activation": activation.value}
        case ScaleChannels(source=source, activation=activation) | Sam(source=source, activation=activation):
            kind = "sam" if isinstance(spec.layers[index], Sam) else "scale_channels"
            if activation is Activation.LINEAR:
                return kind, {"from": _relative(source, index)}
            if activation in (Activation.MISH, Activation.SWISH):
                raise CfgError(f"has activation {activation.value}, which Darknet's [{kind}] computes as zero")
            return kind, {"from": _relative(source, index), "activation": activation.value}
        case Dropout(probability=probability):
            return "dropout", {"probability": probability}
        case Softmax(groups=parts):
            return "softmax", {"groups": parts}
        case Yolo(kind=HeadKind.REGION) as yolo:
            return "region", _region(yolo)
        case Yolo() as yolo:
            section = "Gaussian_yolo" if yolo.kind is HeadKind.GAUSSIAN else "yolo"
            return section, _yolo(yolo, _all_anchors(spec), spec.nms)


def _conv(conv: Conv, index: int) -> _Values:
    if conv.batch_norm == conv.bias:
        both = "both batch norm and a bias" if conv.bias else "neither batch norm nor a bias"
        raise CfgError(f"has {both}; a convolution of a .cfg has exactly one of them")
    pad = {"pad": 1} if conv.pad == conv.size // 2 else {"padding": conv.pad}  # pad=1: half the kernel
    return {
        **({"batch_normalize": 1} if conv.batch_norm else {}),
        "filters": conv.filters,
        "size": conv.size,
        **({"groups": conv.groups} if conv.groups != 1 else {}),
        "stride": conv.stride,
        **pad,
        **({"dilation": conv.dilation} if conv.dilation != 1 else {}),
        **({} if conv.shares is None else {"share_index": _relative(conv.shares, index, near=0)}),
        "activation": conv.activation.value,
    }


def _relative(source: int, index: int, near: int | None = None) -> int:
    """Darknet's number of a source: negative counts back from layer `index`, always or up to `near` layers."""
    if source == IMAGE:
        raise CfgError("reads the network's input; a .cfg can name layers only")
    return source - index if near is None or index - source <= near else source


def _yolo(yolo: Yolo, anchors: _Anchors, nms: Nms) -> _Values:
    if min(yolo.scale_xy, *(min(anchor) for anchor in anchors)) <= 0:
        raise CfgError(f"has scale_xy={yolo.scale_xy} and anchors {yolo.anchors_wh}; expected numbers above 0")
    plain = nms.kind is NmsKind.PLAIN
    return {
        "mask": _mask(yolo.anchors_wh, anchors),
        "anchors": ",  ".join(_text(anchor) for anchor in anchors),
        "classes": yolo.num_classes,
        "num": len(anchors),
        "jitter": 0.3,
        "ignore_thresh": 0.7,
        "truth_thresh": 1,
        "random": 0,
        **({} if yolo.scale_xy == 1 else {"scale_x_y": yolo.scale_xy}),
        **({"new_coords": 1} if yolo.kind is HeadKind.SCALED else {}),
        **({} if plain else {"nms_kind": nms.kind.value}),
        **({} if plain and nms.beta == Nms().beta else {"beta_nms": nms.beta}),
    }


def _region(yolo: Yolo) -> _Values:
    if min(min(anchor) for anchor in yolo.anchors_wh) <= 0:
        raise CfgError(f"has anchors {yolo.anchors_wh}; expected numbers above 0")
    return {
        "anchors": ",  ".join(_text(anchor) for anchor in yolo.anchors_wh),
        "classes": yolo.num_classes,
        "coords": 4,
        "num": len(yolo.anchors_wh),
        "softmax": 1,
    }


def _all_anchors(spec: ModelSpec) -> _Anchors:
    """Those of all heads, small to large; one anchor twice only where a head has it twice."""
    union: Counter[tuple[float, float]] = Counter()
    for head in spec.heads:
        union |= Counter(head.anchors_wh)
    return tuple(sorted(union.elements(), key=lambda wh: (wh[0] * wh[1], wh)))


def _mask(anchors_wh: _Anchors, anchors: _Anchors) -> list[int]:
    """Where each anchor of a head is among all of them."""
    mask: list[int] = []
    for anchor in anchors_wh:
        mask.append(next(i for i, other in enumerate(anchors) if other == anchor and i not in mask))
    return mask


def _section_text(kind: str, values: _Values) -> str:
    lines = [f"[{kind}]\n"]
    for key, value in values.items():
        text = _text(value)
        if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", text) or set("#;") & set(text):
            raise CfgError(f"[{kind}] {key}={text[:40]!r}; expected one line of ASCII without # and ;")
        lines.append(f"{key}={text}\n")
    return "".join(lines)


def _text(value: object) -> str:
    """A value as C's atoi and atof read it: sequences with commas, numbers so that they come back exactly."""
    match value:
        case list() | tuple():
            return ",".join(map(_text, value))
        case bool():
            return str(int(value))
        case float():
            return _number_text(value)
        case _:
            return str(value)


def _number_text(value: float) -> str:
    if value != 0 and not 1e-30 < abs(value) < 1e30:
        raise CfgError(f"{value!r} is not a number that Darknet can hold in float32")
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
