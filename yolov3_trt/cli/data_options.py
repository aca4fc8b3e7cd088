"""How verbs are told of pictures with labels: `--data SET --split NAME`, or `--images DIR --annotations FILE`."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from yolov3_trt.cli.options import reads
from yolov3_trt.cli.output import reporter, say, track

if TYPE_CHECKING:
    from yolov3_trt.data.labelled import LabelledSet
    from yolov3_trt.data.pictures import PictureSet

_Item = TypeVar("_Item")


def there(path: Path | None) -> Path | None:
    """For `callback=` of `--data`: refuse at once what is not there."""
    from yolov3_trt.errors import Yolov3TrtError

    if path is not None and not path.exists():
        raise Yolov3TrtError(
            f"--data {path}: there is no such file or folder; expected a labelled set, e.g. a data.yaml or a COCO JSON"
        )
    return path


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="SET",
        callback=there,
        help="Labelled pictures: a YOLO data.yaml, a Darknet .data file, a COCO JSON, a VOC folder, or a folder with one.",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which part of a set: train, val or test; default: val.")
]
CocoImagesOption = Annotated[
    Path | None,
    reads("DIR", "Folder of the images of a COCO JSON; default: looked for beside it.", "--images", is_folder=True),
]
AnnotationsOption = Annotated[
    Path | None,
    reads("FILE", "COCO instances (JSON); the same as --data.", "--annotations"),
]
SkipFaultyOption = Annotated[
    bool,
    typer.Option(
        "--skip-faulty", help="Go on without faulty labels and pictures; they are listed in SET-faulty.txt here."
    ),
]


def sets_from_options(
    images: Path | Sequence[str] | None,
    data: Path | None,
    split: str | None,
    annotations: Path | None,
    images_option: str = "--images",
    *,
    skip_faulty: bool = False,
) -> "tuple[PictureSet | None, LabelledSet | None]":
    """What `sets_from` makes of these options; faults, notes and what was skipped are told."""
    from yolov3_trt.errors import SettingError
    from yolov3_trt.jobs.opening import sets_from

    try:
        with faults_told():
            pictures, labelled = sets_from(
                images or None, data, split, annotations, reporter(), skip_faulty=skip_faulty
            )
    except SettingError as exc:
        option = images_option if exc.setting == "images" else f"--{exc.setting}"
        raise typer.BadParameter(exc.problem, param_hint=option) from None
    if labelled is not None:
        list_skipped(labelled.path, labelled.skipped)
    return pictures, labelled


@contextmanager
def faults_told() -> Iterator[None]:
    """The faults and notes of a data set that is refused go to stderr, a line each."""
    from yolov3_trt.data.findings import shortened
    from yolov3_trt.errors import DataSetError

    try:
        yield
    except DataSetError as exc:
        tell_notes(exc.notes)
        for fault in shortened(exc.faults) if len(exc.faults) > 1 else ():  # one alone is what the error says
            say(fault)
        raise


def list_skipped(path: Path, skipped: Sequence[str]) -> None:
    """Write what was left out of a set into a file in the working directory, and say so."""
    from yolov3_trt.files import write_text

    if skipped:
        listed = Path(f"{path.stem}-faulty.txt")
        write_text(listed, "".join(f"{line}\n" for line in skipped))
        say(f"note: what was left out is listed in {listed}")


def tell_notes(notes: Sequence[str]) -> None:
    """What is odd about a data set but allowed."""
    for note in notes:
        say(f"note: {note}")


def checking(pictures: Iterable[_Item]) -> Iterable[_Item]:
    """A bar over pictures that are checked."""
    return track(pictures, "checking pictures", len(pictures) if isinstance(pictures, Sized) else None)
