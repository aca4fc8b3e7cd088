"""Recipes as TOML files, read strictly and written short."""

import dataclasses
import json
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import path as path_of
from yolov3_trt.arguments import shown
from yolov3_trt.errors import RecipeError, SettingError
from yolov3_trt.files import read_toml, write_text
from yolov3_trt.meta import Batch
from yolov3_trt.recipe.paths import PATHS, absolute_path, relative_path
from yolov3_trt.recipe.values import BuildRecipe
from yolov3_trt.settings import KINDS

RECIPE_FORMAT = "yolov3_trt.recipe/1"
_SIZES = ("input_size", "frame_size")
_RENAMED = {"skip_layers": "float_layers", "rest": "float_precision"}
_TABLE_OF = {item.name: name for name, kind in KINDS.items() for item in dataclasses.fields(kind)}


def load_recipe(path: str | os.PathLike[str]) -> BuildRecipe:
    """Read a recipe. No file that it names is looked at.

    Raises:
        RecipeError: it is missing, no TOML, says what no recipe does, or what cannot be built.
    """
    path = path_of("path", path)
    content = _toml(path)
    found = content.pop("format", None)
    if found != RECIPE_FORMAT:
        got = "missing" if found is None else f"got {shown(found)}"
        raise RecipeError(f"{path}: format: {got}; expected {RECIPE_FORMAT!r} (engines/README.md shows one)")
    try:
        _change_paths(content, lambda setting, text: absolute_path(setting, text, os.path.abspath(path.parent)))
        return _recipe(content)
    except SettingError as exc:
        raise RecipeError(f"{path}: {_key(exc.setting)}: {exc.problem}") from exc


def save_recipe(recipe: BuildRecipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe, atomically: what differs from the defaults, with paths relative to the recipe's folder.

    `load_recipe` gives the same recipe back.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    content = {"format": RECIPE_FORMAT, **_plain(recipe)}
    folder = os.path.abspath(path.parent)
    _change_paths(content, lambda setting, text: relative_path(setting, text, folder))
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    blocks = [_lines({key: value for key, value in content.items() if key not in tables})]
    blocks += [f"[{name}]\n{_lines(table)}" for name, table in tables.items()]
    write_text(path, "\n".join(blocks))


def _toml(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe") from None
    except (OSError, ValueError) as exc:
        raise RecipeError(f"{path}: this recipe cannot be read ({exc}); expected TOML in UTF-8") from exc


def _recipe(content: dict[str, Any]) -> BuildRecipe:
    """The recipe that a file's content is; a key is a setting's name, in the table of its kind."""
    _check_keys(content, BuildRecipe, "")
    parts = {}
    for name, kind in KINDS.items():
        table = content.get(name, {})
        if not isinstance(table, dict):
            raise SettingError(name, f"got {shown(table)}; expected a table")
        _check_keys(table, kind, f"{name}.")
        parts[name] = kind(**table)
    if "model" not in content:
        raise SettingError("model", "missing; expected a built-in name or the path of a .cfg")
    return BuildRecipe(**{**content, **parts})


def _check_keys(table: dict[str, Any], kind: type[Any], where: str) -> None:
    known = [item.name for item in dataclasses.fields(kind)]
    for name, value in table.items():
        if name not in known:
            meant = f"it is called {_RENAMED[name]} now" if name in _RENAMED else f"expected one of {', '.join(known)}"
            raise SettingError(where + _printable(name), f"there is no such key; {meant}")
        if name in _SIZES and isinstance(value, list):
            numbers = len(value) == 2 and all(type(side) is int for side in value)
            example = '"{1}x{0}"'.format(*value) if numbers else '"1280x720"'
            raise SettingError(
                name, f"got {shown(value)}; expected WIDTHxHEIGHT as a text, or one number: write {example}"
            )


def _key(setting: str) -> str:
    """A setting as the file has it: `conf` -> `detect.conf`."""
    return f"{_TABLE_OF[setting]}.{setting}" if setting in _TABLE_OF else setting


def _printable(name: str) -> str:
    """A key for a message of one line."""
    return name if name and name.isprintable() and len(name) <= 40 else shown(name)


def _change_paths(content: dict[str, Any], change: Callable[[str, str], str]) -> None:
    """Replace every path by what `change` makes of its setting and text; other kinds of values are left for the checks."""
    for *tables, name in PATHS:
        part: Any = content
        for table in tables:
            part = part.get(table)
        if isinstance(part, dict) and isinstance(part.get(name), str):
            part[name] = change(name, part[name])


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as TOML's kinds: what differs from the defaults."""
    said = {}
    for item in dataclasses.fields(settings):
        value, default = getattr(settings, item.name), item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        if value != default:
            said[item.name] = _plain_value(item.name, value)
    return said


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, Batch):
        return [value.min, value.opt, value.max] if value.dynamic else value.max
    if name in _SIZES:
        height, width = value
        return height if height == width else f"{width}x{height}"
    if name == "nms" and not isinstance(value, str):
        raise SettingError(name, f"got {shown(value)}; expected cfg or plain, which is all that a recipe can say")
    if dataclasses.is_dataclass(value):
        return _plain(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, frozenset)):
        return list(value) if isinstance(value, tuple) else sorted(value)
    return value


def _lines(table: dict[str, Any]) -> str:
    # What JSON makes of these texts, numbers and lists is TOML too, but for DEL.
    texts = {key: json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for key, value in table.items()}
    return "".join(f"{key} = {text}\n" for key, text in texts.items())
