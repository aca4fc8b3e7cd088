"""Protobuf's text format, as far as a model's `config.pbtxt` uses it: written and read without the protobuf package.

A message is a dict. A repeated field is a list; one of messages is written as `name [ {...}, {...} ]`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from yolov3_trt.errors import MetaError

Message = dict[str, Any]

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<name>[A-Za-z_][\w.]*)
      | (?P<mark>[][{}<>:,;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_SHORT = {"n": "\n", "r": "\r", "t": "\t"}
_MAX_DEPTH = 50


class Symbol(str):
    """The name of an enum's value, which is written without quotes."""


def text_from_message(message: Mapping[str, Any], indent: str = "") -> str:
    """A message as text, one field a line."""
    return "".join(f"{indent}{name}{_text(value, indent)}\n" for name, value in message.items())


def message_from_text(text: str, source: str) -> dict[str, list[Any]]:
    """Read a message; every field is a list of its values, as the text does not say which are repeated.

    Args:
        text: of the message.
        source: what error texts call it.

    Raises:
        MetaError: the text is not of this format.
    """
    return _Reader(text, source).message(until="", depth=0)


def _text(value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        return f" {{\n{text_from_message(value, indent + '  ')}{indent}}}"
    if not isinstance(value, list):
        return f": {_scalar(value)}"
    if not any(isinstance(item, Mapping) for item in value):
        return f": [ {', '.join(map(_scalar, value))} ]"
    inner = indent + "  "
    items = [f"{inner}{{\n{text_from_message(item, inner + '  ')}{inner}}}" for item in value]
    return f" [\n{(',' + chr(10)).join(items)}\n{indent}]"


def _scalar(value: Any) -> str:
    if isinstance(value, Symbol):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    # Control characters in octal: a hexadecimal escape would swallow digits that follow it.
    escaped = re.sub(r'[\\"]', r"\\\g<0>", value)
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\{ord(found[0]):03o}", escaped) + '"'


class _Token(NamedTuple):
    kind: str  # string, number, name or mark; empty at the end
    text: str
    line: int


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._tokens = self._split(text)
        self._next = next(self._tokens)

    def message(self, until: str, depth: int) -> dict[str, list[Any]]:
        """The fields up to and with the mark `until`."""
        if depth > _MAX_DEPTH:
            raise self._error(f"messages nested deeper than {_MAX_DEPTH}")
        fields: dict[str, list[Any]] = {}
        while not (self._next.text == until and self._next.kind in ("mark", "")):
            name = self._take("name").text
            values = fields.setdefault(name, [])
            has_colon = self._skip(":")
            if self._skip("["):
                while not self._skip("]"):
                    values.append(self._value(depth, has_colon=True))
                    self._skip(",")
            else:
                values.append(self._value(depth, has_colon))
            _ = self._skip(",") or self._skip(";")
        self._advance()
        return fields

    def _value(self, depth: int, has_colon: bool) -> Any:
        for opening, closing in ("{}", "<>"):
            if self._skip(opening):
                return self.message(closing, depth + 1)
        if not has_colon:
            raise self._error("expected ':' or a message")
        token = self._take("string", "number", "name")
        if token.kind == "number":
            return float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
        if token.kind == "name":
            return {"true": True, "false": False}.get(token.text, Symbol(token.text))
        parts = [token.text]
        while self._next.kind == "string":  # neighbours are one string
            parts.append(self._advance().text)
        return "".join(_unescaped(part[1:-1]) for part in parts)

    def _skip(self, mark: str) -> bool:
        found = self._next.kind == "mark" and self._next.text == mark
        if found:
            self._advance()
        return found

    def _take(self, *kinds: str) -> _Token:
        if self._next.kind not in kinds:
            raise self._error(f"expected a {' or '.join(kinds)}")
        return self._advance()

    def _advance(self) -> _Token:
        token = self._next
        if token.kind:
            self._next = next(self._tokens)
        return token

    def _split(self, text: str) -> Iterator[_Token]:
        at, line = 0, 1
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise MetaError(f"{self._source}:{line}: {text[at]!r} is not protobuf text; write the file again")
            if found.lastgroup != "space":
                yield _Token(str(found.lastgroup), found[0], line)
            at, line = found.end(), line + found[0].count("\n")
        yield _Token("", "", line)

    def _error(self, expected: str) -> MetaError:
        got = repr(self._next.text) if self._next.kind else "the end"
        return MetaError(f"{self._source}:{self._next.line}: got {got}; {expected}")


def _unescaped(text: str) -> str:
    """Escapes stand for bytes of UTF-8."""

    def plain(found: re.Match[str]) -> str:
        if found[3] is not None:
            return _SHORT.get(found[3], found[3])
        code = int(found[1], 16) if found[1] is not None else int(found[2], 8)
        return bytes([code & 0xFF]).decode("ascii", "surrogateescape")

    return _ESCAPE.sub(plain, text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
