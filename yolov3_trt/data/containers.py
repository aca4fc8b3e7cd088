"""What a video's container says and OpenCV does not: how it is mirrored, how many frames it shows, whether it is cut short."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAX_MOOV_BYTES = 64 << 20
_MAX_BOXES = 10_000
_MAX_HEADER_BYTES = 4096
_ONE = 1 << 16  # in numbers with 16 bits behind the point

Turn = tuple[int, int, int, int]  # a picture's point (x, y) is shown at (a x + c y, b x + d y): of (a, b, c, d)


@dataclass(frozen=True)
class Container:
    """Facts of a file; those that it does not give are None.

    Attributes:
        num_frames: that it shows, to the frame: not an estimate by its length, nor those that an edit list hides.
        turn: how its pictures are shown.
        is_cut_short: whether its bytes end before its own end.
    """

    num_frames: int | None = None
    turn: Turn | None = None
    is_cut_short: bool = False


def read_container(path: Path) -> Container:
    """Of MP4 and QuickTime all facts, of AVI and Matroska whether they are cut short; of anything else, and damaged ones, none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(32)
        size = file.seek(0, os.SEEK_END)
        try:
            if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return _of_mp4(file, size)
            if start.startswith(b"RIFF"):
                return Container(is_cut_short=int.from_bytes(start[4:8], "little") + 8 > size > 8)
            if start.startswith(b"\x1a\x45\xdf\xa3"):
                return Container(is_cut_short=_matroska_ends(file) > size)
        except (ValueError, IndexError, ZeroDivisionError):
            return Container()
    return Container()


def _of_mp4(file: BinaryIO, size: int) -> Container:
    moov, ends, at = b"", 0, 0
    in_fragments: Counter[int] = Counter()  # samples of each track
    for _ in range(_MAX_BOXES):
        if at >= size:
            break
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] == b"moov" and length < _MAX_MOOV_BYTES:
            file.seek(at)
            moov = file.read(length or _MAX_MOOV_BYTES)
        if head[4:8] == b"moof" and length < _MAX_MOOV_BYTES:
            file.seek(at)
            for fragment in _boxes(file.read(length)[8:], b"traf"):
                in_runs = sum(_number(run, 4, 4) for run in _boxes(fragment, b"trun"))
                in_fragments[_number(_inside(fragment, b"tfhd"), 4, 4)] += in_runs
        if length < 8:  # 0: up to the end of the file
            break
        at = ends = at + length
    track = next((one for one in _boxes(moov[8:], b"trak") if _inside(one, b"mdia", b"hdlr")[8:12] == b"vide"), b"")
    if not track:
        return Container(is_cut_short=ends > size or not moov)
    movie, header = _inside(moov[8:], b"mvhd"), _inside(track, b"tkhd")
    of_movie, of_track = _matrix(movie, (36, 48)), _matrix(header, (40, 52))
    num_frames = _num_shown(track, movie)
    if _inside(moov[8:], b"mvex"):
        num_frames = (num_frames or 0) + in_fragments[_number(header, 20 if header[:1] == b"\1" else 12, 4)] or None
    return Container(num_frames, _times(of_movie, of_track), ends > size)


def _num_shown(track: bytes, movie: bytes) -> int | None:
    """The samples of a track less those that its edit list leaves out."""
    table = _inside(track, b"mdia", b"minf", b"stbl")
    count = _number(_inside(table, b"stsz"), 8, 4) or _number(_inside(table, b"stz2"), 8, 4)
    media = _inside(track, b"mdia", b"mdhd")
    edits = _inside(track, b"edts", b"elst")
    if not count or not edits:
        return count or None
    long = edits[0] == 1
    step = 20 if long else 12
    shown = 0  # in units of the movie
    for at in range(8, 8 + step * min(_number(edits, 4, 4), _MAX_BOXES), step):
        length, begin = (8, at + 8) if long else (4, at + 4)
        if edits[begin : begin + length] != b"\xff" * length:  # that would be a pause
            shown += _number(edits, at, length)
    at, width = (24, 8) if media[0] == 1 else (16, 4)
    whole_s = _number(media, at, width) / _number(media, at - 4, 4)
    shown_s = shown / _number(movie, 20 if movie[0] == 1 else 12, 4)
    return min(count, round(count * shown_s / whole_s)) if shown_s > 0 else count


def _matrix(header: bytes, at: tuple[int, int]) -> Turn:
    """The four numbers that turn, of a header of version 0 or 1."""
    begin = at[header[0] == 1]
    a, b, c, d = (int.from_bytes(header[begin + 4 * n : begin + 4 * n + 4], "big", signed=True) for n in (0, 1, 3, 4))
    return a, b, c, d


def _times(first: Turn, second: Turn) -> Turn | None:
    """Two turns after each other, in whole numbers; None where that is none by a multiple of 90 degrees."""
    (a, b, c, d), (e, f, g, h) = first, second
    both = (e * a + f * c, e * b + f * d, g * a + h * c, g * b + h * d)
    whole = tuple(round(value / _ONE**2) for value in both)
    if sorted(map(abs, whole)) != [0, 0, 1, 1] or abs(whole[0] * whole[3] - whole[1] * whole[2]) != 1:
        return None
    return whole[0], whole[1], whole[2], whole[3]


def _boxes(content: bytes, kind: bytes) -> Iterator[bytes]:
    """What each box of a kind holds."""
    at = 0
    for _ in range(_MAX_BOXES):
        length = int.from_bytes(content[at : at + 4], "big")
        if length < 8:
            return
        if content[at + 4 : at + 8] == kind:
            yield content[at + 8 : at + length]
        at += length


def _inside(content: bytes, *kinds: bytes) -> bytes:
    """What the first box of a kind holds, in the first of another, and so on; empty where there is none."""
    for kind in kinds:
        content = next(_boxes(content, kind), b"")
    return content


def _number(content: bytes, at: int, length: int) -> int:
    return int.from_bytes(content[at : at + length], "big")


def _matroska_ends(file: BinaryIO) -> int:
    """Where its segment ends; 0 where it does not say, as one that was written while it was watched."""
    file.seek(4)
    head = file.read(8)
    header, width = _vint(head)
    if header > _MAX_HEADER_BYTES:
        return 0
    file.seek(4 + width + header)
    segment = file.read(12)
    if not segment.startswith(b"\x18\x53\x80\x67"):
        return 0
    length, length_width = _vint(segment[4:])
    is_unknown = length == (1 << 7 * length_width) - 1
    return 0 if is_unknown else 4 + width + header + 4 + length_width + length


def _vint(content: bytes) -> tuple[int, int]:
    """A number of Matroska, and in how many bytes.

    Raises:
        ValueError: there is none.
    """
    if not content or not content[0]:
        raise ValueError
    width = 9 - content[0].bit_length()
    return int.from_bytes(content[:width], "big") & ((1 << 7 * width) - 1), width
