"""What a text that names pictures stands for, and the set that it gives."""

import glob
from enum import Enum
from pathlib import Path

from yolov3_trt.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_sources
from yolov3_trt.data.pictures import FilePictures, PictureSet, ShapesPictures
from yolov3_trt.errors import CalibrationError, SettingError
from yolov3_trt.settings import DEFAULT_NUM_IMAGES

YAML_SUFFIXES = frozenset({".yaml", ".yml"})
_COCO_SUFFIX = ".json"
_HEAD_BYTES = 4096  # of a file, by which a text is told from a picture


class Source(str, Enum):
    """Where pictures come from."""

    FOLDER = "folder"  # its pictures, not deeper
    LIST = "list"  # a text file, a path a line, relative to the file's own folder
    VIDEO = "video"  # the frames of a file
    SHAPES = "shapes"  # generated: picture 0 to count - 1 of the seed
    FILES = "files"  # a picture, or those that a glob matches
    DATA = "data"  # a split of a YOLO data.yaml, or a COCO JSON


def source_of(text: str) -> Source:
    """What a user names: `shapes` (`./shapes` for a folder of that name), else told by what is there and by its suffix.

    Data sets in more formats (Darknet's obj.data, a VOC folder) are to be told apart here.
    """
    path = Path(text)
    suffix = path.suffix.lower()
    if text == Source.SHAPES.value:
        return Source.SHAPES
    if path.is_dir():
        return Source.DATA if data_file(path) != path else Source.FOLDER
    if suffix in VIDEO_SUFFIXES:
        return Source.FILES if glob.has_magic(text) and not path.exists() else Source.VIDEO
    if suffix in YAML_SUFFIXES or suffix == _COCO_SUFFIX:
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
        split: of a data.yaml; refused with anything else.
        default_split: of a data.yaml where `split` is None.

    Raises:
        CalibrationError, DataSetError, EvaluationError, ImageError: it is not there, or not what it should be.
        SettingError: a split of what has none.
    """
    if source is Source.DATA and path is not None:
        return _pictures_of_data(data_file(path), split, default_split)
    if split is not None:
        raise SettingError("split", f"got {split!r} with {path or source.value}; expected it with a data.yaml only")
    if path is None:
        return ShapesPictures(DEFAULT_NUM_IMAGES, 0)
    if source is Source.FOLDER and not path.is_dir():
        raise CalibrationError(f"{path}: there is no such folder")
    return FilePictures(str(path), _listed(path) if source is Source.LIST else find_sources([str(path)]))


def data_file(path: Path) -> Path:
    """The file that describes a data set: of a folder its data.yaml, where it has one."""
    described = path / "data.yaml"
    return described if described.is_file() else path


def is_coco(path: Path) -> bool:
    """Whether this describes a data set as COCO instances."""
    return path.suffix.lower() == _COCO_SUFFIX


def refuse_split(path: Path, split: str | None) -> None:
    """Refuse a split of COCO instances.

    Raises:
        SettingError: there is one.
    """
    if split is not None:
        raise SettingError("split", f"got {split!r} with {path}, which is one set; leave it out, or give a data.yaml")


def _pictures_of_data(path: Path, split: str | None, default_split: str) -> PictureSet:
    from yolov3_trt.data.coco_set import CocoSet
    from yolov3_trt.data.yolo import pictures_of_split

    if is_coco(path):
        refuse_split(path, split)
        return CocoSet(path)
    return FilePictures(str(path), pictures_of_split(path, split or default_split))


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
    if videos := [listed for listed in paths if listed.suffix.lower() in VIDEO_SUFFIXES]:
        raise CalibrationError(
            f"{path}: {videos[0].name} is a video; expected pictures only (a video is a set of its own)"
        )
    return paths
