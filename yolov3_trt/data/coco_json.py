"""COCO instances: a JSON of images, categories and annotations, read strictly, and the folder of its images."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from yolov3_trt.arguments import spelled
from yolov3_trt.data.description import SPLITS, Description, Wanted, keys_of
from yolov3_trt.data.findings import Findings, data_set_error
from yolov3_trt.data.images import IMAGE_SUFFIXES
from yolov3_trt.data.labels import Box, Labels, finite, first_few, shown
from yolov3_trt.geometry import HW

_EXPECTED = "expected COCO annotations"
_MOST = 2**53  # ids and sizes
Id = int | str


@dataclass(eq=False)
class _Image:
    id: Id
    file_name: str
    where: str
    labels: Labels


@dataclass
class _Counts:
    """What was mended, by number of annotations."""

    areas: int = 0
    texts: int = 0
    repeated: list[str] = field(default_factory=list)


def describe_coco(path: Path, wanted: Wanted, findings: Findings, images: Path | None = None) -> Description:
    """Read a JSON, or a folder of them, one for each split.

    Args:
        path: a JSON, or a folder: see `split_files`.
        wanted: of a folder.
        findings: get every fault, with the number and the field of what is wrong.
        images: folder that `file_name`s count from; None: looked for beside each JSON, see `images_folder`.

    Raises:
        DataSetError: there is no such file, or it holds no COCO instances.
    """
    if not path.is_dir():
        return _one_file(path, wanted.splits, findings, images)
    files = split_files(path)
    parts: dict[str, Description] = {}
    for split in wanted.splits:
        if split in files:
            parts[split] = _one_file(files[split], (split,), findings, images)
        elif wanted.must(split):
            there = ", ".join(f"{name}: {file.name}" for name, file in files.items()) or "none"
            findings.faults.append(f"{path}: no JSON for {split}; expected one named after it ({there})")
    first = next(iter(parts.values()), None)
    class_names = () if first is None else first.class_names
    for split, part in parts.items():
        if part.class_names != class_names and part.class_names:
            findings.faults.append(
                f"{files[split]}: its categories ({first_few(part.class_names)}) are not those of "
                f"{wanted.splits[0]} ({first_few(class_names)}); expected the same"
            )
    by_picture: dict[Path, Description] = {}
    differing: set[Path] = set()
    for split, part in parts.items():
        for picture in part.pictures[split]:
            if _objects(by_picture.setdefault(picture, part), picture) != _objects(part, picture):
                differing.add(picture)
    if differing:
        findings.faults.append(
            f"{path}: pictures in several parts with other labels in each: {len(differing)} "
            f"({first_few(sorted(differing))}); expected the same, or each picture in one part"
        )

    def labels(picture: Path, faults: list[str]) -> Labels:
        return by_picture[picture].labels(picture, faults)

    return Description(
        path,
        path,
        class_names,
        {split: parts[split].pictures[split] if split in parts else () for split in wanted.splits},
        labels,
        names={picture: part.name_of(picture) for picture, part in by_picture.items()},
        own_ids={picture: (part.own_ids or {}).get(picture) for picture, part in by_picture.items()},
        expected="annotations",
    )


def _objects(part: Description, picture: Path) -> set[tuple[object, ...]]:
    found = part.labels(picture, [])
    return set(zip(found.class_ids, found.boxes, found.crowds, found.areas, strict=True))


def split_files(folder: Path) -> dict[str, Path]:
    """The JSONs of a folder by split: `annotations/instances_val2017.json`, `val.json`, `valid/_annotations.coco.json`."""
    found: dict[str, Path] = {}
    places = [*sorted(folder.glob("annotations/*.json")), *sorted(folder.glob("*.json"))]
    for split in SPLITS:
        for name in keys_of(split):
            inside = [folder / name / "_annotations.coco.json", *sorted((folder / name).glob("*.json"))]
            named = [file for file in places if _word_of(file.stem) == name]
            for file in [*inside[:1], *named, *inside[1:]]:
                if file.is_file() and split not in found:
                    found[split] = file
    return found


def _word_of(stem: str) -> str:
    """`val` of `instances_val2017`."""
    return stem.removeprefix("instances_").rstrip("0123456789").strip("_-").casefold()


def _one_file(path: Path, splits: Sequence[str], findings: Findings, images: Path | None) -> Description:
    content = _content(path)
    counts = _Counts()
    categories = _categories(content["categories"], path, findings)
    by_id = _images(content["images"], path, findings)
    _annotations(content["annotations"], path, (categories, by_id), counts, findings)
    folder = images_folder(path, [image.file_name for image in by_id.values()]) if images is None else images
    pictures = _found_pictures(folder, path, by_id.values(), findings)
    if counts.areas:
        findings.notes.append(f"{path}: annotations without an area: {counts.areas}; that of their boxes is taken")
    if counts.texts:
        findings.notes.append(f"{path}: numbers that are written as texts: {counts.texts}; read as numbers")
    if counts.repeated:
        findings.notes.append(
            f"{path}: annotations that repeat another: {len(counts.repeated)} ({first_few(counts.repeated)}); dropped"
        )

    def labels(picture: Path, faults: list[str]) -> Labels:  # noqa: ARG001 - found already
        return pictures[picture].labels

    return Description(
        path,
        path.parent,
        tuple(name for _, (_, name) in sorted(categories.items(), key=lambda item: item[1][0])),
        {split: tuple(sorted(pictures)) if split == splits[0] else () for split in splits},
        labels,
        has_splits=False,
        names={picture: image.file_name for picture, image in pictures.items()},
        own_ids={picture: image.id for picture, image in pictures.items()},
        expected="annotations",
    )


def _content(path: Path) -> Mapping[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as exc:
        raise data_set_error(path, [f"{path}: cannot be read ({exc.strerror}); {_EXPECTED} (JSON)"]) from exc
    except (ValueError, RecursionError) as exc:
        raise data_set_error(path, [f"{path}: not JSON ({' '.join(str(exc).split())}); {_EXPECTED}"]) from exc
    if isinstance(content, list):
        what = "detections" if content and isinstance(content[0], dict) and "score" in content[0] else "a list"
        raise data_set_error(path, [f"{path}: holds {what} and no images or categories; {_EXPECTED}"])
    if not isinstance(content, dict):
        raise data_set_error(path, [f"{path}: {shown(content)}; {_EXPECTED}"])
    for key in ("categories", "images", "annotations"):
        if key not in content:
            raise data_set_error(path, [f"{path}: {key!r} is missing; {_EXPECTED}"])
        if not isinstance(content[key], list):
            raise data_set_error(
                path, [f"{path}: {key}: {shown(content[key])}; expected a list, as COCO annotations have"]
            )
    if not content["images"]:
        raise data_set_error(path, [f"{path}: there are no images; expected one or more"])
    return content


def _entry(entries: Sequence[Any], number: int, where: str, faults: list[str]) -> Mapping[str, Any] | None:
    entry = entries[number]
    if not isinstance(entry, dict):
        faults.append(f"{where}: {shown(entry)}; expected an object with names and values")
        return None
    return entry


def _categories(entries: Sequence[Any], path: Path, findings: Findings) -> dict[Id, tuple[int, str]]:
    """Id in the file -> class id, by the order of the ids, and name."""
    found: dict[Id, tuple[str, str]] = {}
    names: dict[str, str] = {}
    for number in range(len(entries)):
        where = f"{path}: categories[{number}]"
        entry = _entry(entries, number, where, findings.faults)
        if entry is None:
            continue
        own_id, name = _id(entry, "id", where, findings.faults), entry.get("name")
        if not isinstance(name, str) or not name.strip():
            findings.faults.append(f"{where}.name: {_got(entry, 'name')}; expected text")
        elif name.strip() in names:
            findings.faults.append(f"{where}.name: {shown(name)} is that of {names[name.strip()]} too; rename one")
        elif own_id in found:
            findings.faults.append(f"{where}.id: {shown(own_id)} is that of {found[own_id][1]} too; expected another")
        elif own_id is not None:
            found[own_id] = name.strip(), f"categories[{number}]"
            names[name.strip()] = f"categories[{number}]"
    if not entries:
        findings.faults.append(f"{path}: categories: there are none; expected one or more")
    ordered = sorted(found, key=lambda own_id: (isinstance(own_id, str), own_id))
    return {own_id: (class_id, found[own_id][0]) for class_id, own_id in enumerate(ordered)}


def _images(entries: Sequence[Any], path: Path, findings: Findings) -> dict[Id, _Image]:
    found: dict[Id, _Image] = {}
    for number in range(len(entries)):
        where = f"{path}: images[{number}]"
        entry = _entry(entries, number, where, findings.lines)
        if entry is None:
            continue
        own_id, file_name = _id(entry, "id", where, findings.lines), entry.get("file_name")
        if not isinstance(file_name, str) or not file_name.strip() or "\0" in file_name:
            findings.lines.append(f"{where}.file_name: {_got(entry, 'file_name')}; expected text")
        elif own_id in found:
            findings.lines.append(f"{where}.id: {shown(own_id)} is that of {found[own_id].where} too; expected another")
        elif own_id is not None:
            stated_hw = _stated_hw(entry, where, findings.lines)
            labels = Labels(path, is_relative=False, stated_hw=stated_hw)
            found[own_id] = _Image(own_id, file_name, f"images[{number}]", labels)
    return found


def _stated_hw(entry: Mapping[str, Any], where: str, faults: list[str]) -> HW | None:
    sides = []
    for key in ("height", "width"):
        if entry.get(key) is None:
            return None
        side = _number(entry[key])
        if side is None or not 0 < side < _MOST:
            faults.append(f"{where}.{key}: {_got(entry, key)}; expected px, 1 or more")
            return None
        sides.append(round(side))
    return sides[0], sides[1]


def _annotations(
    entries: Sequence[Any],
    path: Path,
    known: tuple[Mapping[Id, tuple[int, str]], Mapping[Id, _Image]],
    counts: _Counts,
    findings: Findings,
) -> None:
    """Give each image its objects."""
    categories, images = known
    seen: set[tuple[Id, Id, Box, bool]] = set()
    for number in range(len(entries)):
        where = f"{path}: annotations[{number}]"
        faults: list[str] = []
        entry = _entry(entries, number, where, faults)
        if entry is not None:
            image_id = _reference(entry, "image_id", "an image", images, where, faults)
            category_id = _reference(entry, "category_id", "a category", categories, where, faults)
            box, crowd = _box(entry, where, faults), _crowd(entry, where, faults)
            area = _area(entry, where, faults)
            if not faults and image_id is not None and category_id is not None and box is not None:
                texts = [entry["image_id"], entry["category_id"], entry.get("area"), *entry["bbox"]]
                counts.texts += any(isinstance(value, str) and finite(value) is not None for value in texts)
                counts.areas += area is None
                if (image_id, category_id, box, crowd) in seen:
                    counts.repeated.append(f"annotations[{number}]")
                    continue
                seen.add((image_id, category_id, box, crowd))
                labels = images[image_id].labels
                labels.class_ids.append(categories[category_id][0])
                labels.boxes.append(box)
                labels.where.append(where)
                labels.crowds.append(crowd)
                labels.areas.append(area)
        findings.lines += faults


def _id(entry: Mapping[str, Any], key: str, where: str, faults: list[str]) -> Id | None:
    """A whole number, also one that is written as text, or a text that is none."""
    value = entry.get(key)
    if isinstance(value, str) and value.strip() and finite(value) is None and len(value) < 1000:
        return value
    number = _number(value)
    if number is None or not number.is_integer() or abs(number) > _MOST:
        faults.append(f"{where}.{key}: {_got(entry, key)}; expected a whole number")
        return None
    return int(number)


def _reference(
    entry: Mapping[str, Any], key: str, what: str, known: Mapping[Id, Any], where: str, faults: list[str]
) -> Id | None:
    own_id = _id(entry, key, where, faults)
    if own_id is not None and own_id not in known:
        faults.append(f"{where}.{key}: {shown(entry[key])} is no id of {what} of this file")
        return None
    return own_id


def _box(entry: Mapping[str, Any], where: str, faults: list[str]) -> Box | None:
    box = entry.get("bbox")
    values = [_number(value) for value in box] if isinstance(box, list) else []
    x, y, w, h = values if len(values) == 4 else (None, None, None, None)
    if x is None or y is None or w is None or h is None or min(w, h) <= 0 or max(map(abs, (x, y, w, h))) > _MOST:
        faults.append(
            f"{where}.bbox: {_got(entry, 'bbox')}; expected x, y, width and height in px, finite, sides above 0"
        )
        return None
    return x, y, w, h


def _area(entry: Mapping[str, Any], where: str, faults: list[str]) -> float | None:
    """None where it is missing or 0: then that of the box is taken."""
    if entry.get("area") is None:
        return None
    area = _number(entry["area"])
    if area is None or not 0 <= area <= _MOST:
        faults.append(f"{where}.area: {_got(entry, 'area')}; expected px, a finite number of 0 or more")
        return None
    return area or None


def _crowd(entry: Mapping[str, Any], where: str, faults: list[str]) -> bool:
    value = entry.get("iscrowd", 0)
    number = float(value) if isinstance(value, bool) else 0.0 if value is None else _number(value)
    if number not in (0.0, 1.0):
        faults.append(f"{where}.iscrowd: {_got(entry, 'iscrowd')}; expected 0 or 1")
    return number == 1.0


def _number(value: Any) -> float | None:
    """A finite number, also one that is written as text."""
    if isinstance(value, str):
        return finite(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _got(entry: Mapping[str, Any], key: str) -> str:
    return shown(entry[key]) if key in entry else "is missing"


def images_folder(path: Path, file_names: Sequence[str]) -> Path:
    """Where the images of a COCO JSON are: the first usual place that has the first of them, else the JSON's own folder.

    `instances_val2017.json` is looked for at `./`, `images/`, `val2017/`, `val2017/images/`, `images/val2017/`, and the same
    from the folder above, as COCO itself lies on disk.
    """
    part = path.stem.removeprefix("instances_")
    places = (".", "images", part, f"{part}/images", f"images/{part}", "JPEGImages")
    first = file_names[0] if file_names else ""
    for folder in (path.parent, path.parent / ".."):
        for place in places:
            if _inside(folder / place, first) is not None:
                return folder / place
    return path.parent


def _inside(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, unless the name leads out of it."""
    try:
        path = Path(os.path.normpath(folder / name))
        inside = path.is_relative_to(os.path.normpath(folder)) and path.is_file()
    except (OSError, ValueError):
        return None
    return folder / name if inside else None


def _found_pictures(folder: Path, path: Path, images: Any, findings: Findings) -> dict[Path, _Image]:
    """Each picture's file, by its name or, where a tool wrote it otherwise, by the last part of its name."""
    found: dict[Path, _Image] = {}
    missing: list[_Image] = []
    otherwise: list[tuple[str, str]] = []
    beside: dict[str, Path] | None = None
    for image in images:
        picture = _inside(folder, image.file_name)
        if picture is None:
            beside = _by_folded_name(folder) if beside is None else beside
            picture = _by_last_part(image.file_name, beside)
            if picture is not None:
                otherwise.append((image.file_name, picture.name))
        if picture is None:
            missing.append(image)
        elif picture in found:
            findings.lines.append(
                f"{path}: {image.where}.file_name: {shown(image.file_name)} is that of {found[picture].where} too"
            )
        else:
            found[picture] = image
    if missing:
        findings.lines.append(
            f"{folder}: {len(missing)} of the {len(images)} images of {path.name} are not there, e.g. "
            f"{shown(missing[0].file_name)}; give their folder with {spelled('images')}"
        )
    if otherwise:
        name, file = otherwise[0]
        findings.notes.append(
            f"{path}: images found in {folder} by the last part of their names: {len(otherwise)}, e.g. {file} for {shown(name)}"
        )
    return found


def _by_folded_name(folder: Path) -> dict[str, Path]:
    """The pictures of a folder, by name and by stem, without case; names that several have are left out."""
    found: dict[str, Path | None] = {}
    try:
        files = sorted(entry.name for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES)
    except OSError:
        return {}
    for file in files:
        for name in {file.casefold(), Path(file).stem.casefold()}:
            found[name] = None if name in found else folder / file
    return {name: picture for name, picture in found.items() if picture is not None}


def _by_last_part(file_name: str, pictures: Mapping[str, Path]) -> Path | None:
    last = unquote(file_name).replace("\\", "/").rpartition("/")[2].casefold()
    return pictures.get(last)
