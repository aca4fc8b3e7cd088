"""Sets of pictures, wherever these come from: read anew at each pass, one picture at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from yolov3_trt.data.images import NamedImage, is_film, iter_images
from yolov3_trt.errors import CalibrationError
from yolov3_trt.shapes import shapes_picture

_Item = TypeVar("_Item")


class PictureSet(ABC):
    """Pictures in a fixed order. Iterate as often as needed: each pass reads them again, and holds one at a time.

    Whatever takes pictures takes one of these, or what `data.picture_set` makes one from.

    Attributes:
        name: what its user calls it, for texts.
        paths: the file of each picture, in order; None where they have none of their own: frames of a video, generated ones.
    """

    def __init__(self, name: str, paths: tuple[Path, ...] | None = None) -> None:
        self.name = name
        self.paths = paths

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures; the frames of a video are counted by reading it once."""

    @abstractmethod
    def __iter__(self) -> Iterator[NamedImage]:
        """Read them, uint8 (H, W, 3) BGR each.

        Raises:
            ImageError: one cannot be read.
        """

    @property
    def known_count(self) -> int | None:
        """How many pictures, where no video has to be read to know: for progress bars."""
        return None if self.paths is None else len(self.paths)

    def chosen(self, count: int, seed: int) -> "PictureSet":
        """`count` of them, chosen by the seed alone; the order stays.

        Raises:
            CalibrationError: there are fewer.
        """
        return _Some(self, choose(range(len(self)), count, seed))


class FilePictures(PictureSet):
    """The pictures of files, and the frames of those that are videos."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        has_video = any(map(is_film, self._files))
        super().__init__(name, None if has_video else self._files)

    def __iter__(self) -> Iterator[NamedImage]:
        return iter_images(self._files)

    def __len__(self) -> int:
        return self._count if self.paths is None else len(self.paths)

    @cached_property
    def _count(self) -> int:
        return sum(1 for _ in self)

    def chosen(self, count: int, seed: int) -> PictureSet:
        """See `PictureSet`."""
        if self.paths is None:
            return super().chosen(count, seed)
        return FilePictures(self.name, choose(self.paths, count, seed))


class ShapesPictures(PictureSet):
    """Generated pictures: number 0 to `count` - 1 of a seed. There are always more, so others are generated, not chosen."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__("shapes")
        self._count, self._seed = count, seed

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NamedImage]:
        for index in range(self._count):
            yield NamedImage(f"shapes#{index}", shapes_picture(self._seed, index).pixels)

    @property
    def known_count(self) -> int:
        """See `PictureSet`."""
        return self._count

    def chosen(self, count: int, seed: int) -> PictureSet:
        """The first `count` of that seed."""
        return ShapesPictures(count, seed)


class JoinedPictures(PictureSet):
    """Several sets, one after the other."""

    def __init__(self, sets: Sequence[PictureSet]) -> None:
        files = [path for one in sets for path in one.paths or ()]
        have_files = all(one.paths is not None for one in sets)
        super().__init__(" ".join(one.name for one in sets), tuple(files) if have_files else None)
        self._sets = tuple(sets)

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def __iter__(self) -> Iterator[NamedImage]:
        return chain.from_iterable(self._sets)


class _Some(PictureSet):
    """Some pictures of a set, by their ascending numbers."""

    def __init__(self, whole: PictureSet, numbers: Sequence[int]) -> None:
        paths = None if whole.paths is None else tuple(whole.paths[number] for number in numbers)
        super().__init__(whole.name, paths)
        self._whole, self._numbers = whole, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[NamedImage]:
        if self.paths is not None:
            yield from iter_images(self.paths)
            return
        wanted, last = frozenset(self._numbers), self._numbers[-1]
        for number, image in enumerate(self._whole):
            if number in wanted:
                yield image
            if number == last:
                return


def choose(items: Sequence[_Item], count: int, seed: int) -> tuple[_Item, ...]:
    """Choose by chance, by the seed alone; the order stays.

    Raises:
        CalibrationError: there are fewer than `count`.
    """
    if count > len(items):
        raise CalibrationError(f"{len(items)} pictures; expected {count} or more (lower the count, or add pictures)")
    chosen = np.random.default_rng(seed).choice(len(items), count, replace=False, shuffle=False)
    return tuple(items[index] for index in sorted(chosen))
