"""What tracking and events cost, and how right they are, on generated clips that know their objects.

    python -m benchmarks.tracking --json tracking-shapes.json

*Cost*: CPU time of one thread for a picture with 20 objects of which one in twenty is missing. *Right*: the bundled model on
clips of moving shapes that pass in front of each other. MOTA and IDF1 are those of the MOT challenge (Bernardin, Stiefelhagen
2008; Ristani et al. 2016), at an IoU of .5; HOTA is that of Luiten et al. 2020. A shape that is hidden by more than a third is
no object of the truth. Events are counted against those of the true boxes with the true numbers.
"""

import argparse
import json
import statistics
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.benchmarking.machine import machine
from yolov3_trt.detections import Detections
from yolov3_trt.detector import open_detector
from yolov3_trt.events import Event, EventEngine
from yolov3_trt.geometry import iou_matrix
from yolov3_trt.places import Line, Places, Zone
from yolov3_trt.shapes import SHAPE_NAMES, LabelledPicture, iter_shapes_clip
from yolov3_trt.tracking import Tracker, assign

FPS, IMAGE_HW, IOU = 30, (480, 640), 0.5
PLACES = Places(
    (Zone(((0.1, 0.3), (0.5, 0.3), (0.5, 0.9), (0.1, 0.9)), "bay", watch=True, stay_s=2.0),),
    (Line(((0.5, 0.0), (0.5, 1.0)), "gate"), Line(((0.2, 0.6), (0.9, 0.6)), "shelf")),
)
Pictures = list[tuple[Detections, Detections]]  # the truth with its numbers, and what was found with its own


def true_detections(picture: LabelledPicture) -> Detections:
    scores = np.ones(len(picture.class_ids), np.float32)
    return Detections(picture.xyxy, scores, picture.class_ids, SHAPE_NAMES, picture.track_ids)


def numbered(found: Detections) -> Detections:
    """Those that have a number."""
    return found[found.track_ids > 0]


def mota_and_idf1(pictures: Pictures) -> dict[str, float]:
    """At an IoU of .5; a match of the picture before is kept where it still holds."""
    objects = misses = inventions = switches = 0
    last: dict[int, int] = {}
    together: Counter[tuple[int, int]] = Counter()
    num_true: Counter[int] = Counter()
    num_found: Counter[int] = Counter()
    for truth, found in pictures:
        iou = iou_matrix(truth.xyxy, found.xyxy)
        true_ids, ids = truth.track_ids.tolist(), found.track_ids.tolist()
        num_true.update(true_ids)
        num_found.update(ids)
        together.update((true_ids[row], ids[column]) for row, column in zip(*np.nonzero(iou >= IOU), strict=True))
        kept = np.array([[last.get(one) == other for other in ids] for one in true_ids]).reshape(iou.shape)
        pairs = assign(np.where(iou >= IOU, (1 - iou) * 1e-3 + 1 - kept, 1e3))
        objects += len(truth)
        misses += len(truth) - len(pairs)
        inventions += len(found) - len(pairs)
        for row, column in pairs:
            switches += last.get(true_ids[row], ids[column]) != ids[column]
            last[true_ids[row]] = ids[column]
    trues, founds = sorted(num_true), sorted(num_found)
    both = np.array([[together[one, other] for other in founds] for one in trues], float)
    identified = sum(both[pair] for pair in assign(np.where(both > 0, both.max() - both, 1e3 - 1e-9)) if both[pair] > 0)
    return {
        "MOTA": 1 - (misses + inventions + switches) / objects,
        "IDF1": 2 * identified / (objects + num_found.total()),
        "misses": misses,
        "inventions": inventions,
        "switches": switches,
        "objects": objects,
    }


def hota(pictures: Pictures) -> dict[str, float]:
    """The mean over IoU .05 to .95 of sqrt(detection accuracy x association accuracy)."""
    index: list[dict[int, int]] = [{}, {}]
    for both in pictures:
        for own, one in zip(index, both, strict=True):
            for number in one.track_ids.tolist():
                own.setdefault(number, len(own))
    shape = (len(index[0]), len(index[1]))
    potential, num_true, num_found = np.zeros(shape), np.zeros(shape[0]), np.zeros(shape[1])
    rows = []
    for truth, found in pictures:
        iou = iou_matrix(truth.xyxy, found.xyxy).astype(float)
        places = [
            np.array([own[number] for number in one.track_ids.tolist()], int)
            for own, one in zip(index, (truth, found), strict=True)
        ]
        union = iou.sum(axis=0, keepdims=True) + iou.sum(axis=1, keepdims=True) - iou
        potential[np.ix_(*places)] += np.divide(iou, union, out=np.zeros_like(iou), where=union > 0)
        num_true[places[0]] += 1
        num_found[places[1]] += 1
        rows.append((iou, places))
    alignment = potential / (num_true[:, None] + num_found[None] - potential)
    values = []
    for alpha in np.arange(0.05, 0.99, 0.05):
        matches = np.zeros(shape)
        for iou, places in rows:
            scores = alignment[np.ix_(*places)] * iou
            for row, column in assign(np.where(iou >= alpha - 1e-9, 1 - scores, 1e3)):
                matches[places[0][row], places[1][column]] += 1
        hits = matches.sum()
        detection = hits / (num_true.sum() + num_found.sum() - hits)
        of_pair = matches / np.maximum(1, num_true[:, None] + num_found[None] - matches)
        association = (matches * of_pair).sum() / max(1.0, hits)
        values.append((np.sqrt(detection * association), detection, association))
    mean = np.mean(values, axis=0)
    return {"HOTA": float(mean[0]), "DetA": float(mean[1]), "AssA": float(mean[2])}


def event_errors(true: list[Event], found: list[Event]) -> dict[str, dict[str, int]]:
    """By kind: how many there are, and by how much the counts of each place, direction and class are off in sum."""
    counts = [
        Counter((one.kind, one.place, one.direction, one.found.class_name) for one in some) for some in (true, found)
    ]
    errors: dict[str, dict[str, int]] = defaultdict(lambda: {"true": 0, "found": 0, "count_error": 0})
    for key in counts[0].keys() | counts[1].keys():
        row = errors[key[0]]
        row["true"] += counts[0][key]
        row["found"] += counts[1][key]
        row["count_error"] += abs(counts[0][key] - counts[1][key])
    return dict(sorted(errors.items()))


def rightness(seeds: range, frames: int) -> dict[str, Any]:
    pictures: Pictures = []
    true_events: list[Event] = []
    events: list[Event] = []
    with open_detector("shapes", threads=1) as detect:
        for seed in seeds:
            tracker = Tracker(begin=detect.postprocess.conf + 0.1)
            truths, engine = EventEngine(PLACES), EventEngine(PLACES)
            for index, picture in enumerate(iter_shapes_clip(seed, frames, IMAGE_HW)):
                at_s, truth = index / FPS, true_detections(picture)
                found = tracker.update(detect(picture.pixels), at_s)
                true_events += truths.update(truth, IMAGE_HW, at_s)
                events += engine.update(found, IMAGE_HW, at_s)
                shift = seed * 100_000  # numbers of different clips are different objects
                pictures.append(tuple(_shifted(one, shift) for one in (truth, numbered(found))))  # type: ignore[arg-type]
    return {
        "clips": len(seeds),
        "pictures": len(pictures),
        **mota_and_idf1(pictures),
        **hota(pictures),
        "events": event_errors(true_events, events),
    }


def _shifted(found: Detections, by: int) -> Detections:
    assert found.track_ids is not None
    return Detections(found.xyxy, found.scores, found.class_ids, found.class_names, found.track_ids + by)


def cost(objects: int = 20, pictures: int = 600) -> dict[str, float]:
    """CPU ms of a picture, median and 95th percentile."""
    rng = np.random.default_rng(0)
    start, velocity = rng.uniform(0, 1800, (objects, 2)), rng.uniform(-3, 3, (objects, 2))
    tracker, engine = Tracker(), EventEngine(PLACES)
    times: dict[str, list[float]] = {"tracking": [], "events": []}
    for index in range(pictures):
        low = start + velocity * index + rng.normal(0, 1, (objects, 2))
        scores = rng.uniform(0.5, 0.95, objects).astype(np.float32)
        order = np.argsort(-scores)[rng.random(objects) > 0.05]
        xyxy = np.concatenate([low, low + np.array([60, 90])], axis=1).astype(np.float32)[order]
        found = Detections(xyxy, scores[order], np.zeros(len(order), np.int32), ("person",))
        before_s = time.thread_time()
        tracked = tracker.update(found, index / FPS)
        between_s = time.thread_time()
        engine.update(tracked, (1080, 1920), index / FPS)
        times["tracking"].append((between_s - before_s) * 1e3)
        times["events"].append((time.thread_time() - between_s) * 1e3)
    return {
        f"{name}_{label}_ms": round(value, 4)
        for name, own in times.items()
        for label, value in (("p50", statistics.median(own[50:])), ("p95", float(np.percentile(own[50:], 95))))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    content = {
        "command": "python -m benchmarks.tracking",
        "machine": machine(),
        "cost_of_20_objects": cost(),
        **rightness(range(100, 100 + args.clips), args.frames),
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    if args.json is not None:
        args.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
