"""Frames with their boxes as pictures in a folder."""

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


class FramesSink(Sink):
    """A JPEG per frame, named after its index: `00000012.jpg`, with several sources `SOURCE-00000012.jpg`, SOURCE from 0."""

    def __init__(self, folder: Path, sources: Sequence[str], *, every: int = 1, keep: int | None = None) -> None:
        """Claim a folder.

        Args:
            folder: is made, or empty of JPEGs.
            sources: names of all sources.
            every: of so many frames of a source the first is written.
            keep: so many pictures stay, the newest; None for all.

        Raises:
            CameraError: there are pictures in it.
            OutputError: the folder cannot be made.
        """
        require("cv2", extra="opencv")
        self.name = f"{folder}/"
        if any(make_folder(folder).glob("*.jpg")):
            raise CameraError(f"{folder}: there are JPEGs in it; give an empty folder or a new one")
        for left in folder.glob(".*.jpg.partial"):  # of a run that was killed
            with suppress(OSError):
                left.unlink()
        self._folder, self._every, self._keep = folder, every, keep
        self._prefixes = {source: f"{n}-" if len(sources) > 1 else "" for n, source in enumerate(sources)}
        self._seen: Counter[str] = Counter()
        self._written: deque[Path] = deque()

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
        if self._keep is not None and len(self._written) > self._keep:
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
