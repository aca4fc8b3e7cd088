"""Labelled sets read and checked: every fault is told at once, with its file and line, before any work starts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from yolov3_trt.data.box_kinds import kind_faults
from yolov3_trt.data.description import SPLITS, Description, Wanted
from yolov3_trt.data.findings import Findings
from yolov3_trt.data.formats import describe
from yolov3_trt.data.labelled import DataSet, LabelledFile, LabelledSet
from yolov3_trt.data.labels import Labels, boxes_in_picture, first_few
from yolov3_trt.data.picture_size import PictureSize, Progress, sizes_of
from yolov3_trt.errors import SettingError

_ANY_HW = (1000, 1000)  # for what is wrong with labels whatever the size of their picture
_NAMED = 10  # empty label files; more of them are only counted


def load_set(
    path: Path,
    split: str | None = None,
    *,
    images: Path | None = None,
    skip_faulty: bool = False,
    progress: Progress = iter,
    default_split: str = "val",
) -> LabelledSet:
    """Read one split of a set with its labels; see `data.labelled_set`.

    Raises:
        DataSetError: there are faults, e.g. there is no such split; it holds all of them.
        SettingError: see `formats.describe`.
    """
    findings = Findings(skip_faulty)
    wanted = Wanted((split or default_split,), split is not None)
    description = describe(Path(os.path.abspath(path)), wanted, findings, images)
    (files,) = _read(description, wanted, findings, progress, decode=False)
    return LabelledSet(
        description.path,
        files,
        description.class_names,
        notes=[*findings.notes, *_left_out(findings)],
        skipped=findings.skipped,
        has_splits=description.has_splits,
        named=description.named,
    )


def load_data_set(
    path: Path, progress: Progress = iter, *, split: str | None = None, skip_faulty: bool = False
) -> DataSet:
    """Read a set to train on, every label file and every picture, which are all decoded once.

    Args:
        path: of what describes it.
        progress: wraps the iteration over its pictures.
        split: the part to validate on; None: `val`, where there is one.
        skip_faulty: go on without what is faulty.

    Raises:
        DataSetError: there are faults; it holds all of them.
        SettingError: see `formats.describe`.
    """
    findings = Findings(skip_faulty)
    wanted = Wanted(("train", split or "val"))
    description = describe(Path(os.path.abspath(path)), wanted, findings)
    parts = _read(description, wanted, findings, progress, decode=True)
    train, val = (
        LabelledSet(description.path, files, description.class_names, skipped=findings.skipped, named=description.named)
        for files in parts
    )
    if split is not None and not val.files:
        raise SettingError("split", f"got {split!r}, of which {description.path} has no pictures")
    return DataSet(description.path, train, val, (*findings.notes, *_left_out(findings)))


def load_splits(
    path: Path, progress: Progress = iter, *, decode: bool = False
) -> tuple[dict[str, LabelledSet], Findings]:
    """All parts that a set has, without what is faulty, and what was found to be wrong; a set of one part is its `train`.

    Raises:
        DataSetError: there are faults of the set as a whole, or no part has a picture.
        SettingError: see `formats.describe`.
    """
    findings = Findings(skip_faulty=True)
    wanted = Wanted(SPLITS, may_lack=True)
    description = describe(Path(os.path.abspath(path)), wanted, findings)
    parts = _read(description, wanted, findings, progress, decode=decode)
    if not any(parts):
        findings.faults.append(f"{description.path}: no pictures in {', '.join(SPLITS)}; expected some in one of them")
        findings.skip_faulty = False  # where pictures are faulty, that is why none is left
        findings.refuse(description.path)
    return {
        split: LabelledSet(description.path, files, description.class_names, named=description.named)
        for split, files in zip(SPLITS, parts, strict=True)
        if files
    }, findings


def pictures_of_split(path: Path, split: str | None, default_split: str = "train") -> tuple[Path, tuple[Path, ...]]:
    """What describes a set, and the pictures of one split, sorted; labels are not asked for.

    Raises:
        DataSetError: there are faults in what it says of that split.
        SettingError: see `formats.describe`.
    """
    findings = Findings()
    wanted = Wanted((split or default_split,), split is not None)
    description = describe(Path(os.path.abspath(path)), wanted, findings)
    findings.refuse(description.path)
    return description.path, description.pictures[wanted.splits[0]]


def _read(
    description: Description, wanted: Wanted, findings: Findings, progress: Progress, *, decode: bool
) -> list[tuple[LabelledFile, ...]]:
    """The files of each wanted split."""
    path, splits = description.path, description.pictures
    pictures = sorted({picture for split in splits.values() for picture in split})
    own_faults: dict[Path, list[str]] = {picture: [] for picture in pictures}
    labels = {picture: description.labels(picture, own_faults[picture]) for picture in pictures}
    unreadable: list[str] = []
    sizes = sizes_of(pictures, unreadable, progress, decode=decode)
    turned = [picture for picture, size in sizes.items() if size.is_turned]
    sizes_hw = {picture: size.image_hw for picture, size in sizes.items()}
    if kinds := kind_faults(path, labels, sizes_hw):
        findings.faults += kinds
        findings.refuse(path)
    findings.lines += (fault for faults in own_faults.values() for fault in faults)
    differing = _differing_sizes(path, labels, sizes, findings)
    first = splits[wanted.splits[0]]
    is_faulty = findings.are_there() or unreadable
    if (
        first
        and wanted.must(wanted.splits[0])
        and not is_faulty
        and not any(labels[picture].class_ids for picture in first)
    ):
        expected = f"; expected e.g. {description.expected}" if description.expected else ""
        findings.faults.append(f"{path}: {wanted.splits[0]}: none of its pictures ({len(first)}) has a label{expected}")
    files, clipped = dict[Path, LabelledFile](), 0
    for picture in pictures:
        if picture in sizes_hw and picture not in differing:
            files[picture], count = _labelled(description, picture, sizes_hw[picture], labels[picture], findings.lines)
            clipped += count
        elif picture not in sizes_hw and labels[picture].is_relative:
            boxes_in_picture(labels[picture], _ANY_HW, findings.lines)
    findings.lines += unreadable
    findings.notes += _notes(labels, turned, clipped)
    findings.refuse(path)
    found = [tuple(files[picture] for picture in splits[split] if picture in files) for split in wanted.splits]
    if not found[0] and wanted.must(wanted.splits[0]):
        findings.faults.append(f"{path}: {wanted.splits[0]}: no picture is left; expected one or more without faults")
        findings.refuse(path)
    return found


def _left_out(findings: Findings) -> list[str]:
    """A note of what is skipped as faulty, if anything."""
    return [f"left out as faulty: {len(findings.skipped)}"] if findings.skipped else []


def _labelled(
    description: Description, picture: Path, image_hw: tuple[int, int], labels: Labels, faults: list[str]
) -> tuple[LabelledFile, int]:
    xywh, good, clipped = boxes_in_picture(labels, image_hw, faults)
    areas = None
    if any(area is not None for area in labels.areas):
        kept = [area for area, is_good in zip(labels.areas, good, strict=True) if is_good]
        boxes = (xywh[:, 2] * xywh[:, 3]).tolist()
        areas = np.array([box if area is None else area for area, box in zip(kept, boxes, strict=True)], np.float64)
    return LabelledFile(
        picture,
        image_hw,
        xywh,
        np.array(labels.class_ids, np.int32)[good],
        np.array(labels.crowds, bool)[good] if any(labels.crowds) else np.zeros(0, bool),
        areas,
        description.name_of(picture),
        (description.own_ids or {}).get(picture),
    ), clipped


def _differing_sizes(
    path: Path, labels: Mapping[Path, Labels], sizes: Mapping[Path, PictureSize], findings: Findings
) -> set[Path]:
    """Pictures of another size than their labels were made for: a fault."""
    found = {picture for picture, size in sizes.items() if labels[picture].stated_hw not in (None, size.image_hw)}
    if found:
        example = min(found)
        (height, width), stated = sizes[example].image_hw, labels[example].stated_hw
        turned = sum(sizes[picture].is_turned for picture in found)
        why = "resized after they were labelled" if not turned else f"{turned} are turned by their EXIF orientation"
        assert stated is not None
        text = (
            f"{path}: {len(found)} pictures are not of the size that their annotations say, e.g. {example.name} is "
            f"{width}x{height} px and was labelled at {stated[1]}x{stated[0]}: {why}; expected the pictures that were labelled"
        )
        findings.lines.append(text)
    return found


def _notes(labels: Mapping[Path, Labels], turned: Sequence[Path], clipped: int) -> Iterator[str]:
    """What is odd about labels."""
    without = [picture for picture, found in labels.items() if found.path is None]
    empty = [
        found.path for found in labels.values() if found.path is not None and found.is_relative and not _lines(found)
    ]
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
    if turned:
        yield f"pictures that EXIF turns upright: {len(turned)} ({first_few(turned)}); labels are taken for them upright"
    if clipped:
        yield f"boxes that stick out of their pictures by rounding: {clipped}; clipped"


def _lines(labels: Labels) -> int:
    return len(labels.class_ids) + len(labels.outside)
