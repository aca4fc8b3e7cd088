"""Options that several verbs share, and how their texts become values.

Choices whose enums live beside NumPy code, which `--help` must not import, are spelt out here; a test holds the two together.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

_Target = TypeVar("_Target", bound=str | Path | None)
BackendChoice = Literal["auto", "torch", "onnxruntime", "tensorrt", "triton", "opencv", "openvino"]
RunPrecisionName = Literal["fp32", "bf16", "fp16"]
DeviceName = Literal["auto", "cpu", "cuda"]

OUTPUT, BACKEND = "Output", "Backend"  # panels of `--help`


def writable(option: str, *, is_file: bool = False) -> Callable[[_Target], _Target]:
    """For `callback=`: sees that results can be written where an option says, before the work is begun.

    Args:
        option: as it is typed.
        is_file: whether it names a file; - is stdout.
    """

    def check(value: _Target) -> _Target:
        from yolov3_trt.errors import OutputError
        from yolov3_trt.files import check_writable

        if value is None or str(value) == "-":
            return value
        try:
            check_writable(Path(value))
        except OutputError as exc:
            raise OutputError(f"{option} {exc}") from exc
        if is_file and Path(value).is_dir():
            raise OutputError(f"{option} {value}: this is a folder; expected the name of a file")
        return value

    return check


def readable(option: str, *, is_folder: bool = False) -> Callable[[_Target], _Target]:
    """For `callback=`: sees that what an option names is there, before anything that takes time is opened.

    Args:
        option: as it is typed.
        is_folder: whether a folder is expected, instead of a file.
    """
    kind = "folder" if is_folder else "file"

    def check(value: _Target) -> _Target:
        from yolov3_trt.errors import Yolov3TrtError

        if value is None:
            return value
        path = Path(value)
        if not (path.is_dir() if is_folder else path.is_file()):
            found = (
                "this is a file"
                if path.is_file()
                else "this is a folder"
                if path.is_dir()
                else f"there is no such {kind}"
            )
            raise Yolov3TrtError(f"{option} {value}: {found}; expected a {kind}")
        return value

    return check


def writes(metavar: str, help: str, *flags: str, is_folder: bool = False, panel: str = OUTPUT) -> Any:
    """An option that names where results go; that they can be written there is seen before the work is begun.

    Args:
        metavar: what is typed behind it.
        help: its sentence.
        flags: how it is typed.
        is_folder: whether it names a folder, instead of a file.
        panel: of the help.
    """
    seen = writable(flags[0], is_file=not is_folder)
    return typer.Option(*flags, metavar=metavar, help=help, callback=seen, rich_help_panel=panel)


def reads(metavar: str, help: str, *flags: str, is_folder: bool = False, panel: str | None = None) -> Any:
    """An option that names what is read; that it is there is seen before anything that takes time is opened."""
    seen = readable(flags[0], is_folder=is_folder)
    return typer.Option(*flags, metavar=metavar, help=help, callback=seen, rich_help_panel=panel)


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Built-in model (see `models`) or a .cfg file.")]
ArtifactArgument = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="A model, an .onnx, an .engine or triton://HOST:PORT/MODEL.")
]
WeightsOption = Annotated[str | None, typer.Option(help="Darknet .weights; default: beside the .cfg, or in the cache.")]
BackendOption = Annotated[
    BackendChoice, typer.Option(help="What must run it; default: what the artifact is for.", rich_help_panel=BACKEND)
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads of the backend.", rich_help_panel=BACKEND)]
RunPrecisionOption = Annotated[
    RunPrecisionName | None,
    typer.Option(
        "--precision",
        help="With --backend openvino: what it computes in where a graph is not INT8. Default: fp32.",
        rich_help_panel=BACKEND,
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load an engine whoever owns it or can write to it: it is executable content.",
        rich_help_panel=BACKEND,
    ),
]
WaitOption = Annotated[
    Literal["auto", "spin", "sleep"],
    typer.Option(
        help="How to wait for an engine: spin is soonest and takes a core; auto spins for short work that is alone.",
        rich_help_panel=BACKEND,
    ),
]
JsonOption = Annotated[str | None, writes("FILE", "Write the result as JSON; - for stdout.", "--json")]


def check_output_suffix(output: Path | None, *suffixes: str) -> None:
    """Refuse an output that the other verbs would not know for what it is by its name."""
    if output is not None and output.suffix not in suffixes:
        raise typer.BadParameter(
            f"{output}; expected a file name that ends in {' or '.join(suffixes)}", param_hint="-o"
        )
