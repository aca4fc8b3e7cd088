"""The doctor: a Jetson, a PC and a bare container, each healthy and with the faults that people really have."""

import base64
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import yolov3_trt
from tests.cli_runner import call
from yolov3_trt import doctor as doctor_module
from yolov3_trt.doctor import Finding, Probe, Status, findings, vision
from yolov3_trt.doctor.findings import error, missing, ok
from yolov3_trt.doctor.probe import Ran
from yolov3_trt.engine.driver import Gpu
from yolov3_trt.engine.machine import InstalledFlavor, Machine
from yolov3_trt.settings import FlavorName

GIB = 1 << 30
CV2 = "/usr/lib/python3.10/dist-packages/cv2"
NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {}, V{}.85\nBuild cuda_12.6.r12.6/compiler.0\n"
OPENCV = """4.8.0
{origin}/__init__.py
General configuration for OpenCV 4.8.0 =====================================
  Video I/O:
    FFMPEG:                      YES
    GStreamer:                   {gstreamer}
    v4l/v4l2:                    {v4l}
"""


def opencv(gstreamer: str = "YES (1.20.3)", v4l: str = "YES (linux/videodev2.h)", origin: str = CV2) -> Ran:
    return Ran(0, OPENCV.format(gstreamer=gstreamer, v4l=v4l, origin=origin))


def nvcc(release: str = "12.6") -> Ran:
    return Ran(0, NVCC.format(release, release))


def import_error(text: str) -> Ran:
    return Ran(1, errors=f"Traceback (most recent call last):\n  File ...\nImportError: {text}\n")


@dataclass
class FakeProbe(Probe):
    """A machine made of answers: programs and files by name, imports by what they import."""

    machine: Machine = field(default_factory=lambda: Machine("linux-x86_64"))
    programs: Mapping[str, Ran] = field(default_factory=dict)
    imports: Mapping[str, Ran] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    free: int | None = 100 * GIB

    def run(self, *command: str, timeout_s: float = 10.0) -> Ran | None:
        return self.programs.get(command[0])

    def python(self, code: str) -> Ran:
        module = code.split()[1].partition(".")[0]
        return self.imports.get(module, import_error(f"No module named '{module}'"))

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def matches(self, *patterns: str) -> tuple[str, ...]:
        return tuple(path for path in self.paths if any(fnmatch(path, pattern) for pattern in patterns))

    def may_use(self, path: str) -> bool:
        return path not in self.denied

    def version(self, distribution: str) -> str | None:
        return self.versions.get(distribution)

    def module_folder(self, module: str) -> str | None:
        return self.folders.get(module)

    def free_bytes(self, folder: Path) -> int | None:
        return self.free


def meminfo(available_mib: int, swap_mib: int = 0) -> str:
    return f"MemTotal: 99999999 kB\nMemAvailable: {available_mib * 1024:>12} kB\nSwapFree: {swap_mib * 1024:>12} kB\n"


CLOCK = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_{}_freq"
GPU_CLOCK = "/sys/class/devfreq/17000000.gpu"
ORIN = FakeProbe(
    machine=Machine(
        "linux-aarch64",
        Gpu("Orin", (8, 7), (12, 6)),
        (InstalledFlavor(FlavorName.TENSORRT, "10.3.0"),),
        num_dla_cores=2,
    ),
    programs={"nvcc": nvcc(), "nvpmodel": Ran(0, "NV Power Mode: MAXN\n0\n")},
    imports={"cv2": opencv(), "pycuda": Ran(0), "tensorrt": Ran(0)},
    texts={
        "/proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "/proc/meminfo": meminfo(20_000, 15_000),
        "/etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=30W >\n",
        "/torch/version.py": "__version__ = '2.5.0a0'\ncuda: Optional[str] = '12.6'\n",
        CLOCK.format("min"): "2201600\n",
        CLOCK.format("max"): "2201600\n",
        f"{GPU_CLOCK}/min_freq": "1300500000\n",
        f"{GPU_CLOCK}/max_freq": "1300500000\n",
    },
    paths=("/dev/video0", "/tmp/argus_socket", GPU_CLOCK, CV2, "/usr/lib/python3.10/dist-packages/tensorrt"),
    versions={"numpy": "1.26.4", "pycuda": "2024.1", "tensorrt": "10.3.0", "onnxruntime": "1.17.0"},
    folders={"cv2": CV2, "pycuda": "/pycuda", "torch": "/torch"},
)
PC = FakeProbe(
    machine=Machine(
        "linux-x86_64",
        Gpu("NVIDIA GeForce RTX 4090", (8, 9), (13, 0)),
        (
            InstalledFlavor(FlavorName.TENSORRT, "10.13.3.9", 12),
            InstalledFlavor(FlavorName.TENSORRT_RTX, "1.7.1.116", 13),
        ),
    ),
    programs={"nvcc": nvcc("13.0")},
    imports={
        "cv2": opencv(gstreamer="NO", origin="/venv/cv2"),
        "pycuda": Ran(0),
        "tensorrt": Ran(0),
        "tensorrt_rtx_bindings": Ran(0),
    },
    texts={
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX",
        "/proc/meminfo": meminfo(50_000),
        "/torch/version.py": "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n",
    },
    paths=("/dev/video0", "/dev/video1"),
    versions={
        "numpy": "2.4.6",
        "pycuda": "2026.1",
        "tensorrt": "10.13.3.9",
        "onnxruntime": "1.31.1",
        "opencv-python": "4.14.0.94",
    },
    folders={"cv2": "/venv/cv2", "pycuda": "/pycuda", "torch": "/torch"},
)
BARE = FakeProbe(versions={"numpy": "2.4.6"}, free=None)


def changed(probe: FakeProbe, **changes) -> FakeProbe:
    """A copy; what is a mapping is added to, and a key whose new value is None is taken out."""
    for name, value in changes.items():
        if isinstance(value, dict):
            merged = {**getattr(probe, name), **value}
            changes[name] = {key: item for key, item in merged.items() if item is not None}
    return replace(probe, **changes)


def look(probe: Probe) -> dict[str, Finding]:
    found = findings(probe)
    assert len({finding.name for finding in found}) == len(found)
    return {finding.name: finding for finding in found}


# --- whole machines ---


def test_a_healthy_jetson_has_nothing_to_fix():
    found = look(ORIN)
    assert [finding for finding in found.values() if finding.status is not Status.OK] == []
    assert found["gpu"].detail == "Orin, compute capability 8.7, driver for CUDA 12.6"
    assert found["power mode"].detail == "MAXN"
    assert found["clocks"].detail == "CPU and GPU held at the limit of the power mode"
    assert "NVIDIA Jetson AGX Orin Developer Kit" in found["python"].detail
    assert {"tensorrt", "nvcc", "pycuda", "opencv", "gstreamer", "v4l2", "cameras", "csi cameras"} < set(found)


def test_a_healthy_pc_lacks_only_gstreamer_and_is_asked_nothing_of_a_jetson():
    found = look(PC)
    assert [name for name, finding in found.items() if finding.status is not Status.OK] == ["gstreamer"]
    assert found["gstreamer"].status is Status.MISSING
    assert not {"power mode", "clocks", "csi cameras"} & set(found)
    assert found["tensorrt"].detail == "10.13.3.9, for CUDA 12"  # a driver for CUDA 13 runs what is made for 12


def test_on_a_bare_container_much_is_missing_but_nothing_is_broken():
    found = look(BARE)
    assert {name: finding.status.value for name, finding in found.items()} == {
        "yolov3_trt": "ok",
        "python": "ok",
        "numpy": "ok",
        "gpu": "missing",
        "tensorrt": "missing",
        "nvcc": "missing",
        "pycuda": "missing",
        "torch": "missing",
        "onnxruntime": "missing",
        "opencv": "missing",
        "cameras": "missing",
        "memory": "warning",
        "disk": "warning",
    }
    assert found["onnxruntime"].fix == "pip install 'yolov3-trt[cpu]'"


def test_nobody_is_told_to_install_a_wheel_that_cannot_run_there():
    assert look(BARE)["tensorrt"].fix.startswith("pip install 'yolov3-trt[rtx]', which builds on any CPU; ")
    arm = look(changed(BARE, machine=Machine("linux-aarch64")))
    assert "[tensorrt]" not in arm["tensorrt"].fix and "if this is a Jetson: sudo apt install" in arm["tensorrt"].fix
    bare_orin = changed(ORIN, folders={"torch": None})
    assert look(bare_orin)["torch"].fix.startswith("compare and train on a PC")
    assert look(BARE)["torch"].fix == "pip install 'yolov3-trt[export]'"


# --- what people suffer from ---

SHADOWED = changed(
    ORIN, imports={"cv2": opencv(gstreamer="NO", origin="/venv/cv2")}, versions={"opencv-python": "4.14.0.94"}
)


@pytest.mark.parametrize(
    "probe, name, status, detail, fix",
    [
        (
            SHADOWED,
            "gstreamer",
            "warning",
            "pip's opencv-python shadows the system's OpenCV and has no GStreamer: csi:// does not open",
            "pip uninstall -y opencv-python",
        ),
        (
            changed(SHADOWED, paths=("/dev/video0",)),
            "gstreamer",
            "warning",
            "pip's opencv-python shadows",
            "pip uninstall -y opencv-python, then sudo apt install python3-opencv",
        ),
        (
            changed(PC, imports={"cv2": Ran(0, f"{opencv().output}interlaced video: spoilt\n")}),
            "interlaced video",
            "warning",
            "gives black pictures of interlaced files and streams, and says that all is well",
            "only where you have such video: pip install 'opencv-python<4.13'",
        ),
        (
            changed(PC, versions={"opencv-contrib-python": "4.10"}),
            "opencv",
            "warning",
            "opencv-python and opencv-contrib-python have overwritten each other's files",
            "pip uninstall -y opencv-python opencv-contrib-python, then pip install opencv-python",
        ),
        (
            changed(PC, imports={"cv2": import_error("libGL.so.1: cannot open shared object file: No such file")}),
            "opencv",
            "error",
            "installed, but does not import: ImportError: libGL.so.1: cannot open shared object file",
            "pip install 'yolov3-trt[opencv-headless]'",
        ),
        (
            changed(ORIN, imports={"cv2": import_error("numpy.core.multiarray failed to import")}),
            "opencv",
            "error",
            "numpy.core.multiarray failed to import",
            "pip install 'numpy<2'",
        ),
        (
            changed(PC, imports={"cv2": Ran(-11)}),
            "opencv",
            "error",
            "it was ended by signal 11",
            "pip uninstall every opencv package",
        ),
        (
            changed(PC, imports={"cv2": opencv(v4l="NO")}),
            "v4l2",
            "missing",
            "no USB cameras",
            "sudo apt install python3-opencv",
        ),
        (
            changed(ORIN, folders={"cv2": None}),
            "opencv",
            "missing",
            f"the system's is in {CV2}, where this Python does not look",
            "--system-site-packages",
        ),
        (
            changed(ORIN, folders={"cv2": None}, paths=()),
            "opencv",
            "missing",
            "not installed",
            "sudo apt install python3-opencv",
        ),
        (
            changed(PC, denied=("/dev/video1",)),
            "cameras",
            "warning",
            "no permission to open /dev/video1",
            "sudo usermod -aG video $USER",
        ),
        (
            changed(ORIN, paths=("/dev/video0",)),
            "csi cameras",
            "warning",
            "nvargus-daemon cannot be reached",
            "sudo systemctl restart nvargus-daemon",
        ),
        (
            changed(ORIN, machine=replace(ORIN.machine, flavors=()), versions={"tensorrt": None}),
            "tensorrt",
            "missing",
            "JetPack's is in /usr/lib/python3.10/dist-packages/tensorrt, where this Python does not look",
            "--system-site-packages",
        ),
        (
            changed(ORIN, machine=replace(ORIN.machine, flavors=()), versions={"tensorrt": None}, paths=()),
            "tensorrt",
            "missing",
            "not installed",
            "sudo apt install tensorrt python3-libnvinfer",
        ),
        (
            changed(PC, machine=replace(PC.machine, flavors=())),
            "tensorrt",
            "error",
            "pip lists tensorrt 10.13.3.9, but there is no such module: the package is a stub whose download failed",
            "pip install --no-cache-dir 'yolov3-trt[tensorrt]'",
        ),
        (
            changed(PC, imports={"tensorrt": import_error("libnvinfer.so.10: cannot open shared object file")}),
            "tensorrt",
            "error",
            "10.13.3.9 is installed, but does not load: ImportError: libnvinfer.so.10: cannot open",
            "pip install --force-reinstall --no-cache-dir 'yolov3-trt[tensorrt]'",
        ),
        (
            changed(PC, machine=replace(PC.machine, gpu=Gpu("RTX 2080", (7, 5), (12, 4)))),
            "tensorrt_rtx",
            "error",
            "1.7.1.116 is made for CUDA 13, the driver supports 12.4 at most",
            "update the driver, or install a tensorrt_rtx for CUDA 12",
        ),
        (
            changed(
                ORIN,
                machine=replace(ORIN.machine, flavors=(InstalledFlavor(FlavorName.TENSORRT, "8.5.2.2"),)),
                versions={"numpy": "2.2.6"},
            ),
            "numpy",
            "warning",
            "2.2.6; TensorRT before 10 and the OpenCV of its JetPack were made for NumPy 1",
            "pip install 'numpy<2'",
        ),
        (
            changed(PC, machine=replace(PC.machine, gpu=None)),
            "gpu",
            "missing",
            "the kernel has an NVIDIA driver, but no GPU can be reached through it",
            "--gpus all",
        ),
        (
            changed(PC, texts={"/torch/version.py": "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"}),
            "torch",
            "warning",
            "2.13.0+cpu was built without CUDA",
            "install a wheel for your CUDA",
        ),
        (
            changed(ORIN, texts={"/torch/version.py": "__version__ = '2.5.0'\ncuda = None\n"}),
            "torch",
            "warning",
            "2.5.0 was built without CUDA",
            "NVIDIA's wheel for your JetPack",
        ),
        (
            changed(PC, imports={"pycuda": import_error("libcurand.so.10: cannot open shared object file")}),
            "pycuda",
            "error",
            "2026.1, but does not import: ImportError: libcurand.so.10",
            "--no-binary pycuda pycuda",
        ),
        (
            changed(
                PC,
                machine=replace(PC.machine, gpu=None),
                imports={"pycuda": import_error("libcuda.so.1: cannot open shared object file")},
            ),
            "pycuda",
            "warning",
            "2026.1, but cannot be imported without an NVIDIA driver",
            "see gpu",
        ),
        (
            changed(ORIN, programs={"nvcc": None}, paths=("/usr/local/cuda/bin/nvcc",)),
            "nvcc",
            "warning",
            "/usr/local/cuda/bin/nvcc is not on PATH",
            "export PATH=/usr/local/cuda/bin:$PATH",
        ),
        (changed(PC, programs={"nvcc": Ran(None)}), "nvcc", "error", "it gave no answer", "reinstall the CUDA toolkit"),
        (changed(PC, programs={"nvcc": Ran(0, "\0?!" * 99)}), "nvcc", "error", "does not work: ", "reinstall"),
        (
            changed(ORIN, programs={"nvcc": nvcc("13.0")}),
            "nvcc",
            "warning",
            "compiles for CUDA 13.0, the driver supports 12.6 at most",
            "install the CUDA 12 toolkit",
        ),
        (
            changed(
                ORIN,
                programs={"nvpmodel": Ran(0, "NV Fan Mode:quiet\nNV Power Mode: 15W\n0\n")},
                texts={"/etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"},
            ),
            "power mode",
            "warning",
            "15W: slower than MAXN",
            "sudo nvpmodel -m 2, if supply and cooling allow it",
        ),
        (
            changed(ORIN, programs={"nvpmodel": Ran(255, errors="NVPM ERROR: Error opening\n")}),
            "power mode",
            "warning",
            "nvpmodel does not say",
            "sudo nvpmodel -q",
        ),
        (
            changed(ORIN, texts={f"{GPU_CLOCK}/min_freq": "306000000\n"}),
            "clocks",
            "warning",
            "the GPU clock follows the load: latency varies",
            "sudo jetson_clocks",
        ),
        (
            changed(ORIN, texts={"/proc/meminfo": meminfo(1000, 500)}),
            "memory",
            "warning",
            "1000 MiB free, 500 MiB swap free; building a full-size YOLOv3 takes about 3 GB",
            "sudo init 3",
        ),
        (
            changed(
                PC,
                texts={
                    "/sys/fs/cgroup/memory.max": str(3 * GIB),
                    "/sys/fs/cgroup/memory.current": str(2 * GIB),
                },
            ),
            "memory",
            "warning",
            "1024 MiB free, 0 MiB swap free",
            "raise the container's limit",
        ),
        (changed(PC, free=GIB), "disk", "warning", "1024 MiB free here", "write elsewhere with -o"),
    ],
)
def test_a_fault_is_named_with_its_fix(probe: FakeProbe, name: str, status: str, detail: str, fix: str):
    finding = look(probe)[name]
    assert finding.status.value == status
    assert detail in finding.detail and fix in (finding.fix or "")


@pytest.mark.parametrize(
    "probe, name, detail",
    [
        # A swap file makes up for memory; a limit that is none, or larger than what is free, changes nothing.
        (changed(ORIN, texts={"/proc/meminfo": meminfo(1000, 8000)}), "memory", "1000 MiB free, 8000 MiB swap free"),
        (changed(PC, texts={"/sys/fs/cgroup/memory.max": "max\n"}), "memory", "50000 MiB free, 0 MiB swap free"),
        (
            changed(
                ORIN,
                programs={"nvpmodel": Ran(0, "NV Power Mode: MODE_20W_6CORE\n8\n")},
                texts={"/etc/nvpmodel.conf": "< POWER_MODEL ID=8 NAME=MODE_20W_6CORE >\n"},
            ),
            "power mode",
            "MODE_20W_6CORE; this board has no MAXN",
        ),
    ],
)
def test_what_is_good_enough_is_not_complained_about(probe: FakeProbe, name: str, detail: str):
    assert look(probe)[name] == ok(name, detail)


# --- whatever a machine answers ---

JUNK = st.one_of(
    st.text(max_size=40), st.sampled_from(["release 12", "NV Power Mode:", "MemAvailable: 9 kB", "9" * 400])
)
RAN = st.builds(Ran, st.one_of(st.none(), st.integers(-20, 255)), JUNK, JUNK)


@settings(deadline=None, max_examples=200)
@given(
    base=st.sampled_from([ORIN, PC, BARE]),
    programs=st.dictionaries(st.sampled_from(["nvcc", "nvpmodel"]), RAN),
    imports=st.dictionaries(st.sampled_from(["cv2", "pycuda", "tensorrt", "tensorrt_rtx_bindings"]), RAN),
    texts=st.dictionaries(
        st.sampled_from([*ORIN.texts, "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"]), JUNK
    ),
    versions=st.dictionaries(st.sampled_from(["numpy", "tensorrt", "pycuda", "opencv-python"]), JUNK),
    flavor_version=st.one_of(st.none(), JUNK),
)
def test_any_answers_give_a_report_and_every_complaint_has_its_fix(
    base, programs, imports, texts, versions, flavor_version
):
    flavors = (InstalledFlavor(FlavorName.TENSORRT, flavor_version),) if base is ORIN else base.machine.flavors
    probe = changed(
        base,
        programs=programs,
        imports=imports,
        texts=texts,
        versions=versions,
        machine=replace(base.machine, flavors=flavors),
        folders={"cv2": "/cv2"},
    )
    for finding in look(probe).values():
        assert (finding.fix is None) == (finding.status is Status.OK)
        assert "\n" not in finding.name + finding.detail + (finding.fix or "")


def test_words_of_others_become_one_short_line():
    ran = Ran(0, errors=f"first\n\n  x{'y' * 500}\n")
    assert error("nvcc", f"it says:\n{ran.last_line}", "fix").detail == f"it says: x{'y' * 229}…"
    assert Ran(3).last_line == "it ended with code 3 and said nothing"


def test_a_finding_that_is_not_ok_must_have_a_fix_and_an_ok_one_none():
    for status in Status:
        with pytest.raises(ValueError, match="expected a fix unless ok"):
            Finding("x", status, "y", "z" if status is Status.OK else None)


# --- the real probe ---


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


posix = pytest.mark.skipif(os.name != "posix", reason="shell scripts")


@posix
def test_programs_that_hang_crash_or_are_none_are_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, "hangs", "exec sleep 60")
    program(tmp_path, "babbles", r"printf '\377\376\000junk'; exit 3")
    program(tmp_path, "dies", "kill -9 $$")
    (tmp_path / "empty").touch(mode=0o755)
    probe = Probe()
    assert probe.run("hangs", timeout_s=0.2) == Ran(None)
    assert probe.run("babbles") == Ran(3, "\ufffd\ufffd\0junk")
    assert (probe.run("dies") or Ran(0)).last_line == "it was ended by signal 9"
    assert probe.run("empty") is None and probe.run("is-not-there") is None
    assert (
        probe.python("import no_such_module_here").last_line
        == "ModuleNotFoundError: No module named 'no_such_module_here'"
    )
    assert probe.python("import os; os.abort()").code == -6


def test_files_that_cannot_be_read_are_answers(tmp_path: Path):
    probe = Probe()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert probe.text(str(tmp_path / "bytes")) == "\ufffd\ufffd"
    assert probe.text(str(tmp_path)) is None and probe.text("/nowhere") is None and probe.text("a\0b") is None
    assert probe.module_folder("no_such_module_here") is None and probe.module_folder("") is None
    assert probe.version("no-such-package-here") is None
    assert (probe.free_bytes(tmp_path / "not" / "yet" / "there") or 0) > 0
    assert probe.matches(f"{tmp_path}/b*") == (str(tmp_path / "bytes"),)


def test_this_machine_is_reported_without_changing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    found = look(Probe())
    assert {"python", "gpu", "nvcc", "pycuda", "opencv", "disk"} <= set(found)
    assert not {"cv2", "torch", "tensorrt", "tensorrt_rtx_bindings", "pycuda"} & (set(sys.modules) - before)
    assert list(tmp_path.iterdir()) == []


def test_an_opencv_that_spoils_interlaced_video_is_found_by_trying(tmp_path: Path):
    """The little clip in the check is interlaced, and its pictures are grey where OpenCV can read them."""
    clip = tmp_path / "a.m2v"
    clip.write_bytes(base64.b64decode(vision.INTERLACED_M2V))
    is_read, picture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG).read()
    assert is_read and picture.shape == (32, 32, 3)
    is_ffmpeg_8 = re.search(r"avcodec:\s+YES \(62\.", cv2.getBuildInformation()) is not None
    is_spoilt = not 112 < picture.min() <= picture.max() < 144
    assert (is_spoilt, "interlaced video" in look(Probe())) == (is_ffmpeg_8, is_ffmpeg_8)


def test_an_interpreter_without_any_package_gets_its_report():
    # -S leaves out every installed package, NumPy and pydantic too; there is no program to be found either.
    code = (
        "import os, sys; os.environ['PATH'] = ''; sys.path.insert(0, sys.argv[1])\n"
        "from yolov3_trt.doctor import findings\n"
        "print(*(f'{found.name}={found.status.value}' for found in findings()), sep='\\n')"
    )
    root = str(Path(doctor_module.__file__).parents[2])
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True)
    report = dict(line.rsplit("=", 1) for line in result.stdout.splitlines())
    assert {report[name] for name in ("numpy", "tensorrt", "pycuda", "torch", "opencv", "onnxruntime")} == {"missing"}


# --- the command ---


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, found: tuple[Finding, ...], *args: str):
    monkeypatch.setattr(doctor_module, "findings", lambda: found)
    code = call("doctor", *args)
    return code, *capsys.readouterr()


def test_the_report_lists_findings_with_their_fixes_and_ends_with_0(capsys, monkeypatch):
    found = (ok("nvcc", "CUDA 12.6"), missing("pycuda", "not installed", "pip install 'yolov3-trt[pycuda]'"))
    code, stdout, stderr = run(capsys, monkeypatch, found)
    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == [
        "ok        nvcc           CUDA 12.6",
        "missing   pycuda         not installed",
        "                         fix: pip install 'yolov3-trt[pycuda]'",
    ]


def test_what_is_installed_but_broken_ends_with_1_after_the_report(capsys, monkeypatch, tmp_path):
    import json

    found = (error("opencv", "does not import", "reinstall it"), ok("nvcc", "CUDA 12.6"))
    code, stdout, stderr = run(capsys, monkeypatch, found, "--json", "-")
    assert code == 1
    assert stderr == "yolov3_trt: installed but broken: opencv; the fixes are in the report\n"
    assert json.loads(stdout) == {
        "version": yolov3_trt.__version__,
        "findings": [
            {"name": "opencv", "status": "error", "detail": "does not import", "fix": "reinstall it"},
            {"name": "nvcc", "status": "ok", "detail": "CUDA 12.6", "fix": None},
        ],
    }


def test_the_bug_report_has_versions_and_no_home_folder(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("MY_PASSWORD", "secret")
    found = (ok("opencv", f"4.6.0 at {tmp_path}/v/cv2"), missing("nvcc", "not installed", "install it"))
    code, stdout, _ = run(capsys, monkeypatch, found, "--report")
    lines = stdout.splitlines()
    assert code == 0
    assert (lines[0], lines[-1]) == ("```text", "```")
    assert lines[1].startswith(f"yolov3_trt {yolov3_trt.__version__}, Python {platform.python_version()}, ")
    assert "ok       opencv: 4.6.0 at ~/v/cv2" in lines
    assert "missing  nvcc: not installed (fix: install it)" in lines
    assert f"numpy=={importlib.metadata.version('numpy')}" in lines
    assert "CUDA_VISIBLE_DEVICES=1" in lines
    assert "secret" not in stdout and str(tmp_path) not in stdout


def test_the_report_says_which_package_this_is_and_where_it_keeps_what_it_fetches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    detail = look(BARE)["yolov3_trt"].detail
    package = Path(yolov3_trt.__file__).parent
    assert detail == f"{yolov3_trt.__version__} at {package}, cache {tmp_path / 'yolov3_trt'}"


def test_statuses_are_coloured_where_colours_are_wanted(monkeypatch: pytest.MonkeyPatch):
    from yolov3_trt.cli.doctor import colored

    text = "ok        a  error in a sentence\nerror     b  broken\n          fix: ok, do this"
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert colored(text) == text  # stdout is captured, so no terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert colored(text) == (
        "\x1b[32mok\x1b[0m        a  error in a sentence\n\x1b[1;31merror\x1b[0m     b  broken\n          fix: ok, do this"
    )
    monkeypatch.setenv("NO_COLOR", "1")
    assert colored(text) == text
