"""COCO's average precision of 5,000 synthetic pictures, ours beside pycocotools': equal numbers, and the time.

    python -m benchmarks.evaluation -o docs/results/evaluation-speed.json

A set of the size of val2017: about 36,000 objects of 80 classes, some of them crowds, and 96 detections a picture, half of them
near an object. Times are of the processor; reading results into either form is counted, reading files is not.
"""

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov3_trt.benchmarking.machine import machine
from yolov3_trt.evaluation import METRICS, average_precision

Rows = list[dict[str, Any]]
CLASSES, DETECTIONS, SIDE = 80, 96, 640  # of detections: in a picture


def synthetic(pictures: int, seed: int = 0) -> tuple[dict[str, Any], Rows]:
    """COCO instances and COCO results, made up."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CLASSES + 1)
    annotations: Rows = []
    results: Rows = []
    for image_id in range(1, pictures + 1):
        some = rng.choice(CLASSES, 3, p=share / share.sum())
        count = int(rng.poisson(7))
        class_ids, xywh = rng.choice(some, count), boxes(rng, count)
        for class_id, box in zip(class_ids, xywh, strict=True):
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(class_id) + 1}
            area = float(box[2] * box[3] * rng.uniform(0.5, 1))
            annotations.append({**row, "iscrowd": int(rng.random() < 0.01), "bbox": box.tolist(), "area": area})
        near = rng.integers(0, count, DETECTIONS // 2) if count else np.zeros(0, int)
        shift = rng.normal(0, 0.12, (len(near), 4))
        close = np.hstack([xywh[near, :2] + shift[:, :2] * xywh[near, 2:], xywh[near, 2:] * np.exp(shift[:, 2:])])
        found = np.vstack([close, boxes(rng, DETECTIONS - len(near))]).astype(np.float32)
        guessed = np.where(
            rng.random(DETECTIONS) < 0.5, rng.choice(some, DETECTIONS), rng.integers(0, CLASSES, DETECTIONS)
        )
        guessed[: len(near)] = np.where(rng.random(len(near)) < 0.85, class_ids[near], guessed[: len(near)])
        scores = np.append(rng.beta(1, 3, len(near)), rng.beta(0.5, 6, DETECTIONS - len(near))).round(3)
        for class_id, box, score in zip(guessed, found.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": image_id, "category_id": int(class_id) + 1, "bbox": box, "score": score})
    content = {
        "info": {},
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in range(1, pictures + 1)],
        "annotations": annotations,
        "categories": [{"id": n, "name": f"class{n}"} for n in range(1, CLASSES + 1)],
    }
    return content, results


def boxes(rng: np.random.Generator, count: int) -> Any:
    """Some of all sizes, (N, 4) xywh."""
    return np.hstack([rng.uniform(0, SIDE - 40, (count, 2)), np.exp(rng.normal(4, 1, (count, 2))).clip(2, SIDE - 40)])


def by_pycocotools(content: dict[str, Any], results: Rows) -> list[float | None]:
    """METRICS; None for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value < 0 else float(value) for value in evaluation.stats[: len(METRICS)]]


def timed(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """What it gives, and seconds of the processor."""
    started = time.process_time()
    result = work(*given)
    return result, time.process_time() - started


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    content, results = synthetic(options.pictures)
    ours, ours_s = timed(average_precision, content, results)
    theirs, theirs_s = timed(by_pycocotools, content, results)
    if list(ours.values()) != theirs:
        raise SystemExit(f"the numbers differ: {ours}; pycocotools: {theirs}")
    found = {
        "pictures": options.pictures,
        "objects": len(content["annotations"]),
        "detections": len(results),
        "metrics": ours,
        "processor_s": {"yolov3_trt": round(ours_s, 2), "pycocotools": round(theirs_s, 2)},
        "times_as_fast": round(theirs_s / ours_s, 1),
        "machine": machine(),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
