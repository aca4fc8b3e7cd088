"""Power, clocks and memory: a simulated NVML, a Jetson's sysfs laid out in a folder, and this machine."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolov3_trt.benchmarking import power
from yolov3_trt.benchmarking.machine import machine
from yolov3_trt.benchmarking.power import JetsonReader, NvmlReader, Reading, Sampler, mean_reading, open_power_reader
from yolov3_trt.engine.driver import Gpu


class NVMLError(Exception):
    """As nvidia-ml-py calls it."""


def fake_nvml(**answers: Any) -> Any:
    """A module of nvidia-ml-py on one GPU; an answer that is an exception is raised."""
    known: dict[str, Any] = {
        "nvmlDeviceGetName": b"NVIDIA Test GPU",  # older versions give bytes
        "nvmlDeviceGetEnforcedPowerLimit": 350_000,
        "nvmlDeviceGetMaxClockInfo": 1980,
        "nvmlDeviceGetPowerUsage": 123_400,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 << 30),
        "nvmlDeviceGetTemperature": 61,
        **answers,
    }

    def answer(name: str) -> Any:
        def ask(handle: str, *details: int) -> Any:
            assert handle == "gpu 0"
            if isinstance(known[name], Exception):
                raise known[name]
            return known[name]

        return ask

    module = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        state="new",
        nvmlDeviceGetHandleByIndex=lambda index: f"gpu {index}",
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1755, 2: 2619}[kind],
        **{name: answer(name) for name in known},
    )
    module.nvmlInit = lambda: setattr(module, "state", "open")
    module.nvmlShutdown = lambda: setattr(module, "state", "shut")
    return module


def test_nvml_is_read_in_watts_and_mebibytes():
    nvml = fake_nvml()
    reader = NvmlReader(nvml)
    assert reader.about == {
        "reader": "nvml",
        "gpu": "NVIDIA Test GPU",
        "driver": "580.65.06",
        "power_limit_w": 350.0,
        "max_gpu_mhz": 1980,
    }
    assert reader.read() == Reading(123.4, 1755, 2619, 3072.0, 61)
    reader.close()
    assert nvml.state == "shut"


def test_what_a_gpu_does_not_tell_is_none():
    unsupported = NVMLError("Not Supported")
    nvml = fake_nvml(nvmlDeviceGetPowerUsage=unsupported, nvmlDeviceGetMemoryInfo=unsupported)
    assert NvmlReader(nvml).read() == Reading(None, 1755, 2619, None, 61)


def test_without_a_gpu_the_reason_is_given(monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise NVMLError("Driver Not Loaded")

    nvml = fake_nvml()
    nvml.nvmlInit = fail
    monkeypatch.setattr(power, "installed_gpu", lambda: None)
    assert open_power_reader() == (None, "the NVIDIA driver shows no GPU")
    monkeypatch.setattr(power, "installed_gpu", lambda: Gpu("NVIDIA Test GPU", (8, 7), (12, 6)))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert open_power_reader() == (None, "NVML: Driver Not Loaded")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_power_reader() == (None, "pynvml is not installed; run: pip install 'yolov3-trt[nvml]'")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def jetson(root: Path) -> Path:
    """What an Orin shows of itself, in part."""
    write(root / "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    write(root / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3,  GCID: 38968081, BOARD: generic\n")
    rails = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    for number, (label, millivolts, milliamperes) in enumerate(
        [("VDD_GPU_SOC", 19000, 300), ("VDD_IN", 5000, 2400), ("VIN_SYS_5V0", 5000, 900)], start=1
    ):
        write(rails / f"in{number}_label", f"{label}\n")
        write(rails / f"in{number}_input", f"{millivolts}\n")
        write(rails / f"curr{number}_input", f"{milliamperes}\n")
    write(root / "sys/class/devfreq/15340000.vic/cur_freq", "115200000\n")
    write(root / "sys/class/devfreq/17000000.gpu/cur_freq", "1300500000\n")
    return root


def test_a_jetson_is_read_from_its_rails_and_clock(tmp_path: Path):
    reader = JetsonReader(jetson(tmp_path), lambda: "MAXN")
    assert reader.about == {
        "reader": "jetson",
        "gpu": "NVIDIA Jetson AGX Orin Developer Kit",
        "power_mode": "MAXN",
        "release": "R36 (release), REVISION: 4.3",
        "rail": "VDD_IN",
    }
    assert reader.read() == Reading(power_w=12.0, gpu_mhz=1300.5)
    assert JetsonReader.is_here(tmp_path)


def test_a_jetson_that_shows_nothing_in_a_container_is_all_none(tmp_path: Path):
    write(tmp_path / "etc/nv_tegra_release", "# R32 (release)")
    reader = JetsonReader(tmp_path, lambda: None)
    assert reader.read() == Reading()
    assert reader.about["rail"] is None
    assert not JetsonReader.is_here(tmp_path / "elsewhere")


def test_a_rail_that_vanishes_while_read_is_none(tmp_path: Path):
    reader = JetsonReader(jetson(tmp_path), lambda: None)
    (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr2_input").write_text("")
    assert reader.read().power_w is None


def test_the_mean_is_of_the_readings_that_know():
    found = mean_reading([Reading(power_w=10, gpu_mhz=1000), Reading(power_w=20), Reading()])
    assert found == {
        "power_w": 15,
        "gpu_mhz": 1000,
        "memory_mhz": None,
        "gpu_memory_mib": None,
        "temperature_c": None,
    }


class CountingReader:
    """10 W, 20 W, 30 W, ...; from reading `fails_at` on an error."""

    about: dict[str, Any] = {}  # noqa: RUF012  # as the protocol has it

    def __init__(self, fails_at: int | None = None) -> None:
        self.readings, self.fails_at = 0, fails_at

    def read(self) -> Reading:
        self.readings += 1
        if self.readings == self.fails_at:
            raise OSError("the bus is gone")
        return Reading(power_w=10.0 * self.readings)

    def close(self) -> None:
        pass


def test_a_sampler_reads_until_its_end_and_no_longer():
    reader = CountingReader()
    with Sampler(reader, interval_s=0.001) as sampler:
        while reader.readings < 3:
            time.sleep(0.001)
    count = reader.readings
    assert sampler.mean["power_w"] == pytest.approx(10 * (count + 1) / 2)
    time.sleep(0.01)
    assert reader.readings == count
    with Sampler(CountingReader()) as at_once:
        pass
    assert at_once.mean["power_w"] == 10


def test_what_fails_in_the_samplers_thread_is_raised_at_its_end():
    with pytest.raises(OSError, match="the bus is gone"), Sampler(CountingReader(fails_at=1), interval_s=0.001):
        pass


def test_nvpmodel_is_asked_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert power.nvpmodel() is None
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\necho 'NV Power Mode: MODE_30W'\necho 2\n")
    program.chmod(0o755)
    assert power.nvpmodel() == "MODE_30W"


def test_the_machine_is_described():
    where = machine()
    assert where["cores"] >= 1 and where["cpu"]
    assert where["versions"]["numpy"]
    assert len(where["load_average"]) == 3


def test_memory_grows_with_what_is_held():
    """In a process of its own: other tests' threads free memory of this one at any time."""
    program = (
        "from yolov3_trt.benchmarking.machine import peak_resident_mib, resident_mib\n"
        "before = resident_mib()\n"
        "held = b'x' * (64 << 20)  # written, not only reserved\n"
        "print(before, resident_mib(), peak_resident_mib())"
    )
    before, after, peak = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    if "None" in (before, after, peak):
        pytest.skip("this system does not tell the memory of a process")
    assert float(after) - float(before) == pytest.approx(64, abs=8)
    assert float(peak) >= float(after) - 1
