"""Pictures from files: single ones, folders, globs and the frames of videos, read by OpenCV."""

import functools
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.video import PICTURE_BRANDS, VIDEO_SUFFIXES, VideoReader, has_video_start, is_video
from yolov3_trt.errors import ImageError, OutputError, require
from yolov3_trt.files import check_is_file, write_bytes
from yolov3_trt.opencv import too_large
from yolov3_trt.preprocess import Image

_LOG = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

# Of pictures and videos that people keep among others, which a folder does not stand for.
_OTHER_SUFFIXES = VIDEO_SUFFIXES | {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".pgm", ".ppm", ".ts", ".mts"}
_USED_BITS = (12, 14, 16)  # of 16
_TIFF = (b"II*\0", b"MM\0*")
_PNG = b"\x89PNG\r\n\x1a\n"
_FOLDERS_LOOKED_INTO = 1000  # for pictures that nobody asked for


@dataclass(frozen=True, eq=False)
class NamedImage:
    """A picture and where it came from: a path, or `clip.mp4#12` for frame 12 of a video."""

    name: str
    pixels: Image  # uint8 (H, W, 3) BGR
    position_s: float | None = None  # of a frame, from the begin of its video


def load_image(path: Path) -> Image:
    """Read a picture as uint8 (H, W, 3) BGR, turned upright by its EXIF orientation; grey ones become colour.

    Raises:
        ImageError: missing, not a picture, damaged, or cut short.
    """
    require("cv2", extra="opencv")
    try:
        check_is_file(path)
        # Read here rather than by OpenCV, which gives the same None for "missing" and "damaged".
        content = path.read_bytes()
    except OSError as exc:
        raise ImageError(f"{path}: cannot be read ({exc.strerror})") from exc
    try:
        pixels = decode_image(content)
    except ImageError as exc:
        raise ImageError(f"{path}: {exc}") from exc
    if _holds_several(content):
        _LOG.warning("%s: holds several pictures, of which only the first is read", path)
    return pixels


def decode_image(content: bytes) -> Image:
    """Decode a picture as uint8 (H, W, 3) BGR, as `load_image` does.

    The decoder itself refuses what is too large (`opencv.max_pixels`): a reader of headers beside it could read another size.

    Raises:
        ImageError: empty, not a picture, damaged, cut short, or too large.
    """
    cv2 = require("cv2", extra="opencv")
    if not content:
        raise ImageError("the file is empty; expected a picture")
    if content.startswith(_PNG) and _is_png_cut_short(content):
        raise ImageError("this PNG is cut short; copy the file again")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as exc:
        if "CV_IO_MAX_IMAGE" not in str(exc):
            raise ImageError(f"OpenCV refuses this picture ({exc.err})") from exc
        raise ImageError(too_large("a picture that is too large")) from exc
    # Decoders fill what is missing with grey or black, and say so on stderr at best.
    if _is_jpeg_cut_short(content):
        raise ImageError("this JPEG is cut short; copy the file again")
    if pixels is None and content[4:8] == b"ftyp" and content[8:12] in PICTURE_BRANDS:
        raise ImageError("a HEIC or AVIF picture, as phones take them, which OpenCV does not read; convert it to JPEG")
    if pixels is None and _holds_several(content):
        raise ImageError("an animated picture, which this OpenCV does not read; convert it to an .mp4, or to a .gif")
    if pixels is None and has_video_start(content[:1024]):
        raise ImageError("a video; expected a picture: give it a name that ends in .mp4, or none that is a picture's")
    if pixels is None and content.startswith(_TIFF):  # grey ones of float values become no colours
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim not in (2, 3) or (pixels.ndim == 2 and pixels.dtype.kind != "f"):
        raise ImageError("not a picture that OpenCV can read, or damaged")
    return _in_8_bits(np.asarray(pixels))


def _in_8_bits(pixels: NDArray[Any]) -> Image:
    """Of 16 bits those that are used: thermal and industrial cameras fill 12 or 14, and the upper 8 would be black."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise ImageError(f"a picture of {pixels.dtype} values; expected 8 or 16 bits a value: convert it to PNG")
    used = next(bits for bits in _USED_BITS if pixels.max() < 1 << bits)
    if used < 16:
        _say_depth(used)
    return (pixels >> (used - 8)).astype(np.uint8)


@functools.cache
def _say_depth(bits: int) -> None:
    """Once, not for each of thousands."""
    _LOG.warning("pictures of 16 bits a value whose values take %d: they are read as pictures of %d bits", bits, bits)


def save_image(pixels: Image, path: Path) -> None:
    """Write a picture, uint8 (H, W, 3) BGR, in the format of the path's suffix; whole or not at all.

    Raises:
        OutputError: it cannot be written, or OpenCV does not know the suffix.
    """
    cv2 = require("cv2", extra="opencv")
    good, encoded = cv2.imencode(path.suffix, pixels)
    if not good:
        raise OutputError(f"{path}: OpenCV cannot write {path.suffix} files")
    write_bytes(path, encoded.tobytes())


def find_sources(sources: Sequence[str], *, recursive: bool = False) -> tuple[Path, ...]:
    """Files named by paths, folders (their pictures, sorted) and globs, in the order given.

    Args:
        sources: those names.
        recursive: whether the pictures in sub-folders of a folder are taken too.

    Raises:
        ImageError: a source names nothing or is a URL, or a folder holds no picture.
    """
    found: list[Path] = []
    for source in sources:
        try:
            found += _find(source, recursive)
        except OSError as exc:  # no permission, a name too long
            raise ImageError(f"{source}: cannot be read ({exc.strerror})") from exc
    if not found:
        raise ImageError("no pictures given; expected files, folders or globs")
    return tuple(found)


def picture_in_subfolder(folder: Path) -> Path | None:
    """A picture that lies deeper than in this folder itself; None where there is none in the first thousand sub-folders."""
    for parent, folders, names in islice(os.walk(folder), _FOLDERS_LOOKED_INTO):
        folders.sort()
        if Path(parent) != folder:
            for name in sorted(names):
                if _is_picture(Path(name)):
                    return Path(parent, name)
    return None


def count_images(paths: Sequence[Path]) -> int | None:
    """How many pictures and frames `iter_images` will give; an estimate where a video is damaged, None where one does not say.

    Videos are opened for it, pictures are not.
    """
    videos = [path for path in paths if is_film(path)]
    frames = [_announced_frames(path) for path in videos]
    return None if 0 in frames else len(paths) - len(videos) + sum(frames)


def iter_images(paths: Sequence[Path], skip: Callable[[ImageError], None] | None = None) -> Iterator[NamedImage]:
    """Pictures, and the frames of videos, one after the other.

    Args:
        paths: files, from `find_sources`.
        skip: told of each file that cannot be read, which is then left out, and of each video of which much is missing, at its
            end; without it the first file that cannot be read ends the iteration.

    Raises:
        ImageError: a file cannot be read and there is no `skip`.
    """
    for path in paths:
        try:
            if is_film(path):
                yield from _iter_frames(path, skip)
            else:
                yield NamedImage(str(path), load_image(path))
        except ImageError as exc:
            if skip is None:
                raise
            skip(exc)


def _find(source: str, recursive: bool) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return _pictures_in(path, recursive)
    if path.exists():
        return [path]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        raise ImageError(
            f"{source}: a URL; expected a file, folder or glob: download it first, or give a stream to `yolov3_trt camera`"
        )
    if glob.has_magic(source):
        matches = sorted(match for match in map(Path, glob.glob(source, recursive=True)) if not match.is_dir())
        if not matches:
            raise ImageError(f"{source}: no file matches")
        return matches
    raise ImageError(f"{source}: there is no such file or folder")


def has_pictures(folder: Path) -> bool:
    """Whether a folder itself, not one deeper, holds a picture."""
    return any(map(_is_picture, folder.iterdir()))


def _pictures_in(folder: Path, recursive: bool) -> list[Path]:
    if recursive:
        found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    else:
        found = list(folder.iterdir())
    pictures = sorted(path for path in found if _is_picture(path))
    if pictures:
        _tell_of_others(folder, found)
        return pictures
    deeper = None if recursive else picture_in_subfolder(folder)
    if deeper is not None:
        raise ImageError(
            f"{folder}: there are no pictures in this folder itself; expected some, as there are in its sub-folders: give "
            f"'{folder}/**/*{deeper.suffix}'"
        )
    raise ImageError(f"{folder}: there are no pictures in this folder; expected {', '.join(sorted(IMAGE_SUFFIXES))}")


def _tell_of_others(folder: Path, found: Sequence[Path]) -> None:
    """Of files that may be pictures or videos too: no notes, no hidden ones."""
    others = Counter(path.suffix.lower() for path in found if path.suffix.lower() in _OTHER_SUFFIXES)
    if others:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        _LOG.warning("%s: files of other kinds are left out (%s); name them, or convert them to JPEG", folder, kinds)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._")  # macOS keeps notes in such


def is_film(path: Path) -> bool:
    """Whether a file is read frame by frame: by its content, unless its suffix is a picture's."""
    return not _is_picture(path) and is_video(path)


def _announced_frames(path: Path) -> int:
    """What a video says; 0 where it says nothing, or cannot be read: reading says why."""
    try:
        with VideoReader(path) as video:
            return video.announced
    except ImageError:
        return 0


def _iter_frames(path: Path, skip: Callable[[ImageError], None] | None) -> Iterator[NamedImage]:
    with VideoReader(path) as video:
        while (frame := video.read()) is not None:
            yield NamedImage(f"{path}#{video.num_read - 1}", frame.pixels, frame.position_s)
        if video.has_lost_much:
            if skip is None:
                _LOG.warning("%s", video.loss)
            else:
                skip(ImageError(f"{video.loss}"))


def _holds_several(content: bytes) -> bool:
    """Whether this is an animated PNG or WebP, or a TIFF of several pages."""
    if content.startswith(_PNG):
        return b"acTL" in content[:1024]
    if content.startswith(b"RIFF") and content[8:16] == b"WEBPVP8X":
        return bool(content[20] & 2)
    if content.startswith(_TIFF):
        order = "little" if content[:1] == b"I" else "big"
        at = int.from_bytes(content[4:8], order)  # type: ignore[arg-type]
        at += 2 + 12 * int.from_bytes(content[at : at + 2], order)  # type: ignore[arg-type]
        return any(content[at : at + 4])
    return False


def _is_png_cut_short(content: bytes) -> bool:
    """Whether a chunk is longer than what is left, or the last one is missing.

    OpenCV 4.11 asks for the memory of a chunk, up to 4 GiB, before it looks whether there is so much.
    """
    at = len(_PNG)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"IEND":
            return False
        at = end
    return True


def _is_jpeg_cut_short(content: bytes) -> bool:
    """Whether this is a JPEG, whatever its file is called, that ends before its end marker.

    Some decoders fill what is missing with grey and say so on stderr at best; OpenCV's newer ones decode nothing.
    """
    if not content.startswith(b"\xff\xd8\xff"):
        return False
    # Segment by segment to the first scan: what lies in a segment (a thumbnail has markers of its own) does not count, nor
    # does what follows the end marker (the video of a "motion photo").
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda":
        is_fill = content[at + 1 : at + 2] == b"\xff"
        at += 1 if is_fill else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return content.find(b"\xff\xd9", at) < 0
