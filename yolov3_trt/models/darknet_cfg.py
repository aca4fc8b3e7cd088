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
from yolov3_trt.geometry import Resize
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    Dropout,
    Layer,
    MaxPool,
    Route,
    ScaleChannels,
    Shortcut,
    Softmax,
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
    resize = Resize.LETTERBOX if net.integer("letter_box", 1) else Resize.STRETCH
    yolo_sections = [section for section in layer_sections if section.kind == "yolo"]
    try:
        return ModelSpec(
            name=name,
            layers=layers,
            input_hw=(net.integer("height", minimum=1), net.integer("width", minimum=1)),
            channels=net.integer("channels", minimum=1),
            resize=resize,
            batch_norm=batch_norm or BatchNorm(),
            nms=_nms(yolo_sections[-1]) if yolo_sections else Nms(),  # Darknet asks the last head
        )
    except SpecError as exc:
        section = net if exc.layer is None else layer_sections[exc.layer]
        raise CfgError(f"{file}:{section.line}: [{section.kind}] {exc}") from exc


# Keys of every layer section that only training, drawing or Darknet's own bookkeeping reads.
_IGNORED_EVERYWHERE = frozenset(
    "stopbackward stopforward dontload dontloadscales dontsave onlyforward numload train_only_bn learning_scale lr "
    "burnin_update burn_in_update clip dropout_prob grad_centr ema_alpha".split()
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
        return [self._parse_number(key, part) for part in self._parts(key)]

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
        for key in self.values:
            if key not in self.asked and key not in _IGNORED_EVERYWHERE and key not in ignored.split():
                raise self.error(
                    f"{key}= is not known here; it may change the results, so remove the line if only training reads it",
                    key,
                )

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
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as exc:
        at = exc.object[: exc.start].count(b"\n") + 1  # its own bytes: the positions do not count a byte order mark
        raise CfgError(
            f"{file}:{at}: byte {exc.object[exc.start]:#04x} is not UTF-8 text; expected a Darknet .cfg"
        ) from exc
    sections: list[_Section] = []
    for number, raw in enumerate(lines, start=1):
        line, comment = [*re.split("[#;]", raw, maxsplit=1), ""][:2]
        line = line.strip()
        if not line:
            continue
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
    if "share_index" in section.values:  # with any value: 0 is a layer too
        raise section.error(
            f"share_index={section.text('share_index')[:40]} is not supported: this layer would use the weights of that layer",
            "share_index",
        )
    if size > 1:  # a single pixel has no holes
        section.expect(dilation=1)
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
    )


def _maxpool(section: _Section, index: int) -> MaxPool:
    stride = section.integer("stride", 1, minimum=1)
    size = section.integer("size", stride, minimum=1)
    section.expect(padding=size - 1, stride_x=stride, stride_y=stride, maxpool_depth=0, antialiasing=0)
    return MaxPool(size, stride)


def _upsample(section: _Section, index: int) -> Upsample:
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
    sources = _sources(section, "from", index)
    if len(sources) != 1:
        raise section.error(f"from={section.text('from')[:40]}; expected one layer", "from")
    activation = section.activation(Activation.LINEAR)
    if activation in (Activation.MISH, Activation.SWISH):
        raise section.error(
            f"activation={activation.value} is not supported: Darknet's own [scale_channels] has no {activation.value} and "
            "gives zeros",
            "activation",
        )
    return ScaleChannels(sources[0], activation)


def _dropout(section: _Section, index: int) -> Dropout:
    section.expect(dropblock=0)
    return Dropout(section.number("probability", 0.2))


def _softmax(section: _Section, index: int) -> Softmax:
    if section.number("temperature", 1.0) != 1.0:
        raise section.error("temperature other than 1 is not supported", "temperature")
    section.expect(spatial=0, noloss=0)
    return Softmax(section.integer("groups", 1, minimum=1))


def _yolo(section: _Section, index: int) -> Yolo:
    num = section.integer("num", 1, minimum=1)
    anchors = _anchors(section)
    mask = section.integers("mask") if "mask" in section.values else list(range(num))
    last = min(num, len(anchors)) - 1
    if len(set(mask)) != len(mask) or not all(0 <= i <= last for i in mask):
        given = section.text("mask", ",".join(map(str, mask)))
        raise section.error(
            f"mask={given[:40]}; expected different indices in 0..{last}, of num={num} and {len(anchors)} pairs of anchors",
            "mask" if "mask" in section.values else "anchors",
        )
    section.expect(new_coords=0)
    _nms(section)
    scale_xy = section.number("scale_x_y", 1.0)
    if scale_xy <= 0:
        raise section.error(f"scale_x_y={scale_xy}; expected a number above 0", "scale_x_y")
    return Yolo(tuple(anchors[i] for i in mask), section.integer("classes", 20, minimum=1), scale_xy)


def _anchors(section: _Section) -> list[tuple[float, float]]:
    """(width, height) of every anchor listed, input px; a head masks some of them."""
    values = section.numbers("anchors")
    if len(values) % 2:
        raise section.error(f"anchors= has {len(values)} values; expected pairs of width and height", "anchors")
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

# What keys mean that are supported in one value only, for those that users meet.
_MEANING = {
    "new_coords": "this is a head of Scaled-YOLOv4 or YOLOv7, which is decoded in another way",
    "dilation": "the kernel has holes",
    "xnor": "the convolution has binary weights and inputs (XNOR-Net)",
    "binary": "the convolution has binary weights",
    "alpha": "pjreddie's Darknet multiplies this layer's input by it",
    "beta": "pjreddie's Darknet multiplies the layers of from= by it",
}

# Sections of other families, by what they are.
_FAMILIES = {
    "region": "the head of YOLOv2",
    "reorg": "a layer of YOLOv2",
    "reorg3d": "a layer of YOLOv2's kind",
    "reorg_old": "a layer of YOLOv2",
    "detection": "the head of YOLOv1",
    "Gaussian_yolo": "the head of Gaussian YOLOv3",
    "crnn": "a recurrent layer",
    "rnn": "a recurrent layer",
    "gru": "a recurrent layer",
    "lstm": "a recurrent layer",
    "conv_lstm": "a recurrent layer",
    "cost": "the loss of a classifier's training",
}

# Each layer's parser, and the keys of its section that inference does not read.
_LAYERS: dict[str, tuple[Callable[[_Section, int], Layer], str]] = {
    "convolutional": (_conv, "angle wait_stream dilation"),
    "maxpool": (_maxpool, "out_channels"),
    "avgpool": (lambda section, index: AvgPool(), ""),
    "upsample": (_upsample, ""),
    "route": (_route, "stream wait_stream"),
    "shortcut": (_shortcut, "weights_normalization"),
    "scale_channels": (_scale_channels, ""),
    "dropout": (_dropout, "dropblock_size_rel dropblock_size_abs"),
    "softmax": (_softmax, ""),
    "yolo": (_yolo, _YOLO_TRAINING),
}
_ALIASES = {"conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax"}
