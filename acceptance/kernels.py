"""How long each kernel takes on its own, and what share of the memory's speed it reaches.

    python -m acceptance.kernels --work DIR --group yolov3-416-b1 --json FILE

Many launches in a graph are timed by the device's clock, so that what a launch costs the host does not count. What a kernel
reads may still lie in the cache, as in the product, where the frame was copied in just before: a share can exceed 1.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acceptance import target
from acceptance.cases import SIMULATED, Case, load_cases
from acceptance.frames import suite_frames
from acceptance.on_device import Detection, OnDevice
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import ModelMeta, load_model_meta
from yolov3_trt.runtime.kernels.letterbox import Frames, letterbox

_LAUNCHES, _REPEATS = (2, 3) if SIMULATED else (50, 30)
_LEAST_US = 0.01  # where a difference of two times is lost in their noise
_CANDIDATE_BYTES = 8 + 16  # key and box
_MANY = 1000
_COPY_BYTES = 1 << 20 if SIMULATED else 512 << 20  # far beyond any cache


@dataclass(frozen=True)
class KernelTime:
    """A kernel, alone."""

    kernel: str
    subject: str  # what it worked on
    rows: int
    time_us: float  # median of a launch
    num_bytes: int  # that it must read and write, each once

    def to_json(self, copy_gb_per_s: float) -> dict[str, Any]:
        """With the share of what a copy moves in the same time."""
        gb_per_s = self.num_bytes / (self.time_us * 1e-6) / 1e9
        return {**vars(self), "gb_per_s": gb_per_s, "share_of_copy": gb_per_s / copy_gb_per_s}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--group", required=True, help="of the cases")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    case = next(
        case for case in load_cases(options.work) if case.group == options.group
    )  # its precision is nothing to them
    with target.open_device() as device:
        on = OnDevice(device)
        copied = target.copy_gb_per_s(device, _COPY_BYTES)
        times = [*measure(on, case, options.work), many_candidates(on, load_model_meta(case.graph(options.work)))]
        content = {
            "simulated": SIMULATED,
            "device": device.name,
            "copy_gb_per_s": copied,
            "launches": _LAUNCHES * _REPEATS,
            "rows": [time.to_json(copied) for time in times],
        }
    options.json.write_text(json.dumps(content, indent=1) + "\n")


def measure(on: OnDevice, case: Case, work: Path) -> list[KernelTime]:
    """Every kernel of a batch of camera frames."""
    meta = load_model_meta(case.graph(work))
    images = suite_frames(work)
    frames = np.stack([images[k % len(images)] for k in range(case.batch)])
    with np.load(case.expected(work)) as expected:
        pictures = [k % len(expected["images"]) for k in range(case.batch)]
        heads = [expected[head.name][pictures] for head in meta.heads]
    return [_letterbox(on, meta, frames, case), *_detection(on, meta, heads, case)]


def _letterbox(on: OnDevice, meta: ModelMeta, frames: NDArray[np.uint8], case: Case) -> KernelTime:
    height, width = frames.shape[1:3]
    placement = Placement.of((height, width), meta.input_hw, meta.preprocess.resize)
    source, batch = on.put(frames), on.empty(meta.input_shape(case.batch), meta.input_dtype)
    layout = Frames(source.address, 3 * width, case.batch, 3 * width * height)
    launch = letterbox(placement, meta.preprocess, layout, batch.address, meta.input_dtype)
    time_us = median_us(on, lambda: on.device.launch(launch, on.stream))
    # Of each line of the result two of the frame are read, and of those all bytes, as memory comes in pieces of 32.
    lines = min(height, 2 * placement.resized_hw[0])
    num_bytes = case.batch * lines * 3 * width + batch.nbytes
    on.device.free(source, batch)
    return KernelTime(launch.kernel, f"{width}x{height} -> {case.subject}", case.batch, time_us, num_bytes)


def _detection(on: OnDevice, meta: ModelMeta, heads: list[NDArray[np.float32]], case: Case) -> list[KernelTime]:
    found = Detection(on, meta, case.batch)
    candidates = int(np.abs(found(heads)["num_candidates"]).sum())
    arrays = [on.put(array) for array in heads]
    decode, nms = found.launches(arrays)

    def clear() -> None:
        on.device.fill(found.counts, 0, on.stream)

    def clear_and_decode() -> None:
        clear()
        on.device.launch(decode, on.stream)

    def both() -> None:
        on.device.launch(decode, on.stream)
        on.device.launch(nms, on.stream)

    # Neither repeats alone: `decode` fills a list that `nms` empties.
    clear_us, cleared_us, both_us = (median_us(on, work) for work in (clear, clear_and_decode, both))
    decode_us = max(_LEAST_US, cleared_us - clear_us)
    on.device.free(*arrays)
    found.close()
    boxes = case.batch * sum(len(head.anchors_wh) * head.grid_hw[0] * head.grid_hw[1] for head in meta.heads)
    what = f"{case.subject}, {candidates} candidates"
    return [
        KernelTime(decode.kernel, what, case.batch, decode_us, 4 * boxes + _CANDIDATE_BYTES * candidates),
        KernelTime(nms.kernel, what, case.batch, max(_LEAST_US, both_us - decode_us), _CANDIDATE_BYTES * candidates),
    ]


def many_candidates(on: OnDevice, meta: ModelMeta) -> KernelTime:
    """Suppression of a thousand candidates in a picture, as a threshold for evaluation leaves them."""
    rng = np.random.default_rng(0)
    found = Detection(on, meta, 1)
    _, nms = found.launches([on.empty((1,), np.float32) for _ in meta.heads])
    corners = rng.uniform(0, 0.8 * min(meta.input_hw), (_MANY, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 60, (_MANY, 2))], axis=1).astype(np.float32)
    keys = (~rng.random(_MANY, np.float32).view(np.uint32)).astype(np.uint64) << np.uint64(32) | np.arange(
        _MANY, dtype=np.uint64
    )
    say_how_many = found.place(boxes, keys)

    def both() -> None:
        say_how_many()
        on.device.launch(nms, on.stream)

    time_us = max(_LEAST_US, median_us(on, both) - median_us(on, say_how_many))
    found.close()
    return KernelTime(nms.kernel, f"{_MANY} candidates", 1, time_us, _CANDIDATE_BYTES * _MANY)


def median_us(on: OnDevice, work: Callable[[], object]) -> float:
    """Microseconds of what `work` puts into the stream, when a graph has it many times in a row."""
    work()  # what happens at the first launch cannot be captured
    on.stream.synchronize()

    def many() -> None:
        for _ in range(_LAUNCHES):
            work()

    graph = on.device.capture(on.stream, many)
    begin, end = on.device.event(), on.device.event()
    times_us = []
    for _ in range(1 + _REPEATS):
        begin.record(on.stream)
        graph.launch(on.stream)
        end.record(on.stream)
        end.synchronize()
        times_us.append(end.elapsed_ms(since=begin) * 1e3 / _LAUNCHES)
    on.device.free(graph, begin, end)
    return float(np.median(times_us[1:]))


if __name__ == "__main__":
    main()
