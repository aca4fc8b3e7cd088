"""Frames with their boxes as pictures in a folder."""

import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from yolov3_trt.camera.draw import annotated
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.errors import CameraError, OutputError, require
from yolov3_trt.files import make_folder

_QUALITY = 90
_OWN_NAME = re.compile(r"(\d{8}-\d{6}-)?(\d{1,3}-)?\d{8,}\.jpg")


class FramesSink(Sink):
    """A JPEG per frame, named after its index: `00000012.jpg`, with several sources `SOURCE-00000012.jpg`, SOURCE from 0.

    Where there are pictures of runs before, the time (UTC) of this run's start comes first: `20260131-235959-00000012.jpg`.
    """

    def __init__(self, folder: Path, sources: Sequence[str], *, every: int = 1, keep: int | None = None) -> None:
        """Claim a folder.

        Args:
            folder: is made, or holds no other JPEGs than those of runs before.
            sources: names of all sources.
            every: of so many frames of a source the first is written.
            keep: so many pictures stay, the newest, those of runs before among them; None for all.

        Raises:
            CameraError: there are other pictures in it.
            OutputError: the folder cannot be made.
        """
        require("cv2", extra="opencv")
        self.name = f"{folder}/"
        before = sorted(make_folder(folder).glob("*.jpg"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        if any(not _OWN_NAME.fullmatch(path.name) for path in before):
            raise CameraError(f"{folder}: there are other JPEGs in it; give an empty folder or a new one")
        run = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) if before else ""
        for left in folder.glob(".*.jpg.partial"):  # of a run that was killed
            with suppress(OSError):
                left.unlink()
        self._folder, self._every, self._keep = folder, every, keep
        self._prefixes = {source: f"{run}{n}-" if len(sources) > 1 else run for n, source in enumerate(sources)}
        self._seen: Counter[str] = Counter()
        self._written = deque(before)

    def write(self, result: Result) -> None:
        """Write a frame, when it is its turn.

        Raises:
            OutputError: it cannot be written.
        """
        frame = result.frame
        self._seen[frame.source] += 1
        if (self._seen[frame.source] - 1) % self._every:
            return
        path = self._folder / f"{self._prefixes[frame.source]}{frame.index:08}.jpg"
        self._save(result, path)
        self._written.append(path)
        while self._keep is not None and len(self._written) > self._keep:
            self._written.popleft().unlink(missing_ok=True)

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
            raise OutputError(f"{path}: cannot be written ({exc.strerror})") from exc
        finally:
            partial.unlink(missing_ok=True)
