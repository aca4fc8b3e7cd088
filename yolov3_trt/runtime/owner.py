"""The rules that every device keeps: one thread, an end, what it handed out, and what may be copied."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import DeviceError
from yolov3_trt.runtime.device import DeviceArray, HostArray

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class _Live:
    thing: object
    free: Callable[[], object]
    memory: range | None = None  # addresses of an array; looked up at every copy, so not computed there


class Owner:
    """Who may use a device, and what of it is not freed yet."""

    def __init__(self, device: str) -> None:
        """Begin with nothing handed out, for the thread that calls.

        Args:
            device: its name, for errors.
        """
        self.device = device
        self.is_closed = False
        self.is_capturing = False
        # The thread itself: its number may be another's once it has ended.
        self._thread = threading.current_thread()
        self._process = os.getpid()
        self._live: dict[int, _Live] = {}  # by identity: streams and arrays may be equal and not the same

    @property
    def is_forked(self) -> bool:
        """Whether this is a copy in a forked process, in which no CUDA call works."""
        return os.getpid() != self._process

    @property
    def is_own_thread(self) -> bool:
        """Whether the calling thread is the one that may use the device."""
        return threading.current_thread() is self._thread

    @property
    def num_live(self) -> int:
        """How much is handed out and not freed."""
        return len(self._live)

    def check(self) -> None:
        """Whether the device may be used, here and now.

        Raises:
            DeviceError: it is closed, or another thread's or process's.
        """
        if self.is_closed:
            raise DeviceError(f"{self.device}: the device is closed; open another")
        if self.is_forked:
            raise DeviceError(
                f"{self.device}: opened by process {self._process}, used by its fork {os.getpid()}; open one there, and start "
                'the process with multiprocessing.get_context("spawn")'
            )
        if not self.is_own_thread:
            thread = threading.current_thread()
            raise DeviceError(
                f"{self.device}: opened by thread {self._thread.name!r}, used by thread {thread.name!r}; a device is used "
                "and closed by the thread that opened it: open one in each thread"
            )

    def check_outside_capture(self, what: str) -> None:
        """Whether nothing is being captured, for what cannot be.

        Raises:
            DeviceError: something is.
        """
        if self.is_capturing:
            raise DeviceError(f"{self.device}: {what}: cannot be done while a graph is captured; do it before")

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Note that a graph is captured inside the block.

        Raises:
            DeviceError: one is already.
        """
        self.check_outside_capture("capturing a graph")
        self.is_capturing = True
        try:
            yield
        finally:
            self.is_capturing = False

    def adopt(self, thing: Thing, free: Callable[[], object]) -> Thing:
        """Take note of something handed out, and of how to free it; returns it."""
        memory = None
        if isinstance(thing, DeviceArray):
            memory = range(thing.address, thing.address + thing.nbytes)
        elif isinstance(thing, HostArray):
            start = thing.array.ctypes.data
            memory = range(start, start + thing.array.nbytes)
        self._live[id(thing)] = _Live(thing, free, memory)
        return thing

    def check_live(self, *things: object) -> None:
        """Whether things were handed out and not freed.

        Raises:
            DeviceError: one was not.
        """
        for thing in things:
            if id(thing) not in self._live:
                kind = type(thing).__name__
                raise DeviceError(f"{self.device}: this {kind} was freed, or is another device's")

    def release(self, *things: object) -> None:
        """Free things.

        Raises:
            DeviceError: one was not handed out, or was freed before; nothing is freed then.
        """
        self.check_outside_capture("freeing")
        self.check_live(*things)
        for thing in things:
            self.check_live(thing)  # again: it may be given twice
            self._live.pop(id(thing)).free()

    def pop_newest(self) -> Callable[[], object]:
        """How to free what was handed out last, which then counts as freed: graphs go before what they use."""
        return self._live.popitem()[1].free

    def check_copy(self, host: NDArray[Any], device: DeviceArray) -> None:
        """Whether an array of the host fits an array of the device, and both are this device's.

        Raises:
            DeviceError: they are not.
        """
        fault = None
        if host.dtype != device.dtype or host.nbytes > device.nbytes:
            fault = "expected one dtype, and the device's at least as large"
        elif not host.flags.c_contiguous:
            fault = "the host's is not contiguous: copy whole rows"
        elif not self._holds(HostArray, host.ctypes.data, host.nbytes):
            # The driver would copy pageable memory too, but wait for it, and it cannot be captured.
            fault = "the host's is not pinned by this device: use the array of a host_array()"
        if fault:
            arrays = f"{host.dtype} {host.shape} of the host, {device.dtype} {device.shape} of the device"
            raise DeviceError(f"{self.device}: a copy of {arrays}; {fault}")
        self.check_array(device)

    def check_array(self, array: DeviceArray) -> None:
        """Whether an array, or the one that it is a part of, is this device's and not freed.

        Raises:
            DeviceError: it is not.
        """
        if not self._holds(DeviceArray, array.address, array.nbytes):
            text = f"{array.dtype} {array.shape} at {array.address:#x} was freed, or is another device's"
            raise DeviceError(f"{self.device}: {text}")

    def _holds(self, kind: type, address: int, nbytes: int) -> bool:
        """Whether an array that is not freed has these addresses."""
        for live in self._live.values():
            memory = live.memory
            if memory and memory.start <= address and address + nbytes <= memory.stop and isinstance(live.thing, kind):
                return True
        return False


def dtype_and_shape(shape: tuple[int, ...], dtype: Any) -> str:
    """An array in words, for errors: `float32 (1, 3, 416, 416)`."""
    return f"{np.dtype(dtype).name} {shape}"
