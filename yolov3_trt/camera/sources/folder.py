"""Pictures from a folder or glob as a source."""

import logging
import time

from yolov3_trt.arguments import spelled
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sources.base import Source
from yolov3_trt.data.images import find_sources, iter_images
from yolov3_trt.errors import CameraError, ImageError

_LOG = logging.getLogger(__name__)


class PicturesSource(Source):
    """Pictures of a folder or glob, sorted by name; they may differ in size."""

    live = False
    pipeline = "pictures"

    def __init__(self, text: str, *, fps: float | None = None, is_paced: bool = False) -> None:
        """Find the files.

        Args:
            text: a folder, a glob or one file.
            fps: how many a second they stand for, if any.
            is_paced: see `Source`.

        Raises:
            CameraError: there are none, or they are to have a pace and none is given.
        """
        try:
            self._paths = find_sources([text])
        except ImageError as exc:
            raise CameraError(str(exc)) from exc
        if is_paced and fps is None:
            raise CameraError(
                f"{text}: pictures have no pace of their own; give {spelled('fps')} with {spelled('realtime', True)}"
            )
        self.name, self.fps, self.is_paced = text, fps, is_paced
        self._skipped: list[str] = []
        self._pictures = enumerate(iter_images(self._paths, self._skip))

    def read(self) -> Frame | None:
        """The next picture, or None after the last. One that cannot be read is named in the log and left out.

        Raises:
            CameraError: at the end, when some were left out.
        """
        index, picture = next(self._pictures, (0, None))
        if picture is not None:
            return Frame(picture.pixels, self.name, index, time.monotonic(), picture.position_s)
        if self._skipped:
            raise CameraError(
                f"{self.name}: {len(self._skipped)} of {len(self._paths)} files could not be read; "
                f"the first: {self._skipped[0]}"
            )
        return None

    def close(self) -> None:
        """Nothing to give up."""

    def _skip(self, error: ImageError) -> None:
        _LOG.warning("left out: %s", error)
        self._skipped.append(str(error))
