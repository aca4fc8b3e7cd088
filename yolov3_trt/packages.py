"""The optional packages: which extra of this one brings each, and the one command that installs what is missing here."""

import importlib.util
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """Something that is only needed for a part of the work."""

    extra: str  # of yolov3-trt, which brings it from a package index
    modules: tuple[str, ...]  # import names, of which one will do
    jetson_apt: str = ""  # what brings it on a Jetson, where a wheel would not fit the board's CUDA or lack GStreamer


PACKAGES = {
    "opencv": Package("opencv", ("cv2",), jetson_apt="python3-opencv"),
    "onnxruntime": Package("cpu", ("onnxruntime",)),
    "openvino": Package("openvino", ("openvino",)),
    "onnx": Package("onnx", ("onnx",)),
    "torch": Package("export", ("torch",)),
    "tensorrt": Package("rtx", ("tensorrt", "tensorrt_rtx_bindings"), jetson_apt="tensorrt python3-libnvinfer"),
    "tensorrt_rtx": Package("rtx", ("tensorrt_rtx_bindings",)),
    "pycuda": Package("pycuda", ("pycuda",)),
    "tritonclient": Package("triton", ("tritonclient",)),
}
_ONNX_BRINGERS = frozenset({"export"})  # extras that bring `onnx` along


def missing_packages(names: Iterable[str]) -> tuple[str, ...]:
    """Those of PACKAGES that are not installed, in the order given; nothing is imported."""
    return tuple(name for name in dict.fromkeys(names) if not any(map(_is_there, PACKAGES[name].modules)))


def how_to_install(names: Iterable[str]) -> str:
    """What to do about some of PACKAGES, in one line that fits this machine: `run: COMMAND`, mostly.

    On a Jetson OpenCV and TensorRT come from JetPack, and a PyTorch for its GPU from NVIDIA alone: whoever needs that is sent
    elsewhere. Without a screen it is the OpenCV that needs none.
    """
    names = tuple(names)
    if is_jetson() and "torch" in names:
        return "no wheel of torch fits a Jetson's GPU: do this on a PC; `export` and `build` need none"
    apt = [PACKAGES[name].jetson_apt for name in names if is_jetson() and PACKAGES[name].jetson_apt]
    extras = {PACKAGES[name].extra for name in names if not (is_jetson() and PACKAGES[name].jetson_apt)}
    return f"run: {_command(apt, extras)}"


def how_to_install_extra(extra: str) -> str:
    """The same for one extra; on a Jetson what apt has in its place."""
    of_jetson = [package.jetson_apt for package in PACKAGES.values() if package.extra == extra and package.jetson_apt]
    return f"run: {_command(of_jetson[:1], set()) if is_jetson() and of_jetson else _command([], {extra})}"


def is_jetson() -> bool:
    """Whether this is a Jetson, or a container on one."""
    if platform.machine() != "aarch64":
        return False
    model = Path("/proc/device-tree/model")
    return Path("/etc/nv_tegra_release").exists() or (model.exists() and b"jetson" in model.read_bytes().lower())


def _command(apt: list[str], extras: set[str]) -> str:
    if extras & _ONNX_BRINGERS:
        extras = extras - {"onnx"}
    if "opencv" in extras and _has_no_screen():
        extras = extras - {"opencv"} | {"opencv-headless"}
    commands = [f"sudo apt install {' '.join(apt)}"] if apt else []
    if extras:
        commands.append(f"pip install 'yolov3-trt[{','.join(sorted(extras))}]'")
    # What apt installs is seen by a virtual environment that was made to see it only.
    return " && ".join(commands) + (" (in a venv made with --system-site-packages)" if apt else "")


def _has_no_screen() -> bool:
    return sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # put into sys.modules without a spec
        return True
