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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.coco import TruePicture, coco_instances
from yolov3_trt.errors import DataSetError, ImageError, require
from yolov3_trt.geometry import HW, FloatArray, cxcywh_to_xyxy
from yolov3_trt.images import IMAGE_SUFFIXES, load_image
from yolov3_trt.training.labels import Labels, label_paths, read_labels, shown, text_lines

_CHECKING_THREADS = 2
_NAMED = 10  # empty label files; more of them are only counted


@dataclass(frozen=True, eq=False)
class LabelledFile:
    """A picture and the objects in it."""

    path: Path  # of the picture
    image_hw: HW  # image px, upright
    cxcywh: FloatArray  # (N, 4) relative to the picture, 0..1
    class_ids: NDArray[np.int32]  # (N,)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set, read and checked; the files of each split are sorted by path."""

    path: Path  # of the data.yaml
    class_names: tuple[str, ...]
    train: tuple[LabelledFile, ...]
    val: tuple[LabelledFile, ...]  # empty where the yaml names none
    notes: tuple[str, ...]  # what is odd but allowed, one line each

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over class names, file names and labels: another one is another data set.

        File names count from the yaml's folder, so a data set may move; those outside of it count in full.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        folder = self.path.absolute().parent
        for split, files in (("train", self.train), ("val", self.val)):
            for file in files:
                inside = file.path.is_relative_to(folder)
                name = file.path.relative_to(folder) if inside else file.path
                digest.update(json.dumps([split, name.as_posix(), len(file.class_ids)]).encode())
                digest.update(file.class_ids.astype("<i4").tobytes() + file.cxcywh.astype("<f4").tobytes())
        return digest.hexdigest()


def load_data_set(path: Path, progress: Callable[[Iterable[Path]], Iterable[Path]] = iter) -> DataSet:
    """Read a `data.yaml`, every label file and every picture that it names.

    Args:
        path: the yaml: `train`, `val` or `valid`, `names`, and optionally `path` and `nc`; other keys are ignored.
        progress: wraps the iteration over the pictures, which are all decoded once.

    Raises:
        DataSetError: there are faults; it holds all of them.
    """
    path = Path(os.path.abspath(path))
    content = _yaml_content(path)
    faults: list[str] = []
    notes: list[str] = []
    class_names = _class_names(content, path, faults)
    splits = _splits(content, path, faults, notes)
    pictures = sorted({picture for split in splits.values() for picture in split})
    labels = {picture: read_labels(picture, class_names, path.name) for picture in pictures}
    faults += (fault for found in labels.values() for fault in found.faults)
    if splits["train"] and not faults and not any(labels[picture].class_ids for picture in splits["train"]):
        expected = label_paths(splits["train"][0])[0]
        faults.append(
            f"{path}: train: none of its pictures ({len(splits['train'])}) has a label; expected e.g. {expected}"
        )
    sizes_hw = _sizes_hw(pictures, progress, faults)
    notes += _notes(labels)
    if faults:
        raise _error(path, faults, notes)
    files = {picture: _labelled(picture, sizes_hw[picture], labels[picture]) for picture in pictures}
    train, val = (tuple(files[picture] for picture in splits[split]) for split in ("train", "val"))
    return DataSet(path, class_names, train, val, tuple(notes))


def annotations_of(files: Sequence[LabelledFile], class_names: Sequence[str]) -> dict[str, Any]:
    """The labels of pictures as COCO instances, for `evaluate.Annotations`; absolute paths are the file names."""
    return coco_instances((_true_picture(file) for file in files), class_names)


def _labelled(picture: Path, image_hw: HW, labels: Labels) -> LabelledFile:
    cxcywh = np.array(labels.cxcywh, np.float32).reshape(-1, 4)
    return LabelledFile(picture, image_hw, cxcywh, np.array(labels.class_ids, np.int32))


def _true_picture(file: LabelledFile) -> TruePicture:
    height, width = file.image_hw
    xyxy = cxcywh_to_xyxy(file.cxcywh) * np.array((width, height, width, height), np.float32)
    return TruePicture(str(file.path.absolute()), file.image_hw, xyxy, file.class_ids)


# --- the yaml ---


def _yaml_content(path: Path) -> Mapping[Any, Any]:
    yaml = require("yaml", extra="train")
    faults: list[str] = []
    lines = text_lines(path, "expected a data.yaml", faults)
    content: Any = None
    try:
        content = yaml.safe_load("\n".join(lines))
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        at = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(exc, "problem", None) or str(exc).partition("\n")[0]
        faults.append(f"{path}{at}: not YAML ({problem}); expected a data.yaml")
    # PyYAML lets these out: a date that is none, a `!!bool` that is none, thousands of brackets.
    except (ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as exc:
        faults.append(f"{path}: not YAML ({exc}); expected a data.yaml")
    if not faults and not isinstance(content, dict):
        faults.append(f"{path}: {shown(content)} is not a mapping; expected a data.yaml with train:, val: and names:")
    if faults:
        raise _error(path, faults)
    return dict(content)


def _class_names(content: Mapping[Any, Any], path: Path, faults: list[str]) -> tuple[str, ...]:
    """The names in class order; none when they are at fault."""
    names = content.get("names")
    if isinstance(names, dict) and names and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        got = "is missing" if names is None else f"is {shown(names)}"
        faults.append(f"{path}: names: {got}; expected a list of class names, or numbers from 0 to names")
        return ()
    own_faults = []
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            # YAML reads no, on and 3.10 as other things than text.
            own_faults.append(f"{path}: names: class {number} is {shown(name)}; expected text, put it in quotes")
        elif (first := names.index(name)) < number:
            own_faults.append(f"{path}: names: classes {first} and {number} are both {shown(name)}; rename one of them")
    num_classes = content.get("nc")
    if num_classes is not None and (isinstance(num_classes, bool) or num_classes != len(names)):
        own_faults.append(f"{path}: nc: is {shown(num_classes)}; expected {len(names)}, the number of names, or no nc:")
    faults += own_faults
    return () if own_faults else tuple(names)


def _splits(content: Mapping[Any, Any], path: Path, faults: list[str], notes: list[str]) -> dict[str, list[Path]]:
    """The pictures of `train` and `val`, sorted, each once."""
    splits: dict[str, list[Path]] = {"train": [], "val": []}
    root = _root(content.get("path"), path, faults)
    val_key = "val" if content.get("val") is not None else "valid"
    for split, key in (("train", "train"), ("val", val_key)):
        entries = content.get(key)
        if root is None or (entries is None and split == "val"):
            continue
        entries = entries if isinstance(entries, list) else [entries]
        if not entries or not all(isinstance(entry, str) and entry.strip() for entry in entries):
            got = "is missing" if content.get(key) is None else f"is {shown(content[key])}"
            faults.append(f"{path}: {key}: {got}; expected a folder of pictures, a .txt list of them, or several")
            continue
        pictures = [picture for entry in entries for picture in _pictures(entry, root, f"{path}: {key}:", faults)]
        splits[split] = sorted(set(pictures))
        if repeated := len(pictures) - len(splits[split]):
            notes.append(f"{path}: {key}: pictures named more than once: {repeated}; each counts once")
    if both := sorted(set(splits["train"]) & set(splits["val"])):
        notes.append(f"{path}: pictures in both train and val: {len(both)} ({_first(both)}); val then says little")
    return splits


def _root(value: Any, path: Path, faults: list[str]) -> Path | None:
    """The folder that `path:` names, or the yaml's own; None when it is at fault."""
    if value is None:
        return path.parent
    root = _existing(value, path.parent) if isinstance(value, str) else None
    if root is None or not root.is_dir():
        faults.append(
            f"{path}: path: {shown(value)} is no folder; give one from {path.parent}, or no path: for that itself"
        )
        return None
    return root


def _existing(name: str, *folders: Path) -> Path | None:
    """What `name` is in the first folder that has it; where it starts with ../ and is not there, without that."""
    # Roboflow writes ../train/images for a folder beside the yaml.
    for wanted in (name, name.removeprefix("../")):
        for folder in folders:
            found = Path(os.path.abspath(folder / wanted))
            if os.path.exists(found):  # unlike Path.exists, False for any text at all
                return found
    return None


def _pictures(entry: str, root: Path, where: str, faults: list[str]) -> list[Path]:
    """The pictures of one folder or list."""
    found = _existing(entry, root)
    if found is None:
        faults.append(f"{where} {shown(entry)} is not there; expected a folder or .txt list in {root}")
        return []
    if found.is_dir():
        pictures = sorted(_pictures_below(found, faults))
    elif found.suffix.lower() == ".txt":
        pictures = _pictures_of_list(found, root, faults)
    else:
        faults.append(f"{where} {found} is neither a folder nor a .txt list of pictures")
        return []
    if not pictures:
        faults.append(f"{where} no pictures in {found}; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return pictures


def _pictures_below(folder: Path, faults: list[str]) -> Iterator[Path]:
    """The pictures in a folder and below, through links too, without hidden ones (`._a.jpg`, `.ipynb_checkpoints`)."""
    seen: set[str] = set()

    def refuse(exc: OSError) -> None:
        faults.append(f"{exc.filename}: cannot be read ({exc.strerror})")

    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        is_known = real in seen  # a link upwards
        seen.add(real)
        folders[:] = [] if is_known else sorted(name for name in folders if not name.startswith("."))
        for name in () if is_known else names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(here, name)


def _pictures_of_list(path: Path, root: Path, faults: list[str]) -> list[Path]:
    pictures = []
    for number, line in enumerate(text_lines(path, "expected a list of pictures", faults), start=1):
        if not (name := line.strip()):
            continue
        picture = _existing(name, path.parent, root)
        if picture is None or picture.is_dir():
            faults.append(
                f"{path}:{number}: {shown(name)} is not there; expected a picture, from the folder of this list"
            )
        else:
            pictures.append(picture)
    return pictures


# --- files and texts ---


def _error(path: Path, faults: Sequence[str], notes: Sequence[str] = ()) -> DataSetError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return DataSetError(
        f"{path}: {count} in this data set; correct every one and start again", faults=tuple(faults), notes=tuple(notes)
    )


def _sizes_hw(
    pictures: Sequence[Path], progress: Callable[[Iterable[Path]], Iterable[Path]], faults: list[str]
) -> dict[Path, HW]:
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
        yield f"pictures without a label file: {len(without)} ({_first(without)}); they count as background"
    for path in empty[:_NAMED]:
        yield f"{path}:1: is empty; its picture counts as background"
    if len(empty) > _NAMED:
        yield f"label files that are empty like these: {len(empty)} in all"
    if polygons:
        yield f"polygons: {len(polygons)} ({_first(polygons)}); their bounding boxes are taken"
    if repeated:
        yield f"lines that repeat another of their file: {len(repeated)} ({_first(repeated)}); dropped"


def _first(names: Sequence[object]) -> str:
    """The first few of many."""
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
