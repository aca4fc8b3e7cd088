"""Settings as options: what a settings class has, the verbs that take it have as options, under the same names with dashes.

The help of an option is its line in the docstring of the class, so that Python's `help` and `--help` say the same.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from yolov3_trt.selection import Selection
from yolov3_trt.settings import CalibrationSettings, DetectSettings, EngineSettings, GraphSettings


@dataclass(frozen=True)
class ModelOptions:
    """What only a model can be told; an exported artifact carries its own.

    Attributes:
        weights: Darknet .weights; by default the file beside the .cfg, or in the cache.
        names: class names: a file with one a line, `coco` or `voc`.
        input_size: input size in px, one number or WIDTHxHEIGHT; by default the model's own.
    """

    weights: Path | None = None
    names: str | None = None
    input_size: str | None = None


_PANELS: dict[type[Any], str] = {
    ModelOptions: "Model",
    GraphSettings: "Graph",
    CalibrationSettings: "INT8",
    DetectSettings: "Detection",
    Selection: "Detection",
    EngineSettings: "TensorRT",
}
_PANEL_OF = {"float_layers": "INT8", "float_precision": "INT8"}
_METAVARS = {
    "weights": "FILE",
    "names": "FILE",
    "input_size": "N|WIDTHxHEIGHT",
    "batch": "N|MIN:OPT:MAX",
    "frame_size": "WIDTHxHEIGHT",
    "float_layers": "N,N,...",
    "table": "FILE",
    "classes": "NAME[:CONF],...",
    "min_size": "WIDTHxHEIGHT",
    "zones": "FILE",
    "images": "SOURCE",
    "timing_cache": "FOLDER",
    "workspace_mib": "MIB",
    "dla_core": "CORE",
    "compute_capabilities": "8.6,8.9,...",
}

_LIMITS: dict[str, dict[str, Any]] = {
    "conf": {"min": 0.0, "max": 1.0},
    "iou": {"min": 0.0, "max": 1.0},
    "max_detections": {"min": 1},
}  # for `--help`

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def takes(*groups: type[Any], without: frozenset[str] | set[str] = frozenset()) -> Callable[[_Verb], _Verb]:
    """Decorate a verb that has `**settings`: it gets an option for each setting of these groups.

    Args:
        groups: settings classes, or `ModelOptions`.
        without: settings that this verb does not take.

    What was not given is None, so that a verb hands `**settings` on to its job as it is.
    """

    def spell_out(verb: _Verb) -> _Verb:
        # Not get_type_hints: on Python 3.10 that hides an annotation behind Optional where the default is None.
        signature = inspect.signature(verb, eval_str=True)
        own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for group in groups
            for name, annotation in options_of(group).items()
            if name not in without
        ]
        arguments = [item for item in own if item.default is item.empty]
        rest = [item.replace(kind=item.KEYWORD_ONLY) for item in own if item.default is not item.empty]
        parameters = [*arguments, *options, *rest]
        verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        verb.__annotations__ = {item.name: item.annotation for item in parameters}
        return verb

    return spell_out


def options_of(group: type[Any]) -> dict[str, Any]:
    """What Typer is told of each setting of a class, by name."""
    types, helps = get_type_hints(group), attribute_texts(group)
    return {item.name: _option(group, item, types[item.name], helps[item.name]) for item in dataclasses.fields(group)}


def _option(group: type[Any], item: "dataclasses.Field[Any]", hint: Any, text: str) -> Any:
    kind = _simple_type(hint)
    flag = f"--{item.name.replace('_', '-')}"
    if kind is bool and item.default is True:
        flag = f"{flag}/--no-{flag[2:]}"
        text = f"{text} On by default."
    elif isinstance(item.default, (Enum, str)):
        text = f"{text} Default: {item.default.value if isinstance(item.default, Enum) else item.default}."
    return Annotated[
        kind | None,
        typer.Option(
            flag,
            help=text,
            metavar=_METAVARS.get(item.name),
            **_LIMITS.get(item.name, {}),
            rich_help_panel=_PANEL_OF.get(item.name, _PANELS[group]),
            case_sensitive=False,
            show_default=False,
        ),
    ]


def _simple_type(hint: Any) -> Any:
    """The kind that the command line gives for a setting: of several the plainest, a text where the setting reads texts."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is Literal:
            return kind
        if isinstance(kind, type) and (issubclass(kind, Enum) or kind in (bool, int, float, Path)):
            return kind
    return str


def attribute_texts(group: type[Any]) -> dict[str, str]:
    """The entries under `Attributes:` of a class's docstring, each as whole sentences."""
    doc = inspect.getdoc(group) or ""
    block = re.search(r"^Attributes:\n((?:    .*\n|\n)*)", doc + "\n", re.MULTILINE)
    found: dict[str, str] = {}
    for name, text in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", block[1] if block else "", re.MULTILINE):
        words = " ".join(text.split())
        found[name] = words[:1].upper() + words[1:]
    return found
