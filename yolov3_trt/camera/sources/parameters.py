"""Parameters behind the question mark of a URI."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from yolov3_trt.arguments import size
from yolov3_trt.errors import CameraError
from yolov3_trt.geometry import HW

SIZE = r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}"
FPS = r"[1-9][0-9]{0,2}"


def parse_parameters(uri: str, patterns: Mapping[str, str], form: str) -> dict[str, str]:
    """The parameters that are given, by name.

    Args:
        uri: `scheme://?name=value&...`; what lies before the question mark is the caller's.
        patterns: what each value must match.
        form: an example, for the error.

    Raises:
        CameraError: one is unknown, malformed or given twice.
    """
    try:
        given = parse_qsl(urlsplit(uri).query, keep_blank_values=True)
        for key, value in given:
            if key not in patterns:
                raise ValueError(f"there is no parameter {key!r}")
            if not re.fullmatch(patterns[key], value):
                raise ValueError(f"{key}={value!r} has no meaning")
        if len(given) > len(dict(given)):
            raise ValueError("a parameter is given twice")
    except ValueError as exc:
        raise CameraError(f"{uri}: {exc}; expected {form} or a part of it, with the size as WIDTHxHEIGHT") from exc
    return dict(given)


def parse_size(text: str) -> HW:
    """`640x480` -> (480, 640)."""
    return size("size", text)
