"""What describes a data set, whatever its format: its classes, its pictures, and what is said of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov3_trt.data.findings import Findings
from yolov3_trt.data.labels import Labels, first_few, shown

SPLITS = ("train", "val", "test")
OTHER_NAMES = {"val": ("val", "valid", "validation"), "train": ("train", "training"), "test": ("test", "testing")}


def keys_of(split: str) -> tuple[str, ...]:
    """What a split is called: `val` is Roboflow's and Darknet's `valid` too."""
    return OTHER_NAMES.get(split, (split,))


@dataclass(frozen=True, eq=False)
class Description:
    """One data set, or the parts of it that are wanted.

    Attributes:
        path: of the file or folder that describes it.
        root: file names count from here.
        class_names: in class order; none where they are at fault.
        pictures: of each wanted split, sorted; of a set that has no splits all are in the first.
        labels: of a picture; adds faults to the list it gets.
        has_splits: whether it is made of parts.
        named: whether something names its classes.
        names: of pictures that are called otherwise than by their path from the root.
        own_ids: of pictures in a COCO JSON.
        expected: e.g. where the labels of the first picture were looked for.
    """

    path: Path
    root: Path
    class_names: tuple[str, ...]
    pictures: Mapping[str, tuple[Path, ...]]
    labels: Callable[[Path, list[str]], Labels]
    has_splits: bool = True
    named: bool = True
    names: Mapping[Path, str] | None = None
    own_ids: Mapping[Path, Any] | None = None
    expected: str = ""

    def name_of(self, picture: Path) -> str:
        """From the root where it is inside of it."""
        if self.names is not None and picture in self.names:
            return self.names[picture]
        return (picture.relative_to(self.root) if picture.is_relative_to(self.root) else picture).as_posix()


@dataclass(frozen=True)
class Wanted:
    """Which parts of a set."""

    splits: tuple[str, ...]
    is_asked: bool = False  # by name; else a set without splits is as good
    may_lack: bool = False  # even the first, which else must be there

    def must(self, split: str) -> bool:
        """Whether it is a fault where there is no such part."""
        return not self.may_lack and split == self.splits[0]

    def check(self, path: Path, findings: Findings) -> bool:
        """Whether these are names of splits."""
        for split in self.splits:
            if split not in SPLITS:
                findings.faults.append(f"{path}: there is no split {shown(split)}; expected one of {', '.join(SPLITS)}")
        return all(split in SPLITS for split in self.splits)


def note_on_both(path: Path, splits: Mapping[str, Sequence[Path]], notes: list[str]) -> None:
    """A note on pictures that are both trained and validated on."""
    if both := sorted(set(splits.get("train", ())) & set(splits.get("val", ()))):
        notes.append(f"{path}: pictures in both train and val: {len(both)} ({first_few(both)}); val then says little")
