"""Which pictures to calibrate on: a choice that can be made again, and the pictures one at a time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from yolov3_trt.data.fingerprints import (
    Fingerprint,
    PictureList,
    content_hashes,
    difference_hash,
    fingerprint_of_pixels,
)
from yolov3_trt.data.images import NamedImage
from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.data.sources import Source, open_source, source_of
from yolov3_trt.errors import CalibrationError

SET_FORMAT = "yolov3_trt.calibration-set/1"


@dataclass(frozen=True)
class CalibrationSet:
    """A choice of pictures.

    Attributes:
        source: what `path` is.
        count: how many are chosen.
        seed: of the choice, or of the generated pictures.
        path: None for generated pictures.
        sha256: of `PictureList`; None where it is not known yet.
        split: of a data.yaml; None: `train`.
    """

    source: Source
    count: int
    seed: int = 0
    path: Path | None = None
    sha256: str | None = None
    format: str = SET_FORMAT
    split: str | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.count < 1 or self.seed < 0:
            raise CalibrationError(f"count={self.count}, seed={self.seed}; expected count >= 1 and seed >= 0")
        if (self.source is Source.SHAPES) != (self.path is None):
            raise CalibrationError(
                f"source {self.source.value!r} with path {self.path}; expected one unless it is 'shapes'"
            )

    @classmethod
    def of(cls, source: str, count: int, seed: int = 0, split: str | None = None) -> "CalibrationSet":
        """From what a user names; see `source_of`."""
        kind = source_of(source)
        return cls(kind, count, seed, None if kind is Source.SHAPES else Path(source), split=split)


class ChosenPictures(PictureSet):
    """A set that was chosen to calibrate on, with what tells it from any other.

    Attributes:
        fingerprints: of each picture, in order.
        seed: of the choice.
        calibration_set: what a manifest says of it, with its `sha256`; None where it was chosen from a `PictureSet`.
    """

    def __init__(
        self,
        pictures: PictureSet,
        fingerprints: tuple[Fingerprint, ...],
        seed: int,
        calibration_set: CalibrationSet | None = None,
    ) -> None:
        super().__init__(pictures.name, pictures.paths)
        self.fingerprints, self.seed, self.calibration_set = fingerprints, seed, calibration_set
        self._pictures = pictures
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

    def chosen(self, count: int, seed: int) -> PictureSet:
        """See `PictureSet`."""
        return self._pictures.chosen(count, seed)

    def __iter__(self) -> Iterator[NamedImage]:
        hashes = []
        for image in self._pictures:
            hashes.append(difference_hash(image.pixels))
            yield image
        self._difference_hashes = tuple(hashes)


Progress = Callable[[Iterable[NamedImage]], Iterable[NamedImage]]


def open_set(calibration_set: CalibrationSet, progress: Progress = iter) -> ChosenPictures:
    """Choose the pictures of a set and take their fingerprints.

    Pictures with files of their own are not decoded for that; frames of a video and generated ones are read once.

    Args:
        calibration_set: a set; its `sha256`, if any, must be that of the pictures found.
        progress: wraps the iteration over pictures that have to be read.

    Raises:
        CalibrationError: there are too few pictures, or others than when the manifest was written.
        ImageError: one cannot be read.
    """
    whole = open_source(calibration_set.source, calibration_set.path, calibration_set.split)
    found = choose_from(whole, calibration_set.count, calibration_set.seed, progress)
    images = found.picture_list
    if calibration_set.sha256 not in (None, images.sha256):
        raise CalibrationError(
            f"{whole.name}: the {images.count} chosen pictures have SHA-256 "
            f"{images.sha256[:12]}…, the manifest expects {calibration_set.sha256[:12]}…: a picture was changed, added or "
            "removed; put it back, or write the manifest again"
        )
    found.calibration_set = replace(calibration_set, sha256=images.sha256)
    return found


def choose_from(pictures: PictureSet, count: int, seed: int, progress: Progress = iter) -> ChosenPictures:
    """Choose pictures of any set by a seed and take their fingerprints; see `open_set`."""
    try:
        chosen = pictures.chosen(count, seed)
    except CalibrationError as exc:
        raise CalibrationError(f"{pictures.name}: {exc}") from exc
    if chosen.paths is None:
        prints = tuple(map(fingerprint_of_pixels, progress(chosen)))
    else:
        prints = tuple(map(Fingerprint, map(str, chosen.paths), content_hashes(chosen.paths)))
    return ChosenPictures(chosen, prints, seed)
