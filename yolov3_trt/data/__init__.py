"""Sets of pictures, and what is in them: one way to name them for every verb, every job and every function.

`picture_set` makes a set of what a user names, `labelled_set` one with labels, whatever their format: YOLO's data.yaml,
Darknet's obj.data, COCO's JSON, VOC's XMLs, labels beside pictures.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolov3_trt.data.calibration_set import ChosenPictures
    from yolov3_trt.data.labelled import LabelledSet
    from yolov3_trt.data.pictures import PictureSet

MANIFEST_SUFFIX = ".toml"


def picture_set(
    images: "str | os.PathLike[str] | PictureSet | Sequence[str | os.PathLike[str]]",
    *,
    split: str | None = None,
    default_split: str = "train",
) -> "PictureSet":
    """The pictures that a user names, to be read one at a time and as often as needed.

    Args:
        images: a picture, a folder (its own pictures, not those deeper), a glob, a video, a text file with a path a line, a
            labelled set (see `labelled_set`), a manifest of calibration pictures (`.toml`), `shapes` for 64
            generated ones; several of these in a sequence; or a set, which is returned as it is.
        split: `train`, `val` or `test`, of a labelled set that has parts; refused with anything else.
        default_split: of a labelled set where `split` is None.

    Raises:
        Yolov3TrtError: there are no such pictures, or they cannot be read.

    >>> len(picture_set("shapes"))
    64
    """
    from yolov3_trt.data.calibration_set import open_set
    from yolov3_trt.data.manifest import load_set
    from yolov3_trt.data.pictures import JoinedPictures, PictureSet
    from yolov3_trt.data.sources import Source, open_source, source_of
    from yolov3_trt.errors import ImageError

    if isinstance(images, PictureSet):
        return images
    if not isinstance(images, str | os.PathLike):
        sets = [picture_set(one, split=split, default_split=default_split) for one in images]
        if not sets:
            raise ImageError("no pictures given; expected files, folders or globs")
        return sets[0] if len(sets) == 1 else JoinedPictures(sets)
    text = os.fspath(images)
    if text.endswith(MANIFEST_SUFFIX):
        return open_set(load_set(Path(text)))
    source = source_of(text)
    return open_source(source, None if source is Source.SHAPES else Path(text), split, default_split)


def labelled_set(
    data: "str | os.PathLike[str] | LabelledSet",
    *,
    split: str | None = None,
    default_split: str = "val",
    images: str | os.PathLike[str] | None = None,
    skip_faulty: bool = False,
    progress: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> "LabelledSet":
    """Pictures with labels that a user names, read and checked.

    Args:
        data: a YOLO data.yaml, a Darknet .data file, a COCO JSON, a VOC folder, a folder or list of pictures with labels beside
            them, a folder with one of these, or a set, which is returned as it is.
        split: `train`, `val` or `test`, of a set that has parts.
        default_split: where `split` is None.
        images: folder of the images of a COCO JSON; None: looked for beside it, see `coco_json.images_folder`.
        skip_faulty: whether faulty labels and pictures are left out, and listed in `skipped`, instead of refused.
        progress: wraps the iteration over the pictures, whose sizes are read.

    Raises:
        DataSetError: there are faults; it holds all of them.
        SettingError: there is no such set, a split of a set that has none, or a folder of images with another format.

    >>> truth = labelled_set("data.yaml", split="val").truth_for(detector.meta.class_names)  # doctest: +SKIP
    """
    from yolov3_trt.arguments import path
    from yolov3_trt.data.labelled import LabelledSet
    from yolov3_trt.data.reading import load_set

    if isinstance(data, LabelledSet):
        return data
    folder = None if images is None else path("images", images)
    return load_set(
        path("data", data),
        split,
        images=folder,
        skip_faulty=skip_faulty,
        progress=progress,
        default_split=default_split,
    )


def calibration_pictures(
    images: "str | os.PathLike[str] | PictureSet",
    num_images: int | None = None,
    seed: int | None = None,
    *,
    split: str | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> "ChosenPictures":
    """Pictures to calibrate on, chosen by a seed, with the hashes that a calibration table keeps.

    Args:
        images: see `picture_set`; a manifest says `num_images` and `seed` itself.
        num_images: how many are chosen; None: 64.
        seed: of the choice; None: 0.
        split: of a labelled set; None: `train`.
        progress: wraps the iteration over pictures that have to be read.

    Raises:
        CalibrationError: there are fewer pictures, or others than a manifest says.
        Yolov3TrtError: see `picture_set`.
    """
    from yolov3_trt.data.calibration_set import CalibrationSet, choose_from, open_set
    from yolov3_trt.data.manifest import load_set
    from yolov3_trt.data.pictures import PictureSet
    from yolov3_trt.settings import DEFAULT_NUM_IMAGES

    count, seed = num_images or DEFAULT_NUM_IMAGES, seed or 0
    if isinstance(images, PictureSet):
        return choose_from(images, count, seed, progress)
    text = os.fspath(images)
    if text.endswith(MANIFEST_SUFFIX):
        return open_set(load_set(Path(text)), progress)
    return open_set(CalibrationSet.of(text, count, seed, split), progress)
