"""The `data.yaml` of a data set in YOLO text format, as Ultralytics, Roboflow and others write it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolov3_trt.data.description import Description, Wanted, keys_of
from yolov3_trt.data.findings import Findings, data_set_error
from yolov3_trt.data.labels import Labels, label_paths, read_labels, shown, text_lines
from yolov3_trt.data.places import Places, checked_names, pictures_of_entry, read_names, without_repeats

_ENTRIES = "expected a folder of pictures, a .txt list of them, or several"


def describe_yaml(path: Path, wanted: Wanted, findings: Findings) -> Description:
    """Read `train`, `val` (or `valid`), `test`, `names`, and optionally `path`, `nc` and `kpt_shape`; other keys are ignored.

    Raises:
        DataSetError: it is no such file; other faults go to the findings.
    """
    content = _yaml_content(path)
    root = _root(content.get("path"), path, findings)
    class_names = _class_names(content, path, root or path.parent, findings)
    point_values = _point_values(content, path, findings)
    splits: dict[str, tuple[Path, ...]] = {split: () for split in wanted.splits}
    if wanted.check(path, findings) and root is not None:
        for split in wanted.splits:
            splits[split] = _pictures_of_split(content, split, wanted.must(split), path, root, findings)

    def labels(picture: Path, faults: list[str]) -> Labels:
        return read_labels(picture, class_names, path.name, faults, point_values)

    first = splits[wanted.splits[0]]
    expected = str(label_paths(first[0])[0]) if first else ""
    return Description(path, path.parent, class_names, splits, labels, expected=expected)


def _yaml_content(path: Path) -> Mapping[Any, Any]:
    import yaml  # late: few sets are of this form

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


def _class_names(content: Mapping[Any, Any], path: Path, root: Path, findings: Findings) -> tuple[str, ...]:
    """The names in class order; none when they are at fault."""
    names = content.get("names")
    if isinstance(names, str) and names.strip():
        file = Places(path.parent).find(names.strip()) or Places(root).find(names.strip())
        if file is None or not file.is_file():
            findings.faults.append(
                f"{path}: names: {shown(names)} is not there; expected a file of names, or a list of them"
            )
            return ()
        names = list(read_names(file, findings.faults))
        if not names:
            return ()
    if isinstance(names, dict) and names:
        numbered = {
            int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 9 else key: names[key] for key in names
        }
        if set(numbered) == set(range(len(names))):
            names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list) or not names:
        got = "is missing" if names is None else f"is {shown(names)}"
        findings.faults.append(f"{path}: names: {got}; expected a list of class names, or numbers from 0 to names")
        return ()
    checked = checked_names(names, str(path), findings.faults)
    num_classes = content.get("nc")
    if num_classes is not None and (isinstance(num_classes, bool) or num_classes != len(names)):
        findings.faults.append(
            f"{path}: nc: is {shown(num_classes)}; expected {len(names)}, the number of names, or no nc:"
        )
        return ()
    return checked


def _point_values(content: Mapping[Any, Any], path: Path, findings: Findings) -> int:
    """How many numbers follow each box: those of the points of a pose, which `kpt_shape` tells."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not (
        isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and 0 < side < 10_000 for side in shape)
    ):
        findings.faults.append(f"{path}: kpt_shape: is {shown(shape)}; expected two numbers, points and values of each")
        return 0
    findings.notes.append(f"{path}: its labels are poses (kpt_shape: {shape}); their boxes are taken")
    return int(shape[0] * shape[1])


def _pictures_of_split(
    content: Mapping[Any, Any], split: str, must_be: bool, path: Path, root: Path, findings: Findings
) -> tuple[Path, ...]:
    key = next((name for name in keys_of(split) if content.get(name) is not None), split)
    entries = content.get(key)
    if entries is None and not must_be:
        return ()
    entries = entries if isinstance(entries, list) else [entries]
    if not entries or not all(isinstance(entry, str) and entry.strip() for entry in entries):
        got = "is missing" if content.get(key) is None else f"is {shown(content[key])}"
        findings.faults.append(f"{path}: {key}: {got}; {_ENTRIES}")
        return ()
    where, lists = f"{path}: {key}:", (findings.faults, findings.lines)
    pictures = [
        picture for entry in entries for picture in pictures_of_entry(entry, root, where, lists, findings.notes)
    ]
    return without_repeats(pictures, where, findings.notes)


def _root(value: Any, path: Path, findings: Findings) -> Path | None:
    """The folder that `path:` names, or the yaml's own; None when it is at fault."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return path.parent
    if not isinstance(value, str):
        findings.faults.append(
            f"{path}: path: {shown(value)} is no folder; give one from {path.parent}, or no path: for that"
        )
        return None
    root = Places(path.parent).find(value)
    if root is None or not root.is_dir():
        # Written on another machine, e.g. /content/set: the yaml then lies in that folder.
        findings.notes.append(f"{path}: path: {shown(value)} is not there; its names count from {path.parent}")
        return path.parent
    return root
