"""Power, clocks and memory of a GPU while something runs: by NVML on a PC, from sysfs on a Jetson."""

import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.errors import MissingDependency, require

_INTERVAL_S = 0.05
_MIB = 2**20
# A Jetson's rails by what the board calls its whole input, newest boards first.
_INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "SYS5V", "VIN_SYS_5V0", "IN")


@dataclass(frozen=True)
class Reading:
    """One look at a GPU; None for what it does not tell."""

    power_w: float | None = None  # a Jetson's: of the whole board
    gpu_mhz: float | None = None
    memory_mhz: float | None = None
    gpu_memory_mib: float | None = None  # in use by everyone
    temperature_c: float | None = None


class PowerReader(Protocol):
    """Where readings come from."""

    @property
    def about(self) -> dict[str, Any]:
        """What does not change: name of the source, limits, power mode."""
        ...

    def read(self) -> Reading:
        """Look now."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class NvmlReader:
    """The first GPU of a PC, through the driver's management library."""

    def __init__(self, nvml: Any) -> None:
        """Begin with a module of nvidia-ml-py.

        Raises:
            nvml.NVMLError: there is no driver, or no GPU.
        """
        self._nvml = nvml
        nvml.nvmlInit()
        self._gpu = nvml.nvmlDeviceGetHandleByIndex(0)
        limit = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
        self.about: dict[str, Any] = {
            "reader": "nvml",
            "gpu": _decoded(nvml.nvmlDeviceGetName(self._gpu)),
            "driver": _decoded(nvml.nvmlSystemGetDriverVersion()),
            "power_limit_w": None if limit is None else limit / 1e3,
            "max_gpu_mhz": self._ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        }

    def read(self) -> Reading:
        """See `PowerReader`."""
        nvml = self._nvml
        milliwatts, memory = self._ask(nvml.nvmlDeviceGetPowerUsage), self._ask(nvml.nvmlDeviceGetMemoryInfo)
        return Reading(
            None if milliwatts is None else milliwatts / 1e3,
            self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            None if memory is None else memory.used / _MIB,
            self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        )

    def close(self) -> None:
        """See `PowerReader`."""
        self._nvml.nvmlShutdown()

    def _ask(self, question: Callable[..., Any], *details: int) -> Any:
        try:
            return question(self._gpu, *details)
        except self._nvml.NVMLError:  # laptops and parts of a GPU do not answer everything
            return None


class JetsonReader:
    """A Jetson's rails, clock and power mode, from sysfs and nvpmodel."""

    def __init__(self, root: Path = Path("/"), power_mode: Callable[[], str | None] | None = None) -> None:
        self._root = root
        self._rail = _input_rail(root)
        clocks = sorted(root.glob("sys/class/devfreq/*"))
        self._clock = next((c / "cur_freq" for c in clocks if re.search(r"gpu|ga10b|gv11b|gp10b|gm20b", c.name)), None)
        model = _text(root / "proc/device-tree/model") or ""
        self.about: dict[str, Any] = {
            "reader": "jetson",
            "gpu": model.strip("\0\n ") or None,
            "power_mode": (power_mode or nvpmodel)(),
            "release": (_text(root / "etc/nv_tegra_release") or "").partition(",  GCID")[0].lstrip("# ") or None,
            "rail": None if self._rail is None else self._rail[0],
        }

    @staticmethod
    def is_here(root: Path = Path("/")) -> bool:
        """Whether this is a Jetson."""
        model = (_text(root / "proc/device-tree/model") or "").lower()
        return "jetson" in model or (root / "etc/nv_tegra_release").exists()

    def read(self) -> Reading:
        """See `PowerReader`."""
        hertz = None if self._clock is None else _number(self._clock)
        return Reading(self._power_w(), None if hertz is None else hertz / 1e6)

    def close(self) -> None:
        """See `PowerReader`."""

    def _power_w(self) -> float | None:
        if self._rail is None:
            return None
        millivolts, milliamperes = (_number(path) for path in self._rail[1:])
        return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


def open_power_reader() -> tuple[PowerReader | None, str | None]:
    """What this machine has, or why it has nothing."""
    if JetsonReader.is_here():
        return JetsonReader(), None
    if installed_gpu() is None:
        return None, "the NVIDIA driver shows no GPU"
    try:
        nvml = require("pynvml", extra="nvml")
    except MissingDependency as exc:
        return None, str(exc)
    try:
        return NvmlReader(nvml), None
    except nvml.NVMLError as exc:
        return None, f"NVML: {exc}"


class Sampler:
    """Reads in a thread of its own from `with` to its end."""

    def __init__(self, reader: PowerReader, interval_s: float = _INTERVAL_S) -> None:
        self._reader, self._interval_s = reader, interval_s
        self._readings: list[Reading] = []
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    @property
    def mean(self) -> dict[str, float | None]:
        """Means by the names of `Reading`, of the readings that have them."""
        return mean_reading(self._readings)

    def _run(self) -> None:
        try:
            while True:  # one reading at least
                self._readings.append(self._reader.read())
                if self._done.wait(self._interval_s):
                    return
        except BaseException as exc:  # raised again by the owner
            self._error = exc


def mean_reading(readings: Sequence[Reading]) -> dict[str, float | None]:
    """Means by name, of the readings that have them."""
    rows = [asdict(reading) for reading in readings]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in asdict(Reading())}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def nvpmodel() -> str | None:
    """A Jetson's power mode, e.g. `MAXN`; None where it is not told."""
    try:
        done = subprocess.run(["nvpmodel", "-q"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"NV Power Mode:[ \t]*(\S+)", done.stdout)
    return found[1] if found else None


def _input_rail(root: Path) -> tuple[str, Path, Path] | None:
    """Name, voltage (mV) and current (mA) of the rail that feeds the whole board."""
    rails = {}
    for pattern in ("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label", "sys/class/hwmon/hwmon*/in*_label"):
        for label in sorted(root.glob(pattern)):
            number = label.name.removeprefix("in").removesuffix("_label")
            name = (_text(label) or "").strip()
            rails[name] = (name, label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"))
    return next((rails[name] for name in _INPUT_RAILS if name in rails), None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _decoded(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text  # bytes in older versions
