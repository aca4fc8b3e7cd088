"""Darknet's `obj.data`: `classes`, `train`, `valid` and `names`; CVAT's "YOLO 1.1" writes it too."""

from pathlib import Path

from yolov3_trt.data.description import Description, Wanted, keys_of
from yolov3_trt.data.findings import Findings
from yolov3_trt.data.labels import Labels, label_paths, read_labels, shown, text_lines
from yolov3_trt.data.places import Places, pictures_of_entry, read_names, without_repeats


def darknet_key(split: str) -> str:
    """What Darknet itself calls a split."""
    return "valid" if split == "val" else split


def describe_darknet(path: Path, wanted: Wanted, findings: Findings) -> Description:
    """Its lists count from the folder that Darknet is run in: looked for in the file's folder and those above it."""
    values: dict[str, str] = {}
    for number, line in enumerate(
        text_lines(path, "expected classes=, train=, valid= and names=", findings.faults), start=1
    ):
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            findings.faults.append(f"{path}:{number}: {shown(text)}; expected key = value, e.g. train = data/train.txt")
        else:
            values.setdefault(key, value)
    class_names = _class_names(values, path, findings)
    splits: dict[str, tuple[Path, ...]] = {split: () for split in wanted.splits}
    if wanted.check(path, findings):
        for split in wanted.splits:
            named = next((name for name in keys_of(split) if values.get(name)), None)
            if named is not None:
                where, lists = f"{path}: {named}=", (findings.faults, findings.lines)
                pictures = pictures_of_entry(values[named], path.parent, where, lists, findings.notes)
                splits[split] = without_repeats(pictures, where, findings.notes)
            elif wanted.must(split) and not findings.faults:
                findings.faults.append(f"{path}: {darknet_key(split)}= is missing; expected a list of pictures")

    def labels(picture: Path, faults: list[str]) -> Labels:
        return read_labels(picture, class_names, path.name, faults)

    first = splits[wanted.splits[0]]
    expected = str(label_paths(first[0])[0]) if first else ""
    return Description(path, path.parent, class_names, splits, labels, expected=expected)


def _class_names(values: dict[str, str], path: Path, findings: Findings) -> tuple[str, ...]:
    named = values.get("names")
    if not named:
        findings.faults.append(f"{path}: names= is missing; expected a file with a class name a line")
        return ()
    file = Places(path.parent).find(named)
    if file is None or not file.is_file():
        findings.faults.append(f"{path}: names= {shown(named)} is not there; expected a file with a class name a line")
        return ()
    names = read_names(file, findings.faults)
    count = values.get("classes")
    if names and count is not None and count != str(len(names)):
        findings.faults.append(
            f"{path}: classes= {shown(count)}; expected {len(names)}, the number of names in {file.name}"
        )
    return names
