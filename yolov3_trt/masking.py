"""Passwords out of what people and programs read, by pattern: also out of addresses that could not be understood."""

import re
from urllib.parse import unquote

# What begins an address, also a mistyped one (`rtsp:/`, `rtsp;//`, `rtsp//`), and its user.
_BEGIN = r"\b([A-Za-z][A-Za-z0-9+.-]*(?:[:;][/\\]{1,2}|//))"
_NOT_VARIABLE = r"(?!\$\{\w+\}@)"  # `${NAME}` is no secret but the name of one
_NOT_PORT = r"(?!\d{1,5}(?![^\s/?#:,;.)'\"])|PORT\b|port\b|\$\{)"
_USER_INFO = re.compile(rf"{_BEGIN}([^\s@:]*?)(?::|%3A){_NOT_VARIABLE}(?:\S*@|{_NOT_PORT}(?=\S)[^@]{{1,80}}@)")
_BARE_USER_INFO = re.compile(rf"(?<![\w/.])([\w.+-]{{1,64}}):{_NOT_VARIABLE}[^\s/@]+@(?=[\w\[])")
_WHOLE_BEGIN = re.compile(rf"\s*(?:\w[\w.-]*\s*=\s*)?(?:{_BEGIN})?")
_WHOLE_USER_INFO = re.compile(rf"^([^:]*?)(?::|%3A){_NOT_VARIABLE}.*@", re.DOTALL | re.IGNORECASE)
_UNENDED = re.compile(rf"{_BEGIN}([^\s/\\@:?#\[\]]*):{_NOT_PORT}(?!\*\*\*@)[^\s@]+(?!\S*@)")
# What is `key=value` in queries and paths, and those keys whose values are secret.
_PAIR = re.compile(r"([?&;/_,]|\b)([\w.%-]{2,60}(?:\[\w*\])?)(=|%3D)(?!\$\{\w+\})", re.IGNORECASE)
_SECRET_KEY = re.compile(
    r"pass(?!\w*_file$)|pwd|psw|pw$|loginpas|token|secret|auth|key(\[\w*\])?$|sig|session|sid$|jwt|credential",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[^&\s]*?(?=[:;,.)'\"]*(?:\s|$|&))(?:&(?![^&=\s]*(?:=|%3D))[^&\s]*)*", re.IGNORECASE)
_WHOLE_VALUE = re.compile(r"[^&]+(?:&(?![^&=]*(?:=|%3D))[^&]*)*", re.IGNORECASE)
_IN_PATH = re.compile(r"(://\S*?/(?:password|passwd|pwd|token|secret)/)[^\s/?]+", re.IGNORECASE)
_OF_GSTREAMER = re.compile(r"\b((?:user|proxy)-?(?:pw|password)=)(?:\"[^\"]*\"|[^\s!]+)")
_ADDRESS = re.compile(r"\S*//?\S*")
_PROGRAM = re.compile(r"^(exec\b[^:]*:\s*\S+)\s.*", re.DOTALL)


def masked(text: str) -> str:
    """A text with `***` for each password of the addresses in it: behind a user, and of keys in queries and paths."""
    text = _OF_GSTREAMER.sub(r"\1***", text)
    if not any(sign in text for sign in "/\\@"):
        return text
    text = _BARE_USER_INFO.sub(r"\1:***@", _USER_INFO.sub(r"\1\2:***@", text))
    return _ADDRESS.sub(lambda found: _without_values(found[0], _VALUE), _without_users(text))


def masked_address(uri: str) -> str:
    """The same of one address, whose passwords may hold blanks too; of a program that is started, its name alone."""
    shown = _PROGRAM.sub(r"\1 ...", _OF_GSTREAMER.sub(r"\1***", uri))
    begin = _WHOLE_BEGIN.match(shown)
    end = 0 if begin is None else begin.end()
    return _without_values(_without_users(shown[:end] + _WHOLE_USER_INFO.sub(r"\1:***@", shown[end:])), _WHOLE_VALUE)


def _without_users(text: str) -> str:
    """What looks like a user and a password without the end of them, and passwords that are a part of a path."""
    return _IN_PATH.sub(r"\1***", _UNENDED.sub(r"\1\2:***", text))


def _without_values(text: str, value: re.Pattern[str]) -> str:
    parts, at = [], 0
    while (pair := _PAIR.search(text, at)) is not None:
        parts.append(text[at : pair.end()])
        at = pair.end()
        if _SECRET_KEY.search(unquote(pair[2])):
            found = value.match(text, at)
            at = at if found is None else found.end()
            parts.append("" if found is None or not found[0] else "***")
    return "".join([*parts, text[at:]])
