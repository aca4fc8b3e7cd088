"""What figures were measured on: processor, GPU, system, versions, and the memory of this process."""

import importlib.metadata
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from yolov3_trt.engine.driver import installed_gpu

# Distributions whose versions belong to a figure.
_MEASURED = (
    "yolov3-trt",
    "numpy",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "opencv-python",
    "opencv-python-headless",
    "tensorrt",
    "tensorrt_rtx_cu13_libs",
    "pycuda",
    "nvidia-ml-py",
)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    gpu = installed_gpu()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu.name if gpu else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _MEASURED if (version := _version(name))},
        "cpu_governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        # Before the work begins: what others are doing here, in runnable threads over 1, 5 and 15 minutes.
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def resident_mib() -> float | None:
    """Memory of this process now; None where the system does not say."""
    statm = _text(Path("/proc/self/statm"))
    return None if statm is None else int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_resident_mib() -> float | None:
    """The most memory this process has had; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**20 if sys.platform == "darwin" else 2**10)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # a Jetson's own OpenCV is not a distribution
        return None


def _cpu_name() -> str:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
