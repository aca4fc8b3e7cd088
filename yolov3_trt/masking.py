"""Passwords out of what people and programs read, by pattern: also out of addresses that could not be understood."""

import re

# What begins an address, also a mistyped one (`rtsp:/`, `rtsp//`), and its user.
_USER = r"\b([A-Za-z][A-Za-z0-9+.-]*(?::/{1,2}|//))([^\s/@:]*)"
_VARIABLE = r"(?!\$\{\w+\}@)"  # `${NAME}` is no secret but the name of one
_KEY = r"(?:pass(?!\w*_file=)\w*|pwd|psw|pw|token\w*|secret\w*|auth\w*|\w*key|sig\w*)"
_USER_INFO = re.compile(rf"{_USER}:{_VARIABLE}\S*@")
_VALUE = re.compile(rf"((?:[?&;/_=,]|\b){_KEY}=)(?!\$\{{\w+\}})[^&\s]*?(?=[:;,.)'\"]*(?:\s|$|&))", re.IGNORECASE)
_WHOLE_USER_INFO = re.compile(rf"{_USER}:{_VARIABLE}.*@", re.DOTALL)
_WHOLE_VALUE = re.compile(rf"((?:[?&;/_=,]|\b){_KEY}=)(?!\$\{{\w+\}})[^&]+", re.IGNORECASE)
_ADDRESS = re.compile(r"\S*//?\S*")


def masked(text: str) -> str:
    """A text with `***` for each password of the addresses in it: behind a user, and of keys in queries and paths."""
    if "/" not in text:
        return text
    return _ADDRESS.sub(lambda found: _VALUE.sub(r"\1***", found[0]), _USER_INFO.sub(r"\1\2:***@", text))


def masked_address(uri: str) -> str:
    """The same of one address, whose passwords may hold blanks too."""
    return _WHOLE_VALUE.sub(r"\1***", _WHOLE_USER_INFO.sub(r"\1\2:***@", uri))
