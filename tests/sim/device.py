"""Compiling the kernels for the host, and launching them."""

import ctypes
import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from yolov3_trt.runtime.kernels.source import FOLDER, KERNELS, MODULE, Dim3, Launch

HERE = Path(__file__).parent
# -ffp-contract=off is what -fmad=false is to nvcc. A misaligned load traps, as it does on a GPU.
COMPILE = (
    *("g++", "-std=c++17", "-O2", "-ffp-contract=off", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"),
    *("-Wall", "-Wextra", "-Werror", "-fPIC", "-U_FORTIFY_SOURCE", f"-I{HERE / 'include'}", f"-I{HERE}"),
)
SECTOR_BYTES = 32  # what a GPU fetches at least
FAILURES = {
    1: "there is no such kernel",
    2: "its struct has another size",
    3: "the grid or the block is empty, or the block has more than 1024 threads",
    4: "some threads of a block ended before a barrier at which others wait",
    5: "it read or wrote where it must not, or at a misaligned address",
}


class SimulationError(Exception):
    """A launch that failed, or a kernel that does what it must not."""


class SimulatedDevice:
    """Memory and launches of a simulated device.

    The arrays it hands out lie in its memory, so that kernels take their addresses, and are gone once it is closed.
    """

    def __init__(
        self, seed: int = 0, module: Path = MODULE, kernels: tuple[str, ...] = KERNELS, *, traced: bool = False
    ) -> None:
        """Compile what is to run, or take it from the cache.

        Args:
            seed: shuffles the order of threads and blocks; 0 keeps it.
            module: the CUDA source.
            kernels: the names in it.
            traced: count what `sectors_read` tells, which takes a hundred times as long.
        """
        self.seed = seed
        self._library = _library(module, kernels, traced)
        self._allocations: list[tuple[int, int]] = []

    def launch(self, kernel: str, grid: Dim3, block: Dim3, shared_bytes: int, args: bytes) -> None:
        """Run a kernel to its end.

        Raises:
            SimulationError: it could not be launched, or did what would be an error on a GPU too.
        """
        if shared_bytes:
            raise SimulationError(
                f"{kernel}: {shared_bytes} bytes of dynamic shared memory; expected 0: it is all static"
            )
        status = self._library.launch(
            kernel.encode(), (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), args, len(args), self.seed
        )
        if status:
            raise SimulationError(f"{kernel} with grid {grid}, block {block}: {FAILURES[status]}")

    def run(self, launch: Launch) -> None:
        """`launch` with what the product's own code prepared."""
        self.launch(launch.kernel, launch.grid, launch.block, 0, launch.args)

    @property
    def barriers(self) -> int:
        """How often the threads of a block waited for each other in the last launch, over all blocks."""
        return int(self._library.barriers())

    def sectors_read(self, launch: Launch, memory: Iterable[tuple[int, int]]) -> int:
        """Run a kernel, and count the 32-byte sectors of some memory that the loads of its warps touch, each load by itself.

        Args:
            launch: of the kernel.
            memory: address and bytes of each piece of it.
        """
        for start, num_bytes in memory:
            self._library.trace_add(start, num_bytes)
        try:
            self.run(launch)
        finally:
            sectors: int = self._library.trace_stop()
        return sectors

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array in the device's memory, filled with 0xcd."""
        dtype = np.dtype(dtype)
        size = max(1, int(np.prod(shape)) * dtype.itemsize)
        address = self._library.allocate(size)
        if not address:
            raise SimulationError(f"no memory for {size} bytes")
        self._allocations.append((address, size))
        memory = (ctypes.c_char * size).from_address(address)
        return np.frombuffer(memory, dtype, count=int(np.prod(shape))).reshape(shape)

    def copy(self, array: NDArray[Any]) -> NDArray[Any]:
        """A contiguous copy of an array in the device's memory."""
        copied = self.empty(array.shape, array.dtype)
        copied[...] = array
        return copied

    def close(self) -> None:
        """Free the memory."""
        while self._allocations:
            self._library.release(*self._allocations.pop())

    def __enter__(self) -> "SimulatedDevice":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def has_compiler() -> bool:
    """Whether the simulation can be compiled here."""
    return shutil.which(COMPILE[0]) is not None


@cache
def _library(module: Path, kernels: tuple[str, ...], traced: bool) -> ctypes.CDLL:
    library = ctypes.CDLL(str(_compiled(module, kernels, traced)))
    if traced:
        library.trace_add.argtypes, library.trace_add.restype = [ctypes.c_void_p, ctypes.c_size_t], None
        library.trace_stop.argtypes, library.trace_stop.restype = [], ctypes.c_longlong
    library.barriers.argtypes, library.barriers.restype = [], ctypes.c_longlong
    library.launch.argtypes = [
        *(ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint)),
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint),
    ]
    library.allocate.argtypes, library.allocate.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.release.argtypes, library.release.restype = [ctypes.c_void_p, ctypes.c_size_t], None
    return library


def _compiled(module: Path, kernels: tuple[str, ...], traced: bool = False) -> Path:
    """The shared library of a module, named after all that it is made from."""
    table = "".join(f'    {{"{name}", simulator::args_size({name}), simulator::call<{name}>}},\n' for name in kernels)
    text = (
        f'#include "simulated_cuda.h"\n#include "{module}"\n#include "simulator.h"\n'
        + ('#include "trace.h"\n' if traced else "")
        + f"const simulator::Kernel KERNELS[] = {{\n{table}}};\nconst int NUM_KERNELS = {len(kernels)};\n"
    )
    counting = ("-fsanitize=thread", "-fno-threadsafe-statics") if traced else ()
    digest = hashlib.sha256("\0".join([*COMPILE, *counting, text]).encode())
    for path in sorted({module, *HERE.rglob("*.h"), *FOLDER.glob("*.cu*")}):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"yolov3_trt-simulation-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest.hexdigest()[:24]}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}.partial")
        code = partial.with_suffix(
            ".o"
        )  # linked by itself: with the option at hand, the sanitizer's own library would be too
        for command in (
            [*COMPILE, *counting, "-x", "c++", "-c", "-", "-o", str(code)],
            ["g++", "-shared", str(code), "-o", str(partial)],
        ):
            result = subprocess.run(command, input=text, capture_output=True, text=True)
            if result.returncode:
                raise SimulationError(f"{module} does not compile for the simulation:\n{result.stderr}")
        code.unlink()
        partial.replace(library)  # whoever else compiles it at the same time makes the same
    return library
