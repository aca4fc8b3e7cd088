"""Compiling the kernels, once: a cubin on disk for each source, compute capability and compiler.

A file is the cubin and its SHA-256 after it. One that is damaged counts as missing.
"""

import hashlib
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from yolov3_trt.engine.trust import why_suspicious
from yolov3_trt.errors import DeviceError, OutputError
from yolov3_trt.files import cache_folder, write_bytes
from yolov3_trt.runtime.kernels.source import COMPILE_OPTIONS, FOLDER, MODULE, source, source_sha256

_LOG = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_NVCC = "/usr/local/cuda/bin/nvcc"  # where JetPack puts it, and not on PATH


def module_of_kernels(driver: Any, compiler: Any, compute_capability: tuple[int, int], cache: Path) -> Any:
    """The kernels, loaded into the current context, from the cache or from nvcc.

    Args:
        driver: the module `pycuda.driver`.
        compiler: the module `pycuda.compiler`.
        compute_capability: of the GPU.
        cache: folder of compiled kernels.

    Raises:
        DeviceError: there is no nvcc, or it fails.
    """
    nvcc = shutil.which("nvcc") or shutil.which(_NVCC)
    if nvcc is None:
        raise DeviceError("nvcc is not installed or not on PATH; the kernels need it: see yolov3_trt doctor")
    try:
        path = cubin_path(cache, compute_capability, str(compiler.get_nvcc_version(nvcc)))
        cubin = load_cubin(path)
        if cubin is not None:
            try:
                return driver.module_from_buffer(cubin)
            except driver.Error as exc:
                _LOG.warning("%s: the driver refuses these compiled kernels (%s); they are compiled again", path, exc)
        cubin = _compile(compiler, nvcc, compute_capability)
    except driver.CompileError as exc:
        raise DeviceError(f"{MODULE}: {nvcc} does not compile it: {' '.join(str(exc).split())}") from exc
    except OSError as exc:
        raise DeviceError(f"{nvcc} cannot be run ({exc}); reinstall the CUDA toolkit") from exc
    save_cubin(path, cubin)
    return driver.module_from_buffer(cubin)


def default_cache() -> Path:
    """The folder of compiled kernels, in the user's cache."""
    return cache_folder() / "kernels"


def cubin_path(folder: Path, compute_capability: tuple[int, int], nvcc_version: str) -> Path:
    """Where the kernels of this release lie: `sm_87-5f0a....cubin`.

    Args:
        folder: of the cache.
        compute_capability: what they are compiled for.
        nvcc_version: all that the compiler says of its version.
    """
    digest = hashlib.sha256(f"{source_sha256()}\n{nvcc_version}".encode()).hexdigest()
    return folder / f"sm_{compute_capability[0]}{compute_capability[1]}-{digest[:24]}.cubin"


def load_cubin(path: Path) -> bytes | None:
    """The compiled kernels of a file; None where there is none, none that is whole, or others could have put it there."""
    try:
        if path.exists() and (reason := why_suspicious(path)) is not None:
            _LOG.warning("%s: these compiled kernels are not loaded, they are compiled again: %s", path, reason)
            return None
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        _LOG.warning("%s: these compiled kernels cannot be read (%s); they are compiled again", path, exc.strerror)
        return None
    cubin, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(cubin).digest() != digest:
        _LOG.warning("%s: these compiled kernels are damaged; they are compiled again", path)
        return None
    return cubin


def save_cubin(path: Path, cubin: bytes) -> None:
    """Keep compiled kernels; where that fails, the next start compiles again."""
    with suppress(OSError):  # the next line says what is wrong
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        write_bytes(path, cubin + hashlib.sha256(cubin).digest())
    except OutputError as exc:
        _LOG.warning("the compiled kernels are not kept: %s", exc)


def _compile(compiler: Any, nvcc: str, compute_capability: tuple[int, int]) -> bytes:
    cubin: bytes = compiler.compile(
        source(),
        nvcc=nvcc,
        options=list(COMPILE_OPTIONS),
        include_dirs=[str(FOLDER)],
        no_extern_c=True,
        arch="sm_{}{}".format(*compute_capability),
        cache_dir=False,  # pycuda's own does not see what the source includes
    )
    return cubin
