"""Videos frame by frame through OpenCV: what its decoders give is looked at before it is believed."""

import functools
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from yolov3_trt.data.containers import Container, Turn, read_container
from yolov3_trt.data.size_changes import SizeChanges
from yolov3_trt.errors import ImageError, require
from yolov3_trt.files import check_is_file
from yolov3_trt.opencv import is_built_with, spoils_interlaced
from yolov3_trt.preprocess import Image

_LOG = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})

_FEW_FAILURES = 32  # where more frames were read than announced
_MAX_FAILURES = 1000  # reads in a row; a damaged spot is shorter, and a file of 1000 announced frames more is cut short
_SMALL_LOSS = 0.1  # of the frames
_MAX_FPS = 1000.0  # raw streams have their clock's rate instead
_SAME_S = 1e-4
_LONGEST_GAP_S = 60.0  # longer ones are pauses of who recorded
_SHORT_S = 0.5  # by so much sound is longer than its pictures without a word
_MAX_ANNOUNCED = 10**9
_SAMPLED = 8  # one of so many rows and columns is looked at
_STILL = 100  # frames in a row that make one ask whether these are pictures at all
_SQUARE = 0.02  # pixels less oblong than this are square: containers round

# How files begin that are videos. No playlists or scripts, by which FFmpeg would open other files and addresses.
_STARTS = (
    b"GIF8", b"FLV\1", b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"\0\0\0\1", b"\0\0\1\x67", b"\0\0\1\x40",
    b"\0\0\1\x09", b"\0\0\1\x46", b"\x30\x26\xb2\x75", b"\x1f\x07\0", b"OggS", b".RMF", b"YUV4MPEG2 ", b"DKIF",
    b"\x06\x0e\x2b\x34", b"nut/multimedia container",
)  # fmt: skip
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # of MP4 and QuickTime
PICTURE_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"avif", b"avis"}
)
_PART_HEAD = 256  # bytes
_MOTION_JPEG_WITHIN = 4 << 20  # bytes, in which the second picture begins


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame and its time in the video."""

    pixels: Image  # uint8 (H, W, 3) BGR, upright
    position_s: float | None  # from the begin of the video, also where frames come at changing rates


class PictureGuard:
    """Looks at the pictures of one decoder in turn, by a few of their pixels."""

    def __init__(self, name: str, live_fps: float | None = None) -> None:
        """Begin.

        Args:
            name: of the source, for texts.
            live_fps: how many a second a live source can give; None for a file.
        """
        self._name, self._live_fps = name, live_fps
        self._last: bytes | None = None
        self._still, self._still_since_s = 0, 0.0  # pictures in a row that are the same
        self._seen = self._new = 0
        self._is_flat = self._is_told = False

    def check(self, pixels: Any) -> Image | None:
        """A picture as uint8 (H, W, 3) BGR; None where there is none in spite of what the decoder says.

        Raises:
            ImageError: these cannot be the source's pictures.
        """
        if pixels is None or pixels.size == 0:
            return None
        if pixels.ndim == 2 or pixels.shape[2] == 1:
            pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
        step = _SAMPLED if min(pixels.shape[:2]) >= _SAMPLED**2 else 1
        sample = pixels[::step, ::step]
        content = sample.tobytes()
        self._seen += 1
        if content != self._last:
            self._new += 1
            self._still, self._last, self._still_since_s = 0, content, time.monotonic()
            self._is_flat = bool(sample.min() == sample.max())
        self._still += 1
        if self._still == _STILL:
            self._look_closer()
        return np.asarray(pixels)

    def finish(self) -> None:
        """At the end of a file.

        Raises:
            ImageError: there was no picture in it.
        """
        if self._new == 1 and (self._seen > 1 or self._is_flat) and spoils_interlaced():
            self._refuse(
                f"all {self._seen} pictures are the same" if self._seen > 1 else "its only picture is of one colour"
            )
        if self._seen > 1 == self._new and self._is_flat:
            _LOG.warning("%s: every picture of this video is of the same one colour", self._name)

    def _look_closer(self) -> None:
        if self._is_flat and self._new == 1 and spoils_interlaced():
            self._refuse(f"the first {self._still} pictures are of one colour")
        took_s = time.monotonic() - self._still_since_s
        if self._live_fps is not None and took_s < 0.1 * self._still / self._live_fps:
            raise ImageError(
                f"{self._name}: the same picture came {self._still} times within {took_s:.2f} s, faster than a camera can "
                "give it: the connection is lost"
            )
        if self._is_flat and not self._is_told:
            self._is_told = True
            _LOG.warning("%s: %d pictures in a row are of one colour only", self._name, self._still)
        self._still, self._still_since_s = 0, time.monotonic()  # so that a burst after a long still is seen too

    def _refuse(self, what: str) -> NoReturn:
        cv2 = require("cv2", extra="opencv")
        raise ImageError(
            f"{self._name}: {what}, as this OpenCV ({cv2.__version__}) gives them of interlaced video, which it cannot read; "
            "run: pip install 'opencv-python<4.13', or take the system's OpenCV"
        )


class VideoReader:
    """The frames of a video file in order, none left out: upright, with their times.

    A damaged spot is passed over. A context manager, which closes the file.

    Attributes:
        fps: that the file names; None where it names none.
        announced: frames that the file says it has, 0 where it does not say; an estimate by its length in most containers.
        num_read: frames so far.
        loss: at the end, what is missing, in words; None where all is there.
        has_lost_much: whether that is more than a tenth; then it is the caller's to tell.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            ImageError: it is missing, or no video.
        """
        cv2 = require("cv2", extra="opencv")
        try:
            check_is_file(path)
            path.open("rb").close()  # OpenCV gives the same answer for "missing" and "damaged"
        except OSError as exc:
            raise ImageError(f"{path}: cannot be read ({exc.strerror}); expected a video file") from exc
        self._path = path
        self._container = read_container(path)
        # FFmpeg alone: what it cannot read, GStreamer hangs on, and the reader of numbered pictures takes `%d` for its own.
        has_ffmpeg = is_built_with("FFMPEG", cv2.getBuildInformation())
        # By its whole path: of a relative one such as `http:clip.mp4` FFmpeg would take the begin for a protocol.
        self._capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY)
        self._sizes = SizeChanges(path) if has_ffmpeg and self._capture.isOpened() else None
        if not self._capture.isOpened():
            self._refuse()
        self._turn = _upright(self._capture, self._container)
        self.backend: str = self._capture.getBackendName()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps <= _MAX_FPS else None
        announced = self._container.num_frames or self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.announced = int(announced) if 0 < announced < _MAX_ANNOUNCED else 0
        self.num_read = self._num_failed = self._num_gaps = self._num_lost = 0
        self.loss: str | None = None
        self.has_lost_much = False
        self._guard = PictureGuard(str(path))
        self._begin_s: float | None = None
        self._position_s = -1.0
        self._warn_of_oblong_pixels()

    def read(self) -> VideoFrame | None:
        """The next frame, or None after the last.

        Raises:
            ImageError: not even the first can be decoded, or the pictures cannot be the video's.
        """
        failures = 0
        while True:
            good, pixels = self._capture.read()
            picture = self._guard.check(pixels) if good else None
            if picture is not None:
                break
            failures += 1
            is_at_end = failures > _FEW_FAILURES and self.num_read + self._num_failed + failures >= self.announced
            if is_at_end or failures > _MAX_FAILURES:
                self._end()
                return None
        position_s = self._position()
        self._num_failed += failures
        self.num_read += 1
        picture = self._in_its_size(picture, 1 + failures)
        return VideoFrame(picture if self._turn is None else self._turn(picture), position_s)

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._capture.release()
        if self._sizes is not None:
            self._sizes.close()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _position(self) -> float | None:
        """Of the frame just read, from the first; where the container says none, by its number."""
        cv2 = require("cv2", extra="opencv")
        told_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        if self._begin_s is None:
            self._begin_s = told_s if math.isfinite(told_s) else 0.0
            self._note_gap(self._begin_s)
        position_s = told_s - self._begin_s
        if math.isfinite(position_s) and position_s > self._position_s + _SAME_S:
            if self.num_read:
                self._note_gap(position_s - self._position_s)
            self._position_s = position_s
            return round(position_s, 6)
        if self.fps is None:
            return None
        self._position_s = 0.0 if not self.num_read else self._position_s + 1 / self.fps
        return round(self._position_s, 6)

    def _note_gap(self, gap_s: float) -> None:
        """Between a frame and the one before it."""
        if self.fps is not None and 1.5 / self.fps < gap_s < _LONGEST_GAP_S:
            self._num_gaps += 1
            self._num_lost += round(gap_s * self.fps) - 1

    def _num_missing(self) -> int:
        """Frames: exactly, or where it must be guessed, what few gaps in an otherwise even clock leave room for."""
        if self._container.num_frames is not None or self._container.is_cut_short:
            return max(self.announced - self.num_read, int(self._container.is_cut_short))
        return self._num_lost if self._num_gaps <= max(1, _SMALL_LOSS * self.num_read) < self.num_read else 0

    def _in_its_size(self, picture: Image, num_packets: int) -> Image:
        """OpenCV gives all pictures in the size of the first."""
        if self._sizes is None:
            return picture
        before_hw = self._sizes.image_hw
        self._sizes.advance(num_packets)
        image_hw = self._sizes.image_hw
        if image_hw is None or image_hw == picture.shape[:2]:
            return picture
        if image_hw != before_hw:
            _LOG.warning(
                "%s: its pictures are %dx%d from frame %d on; OpenCV squashed them into the size before, so detail is lost",
                self._path,
                *image_hw[::-1],
                self.num_read - 1,
            )
        return np.asarray(require("cv2", extra="opencv").resize(picture, image_hw[::-1]))

    def _end(self) -> None:
        if not self.num_read:
            self._refuse()
        if self.loss is not None:
            return
        self._guard.finish()
        missing, fps = self._num_missing(), self.fps or math.inf
        shown_s, whole_s = max(self._position_s, 0.0) + 1 / fps, self.announced / fps
        if missing > 0:
            is_at_end = self._container.is_cut_short or not (self._num_gaps or self._num_failed)
            why = "may be cut short" if is_at_end else "has damaged spots"
            whole = f"{self.announced} announced" if self.announced > self.num_read else f"{missing} missing"
            self.loss = f"{self._path}: {self.num_read} frames read, {whole}; the video {why}"
            self.has_lost_much = missing > _SMALL_LOSS * (self.num_read + missing)
            if not self.has_lost_much:
                _LOG.warning("%s", self.loss)
        elif self._container.num_frames is None and whole_s - shown_s > _SHORT_S + 2 / fps:
            _LOG.warning(
                "%s: its pictures take %.1f of its %.1f s; the rest is sound, or missing", self._path, shown_s, whole_s
            )

    def _warn_of_oblong_pixels(self) -> None:
        cv2 = require("cv2", extra="opencv")
        if not hasattr(cv2, "CAP_PROP_SAR_NUM"):
            return
        across, down = (self._capture.get(key) for key in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if across > 0 and down > 0 and abs(across / down - 1) > _SQUARE:
            _LOG.warning(
                "%s: its pixels are not square (%g:%g) and are taken as they are, so objects look %s",
                self._path,
                across,
                down,
                "narrower" if across > down else "wider",
            )

    def _refuse(self) -> NoReturn:
        self.close()
        damage = "cut short: it ends before its own end" if self._container.is_cut_short else "damaged"
        raise ImageError(
            f"{self._path}: not a video that OpenCV can read, or {damage}; copy it again, or convert it to an .mp4 with H.264"
        )


def is_video(path: Path) -> bool:
    """Whether a file is a video: by its suffix where that is a video's, else by how it begins; a missing one is none."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    if not path.is_file():  # to look into a pipe would take from it
        return False
    try:
        with path.open("rb") as file:
            start = file.read(1024)
            if start.startswith(b"\xff\xd8\xff"):
                return is_motion_jpeg(start + file.read(_MOTION_JPEG_WITHIN))
    except OSError:
        return False
    return has_video_start(start)


def has_video_start(start: bytes) -> bool:
    """Whether a file that begins so, a kilobyte of it, is a video."""
    if start.startswith(_STARTS):
        return True
    if start[4:8] in _BOXES:
        return start[8:12] not in PICTURE_BRANDS
    if start.startswith(b"RIFF"):
        return start[8:12] == b"AVI "
    if start.startswith(b"\x89PNG"):
        return b"acTL" in start  # animated
    if start.startswith(b"--"):  # Motion JPEG as a camera gave it
        return b"Content-type: image/jpeg".lower() in start[:_PART_HEAD].lower()
    # MPEG transport streams: packets of 188 bytes, of camcorders with four more before each.
    return any(len(start) > at + 2 * step and start[at] == start[at + step] == start[at + 2 * step] == 0x47
               for at, step in ((0, 188), (4, 192)))  # fmt: skip


def is_motion_jpeg(content: bytes) -> bool:
    """Whether JPEGs follow one another with nothing that says they are parts of one photo (`MPF`)."""
    return b"\xff\xd9\xff\xd8\xff" in content and b"MPF\0" not in content[:_MPF_WITHIN]


_MPF_WITHIN = 128 << 10


def _upright(capture: Any, container: Container) -> Any:
    """What turns each picture upright: OpenCV is told not to, for releases differ in whether and which way they do.

    None of them knows mirrored pictures (of cameras that look at who holds them), so what an MP4 says comes first.
    """
    cv2 = require("cv2", extra="opencv")
    if not hasattr(cv2, "CAP_PROP_ORIENTATION_META") or not capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0):
        return None
    if container.turn is not None:
        return None if container.turn == _AS_IT_IS else functools.partial(_turned, turn=container.turn)
    degrees = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
    if cv2.__version__.startswith("4.6."):  # counts the other way round
        degrees = -degrees % 360
    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    return functools.partial(cv2.rotate, rotateCode=turns[degrees]) if degrees in turns else None


_AS_IT_IS = (1, 0, 0, 1)


def _turned(pixels: Image, turn: Turn) -> Image:
    """Turned and mirrored by right angles."""
    cv2 = require("cv2", extra="opencv")
    across, b, c, down = turn
    if b:  # the sides change places first
        pixels, across, down = cv2.transpose(pixels), c, b
    flip = {(-1, 1): 1, (1, -1): 0, (-1, -1): -1}.get((across, down))
    return np.asarray(pixels if flip is None else cv2.flip(pixels, flip))
