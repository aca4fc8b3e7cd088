"""What compiles the kernels for a GPU: nvcc, which needs a C++ compiler beside it, or NVRTC, a library that needs nothing."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from yolov3_trt.errors import DeviceError
from yolov3_trt.runtime.kernels.source import COMPILE_OPTIONS, MODULE, SOURCES

_NVCC = "/usr/local/cuda/bin/nvcc"  # where JetPack puts it, and not on PATH
_OF_SYSTEM = ("libnvrtc.so.11.2", "libnvrtc.so.12", "libnvrtc.so.13")


def by_nvcc(arch: str) -> bytes:
    """A cubin for `sm_87` or the like.

    Raises:
        DeviceError: there is no nvcc, or it fails.
    """
    nvcc = shutil.which("nvcc") or shutil.which(_NVCC)
    if nvcc is None:
        raise DeviceError("it is not installed or not on PATH")
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, "kernels.cubin")
            command = [nvcc, "-cubin", *COMPILE_OPTIONS, f"-arch={arch}", str(MODULE), "-o", str(made)]
            environment = {**os.environ, "TMPDIR": folder}
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise DeviceError(f"{nvcc} does not compile {MODULE}: {' '.join(done.stderr.split())}")
            return made.read_bytes()
    except OSError as exc:
        raise DeviceError(f"{nvcc} cannot be run ({exc}); reinstall the CUDA toolkit") from exc


def by_nvrtc(arch: str) -> bytes:
    """A cubin for `sm_87`, or PTX for `compute_87`, by the oldest NVRTC here that knows it: more drivers take what it makes.

    Raises:
        DeviceError: there is no NVRTC, or none that compiles this.
    """
    reasons = []
    for path in _libraries():
        try:
            return compiled(ctypes.CDLL(path), arch)
        except OSError:
            continue  # not there
        except DeviceError as exc:
            reasons.append(f"{path}: {exc}")
    raise DeviceError("; ".join(reasons) or "it is not installed; pip install nvidia-cuda-nvrtc-cu12")


def compiled(nvrtc: Any, arch: str) -> bytes:
    """What an NVRTC makes: the same bytes for the same sources and the same release of it.

    Raises:
        DeviceError: it does not compile the kernels for this.
    """
    included = [path for path in SOURCES if path != MODULE]
    program = c_void_p()
    _check(nvrtc, "nvrtcCreateProgram", nvrtc.nvrtcCreateProgram(
        byref(program), MODULE.read_bytes(), MODULE.name.encode(), len(included),
        _strings(path.read_bytes() for path in included), _strings(path.name.encode() for path in included),
    ))  # fmt: skip
    try:
        options = [option.encode() for option in (*COMPILE_OPTIONS, f"-arch={arch}")]
        if nvrtc.nvrtcCompileProgram(program, len(options), _strings(options)):
            raise DeviceError(
                " ".join(_text(nvrtc, "ProgramLog", program).decode(errors="replace").strip("\0").split())
            )
        return _text(nvrtc, "CUBIN" if arch.startswith("sm_") else "PTX", program)
    finally:
        nvrtc.nvrtcDestroyProgram(byref(program))


def _libraries() -> Iterator[str]:
    """Where an NVRTC may be, pip's first, the oldest of each kind first."""
    found = importlib.util.find_spec("nvidia")  # the packages of NVIDIA's wheels have no more in common than this name
    folders = found.submodule_search_locations if found else None
    wheels = {path for folder in folders or () for path in Path(folder).glob("*/lib/libnvrtc.so.*")}
    yield from sorted(map(str, wheels), key=lambda path: path.rpartition(".so.")[2])
    yield from _OF_SYSTEM


def _text(nvrtc: Any, what: str, program: c_void_p) -> bytes:
    size = c_size_t()
    _check(nvrtc, what, getattr(nvrtc, f"nvrtcGet{what}Size")(program, byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(nvrtc, what, getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.raw


def _strings(values: Any) -> Any:
    values = list(values)
    return (c_char_p * len(values))(*values)


def _check(nvrtc: Any, what: str, code: int) -> None:
    if code:
        nvrtc.nvrtcGetErrorString.restype = c_char_p
        raise DeviceError(f"{what}: {nvrtc.nvrtcGetErrorString(code).decode(errors='replace')}")
