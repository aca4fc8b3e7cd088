"""What a text that names pictures stands for, and the set that it gives."""

import glob
from enum import Enum
from pathlib import Path

from yolov3_trt.data.formats import SetFormat, described_in, format_of
from yolov3_trt.data.images import IMAGE_SUFFIXES, find_sources, has_pictures, is_film
from yolov3_trt.data.pictures import FilePictures, PictureSet, ShapesPictures
from yolov3_trt.errors import CalibrationError, SettingError
from yolov3_trt.settings import DEFAULT_NUM_IMAGES

_HEAD_BYTES = 4096  # of a file, by which a text is told from a picture


class Source(str, Enum):
    """Where pictures come from."""

    FOLDER = "folder"  # its pictures, not deeper
    LIST = "list"  # a text file, a path a line, relative to the file's own folder
    VIDEO = "video"  # the frames of a file
    SHAPES = "shapes"  # generated: picture 0 to count - 1 of the seed
    FILES = "files"  # a picture, or those that a glob matches
    DATA = "data"  # a labelled set


def source_of(text: str) -> Source:
    """What a user names: `shapes` (`./shapes` for a folder of that name), else told by what is there and by its suffix.

    Label files beside pictures make no other set of them, nor does a stray JSON: a folder is its own pictures, unless what it
    holds has the usual name of a labelled set's description; a list is what it names.
    """
    path = Path(text)
    suffix = path.suffix.lower()
    if text == Source.SHAPES.value:
        return Source.SHAPES
    if path.is_dir():
        return Source.DATA if _is_described(path) else Source.FOLDER
    if is_film(path):
        return Source.FILES if glob.has_magic(text) and not path.exists() else Source.VIDEO
    if _is_described(path):
        return Source.DATA
    if suffix in IMAGE_SUFFIXES or (glob.has_magic(text) and not path.exists()) or _is_binary(path):
        return Source.FILES
    return Source.LIST


def open_source(
    source: Source, path: Path | None, split: str | None = None, default_split: str = "train"
) -> PictureSet:
    """The pictures of a source; those of `DATA` without their labels.

    Args:
        source: what `path` is.
        path: None for generated pictures.
        split: of a labelled set that has parts; refused with anything else.
        default_split: of a labelled set where `split` is None.

    Raises:
        CalibrationError, DataSetError, EvaluationError, ImageError: it is not there, or not what it should be.
        SettingError: a split of what has none.
    """
    if source is Source.DATA and path is not None:
        from yolov3_trt.data.reading import pictures_of_split

        described, pictures = pictures_of_split(path, split, default_split)
        return FilePictures(str(described), pictures)
    if split is not None:
        raise SettingError("split", f"got {split!r} with {path or source.value}; expected it with a labelled set only")
    if path is None:
        return ShapesPictures(DEFAULT_NUM_IMAGES, 0)
    if source is Source.FOLDER and not path.is_dir():
        raise CalibrationError(f"{path}: there is no such folder")
    return FilePictures(str(path), _listed(path) if source is Source.LIST else find_sources([str(path)]))


def _is_described(path: Path) -> bool:
    """Whether this is a labelled set: what something describes, or a folder that has its pictures in parts."""
    if path.is_dir():
        return described_in(path, usual_only=has_pictures(path)) is not None
    found = format_of(path)
    return found is not None and found[0] is not SetFormat.BESIDE


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _listed(path: Path) -> tuple[Path, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a text"
        raise CalibrationError(
            f"{path}: cannot be read ({reason}); expected a folder, a video, a data.yaml, or a text file with a path a line"
        ) from exc
    paths = tuple(path.parent / line.strip() for line in lines if line.strip())
    if videos := [listed for listed in paths if is_film(listed)]:
        raise CalibrationError(
            f"{path}: {videos[0].name} is a video; expected pictures only (a video is a set of its own)"
        )
    return paths
