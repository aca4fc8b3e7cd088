"""Paths in recipes: absolute in memory, relative to the recipe's folder in a file."""

import os
from collections.abc import Callable
from pathlib import Path

from yolov3_trt.errors import RecipeError

# The keys that hold a path, and which texts there are words instead.
PATH_KEYS: dict[str, Callable[[str], bool]] = {
    "model": lambda text: Path(text).suffix != ".cfg",
    "weights": lambda text: False,
    "names": lambda text: text in ("coco", "voc"),
    "calibration.table": lambda text: False,
    "calibration.images": lambda text: text == "shapes",
    "engine.timing_cache": lambda text: False,
}


def absolute_path(key: str, text: str, folder: str = "") -> str:
    """What a path key says, counted from `folder`, by default the working folder; a word stays.

    `..` goes up in the text, whatever links there are on the way, so that `relative_path` can undo it.

    Raises:
        RecipeError: the text can be neither.
    """
    if not text or "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise RecipeError(f"{key}: got {text!r}; expected a path or a name, in characters that UTF-8 has")
    return text if PATH_KEYS[key](text) else os.path.abspath(os.path.join(folder, text))


def relative_path(key: str, text: str, folder: str) -> str:
    """The text that `absolute_path` makes `text` of; `text` itself where there is no relative one."""
    if PATH_KEYS[key](text):
        return text
    try:
        relative = Path(os.path.relpath(text, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return text
    # A file called `coco` would come back as the word.
    return relative if absolute_path(key, relative, folder) == text else text
