"""Pictures and videos to boxes, one after the other, in memory that does not grow with their number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov3_trt.data.images import IMAGE_SUFFIXES, NamedImage, iter_images, save_image
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import ImageError
from yolov3_trt.geometry import HW
from yolov3_trt.selection import Selection
from yolov3_trt.settings import DrawSettings

_ALL, _PLAIN = Selection(), DrawSettings()


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in one picture."""

    file: str  # a path, or `clip.mp4#12` for frame 12 of a video
    image_hw: HW  # px
    detections: Detections  # image px
    position_s: float | None = None  # of a frame, from the begin of its video

    def to_json(self) -> dict[str, Any]:
        """A row of `detect --json` and a line of `detect --jsonl`."""
        height, width = self.image_hw
        position = {} if self.position_s is None else {"position_s": self.position_s}
        return {
            "file": self.file,
            "width": width,
            "height": height,
            **position,
            "detections": self.detections.to_json(),
        }


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read."""

    file: str
    error: str  # names the file too

    def to_json(self) -> dict[str, Any]:
        """A line of `detect --jsonl`."""
        return {"file": self.file, "error": self.error}


def detect_files(
    detector: Detector,
    paths: Sequence[Path],
    save: Path | None = None,
    selection: Selection = _ALL,
    draw: DrawSettings = _PLAIN,
) -> Iterator[Found | Skipped]:
    """Detect in pictures and in the frames of videos, and give each result as soon as it is there.

    A damaged video gives its readable frames; where much is missing it is among the skipped files too.

    Args:
        detector: stays its owner's.
        paths: files, from `images.find_sources`.
        save: folder for the pictures with their boxes, each in place before its result is given; equal names from different
            folders get a number.
        selection: which detections are wanted.
        draw: how they are drawn.

    Raises:
        SettingError: the selection names a class that there is not.
        ImageError: a picture is not of the size that the graph takes.
        OutputError: a picture cannot be saved.
        Yolov3TrtError: of the backend.

    >>> for item in detect_files(detector, find_sources(["photos"])):
    ...     print(item.to_json())
    """
    selection.check(detector.meta.class_names, detector.postprocess.conf)
    gallery = None if save is None else _Gallery(save, draw)
    for item in _read(paths):
        if isinstance(item, Skipped):
            yield item
            continue
        wanted = selection.of(detector(item.pixels).shown, item.pixels.shape[:2])
        found = Found(item.name, item.pixels.shape[:2], wanted, item.position_s)
        if gallery is not None:
            gallery.save(item, found.detections)
        yield found


def _read(paths: Sequence[Path]) -> Iterator[NamedImage | Skipped]:
    for path in paths:
        errors: list[ImageError] = []
        yield from iter_images([path], errors.append)
        yield from (Skipped(str(path), str(error)) for error in errors)


class _Gallery:
    """Pictures with their boxes in one folder."""

    def __init__(self, folder: Path, draw: DrawSettings) -> None:
        self._folder, self._draw = folder, draw
        self._taken: set[str] = set()

    def save(self, image: NamedImage, detections: Detections) -> None:
        from yolov3_trt.camera.draw import drawn

        save_image(drawn(image.pixels, detections, self._draw), self._folder / self._free_name(image))

    def _free_name(self, image: NamedImage) -> str:
        """Equal names from different folders get a number, so that none overwrites another."""
        name = Path(image.name).name.replace("#", "-")
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix.lower() not in IMAGE_SUFFIXES:  # a frame of a video, or a picture that is called otherwise
            stem, suffix = name, ".jpg"
        free, number = f"{stem}{suffix}", 1
        while free in self._taken:
            number += 1
            free = f"{stem}-{number}{suffix}"
        self._taken.add(free)
        return free
