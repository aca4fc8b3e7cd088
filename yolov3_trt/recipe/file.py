"""Recipes as TOML files, read strictly and written short."""

import json
import os
import reprlib
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3_trt.errors import RecipeError, SettingError
from yolov3_trt.files import write_text
from yolov3_trt.meta import Batch
from yolov3_trt.recipe.paths import PATH_KEYS, absolute_path, relative_path
from yolov3_trt.recipe.values import RECIPE_FORMAT, BuildRecipe, CalibrationRecipe, DetectRecipe, GraphRecipe
from yolov3_trt.settings import EngineSettings

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

_TABLES = {"graph": GraphRecipe, "calibration": CalibrationRecipe, "detect": DetectRecipe, "engine": EngineSettings}
_MAX_DEPTH = 3  # of a value in a list in a table


def load_recipe(path: Path) -> BuildRecipe:
    """Read a recipe. No file that it names is looked at.

    Raises:
        RecipeError: it is missing, no TOML, says what no recipe does, or what cannot be built.
    """
    content = _toml(path)
    if content.get("format") != RECIPE_FORMAT:
        raise RecipeError(
            f"{path}: format: got {_shown(content.get('format'))}; expected {RECIPE_FORMAT!r} (engines/README.md shows one)"
        )
    try:
        return _recipe_from_content(content, os.path.abspath(path.parent))
    except RecipeError as exc:
        raise RecipeError(f"{path}: {exc}") from exc


def save_recipe(recipe: BuildRecipe, path: Path) -> None:
    """Write a recipe, atomically: what differs from the defaults, with paths relative to the recipe's folder.

    `load_recipe` gives the same recipe back.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"format": recipe.format, **_plain(recipe)}
    if recipe.input_size is not None and len(set(recipe.input_size)) == 1:
        content["input_size"] = recipe.input_size[0]
    folder = os.path.abspath(path.parent)
    _change_paths(content, lambda key, text: relative_path(key, text, folder))
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    blocks = [_lines({key: value for key, value in content.items() if key not in tables})]
    blocks += [f"[{name}]\n{_lines(table)}" for name, table in tables.items()]
    write_text(path, "\n".join(blocks))


def _toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file that holds only what JSON can hold as well."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        _check_kinds(content, "")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe") from None
    except RecipeError as exc:
        raise RecipeError(f"{path}: {exc}") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise RecipeError(f"{path}: this recipe cannot be read ({exc}); expected TOML in UTF-8") from exc
    return content


def _check_kinds(value: Any, key: str, depth: int = 0) -> None:
    """Refuse dates, integers beyond TOML's own 64 bits, and nesting that no recipe has."""
    if depth > _MAX_DEPTH:
        raise RecipeError(f"{key}: nested {depth} deep; expected {_MAX_DEPTH} at most")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_kinds(item, f"{key}.{_key(name)}" if key else _key(name), depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_kinds(item, key, depth + 1)
    elif isinstance(value, int) and value.bit_length() > 63:
        raise RecipeError(f"{key}: got an integer of {value.bit_length()} bits; expected 63 at most")
    elif not isinstance(value, (str, int, float)):
        raise RecipeError(f"{key}: got the date or time {value}; expected a text or a number")


def _recipe_from_content(content: dict[str, Any], folder: str) -> BuildRecipe:
    from pydantic import ValidationError  # here: it takes longer to import than all of this package

    _write_sizes_out(content)
    _change_paths(content, lambda key, text: absolute_path(key, text, folder))
    try:
        # As JSON, since only there strict means the same as in TOML: a text is no number and 1 is not true, yet an enum and
        # a path are texts.
        return _adapter().validate_json(json.dumps(content), strict=True)
    except ValidationError as exc:
        raise RecipeError(_fault(exc)) from exc
    except SettingError as exc:  # of EngineSettings; its texts begin with the key
        raise RecipeError(f"engine.{exc}") from exc


@cache
def _adapter() -> "TypeAdapter[BuildRecipe]":
    from pydantic import TypeAdapter

    return TypeAdapter(BuildRecipe)


def _write_sizes_out(content: dict[str, Any]) -> None:
    """From the short forms of sizes to those of the dataclasses."""
    if "input_size" in content:
        given = content["input_size"]
        content["input_size"] = _integers("input_size", given, 2, "a number or [height, width]", repeat=True)
    graph = content.get("graph")
    if isinstance(graph, dict) and "frame_size" in graph:
        graph["frame_size"] = _integers("graph.frame_size", graph["frame_size"], 2, "[height, width]")
    if isinstance(graph, dict) and "batch" in graph:
        sizes = _integers("graph.batch", graph["batch"], 3, "a number or [min, opt, max]", repeat=True)
        graph["batch"] = dict(zip(("min", "opt", "max"), sizes, strict=True))


def _integers(key: str, value: Any, count: int, form: str, *, repeat: bool = False) -> list[int]:
    """`count` integers; a single one counts for all where it may `repeat`."""
    listed = [value] * count if repeat and type(value) is int else value
    if not isinstance(listed, list) or len(listed) != count or any(type(item) is not int for item in listed):
        raise RecipeError(f"{key}: got {_shown(value)}; expected {form}")
    return listed


def _change_paths(content: dict[str, Any], change: Callable[[str, str], str]) -> None:
    """Replace every path by what `change` makes of its key and text; other kinds of values are left for the checks."""
    for key in PATH_KEYS:
        table, _, name = key.rpartition(".")
        part = content.get(table) if table else content
        if isinstance(part, dict) and isinstance(part.get(name), str):
            part[name] = change(key, part[name])


def _fault(exc: "ValidationError") -> str:
    """The first fault, in the words of this package."""
    first = exc.errors(include_url=False)[0]
    key = ".".join(_key(str(part)) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RecipeError):
        return str(cause)  # names its key itself
    if cause is not None:
        return f"{key}: {cause}"
    if first["type"] == "missing":
        return f"{key}: missing; expected it, since it has no default (engines/README.md lists the keys)"
    if first["type"] == "unexpected_keyword_argument":
        table = first["loc"][0] if len(first["loc"]) > 1 else ""
        known = ", ".join(item.name for item in fields(_TABLES.get(str(table), BuildRecipe)))
        return f"{key}: there is no such key; expected one of {known}"
    expected = "a table" if first["type"] == "dataclass_type" else first["msg"].removeprefix("Input should be ")
    return f"{key}: got {_shown(first['input'])}; expected {expected}"


def _key(name: str) -> str:
    """A key for a message of one line."""
    return name if name and name.isprintable() and len(name) <= 40 else _shown(name)


def _shown(value: Any) -> str:
    """A value for a message: short, on one line."""
    return "nothing" if value is None else reprlib.repr(value)


def _plain(value: Any) -> Any:
    """A value of a recipe as TOML's kinds; of a dataclass, what differs from the defaults."""
    if isinstance(value, Batch):
        return [value.min, value.opt, value.max] if value.dynamic else value.max
    if is_dataclass(value):
        said = {item: getattr(value, item.name) for item in fields(value)}
        return {item.name: _plain(given) for item, given in said.items() if given != _default(item)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, frozenset)):
        return list(value) if isinstance(value, tuple) else sorted(value)
    return value


def _default(item: "Field[Any]") -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _lines(table: dict[str, Any]) -> str:
    # What JSON makes of these texts, numbers and lists is TOML too, but for DEL.
    texts = {key: json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for key, value in table.items()}
    return "".join(f"{key} = {text}\n" for key, text in texts.items())
