"""What a build takes of disk and memory, asked before it starts: an hour of building must not end in a full disk.

The numbers are those of builds with TensorRT-RTX 1.7.1 for the GPUs of its default: YOLOv3 and YOLOv3-tiny at 416, three small
models and the bundled one, in FP32, FP16 and INT8, some with in-graph stages. A plan was larger than its graph by 0.6 to
3.3 MB, in INT8 by 2 to 20 MB, as kernels come on top. The process grew by three times the graph and 85 to 145 MB, in INT8 110
to 215 MB. The full TensorRT was not measured: there the memory is the least that is needed.
"""

import shutil
from pathlib import Path

from yolov3_trt.arguments import spelled
from yolov3_trt.errors import BuildError
from yolov3_trt.meta import Precision

_MB = 1_000_000
_KERNELS_BYTES = {Precision.FP32: 8 * _MB, Precision.FP16: 8 * _MB, Precision.INT8: 32 * _MB}
_BUILDER_BYTES = {Precision.FP32: 200 * _MB, Precision.FP16: 200 * _MB, Precision.INT8: 280 * _MB}


def plan_bytes_needed(onnx_bytes: int, precision: Precision) -> int:
    """How large a plan gets at most, by the size of its graph."""
    return onnx_bytes + _KERNELS_BYTES[precision]


def memory_bytes_needed(onnx_bytes: int, precision: Precision) -> int:
    """By how much a process grows when it builds, at most, by the size of the graph."""
    return 3 * onnx_bytes + _BUILDER_BYTES[precision]


def check_resources(onnx_path: Path, engine_path: Path, precision: Precision) -> tuple[str, ...]:
    """Refuse a build whose plan will not fit on the disk.

    Args:
        onnx_path: the graph.
        engine_path: where the plan goes, beside an older one until it is whole; its folder exists.
        precision: of the graph.

    Returns:
        Notes: memory that seems too small.

    Raises:
        BuildError: the disk is too full.
    """
    onnx_bytes = onnx_path.stat().st_size
    plan_bytes, disk_bytes = plan_bytes_needed(onnx_bytes, precision), shutil.disk_usage(engine_path.parent).free
    if disk_bytes < plan_bytes:
        raise BuildError(
            f"{engine_path}: {_mb(disk_bytes)} are free on this disk; the engine may need {_mb(plan_bytes)}: make room, or "
            f"give a place on another disk with {spelled('path', option='-o')}"
        )
    memory_bytes, free_bytes = memory_bytes_needed(onnx_bytes, precision), free_memory_bytes()
    if free_bytes is not None and free_bytes < memory_bytes:
        return (
            f"{_mb(free_bytes)} of memory are free, this build may need {_mb(memory_bytes)}: if it is killed, close other "
            "programs or add swap",
        )
    return ()


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory and swap that this process could still get; None where the system does not say.

    Args:
        root: where `proc` and `sys` are.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux
        return None
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if value.split()}
    if "MemAvailable" not in kib:
        return None
    free = 1024 * (kib["MemAvailable"] + kib.get("SwapFree", 0))
    limit = _container_bytes(root / "sys/fs/cgroup")
    return free if limit is None else min(free, limit)


def _container_bytes(cgroup: Path) -> int | None:
    """What a container's limit leaves; None where there is no limit."""
    try:
        limit, used, stat = ((cgroup / f"memory.{name}").read_text().split() for name in ("max", "current", "stat"))
    except OSError:  # no container, or one of cgroup version 1
        return None
    if not limit[0].isdigit():
        return None
    cached = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0  # given back when needed
    return max(0, int(limit[0]) - int(used[0]) + cached)


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / _MB:.0f} MB"
