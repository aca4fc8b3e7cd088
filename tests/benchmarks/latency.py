"""Picture -> detections by ONNX Runtime, PyTorch and OpenCV's Darknet importer, in interleaved rounds.

    python -m tests.benchmarks.latency --data ../shared/data --json latency.json

Machines that are shared slow down and recover: in a round every peer takes its turn, so that this happens to all of them,
and figures are medians. A Markdown table goes to stdout.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.peers import ALL, THREADS, OpenCvDetector, Subject, load_subject, realistic_threshold
from yolov3_trt.benchmark.latency import machine
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.images import load_image

STAGES = ("preprocess", "inference", "postprocess")
Stages = Callable[[np.ndarray], tuple[float, float, float, Any]]


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the reference data")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", nargs="*", default=[subject.name for subject in ALL], help="models by name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(args)

    picture = load_image(options.data / "images" / "dog.jpg")
    rows: list[dict[str, Any]] = []
    for subject in ALL:
        if subject.name in options.only:
            print(f"{subject.name} ...", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                # Of a large model fewer rounds: a round of yolov3 takes about a second.
                rounds = max(10, options.rounds // 4) if subject.name == "yolov3" else options.rounds
                rows += measure(subject, options.data, Path(folder), picture, rounds)
    command = "python -m tests.benchmarks.latency"
    content = {
        "command": command,
        "machine": machine(),
        "threads": THREADS,
        "picture": "dog.jpg (768x576)",
        "rows": rows,
    }
    print(markdown(content))
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def measure(subject: Subject, data: Path, folder: Path, picture: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """A row per peer."""
    model, cfg, onnx = load_subject(subject, data, folder)
    weights = model.weights_path
    with open_detector(onnx) as detector:
        conf = realistic_threshold(subject, detector, picture)
    peers: dict[str, Stages] = {
        "onnxruntime": staged(open_detector(onnx, conf=conf, threads=THREADS)),
        "torch": staged(open_detector(cfg, weights=weights, conf=conf, threads=THREADS)),
        "opencv": staged_opencv(OpenCvDetector(cfg, weights, model.spec.input_hw, conf)),
    }
    found = {name: len(run(picture)[3]) for name, run in peers.items() for _ in range(3)}  # and warm
    seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in peers}
    for n in range(rounds):
        order = list(peers) if n % 2 else list(reversed(peers))  # nobody always comes after the same one
        for name in order:
            seconds[name].append(peers[name](picture)[:3])
    rows = []
    for name in peers:
        stages = np.array(seconds[name]) * 1e3  # (rounds, 3)
        totals = stages.sum(axis=1)
        ours = np.array(seconds["onnxruntime"]).sum(axis=1) * 1e3
        rows.append(
            {
                "model": subject.name,
                "weights": "pretrained" if subject.pretrained else "fabricated",
                "input_hw": list(model.spec.input_hw),
                "peer": name,
                "rounds": rounds,
                "conf_threshold": conf,
                "detections": found[name],
                "stages_ms": dict(zip(STAGES, np.median(stages, axis=0).tolist(), strict=True)),
                "p50_ms": float(np.median(totals)),
                "p10_ms": float(np.percentile(totals, 10)),
                "p90_ms": float(np.percentile(totals, 90)),
                # Of the same round each, so that a slow spell hits both sides.
                "onnxruntime_is_faster_by": float(np.median(totals / ours)),
            }
        )
    return rows


def staged(detector: Detector) -> Stages:
    """A detector of this package, timed by stage."""

    def run(picture: np.ndarray) -> tuple[float, float, float, Any]:
        times = [time.perf_counter()]
        batch, placements = detector.prepare([picture])
        times.append(time.perf_counter())
        outputs = detector.backend.infer(batch)
        times.append(time.perf_counter())
        found = detector.finish(outputs, placements)[0]
        times.append(time.perf_counter())
        return (*np.diff(times).tolist(), found)

    return run


def staged_opencv(detector: OpenCvDetector) -> Stages:
    """OpenCV, timed by stage; its network decodes boxes, so that belongs to its inference."""

    def run(picture: np.ndarray) -> tuple[float, float, float, Any]:
        times = [time.perf_counter()]
        blob = detector.prepare(picture)
        times.append(time.perf_counter())
        outputs = detector.infer(blob)
        times.append(time.perf_counter())
        found = detector.finish(outputs)[1]
        times.append(time.perf_counter())
        return (*np.diff(times).tolist(), found)

    return run


def markdown(content: dict[str, Any]) -> str:
    """The rows as a table."""
    lines = [
        "| model | input | by | pre ms | net ms | post ms | p50 ms | p10..p90 | vs ORT | objects |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        stages = " | ".join(f"{value:.2f}" for value in row["stages_ms"].values())
        name = row["model"] if row["weights"] == "pretrained" else f"{row['model']} (fabricated weights)"
        lines.append(
            f"| {name} | {'x'.join(map(str, row['input_hw']))} | {row['peer']} | {stages} | {row['p50_ms']:.2f} | "
            f"{row['p10_ms']:.2f}..{row['p90_ms']:.2f} | {row['onnxruntime_is_faster_by']:.2f}x | {row['detections']} |"
        )
    where = content["machine"]
    lines.append(f"\n{where['cpu']}, {where['cores']} cores, {content['threads']} threads; {content['picture']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
