"""Passwords of cameras from where `ps` does not show them: the environment, or a file that nobody else may read."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from yolov3_trt.errors import CameraError
from yolov3_trt.files import read_secret

_NAME = re.compile(r"\$\{(\w+)\}")


def load_credentials(path: Path) -> dict[str, str]:
    """A file of `NAME=value` lines, for `${NAME}` in addresses of streams.

    Values are taken as they are, with all their characters; blank lines and those with `#` before the name are passed over.

    Raises:
        CameraError: it cannot be read, others than its owner may read it, or a line is not of this form.
    """
    try:
        lines = read_secret(path).splitlines()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a text"
        raise CameraError(f"{path}: cannot be read ({reason}); expected lines NAME=value") from exc
    values = {}
    for number, line in enumerate(lines, 1):
        name, is_set, value = line.strip().partition("=")
        if not line.strip() or name.startswith("#"):
            continue
        if not is_set or not re.fullmatch(r"\w+", name):
            raise CameraError(f"{path}:{number}: expected NAME=value, e.g. CAM_PASSWORD=...")
        values[name] = value
    return values


def with_credentials(uri: str, given: Mapping[str, str]) -> str:
    """An address with the value of each `${NAME}`, written as addresses want it; of `given`, else of the environment.

    Raises:
        CameraError: there is no such value.
    """

    def value(found: re.Match[str]) -> str:
        known = given.get(found[1], os.environ.get(found[1]))
        if known is None:
            raise CameraError(
                f"{uri}: there is no {found[1]}; set it in the environment, or give a file of credentials with a line "
                f"{found[1]}=..."
            )
        return quote(known, safe="")

    return _NAME.sub(value, uri)
