"""Where frames come from: by URI, one protocol for all."""

import logging
import math
import re
import time
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from yolov3_trt.camera.frames import Frame
from yolov3_trt.errors import CameraError, require
from yolov3_trt.geometry import HW
from yolov3_trt.images import VIDEO_SUFFIXES
from yolov3_trt.shapes import LabelledPicture, iter_shapes_clip

_LOG = logging.getLogger(__name__)

_MIN_SHAPES_SIDE_PX = 64  # what the generator can draw on
_SHAPES_FORM = "shapes://?seed=1&frames=100&size=480x640&fps=30"
_SHAPES_DEFAULTS = {"seed": "0", "frames": "100", "size": "480x640", "fps": "30"}
_SHAPES_PATTERNS = {
    "seed": r"[0-9]{1,9}",
    "frames": r"[1-9][0-9]{0,8}",
    "size": r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}",
    "fps": r"[1-9][0-9]{0,2}",
}

_Self = TypeVar("_Self", bound="Source")


class Source(Protocol):
    """Gives frames one after the other, to one thread. A context manager, which closes it."""

    name: str  # stands in the results
    fps: float | None  # nominal; None where the source does not say
    live: bool  # frames that nobody reads in time are lost; otherwise they wait

    def read(self) -> Frame | None:
        """The next frame, or None after the last.

        Raises:
            CameraError: the source failed.
        """
        ...

    def close(self) -> None:
        """Give up what it holds; harmless when repeated."""
        ...

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ShapesSource(Source):
    """The bundled generator: a clip of moving shapes, the same for the same arguments, as fast as it is read.

    Attributes:
        truth: the last frame read, with its objects; None before the first.
    """

    live = False

    def __init__(self, seed: int = 0, num_frames: int = 100, image_hw: HW = (480, 640), fps: float = 30.0) -> None:
        """Prepare a clip; the arguments are those of `iter_shapes_clip`, and the nominal fps.

        Raises:
            CameraError: the frames are too small.
        """
        if min(image_hw) < _MIN_SHAPES_SIDE_PX:
            raise CameraError(
                f"shapes of {image_hw[0]}x{image_hw[1]} px; expected {_MIN_SHAPES_SIDE_PX} or more each way"
            )
        self.name = f"shapes://?seed={seed}&frames={num_frames}&size={image_hw[0]}x{image_hw[1]}"
        self.fps: float | None = fps
        self.truth: LabelledPicture | None = None
        self._pictures = enumerate(iter_shapes_clip(seed, num_frames, image_hw))

    def read(self) -> Frame | None:
        """The next frame, or None after the last."""
        index, picture = next(self._pictures, (0, None))
        if picture is None:
            return None
        self.truth = picture
        return Frame(picture.pixels, self.name, index, time.monotonic())

    def close(self) -> None:
        """Nothing to give up."""


class VideoSource(Source):
    """The frames of a video file, in order, none left out, as fast as they are read."""

    live = False

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            CameraError: it is missing, or no video.
        """
        cv2 = require("cv2", extra="opencv")
        try:
            path.open("rb").close()  # OpenCV gives the same answer for "missing" and "damaged"
        except OSError as exc:
            raise CameraError(f"{path}: cannot be read ({exc.strerror}); expected a video file") from exc
        self.name = str(path)
        self._capture = cv2.VideoCapture(str(path))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps < math.inf else None
        # What the container announces may be an estimate, so fewer frames are a warning and not an error.
        self._announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._index = 0
        if not self._capture.isOpened():
            self._refuse()

    def read(self) -> Frame | None:
        """The next frame, or None after the last.

        Raises:
            CameraError: not even the first can be decoded.
        """
        good, pixels = self._capture.read()
        if good:
            frame = Frame(pixels, self.name, self._index, time.monotonic())
            self._index += 1
            return frame
        if not self._index:
            self._refuse()
        if self._announced > self._index:
            _LOG.warning(
                "%s: %d frames read, %d announced; the video may be cut short", self.name, self._index, self._announced
            )
            self._announced = 0  # said once
        return None

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._capture.release()

    def _refuse(self) -> NoReturn:
        self.close()
        raise CameraError(
            f"{self.name}: not a video that OpenCV can decode, or damaged; copy it again, or convert it to an .mp4 with H.264"
        )


def open_source(uri: str) -> Source:
    """Open what a URI names: a video file by its path, or the generator.

    Args:
        uri: `clip.mp4`, or `shapes://?seed=1&frames=100&size=480x640&fps=30`, where every part has a default and the size
            is HEIGHTxWIDTH in px.

    Raises:
        CameraError: it names nothing that this version reads, or cannot be opened.
    """
    if uri.startswith("shapes://"):
        return _shapes_from_uri(uri)
    if "://" not in uri and Path(uri).suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(Path(uri))
    raise CameraError(
        f"{uri}: not a source; expected a video file ({', '.join(sorted(VIDEO_SUFFIXES))}) or generated frames ({_SHAPES_FORM})"
    )


def _shapes_from_uri(uri: str) -> ShapesSource:
    values = dict(_SHAPES_DEFAULTS)
    try:
        parts = urlsplit(uri)
        if parts.netloc or parts.path or parts.fragment:
            raise ValueError("only parameters may follow shapes://")
        given = parse_qsl(parts.query, keep_blank_values=True)
        for key, value in given:
            if key not in values:
                raise ValueError(f"there is no parameter {key!r}")
            if not re.fullmatch(_SHAPES_PATTERNS[key], value):
                raise ValueError(f"{key}={value!r} has no meaning")
            values[key] = value
        if len(given) > len(dict(given)):
            raise ValueError("a parameter is given twice")
    except ValueError as exc:
        raise CameraError(
            f"{uri}: {exc}; expected {_SHAPES_FORM} or a part of it, with the size as HEIGHTxWIDTH"
        ) from exc
    height, width = values["size"].split("x")
    return ShapesSource(int(values["seed"]), int(values["frames"]), (int(height), int(width)), float(values["fps"]))
