"""Videos frame by frame through OpenCV: what its decoders give is looked at before it is believed."""

import functools
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from yolov3_trt.errors import ImageError, require
from yolov3_trt.files import check_is_file
from yolov3_trt.opencv import spoils_interlaced
from yolov3_trt.preprocess import Image

_LOG = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})

_FEW_FAILURES = 32  # where more frames were read than announced
_MAX_FAILURES = 1000  # reads in a row; a damaged spot is shorter, and a file of 1000 announced frames more is cut short
_SMALL_LOSS = 0.1  # of the announced frames, which are an estimate in some containers
_MAX_ANNOUNCED = 10**9
_STILL = 100  # frames in a row that make one ask whether these are pictures at all
_SQUARE = 0.02  # pixels less oblong than this are square: containers round

# How files begin that are videos. No playlists or scripts, by which FFmpeg would open other files and addresses.
_STARTS = (
    b"GIF8", b"FLV\1", b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"\0\0\0\1", b"\0\0\1\x67", b"\0\0\1\x40",
    b"\0\0\1\x09", b"\0\0\1\x46", b"\x30\x26\xb2\x75", b"\x1f\x07\0", b"OggS", b".RMF", b"YUV4MPEG2 ", b"DKIF",
    b"\x06\x0e\x2b\x34",
)  # fmt: skip
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # of MP4 and QuickTime
_PICTURE_BRANDS = (b"heic", b"heix", b"mif1", b"avif", b"hevc", b"msf1")
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
        sample = pixels[::8, ::8]
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
        if self._seen > 1 == self._new and spoils_interlaced():
            self._refuse(f"all {self._seen} pictures are the same")
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
        announced: frames that the file says it has, 0 where it does not say; an estimate in some containers.
        num_read: frames so far.
        loss: at the end, what is missing, in words; None where all is there.
        has_lost_much: whether that is more than the estimate may be wrong by; then it is the caller's to tell.
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
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            self._refuse()
        self._turn = _upright(self._capture)
        self.backend: str = self._capture.getBackendName()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps < math.inf else None
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.announced = int(announced) if 0 < announced < _MAX_ANNOUNCED else 0
        self.num_read = self._num_failed = 0
        self.loss: str | None = None
        self.has_lost_much = False
        self._guard = PictureGuard(str(path))
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
        self._num_failed += failures
        self.num_read += 1
        return VideoFrame(picture if self._turn is None else self._turn(picture), self._position())

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._capture.release()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _position(self) -> float | None:
        """Of the frame just read; where the container says none, by its number."""
        cv2 = require("cv2", extra="opencv")
        position_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        if math.isfinite(position_s) and position_s > self._position_s:
            self._position_s = position_s
            return round(position_s, 6)
        return None if self.fps is None else round((self.num_read - 1) / self.fps, 6)

    def _end(self) -> None:
        if not self.num_read:
            self._refuse()
        if self.loss is not None:
            return
        self._guard.finish()
        missing = max(self._num_failed, self.announced - self.num_read)
        if missing > 0:
            why = "has damaged spots" if self._num_failed else "may be cut short"
            self.loss = f"{self._path}: {self.num_read} frames read, {self.announced} announced; the video {why}"
            self.has_lost_much = missing > _SMALL_LOSS * self.announced
            if not self.has_lost_much:
                _LOG.warning("%s", self.loss)

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
        raise ImageError(
            f"{self._path}: not a video that OpenCV can read, or damaged; copy it again, or convert it to an .mp4 with H.264"
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
        return start[8:12] not in _PICTURE_BRANDS
    if start.startswith(b"RIFF"):
        return start[8:12] == b"AVI "
    # MPEG transport streams: packets of 188 bytes, of camcorders with four more before each.
    return any(len(start) > at + 2 * step and start[at] == start[at + step] == start[at + 2 * step] == 0x47
               for at, step in ((0, 188), (4, 192)))  # fmt: skip


def is_motion_jpeg(content: bytes) -> bool:
    """Whether JPEGs follow one another with nothing that says they are parts of one photo (`MPF`)."""
    return b"\xff\xd9\xff\xd8\xff" in content and b"MPF\0" not in content[:_MPF_WITHIN]


_MPF_WITHIN = 128 << 10


def _upright(capture: Any) -> Any:
    """What turns each picture upright: OpenCV is told not to, for releases differ in whether and which way they do."""
    cv2 = require("cv2", extra="opencv")
    if not hasattr(cv2, "CAP_PROP_ORIENTATION_META") or not capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0):
        return None
    degrees = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
    if cv2.__version__.startswith("4.6."):  # counts the other way round
        degrees = -degrees % 360
    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    return functools.partial(cv2.rotate, rotateCode=turns[degrees]) if degrees in turns else None
