"""The pictures that a detector gets most wrong, at the confidence that it is used with."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.detections import Detections
from yolov3_trt.matching import match

if TYPE_CHECKING:
    from yolov3_trt.evaluation.accuracy import Evaluated


@dataclass(frozen=True)
class PictureScore:
    """How one picture came out: objects found, missed, and detections without an object."""

    image_id: Any
    file_name: str
    found: int
    missed: int
    false: int

    @property
    def f1(self) -> float:
        """2 found / (2 found + missed + false); 1 where there is nothing and nothing was found."""
        parts = 2 * self.found + self.missed + self.false
        return 2 * self.found / parts if parts else 1.0

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` writes it."""
        return {
            "file_name": self.file_name,
            "f1": self.f1,
            "found": self.found,
            "missed": self.missed,
            "false": self.false,
        }


@dataclass(frozen=True)
class WorstPicture:
    """A picture that came out badly, and the file that it was drawn into."""

    score: PictureScore  # of all artifacts together
    path: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` writes it."""
        return {**self.score.to_json(), "picture": None if self.path is None else str(self.path)}


def worst_pictures(rows: "Sequence[Evaluated]") -> list[PictureScore]:
    """All pictures, the worst first, with what the artifacts together found, missed and made up.

    Each artifact counts at the confidence that it detects with when nothing else is said.
    """
    sums: dict[Any, Counter[str]] = {}
    for row in rows:
        for score in score_pictures(row.truth, row.accuracy.found, row.own_conf):
            sums.setdefault(score.image_id, Counter()).update(found=score.found, missed=score.missed, false=score.false)
    names = {image["id"]: str(image["file_name"]) for image in rows[0].truth.images}
    return worst_first(PictureScore(image_id, names[image_id], **counts) for image_id, counts in sums.items())


def score_pictures(
    annotations: Annotations, detections: Mapping[Any, Detections], min_score: float
) -> tuple[PictureScore, ...]:
    """Each picture, in the order of the file: detections above `min_score` matched with objects, same class, IoU 0.5 or more.

    A detection of a class that the picture has a crowd of is never called false.
    """
    return tuple(
        _score(annotations, image["id"], image["file_name"], confident(detections[image["id"]], min_score))
        for image in annotations.images
    )


def worst_first(scores: Iterable[PictureScore]) -> list[PictureScore]:
    """By F1; equal ones by how many objects were missed or made up."""
    return sorted(scores, key=lambda score: (score.f1, -(score.missed + score.false), score.file_name))


def confident(detections: Detections, min_score: float) -> Detections:
    """Detections above a score: the same that the detector finds at that threshold, as suppression goes by score."""
    return detections[detections.scores > min_score]


def outcome(annotations: Annotations, image_id: Any, found: Detections) -> tuple[Detections, Detections, Detections]:
    """Of what was found in a picture what is right and what is invented, and between them the objects that were missed."""
    found = found[np.isin(found.class_ids, list(annotations.scored_classes))]
    truth = annotations.truth(image_id)
    pairs = match(found, truth)
    right, taken = np.zeros(len(found), bool), np.zeros(len(truth), bool)
    right[[row for row, _, _ in pairs]] = taken[[other for _, other, _ in pairs]] = True
    crowd = np.isin(found.class_ids, list(annotations.crowd_classes(image_id)))
    return found[right], truth[~taken], found[~right & ~crowd]


def _score(annotations: Annotations, image_id: Any, file_name: str, found: Detections) -> PictureScore:
    right, missed, invented = outcome(annotations, image_id, found)
    return PictureScore(image_id, str(file_name), len(right), len(missed), len(invented))
