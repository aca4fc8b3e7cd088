"""What a picture is, in a few bytes: to find pictures that are the same, or nearly, in or between sets."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from yolov3_trt.arguments import spelled
from yolov3_trt.data.images import NamedImage
from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.errors import CalibrationError, ImageError, require
from yolov3_trt.files import sha256_of_file
from yolov3_trt.preprocess import Image

FEW_PICTURES = 32
NEAR_BITS = 4  # of the 64 of a difference hash, in which near-duplicates differ at most


@dataclass(frozen=True)
class Fingerprint:
    """A picture by its content.

    Attributes:
        name: for texts.
        sha256: hex, of the file's bytes; of the pixels where there is no file.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class PictureList:
    """Pictures by their content, in order."""

    count: int
    sha256: str  # of the hex SHA-256 of each picture's content, one a line

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    @classmethod
    def of(cls, hashes: Iterable[str]) -> "PictureList":
        """The list of pictures with these content hashes (hex SHA-256)."""
        lines = list(hashes)
        return cls(len(lines), hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest())


def fingerprint_of_pixels(image: NamedImage) -> Fingerprint:
    """Of a picture that has no file of its own."""
    height, width = image.pixels.shape[:2]
    return Fingerprint(image.name, hashlib.sha256(b"%dx%d\n" % (height, width) + image.pixels.tobytes()).hexdigest())


def content_hashes(paths: Iterable[Path]) -> tuple[str, ...]:
    """Hex SHA-256 of each file's bytes.

    Raises:
        ImageError: one cannot be read.
    """
    try:
        return tuple(map(sha256_of_file, paths))
    except OSError as exc:
        raise ImageError(f"{exc.filename}: cannot be read ({exc.strerror})") from exc


def hashes_of(pictures: PictureSet) -> tuple[str, ...]:
    """Hex SHA-256 of each picture's content: of its file, or of its pixels where it has none.

    Raises:
        ImageError: one cannot be read.
    """
    if pictures.paths is not None:
        return content_hashes(pictures.paths)
    return tuple(fingerprint_of_pixels(image).sha256 for image in pictures)


def difference_hash(pixels: Image) -> int:
    """64 bits that survive another size, JPEG quality or brightness: is each cell of an 8x8 grid darker than the next one?"""
    cv2 = require("cv2", extra="opencv")
    cells = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")


def near_duplicates(hashes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Pictures that nearly repeat an earlier one: (index, index of the first one it repeats), in order.

    Args:
        hashes: difference hashes, of which near-duplicates differ in `NEAR_BITS` at most.
    """
    if not hashes:
        return ()
    words = np.frombuffer(b"".join(value.to_bytes(8, "big") for value in hashes), np.uint8).reshape(-1, 8)
    pairs = []
    for index in range(1, len(words)):
        differing_bits = np.unpackbits(words[:index] ^ words[index], axis=1).sum(axis=1)
        if (near := differing_bits <= NEAR_BITS).any():
            pairs.append((index, int(np.argmax(near))))
    return tuple(pairs)


def overlap(calibration: Sequence[Fingerprint], evaluation_hashes: Collection[str]) -> tuple[Fingerprint, ...]:
    """Calibration pictures whose content is among that of the evaluation pictures."""
    among = frozenset(evaluation_hashes)
    return tuple(picture for picture in calibration if picture.sha256 in among)


def set_warnings(
    calibration: Sequence[Fingerprint], evaluation_hashes: Collection[str] = (), *, allow_overlap: bool = False
) -> tuple[str, ...]:
    """What speaks against a calibration set, a line each, with numbers.

    Args:
        calibration: its pictures.
        evaluation_hashes: contents of the pictures that accuracy is measured on.
        allow_overlap: whether they may share pictures; it becomes a warning then.

    Raises:
        CalibrationError: they do and may not.
    """
    total, warnings = len(calibration), list[str]()
    if shared := overlap(calibration, evaluation_hashes):
        text = (
            f"{len(shared)} of the {total} calibration pictures are evaluation pictures too, e.g. {shared[0].name}: "
            "the accuracy measured on those flatters INT8"
        )
        if not allow_overlap:
            raise CalibrationError(f"{text}; calibrate on others, or allow it with {spelled('allow_overlap', True)}")
        warnings.append(text)
    if total < FEW_PICTURES:
        warnings.append(f"{total} calibration pictures; ranges are steadier with {FEW_PICTURES} or more")
    return tuple(warnings)


def repeat_warnings(calibration: Sequence[Fingerprint], difference_hashes: Sequence[int]) -> tuple[str, ...]:
    """The same of pictures that look alike; `difference_hashes` are theirs, in order."""
    repeats = near_duplicates(difference_hashes)
    if not repeats:
        return ()
    (index, first), total = repeats[0], len(calibration)
    return (
        f"{len(repeats)} of the {total} calibration pictures nearly repeat an earlier one, e.g. "
        f"{calibration[index].name} and {calibration[first].name}: they count as {total - len(repeats)}",
    )
