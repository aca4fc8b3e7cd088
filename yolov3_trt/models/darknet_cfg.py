"""Darknet `.cfg` -> ModelSpec.

A cfg is INI-like: `[section]` lines, `key=value` lines, `#` and `;` comments; sections repeat and their order is the
network. What changes inference and is not supported here is refused by name and line; keys that only training reads are
skipped. Defaults are Darknet's (AlexeyAB src/parser.c).
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
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
    sections = _sections(content, file)
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


# Keys of every layer section that only training, drawing or Darknet's own bookkeeping reads.
_IGNORED_EVERYWHERE = frozenset(
    "stopbackward stopforward dontload dontloadscales dontsave onlyforward numload train_only_bn learning_scale lr "
    "burnin_update burn_in_update clip dropout_prob grad_centr ema_alpha learning_rate dont_update".split()
)

# What AlexeyAB's or pjreddie's src/parser.c reads of a layer's section and inference may depend on.
_READ_BY_DARKNET = frozenset(
    "B1 B2 activation alpha anchors antialiasing assisted_excitation atoms batch_normalize beta bin_output binary "
    "cbn channels classes classfix coordconv coords crop_height crop_width deform dilation dot dropblock filters "
    "flip flipped forced from groups group_id hidden history_size kappa layers logistic lstm_activation map mask "
    "maxpool_depth maxpool_zero_nonmax mean new_coords nms_kind beta_nms noadjust noloss normalize num out_channels "
    "output pad padding peephole power probability reorg reverse rotate scale scale_wh scale_x_y share_index shift "
    "shortcut side size softmax spatial sqrt state_constrain std steps stream stretch stretch_sway stride stride_x "
    "stride_y sway temperature time_normalizer tree type weights_normalization weights_type xnor yolo_layer "
    "yolo_point".split()
)


@dataclass
class _Section:
    """One `[section]`: its values with their lines, and which of them have been asked for."""

    kind: str
    file: str
    line: int
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)  # what follows a value behind `#` or `;`, by key
    asked: set[str] = field(default_factory=set)

    def error(self, message: str, key: str | None = None) -> CfgError:
        line = self.values[key][1] if key in self.values else self.line
        return CfgError(f"{self.file}:{line}: [{self.kind}] {message}")

    def word(self, key: str, default: str) -> str:
        """A value that Darknet reads as text: to the end of the line, since it knows comments at the start of a line only."""
        if key in self.comments:
            raise self.error(
                f"{key}={self.values[key][0][:40]} has a comment behind it, which Darknet takes for a part of the "
                "value, and so runs something else; put the comment on a line of its own",
                key,
            )
        return self.text(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        self.asked.add(key)
        if key in self.values:
            return self.values[key][0]
        if default is None:
            raise self.error(f"has no {key}=; expected one")
        return default

    def integer(self, key: str, default: int | None = None, *, minimum: int | None = None) -> int:
        text = self.text(key, None if default is None else str(default))
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
            raise self.error(f"{key}={text[:40]!r}; expected a whole number", key)
        value = int(text)
        if minimum is not None and value < minimum:
            raise self.error(f"{key}={value}; expected {minimum} or more", key)
        return value

    def number(self, key: str, default: float) -> float:
        return self._parse_number(key, self.text(key, str(default)))

    def numbers(self, key: str) -> list[float]:
        """Darknet drops white space wherever it is, so that a forgotten comma makes one number of two."""
        parts = self._parts(key)
        for part in parts:
            if re.search(r"\d\s+\d", part):
                joined = re.sub(r"\s", "", part)
                _LOG.warning(
                    "%s:%d: [%s] %s= has no comma in %r; taking %s, as Darknet does",
                    *(self.file, self.values[key][1], self.kind, key, part, joined),
                )
        return [self._parse_number(key, re.sub(r"\s", "", part)) for part in parts]

    def integers(self, key: str) -> list[int]:
        values = [self._parse_number(key, part) for part in self._parts(key)]
        if any(value != int(value) for value in values):
            raise self.error(f"{key}={self.text(key)[:40]!r}; expected whole numbers", key)
        return [int(value) for value in values]

    def activation(self, default: Activation) -> Activation:
        text = self.word("activation", default.value)
        try:
            return Activation(text)
        except ValueError:
            known = ", ".join(activation.value for activation in Activation)
            raise self.error(
                f"activation={text[:40]!r} is not supported; expected one of {known}", "activation"
            ) from None

    def expect(self, **defaults: int) -> None:
        """Accept a key that is supported in its neutral value only."""
        for key, neutral in defaults.items():
            value = self.number(key, neutral)
            if value != neutral:
                meaning = _MEANING.get(key, f"this package computes {key}={neutral} only")
                raise self.error(
                    f"{key}={value:g} is not supported: {meaning}; the weights were trained with it, so changing the line "
                    "would change the results without a word",
                    key,
                )

    def refuse_unasked(self, ignored: str) -> None:
        """Refuse a key that some Darknet reads and this package does not; one that none reads changes nothing."""
        for key, (_, line) in self.values.items():
            if key in self.asked or key in _IGNORED_EVERYWHERE or key in ignored.split():
                continue
            if key in _READ_BY_DARKNET:
                raise self.error(
                    f"{key}= is not known here; it may change the results, so remove the line if only training reads it",
                    key,
                )
            _LOG.warning("%s:%d: [%s] %s= is ignored: Darknet does not read it either", self.file, line, self.kind, key)

    def _parts(self, key: str) -> list[str]:
        if "," in self.comments.get(key, ""):
            raise self.error(
                f"{key}= has a comment with a comma behind it, and Darknet counts the commas of the whole line; put the "
                "comment on a line of its own",
                key,
            )
        return [part.strip() for part in self.text(key).strip(", \t").split(",")]

    def _parse_number(self, key: str, text: str) -> float:
        if not re.fullmatch(r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?", text):
            raise self.error(f"{key}: {text[:40]!r} is not a number", key)
        return float(text)


def _sections(content: bytes, file: str) -> list[_Section]:
    lines = content.decode("utf-8-sig", "surrogateescape").splitlines()  # comments may be in any encoding
    sections: list[_Section] = []
    for number, raw in enumerate(lines, start=1):
        line, comment = [*re.split("[#;]", raw, maxsplit=1), ""][:2]
        line = line.strip()
        if not line:
            continue
        if stray := re.search("[\udc80-\udcff]", line):
            byte = ord(stray[0]) - 0xDC00
            raise CfgError(f"{file}:{number}: byte {byte:#04x} is not UTF-8 text; expected a Darknet .cfg")
        if header := re.fullmatch(r"\[\s*([^\[\]]*?)\s*\]", line):
            if re.search("[#;]", raw):
                raise CfgError(
                    f"{file}:{number}: {line[:60]} has a comment behind it, so Darknet does not know this section; put the "
                    "comment on a line of its own"
                )
            sections.append(_Section(_ALIASES.get(header[1], header[1]), file, number))
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise CfgError(f"{file}:{number}: {line[:60]!r} is neither [section] nor key=value")
        if not sections:
            raise CfgError(f"{file}:{number}: {line[:60]!r} comes before the first section; expected [net]")
        section = sections[-1]
        if key in section.values:
            _LOG.warning(
                "%s:%d: [%s] %s= again; Darknet takes the first, so does this", file, number, section.kind, key
            )
        else:
            section.values[key] = (value, number)
            if re.search("[#;]", raw):
                section.comments[key] = comment
    if not sections:
        raise CfgError(f"{file}:1: there are no sections; expected a Darknet .cfg that starts with [net]")
    return sections


# Keys that AlexeyAB's Darknet reads and pjreddie's does not (src/parser.c of both), of those that cfgs have.
_ALEXEYABS = frozenset(
    "beta_nms cls_normalizer counters_per_class cutmix dilation dynamic_minibatch ema_alpha focal_loss group_id iou_loss "
    "iou_normalizer iou_thresh iou_thresh_kind label_smooth_eps letter_box max_delta mixup mosaic new_coords nms_kind "
    "obj_normalizer objectness_smooth optimized_memory resize resize_step scale_wh scale_x_y sgdr_cycle sgdr_mult share_index "
    "show_details stride_x stride_y uc_normalizer use_cuda_graph weights_type workspace_size_limit_MB yolo_layer".split()
)


def _resize(net: _Section, sections: list[_Section]) -> Resize:
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


def _layer(section: _Section, index: int) -> Layer:
    if section.kind in _FAMILIES:
        raise section.error(f"is {_FAMILIES[section.kind]}; this package runs networks that end in [yolo]")
    if section.kind not in _LAYERS:
        raise section.error(f"is not a layer this package knows; it knows {', '.join(f'[{kind}]' for kind in _LAYERS)}")
    parse, ignored = _LAYERS[section.kind]
    layer = parse(section, index)
    section.refuse_unasked(ignored)
    return layer


def _conv(section: _Section, index: int) -> Conv:
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


def _maxpool(section: _Section, _index: int) -> MaxPool:
    stride = section.integer("stride", 1, minimum=1)
    size = section.integer("size", stride, minimum=1)
    section.expect(padding=size - 1, stride_x=stride, stride_y=stride, maxpool_depth=0, antialiasing=0)
    return MaxPool(size, stride)


def _local_avgpool(section: _Section, _index: int) -> LocalAvgPool:
    stride = section.integer("stride", 1, minimum=1)
    size = section.integer("size", stride, minimum=1)
    section.expect(padding=size - 1, stride_x=stride, stride_y=stride)
    return LocalAvgPool(size, stride)


def _reorg(section: _Section, _index: int) -> Reorg:
    section.expect(reverse=0)
    return Reorg(section.integer("stride", 1, minimum=1))


def _reorg3d(section: _Section, _index: int) -> SpaceToDepth:
    section.expect(reverse=0)
    return SpaceToDepth(section.integer("stride", 1, minimum=1))


def _upsample(section: _Section, _index: int) -> Upsample:
    if section.number("scale", 1.0) != 1.0:
        raise section.error(f"scale={section.text('scale')[:40]} is not supported; only scale=1 is", "scale")
    return Upsample(section.integer("stride", 2, minimum=1))


def _route(section: _Section, index: int) -> Route:
    return Route(
        _sources(section, "layers", index),
        section.integer("groups", 1, minimum=1),
        section.integer("group_id", 0, minimum=0),
    )


def _shortcut(section: _Section, index: int) -> Shortcut:
    if (kind := section.word("weights_type", "none")) != "none":
        raise section.error(f"weights_type={kind[:40]} is not supported; only none is", "weights_type")
    section.expect(assisted_excitation=0, alpha=1, beta=1)  # pjreddie's factors, which AlexeyAB's Darknet ignores
    return Shortcut(_sources(section, "from", index), section.activation(Activation.LINEAR))


def _scale_channels(section: _Section, index: int) -> ScaleChannels:
    section.expect(scale_wh=0)
    return ScaleChannels(_one_source(section, "from", index), _plain_activation(section))


def _sam(section: _Section, index: int) -> Sam:
    return Sam(_one_source(section, "from", index), _plain_activation(section))


def _plain_activation(section: _Section) -> Activation:
    activation = section.activation(Activation.LINEAR)
    if activation in (Activation.MISH, Activation.SWISH):
        raise section.error(
            f"activation={activation.value} is not supported: Darknet's own [{section.kind}] has no {activation.value} and "
            "gives zeros",
            "activation",
        )
    return activation


def _training_only(section: _Section, _index: int) -> TrainingOnly:
    return TrainingOnly(section.kind)


def _dropout(section: _Section, _index: int) -> Dropout:
    section.expect(dropblock=0)
    return Dropout(section.number("probability", 0.2))


def _softmax(section: _Section, _index: int) -> Softmax:
    if section.number("temperature", 1.0) != 1.0:
        raise section.error("temperature other than 1 is not supported", "temperature")
    section.expect(spatial=0, noloss=0)
    return Softmax(section.integer("groups", 1, minimum=1))


def _yolo(section: _Section, _index: int) -> Yolo:
    kind = HeadKind.SCALED if section.integer("new_coords", 0) else HeadKind.YOLO
    return _masked_head(section, kind)


def _gaussian_yolo(section: _Section, _index: int) -> Yolo:
    if (point := section.word("yolo_point", "center")) not in ("center",):
        raise section.error(
            f"yolo_point={point[:40]} is not supported: the box would hang at one of its corners; only center is",
            "yolo_point",
        )
    return _masked_head(section, HeadKind.GAUSSIAN)


def _region(section: _Section, _index: int) -> Yolo:
    for key, meaning in (("tree", "a tree of words (YOLO9000)"), ("map", "a map of classes (YOLO9000)")):
        if key in section.values:
            raise section.error(f"{key}= is not supported: {meaning}", key)
    section.expect(coords=4, softmax=1, classfix=0)
    num = section.integer("num", 1, minimum=1)
    anchors = _anchors(section)
    if len(anchors) < num:
        raise section.error(f"anchors= has {len(anchors)} pairs; expected num={num}", "anchors")
    return Yolo(tuple(anchors[:num]), section.integer("classes", 20, minimum=1), kind=HeadKind.REGION)


def _masked_head(section: _Section, kind: HeadKind) -> Yolo:
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


def _anchors(section: _Section) -> list[tuple[float, float]]:
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


def _nms(section: _Section) -> Nms:
    kind, beta = section.word("nms_kind", "default"), section.number("beta_nms", 0.6)
    try:
        return Nms(NmsKind(kind), beta)
    except ValueError:
        known = ", ".join(kind.value for kind in NmsKind)
        raise section.error(f"nms_kind={kind[:40]!r} is not supported; expected one of {known}", "nms_kind") from None


def _one_source(section: _Section, key: str, index: int) -> int:
    sources = _sources(section, key, index)
    if len(sources) != 1:
        raise section.error(f"{key}={section.text(key)[:40]}; expected one layer", key)
    return sources[0]


def _sources(section: _Section, key: str, index: int) -> tuple[int, ...]:
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

# What keys mean that are supported in one value only, for those that users meet.
_MEANING = {
    "softmax": "the classes of this head are not made comparable by a softmax",
    "xnor": "the convolution has binary weights and inputs (XNOR-Net)",
    "binary": "the convolution has binary weights",
    "alpha": "pjreddie's Darknet multiplies this layer's input by it",
    "beta": "pjreddie's Darknet multiplies the layers of from= by it",
}

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
}

# Each layer's parser, and the keys of its section that inference does not read.
_LAYERS: dict[str, tuple[Callable[[_Section, int], Layer], str]] = {
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
_ALIASES = {
    "conv": "convolutional",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
    "local_avg": "local_avgpool",
    "conn": "connected",
}
