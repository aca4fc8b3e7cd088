"""Which pictures to calibrate on: a choice that can be made again, and the pictures one at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from yolov3_trt.data.fingerprints import (
    Fingerprint,
    PictureList,
    content_hashes,
    difference_hash,
    fingerprint_of_pixels,
)
from yolov3_trt.data.images import VIDEO_SUFFIXES, NamedImage, find_sources, iter_images
from yolov3_trt.errors import CalibrationError
from yolov3_trt.shapes import shapes_picture

SET_FORMAT = "yolov3_trt.calibration-set/1"

_Item = TypeVar("_Item")


class Source(str, Enum):
    """Where calibration pictures come from."""

    FOLDER = "folder"  # its pictures, not deeper
    LIST = "list"  # a text file, a path a line, relative to the file's own folder
    VIDEO = "video"  # the frames of a file
    SHAPES = "shapes"  # made up: picture 0 to count - 1 of the seed


@dataclass(frozen=True)
class CalibrationSet:
    """A choice of pictures.

    Attributes:
        source: what `path` is.
        count: how many are chosen.
        seed: of the choice, or of the made-up pictures.
        path: None for made-up pictures.
        sha256: of `PictureList`; None where it is not known yet.
    """

    source: Source
    count: int
    seed: int = 0
    path: Path | None = None
    sha256: str | None = None
    format: str = SET_FORMAT

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.count < 1 or self.seed < 0:
            raise CalibrationError(f"count={self.count}, seed={self.seed}; expected count >= 1 and seed >= 0")
        if (self.source is Source.SHAPES) != (self.path is None):
            raise CalibrationError(
                f"source {self.source.value!r} with path {self.path}; expected one unless it is 'shapes'"
            )

    @classmethod
    def of(cls, source: str, count: int, seed: int = 0) -> "CalibrationSet":
        """From what a user names: `shapes`, a folder (`./shapes` for one of that name), a video, or else a list file."""
        if source == Source.SHAPES.value:
            return cls(Source.SHAPES, count, seed)
        path = Path(source)
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        return cls(Source.FOLDER if path.is_dir() else Source.VIDEO if is_video else Source.LIST, count, seed, path)


class ChosenPictures:
    """The pictures of a set, read anew each time and one at a time.

    Attributes:
        calibration_set: with its `sha256`.
        fingerprints: of each picture, in order.
    """

    def __init__(
        self,
        calibration_set: CalibrationSet,
        fingerprints: tuple[Fingerprint, ...],
        start: Callable[[], Iterator[NamedImage]],
    ) -> None:
        """`start` begins to read the pictures."""
        self.calibration_set = calibration_set
        self.fingerprints = fingerprints
        self._start = start
        self._difference_hashes: tuple[int, ...] | None = None

    @property
    def difference_hashes(self) -> tuple[int, ...]:
        """Of each picture, in order: as seen when all were last read, which happens here if it did not yet."""
        if self._difference_hashes is None:
            for _ in self:
                pass
        assert self._difference_hashes is not None
        return self._difference_hashes

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each picture's content, in order."""
        return tuple(picture.sha256 for picture in self.fingerprints)

    @property
    def picture_list(self) -> PictureList:
        """What a calibration table keeps of them."""
        return PictureList.of(self.hashes)

    def __len__(self) -> int:
        return len(self.fingerprints)

    def __iter__(self) -> Iterator[NamedImage]:
        hashes = []
        for image in self._start():
            hashes.append(difference_hash(image.pixels))
            yield image
        self._difference_hashes = tuple(hashes)


def choose(items: Sequence[_Item], count: int, seed: int) -> tuple[_Item, ...]:
    """Choose by chance, by the seed alone; the order stays.

    Raises:
        CalibrationError: there are fewer than `count`.
    """
    if count > len(items):
        raise CalibrationError(f"{len(items)} pictures; expected {count} or more (lower the count, or add pictures)")
    chosen = np.random.default_rng(seed).choice(len(items), count, replace=False, shuffle=False)
    return tuple(items[index] for index in sorted(chosen))


def open_set(
    calibration_set: CalibrationSet, progress: Callable[[Iterable[NamedImage]], Iterable[NamedImage]] = iter
) -> ChosenPictures:
    """Choose the pictures of a set and take their fingerprints.

    Pictures with files of their own are not decoded for that; frames of a video and made-up ones are read once.

    Args:
        calibration_set: a set; its `sha256`, if any, must be that of the pictures found.
        progress: wraps the iteration over pictures that have to be read.

    Raises:
        CalibrationError: there are too few pictures, or others than when the manifest was written.
        ImageError: one cannot be read.
    """
    try:
        paths, start = _opener(calibration_set)
    except CalibrationError as exc:
        raise CalibrationError(f"{calibration_set.path}: {exc}") from exc
    if paths is None:
        prints = tuple(map(fingerprint_of_pixels, progress(start())))
    else:
        prints = tuple(map(Fingerprint, map(str, paths), content_hashes(paths)))
    images = PictureList.of(picture.sha256 for picture in prints)
    if calibration_set.sha256 not in (None, images.sha256):
        raise CalibrationError(
            f"{calibration_set.path or calibration_set.source.value}: the {images.count} chosen pictures have SHA-256 "
            f"{images.sha256[:12]}…, the manifest expects {calibration_set.sha256[:12]}…: a picture was changed, added or "
            "removed; put it back, or write the manifest again"
        )
    return ChosenPictures(replace(calibration_set, sha256=images.sha256), prints, start)


def _opener(wanted: CalibrationSet) -> tuple[tuple[Path, ...] | None, Callable[[], Iterator[NamedImage]]]:
    """The files of the chosen pictures, if each has its own, and how to begin reading them."""
    path = wanted.path
    if path is None:
        return None, lambda: _iter_shapes(wanted.seed, wanted.count)
    if wanted.source is Source.VIDEO:
        frames = choose(range(sum(1 for _ in iter_images([path]))), wanted.count, wanted.seed)
        return None, lambda: _iter_frames(path, frozenset(frames))
    if wanted.source is Source.FOLDER and not path.is_dir():
        raise CalibrationError("there is no such folder")
    found = _listed(path) if wanted.source is Source.LIST else find_sources([str(path)])
    paths = choose(found, wanted.count, wanted.seed)
    return paths, lambda: iter_images(paths)


def _iter_shapes(seed: int, count: int) -> Iterator[NamedImage]:
    for index in range(count):
        yield NamedImage(f"shapes#{index}", shapes_picture(seed, index).pixels)


def _iter_frames(path: Path, chosen: frozenset[int]) -> Iterator[NamedImage]:
    for index, frame in enumerate(iter_images([path])):
        if index in chosen:
            yield frame
        if index == max(chosen):
            return


def _listed(path: Path) -> tuple[Path, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a text"
        raise CalibrationError(
            f"cannot be read ({reason}); expected a folder, a video, or a text file with a path a line"
        ) from exc
    paths = tuple(path.parent / line.strip() for line in lines if line.strip())
    if videos := [listed for listed in paths if listed.suffix.lower() in VIDEO_SUFFIXES]:
        raise CalibrationError(f"{videos[0].name} is a video; expected pictures only (a video is a set of its own)")
    return paths
