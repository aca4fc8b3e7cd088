"""Average precision of artifacts, side by side on the same labelled pictures."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.arguments import MAX_COUNT, flag, integer, number
from yolov3_trt.arguments import path as path_of
from yolov3_trt.benchmarking.machine import machine
from yolov3_trt.data.images import load_image, save_image
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.detector import Detector
from yolov3_trt.errors import SettingError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD
from yolov3_trt.evaluation.accuracy import RESAMPLES, Evaluated, Evaluation, measure_accuracy
from yolov3_trt.evaluation.narrowing import narrowed
from yolov3_trt.evaluation.origin import training_overlap_note
from yolov3_trt.evaluation.worst import WorstPicture, worst_pictures
from yolov3_trt.files import make_folder
from yolov3_trt.jobs.opening import Artifact, Opening, artifacts_from, sets_from
from yolov3_trt.meta import ModelMeta
from yolov3_trt.report.gallery import drawn_pictures
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.selection import Selection
from yolov3_trt.settings import DetectSettings, settings_from

MAX_RESAMPLES = 100_000
_ALL = Selection()


def evaluate(
    artifacts: Artifact | Iterable[Artifact],
    *,
    data: Artifact | LabelledSet | None = None,
    split: str | None = None,
    images: Artifact | None = None,
    annotations: Artifact | None = None,
    skip_faulty: bool = False,
    weights: Artifact | None = None,
    names: str | None = None,
    input_size: Any = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    trust: bool = False,
    precision: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    max_ap_drop: float | None = None,
    worst: int = 0,
    worst_folder: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> Evaluation:
    """Measure COCO average precision of artifacts on the same labelled pictures.

    Args:
        artifacts: what `open_detector` opens, one or more; the others are compared with the first.
        data: labelled pictures, see `data.labelled_set`: a YOLO data.yaml, a COCO JSON, or a set.
        split: of a data.yaml; None: `val`.
        images: folder of the pictures of a COCO JSON; None: looked for beside it.
        annotations: COCO instances (JSON) of `images`; the same as `data`.
        skip_faulty: leave out faulty labels and pictures, which is said, instead of refusing the set.
        weights: of the artifacts that are models; so are the next two. See `open_detector`.
        names: class names of models.
        input_size: of models, px.
        backend: what must run them, and so on for the next three; see `open_detector`.
        device: `cpu`, `cuda` or `auto`.
        threads: CPU threads of the backend.
        trust: of engines.
        precision: what OpenVINO computes in, see `open_backend`.
        resamples: draws of the pictures for the 95 % interval of AP; 0: none.
        seed: of those draws.
        max_ap_drop: say of each further artifact whether AP is proven to drop by less than this, 0..1.
        worst: keep this many pictures that came out worst, all artifacts together.
        worst_folder: draw those into this folder: the truth at the left, then what each artifact finds.
        reporter: is told how it gets on.
        settings: any of `DetectSettings`; `conf` is 0.005 where nothing else is said, as Darknet evaluates. Any of `Selection`:
            only those classes are scored, and objects that are too small or not in the zones count neither for nor against.

    Raises:
        SettingError: an argument has no such value, or no labelled pictures are named.
        EvaluationError: the labels are not of this model or these pictures.
        Yolov3TrtError: an artifact or a picture cannot be read.

    >>> evaluate("yolov3.engine", data="data.yaml").rows[0].accuracy.metrics["AP50"]  # doctest: +SKIP
    """
    names_of = artifacts_from(artifacts)
    opening = Opening(weights, names, input_size, backend, device, threads, flag("trust", trust), precision)
    draws = integer("resamples", resamples, 0, MAX_RESAMPLES), integer("seed", seed, 0, MAX_COUNT)
    limit = None if max_ap_drop is None else number("max_ap_drop", max_ap_drop, 0, 1)
    worst = integer("worst", worst, 0, MAX_COUNT)
    if worst_folder is not None and not worst:
        raise SettingError("worst_folder", "given without worst; say how many pictures")
    detect, selection = settings_from(settings, DetectSettings, Selection)
    labelled = sets_from(images, data, split, annotations, reporter, skip_faulty=flag("skip_faulty", skip_faulty))[1]
    if labelled is None:
        raise SettingError("data", "missing; expected a labelled set, e.g. a data.yaml or a COCO JSON")
    rows = evaluated(names_of, opening, for_evaluation(detect), labelled, draws, reporter, selection)
    drawn = drawn_worst(rows, worst, None if worst_folder is None else path_of("worst_folder", worst_folder))
    return Evaluation(rows, *draws, worst=drawn, machine=machine(), max_ap_drop=limit)


def evaluated(
    artifacts: Iterable[str],
    opening: Opening,
    detect: DetectSettings,
    labelled: LabelledSet,
    draws: tuple[int, int],
    reporter: Reporter,
    selection: Selection = _ALL,
) -> tuple[Evaluated, ...]:
    """Each artifact on all pictures, one open at a time; `draws` are the bootstrap's number and seed."""
    rows = []
    for artifact in artifacts:
        with opening.open(artifact, detect) as detector:
            rows.append(_evaluated(artifact, detector, labelled, draws, reporter, selection))
    return tuple(rows)


def for_evaluation(detect: DetectSettings) -> DetectSettings:
    """The same with the threshold of an evaluation where none is given."""
    return replace(detect, conf=EVAL_CONF_THRESHOLD if detect.conf is None else detect.conf)


def _evaluated(
    artifact: str,
    detector: Detector,
    labelled: LabelledSet,
    draws: tuple[int, int],
    reporter: Reporter,
    selection: Selection,
) -> Evaluated:
    def tracked(items: Iterable[Any], what: str, total: int | None) -> Iterable[Any]:
        return reporter.track(items, f"evaluating {artifact}" if what == "evaluating" else what, total)

    selection.check(detector.meta.class_names, detector.postprocess.conf)
    truth = narrowed(labelled.truth_for(detector.meta.class_names), selection)
    accuracy = measure_accuracy(detector, truth, selection=selection, resamples=draws[0], seed=draws[1], track=tracked)
    note = training_overlap_note(detector.meta, truth)
    return Evaluated(
        artifact,
        detector.backend.name.value,
        detector.meta.precision.value,
        detector.meta.preprocess.resize.value,
        detector.postprocess.nms.kind.value,
        detector.postprocess.conf,
        _size_bytes(artifact),
        accuracy,
        truth,
        detector.backend.meta.postprocess.conf,
        detector.backend.fallbacks,
        (*truth.notes, *([] if note is None else [note]), *_certificate_notes(artifact, detector.meta)),
    )


def _certificate_notes(artifact: str, meta: ModelMeta) -> tuple[str, ...]:
    """What is known of it already; the pictures behind that are others."""
    return () if meta.certificate is None else (f"{artifact}: {meta.certificate}, when it was quantised",)


def _size_bytes(artifact: str) -> int | None:
    """Of a file; None for a model, and for what a server runs."""
    path = Path(artifact)
    return path.stat().st_size if path.is_file() and path.suffix != ".cfg" else None


def drawn_worst(rows: tuple[Evaluated, ...], count: int, folder: Path | None) -> tuple[WorstPicture, ...]:
    """The worst pictures of all artifacts together, and where there is a folder a file of each in it."""
    worst = worst_pictures(rows)[:count] if count else ()
    if folder is None:
        return tuple(WorstPicture(score) for score in worst)
    make_folder(folder)
    found = []
    for rank, score in enumerate(worst, start=1):
        path = folder / f"{rank:02}-{Path(score.file_name).stem}.jpg"
        pixels = load_image(rows[0].truth.paths[score.image_id])
        pictures = list(drawn_pictures(rows, score.image_id, pixels).values())
        gap = np.full((pixels.shape[0], 8, 3), 255, np.uint8)
        save_image(np.hstack([piece for picture in pictures for piece in (picture, gap)][:-1]), path)
        found.append(WorstPicture(score, path))
    return tuple(found)
