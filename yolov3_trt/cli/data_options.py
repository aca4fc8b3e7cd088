"""How verbs are told of pictures with labels: `--data SET --split NAME`, or `--images DIR --annotations FILE`."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from yolov3_trt.cli.options import readable
from yolov3_trt.cli.output import say, track

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
    typer.Option(
        "--images",
        metavar="DIR",
        help="Folder of the images of a COCO JSON; default: looked for beside it.",
        callback=readable("--images", is_folder=True),
    ),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="COCO instances (JSON); the same as --data.", callback=readable("--annotations")),
]
SkipFaultyOption = Annotated[
    bool,
    typer.Option(
        "--skip-faulty", help="Go on without faulty labels and pictures; they are listed in SET-faulty.txt here."
    ),
]


def labelled_from_options(
    data: Path | None,
    split: str | None,
    images: Path | None,
    annotations: Path | None,
    images_option: str = "--images",
    *,
    skip_faulty: bool = False,
) -> "LabelledSet | None":
    """The labelled pictures that these options name; None where they name none. Faults and notes are told."""
    from yolov3_trt.data import labelled_set
    from yolov3_trt.errors import SettingError

    if data is not None and annotations is not None:
        raise typer.BadParameter("goes not with --annotations; give one of them", param_hint="--data")
    if data is None and annotations is None:
        if split is not None:
            raise typer.BadParameter("goes with --data", param_hint="--split")
        return None
    if annotations is not None and images is None:
        raise typer.BadParameter(f"wants {images_option} with the folder of its images", param_hint="--annotations")
    try:
        with faults_told():
            found = labelled_set(
                data or annotations or "", split=split, images=images, skip_faulty=skip_faulty, progress=checking
            )
    except SettingError as exc:
        raise typer.BadParameter(
            exc.problem, param_hint=images_option if exc.setting == "images" else f"--{exc.setting}"
        ) from None
    tell_notes(found.notes)
    list_skipped(found.path, found.skipped)
    return found


def pictures_from_options(
    images: Sequence[str] | None,
    data: Path | None,
    split: str | None,
    annotations: Path | None,
    *,
    skip_faulty: bool = False,
) -> "tuple[PictureSet | None, LabelledSet | None]":
    """The pictures that these options name, and the labelled ones; None where they name none.

    Without `--images` the labelled ones are the pictures; with a COCO JSON `--images` is the folder of its images.
    """
    from yolov3_trt.data import picture_set

    folder = None
    if images and (data is not None or annotations is not None):
        option = "--annotations" if annotations is not None else "--data"
        if len(images) != 1 or not Path(images[0]).is_dir():
            raise typer.BadParameter(f"{option} wants --images once, the folder of its images", param_hint="--images")
        folder = Path(images[0])
    labelled = labelled_from_options(data, split, folder, annotations, skip_faulty=skip_faulty)
    return (picture_set(images) if images else labelled), labelled


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
        say(f"note: left out as faulty: {len(skipped)}, listed in {listed}")


def tell_notes(notes: Sequence[str]) -> None:
    """What is odd about a data set but allowed."""
    for note in notes:
        say(f"note: {note}")


def checking(pictures: Iterable[_Item]) -> Iterable[_Item]:
    """A bar over pictures that are checked."""
    return track(pictures, "checking pictures", len(pictures) if isinstance(pictures, Sized) else None)
