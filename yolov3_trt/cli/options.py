"""Options that several verbs share, and how their texts become values.

Choices whose enums live beside NumPy code, which `--help` must not import, are spelt out here; a test holds the two together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from yolov3_trt.settings import DetectSettings
from yolov3_trt.sizes import Resize

if TYPE_CHECKING:
    from yolov3_trt.detector import Detector
    from yolov3_trt.geometry import HW
    from yolov3_trt.models import Model

_Target = TypeVar("_Target", bound=str | Path | None)
BackendChoice = Literal["auto", "torch", "onnxruntime", "tensorrt", "triton", "opencv"]
NmsChoice = Literal["cfg", "plain"]
BoxLossName = Literal["ciou", "coordinates"]
DeviceName = Literal["auto", "cpu", "cuda"]

OUTPUT = "Output"  # a panel of `--help`


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


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Built-in model (see `models`) or a .cfg file.")]
ArtifactArgument = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="A model, an .onnx, an .engine or triton://HOST:PORT/MODEL.")
]
WeightsOption = Annotated[str | None, typer.Option(help="Darknet .weights; default: beside the .cfg, or in the cache.")]
NamesOption = Annotated[str | None, typer.Option(help="Class names: a file with one a line, `coco` or `voc`.")]
InputSizeOption = Annotated[
    str | None, typer.Option(metavar="N|WIDTHxHEIGHT", help="Input size in px; default: the model's.")
]
BackendOption = Annotated[BackendChoice, typer.Option(help="What must run it; default: what the artifact is for.")]
ConfOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Confidence threshold; default: the artifact's (0.25).")
]
IouOption = Annotated[float | None, typer.Option(min=0, max=1, help="NMS threshold; default: the artifact's (0.45).")]
MaxDetectionsOption = Annotated[int | None, typer.Option(min=1, help="Detections per image at most; default: 300.")]
NmsOption = Annotated[NmsChoice, typer.Option(help="`cfg`: similarity of boxes as the cfg's nms_kind; `plain`: IoU.")]
ResizeOption = Annotated[
    Resize | None, typer.Option(help="How images are fitted; default: the artifact's (letterbox).")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads of the backend.")]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Load an engine whoever owns it or can write to it: it is executable content.")
]
JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write the result as JSON; - for stdout.",
        callback=writable("--json", is_file=True),
        rich_help_panel=OUTPUT,
    ),
]


def parse_input_hw(text: str | None) -> "HW | None":
    """`416` or `608x416` (width x height) -> (height, width)."""
    if text is None:
        return None
    from yolov3_trt.arguments import size

    return size("input_size", text)


def check_output_suffix(output: Path | None, *suffixes: str) -> None:
    """Refuse an output that the other verbs would not know for what it is by its name."""
    if output is not None and output.suffix not in suffixes:
        raise typer.BadParameter(
            f"{output}; expected a file name that ends in {' or '.join(suffixes)}", param_hint="-o"
        )


@dataclass(frozen=True)
class ModelOptions:
    """What only a model can be told; an exported artifact carries its own."""

    weights: str | None = None
    names: str | None = None
    input_size: str | None = None

    def load(self, name_or_cfg: str) -> "Model":
        """The model of that name, with these options."""
        from yolov3_trt.models import load_model

        return load_model(name_or_cfg, self.weights, self.names, parse_input_hw(self.input_size))

    def for_models_only(self, artifact: str) -> "ModelOptions":
        """These options for a model, none for an exported artifact: for verbs that take several of both."""
        from yolov3_trt.models import is_model

        return self if is_model(artifact) else ModelOptions()


def open_for_verb(
    artifact: str,
    model: ModelOptions,
    detect: DetectSettings | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
    trust: bool = False,
) -> "Detector":
    """The detector that a verb's options describe."""
    from yolov3_trt.detector import open_detector

    return open_detector(
        artifact,
        weights=model.weights,
        names=model.names,
        input_size=parse_input_hw(model.input_size),
        backend=backend,
        threads=threads,
        trust=trust,
        detect=detect,
    )
