"""How fast each engine is: from a frame in the host's memory to its detections, and the network alone.

python -m acceptance.engines --work DIR --group yolov3-416-b1 --json FILE [--seconds S]
"""

import argparse
import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acceptance import target
from acceptance.cases import SIMULATED, Case, load_cases
from acceptance.frames import suite_frames
from yolov3_trt.backends.trt import TensorRTBackend
from yolov3_trt.benchmarking.latency import measure, rounds_for
from yolov3_trt.benchmarking.machine import machine
from yolov3_trt.detector import Detector
from yolov3_trt.errors import Yolov3TrtError
from yolov3_trt.preprocess import Image

_WARMUP, _DEVICE_CALLS, _KEPT_SAMPLES = (1, 2, 20) if SIMULATED else (30, 50, 200)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--group", required=True, help="of the cases")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args(arguments)
    cases = [case for case in load_cases(options.work) if case.group == options.group]
    rows = [measure_case(case, options.work, options.seconds) for case in cases]
    content = {"simulated": SIMULATED, "machine": machine(), "seconds": options.seconds, "rows": rows}
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    if failed := [row["name"] for row in rows if "failed" in row]:
        raise SystemExit(f"not measured: {', '.join(failed)}; {options.json} has the reasons")


def measure_case(case: Case, work: Path, seconds: float) -> dict[str, Any]:
    """All figures of an engine, or why there are none."""
    images = suite_frames(work)
    frames = [images[k % len(images)] for k in range(max(case.batch, len(images)))]
    row: dict[str, Any] = {"name": case.name, **vars(case)}
    try:
        row["with_graph"] = _figures(case, work, frames, seconds, use_graphs=True)
        row["without_graph"] = _figures(case, work, frames, seconds, use_graphs=False)
    except (Yolov3TrtError, OSError) as exc:
        row["failed"] = " ".join(str(exc).split())
    return row


def _figures(case: Case, work: Path, frames: list[Image], seconds: float, *, use_graphs: bool) -> dict[str, Any]:
    device = target.open_device()
    free_bytes = device.free_bytes
    runtime = target.open_runtime(case, work, device, use_graphs=use_graphs)
    with runtime:
        detector = Detector(runtime)
        latency = _latency(detector, frames, case.batch, seconds)
        throughput = _throughput(detector, frames, case.batch, seconds)
        return {
            **latency,
            **throughput,
            "device_stages_ms": _device_stages(runtime, frames[: case.batch]),
            "gpu_memory_mib": (free_bytes - device.free_bytes) / 2**20,  # with both slots
            "fallbacks": list(runtime.fallbacks),
        }


def _latency(detector: Detector, frames: list[Image], batch: int, seconds: float) -> dict[str, Any]:
    """Of one call after the other, the frames in host memory that is not pinned, as a camera's are."""
    timings = measure(
        {"engine": detector}, frames, rounds=rounds_for(seconds), warmup=_WARMUP, batches={"engine": batch}
    )["engine"]
    figures = timings.figures(None).to_json()
    step = max(1, len(timings.wall_s) // _KEPT_SAMPLES)
    return {
        "calls": len(timings.wall_s),
        "latency_ms": figures["latency_ms"],
        "host_stages_ms": figures["stages_ms"],
        "samples_ms": [round(wall_s * 1e3, 4) for wall_s in timings.wall_s[::step]],
    }


def _throughput(detector: Detector, frames: list[Image], batch: int, seconds: float) -> dict[str, Any]:
    """Of both slots kept busy, and what that takes of one core: the time of all the process's threads."""
    taken = [frames[k : k + batch] for k in range(0, len(frames) - batch + 1, batch)]
    for k in range(_WARMUP):
        _ = detector.timed(taken[k % len(taken)])
    for _ in range(detector.num_slots):
        detector.submit(taken[0])
    done, cpu_s, wall_s = 0, time.process_time(), time.perf_counter()
    for k in rounds_for(seconds):
        detector.result()
        detector.submit(taken[k % len(taken)])
        done += batch
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    for _ in range(detector.num_slots):
        detector.result()
    return {"throughput_fps": done / wall_s, "cpu_share_of_a_core": cpu_s / wall_s}


def _device_stages(runtime: TensorRTBackend, frames: Sequence[Image]) -> dict[str, float]:
    """The GPU's own time for each stage, medians."""
    gc.collect()  # not in between
    calls = [runtime.device_stages_ms(frames) for _ in range(_DEVICE_CALLS)]
    return {stage: float(np.median([call[stage] for call in calls])) for stage in calls[0]}


if __name__ == "__main__":
    main()
