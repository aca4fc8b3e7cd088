"""The size of a picture from its file's header, so that a set of thousands is looked through in seconds."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from yolov3_trt.data.images import load_image
from yolov3_trt.errors import ImageError
from yolov3_trt.geometry import HW

Progress = Callable[[Iterable[Path]], Iterable[Path]]

_THREADS = 2
_PNG = b"\x89PNG\r\n\x1a\n"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame of all kinds of JPEG
_SOS, _APP1 = 0xDA, 0xE1
_EXIF, _ORIENTATION = b"Exif\0\0", 0x0112
_MAX_HEADER_SEGMENTS = 1000


@dataclass(frozen=True)
class PictureSize:
    """Of a picture as it is shown: upright by its EXIF orientation."""

    image_hw: HW
    is_turned: bool = False  # by 90 degrees, so that the stored picture is as wide as this is high


def picture_size(path: Path) -> PictureSize:
    """From the header of a JPEG or PNG; other pictures are decoded.

    Raises:
        ImageError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            found = _from_header(file)
    except OSError as exc:
        raise ImageError(f"{path}: cannot be read ({exc.strerror})") from exc
    if found is None or 0 in found.image_hw:
        height, width, _ = load_image(path).shape
        return PictureSize((height, width))
    return found


def sizes_of(
    pictures: Sequence[Path], faults: list[str], progress: Progress = iter, *, decode: bool = False
) -> dict[Path, PictureSize]:
    """The size of each picture; those that have none are faults.

    Args:
        pictures: their files.
        faults: gets a line for each that cannot be read.
        progress: wraps the iteration.
        decode: whether each is decoded, which also finds damage after its header.
    """

    def size_or_fault(picture: Path) -> PictureSize | str:
        try:
            size = picture_size(picture)
            if decode:
                load_image(picture)
        except ImageError as exc:
            return str(exc)
        return size

    sizes: dict[Path, PictureSize] = {}
    pool = ThreadPoolExecutor(_THREADS)
    try:
        outcomes = (
            pool.map(size_or_fault, pictures) if decode else map(size_or_fault, pictures)
        )  # a header is read at once
        for picture in progress(pictures):
            outcome = next(outcomes)
            if isinstance(outcome, str):
                faults.append(outcome)
            else:
                sizes[picture] = outcome
    finally:
        pool.shutdown(cancel_futures=True)  # when interrupted, not after all the rest
    return sizes


def _from_header(file: BinaryIO) -> PictureSize | None:
    start = file.read(24)
    if start.startswith(b"\xff\xd8\xff"):
        file.seek(2)
        return _from_jpeg(file)
    if start.startswith(_PNG) and start[12:16] == b"IHDR" and b"eXIf" not in file.read(4096):
        return PictureSize((int.from_bytes(start[20:24], "big"), int.from_bytes(start[16:20], "big")))
    return None


def _from_jpeg(file: BinaryIO) -> PictureSize | None:
    """None where its segments are not as they should be: then OpenCV is asked."""
    turned = False
    for _ in range(_MAX_HEADER_SEGMENTS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xFF, _SOS):
            return None
        length = int.from_bytes(head[2:], "big") - 2
        if head[1] in _SOF:
            sizes = file.read(5)
            height, width = int.from_bytes(sizes[1:3], "big"), int.from_bytes(sizes[3:5], "big")
            return PictureSize((width, height) if turned else (height, width), turned)
        if head[1] == _APP1:
            turned = turned or _turns(file.read(max(0, length)))
        else:
            file.seek(max(0, length), 1)
    return None


def _turns(segment: bytes) -> bool:
    """Whether an EXIF segment says that the picture is shown turned by 90 degrees."""
    if not segment.startswith(_EXIF):
        return False
    tiff = segment[len(_EXIF) :]
    order: str = "little" if tiff[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]

    first = number(4, 4)
    for entry in range(min(number(first, 2), 200)):
        at = first + 2 + 12 * entry
        if number(at, 2) == _ORIENTATION:
            return 5 <= number(at + 8, 2) <= 8
    return False
