"""What one of the two Pythons has, and what the suite needs of it. The standard library only, until all is known to be there.

python -m acceptance.check runtime|torch --json FILE
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acceptance.cases import SIMULATED, SIMULATED_GPU

# Modules by what the Python is for, with the distribution that has each.
_DEVICE = {} if SIMULATED else {"tensorrt": "tensorrt", "pycuda": "pycuda"}
_SIMULATION = {"onnx": "onnx", "onnxruntime": "onnxruntime"} if SIMULATED else {}
_COMMON = {"numpy": "numpy", "cv2": "opencv-python-headless"}
NEEDED: dict[str, dict[str, str]] = {
    "runtime": {
        **_COMMON,
        **_DEVICE,
        **_SIMULATION,
        "pydantic": "pydantic",
        "typer": "typer",
        "rich": "rich",
        "filelock": "filelock",
        "pytest": "pytest",
    },
    "torch": {**_COMMON, "torch": "torch", "onnx": "onnx", "onnxruntime": "onnxruntime"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=sorted(NEEDED))
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    needed = NEEDED[options.role]
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        wheels = " ".join(needed[module] for module in missing)
        raise SystemExit(
            f"{sys.executable} (Python {platform.python_version()}) lacks {', '.join(missing)}; install {wheels} there, or "
            "where that machine has no internet: pip download them elsewhere for its Python, unpack them into a folder, and "
            "name that in PYTHONPATH"
        )
    content: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": {name: version(name, needed[name]) for name in needed},
    }
    if options.role == "runtime":
        content |= {"gpu": gpu(), "nvcc": _line("nvcc", "--version"), "cpu": _cpu()}
    if options.role == "runtime" and not SIMULATED and content["gpu"] is None:
        raise SystemExit("this machine shows no NVIDIA GPU and driver; YOLOV3_TRT_SIMULATED_GPU=1 simulates one")
    options.json.write_text(json.dumps({"simulated": SIMULATED, **content}, indent=1) + "\n")


def version(module: str, distribution: str) -> str:
    """Of an installed module; one that no distribution tells of is imported and asked."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(module), "__version__", "unknown"))


def gpu() -> dict[str, Any] | None:
    """Name, compute capability and driver of the first GPU."""
    if SIMULATED:
        return dict(SIMULATED_GPU)
    from yolov3_trt.engine.driver import installed_gpu

    found = installed_gpu()
    if found is None:
        return None
    fields = "driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem"
    told = _line("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    return {
        "name": found.name,
        "compute_capability": "{}.{}".format(*found.compute_capability),
        "driver_cuda": "{}.{}".format(*found.driver_cuda),
        "nvidia_smi": None if told is None else dict(zip(fields.split(","), told.split(", "), strict=False)),
    }


def _cpu() -> str:
    from yolov3_trt.benchmarking.machine import machine

    return str(machine()["cpu"])


def _line(*command: str) -> str | None:
    """The last line that a program prints; None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = result.stdout.strip().splitlines()
    return lines[-1] if result.returncode == 0 and lines else None


if __name__ == "__main__":
    main()
