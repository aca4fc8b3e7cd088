"""How a job opens the artifacts that it is given, and which pictures and labels it works on."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import path, text
from yolov3_trt.data import labelled_set, picture_set
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.errors import SettingError
from yolov3_trt.models import Model, is_model, load_model
from yolov3_trt.reporter import Reporter
from yolov3_trt.settings import DetectSettings

Artifact = str | os.PathLike[str]


@dataclass(frozen=True)
class Opening:
    """What artifacts are opened with, see `open_detector`; `weights`, `names` and `input_size` are for models only."""

    weights: Artifact | None = None
    names: Any = None
    input_size: Any = None
    backend: Any = "auto"
    device: Any = "auto"
    threads: int | None = None
    trust: bool = False
    precision: Any = None

    def open(self, artifact: str, detect: DetectSettings) -> Detector:
        """The detector of one of them."""
        model = {"weights": self.weights, "names": self.names, "input_size": self.input_size}
        return open_detector(
            artifact,
            **(model if is_model(artifact) else {}),
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            trust=self.trust,
            precision=self.precision,
            detect=detect,
        )

    def load(self, model: str) -> Model:
        """One of them that is a model."""
        return load_model(model, self.weights, self.names, self.input_size)


def artifacts_from(artifacts: Artifact | Iterable[Artifact]) -> tuple[str, ...]:
    """One or more, each once, in order.

    Raises:
        SettingError: there is none, or one is no text.
    """
    found = tuple(dict.fromkeys(text("artifacts", artifact) for artifact in several(artifacts)))
    if not found:
        raise SettingError("artifacts", "got none; expected what open_detector opens, one or more")
    return found


def several(values: Any) -> list[Any]:
    """One value or any number of them."""
    return [values] if isinstance(values, str | os.PathLike) or not isinstance(values, Iterable) else list(values)


def sets_from(
    images: Artifact | Sequence[Artifact] | PictureSet | None,
    data: Artifact | LabelledSet | None,
    split: str | None,
    annotations: Artifact | None,
    reporter: Reporter,
    *,
    skip_faulty: bool = False,
    default_split: str = "val",
) -> tuple[PictureSet | None, LabelledSet | None]:
    """The pictures that a caller names, and the labelled ones; None where none are named.

    Without `images` the labelled ones are the pictures; with a COCO JSON `images` is the folder of its pictures.
    """
    if not isinstance(images, PictureSet | None):
        images = [text("images", source) for source in several(images)]
    if data is not None and annotations is not None:
        raise SettingError("annotations", "given with data, which is the same; give one of them")
    if data is None and annotations is None:
        if split is not None:
            raise SettingError("split", "given without data; leave it out")
        return (None if images is None else picture_set(images)), None
    folder = None
    if not isinstance(data, LabelledSet) and images is not None:
        folder = Path(images[0]) if isinstance(images, list) and len(images) == 1 else None
        if folder is None or not folder.is_dir():
            raise SettingError("images", "given with labels; expected the one folder of their pictures")
    if annotations is not None and folder is None:
        raise SettingError("annotations", "given without images; expected images to be the one folder of its pictures")
    labelled = labelled_set(
        path("annotations", annotations) if data is None else data,
        split=split,
        default_split=default_split,
        images=folder,
        skip_faulty=skip_faulty,
        progress=lambda items: reporter.track(items, "checking pictures", None),
    )
    for note in () if labelled is data else labelled.notes:
        reporter.say(f"note: {note}")
    return (labelled if images is None else picture_set(images)), labelled
