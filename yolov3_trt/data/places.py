"""Where what a data set names lies: folders, lists of pictures, and the pictures themselves."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from yolov3_trt.data.images import IMAGE_SUFFIXES
from yolov3_trt.data.labels import shown, text_lines

_OWN = "its own folder"
_LEVELS_UP = 3


class Places:
    """Folders that a name may count from, in the order in which they are looked at."""

    def __init__(self, root: Path, list_file: Path | None = None) -> None:
        """For a set whose names count from `root`: its parents and the working directory come after it.

        Args:
            root: absolute.
            list_file: a list of pictures; its own folder comes first.
        """
        self._folders: dict[Path, str] = {} if list_file is None else {list_file.parent: _OWN}
        self._folders.setdefault(root, "the set's folder")
        self._folders.setdefault(Path.cwd(), "the working directory")
        for folder in root.parents[:_LEVELS_UP]:
            self._folders.setdefault(folder, "a folder above the set's")
        self._used: Counter[Path] = Counter()

    def find(self, name: str) -> Path | None:
        """What `name` is in the first folder that has it; also with other slashes, and without ../ at its start."""
        # Roboflow writes ../train/images for a folder beside the yaml.
        for wanted in dict.fromkeys((name, name.replace("\\", "/"), name.removeprefix("../"))):
            for folder in self._folders:
                found = Path(os.path.abspath(folder / wanted))
                if os.path.exists(found):  # unlike Path.exists, False for any text at all
                    if not os.path.isabs(wanted):
                        self._used[folder] += 1
                    return found
        return None

    def note(self, what: Path) -> Iterator[str]:
        """Which folders names counted from, but for the usual one."""
        for folder, count in self._used.items():
            if self._folders[folder] != _OWN:
                names = "1 name counts" if count == 1 else f"{count} names count"
                yield f"{what}: {names} from {folder}, {self._folders[folder]}"


def pictures_below(folder: Path, faults: list[str]) -> Iterator[Path]:
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


def pictures_of_list(path: Path, root: Path, faults: list[str], notes: list[str]) -> list[Path]:
    """The pictures that a text file names, a path a line."""
    places, pictures = Places(root, path), []
    for number, line in enumerate(text_lines(path, "expected a list of pictures", faults), start=1):
        if not (name := line.strip()):
            continue
        picture = places.find(name)
        if picture is None or picture.is_dir():
            faults.append(
                f"{path}:{number}: {shown(name)} is not there; expected a picture, from this list's folder, the set's, one "
                "above that, or the working directory"
            )
        else:
            pictures.append(picture)
    notes += places.note(path)
    return pictures


def pictures_of_entry(
    entry: str, root: Path, where: str, faults: tuple[list[str], list[str]], notes: list[str]
) -> list[Path]:
    """The pictures of one folder or list that a description names.

    Args:
        entry: as it is written.
        root: that it counts from first.
        where: the file and key that name it, for texts.
        faults: of the description, and of single pictures.
        notes: get from where the names of a list count.
    """
    found = Places(root).find(entry)
    if found is None:
        faults[0].append(f"{where} {shown(entry)} is not there; expected a folder or .txt list in {root}")
        return []
    told = len(faults[1])
    if found.is_dir():
        pictures = sorted(pictures_below(found, faults[0]))
    elif found.suffix.lower() in IMAGE_SUFFIXES:
        pictures = [found]
    elif found.suffix.lower() in (".txt", ".list", ""):
        pictures = pictures_of_list(found, root, faults[1], notes)
    else:
        faults[0].append(f"{where} {found} is neither a folder nor a .txt list of pictures")
        return []
    if not pictures and len(faults[1]) == told:
        faults[0].append(f"{where} no pictures in {found}; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return pictures


def without_repeats(pictures: Sequence[Path], where: str, notes: list[str]) -> tuple[Path, ...]:
    """Sorted, each once."""
    found = sorted(set(pictures))
    if repeated := len(pictures) - len(found):
        notes.append(f"{where} pictures named more than once: {repeated}; each counts once")
    return tuple(found)


def names_beside(folder: Path, faults: list[str]) -> tuple[tuple[str, ...], str]:
    """The class names that a file in a folder gives, and that file's name; none where there is no such file."""
    usual = [folder / name for name in ("classes.txt", "obj.names", "labels.txt", "labelmap.txt")]
    found = [path for path in usual if path.is_file()] or sorted(folder.glob("*.names"))
    if len(found) == 0 or (found[0] not in usual and len(found) > 1):
        return (), ""
    return read_names(found[0], faults), found[0].name


def read_names(path: Path, faults: list[str]) -> tuple[str, ...]:
    """Class names, one a line; of CVAT's `labelmap.txt` what stands before the colours."""
    lines = [line.strip() for line in text_lines(path, "expected class names, one a line", faults)]
    if path.name == "labelmap.txt":
        lines = [line.split(":")[0].strip() for line in lines if not line.startswith("#")]
        lines = [line for line in lines if line != "background"]
    return checked_names([line for line in lines if line], str(path), faults)


def checked_names(names: Sequence[object], where: str, faults: list[str]) -> tuple[str, ...]:
    """Class names as they are, or none and faults."""
    own_faults = []
    known: dict[str, int] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            # YAML reads no, on and 3.10 as other things than text.
            own_faults.append(f"{where}: names: class {number} is {shown(name)}; expected text, put it in quotes")
        elif name in known:
            own_faults.append(
                f"{where}: names: classes {known[name]} and {number} are both {shown(name)}; rename one of them"
            )
        else:
            known[name] = number
    faults += own_faults
    return () if own_faults else tuple(str(name) for name in names)
