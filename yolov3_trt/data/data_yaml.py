"""The `data.yaml` of a data set in YOLO text format: its class names, and which pictures are for training and validation."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolov3_trt.data.images import IMAGE_SUFFIXES
from yolov3_trt.data.labels import first_few, shown, text_lines
from yolov3_trt.errors import DataSetError, require

SPLITS = ("train", "val", "test")


def yaml_content(path: Path) -> Mapping[Any, Any]:
    """The mapping in a yaml file.

    Raises:
        DataSetError: it cannot be read, or holds something else.
        MissingDependency: PyYAML is not installed.
    """
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
        raise data_set_error(path, faults)
    return dict(content)


def class_names_of(content: Mapping[Any, Any], path: Path, faults: list[str]) -> tuple[str, ...]:
    """The names in class order; none when they are at fault, which is added to `faults`."""
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


def splits_of(
    content: Mapping[Any, Any], path: Path, wanted: Sequence[str], faults: list[str], notes: list[str]
) -> dict[str, list[Path]]:
    """The pictures of each wanted split (`train`, `val` or `test`), sorted, each once; adds to `faults` and `notes`.

    The first one must be there; what the others lack is no fault.
    """
    splits: dict[str, list[Path]] = {split: [] for split in wanted}
    root = _root(content.get("path"), path, faults)
    for split in wanted:
        key = "valid" if split == "val" and content.get("val") is None else split
        entries = content.get(key)
        if split not in SPLITS:
            faults.append(f"{path}: there is no split {shown(split)}; expected one of {', '.join(SPLITS)}")
        if root is None or split not in SPLITS or (entries is None and split != wanted[0]):
            continue
        entries = entries if isinstance(entries, list) else [entries]
        if not entries or not all(isinstance(entry, str) and entry.strip() for entry in entries):
            got = "is missing" if content.get(key) is None else f"is {shown(content[key])}"
            key = key if key in content else split
            faults.append(f"{path}: {key}: {got}; expected a folder of pictures, a .txt list of them, or several")
            continue
        pictures = [picture for entry in entries for picture in _pictures(entry, root, f"{path}: {key}:", faults)]
        splits[split] = sorted(set(pictures))
        if repeated := len(pictures) - len(splits[split]):
            notes.append(f"{path}: {key}: pictures named more than once: {repeated}; each counts once")
    if both := sorted(set(splits.get("train", ())) & set(splits.get("val", ()))):
        notes.append(f"{path}: pictures in both train and val: {len(both)} ({first_few(both)}); val then says little")
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


def data_set_error(path: Path, faults: Sequence[str], notes: Sequence[str] = ()) -> DataSetError:
    """All faults of a data set as one error."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return DataSetError(
        f"{path}: {count} in this data set; correct every one and start again", faults=tuple(faults), notes=tuple(notes)
    )
