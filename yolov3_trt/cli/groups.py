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

from yolov3_trt.arguments import Range, path, setting, text
from yolov3_trt.camera.settings import CameraSettings
from yolov3_trt.cli.options import BackendOption, RunPrecisionOption, ThreadsOption, TrustOption, WaitOption
from yolov3_trt.selection import Selection
from yolov3_trt.settings import CalibrationSettings, DetectSettings, DrawSettings, EngineSettings, GraphSettings
from yolov3_trt.training.settings import Augmentation, LossSettings, TrainSettings


@dataclass(frozen=True)
class ModelOptions:
    """What only a model can be told; an exported artifact carries its own.

    Attributes:
        weights: Darknet .weights; by default the file beside the .cfg, or in the cache.
        names: class names: a file with one a line, `coco` or `voc`.
        input_size: input size in px, one number or WIDTHxHEIGHT; by default the model's own.
    """

    weights: Path | None = setting(path, metavar="FILE")
    names: str | None = setting(text, metavar="FILE")
    input_size: str | None = setting(text, metavar="N|WIDTHxHEIGHT")


@dataclass(frozen=True)
class RunOptions:
    """What runs an artifact; these are arguments of `open_detector` and of the jobs that open one."""

    backend: BackendOption = "auto"
    threads: ThreadsOption = None
    trust: TrustOption = False
    precision: RunPrecisionOption = None
    wait: WaitOption = "auto"


_PANELS: dict[type[Any], str] = {
    ModelOptions: "Model",
    GraphSettings: "Graph",
    CalibrationSettings: "INT8",
    DetectSettings: "Detection",
    Selection: "Detection",
    CameraSettings: "Sources",
    DrawSettings: "Drawing",
    EngineSettings: "TensorRT",
    TrainSettings: "Training",
    LossSettings: "Training",
    Augmentation: "Augmentation",
}

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def takes(*groups: type[Any], without: frozenset[str] | set[str] = frozenset()) -> Callable[[_Verb], _Verb]:
    """Decorate a verb that has `**settings`: it gets an option for each setting of these groups.

    Args:
        groups: settings classes, `ModelOptions` or `RunOptions`.
        without: settings that this verb does not take.

    What was not given is None, so that a verb hands `**settings` on to its job as it is.
    """

    def spell_out(verb: _Verb) -> _Verb:
        # Not get_type_hints: on Python 3.10 that hides an annotation behind Optional where the default is None.
        signature = inspect.signature(verb, eval_str=True)
        own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
        options = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default_of(group, name), annotation=annotation
            )
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


def default_of(group: type[Any], name: str) -> Any:
    """What a verb is given where an option is not typed: None of a setting, which keeps its default."""
    return getattr(group, name) if group is RunOptions else None


def options_of(group: type[Any]) -> dict[str, Any]:
    """What Typer is told of each setting of a class, by name."""
    if group is RunOptions:
        return get_type_hints(group, include_extras=True)
    types, helps = get_type_hints(group), attribute_texts(group)
    home = {name: owner for owner in reversed(group.__mro__) for name in vars(owner).get("__annotations__", {})}
    return {
        item.name: _option(_PANELS[home[item.name]], item, types[item.name], helps[item.name])
        for item in sorted(
            dataclasses.fields(group), key=lambda item: home[item.name] is not group
        )  # its own come first
        if item.metadata["option"]
    }


def _option(panel: str, item: "dataclasses.Field[Any]", hint: Any, text: str) -> Any:
    kind, check, default = _simple_type(hint), item.metadata["check"], item.default

    def checked(value: Any) -> Any:
        if value is not None:
            check(item.name, value)  # refused before anything is opened; the job makes of it what it stands for
        # As text: Typer 0.20 makes a choice of what a callback gives once more, and of a choice it makes None.
        return value.value if isinstance(value, Enum) else value

    flag = f"--{item.name.replace('_', '-')}"
    if kind is bool and default is True:
        flag = f"{flag}/--no-{flag[2:]}"
        text = f"{text} On by default."
    elif isinstance(default, (Enum, str, int, float)) and kind is not bool:
        text = f"{text} Default: {default.value if isinstance(default, Enum) else default}."
    return Annotated[
        kind | None,
        typer.Option(
            flag,
            help=text,
            metavar=item.metadata["metavar"] or (str(check) if isinstance(check, Range) else None),
            callback=checked,
            rich_help_panel=item.metadata["panel"] or panel,
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
    """The entries under `Attributes:` of the docstrings of a class and its bases, each as whole sentences."""
    found: dict[str, str] = {}
    for owner in reversed(group.__mro__):
        doc = inspect.cleandoc(vars(owner).get("__doc__") or "")
        block = re.search(r"^Attributes:\n((?:    .*\n|\n)*)", doc + "\n", re.MULTILINE)
        for name, words in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", block[1] if block else "", re.MULTILINE):
            line = " ".join(words.split())
            found[name] = line[:1].upper() + line[1:]
    return found
