"""The bundled generator as a source."""

import time
from urllib.parse import urlsplit

from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sources.base import Source, SourceOptions
from yolov3_trt.camera.sources.parameters import FPS, SIZE, parse_parameters, parse_size
from yolov3_trt.errors import CameraError
from yolov3_trt.geometry import HW
from yolov3_trt.shapes import LabelledPicture, iter_shapes_clip

SHAPES_FORM = "shapes://?seed=1&frames=100&size=640x480&fps=30&live=0"
_MIN_SIDE_PX = 64  # what the generator can draw on
_DEFAULTS = {"seed": "0", "frames": "100", "size": "640x480", "fps": "30", "live": "0"}
_PATTERNS = {"seed": r"[0-9]{1,9}", "frames": r"[1-9][0-9]{0,8}", "size": SIZE, "fps": FPS, "live": "[01]"}


class ShapesSource(Source):
    """The bundled generator: a clip of moving shapes, the same for the same arguments.

    Attributes:
        truth: the last frame read, with its objects and their numbers; None before the first.
    """

    pipeline = "generated"

    def __init__(self, seed: int = 0, num_frames: int = 100, image_hw: HW = (480, 640), fps: float = 30.0) -> None:
        """Prepare a clip; the arguments are those of `iter_shapes_clip`, and the nominal fps.

        Raises:
            CameraError: the frames are too small.
        """
        if min(image_hw) < _MIN_SIDE_PX:
            raise CameraError(f"shapes of {image_hw[1]}x{image_hw[0]} px; expected {_MIN_SIDE_PX} or more each way")
        self.name = f"shapes://?seed={seed}&frames={num_frames}&size={image_hw[1]}x{image_hw[0]}"
        self.fps: float | None = fps
        self.live = False
        self.truth: LabelledPicture | None = None
        self._pictures = enumerate(iter_shapes_clip(seed, num_frames, image_hw))

    def read(self) -> Frame | None:
        """The next frame, or None after the last."""
        index, picture = next(self._pictures, (0, None))
        if picture is None:
            return None
        self.truth = picture
        position_s = None if self.fps is None else index / self.fps
        return Frame(picture.pixels, self.name, index, time.monotonic(), position_s)

    def close(self) -> None:
        """Nothing to give up."""


def shapes_from_uri(uri: str, options: SourceOptions) -> ShapesSource:
    """A clip by its URI; with `live=1` it comes like a camera's: at its fps, and what is not taken in time is lost.

    Raises:
        CameraError: the URI is not understood.
    """
    try:
        parts = urlsplit(uri)
        if parts.netloc or parts.path or parts.fragment:
            raise ValueError("only parameters may follow shapes://")
    except ValueError as exc:
        raise CameraError(
            f"{uri}: {exc}; expected {SHAPES_FORM} or a part of it, with the size as WIDTHxHEIGHT"
        ) from exc
    values = {**_DEFAULTS, **parse_parameters(uri, _PATTERNS, SHAPES_FORM)}
    source = ShapesSource(int(values["seed"]), int(values["frames"]), parse_size(values["size"]), float(values["fps"]))
    source.live = values["live"] == "1"
    source.is_paced = source.live or options.realtime
    return source
