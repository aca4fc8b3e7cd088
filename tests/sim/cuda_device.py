"""A CUDA device for a runtime under test: the host's memory, and the kernels as the simulation runs them.

What is put into a stream happens at once, or where it is captured at every launch of the graph. Calls fail on demand, to
show what a runtime makes of it. What kernels read of memory that it shares with the host is counted: a GPU does not cache it.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests.sim.device import SimulatedDevice, SimulationError
from yolov3_trt.errors import DeviceError, DeviceLostError
from yolov3_trt.runtime.device import Device, DeviceArray, Event, Freeable, HostArray, Shape, Stream
from yolov3_trt.runtime.kernels.source import Launch
from yolov3_trt.runtime.owner import Owner, dtype_and_shape

CALLS = ("allocation", "copy", "launch", "capture", "synchronize")  # that can be made to fail


class SimulatedCuda:
    """A simulated CUDA device in use by one thread."""

    name = "simulated GPU"
    compute_capability = (8, 7)

    def __init__(
        self, seed: int = 0, *, is_integrated: bool = False, total_bytes: int = 1 << 30, traced: bool = False
    ) -> None:
        """Open one.

        Args:
            seed: shuffles the order of threads and blocks; 0 keeps it.
            is_integrated: whether host arrays can be mapped.
            total_bytes: of its memory; host arrays do not count.
            traced: count in `done` the "uncached sectors" that kernels read, which takes a hundred times as long.
        """
        self.is_integrated, self.total_bytes = is_integrated, total_bytes
        self.owner = Owner(self.name)
        self.done: Counter[str] = Counter()  # calls that were asked for, by CALLS
        self._failing: set[tuple[str, int]] = set()
        self._kernels = SimulatedDevice(seed, traced=traced)
        self._traced = traced
        self._mapped: dict[int, int] = {}  # bytes of mapped memory by its address
        self._is_capture_broken = False
        self._memory: dict[int, NDArray[Any]] = {}  # the device's, by address
        self._recording: list[Callable[[], None]] = []
        self._depth = 0  # of `current`
        self._fault: str | None = None  # in a kernel: from then on every call but freeing fails with it, as on a GPU
        self._are_loaded = False  # the kernels: a GPU needs it done before a capture
        self._handles = itertools.count(1)

    @property
    def free_bytes_after_close(self) -> int:
        """Of its memory, what nothing holds; to be asked when it is closed, as leaks show then."""
        assert self.owner.is_closed
        return self.total_bytes - sum(array.nbytes for array in self._memory.values())

    def fail(self, call: str, nth: int = 1) -> None:
        """Let the nth call of a kind from now on fail, counted from 1."""
        assert call in CALLS
        self._failing.add((call, self.done[call] + nth))

    @property
    def num_live(self) -> int:
        return self.owner.num_live

    @property
    def free_bytes(self) -> int:
        self.owner.check()
        return self.total_bytes - sum(array.nbytes for array in self._memory.values())

    @contextmanager
    def current(self) -> Iterator[None]:
        self.owner.check()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def device_array(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory, free = self._allocate(f"{dtype_and_shape(shape, dtype)} on the device", nbytes, self.free_bytes)
        address = memory.ctypes.data
        self._memory[address] = memory

        def free_and_forget() -> None:
            del self._memory[address]
            free()

        return self.owner.adopt(DeviceArray(address, shape, np.dtype(dtype)), free_and_forget)

    def host_array(self, shape: Shape, dtype: DTypeLike, *, mapped: bool = False) -> HostArray:
        what = dtype_and_shape(shape, dtype)
        if mapped and not self.is_integrated:
            raise DeviceError(f"{self.name}: {what}, mapped; this device has memory of its own: copy to it instead")
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory, free = self._allocate(f"{what}, pinned", nbytes, nbytes)
        array = memory.view(dtype).reshape(shape)
        if not mapped:
            return self.owner.adopt(HostArray(array, None), free)
        address = array.ctypes.data
        self._mapped[address] = nbytes

        def free_and_forget() -> None:
            del self._mapped[address]
            free()

        return self.owner.adopt(HostArray(array, address), free_and_forget)

    def stream(self) -> "SimulatedStream":
        self._count("a stream", "allocation", capturable=False)
        return self.owner.adopt(SimulatedStream(self, next(self._handles)), lambda: None)

    def event(self, *, blocking: bool = False) -> "SimulatedEvent":
        self._count("an event", "allocation", capturable=False)
        return self.owner.adopt(SimulatedEvent(self, has_time=not blocking), lambda: None)

    def free(self, *things: Freeable) -> None:
        self.owner.check()
        self.owner.release(*things)

    def copy_to_device(self, source: NDArray[Any], target: DeviceArray, stream: Stream) -> None:
        self._count("copying to the device", "copy")
        self.owner.check_copy(source, target)
        self.done["bytes to the device"] += source.nbytes
        self.put(stream, lambda: np.copyto(self.view(target, source.shape), source))

    def copy_to_host(self, source: DeviceArray, target: NDArray[Any], stream: Stream) -> None:
        self._count("copying to the host", "copy")
        self.owner.check_copy(target, source)
        self.put(stream, lambda: np.copyto(target, self.view(source, target.shape)))

    def fill(self, array: DeviceArray, byte: int, stream: Stream) -> None:
        self._count("filling an array", "copy")
        self.owner.check_array(array)
        self.put(stream, lambda: self.view(array, array.shape).view(np.uint8).fill(byte))

    def load_kernels(self) -> None:
        self.owner.check()
        self._check_fault()
        self.owner.check_outside_capture("loading the kernels")
        self._are_loaded = True

    def launch(self, launch: Launch, stream: Stream) -> None:
        self._count(launch.kernel, "launch")
        if not self._are_loaded:
            self.load_kernels()

        def run() -> None:
            try:
                if self._traced:
                    self.done["uncached sectors"] += self._kernels.sectors_read(launch, self._mapped.items())
                else:
                    self._kernels.run(launch)
            except SimulationError as exc:
                self._fault = str(exc)
                self._check_fault()

        self.put(stream, run)

    def capture(self, stream: Stream, body: Callable[[], None]) -> "SimulatedGraph":
        self._count("capturing a graph", "capture", capturable=False)
        self.owner.check_live(stream)
        self._recording = []
        self._is_capture_broken = False
        with self.owner.capturing():
            body()
        if self._is_capture_broken:
            raise DeviceError(
                f"{self.name}: cuStreamEndCapture failed: operation failed due to a previous error during capture"
            )
        return self.owner.adopt(SimulatedGraph(self, self._recording), lambda: None)

    def close(self) -> None:
        if self.owner.is_closed:
            return
        self.owner.check()
        if self._depth or self.owner.is_capturing:
            raise DeviceError(f"{self.name}: closed inside current() or a capture; close it after that")
        while self.owner.num_live:
            self.owner.pop_newest()()
        self.owner.is_closed = True

    def __enter__(self) -> "SimulatedCuda":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count(self, what: str, call: str, *, capturable: bool = True) -> None:
        """What each call does first; it fails here where it shall."""
        self.owner.check()
        self._check_fault()
        if not capturable:
            self.owner.check_outside_capture(what)
        self.done[call] += 1
        if (call, self.done[call]) in self._failing:
            raise DeviceError(f"{self.name}: {what}: the {call} that shall fail")

    def disturb(self) -> None:
        """Break a capture under way, as a wait for the whole device does in any thread, and freeing another one's memory."""
        self._is_capture_broken = True

    def break_(self, fault: str = "an illegal memory access was encountered") -> None:
        """Let a kernel of another program have broken the context."""
        self._fault = fault

    def _check_fault(self) -> None:
        if self._fault is not None:
            raise DeviceLostError(f"{self.name}: {self._fault}")

    def _allocate(self, what: str, nbytes: int, available: int) -> tuple[NDArray[Any], Callable[[], None]]:
        self._count(what, "allocation", capturable=False)
        if nbytes > available:
            raise DeviceError(f"{self.name}: {what}: out of memory")
        # A simulated device frees all its memory at a time, so each piece gets one of its own.
        memory = SimulatedDevice()
        return memory.empty((max(1, nbytes),), np.uint8), memory.close

    def view(self, array: DeviceArray, shape: Shape) -> NDArray[Any]:
        """What lies at the start of an array of the device, as the host sees it."""
        self.owner.check_array(array)  # at every launch of a graph: it may have been freed since
        start, memory = next(
            (start, memory) for start, memory in self._memory.items() if 0 <= array.address - start < memory.nbytes
        )
        offset = array.address - start
        nbytes = int(np.prod(shape)) * array.dtype.itemsize
        return memory[offset : offset + nbytes].view(array.dtype).reshape(shape)

    def put(self, stream: Stream, work: Callable[[], None]) -> None:
        """Do what is put into a stream, or record it."""
        self.owner.check_live(stream)
        if self.owner.is_capturing:
            self._recording.append(work)
        else:
            work()


class SimulatedStream:
    """A stream of a SimulatedCuda: all its work is done when the call that asked for it returns."""

    def __init__(self, device: SimulatedCuda, handle: int) -> None:
        self.handle = handle
        self._device = device

    def synchronize(self) -> None:
        self._device._count("waiting for a stream", "synchronize", capturable=False)
        self._device.owner.check_live(self)


class SimulatedEvent:
    """An event of a SimulatedCuda, by the clock of the host."""

    def __init__(self, device: SimulatedCuda, *, has_time: bool) -> None:
        self._device, self.has_time = device, has_time
        self._time_s: float | None = None

    def record(self, stream: Stream) -> None:
        self._device.owner.check()
        self._device.owner.check_outside_capture("recording an event")
        self._device.owner.check_live(self, stream)
        if self.has_time:
            self._time_s = time.perf_counter()

    def synchronize(self) -> None:
        self._device._count("waiting for an event", "synchronize", capturable=False)
        self._device.owner.check_live(self)

    def elapsed_ms(self, since: Event) -> float:
        self._device.owner.check()
        self._device.owner.check_live(self, since)
        assert isinstance(since, SimulatedEvent)
        if self._time_s is None or since._time_s is None:
            raise DeviceError(f"{self._device.name}: the time between events: one was not recorded")
        return (self._time_s - since._time_s) * 1e3


class SimulatedGraph:
    """Work that a SimulatedCuda captured."""

    def __init__(self, device: SimulatedCuda, work: list[Callable[[], None]]) -> None:
        self._device = device
        self._work = work

    def launch(self, stream: Stream) -> None:
        self._device._count("launching a graph", "launch")
        self._device.done["graph launch"] += 1
        self._device.owner.check_live(self, stream)
        for work in self._work:
            self._device.put(stream, work)


if TYPE_CHECKING:
    _is_a_device: Callable[[], Device] = SimulatedCuda
