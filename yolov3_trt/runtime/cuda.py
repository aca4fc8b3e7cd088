"""A GPU through pycuda; `device.py` says what it does.

The primary context is retained, the one that TensorRT and PyTorch use too, and is current only while a call needs it: pycuda
aborts the process when a thread ends with a context left current. Importing this module touches neither pycuda nor the driver.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from yolov3_trt.errors import DeviceError, require
from yolov3_trt.runtime.context import PrimaryContext
from yolov3_trt.runtime.device import Device, DeviceArray, Event, Freeable, HostArray, Shape, Stream
from yolov3_trt.runtime.kernels.cubin import default_cache, module_of_kernels
from yolov3_trt.runtime.kernels.source import Launch
from yolov3_trt.runtime.libcuda import LibCuda
from yolov3_trt.runtime.owner import dtype_and_shape

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_BLOCKING_SYNC_WITHOUT_TIMING = 1 | 2  # CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING


class CudaDevice:
    """A GPU in use by one thread."""

    def __init__(self, ordinal: int = 0, cache: Path | None = None, libcuda: LibCuda | None = None) -> None:
        """Open a GPU.

        Args:
            ordinal: which, in the order of the driver.
            cache: folder of compiled kernels; that of the user when it is None.
            libcuda: the driver's calls for graphs; those of its own library when it is None.

        Raises:
            MissingDependency: pycuda is not installed, or finds no NVIDIA driver.
            DeviceError: there is no driver, or no such GPU.
        """
        self._context = PrimaryContext(_driver(), ordinal, libcuda)
        self._cache = cache or default_cache()
        # Also where nobody closes it: when it is collected, and before the interpreter ends.
        self._finalizer = weakref.finalize(self, self._context.release)

    @property
    def name(self) -> str:
        """What the driver calls it."""
        return self._context.owner.device

    @property
    def compute_capability(self) -> tuple[int, int]:
        """E.g. (8, 7)."""
        return self._context.compute_capability

    @property
    def is_integrated(self) -> bool:
        """Whether it shares its memory with the host."""
        return self._context.is_integrated

    @property
    def total_bytes(self) -> int:
        """Its memory."""
        return self._context.total_bytes

    @property
    def free_bytes(self) -> int:
        """Its memory that no program uses."""
        with self._context.use("its free memory"):
            return int(self._context.driver.mem_get_info()[0])

    @property
    def num_live(self) -> int:
        """Arrays, streams, events and graphs that are not freed yet."""
        return self._context.owner.num_live

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make its context the thread's current one."""
        with self._context.use("a call within current()"):
            yield

    def device_array(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        """Memory of the device, its contents undefined."""
        dtype = np.dtype(dtype)
        with self._context.use(f"{dtype_and_shape(shape, dtype)} on the device", capturable=False):
            memory = self._context.driver.mem_alloc(max(1, prod(shape) * dtype.itemsize))
        return self._context.owner.adopt(DeviceArray(int(memory), shape, dtype), memory.free)

    def host_array(self, shape: Shape, dtype: DTypeLike, *, mapped: bool = False) -> HostArray:
        """Pinned memory of the host, its contents undefined."""
        what, driver = dtype_and_shape(shape, dtype), self._context.driver
        if mapped and not self.is_integrated:
            raise DeviceError(f"{self.name}: {what}, mapped; this device has memory of its own: copy to it instead")
        with self._context.use(f"{what}, pinned", capturable=False):
            flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
            array = driver.pagelocked_empty(shape, np.dtype(dtype), mem_flags=flags)
            address = int(array.base.get_device_pointer()) if mapped else None
        return self._context.owner.adopt(HostArray(array, address), array.base.free)

    def stream(self) -> "CudaStream":
        """A new stream."""
        with self._context.use("a stream", capturable=False):
            stream = self._context.driver.Stream(_NON_BLOCKING)
        # pycuda destroys a stream or an event with the last reference to it.
        self._context.streams[stream.handle] = stream
        free = partial(self._context.streams.pop, stream.handle)
        return self._context.owner.adopt(CudaStream(self._context, stream.handle), free)

    def event(self, *, blocking: bool = False) -> "CudaEvent":
        """A new event."""
        with self._context.use("an event", capturable=False):
            flags = _BLOCKING_SYNC_WITHOUT_TIMING if blocking else 0
            event = CudaEvent(self._context, self._context.driver.Event(flags))
        return self._context.owner.adopt(event, event.drop)

    def free(self, *things: Freeable) -> None:
        """Give back what this device handed out."""
        with self._context.use("freeing"):
            self._context.owner.release(*things)

    def copy_to_device(self, source: NDArray[Any], target: DeviceArray, stream: Stream) -> None:
        """Copy a pinned array to the start of an array of the device."""
        with self._context.use("copying to the device"):
            self._context.owner.check_copy(source, target)
            self._context.driver.memcpy_htod_async(target.address, source, self._context.stream(stream))

    def copy_to_host(self, source: DeviceArray, target: NDArray[Any], stream: Stream) -> None:
        """Copy an array of the device to a pinned one."""
        with self._context.use("copying to the host"):
            self._context.owner.check_copy(target, source)
            self._context.driver.memcpy_dtoh_async(target, source.address, self._context.stream(stream))

    def fill(self, array: DeviceArray, byte: int, stream: Stream) -> None:
        """Set every byte of an array to a value, 0..255."""
        with self._context.use("filling an array"):
            self._context.owner.check_array(array)
            self._context.driver.memset_d8_async(array.address, byte, array.nbytes, self._context.stream(stream))

    def load_kernels(self) -> None:
        """Load the kernels, compiled before or now."""
        with self._context.use("loading the kernels", capturable=False):
            if self._context.module is None:
                self._context.module = module_of_kernels(self._module, self.compute_capability, self._cache)

    def _module(self, code: bytes) -> Any:
        with self._context.use("loading them"):
            return self._context.driver.module_from_buffer(code)

    def launch(self, launch: Launch, stream: Stream) -> None:
        """Put a kernel into a stream."""
        with self._context.use(f"{launch.kernel} with grid {launch.grid}, block {launch.block}"):
            queue = self._context.stream(stream)
            if self._context.module is None:
                self.load_kernels()
            function = self._context.functions.get(launch.kernel)
            if function is None:
                function = self._context.module.get_function(launch.kernel)
                function.prepare([f"{len(launch.args)}s"])
                self._context.functions[launch.kernel] = function
            function.prepared_async_call(launch.grid, launch.block, queue, launch.args)

    def capture(self, stream: Stream, body: Callable[[], None]) -> "CudaGraph":
        """Make a graph of the work that `body` puts into a stream."""
        context = self._context
        with context.use("capturing a graph"):
            context.stream(stream)
            with context.owner.capturing():
                executable = context.libcuda.capture(stream.handle, body)
        return context.owner.adopt(CudaGraph(context, executable), partial(context.libcuda.destroy, executable))

    def close(self) -> None:
        """Wait for all work and free all that was handed out; closing again does nothing."""
        if self._context.owner.is_closed:
            return
        self._context.owner.check()
        if self._context.depth:
            raise DeviceError(f"{self.name}: closed inside current() or a capture; close it after that")
        self._finalizer()

    def __enter__(self) -> "CudaDevice":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CudaStream:
    """A stream of a CudaDevice."""

    def __init__(self, context: PrimaryContext, handle: int) -> None:
        self.handle = handle
        self._context = context

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        with self._context.use("waiting for a stream", capturable=False):
            self._context.stream(self).synchronize()


class CudaEvent:
    """An event of a CudaDevice."""

    def __init__(self, context: PrimaryContext, event: Any) -> None:
        self.of_pycuda = event
        self._context = context

    def record(self, stream: Stream) -> None:
        """Put it after all that is in the stream so far."""
        with self._context.use("recording an event", capturable=False):
            self._context.owner.check_live(self)
            self.of_pycuda.record(self._context.stream(stream))

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""
        with self._context.use("waiting for an event", capturable=False):
            self._context.owner.check_live(self)
            self.of_pycuda.synchronize()

    def elapsed_ms(self, since: Event) -> float:
        """Time from another event to this one, as the device measures it."""
        with self._context.use("the time between events"):
            self._context.owner.check_live(self, since)
            assert isinstance(since, CudaEvent)  # as it is this device's
            return float(self.of_pycuda.time_since(since.of_pycuda))

    def drop(self) -> None:
        """Let pycuda destroy it, in the context that is current then."""
        self.of_pycuda = None


class CudaGraph:
    """A graph that a CudaDevice captured."""

    def __init__(self, context: PrimaryContext, executable: int) -> None:
        self._context = context
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Put all of it into a stream."""
        with self._context.use("launching a graph"):
            self._context.owner.check_live(self)
            self._context.stream(stream)
            self._context.libcuda.launch(self._executable, stream.handle)


def _driver() -> Any:
    return require("pycuda.driver", extra="pycuda")


if TYPE_CHECKING:
    _is_a_device: Callable[[], Device] = CudaDevice
