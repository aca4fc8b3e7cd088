"""What a runtime needs of a CUDA device: `cuda.py` has it of a GPU, the tests have it of the host's memory.

A device belongs to the thread that opened it. What it hands out is freed by `free`, or all at once by `close`: from then on
addresses and views lead nowhere, so results that are to live on are copied out first. Work on a stream runs in its order and
later than the call that asks for it; whatever it reads and writes must stay as it is until then.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from yolov3_trt.errors import DeviceError
from yolov3_trt.runtime.kernels.source import Launch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class DeviceArray:
    """A contiguous array in the memory of a device."""

    address: int
    shape: Shape
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> "DeviceArray":
        """The part [start:stop] along the first axis; the memory stays this array's.

        Raises:
            DeviceError: the array has no such rows.
        """
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise DeviceError(f"rows {start}..{stop} of an array of shape {self.shape}: it has no such rows")
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        return DeviceArray(self.address + start * row_bytes, (stop - start, *self.shape[1:]), self.dtype)


@dataclass(frozen=True, eq=False)
class HostArray:
    """Pinned memory of the host: what a device copies from and to while the host goes on."""

    array: NDArray[Any]  # a view of it
    device_address: int | None = None  # of the same memory, for kernels and TensorRT, where it is mapped


class Stream(Protocol):
    """A queue of work that does not wait for the default stream."""

    @property
    def handle(self) -> int:
        """The `cudaStream_t`, for TensorRT's `execute_async_v3`."""

    def synchronize(self) -> None:
        """Wait until all its work is done.

        Raises:
            DeviceError: some of it failed, or it is being captured.
        """


class Event(Protocol):
    """A point in the work of a stream."""

    def record(self, stream: Stream) -> None:
        """Put it after all that is in the stream so far.

        Raises:
            DeviceError: the stream is being captured: a graph has no points in time.
        """

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""

    def elapsed_ms(self, since: "Event") -> float:
        """Time from another event to this one, both of them come to, as the device measures it.

        Raises:
            DeviceError: one of them was not recorded, is still ahead, or is blocking.
        """


class Graph(Protocol):
    """Work that was captured, to be launched as a whole; it keeps the addresses that it was captured with."""

    def launch(self, stream: Stream) -> None:
        """Put all of it into a stream."""


Freeable = DeviceArray | HostArray | Stream | Event | Graph
Self = TypeVar("Self", bound="Device")


class Device(Protocol):
    """A CUDA device in use by one thread.

    Every method raises DeviceError where the device is closed, where another thread calls it, and where the driver fails.
    """

    @property
    def name(self) -> str:
        """What the driver calls it."""

    @property
    def compute_capability(self) -> tuple[int, int]:
        """E.g. (8, 7)."""

    @property
    def is_integrated(self) -> bool:
        """Whether it shares its memory with the host, as on a Jetson: mapped arrays then save the copy."""

    @property
    def total_bytes(self) -> int:
        """Its memory."""

    @property
    def free_bytes(self) -> int:
        """Its memory that no program uses."""

    @property
    def num_live(self) -> int:
        """Arrays, streams, events and graphs that are not freed yet; 0 once it is closed."""

    def current(self) -> AbstractContextManager[None]:
        """Make its context the thread's current one, as calls of TensorRT need it; may be nested."""

    def device_array(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        """Memory of the device, its contents undefined, at a multiple of 16 bytes."""

    def host_array(self, shape: Shape, dtype: DTypeLike, *, mapped: bool = False) -> HostArray:
        """Pinned memory of the host, its contents undefined.

        Args:
            shape: of the array.
            dtype: of the array.
            mapped: whether kernels and TensorRT are to reach it in place, which only an integrated device does at the speed
                of its own memory.

        Raises:
            DeviceError: it is to be mapped and the device is not integrated.
        """

    def stream(self) -> Stream:
        """A new stream."""

    def event(self, *, blocking: bool = False) -> Event:
        """A new event.

        Args:
            blocking: whether a thread that waits for it sleeps, instead of asking again and again; such a one has no time.
        """

    def free(self, *things: Freeable) -> None:
        """Give back what this device handed out and no work uses any longer.

        Raises:
            DeviceError: it is another device's, or was freed before.
        """

    def copy_to_device(self, source: NDArray[Any], target: DeviceArray, stream: Stream) -> None:
        """Copy a pinned array, or a contiguous part of one, to the start of an array of the device.

        Raises:
            DeviceError: the source is not pinned by this device, not contiguous, of another dtype or larger than the target.
        """

    def copy_to_host(self, source: DeviceArray, target: NDArray[Any], stream: Stream) -> None:
        """Copy an array of the device, from its start as much as the target holds, to a pinned array or a part of one.

        Raises:
            DeviceError: as for `copy_to_device`, the other way round.
        """

    def fill(self, array: DeviceArray, byte: int, stream: Stream) -> None:
        """Set every byte of an array to a value, 0..255."""

    def load_kernels(self) -> None:
        """Load the kernels, which the first `launch` would do otherwise; where they have to be compiled, it takes seconds."""

    def launch(self, launch: Launch, stream: Stream) -> None:
        """Put a kernel into a stream."""

    def capture(self, stream: Stream, body: Callable[[], None]) -> Graph:
        """Make a graph of the work that `body` puts into a stream, which does not run then.

        The same work should have run once before: what happens at first use, such as loading a kernel, cannot be captured.
        After a failure there is no graph, and the stream goes on as before.

        Args:
            stream: what is captured.
            body: calls `copy_to_device`, `copy_to_host`, `fill`, `launch` and TensorRT on this stream; it neither makes nor
                frees anything, nor waits.

        Raises:
            DeviceError: the work cannot be captured. What `body` raises passes through.
        """

    def close(self) -> None:
        """Wait for all work and free all that was handed out; closing again does nothing.

        Raises:
            DeviceError: the device belongs to another thread, or this is inside `current` or a capture.
        """

    def __enter__(self: Self) -> Self:
        """The device, to be closed at the end of the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, also after an error."""
