"""What each verb needs besides the base of the package, all looked for at once before it works."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from yolov3_trt.errors import MissingDependency
from yolov3_trt.packages import how_to_install, missing_packages

_OF_THE_REFERENCE = ("compare", "bench")  # these run a model as what others are held to
_COMPARED = ("torch", "onnx", "onnxruntime")  # where a graph is worth nothing without its reference


@dataclass(frozen=True)
class Needs:
    """Of one verb."""

    always: tuple[str, ...] = ()  # keys of `packages.PACKAGES`
    artifacts: tuple[str, ...] = ()  # its parameters that name what it runs, which needs what runs it
    builds: str = ""  # its parameter that names what is built: a graph, or a model or recipe, which is exported before


NEEDS = {
    "export": Needs(("onnx",)),
    "adopt": Needs(_COMPARED),
    "calibrate": Needs(("opencv", "onnx", "onnxruntime"), builds="source"),
    "quantize": Needs(("opencv", "onnx", "onnxruntime")),
    "build": Needs(("tensorrt",), builds="source"),
    "detect": Needs(("opencv",), artifacts=("artifact",)),
    "camera": Needs(("opencv",), artifacts=("artifact",)),
    "compare": Needs(("opencv",), artifacts=("a", "b")),
    "certify": Needs(("opencv",), artifacts=("artifact",)),
    "bench": Needs(("opencv",), artifacts=("artifacts",)),
    "eval": Needs(("opencv",), artifacts=("artifacts",)),
    "report": Needs(("opencv", "onnx", "onnxruntime")),
    "train": Needs(("opencv", "torch")),
    "check": Needs(("opencv",)),  # of `data`, as the next three
    "convert": Needs(("opencv",)),
    "anchors": Needs(("opencv",)),
    "shapes": Needs(("opencv",)),
    "triton": Needs(("opencv", "tritonclient")),  # of `deploy`
    "demo": Needs(("opencv", *_COMPARED)),
}


class CheckedVerb(TyperCommand):
    """A verb that says before it begins which packages it lacks, and what to run."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the verb.

        Raises:
            MissingDependency: it lacks something; the text names all of it.
        """
        check(str(self.name), ctx.params)
        return super().invoke(ctx)


def check(verb: str, params: Mapping[str, Any]) -> None:
    """Refuse a verb that lacks what it needs.

    Args:
        verb: its name.
        params: its arguments and options by the names of its parameters.

    Raises:
        MissingDependency: the text names all that is missing.
    """
    missing = missing_packages(needed_by(verb, params))
    if missing:
        are = "is" if len(missing) == 1 else "are"
        names = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise MissingDependency(f"{verb} needs {names}, which {are} not installed; {how_to_install(missing)}")


def needed_by(verb: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of `packages.PACKAGES` that a verb needs for what it was told."""
    needs = NEEDS.get(verb, Needs())
    names = list(needs.always)
    for parameter in needs.artifacts:
        given = params[parameter]
        for artifact in [given] if isinstance(given, (str, Path)) else given:
            names += _to_run(verb, str(artifact), params.get("backend"))
    if needs.builds:
        if params.get("flavor") == "tensorrt_rtx":
            names = ["tensorrt_rtx"]
        if not str(params[needs.builds]).endswith(".onnx"):
            names += ["onnx", *(("opencv", "onnxruntime") if params.get("images") else ())]  # pictures to calibrate on
    if params.get("distill"):
        names.append("torch")
    return tuple(names)


def _to_run(verb: str, artifact: str, backend: str | list[str] | None) -> tuple[str, ...]:
    """An engine's own verdict says what it lacks, and a name that is none of these is refused by its verb."""
    if artifact.startswith(("triton://", "tritons://")):
        return ("tritonclient",)
    if artifact.endswith(".onnx"):
        asked = {"onnxruntime", "openvino"} & set([backend] if isinstance(backend, str) else backend or ())
        return tuple(sorted(asked)) or ("onnxruntime",)
    from yolov3_trt.models import is_model

    if not is_model(artifact):
        return ()
    # PyTorch where it is or where it is the reference, else the graph of the model on ONNX Runtime.
    return ("torch",) if verb in _OF_THE_REFERENCE or not missing_packages(("torch",)) else ("onnx", "onnxruntime")
