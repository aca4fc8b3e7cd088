"""What is missing, and the command that fits the machine."""

import importlib.metadata
import re

import pytest

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
        (["opencv", "torch", "onnx", "onnxscript", "onnxruntime"], "pip install 'yolov3-trt[cpu,export,opencv]'"),
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
            "no wheel of torch fits a Jetson's GPU: export on a PC, then copy the .onnx and its .json here",
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
