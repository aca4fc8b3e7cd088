"""What a frame costs on the way to and from a GPU, as far as that can be known without one; no figure of a GPU.

    python -m benchmarks.gpu_path --json docs/results/gpu-path.json

Sectors: 32-byte pieces of the picture that the loads of the letterbox's warps touch, counted in the simulation of the kernels.
With `--host`, in the environment of `make pycuda-simulated` and with its driver in LD_LIBRARY_PATH, also the host's time for
`submit` and `result` of a small frame: the real pycuda on a driver whose kernels and network do nothing.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.sim.device import SECTOR_BYTES, SimulatedDevice
from tests.sim.engine import simulated_plan
from yolov3_trt.backends.trt import TensorRTBackend, _expected_tensors
from yolov3_trt.geometry import HW, Placement, Resize
from yolov3_trt.meta import Preprocess
from yolov3_trt.runtime.device import Stream
from yolov3_trt.runtime.kernels.letterbox import Frames, letterbox, lines_read, staged_hw
from yolov3_trt.runtime.work import Work

FRAMES: tuple[HW, ...] = ((1080, 1920), (480, 640))
SIDES = (416, 608)


def letterbox_row(image_hw: HW, side: int) -> dict[str, Any]:
    """What the letterbox reads of a frame of a size, for a square input."""
    placement = Placement.of(image_hw, (side, side), Resize.LETTERBOX)
    lines, (staged_h, staged_w) = lines_read(placement), staged_hw(placement)
    with SimulatedDevice(traced=True) as device:
        picture = np.random.default_rng(0).integers(0, 256, (staged_h, staged_w, 3), np.uint8)
        frame, batch = device.copy(picture), device.empty((3, side, side), np.float32)
        frames = Frames(frame.ctypes.data, 3 * staged_w, is_packed=lines is not None)
        launch = letterbox(placement, Preprocess(), frames, batch.ctypes.data, np.float32)
        sectors = device.sectors_read(launch, [(frame.ctypes.data, frame.nbytes)])
    return {
        "frame": f"{image_hw[1]}x{image_hw[0]}",
        "input": side,
        "frame_bytes": 3 * image_hw[0] * image_hw[1],
        "copied_bytes": picture.nbytes,
        "sectors": sectors,
        "sector_bytes": sectors * SECTOR_BYTES,
    }


# Does nothing, but that there was one candidate and no detection: by the addresses in the struct of nms.
_NO_KERNELS = """
#include <string.h>
int launch(const char *name, unsigned *grid, unsigned *block, const char *args, unsigned long size, unsigned seed) {
    if (!strcmp(name, "nms")) { *(*(int **)(args + 24)) = 1; *(*(int **)(args + 32)) = 0; }
    return 0;
}
"""
_CALLS, _TRIES = 200, 25


class _NoNetwork:
    """An engine and its execution context; its runs are empty."""

    why_not_captured = None

    def __init__(self, work: Work) -> None:
        self.tensors = tuple(_expected_tensors(work).values())

    def execution(self) -> "_NoNetwork":
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        pass

    def set_address(self, name: str, address: int) -> None:
        pass

    def enqueue(self, stream: Stream) -> None:
        pass

    def close(self) -> None:
        pass


def host_us(graph: Path, *, use_graphs: bool, forget: bool = False) -> float:
    """CPU time of this thread for a frame, the best of some hundreds of calls."""
    frame = np.zeros((96, 128, 3), np.uint8)
    plan = simulated_plan(graph)
    work = Work(plan.meta.model, plan.meta.model.preprocess, plan.meta.model.postprocess, letterbox=False, decode=False)
    with TensorRTBackend(plan, use_graphs=use_graphs, open_engine=lambda *_: _NoNetwork(work)) as backend:
        times = []
        for _ in range(_TRIES):
            begin_s = time.thread_time()
            for _ in range(_CALLS):
                if forget:
                    backend._slots and backend._slots[0]._launches.clear()
                backend.submit([frame])
                backend.result()
            times.append((time.thread_time() - begin_s) / _CALLS * 1e6)
        assert backend.fallbacks == (() if use_graphs else ("no CUDA graph: switched off",)), backend.fallbacks
    return min(times)


def host_times(graph: Path) -> dict[str, float]:
    """By how the work gets to the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        command = ["gcc", "-x", "c", "-shared", "-fPIC", "-O1", "-o", str(library), "-"]
        subprocess.run(command, input=_NO_KERNELS, text=True, check=True)
        os.environ["SIMULATED_KERNELS"] = str(library)
        return {
            "as a graph": host_us(graph, use_graphs=True),
            "without a graph, launches kept": host_us(graph, use_graphs=False),
            "without a graph, launches built each time": host_us(graph, use_graphs=False, forget=True),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--host", type=Path, metavar="GRAPH", help="also the host's time, with this .onnx of a model")
    options = parser.parse_args()
    content: dict[str, Any] = {
        "letterbox": [letterbox_row(image_hw, side) for image_hw in FRAMES for side in SIDES],
        "host_us": None if options.host is None else host_times(options.host),
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    print(options.json.read_text())


if __name__ == "__main__":
    main()
