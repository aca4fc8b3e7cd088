"""Darknet `.cfg` -> ModelSpec.

A cfg is INI-like: `[section]` lines, `key=value` lines, `#` and `;` comments; sections repeat and their order is the
network. What changes inference and is not supported here is refused by name and line; keys that only training reads are
skipped. Defaults are Darknet's (AlexeyAB src/parser.c).
"""

import logging
from collections.abc import Callable
from pathlib import Path

from yolov3_trt.errors import CfgError, SpecError
from yolov3_trt.files import check_is_file
from yolov3_trt.geometry import Resize
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    Dropout,
    HeadKind,
    Layer,
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
from yolov3_trt.models.darknet_sections import Section, sections_of
from yolov3_trt.spec import BatchNorm, ModelSpec, Nms, NmsKind

_LOG = logging.getLogger(__name__)


def spec_from_cfg(path: Path, batch_norm: BatchNorm | None = None) -> ModelSpec:
    """Read a `.cfg`.

    Args:
        path: the file.
        batch_norm: how batch norm divides; the default is AlexeyAB's, a cfg does not say.

    Raises:
        CfgError: what is wrong, with file and line.
    """
    try:
        check_is_file(path)
        content = path.read_bytes()
    except OSError as exc:
        raise CfgError(f"{path}: cannot be read ({exc.strerror}); expected a Darknet .cfg") from exc
    return parse_cfg(content, name=path.stem, file=str(path), batch_norm=batch_norm)


def parse_cfg(
    content: bytes, *, name: str = "model", file: str = "cfg", batch_norm: BatchNorm | None = None
) -> ModelSpec:
    """Parse the bytes of a `.cfg`; `file` is what errors call it. See `spec_from_cfg`."""
    sections = sections_of(content, file)
    net, *layer_sections = sections
    if net.kind not in ("net", "network"):
        raise net.error(f"the first section is [{net.kind}]; expected [net]")
    if not layer_sections:
        raise net.error("there are no layers after [net]; expected at least one")
    layers = tuple(_layer(section, index) for index, section in enumerate(layer_sections))
    channels = net.integer("channels", minimum=1)
    if channels not in (1, 3) and any(isinstance(layer, Yolo) for layer in layers):
        raise net.error(
            f"channels={channels}; expected 3 for colour or 1 for grey: pictures have no others", "channels"
        )
    yolo_sections = [section for section in layer_sections if section.kind in ("yolo", "Gaussian_yolo")]
    try:
        return ModelSpec(
            name=name,
            layers=layers,
            input_hw=(net.integer("height", minimum=1), net.integer("width", minimum=1)),
            channels=channels,
            resize=_resize(net, sections),
            batch_norm=batch_norm or BatchNorm(),
            nms=_nms(yolo_sections[-1]) if yolo_sections else Nms(),  # Darknet asks the last head
        )
    except SpecError as exc:
        section = net if exc.layer is None else layer_sections[exc.layer]
        raise CfgError(f"{file}:{section.line}: [{section.kind}] {exc}") from exc


# Keys that AlexeyAB's Darknet reads and pjreddie's does not (src/parser.c of both), of those that cfgs have.
_ALEXEYABS = frozenset(
    "beta_nms cls_normalizer counters_per_class cutmix dilation dynamic_minibatch ema_alpha focal_loss group_id iou_loss "
    "iou_normalizer iou_thresh iou_thresh_kind label_smooth_eps letter_box max_delta mixup mosaic new_coords nms_kind "
    "obj_normalizer objectness_smooth optimized_memory resize resize_step scale_wh scale_x_y sgdr_cycle sgdr_mult share_index "
    "show_details stride_x stride_y uc_normalizer use_cuda_graph weights_type workspace_size_limit_MB yolo_layer".split()
)


def _resize(net: Section, sections: list[Section]) -> Resize:
    """How pictures are fitted: as the Darknet does that a cfg is for, where it does not say."""
    if "letter_box" in net.values:
        return Resize.LETTERBOX if net.integer("letter_box") else Resize.STRETCH
    for section in sections:
        if key := next((key for key in section.values if key in _ALEXEYABS), None):
            _LOG.warning(
                "%s:%d: pictures are stretched: only AlexeyAB's Darknet reads %s=, and it stretches where [net] has no "
                "letter_box=1 (resize=letterbox keeps their shape)",
                net.file,
                section.values[key][1],
                key,
            )
            return Resize.STRETCH
    return Resize.LETTERBOX


def _layer(section: Section, index: int) -> Layer:
    if section.kind in _FAMILIES:
        raise section.error(f"is {_FAMILIES[section.kind]}; this package runs networks that end in [yolo]")
    if section.kind not in _LAYERS:
        raise section.error(f"is not a layer this package knows; it knows {', '.join(f'[{kind}]' for kind in _LAYERS)}")
    parse, ignored = _LAYERS[section.kind]
    layer = parse(section, index)
    section.refuse_unasked(ignored)
    return layer


def _conv(section: Section, index: int) -> Conv:
    size = section.integer("size", 1, minimum=1)
    padding = section.integer("padding", 0, minimum=0)
    batch_norm = bool(section.integer("batch_normalize", 0))
    shares = None
    if "share_index" in section.values:  # with any value: 0 is a layer too
        shares = _one_source(section, "share_index", index)
    section.expect(antialiasing=0, binary=0, xnor=0, flipped=0, dot=0, cbn=0, reverse=0)
    section.expect(sway=0, rotate=0, stretch=0, stretch_sway=0, assisted_excitation=0, deform=0, bin_output=0)
    stride = section.integer("stride", 1, minimum=1)
    section.expect(stride_x=stride, stride_y=stride)
    return Conv(
        filters=section.integer("filters", 1, minimum=1),
        size=size,
        stride=stride,
        pad=size // 2 if section.integer("pad", 0) else padding,
        groups=section.integer("groups", 1, minimum=1),
        batch_norm=batch_norm,
        bias=not batch_norm,
        activation=section.activation(Activation.LOGISTIC),
        dilation=section.integer("dilation", 1, minimum=1) if size > 1 else 1,  # a single pixel has no holes
        shares=shares,
    )


def _maxpool(section: Section, _index: int) -> MaxPool:
    stride = section.integer("stride", 1, minimum=1)
    size = section.integer("size", stride, minimum=1)
    section.expect(padding=size - 1, stride_x=stride, stride_y=stride, maxpool_depth=0, antialiasing=0)
    return MaxPool(size, stride)


def _local_avgpool(section: Section, _index: int) -> LocalAvgPool:
    stride = section.integer("stride", 1, minimum=1)
    size = section.integer("size", stride, minimum=1)
    section.expect(padding=size - 1, stride_x=stride, stride_y=stride)
    return LocalAvgPool(size, stride)


def _reorg(section: Section, _index: int) -> Reorg:
    section.expect(reverse=0)
    return Reorg(section.integer("stride", 1, minimum=1))


def _reorg3d(section: Section, _index: int) -> SpaceToDepth:
    section.expect(reverse=0)
    return SpaceToDepth(section.integer("stride", 1, minimum=1))


def _upsample(section: Section, _index: int) -> Upsample:
    if section.number("scale", 1.0) != 1.0:
        raise section.error(f"scale={section.text('scale')[:40]} is not supported; only scale=1 is", "scale")
    return Upsample(section.integer("stride", 2, minimum=1))


def _route(section: Section, index: int) -> Route:
    return Route(
        _sources(section, "layers", index),
        section.integer("groups", 1, minimum=1),
        section.integer("group_id", 0, minimum=0),
    )


def _shortcut(section: Section, index: int) -> Shortcut:
    if (kind := section.word("weights_type", "none")) != "none":
        raise section.error(f"weights_type={kind[:40]} is not supported; only none is", "weights_type")
    section.expect(assisted_excitation=0, alpha=1, beta=1)  # pjreddie's factors, which AlexeyAB's Darknet ignores
    return Shortcut(_sources(section, "from", index), section.activation(Activation.LINEAR))


def _scale_channels(section: Section, index: int) -> ScaleChannels:
    section.expect(scale_wh=0)
    return ScaleChannels(_one_source(section, "from", index), _plain_activation(section))


def _sam(section: Section, index: int) -> Sam:
    return Sam(_one_source(section, "from", index), _plain_activation(section))


def _plain_activation(section: Section) -> Activation:
    activation = section.activation(Activation.LINEAR)
    if activation in (Activation.MISH, Activation.SWISH):
        raise section.error(
            f"activation={activation.value} is not supported: Darknet's own [{section.kind}] has no {activation.value} and "
            "gives zeros",
            "activation",
        )
    return activation


def _training_only(section: Section, _index: int) -> TrainingOnly:
    return TrainingOnly(section.kind)


def _dropout(section: Section, _index: int) -> Dropout:
    section.expect(dropblock=0)
    return Dropout(section.number("probability", 0.2))


def _softmax(section: Section, _index: int) -> Softmax:
    if section.number("temperature", 1.0) != 1.0:
        raise section.error("temperature other than 1 is not supported", "temperature")
    section.expect(spatial=0, noloss=0)
    return Softmax(section.integer("groups", 1, minimum=1))


def _yolo(section: Section, _index: int) -> Yolo:
    kind = HeadKind.SCALED if section.integer("new_coords", 0) else HeadKind.YOLO
    return _masked_head(section, kind)


def _gaussian_yolo(section: Section, _index: int) -> Yolo:
    if (point := section.word("yolo_point", "center")) not in ("center",):
        raise section.error(
            f"yolo_point={point[:40]} is not supported: the box would hang at one of its corners; only center is",
            "yolo_point",
        )
    return _masked_head(section, HeadKind.GAUSSIAN)


def _region(section: Section, _index: int) -> Yolo:
    for key, meaning in (("tree", "a tree of words (YOLO9000)"), ("map", "a map of classes (YOLO9000)")):
        if key in section.values:
            raise section.error(f"{key}= is not supported: {meaning}", key)
    section.expect(coords=4, softmax=1, classfix=0)
    num = section.integer("num", 1, minimum=1)
    anchors = _anchors(section)
    if len(anchors) < num:
        raise section.error(f"anchors= has {len(anchors)} pairs; expected num={num}", "anchors")
    return Yolo(tuple(anchors[:num]), section.integer("classes", 20, minimum=1), kind=HeadKind.REGION)


def _masked_head(section: Section, kind: HeadKind) -> Yolo:
    num = section.integer("num", 1, minimum=1)
    anchors = _anchors(section)
    mask = section.integers("mask") if "mask" in section.values else list(range(num))
    last = min(num, len(anchors)) - 1
    if last < max(mask, default=0) < len(anchors):
        _LOG.warning(
            "%s:%d: [%s] num=%d, but mask= names anchor %d; taking it, since %d are listed (Darknet reads beyond its own)",
            *(section.file, section.line, section.kind, num, max(mask), len(anchors)),
        )
        last = len(anchors) - 1
    if len(set(mask)) != len(mask) or not all(0 <= i <= last for i in mask):
        given = section.text("mask", ",".join(map(str, mask)))
        raise section.error(
            f"mask={given[:40]}; expected different indices in 0..{last}, of num={num} and {len(anchors)} pairs of anchors",
            "mask" if "mask" in section.values else "anchors",
        )
    _nms(section)
    scale_xy = section.number("scale_x_y", 1.0)
    if scale_xy <= 0:
        raise section.error(f"scale_x_y={scale_xy}; expected a number above 0", "scale_x_y")
    return Yolo(tuple(anchors[i] for i in mask), section.integer("classes", 20, minimum=1), scale_xy, kind)


def _anchors(section: Section) -> list[tuple[float, float]]:
    """(width, height) of every anchor listed, input px; a head masks some of them."""
    values = section.numbers("anchors")
    if len(values) % 2:
        _LOG.warning(
            "%s:%d: [%s] anchors= has %d values, so the last pair has no height; taking 0.5 px for it, as Darknet does",
            *(section.file, section.line, section.kind, len(values)),
        )
        values.append(0.5)
    if wrong := [value for value in values if value <= 0]:
        at = values.index(wrong[0]) // 2
        pair = f"{values[2 * at]:g},{values[2 * at + 1]:g}"
        raise section.error(f"anchors= has {pair} as number {at}; expected widths and heights above 0", "anchors")
    return list(zip(values[::2], values[1::2], strict=True))


def _nms(section: Section) -> Nms:
    kind, beta = section.word("nms_kind", "default"), section.number("beta_nms", 0.6)
    try:
        return Nms(NmsKind(kind), beta)
    except ValueError:
        known = ", ".join(kind.value for kind in NmsKind)
        raise section.error(f"nms_kind={kind[:40]!r} is not supported; expected one of {known}", "nms_kind") from None


def _one_source(section: Section, key: str, index: int) -> int:
    sources = _sources(section, key, index)
    if len(sources) != 1:
        raise section.error(f"{key}={section.text(key)[:40]}; expected one layer", key)
    return sources[0]


def _sources(section: Section, key: str, index: int) -> tuple[int, ...]:
    sources = []
    for value in section.integers(key):
        source = value if value >= 0 else index + value
        if source < 0:
            raise section.error(
                f"{key}={value} reaches before the first layer (this is layer {index}); expected {-index} or above", key
            )
        if source >= index:
            raise section.error(f"{key}={value} is not before this layer ({index}); expected 0..{index - 1}", key)
        sources.append(source)
    return tuple(sources)


_YOLO_TRAINING = (
    "jitter resize ignore_thresh truth_thresh random max max_delta iou_loss iou_normalizer obj_normalizer "
    "cls_normalizer delta_normalizer iou_thresh iou_thresh_kind objectness_smooth label_smooth_eps focal_loss map "
    "counters_per_class show_details embedding_layer track_history_size sim_thresh dets_for_track dets_for_show "
    "track_ciou_norm thresh mosaic_bound bflops uc_normalizer"
)
_REGION_TRAINING = (
    "jitter resize rescore object_scale noobject_scale class_scale coord_scale mask_scale absolute thresh random log sqrt max "
    "focal_loss bias_match background"
)

# Sections of other families, by what they are.
_FAMILIES = {
    "detection": "the head of YOLOv1",
    "connected": "a layer of YOLOv1 and of classifiers",
    "local": "a layer of YOLOv1",
    "crnn": "a recurrent layer",
    "rnn": "a recurrent layer",
    "gru": "a recurrent layer",
    "lstm": "a recurrent layer",
    "conv_lstm": "a recurrent layer",
    "nn.Upsample": "a layer of YOLOv5 written as a cfg, which no Darknet reads",
    **dict.fromkeys(
        "implicit_add implicit_mul implicit_cat shift_channels control_channels alternate_channels silence".split(),
        "a layer of YOLOR, which no Darknet reads",
    ),
}

# Each layer's parser, and the keys of its section that inference does not read.
_LAYERS: dict[str, tuple[Callable[[Section, int], Layer], str]] = {
    "convolutional": (_conv, "angle wait_stream dilation"),
    "maxpool": (_maxpool, "out_channels"),
    "local_avgpool": (_local_avgpool, ""),
    "reorg": (_reorg, ""),
    "reorg3d": (_reorg3d, ""),
    "avgpool": (lambda section, index: AvgPool(), ""),
    "upsample": (_upsample, ""),
    "route": (_route, "stream wait_stream"),
    "shortcut": (_shortcut, "weights_normalization"),
    "scale_channels": (_scale_channels, ""),
    "sam": (_sam, ""),
    "dropout": (_dropout, "dropblock_size_rel dropblock_size_abs"),
    "softmax": (_softmax, ""),
    "yolo": (_yolo, _YOLO_TRAINING),
    "Gaussian_yolo": (_gaussian_yolo, _YOLO_TRAINING),
    "region": (_region, _REGION_TRAINING),
    "cost": (_training_only, "type scale ratio smooth noobj sse"),
    "contrastive": (
        _training_only,
        "classes yolo_layer temperature cls_normalizer max_delta contrastive_neg_max iou_thresh",
    ),
}
