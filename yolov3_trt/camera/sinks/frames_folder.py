"""Frames with their boxes as pictures in a folder."""

import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from yolov3_trt.camera.draw import annotated
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.camera.sinks.storage import Limits, NoRoom, Storage, is_full
from yolov3_trt.errors import CameraError, OutputError, require
from yolov3_trt.files import make_folder

_QUALITY = 90
_NO_LIMITS = Limits()
_OWN_NAME = re.compile(r"(\d{8}-\d{6}-)?(\d{1,3}-)?\d{8,}\.jpg")


class FramesSink(Sink):
    """A JPEG per frame, named after its index: `00000012.jpg`, with several sources `SOURCE-00000012.jpg`, SOURCE from 0.

    Where there are pictures of runs before, the time (UTC) of this run's start comes first: `20260131-235959-00000012.jpg`.
    """

    def __init__(self, folder: Path, sources: Sequence[str], *, every: int = 1, limits: Limits = _NO_LIMITS) -> None:
        """Claim a folder.

        Args:
            folder: is made, or holds no other JPEGs than those of runs before.
            sources: names of all sources.
            every: of so many frames of a source the first is written.
            limits: of all pictures, those of runs before among them.

        Raises:
            CameraError: there are other pictures in it.
            OutputError: the folder cannot be made.
        """
        require("cv2", extra="opencv")
        self.name = f"{folder}/"
        if any(not _OWN_NAME.fullmatch(path.name) for path in make_folder(folder).glob("*.jpg")):
            raise CameraError(f"{folder}: there are other JPEGs in it; give an empty folder or a new one")
        for left in folder.glob(".*.jpg.partial"):  # of a run that was killed
            with suppress(OSError):
                left.unlink()
        self._storage = Storage(folder, _OWN_NAME, limits)
        run = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) if self._storage.files else ""
        self._folder, self._every = folder, every
        self._prefixes = {source: f"{run}{n}-" if len(sources) > 1 else run for n, source in enumerate(sources)}
        self._seen: Counter[str] = Counter()

    def write(self, result: Result) -> None:
        """Write a frame, when it is its turn.

        Raises:
            NoRoom: the disk is full.
            OutputError: it cannot be written.
        """
        frame = result.frame
        self._seen[frame.source] += 1
        if (self._seen[frame.source] - 1) % self._every:
            return
        path = self._folder / f"{self._prefixes[frame.source]}{frame.index:08}.jpg"
        self._storage.make_room(1)
        self._save(result, path)
        self._storage.add(path)

    def close(self) -> None:
        """Nothing to give up: every picture is whole."""

    def _save(self, result: Result, path: Path) -> None:
        """Whole or absent, but not forced to the disk, which would take longer than a frame."""
        cv2 = require("cv2", extra="opencv")
        good, encoded = cv2.imencode(".jpg", annotated(result), (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
        if not good:
            raise OutputError(f"{path}: OpenCV cannot write this frame as a JPEG")
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.unlink(missing_ok=True)  # of a run that was killed, or a link that leads elsewhere
            with partial.open("xb") as file:
                file.write(encoded.tobytes())
            partial.replace(path)
        except OSError as exc:
            raise (NoRoom if is_full(exc) else OutputError)(f"{path}: cannot be written ({exc.strerror})") from exc
        finally:
            partial.unlink(missing_ok=True)
