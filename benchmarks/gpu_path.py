"""What a frame costs on the way to and from a GPU, as far as that can be known without one; no figure of a GPU.

    python -m benchmarks.gpu_path --json docs/results/gpu-path.json

Sectors: 32-byte pieces of the picture that the loads of the letterbox's warps touch, counted in the simulation of the kernels.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.sim.device import SECTOR_BYTES, SimulatedDevice
from yolov3_trt.geometry import HW, Placement, Resize
from yolov3_trt.meta import Preprocess
from yolov3_trt.runtime.kernels.letterbox import Frames, letterbox, lines_read, staged_hw

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    rows = [letterbox_row(image_hw, side) for image_hw in FRAMES for side in SIDES]
    options.json.write_text(json.dumps({"letterbox": rows}, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
