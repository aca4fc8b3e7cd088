"""Labelled sets written in another format: YOLO's, Darknet's, VOC's or COCO's, with all that the format can hold."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from yolov3_trt.data.darknet_data import darknet_key
from yolov3_trt.data.labelled import LabelledFile, LabelledSet, instances
from yolov3_trt.errors import OutputError, SettingError
from yolov3_trt.files import Written, make_folder, write_text

FORMATS = ("yolo", "darknet", "voc", "coco")
Progress = Callable[[Iterable[LabelledFile]], Iterable[LabelledFile]]


@dataclass(frozen=True, repr=False)
class Converted(Written):
    """What was written.

    Attributes:
        path: what describes the new set; give it as `data`.
        pictures: how many, by split.
        notes: what the format could not hold, one line each.
    """

    path: Path
    pictures: Mapping[str, int]
    notes: tuple[str, ...]


def convert_set(
    splits: Mapping[str, LabelledSet],
    format_: str,
    folder: Path,
    *,
    link: bool = False,
    progress: Progress = iter,
) -> Converted:
    """Write the splits of one set, pictures included.

    Args:
        splits: by name, e.g. `train` and `val`.
        format_: one of FORMATS.
        folder: empty, or not there yet.
        link: whether pictures are linked to instead of copied.
        progress: wraps the iteration over the pictures.

    Raises:
        SettingError: another format, or a folder that holds something.
        OutputError: it cannot be written.
    """
    if format_ not in FORMATS:
        raise SettingError("to", f"got {format_!r}; expected one of {', '.join(FORMATS)}")
    if folder.is_dir() and any(folder.iterdir()):
        raise SettingError("output", f"got {folder}, which holds something; expected an empty folder, or a new one")
    new = _placed(splits, format_, make_folder(folder))
    places = {id(file): place for place, file in new}
    try:
        for file in progress([file for _, file in new]):
            _put(file.path, folder / places[id(file)], link)
        write = {"yolo": _yolo, "darknet": _darknet, "voc": _voc, "coco": _coco}[format_]
        path = write(splits, places, folder)
    except OSError as exc:
        raise OutputError(f"{folder}: cannot write here ({exc.strerror or exc}); give a writable folder") from exc
    return Converted(path, {split: len(one) for split, one in splits.items()}, tuple(_notes(splits, format_)))


_Places = Mapping[int, Path]  # id of a file of a split -> its picture from the folder


def _placed(splits: Mapping[str, LabelledSet], format_: str, folder: Path) -> list[tuple[Path, LabelledFile]]:
    """Where each picture goes; names that several have get more of their path, or their split."""
    names = [{file.path.stem for file in one.files} for one in splits.values()]
    are_shared = sum(map(len, names)) > len(
        set().union(*names)
    )  # then all are told apart alike, so that the order stays
    found, taken = list[tuple[Path, LabelledFile]](), set[str]()
    for split, one in splits.items():
        where = {"yolo": f"images/{split}", "darknet": f"obj/{split}", "voc": "JPEGImages", "coco": f"images/{split}"}[
            format_
        ]
        own = Counter(file.path.name for file in one.files)
        for file in one.files:
            name = file.path.name
            if own[name] > 1:
                name = file.name.strip("/").replace("/", "-").replace("\\", "-").replace("..", "")
            if are_shared and format_ == "voc":
                name = f"{split}-{name}"
            place = Path(where, name)
            if str(place.with_suffix("")) in taken:
                raise SettingError("data", f"{folder}: two pictures would be called {place}; rename one of them")
            taken.add(str(place.with_suffix("")))
            found.append((place, file))
    return found


def _put(picture: Path, place: Path, link: bool) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if link:
        place.symlink_to(os.path.abspath(picture))
    else:
        shutil.copyfile(picture, place)


def _relative_lines(file: LabelledFile) -> str:
    height, width = file.image_hw
    lines = []
    for class_id, (x, y, w, h), counts in zip(file.class_ids, file.xywh.tolist(), file.counts, strict=True):
        if counts:
            values = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
            lines.append(" ".join([str(class_id), *(f"{value:.12g}" for value in values)]) + "\n")
    return "".join(lines)


def _names(splits: Mapping[str, LabelledSet]) -> tuple[str, ...]:
    return next(iter(splits.values())).class_names


def _yolo(splits: Mapping[str, LabelledSet], places: _Places, folder: Path) -> Path:
    for split, one in splits.items():
        make_folder(folder / "labels" / split)
        for file in one.files:
            (folder / "labels" / split / places[id(file)].with_suffix(".txt").name).write_text(_relative_lines(file))
    # As it is: YAML does not join the two escapes that JSON has for an emoji.
    names = "".join(
        f"  {class_id}: {json.dumps(name, ensure_ascii=False)}\n" for class_id, name in enumerate(_names(splits))
    )
    path = folder / "data.yaml"
    write_text(path, "".join(f"{split}: images/{split}\n" for split in splits) + f"names:\n{names}")
    return path


def _darknet(splits: Mapping[str, LabelledSet], places: _Places, folder: Path) -> Path:
    lines = [f"classes = {len(_names(splits))}\n"]
    for split, one in splits.items():
        key = darknet_key(split)
        for file in one.files:
            (folder / places[id(file)]).with_suffix(".txt").write_text(_relative_lines(file))
        write_text(folder / f"{key}.txt", "".join(f"{places[id(file)].as_posix()}\n" for file in one.files))
        lines.append(f"{key} = {key}.txt\n")
    write_text(folder / "obj.names", "".join(f"{name}\n" for name in _names(splits)))
    path = folder / "obj.data"
    write_text(path, "".join([*lines, "names = obj.names\nbackup = backup/\n"]))
    return path


def _voc(splits: Mapping[str, LabelledSet], places: _Places, folder: Path) -> Path:
    """Pixels counted from 1 where all boxes are whole pixels, else edges counted from 0, with points."""
    files = [file for one in splits.values() for file in one.files]
    whole = all((file.xywh == np.round(file.xywh)).all() for file in files)
    for part in ("Annotations", "ImageSets/Main"):
        make_folder(folder / part)
    for split, one in splits.items():
        for file in one.files:
            place = places[id(file)]
            xml = _voc_xml(file, place.name, one.class_names, whole)
            (folder / "Annotations" / place.with_suffix(".xml").name).write_text(xml, encoding="utf-8")
        stems = "".join(f"{places[id(file)].stem}\n" for file in one.files)
        write_text(folder / "ImageSets" / "Main" / f"{split}.txt", stems)
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in _names(splits)))  # labelmap.txt cuts at a colon
    return folder


def _voc_xml(file: LabelledFile, name: str, class_names: tuple[str, ...], whole: bool) -> str:
    height, width = file.image_hw
    objects = []
    for class_id, (x, y, w, h), counts in zip(file.class_ids, file.xywh.tolist(), file.counts, strict=True):
        corners = (x, y, round(x + w, 6), round(y + h, 6))
        texts = map(str, (int(x) + 1, int(y) + 1, int(x + w), int(y + h)) if whole else corners)
        box = "".join(
            f"<{key}>{text}</{key}>" for key, text in zip(("xmin", "ymin", "xmax", "ymax"), texts, strict=True)
        )
        objects.append(
            f"  <object><name>{escape(class_names[class_id])}</name><difficult>{int(not counts)}</difficult>"
            f"<bndbox>{box}</bndbox></object>\n"
        )
    return (
        f"<annotation>\n  <filename>{escape(name)}</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n{''.join(objects)}</annotation>\n"
    )


def _coco(splits: Mapping[str, LabelledSet], places: _Places, folder: Path) -> Path:
    make_folder(folder / "annotations")
    for split, one in splits.items():
        content = instances(one.files, one.class_names)
        for image, file in zip(content["images"], one.files, strict=True):
            image.pop("own_id", None)
            image["file_name"] = places[id(file)].name
        write_text(folder / "annotations" / f"instances_{split}.json", json.dumps(content))
    return folder


def _notes(splits: Mapping[str, LabelledSet], format_: str) -> Iterable[str]:
    files = [file for one in splits.values() for file in one.files]
    crowds = sum(int(np.count_nonzero(~file.counts)) for file in files)
    if crowds and format_ in ("yolo", "darknet"):
        yield f"{crowds} crowds (or difficult objects) are left out: the format has none"
    if crowds and format_ == "voc":
        yield f"{crowds} crowds are written as difficult objects"
    if format_ != "coco" and any(file.areas is not None for file in files):
        yield "areas other than those of the boxes are left out: the format has none"
