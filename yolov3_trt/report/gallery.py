"""Pictures of a report: small, with what each row found drawn onto them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.benchmarking.results import BenchmarkResult
from yolov3_trt.camera.draw import draw_detections
from yolov3_trt.data.checking import CheckedSet, some_pictures
from yolov3_trt.data.images import load_image
from yolov3_trt.detections import Detections
from yolov3_trt.errors import require
from yolov3_trt.evaluation.accuracy import Evaluated, Evaluation
from yolov3_trt.evaluation.worst import confident, outcome
from yolov3_trt.preprocess import Image

_SIDE = 640  # px, the longer one at most
_QUALITY = 85


def benchmark_gallery(result: BenchmarkResult) -> list[tuple[str, dict[str, bytes]]]:
    """The first pictures as each way to run an artifact sees them: (name of the picture, label of a row -> JPEG file)."""
    # Rows that differ in the batch alone find the same: the first stands for all.
    ways = {(row.artifact, row.backend, row.precision, row.device): row for row in reversed(result.rows) if row.found}
    rows = [row for row in result.rows if row in ways.values()]
    return [
        (
            Path(picture.name).name,
            {row.label: small_jpeg(draw_detections(picture.pixels, row.found[number])) for row in rows},
        )
        for number, picture in enumerate(result.shown)
    ]


def data_gallery(checked: CheckedSet, count: int) -> list[tuple[str, dict[str, bytes]]]:
    """Pictures of a data set with their boxes: (name of the picture, its part -> JPEG file)."""
    found = []
    for split, number in some_pictures(checked.sets, count):
        one = checked.sets[split]
        file = one.files[number]
        xyxy = file.xywh.astype(np.float32)
        xyxy[:, 2:] += xyxy[:, :2]
        boxes = Detections(xyxy, np.ones(len(xyxy), np.float32), file.class_ids, one.class_names)
        found.append((file.name, {split: small_jpeg(draw_detections(load_image(file.path), boxes))}))
    return found


def evaluation_gallery(result: Evaluation) -> list[tuple[str, dict[str, bytes]]]:
    """The worst pictures of an evaluation: the truth, then what each artifact finds, in the same form."""
    truth = result.rows[0].truth
    return [
        (
            worst.score.file_name,
            {
                label: small_jpeg(picture)
                for label, picture in drawn_pictures(
                    result.rows, worst.score.image_id, load_image(truth.paths[worst.score.image_id])
                ).items()
            },
        )
        for worst in result.worst
    ]


def drawn_pictures(rows: Sequence[Evaluated], image_id: Any, pixels: Image) -> dict[str, Image]:
    """Label -> the picture with boxes: the truth first, then what each artifact shows, with what it missed and invented."""
    boxes = {row.artifact: _marked(row, image_id) for row in rows}
    return {
        label: draw_detections(pixels, detections)
        for label, detections in {"truth": rows[0].truth.truth(image_id), **boxes}.items()
    }


def _marked(row: Evaluated, image_id: Any) -> Detections:
    """What is right under its name, `missed NAME` and `invented NAME`."""
    parts = outcome(row.truth, image_id, confident(row.accuracy.found[image_id], row.own_conf))
    names = tuple(row.truth.class_names)
    scores = np.concatenate([part.scores for part in parts])
    xyxy = np.concatenate([part.xyxy for part in parts])
    class_ids = np.concatenate([part.class_ids + len(names) * kind for kind, part in enumerate(parts)]).astype(np.int32)
    best_first = np.argsort(-scores, kind="stable")
    return Detections(
        xyxy[best_first],
        scores[best_first],
        class_ids[best_first],
        tuple(f"{word}{name}" for word in ("", "missed ", "invented ") for name in names),
    )


def small_jpeg(picture: Image) -> bytes:
    """A picture as a small JPEG file."""
    cv2 = require("cv2", extra="opencv")
    scale = min(1.0, _SIDE / max(picture.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in picture.shape[1::-1])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    encoded: bytes = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
    return encoded
