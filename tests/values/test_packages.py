"""What is missing, and the command that fits the machine."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_runner import PROGRESS
from yolov3_trt import packages
from yolov3_trt.errors import MissingDependency, require
from yolov3_trt.packages import PACKAGES, how_to_install, missing_packages


@pytest.fixture
def pc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "is_jetson", lambda: False)
    monkeypatch.setenv("DISPLAY", ":0")


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "is_jetson", lambda: True)


def test_every_extra_that_is_advised_exists():
    known = set(importlib.metadata.metadata("yolov3-trt").get_all("Provides-Extra") or [])
    assert {package.extra for package in PACKAGES.values()} - {"onnx"} <= known


@pytest.mark.parametrize(
    "names, command",
    [
        (["opencv"], "pip install 'yolov3-trt[opencv]'"),
        (["opencv", "torch", "onnx", "onnxruntime"], "pip install 'yolov3-trt[cpu,export,opencv]'"),
        (["onnx", "onnxruntime"], "pip install 'yolov3-trt[cpu,onnx]'"),
        (["tensorrt"], "pip install 'yolov3-trt[rtx]'"),
        (["tritonclient"], "pip install 'yolov3-trt[triton]'"),
    ],
)
def test_on_a_pc_one_pip_command_brings_all(pc, names: list[str], command: str):
    assert how_to_install(names) == f"run: {command}"


def test_without_a_screen_it_is_the_opencv_that_needs_none(pc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(packages.sys, "platform", "linux")
    assert how_to_install(["opencv"]) == "run: pip install 'yolov3-trt[opencv-headless]'"


@pytest.mark.parametrize(
    "names, remedy",
    [
        (["opencv"], "run: sudo apt install python3-opencv (in a venv made with --system-site-packages)"),
        (
            ["opencv", "onnxruntime"],
            "run: sudo apt install python3-opencv && pip install 'yolov3-trt[cpu]'"
            " (in a venv made with --system-site-packages)",
        ),
        (
            ["tensorrt"],
            "run: sudo apt install tensorrt python3-libnvinfer (in a venv made with --system-site-packages)",
        ),
        (
            ["torch", "onnx"],
            "no wheel of torch fits a Jetson's GPU: do this on a PC; `export` and `build` need none",
        ),
    ],
)
def test_on_a_jetson_no_wheel_is_advised_that_cannot_run_there(jetson, names: list[str], remedy: str):
    assert how_to_install(names) == remedy


def test_a_package_that_is_needed_late_has_the_same_remedy(jetson):
    with pytest.raises(
        MissingDependency, match=r"^no_such_thing is not installed; run: sudo apt install python3-opencv"
    ):
        require("no_such_thing", extra="opencv")
    with pytest.raises(MissingDependency, match=re.escape("run: pip install 'yolov3-trt[pycuda]'")):
        require("no_such_thing", extra="pycuda")


def test_missing_is_what_none_of_its_modules_brings(monkeypatch: pytest.MonkeyPatch):
    there = {"tensorrt_rtx_bindings", "cv2"}
    monkeypatch.setattr(packages, "_is_there", there.__contains__)
    assert missing_packages(["opencv", "tensorrt", "torch", "opencv", "torch", "onnx"]) == ("torch", "onnx")


@pytest.mark.parametrize(
    "source, cause",
    [
        (
            "raise ImportError('numpy.core.multiarray failed to import')",
            "ImportError: numpy.core.multiarray failed to import",
        ),
        ("raise OSError('libcudart.so.12: cannot\\n open')", "OSError: libcudart.so.12: cannot open"),
        ("import sys; sys.no_such_thing", "AttributeError: module 'sys' has no attribute 'no_such_thing'"),
        ("raise RuntimeError('compiled against ABI 9')", "RuntimeError: compiled against ABI 9"),
        ("import no_such_part", "ModuleNotFoundError: No module named 'no_such_part'"),
    ],
)
def test_a_package_that_is_there_but_does_not_import_gives_one_line_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, cause: str
):
    """NumPy says on stderr, in forty lines, which package was compiled for its first version."""
    (tmp_path / "broken_package.py").write_text(f"import sys\nprint('Traceback ...', file=sys.stderr)\n{source}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency) as caught:
        require("broken_package", extra="opencv")
    assert str(caught.value) == (
        f"broken_package is installed, but does not import ({cause}); run: yolov3_trt doctor, which says how to mend it"
    )
    assert capsys.readouterr().err == ""


def test_what_a_package_says_as_it_loads_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "loud_package.py").write_text("import sys\nprint('no GPU', file=sys.stderr)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert require("loud_package", extra="opencv").__name__ == "loud_package"
    assert capsys.readouterr().err == "no GPU\n"


VERBS = {
    "shapes": ("-o", "out"),
    "detect": ("shapes", "out"),
    "camera": ("shapes", "--source", "clip.mp4"),
    "bench": ("shapes",),
    "train": ("--data", "data.yaml", "--model", "shapes"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_so_in_one_line_too(tmp_path: Path, verb: str):
    (tmp_path / "cv2.py").write_text("raise AttributeError('_ARRAY_API not found')\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"")
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "data.yaml").write_text("train: out\nval: out\nnames: [a]\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "yolov3_trt", verb, *VERBS[verb]]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if not line.endswith(PROGRESS)]
    assert (done.returncode, lines) == (
        1,
        [
            "yolov3_trt: cv2 is installed, but does not import (AttributeError: _ARRAY_API not found); run: yolov3_trt doctor, "
            "which says how to mend it"
        ],
    )
