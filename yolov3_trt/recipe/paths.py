"""Paths in recipes: absolute in memory, relative to the recipe's folder in a file."""

import os
from collections.abc import Callable
from pathlib import Path

from yolov3_trt.arguments import shown
from yolov3_trt.errors import SettingError

# The settings that hold a path, by their table in a file, and which texts there are words instead.
PATHS: dict[tuple[str, ...], Callable[[str], bool]] = {
    ("model",): lambda text: Path(text).suffix != ".cfg",
    ("weights",): lambda text: False,
    ("names",): lambda text: text in ("coco", "voc"),
    ("calibration", "table"): lambda text: False,
    ("calibration", "images"): lambda text: text == "shapes",
    ("engine", "timing_cache"): lambda text: False,
}
_IS_WORD = {place[-1]: is_word for place, is_word in PATHS.items()}


def absolute_path(setting: str, text: str, folder: str = "") -> str:
    """What a path says, counted from `folder`, by default the working folder; a word stays.

    `..` goes up in the text, whatever links there are on the way, so that `relative_path` can undo it.

    Raises:
        SettingError: the text can be neither.
    """
    if not text or "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise SettingError(setting, f"got {shown(text)}; expected a path or a name, in characters that UTF-8 has")
    return text if _IS_WORD[setting](text) else os.path.abspath(os.path.join(folder, text))


def relative_path(setting: str, text: str, folder: str) -> str:
    """The text that `absolute_path` makes `text` of; `text` itself where there is no relative one."""
    if _IS_WORD[setting](text):
        return text
    try:
        relative = Path(os.path.relpath(text, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return text
    # A file called `coco` would come back as the word.
    return relative if absolute_path(setting, relative, folder) == text else text
