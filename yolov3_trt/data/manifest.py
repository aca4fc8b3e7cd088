"""Manifests: a set of calibration pictures as a small TOML file, to be kept under version control.

::

    format = "yolov3_trt.calibration-set/1"
    source = "folder"
    path = "../coco/train64"
    count = 64
    seed = 0
    sha256 = "..."

`path` counts from the manifest's own folder. `sha256`, optional, is that of the chosen pictures' contents: with it, a picture
that changed is noticed.
"""

from dataclasses import replace
from pathlib import Path

from yolov3_trt.data.calibration_set import SET_FORMAT, CalibrationSet
from yolov3_trt.errors import CalibrationError
from yolov3_trt.files import read_toml


def load_set(path: Path) -> CalibrationSet:
    """Read a manifest; a relative `path` in it is made one from here.

    Raises:
        CalibrationError: it is missing, damaged, or another version's.
    """
    from pydantic import TypeAdapter, ValidationError  # here: it takes longer to import than all of this package

    try:
        content = read_toml(path)
    except FileNotFoundError:
        raise CalibrationError(f"{path}: there is no such manifest of calibration pictures") from None
    except (OSError, ValueError) as exc:
        raise CalibrationError(f"{path}: this manifest cannot be read ({exc}); expected TOML") from exc
    if content.get("format") != SET_FORMAT:
        raise CalibrationError(f"{path}: format {content.get('format')!r}; expected {SET_FORMAT!r}")
    try:
        found = TypeAdapter(CalibrationSet).validate_python(content)
    except ValidationError as exc:
        first = exc.errors()[0]
        raise CalibrationError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
    except CalibrationError as exc:
        raise CalibrationError(f"{path}: {exc}") from exc
    return found if found.path is None else replace(found, path=path.parent / found.path)
