"""System shared memory for what requests carry, which a server of this machine maps instead of reading a socket."""

import os
import secrets
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends.triton.connection import Region

_FOLDER = "/dev/shm"


class Block:
    """Memory for one request at a time."""

    def __init__(self, memory: SharedMemory, num_bytes: int) -> None:
        self.region = Region(memory.name, f"/{memory.name.lstrip('/')}", num_bytes)
        self._memory = memory
        self._filled = 0  # bytes

    def put(self, array: NDArray[Any]) -> None:
        """Copy an array into it, in C order."""
        np.ndarray(array.shape, array.dtype, buffer=self._memory.buf)[...] = array
        self._filled = array.nbytes

    def data(self) -> bytes:
        """What was put in."""
        assert self._memory.buf is not None  # not freed
        return bytes(self._memory.buf[: self._filled])

    def free(self) -> None:
        """Give it back; a server that has mapped it keeps its mapping until it unregisters the region."""
        self._memory.close()
        with suppress(FileNotFoundError):  # someone emptied the folder
            self._memory.unlink()


class BlockPool:
    """Blocks that are used again."""

    def __init__(self) -> None:
        """Make an empty pool."""
        self.why_none: str | None = None  # set where there cannot be any
        self._free: list[Block] = []
        self._blocks: list[Block] = []

    def take(self, num_bytes: int) -> tuple[Block | None, list[Region]]:
        """A block of at least that size, and regions that exist no longer: of free blocks that were too small for it."""
        fitting = [block for block in self._free if block.region.num_bytes >= num_bytes]
        if fitting:
            block = min(fitting, key=lambda block: block.region.num_bytes)
            self._free.remove(block)
            return block, []
        gone = self._drop(self._free)
        self._free = []
        memory = self._new_memory(num_bytes)
        if memory is None:
            return None, gone
        block = Block(memory, num_bytes)
        self._blocks.append(block)
        return block, gone

    def give_back(self, block: Block) -> None:
        """Take a block back."""
        self._free.append(block)

    def close(self) -> list[Region]:
        """Free all blocks, in use or not; returns the regions that there were."""
        self._free = []
        return self._drop(self._blocks)

    def _drop(self, blocks: list[Block]) -> list[Region]:
        gone = [block.region for block in blocks]
        for block in list(blocks):
            block.free()
            self._blocks.remove(block)
        return gone

    def _new_memory(self, num_bytes: int) -> SharedMemory | None:
        if self.why_none is not None:
            return None
        try:
            shared = SharedMemory(f"yolov3_trt_{os.getpid()}_{secrets.token_hex(8)}", create=True, size=num_bytes)
        except OSError as exc:
            self.why_none = f"it cannot be created ({exc.strerror or exc})"
            return None
        try:
            _reserve(shared.name, num_bytes)
        except OSError as exc:
            shared.close()
            shared.unlink()
            self.why_none = f"{num_bytes / 2**20:.1f} MiB of {_FOLDER} cannot be had ({exc.strerror})"
            return None
        return shared


def _reserve(name: str, num_bytes: int) -> None:
    """Claim the pages of shared memory; without it, writing where the folder is full would end this process by a signal.

    Raises:
        OSError: there are not as many.
    """
    handle = os.open(os.path.join(_FOLDER, name.lstrip("/")), os.O_RDWR)
    try:
        os.posix_fallocate(handle, 0, num_bytes)
    finally:
        os.close(handle)
