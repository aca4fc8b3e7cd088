"""The CUDA source of the kernels, what to compile it with, and what a launch is.

Every kernel takes one struct by value, so a launch is a name, a grid, a block and the struct's bytes. All shared memory is
static. With pycuda::

    module = SourceModule(source(), options=list(COMPILE_OPTIONS), include_dirs=[str(FOLDER)], no_extern_c=True)
    function = module.get_function(launch.kernel).prepare([f"{len(launch.args)}s"])
    function.prepared_async_call(launch.grid, launch.block, stream, launch.args)
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
MODULE = FOLDER / "kernels.cu"  # includes all the others
SOURCES = tuple(sorted([*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh")]))
# A fused multiply-add rounds once where NumPy and OpenCV round twice: without it, results equal the host's.
COMPILE_OPTIONS = ("-std=c++14", "-fmad=false")
KERNELS = ("letterbox_f32", "letterbox_f16", "letterbox_u8", "decode_f32", "decode_f16", "nms")

Dim3 = tuple[int, int, int]


@dataclass(frozen=True)
class Launch:
    """One kernel, ready to be launched; the addresses in `args` must stay valid until it has run."""

    kernel: str  # of KERNELS
    grid: Dim3  # blocks, x y z
    block: Dim3  # threads
    args: bytes  # the struct that the kernel takes


def source() -> str:
    """The text of the module that holds every kernel; its includes lie in FOLDER."""
    return MODULE.read_text(encoding="utf-8")


def source_sha256() -> str:
    """Hex SHA-256 of all that a compiled module depends on: the source files and the options."""
    digest = hashlib.sha256(repr(COMPILE_OPTIONS).encode())
    for path in SOURCES:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def struct_bytes(layout: np.dtype[Any], **fields: Any) -> bytes:
    """A kernel's struct, as C lays it out, from the values of its fields; those not given are zero."""
    struct: NDArray[Any] = np.zeros((), layout)
    for name, value in fields.items():
        struct[name] = value
    return struct.tobytes()


def ceil_div(count: int, size: int) -> int:
    """How many pieces of a size hold a count."""
    return -(-count // size)
