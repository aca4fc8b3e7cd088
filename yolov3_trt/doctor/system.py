"""Python, memory, disk, and a Jetson's power mode and clocks."""

import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yolov3_trt
from yolov3_trt import __version__
from yolov3_trt.cpu import cpu_features
from yolov3_trt.doctor.findings import Finding, missing, ok, warning
from yolov3_trt.doctor.probe import Probe
from yolov3_trt.files import cache_folder

# Building a full-size YOLOv3 takes about 3 GB on a board (ceccocats/tkDNN #26), its files together under 1 GB.
_BUILD_MEMORY_BYTES = 3 << 30
_BUILD_DISK_BYTES = 2 << 30
_ENGINES = Path("engines")  # where `build` writes unless told otherwise


def check_package(_probe: Probe) -> Iterator[Finding]:
    """This package: which, from where, and where it keeps what it fetches."""
    yield ok("yolov3_trt", f"{__version__} at {Path(yolov3_trt.__file__).parent}, cache {cache_folder()}")


def check_python(probe: Probe) -> Iterator[Finding]:
    """What runs this."""
    model = (probe.text("/proc/device-tree/model") or "").strip("\0\n ") if probe.is_jetson else ""
    where = f"{probe.machine.platform}{f', {model}' if model else ''}"
    yield ok("python", f"{platform.python_version()} at {sys.executable}, {where}")


def check_cpu(probe: Probe) -> Iterator[Finding]:
    """What the CPU computes in, which decides what INT8 and bf16 are worth on it."""
    cpuinfo = probe.text("/proc/cpuinfo")
    if not cpuinfo:
        return
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    features = cpu_features(cpuinfo)
    worth = "INT8 is no faster than FP32" if not {"VNNI", "AMX", "dot product"} & set(features) else "INT8 is fast"
    yield ok(
        "cpu", f"{name[1] if name else probe.machine.platform}: {', '.join(features) or 'no extension'}; {worth} on it"
    )


def check_numpy(probe: Probe) -> Iterator[Finding]:
    """NumPy, which packages compiled for its first version cannot use in the second."""
    version, tensorrt = probe.version("numpy"), probe.machine.flavor("tensorrt")
    old = tensorrt is not None and tensorrt.version is not None and _major(tensorrt.version) < 10
    if version is None and probe.module_folder("numpy") is None:
        yield missing("numpy", "not installed; everything needs it", "pip install yolov3-trt")
    elif version is not None and _major(version) >= 2 and old:
        detail = f"{version}; TensorRT before 10 and the OpenCV of its JetPack were made for NumPy 1"
        yield warning("numpy", detail, "pip install 'numpy<2'")
    else:
        yield ok("numpy", version or "of the system")


def check_memory(probe: Probe) -> Iterator[Finding]:
    """Memory and swap that a build could take now."""
    if not probe.machine.platform.startswith("linux"):
        return
    meminfo = probe.text("/proc/meminfo") or ""
    kib = {found[1]: int(found[2]) for found in re.finditer(r"^(\w+):\s+(\d{1,15}) kB$", meminfo, re.MULTILINE)}
    if "MemAvailable" not in kib:
        yield warning("memory", "/proc/meminfo does not say how much is free", "look with: free -m")
        return
    available, swap = kib["MemAvailable"] << 10, kib.get("SwapFree", 0) << 10
    allowed = _cgroup_limit(probe)
    if allowed is not None:
        available = min(available, allowed)
    detail = f"{available >> 20} MiB free, {swap >> 20} MiB swap free"
    if available + swap < _BUILD_MEMORY_BYTES:
        fix = "close programs (on a Jetson: sudo init 3 ends the desktop), add swap, or raise the container's limit"
        yield warning("memory", f"{detail}; building a full-size YOLOv3 takes about 3 GB", fix)
    else:
        yield ok("memory", detail)


def check_disk(probe: Probe) -> Iterator[Finding]:
    """Room for graphs and engines."""
    free = probe.free_bytes(_ENGINES)
    if free is None:
        yield warning("disk", "the free space here cannot be read", "look with: df -h .")
    elif free < _BUILD_DISK_BYTES:
        detail = f"{free >> 20} MiB free here; graphs and engines of a full-size YOLOv3 take up to 1 GB"
        yield warning("disk", detail, "make room, or write elsewhere with -o")
    else:
        yield ok("disk", f"{free >> 20} MiB free here")


def check_power_mode(probe: Probe) -> Iterator[Finding]:
    """A Jetson's power mode: only MAXN lets every core and clock go to its limit."""
    if not probe.is_jetson:
        return
    ran = probe.run("nvpmodel", "-q")
    found = re.search(r"NV Power Mode:[ \t]*(\S+)", ran.output) if ran is not None else None
    modes = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", probe.text("/etc/nvpmodel.conf") or ""))
    best = next((number for number, name in modes.items() if name.startswith("MAXN")), None)
    if found is None:
        fix = "ask the board itself, outside of any container: sudo nvpmodel -q"
        yield warning("power mode", "nvpmodel does not say; figures depend on it", fix)
    elif found[1].startswith("MAXN"):
        yield ok("power mode", found[1])
    elif modes and best is None:
        yield ok("power mode", f"{found[1]}; this board has no MAXN")
    else:
        fix = f"sudo nvpmodel -m {best}" if best else "sudo nvpmodel -m with the number of MAXN in /etc/nvpmodel.conf"
        yield warning("power mode", f"{found[1]}: slower than MAXN", f"{fix}, if supply and cooling allow it")


def check_clocks(probe: Probe) -> Iterator[Finding]:
    """Whether a Jetson's clocks stand still: otherwise latency varies with the load before."""
    if not probe.is_jetson:
        return
    pairs = {
        "CPU": (
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq",
        ),
    }
    for folder in probe.matches("/sys/class/devfreq/*gpu*", "/sys/class/devfreq/*.ga10b", "/sys/class/devfreq/*.gv11b"):
        pairs["GPU"] = (f"{folder}/min_freq", f"{folder}/max_freq")
    limits = {name: tuple(map(probe.text, files)) for name, files in pairs.items()}
    known = {name: low == high for name, (low, high) in limits.items() if low and high}
    moving = [name for name, fixed in known.items() if not fixed]
    if moving:
        detail = f"the {' and '.join(moving)} clock follows the load: latency varies"
        yield warning("clocks", detail, "sudo jetson_clocks (until the next restart)")
    elif known:
        yield ok("clocks", f"{' and '.join(known)} held at the limit of the power mode")
    else:
        yield warning("clocks", "the limits cannot be read", "outside of any container: sudo jetson_clocks --show")


def _cgroup_limit(probe: Probe) -> int | None:
    """What a container may still take, bytes; None without a limit."""
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, used = ((probe.text(name) or "").strip() for name in (limit_file, used_file))
        if re.fullmatch(r"[0-9]{1,20}", limit) and re.fullmatch(r"[0-9]{1,20}", used):
            return max(0, int(limit) - int(used))
    return None


def _major(version: str) -> int:
    found = re.match(r"[0-9]{1,9}", version)
    return int(found[0]) if found else 0
