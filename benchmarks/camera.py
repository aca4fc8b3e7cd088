"""What the capture loop costs beside its backend, and how near to the backend's own speed it comes.

    python -m benchmarks.camera --json camera-loop.json

*CPU*: pictures of 1280x720 go through the loop to a detector that does nothing; the CPU time of the whole process, grab threads
included, is divided by the frames. *Speed*: the bundled model on ONNX Runtime, alone and in the loop in turn, on the same
pictures, in many short rounds, because machines that are shared slow down and recover; figures are medians of rounds. Beside
the wall clock stands the CPU time of the calling thread, which others on the machine disturb less. *Lag*: a camera of 60 fps
before a detector that takes 0.2 s.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.fakes import FakeBackend, ScriptedCamera, SlowBackend
from yolov3_trt.backends import TimedDetections
from yolov3_trt.benchmarking.latency import machine
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.loop import LoopOptions, run_loop
from yolov3_trt.camera.sinks import JsonLinesSink, Sink, VideoSink
from yolov3_trt.camera.sources import Source, VideoSource
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.jobs.export import export
from yolov3_trt.models import load_model
from yolov3_trt.shapes import iter_shapes_clip

IMAGE_HW = (720, 1280)


class Nothing(FakeBackend):
    """Takes pictures and finds nothing, in no time."""

    num_slots = 1

    def configure(self, preprocess: Any, postprocess: Any) -> None:
        pass

    def submit(self, images: Sequence[np.ndarray]) -> None:
        self._count = len(images)

    def result(self) -> TimedDetections:
        return TimedDetections(
            [Detections.none()] * self._count, {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0}
        )


class Memory(Source):
    """The same few pictures, a number of times; as copies where memory is to be as fresh as a camera's."""

    live, fps, name = False, 30.0, "memory"

    def __init__(self, pictures: Sequence[np.ndarray], count: int, *, copies: bool = True) -> None:
        self._pictures, self._left, self._copies = pictures, count, copies

    def read(self) -> Frame | None:
        if not self._left:
            return None
        self._left -= 1
        pixels = self._pictures[self._left % len(self._pictures)]
        return Frame(pixels.copy() if self._copies else pixels, self.name, self._left, time.monotonic())

    def close(self) -> None:
        pass


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--lag-seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(args)

    pictures = [picture.pixels for picture in iter_shapes_clip(5, 20, IMAGE_HW)]
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "command": "python -m benchmarks.camera",
            "machine": machine(),
            "frames": options.frames,
            "rounds": options.rounds,
            "image_hw": IMAGE_HW,
            "cpu_ms_per_frame": cpu_ms(pictures, Path(folder), options.frames, options.rounds),
            "speed": speed(pictures, Path(folder), 80, options.rounds * 4),
            "lag": lag(options.lag_seconds),
            "load_average": os.getloadavg(),
        }
    print(json.dumps({key: content[key] for key in ("cpu_ms_per_frame", "speed", "lag", "load_average")}, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def cpu_ms(pictures: Sequence[np.ndarray], folder: Path, frames: int, rounds: int) -> dict[str, float]:
    """Medians, ms of CPU time per frame: the loop alone, with a video to decode, with each kind of file to write."""
    clip = folder / "clip.mp4"
    with Detector(Nothing()) as nothing, VideoSink(clip, 30) as video:
        run_loop(nothing, [Memory(pictures, frames)], [video])
    cases: dict[str, Callable[[], tuple[Source, list[Sink]]]] = {
        "copies_alone": lambda: (Memory(pictures, frames), []),  # without the loop: what it is not to blame for
        "mp4_alone": lambda: (VideoSource(clip), []),
        "loop": lambda: (Memory(pictures, frames), []),
        "loop_and_jsonl": lambda: (Memory(pictures, frames), [JsonLinesSink(folder / "a.jsonl")]),
        "loop_from_mp4": lambda: (VideoSource(clip), []),
        "loop_to_mp4": lambda: (Memory(pictures, frames), [VideoSink(folder / "a.mp4", 30)]),
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, make in cases.items():
            source, sinks = make()
            started_s = time.process_time()
            if name.endswith("_alone"):
                while source.read() is not None:
                    pass
            else:
                with Detector(Nothing()) as detector:
                    run_loop(detector, [source], sinks)
            taken[name].append((time.process_time() - started_s) * 1e3 / frames)
            source.close()
            for sink in sinks:
                sink.close()
    return {name: round(statistics.median(times), 4) for name, times in taken.items()}


def speed(pictures: Sequence[np.ndarray], folder: Path, frames: int, rounds: int) -> dict[str, Any]:
    """Frames per second of the bundled model alone and in the loop."""
    graph = folder / "shapes.onnx"
    export(load_model("shapes"), graph)
    alone, in_loop = [], []
    alone_cpu, in_loop_cpu = [], []
    with open_detector(graph, threads=1) as detector:
        detector(pictures[0])
        for _ in range(rounds):
            started_s, cpu_s = time.monotonic(), time.thread_time()
            for n in range(frames):
                detector.timed([pictures[n % len(pictures)]])
            alone.append(frames / (time.monotonic() - started_s))
            alone_cpu.append((time.thread_time() - cpu_s) * 1e3 / frames)
            cpu_s = time.thread_time()
            # No copies here either: what fresh memory costs (about a tenth of this backend's time) is not the loop's.
            in_loop.append(run_loop(detector, [Memory(pictures, frames, copies=False)], []).summary()["fps"])
            in_loop_cpu.append((time.thread_time() - cpu_s) * 1e3 / frames)
    return {
        "rounds": rounds,
        "frames_per_round": frames,
        "backend_fps": statistics.median(alone),
        "loop_fps": statistics.median(in_loop),
        "ratio": statistics.median(loop / backend for loop, backend in zip(in_loop, alone, strict=True)),
        "backend_cpu_ms": statistics.median(alone_cpu),
        "loop_cpu_ms": statistics.median(in_loop_cpu),
        "cpu_ratio": statistics.median(a / b for a, b in zip(alone_cpu, in_loop_cpu, strict=True)),
    }


def lag(seconds: float) -> dict[str, Any]:
    """Age of frames where the camera is much faster than the detector; memory at the begin and the end."""
    picture = np.zeros((480, 640, 3), np.uint8)
    script = itertools.chain.from_iterable((1 / 60, picture.copy()) for _ in itertools.count())
    memory: list[float] = []
    options = LoopOptions(duration_s=seconds, on_frame=lambda result: memory.append(_resident_mib()))
    summary = run_loop(Detector(SlowBackend(0.2)), [ScriptedCamera(script)], [], options).summary()
    return {
        "seconds": seconds,
        **{key: summary[key] for key in ("captured", "processed", "dropped", "frame_age_ms", "latency_ms")},
        "wait_ms": summary["stages_ms"]["wait"],
        "frame_interval_ms": summary["elapsed_s"] * 1e3 / summary["captured"],
        "resident_mib": {"begin": round(memory[10], 2), "end": round(memory[-1], 2), "max": round(max(memory), 2)},
    }


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
