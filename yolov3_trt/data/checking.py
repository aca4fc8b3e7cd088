"""All about a labelled set: what is in it, what is wrong with it, and what is odd about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.picture_size import Progress
from yolov3_trt.data.reading import load_splits
from yolov3_trt.files import sha256_of_file

TINY = 8.0  # px of the shorter side: less than a cell of the finest head, in a picture that is not made smaller


@dataclass(frozen=True)
class SplitFigures:
    """What one part of a set holds."""

    pictures: int
    objects: int
    without_objects: int  # pictures
    crowds: int
    tiny: int  # objects with a side below TINY
    sizes_wh: tuple[tuple[tuple[int, int], int], ...]  # width, height and how many pictures, the most frequent first
    objects_by_class: tuple[int, ...]
    sides_px: tuple[float, float, float]  # of the objects, square root of the area: 5 %, median, 95 %


@dataclass(frozen=True, eq=False)
class CheckedSet:
    """What `check_set` found.

    Attributes:
        path: of what describes the set.
        class_names: in class order.
        splits: by name.
        faults: single labels and pictures that are wrong, one line each.
        notes: what is odd but allowed.
        leaks: pairs of pictures of different parts whose files are the same, byte for byte.
        duplicates: the same within one part.
        sets: the parts themselves, without what is faulty.
    """

    path: Path
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitFigures]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    leaks: tuple[tuple[Path, Path], ...]
    duplicates: tuple[tuple[Path, Path], ...]
    sets: Mapping[str, LabelledSet]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong and no picture is in two parts."""
        return not self.faults and not self.leaks

    def to_json(self) -> dict[str, Any]:
        """As `data check --json` writes it."""
        return {
            "path": str(self.path),
            "class_names": list(self.class_names),
            "splits": {name: vars(figures) for name, figures in self.splits.items()},
            "faults": list(self.faults),
            "notes": list(self.notes),
            "leaks": [[str(path) for path in pair] for pair in self.leaks],
            "duplicates": [[str(path) for path in pair] for pair in self.duplicates],
        }


def check_set(path: Path, progress: Progress = iter) -> CheckedSet:
    """Read all parts of a set and decode every picture.

    Raises:
        DataSetError: the set as a whole is wrong, e.g. its description or the kind of its boxes, or holds no picture.
        SettingError: there is no such set.
    """
    sets, findings = load_splits(path, progress, decode=True)
    first = next(iter(sets.values()))
    leaks, duplicates = _same_files(sets)
    return CheckedSet(
        first.path,
        first.class_names,
        {name: _figures(one) for name, one in sets.items()},
        findings.skipped,
        tuple(findings.notes),
        leaks,
        duplicates,
        sets,
    )


def _figures(one: LabelledSet) -> SplitFigures:
    sides = np.concatenate([file.xywh[file.counts, 2:] for file in one.files] or [np.zeros((0, 2))])
    sizes = Counter((file.image_hw[1], file.image_hw[0]) for file in one.files)
    roots = np.sqrt(sides.prod(axis=1)) if len(sides) else np.zeros(1)
    low, middle, high = (float(value) for value in np.quantile(roots, (0.05, 0.5, 0.95)))
    return SplitFigures(
        pictures=len(one.files),
        objects=len(sides),
        without_objects=sum(not file.counts.any() for file in one.files),
        crowds=sum(int(np.count_nonzero(~file.counts)) for file in one.files),
        tiny=int(np.count_nonzero(sides.min(axis=1) < TINY)) if len(sides) else 0,
        sizes_wh=tuple(sizes.most_common()),
        objects_by_class=one.objects,
        sides_px=(round(low, 1), round(middle, 1), round(high, 1)),
    )


_Pairs = tuple[tuple[Path, Path], ...]


def _same_files(sets: Mapping[str, LabelledSet]) -> tuple[_Pairs, _Pairs]:
    """Pairs of the same content: of different parts, and of one."""
    by_size: dict[int, list[tuple[str, Path]]] = {}
    for split, one in sets.items():
        for file in one.files:
            by_size.setdefault(file.path.stat().st_size, []).append((split, file.path))
    leaks, duplicates = list[tuple[Path, Path]](), list[tuple[Path, Path]]()
    for alike in by_size.values():
        first: dict[str, tuple[str, Path]] = {}
        for split, path in alike if len(alike) > 1 else ():
            other = first.setdefault(sha256_of_file(path), (split, path))
            if other[1] != path or other[0] != split:
                (duplicates if other[0] == split else leaks).append((other[1], path))
    return tuple(leaks), tuple(duplicates)


def some_pictures(sets: Mapping[str, LabelledSet], count: int) -> Sequence[tuple[str, int]]:
    """Split and number of pictures to look at: evenly over each part, those with objects."""
    chosen: list[tuple[str, int]] = []
    for split, one in sets.items():
        there = [number for number, file in enumerate(one.files) if file.counts.any()]
        every = max(1, len(there) // max(1, count // len(sets)))
        chosen += [(split, number) for number in there[::every][: max(1, count // len(sets))]]
    return chosen
