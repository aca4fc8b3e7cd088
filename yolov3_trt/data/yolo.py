"""Data sets in YOLO text format: a `data.yaml`, folders or lists of pictures, and one label file per picture.

A line of a label file is `class cx cy w h`, relative to the picture, or `class x1 y1 x2 y2 ...`, a polygon, of which the
bounding box is taken. Everything is checked before any training starts, and every fault is told at once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from yolov3_trt.data.annotations import Annotations, annotations_for
from yolov3_trt.data.coco import coco_instances
from yolov3_trt.data.data_yaml import class_names_of, data_set_error, splits_of, yaml_content
from yolov3_trt.data.images import load_image
from yolov3_trt.data.labelled import LabelledFile, LabelledSet
from yolov3_trt.data.labels import Labels, first_few, label_paths, read_labels
from yolov3_trt.errors import ImageError
from yolov3_trt.geometry import HW

Progress = Callable[[Iterable[Path]], Iterable[Path]]

_CHECKING_THREADS = 2
_NAMED = 10  # empty label files; more of them are only counted


class YoloSet(LabelledSet):
    """One split of a data set in YOLO text format."""

    def __init__(
        self, path: Path, files: Sequence[LabelledFile], class_names: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        super().__init__(str(path), path, [file.path for file in files], class_names, notes)
        self.files = tuple(files)

    def truth_for(self, class_names: Sequence[str]) -> Annotations:
        """See `LabelledSet`; file names count from the yaml's folder where they are inside of it."""
        folder = self.path.absolute().parent
        content = coco_instances(
            (file.in_pixels(_name_from(folder, file.path)) for file in self.files), self.class_names
        )
        paths = {image_id: file.path for image_id, file in enumerate(self.files, start=1)}
        return annotations_for(self.path, content, class_names, paths, own_ids=False)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set, read and checked; the files of each split are sorted by path."""

    path: Path  # of the data.yaml
    class_names: tuple[str, ...]
    train: tuple[LabelledFile, ...]
    val: tuple[LabelledFile, ...]  # empty where the yaml names none
    notes: tuple[str, ...]  # what is odd but allowed, one line each

    @property
    def validation(self) -> YoloSet:
        """The pictures of `val` as a set of their own."""
        return YoloSet(self.path, self.val, self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over class names, file names and labels: another one is another data set.

        File names count from the yaml's folder, so a data set may move; those outside of it count in full.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        folder = self.path.absolute().parent
        for split, files in (("train", self.train), ("val", self.val)):
            for file in files:
                name = _name_from(folder, file.path)
                digest.update(json.dumps([split, name, len(file.class_ids)]).encode())
                digest.update(file.class_ids.astype("<i4").tobytes() + file.cxcywh.astype("<f4").tobytes())
        return digest.hexdigest()


def load_data_set(path: Path, progress: Progress = iter) -> DataSet:
    """Read a `data.yaml`, every label file and every picture that it names for training and validation.

    Args:
        path: the yaml: `train`, `val` or `valid`, `names`, and optionally `path` and `nc`; other keys are ignored.
        progress: wraps the iteration over the pictures, which are all decoded once.

    Raises:
        DataSetError: there are faults; it holds all of them.
    """
    path = Path(os.path.abspath(path))
    class_names, splits, notes = _read(path, ("train", "val"), progress)
    return DataSet(path, class_names, splits["train"], splits["val"], notes)


def load_split(path: Path, split: str, progress: Progress = iter) -> YoloSet:
    """Read one split of a `data.yaml` (`train`, `val` or `test`) with its labels; see `load_data_set`.

    Raises:
        DataSetError: there are faults, e.g. there is no such split; it holds all of them.
    """
    path = Path(os.path.abspath(path))
    class_names, splits, notes = _read(path, (split,), progress)
    return YoloSet(path, splits[split], class_names, notes)


def pictures_of_split(path: Path, split: str) -> tuple[Path, ...]:
    """The pictures of one split of a `data.yaml`, sorted; labels are not looked at.

    Raises:
        DataSetError: there are faults in what it says of that split.
    """
    path = Path(os.path.abspath(path))
    faults: list[str] = []
    splits = splits_of(yaml_content(path), path, (split,), faults, [])
    if faults:
        raise data_set_error(path, faults)
    return tuple(splits[split])


def _read(
    path: Path, wanted: tuple[str, ...], progress: Progress
) -> tuple[tuple[str, ...], dict[str, tuple[LabelledFile, ...]], tuple[str, ...]]:
    """Class names, the files of each split, and notes."""
    content = yaml_content(path)
    faults: list[str] = []
    notes: list[str] = []
    class_names = class_names_of(content, path, faults)
    splits = splits_of(content, path, wanted, faults, notes)
    pictures = sorted({picture for split in splits.values() for picture in split})
    labels = {picture: read_labels(picture, class_names, path.name) for picture in pictures}
    faults += (fault for found in labels.values() for fault in found.faults)
    first = splits[wanted[0]]
    if first and not faults and not any(labels[picture].class_ids for picture in first):
        expected = label_paths(first[0])[0]
        faults.append(f"{path}: {wanted[0]}: none of its pictures ({len(first)}) has a label; expected e.g. {expected}")
    sizes_hw = _sizes_hw(pictures, progress, faults)
    notes += _notes(labels)
    if faults:
        raise data_set_error(path, faults, notes)
    files = {picture: _labelled(picture, sizes_hw[picture], labels[picture]) for picture in pictures}
    found = {split: tuple(files[picture] for picture in splits[split]) for split in wanted}
    return class_names, found, tuple(notes)


def _name_from(folder: Path, picture: Path) -> str:
    return (picture.relative_to(folder) if picture.is_relative_to(folder) else picture).as_posix()


def _labelled(picture: Path, image_hw: HW, labels: Labels) -> LabelledFile:
    cxcywh = np.array(labels.cxcywh, np.float32).reshape(-1, 4)
    return LabelledFile(picture, image_hw, cxcywh, np.array(labels.class_ids, np.int32))


def _sizes_hw(pictures: Sequence[Path], progress: Progress, faults: list[str]) -> dict[Path, HW]:
    """Decode every picture; those that cannot be are faults."""
    sizes_hw: dict[Path, HW] = {}
    pool = ThreadPoolExecutor(_CHECKING_THREADS)
    try:
        outcomes = pool.map(_size_or_fault, pictures)
        for picture in progress(pictures):
            outcome = next(outcomes)
            if isinstance(outcome, str):
                faults.append(outcome)
            else:
                sizes_hw[picture] = outcome
    finally:
        pool.shutdown(cancel_futures=True)  # when interrupted, not after all the rest
    return sizes_hw


def _size_or_fault(picture: Path) -> HW | str:
    try:
        height, width, _ = load_image(picture).shape
    except ImageError as exc:
        return str(exc)
    return height, width


def _notes(labels: Mapping[Path, Labels]) -> Iterator[str]:
    """What is odd about labels."""
    without = [picture for picture, found in labels.items() if found.path is None]
    empty = [found.path for found in labels.values() if found.path is not None and not found.class_ids]
    polygons = [line for found in labels.values() for line in found.polygons]
    repeated = [line for found in labels.values() for line in found.repeated]
    if without:
        yield f"pictures without a label file: {len(without)} ({first_few(without)}); they count as background"
    for path in empty[:_NAMED]:
        yield f"{path}:1: is empty; its picture counts as background"
    if len(empty) > _NAMED:
        yield f"label files that are empty like these: {len(empty)} in all"
    if polygons:
        yield f"polygons: {len(polygons)} ({first_few(polygons)}); their bounding boxes are taken"
    if repeated:
        yield f"lines that repeat another of their file: {len(repeated)} ({first_few(repeated)}); dropped"
