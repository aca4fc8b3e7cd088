"""Where the kernels' machine code comes from: the package, the user's cache, nvcc, NVRTC.

A file of the cache is the cubin and its SHA-256 after it. One that is damaged counts as missing.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from yolov3_trt.engine.trust import why_suspicious
from yolov3_trt.errors import DeviceError, DeviceLostError, OutputError
from yolov3_trt.files import cache_folder, write_bytes
from yolov3_trt.runtime.kernels.compilers import by_nvcc, by_nvrtc
from yolov3_trt.runtime.kernels.shipped import shipped
from yolov3_trt.runtime.kernels.source import source_sha256

_LOG = logging.getLogger(__name__)
_DIGEST_BYTES = 32
PTX = "compute_52"  # a driver compiles PTX for every GPU that is as new, so the oldest serves most of them

Module = TypeVar("Module")


def module_of_kernels(load: Callable[[bytes], Module], compute_capability: tuple[int, int], cache: Path) -> Module:
    """The kernels for a GPU, from the first place that has what the driver takes; what was compiled here is kept.

    Args:
        load: gives code to the driver; DeviceError where that refuses it.
        compute_capability: of the GPU.
        cache: folder of compiled kernels.

    Raises:
        DeviceError: no place has any; it says why of each.
    """
    arch = "sm_{}{}".format(*compute_capability)
    path = cubin_path(cache, compute_capability)
    places: dict[str, Callable[[], bytes]] = {
        "the package's own": lambda: shipped(arch),
        "the package's PTX": lambda: shipped(PTX),
        "kept ones": lambda: load_cubin(path),
        "by nvcc": lambda: by_nvcc(arch),
        "by NVRTC": lambda: by_nvrtc(arch),
    }
    reasons = []
    for place, find in places.items():
        try:
            code = find()
            module = load(code)
        except DeviceLostError:
            raise
        except DeviceError as exc:
            _LOG.info("kernels, %s: %s", place, exc)
            reasons.append(f"{place}: {exc}")
            continue
        _LOG.info("kernels for %s: %s", arch, place)
        if place.startswith("by "):
            save_cubin(path, code)
        return module
    raise DeviceError(f"no compiled kernels for {arch}: {'; '.join(reasons)}")


def default_cache() -> Path:
    """The folder of compiled kernels, in the user's cache."""
    return cache_folder() / "kernels"


def cubin_path(folder: Path, compute_capability: tuple[int, int]) -> Path:
    """Where the kernels of these sources lie, for a compute capability: `sm_87-5f0a....cubin`."""
    return folder / "sm_{}{}-{}.cubin".format(*compute_capability, source_sha256()[:24])


def load_cubin(path: Path) -> bytes:
    """The compiled kernels of a file.

    Raises:
        DeviceError: there is none, none that is whole, or others could have put it there.
    """
    try:
        if path.exists() and (reason := why_suspicious(path)) is not None:
            _LOG.warning("%s: these compiled kernels are not loaded: %s", path, reason)
            raise DeviceError(reason)
        content = path.read_bytes()
    except FileNotFoundError:
        raise DeviceError(f"{path} is not there") from None
    except OSError as exc:
        raise DeviceError(f"{path} cannot be read ({exc.strerror})") from exc
    cubin, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(cubin).digest() != digest:
        raise DeviceError(f"{path} is damaged")
    return cubin


def save_cubin(path: Path, cubin: bytes) -> None:
    """Keep compiled kernels; where that fails, the next start compiles again."""
    with suppress(OSError):  # the next line says what is wrong
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        write_bytes(path, cubin + hashlib.sha256(cubin).digest())
    except OutputError as exc:
        _LOG.warning("the compiled kernels are not kept: %s", exc)
