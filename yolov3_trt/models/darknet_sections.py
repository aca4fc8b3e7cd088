"""The sections of a Darknet `.cfg`, and its values as Darknet reads them."""

import logging
import re
from dataclasses import dataclass, field

from yolov3_trt.errors import CfgError
from yolov3_trt.layers import Activation

_LOG = logging.getLogger(__name__)

_ALIASES = {
    "conv": "convolutional",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
    "local_avg": "local_avgpool",
    "conn": "connected",
}

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

# What keys mean that are supported in one value only, for those that users meet.
_MEANING = {
    "softmax": "the classes of this head are not made comparable by a softmax",
    "xnor": "the convolution has binary weights and inputs (XNOR-Net)",
    "binary": "the convolution has binary weights",
    "alpha": "pjreddie's Darknet multiplies this layer's input by it",
    "beta": "pjreddie's Darknet multiplies the layers of from= by it",
}


@dataclass
class Section:
    """One `[section]`: its values with their lines, and which of them have been asked for."""

    kind: str
    file: str
    line: int
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)  # what follows a value behind `#` or `;`, by key
    asked: set[str] = field(default_factory=set)

    def error(self, message: str, key: str | None = None) -> CfgError:
        """What is wrong with it or with a key of it, with file and line."""
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
        """A value as it stands; None as default: there must be one."""
        self.asked.add(key)
        if key in self.values:
            return self.values[key][0]
        if default is None:
            raise self.error(f"has no {key}=; expected one")
        return default

    def integer(self, key: str, default: int | None = None, *, minimum: int | None = None) -> int:
        """A whole number; see `text`."""
        text = self.text(key, None if default is None else str(default))
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
            raise self.error(f"{key}={text[:40]!r}; expected a whole number", key)
        value = int(text)
        if minimum is not None and value < minimum:
            raise self.error(f"{key}={value}; expected {minimum} or more", key)
        return value

    def number(self, key: str, default: float) -> float:
        """A number in decimal."""
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
        """Whole numbers between commas."""
        values = [self._parse_number(key, part) for part in self._parts(key)]
        if any(value != int(value) for value in values):
            raise self.error(f"{key}={self.text(key)[:40]!r}; expected whole numbers", key)
        return [int(value) for value in values]

    def activation(self, default: Activation) -> Activation:
        """What follows the layer."""
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


def sections_of(content: bytes, file: str) -> list[Section]:
    """The sections of a `.cfg`, [net] first, as Darknet reads them; `file` is what errors call it.

    Raises:
        CfgError: a line is none of a cfg.
    """
    lines = content.decode("utf-8-sig", "surrogateescape").splitlines()  # comments may be in any encoding
    sections: list[Section] = []
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
            sections.append(Section(_ALIASES.get(header[1], header[1]), file, number))
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
