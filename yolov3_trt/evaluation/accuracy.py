"""What a detector's average precision is on a set of images, with its interval: the one place where that is measured."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.certificate import Certificate
from yolov3_trt.data.annotations import Annotations
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.evaluation import ClassScore, Scores, detect_all, score_detections
from yolov3_trt.evaluation.bootstrap import draw_images, interval, resampled_ap
from yolov3_trt.evaluation.counts import Counts, count_hits
from yolov3_trt.evaluation.proof import agreement_scores, certificate
from yolov3_trt.evaluation.tide import ErrorDifference, ErrorSplit, error_difference, split_errors
from yolov3_trt.evaluation.worst import WorstPicture
from yolov3_trt.preprocess import Image
from yolov3_trt.selection import Selection

METRICS_RESAMPLED = ("AP", "AP50")
_ALL = Selection()
RESAMPLES = 500  # draws of the images for an interval, where nothing else is said
Bounds = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Average precision of one detector on one set of images."""

    scores: Scores
    found: Mapping[Any, Detections]  # by image id
    draws: NDArray[np.float64]  # (R, 2) AP and AP50 of each draw of the bootstrap

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.found)

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """METRICS as fractions; None where COCO defines none."""
        return self.scores.metrics

    @property
    def per_class(self) -> tuple[ClassScore, ...]:
        """AP and AP50 of each class."""
        return self.scores.per_class

    @property
    def intervals(self) -> dict[str, Bounds | None]:
        """95 % interval of each metric that was resampled; None where there were no draws."""
        return intervals_of(self.draws)

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` and `eval --json` write it."""
        return {
            "images": self.images,
            **self.metrics,
            **{f"{metric}_interval": bounds for metric, bounds in self.intervals.items()},
            "per_class": [asdict(entry) for entry in self.per_class],
        }


@dataclass(frozen=True)
class AccuracyDifference:
    """How much more AP one artifact has than another on the same images; each by METRICS_RESAMPLED."""

    artifact: str
    reference: str
    values: Mapping[str, float | None]
    intervals: Mapping[str, Bounds | None]  # over draws of the images that both had alike

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` and `compare --json` write it."""
        return {
            "artifact": self.artifact,
            "reference": self.reference,
            **{f"{metric}_difference": value for metric, value in self.values.items()},
            **{f"{metric}_difference_interval": bounds for metric, bounds in self.intervals.items()},
        }


def measure_accuracy(
    detector: Detector,
    truth: Annotations,
    *,
    selection: Selection = _ALL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    track: Callable[[Iterable[Any], str, int | None], Iterable[Any]] = lambda items, what, total: items,
) -> Accuracy:
    """Detect on all images and score what is found.

    Args:
        detector: at a low confidence threshold (`EVAL_CONF_THRESHOLD`).
        truth: what is in the images, of a set: `data.labelled_set(...).truth_for(class_names)`.
        selection: which detections count; the truth is narrowed already.
        resamples: draws of the images for the interval of AP; 0: none.
        seed: of those draws.
        track: wraps an iteration: items, what is done to them, how many there are.

    Raises:
        ImageError: an image cannot be read.
    """

    def resampling(groups: Iterable[int]) -> Iterable[int]:
        starts = tuple(groups)
        return track(starts, "resampling", len(starts))

    def wanted(image: Image) -> Detections:
        return selection.of(detector(image), image.shape[:2])

    found = detect_all(wanted, truth, lambda items: track(items, "evaluating", len(truth.images)))
    scores = score_detections(truth, found)
    draws = draw_images(len(found), resamples, seed)
    return Accuracy(scores, found, resampled_ap(scores.matches, draws, resampling))


def difference(names: tuple[str, str], reference: Accuracy, other: Accuracy) -> AccuracyDifference:
    """Of two measured on the same images with the same draws; `names` are the reference's and the other's."""
    values = {}
    for metric in METRICS_RESAMPLED:
        a, b = reference.metrics[metric], other.metrics[metric]
        values[metric] = None if a is None or b is None else b - a
    return AccuracyDifference(names[1], names[0], values, intervals_of(other.draws - reference.draws))


def intervals_of(draws: NDArray[np.float64]) -> dict[str, Bounds | None]:
    """The interval of each of METRICS_RESAMPLED over the draws, (R, 2)."""
    return {metric: interval(draws[:, column]) for column, metric in enumerate(METRICS_RESAMPLED)}


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One artifact, how it was set, and what it came to."""

    artifact: str
    backend: str
    precision: str
    resize: str
    nms: str
    conf: float
    size_bytes: int | None  # of its file; None for a built-in model and what a server runs
    accuracy: Accuracy
    truth: Annotations
    own_conf: float  # what the artifact detects with when nothing else is said
    fallbacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def counts(self) -> Counts:
        """What Darknet's `detector map` would say."""
        return count_hits(self.truth, self.accuracy.found)

    @cached_property
    def errors(self) -> ErrorSplit:
        """What AP is lost to."""
        return split_errors(self.accuracy.scores.pairs)

    @cached_property
    def shown_errors(self) -> ErrorSplit:
        """The same of the detections that the artifact shows when nothing else is said."""
        return split_errors(self.accuracy.scores.pairs, self.own_conf)

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` writes it."""
        names = ("artifact", "backend", "precision", "resize", "nms", "conf", "size_bytes")
        return {
            **{name: getattr(self, name) for name in names},
            **self.accuracy.to_json(),
            "darknet": self.counts.to_json(),
            "errors": self.errors.to_json(),
            "fallbacks": list(self.fallbacks),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Artifacts side by side on the same images; the first is what the others are compared with.

    Attributes:
        rows: each artifact with its `accuracy`.
        resamples: draws of the images behind the intervals.
        seed: of those draws.
        worst: the pictures that came out worst, as many as were asked for.
        machine: that it ran on.
        max_ap_drop: that the others are held to, see `certificates`; None: to none.
    """

    rows: tuple[Evaluated, ...]
    resamples: int
    seed: int
    worst: tuple[WorstPicture, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    max_ap_drop: float | None = None

    @property
    def differences(self) -> tuple[AccuracyDifference, ...]:
        """Each further artifact against the first."""
        first = self.rows[0]
        return tuple(difference((first.artifact, row.artifact), first.accuracy, row.accuracy) for row in self.rows[1:])

    @property
    def certificates(self) -> dict[str, Certificate]:
        """Of each further artifact: whether its AP is proven to be less than `max_ap_drop` below that of the first."""
        if self.max_ap_drop is None:
            return {}
        first, names = self.rows[0].accuracy, self.rows[0].truth.class_names
        return {
            row.artifact: certificate(
                first.scores,
                row.accuracy.scores,
                self.max_ap_drop,
                first.images,
                agreement=agreement_scores(first.found, row.accuracy.found, names),
                seed=self.seed,
            )
            for row in self.rows[1:]
        }

    @property
    def error_differences(self) -> tuple[ErrorDifference, ...]:
        """What each further artifact gets wrong that the first does not."""
        splits = [(row.errors, row.shown_errors) for row in self.rows]
        return tuple(error_difference(splits[0], one) for one in splits[1:])

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the figures, each once."""
        return tuple(dict.fromkeys(note for row in self.rows for note in row.notes))

    def to_json(self) -> dict[str, Any]:
        """As `eval --json` writes it: of one artifact its keys at the top, of several a row each and their differences."""
        how: dict[str, Any] = {"resamples": self.resamples, "seed": self.seed, "machine": dict(self.machine)}
        if self.worst:
            how["worst"] = [picture.to_json() for picture in self.worst]
        if len(self.rows) == 1:
            return {**self.rows[0].to_json(), **how}
        if self.max_ap_drop is not None:
            how["certificates"] = {name: one.to_json() for name, one in self.certificates.items()}
        rows = [row.to_json() for row in self.rows]
        both = zip(self.differences, self.error_differences, strict=True)
        differences = [{**one.to_json(), "errors": errors.to_json()} for one, errors in both]
        return {**how, "notes": list(self.notes), "rows": rows, "differences": differences}
