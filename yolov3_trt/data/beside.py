"""Label files without any description: beside their pictures, or in `labels` for `images` and `JPEGImages`."""

from pathlib import Path

from yolov3_trt.data.description import SPLITS, Description, Wanted, keys_of
from yolov3_trt.data.findings import Findings
from yolov3_trt.data.labels import Labels, label_paths, read_labels
from yolov3_trt.data.places import names_beside, pictures_below, pictures_of_list, without_repeats


def describe_beside(path: Path, wanted: Wanted, findings: Findings) -> Description:
    """A folder of pictures and labels, or a text file with the path of a picture a line.

    Splits are folders called `train`, `valid`, ..., also in `images`. Class names come from `classes.txt` or `obj.names`, or
    are made up.
    """
    root = path if path.is_dir() else path.parent
    has_splits, splits = _pictures(path, wanted, findings)
    first = splits[wanted.splits[0]]
    places = dict.fromkeys([root, *(label_paths(picture)[0].parent for picture in first[:1]), root.parent])
    class_names, names_from = next(
        (found for place in places if (found := names_beside(place, findings.faults))[0]), ((), "")
    )
    named = bool(class_names)
    read: dict[Path, tuple[Labels, list[str]]] = {}
    if not named:
        for picture in (picture for part in splits.values() for picture in part):
            own: list[str] = []
            read[picture] = read_labels(picture, (), "", own), own
        largest = max((class_id for found, _ in read.values() for class_id in found.class_ids), default=-1)
        if largest >= 10_000:
            findings.faults.append(f"{path}: a class {largest}; expected fewer than 10,000 classes")
            largest = -1
        class_names = tuple(f"class{number}" for number in range(largest + 1))
        findings.notes.append(
            f"{path}: nothing names its classes (no classes.txt, no obj.names); called class0, class1, ..."
        )

    def labels(picture: Path, faults: list[str]) -> Labels:
        if picture not in read:
            return read_labels(picture, class_names, names_from, faults)
        found, own = read[picture]
        faults += own
        return found

    expected = str(label_paths(first[0])[0]) if first else ""
    return Description(path, root, class_names, splits, labels, has_splits=has_splits, named=named, expected=expected)


def has_labels_beside(folder: Path) -> bool:
    """Whether some picture in a folder, in one of its splits or in `images`, has a label file where it belongs."""
    nothing: list[str] = []
    for place in (folder, *_split_folders(folder).values()):
        picture = next(iter(pictures_below(place, nothing)), None)
        if picture is not None and any(
            any(part.parent.glob("*.txt")) for part in label_paths(picture) if part.parent.is_dir()
        ):
            pictures = pictures_below(place, nothing)
            if any(label.is_file() for picture in pictures for label in label_paths(picture)):
                return True
    return False


def _split_folders(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split in SPLITS:
        for name in keys_of(split):
            for place in (
                folder / "images" / name,
                folder / name / "images",
                folder / name,
                folder / "JPEGImages" / name,
            ):
                if place.is_dir():
                    found.setdefault(split, place)
    return found


def _pictures(path: Path, wanted: Wanted, findings: Findings) -> tuple[bool, dict[str, tuple[Path, ...]]]:
    splits: dict[str, tuple[Path, ...]] = {split: () for split in wanted.splits}
    folders = _split_folders(path) if path.is_dir() else {}
    if folders:
        if wanted.check(path, findings):
            for split in wanted.splits:
                if split in folders:
                    splits[split] = tuple(sorted(pictures_below(folders[split], findings.faults)))
                if not splits[split] and wanted.must(split):
                    findings.faults.append(
                        f"{path}: no pictures for {split}; expected some in {split}/ or images/{split}/"
                    )
        return True, splits
    if path.is_dir():
        pictures = tuple(sorted(pictures_below(path, findings.faults)))
    else:
        found = pictures_of_list(path, path.parent, findings.lines, findings.notes)
        pictures = without_repeats(found, f"{path}:", findings.notes)
    if not pictures and not findings.faults:
        findings.faults.append(f"{path}: there are no pictures in it; expected some")
    return False, {**splits, wanted.splits[0]: pictures}
