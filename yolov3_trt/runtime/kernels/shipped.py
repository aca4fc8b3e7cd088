"""Kernels that the package brings compiled, so that nobody needs a compiler; `make kernels` makes them (.ci/kernels.py).

The archive holds a cubin for each compute capability and, for GPUs that have none, PTX that the driver compiles. Its key is the
hash of the sources: kernels of other sources are never loaded.
"""

import tarfile
from functools import cache

from yolov3_trt.errors import DeviceError
from yolov3_trt.runtime.kernels.source import FOLDER, source_sha256

ARCHIVE = FOLDER / "compiled.tar.xz"
KEY = "sources.sha256"  # the member that says of which sources the others are


def shipped(name: str) -> bytes:
    """A member of the archive: `sm_87`, or the PTX, `compute_52`.

    Raises:
        DeviceError: it is not there, or made of other sources.
    """
    if _members().get(KEY, b"").decode(errors="replace") != source_sha256():
        raise DeviceError("they were made of other sources (developers: make kernels)")
    if name not in _members():
        raise DeviceError(f"there is no {name} among {', '.join(shipped_names())}")
    return _members()[name]


def shipped_names() -> tuple[str, ...]:
    """What the archive has compiled code for, e.g. `sm_87`."""
    return tuple(name for name in _members() if name != KEY)


@cache
def _members() -> dict[str, bytes]:
    try:
        with tarfile.open(ARCHIVE, "r:xz") as archive:
            files = ((member.name, archive.extractfile(member)) for member in archive)
            return {name: file.read() for name, file in files if file is not None}
    except (OSError, EOFError, tarfile.TarError) as exc:  # also where this Python was built without lzma
        raise DeviceError(f"{ARCHIVE} cannot be read ({exc}); reinstall the package") from exc
