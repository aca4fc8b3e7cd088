"""The pictures that a detector gets most wrong, at the confidence that it is used with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.detections import Detections
from yolov3_trt.matching import match


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


def _score(annotations: Annotations, image_id: Any, file_name: str, found: Detections) -> PictureScore:
    found = found[np.isin(found.class_ids, list(annotations.scored_classes))]
    truth = annotations.truth(image_id)
    pairs = match(found, truth)
    unmatched = np.setdiff1d(np.arange(len(found)), [row for row, _, _ in pairs])
    crowds = annotations.crowd_classes(image_id)
    false = sum(int(found.class_ids[row]) not in crowds for row in unmatched)
    return PictureScore(image_id, str(file_name), len(pairs), len(truth) - len(pairs), false)
