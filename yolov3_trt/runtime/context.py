"""The primary context of a GPU: current while a call needs it, and what lives in it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from yolov3_trt.errors import DeviceError
from yolov3_trt.runtime.device import Stream
from yolov3_trt.runtime.libcuda import LibCuda, driver_error
from yolov3_trt.runtime.owner import Owner


class PrimaryContext:
    """The context that TensorRT and PyTorch use too, retained.

    It knows nothing of the device that is made of it, so that one that nobody refers to is collected, and this then released.
    """

    def __init__(self, driver: Any, ordinal: int, libcuda: LibCuda | None) -> None:
        """Retain the context of a GPU, for the thread that calls.

        Args:
            driver: the module `pycuda.driver`.
            ordinal: which GPU.
            libcuda: the calls for graphs; those of the driver's own library when it is None.

        Raises:
            DeviceError: there is no such GPU.
        """
        self.driver = driver
        self.depth = 0  # of `use`
        self.module: Any = None  # the kernels, once they are needed
        self.functions: dict[str, Any] = {}  # of the module, by name
        self.streams: dict[int, Any] = {}  # pycuda's, by handle
        self.libcuda = libcuda or LibCuda()
        try:
            driver.init()
            device = driver.Device(ordinal)
            self.owner = Owner(device.name())
            self.compute_capability: tuple[int, int] = device.compute_capability()
            self.is_integrated = bool(device.get_attribute(driver.device_attribute.INTEGRATED))
            self.total_bytes: int = device.total_memory()
            self.libcuda.let_waits_spin(ordinal)
            self._primary = device.retain_primary_context()
        except driver.Error as exc:
            raise DeviceError(f"GPU {ordinal}: {exc}; yolov3_trt doctor shows what this machine has") from exc

    @contextmanager
    def use(self, what: str, *, capturable: bool = True) -> Iterator[None]:
        """Make the context current, on the owner's thread only, and the driver's errors ours; may be nested.

        Args:
            what: the block does, for errors.
            capturable: whether it can be done while a graph is captured.

        Raises:
            DeviceError: the device is not to be used so, or the driver failed.
        """
        self.owner.check()
        if not capturable:
            self.owner.check_outside_capture(what)
        try:
            if not self.depth:
                self._primary.push()
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1
                if not self.depth:
                    self.driver.Context.pop()
        except self.driver.MemoryError as exc:
            text = f"{self.owner.device}: {what}: {exc}; close what else uses its memory, or make the batch smaller"
            raise DeviceError(text) from exc
        except self.driver.Error as exc:
            raise driver_error(f"{self.owner.device}: {what}: {exc}") from exc

    def stream(self, stream: Stream) -> Any:
        """The stream as pycuda knows it.

        Raises:
            DeviceError: it is not this device's, or was freed.
        """
        self.owner.check_live(stream)
        return self.streams[stream.handle]

    def release(self) -> None:
        """Free everything, whatever has failed before; on any thread, as the garbage collector may call it."""
        self.owner.is_closed = True
        if self.owner.is_forked:
            return  # all of it is the parent's
        failed = (self.driver.Error, DeviceError)  # after a fault in a kernel every call fails
        with suppress(*failed):
            # Whatever `depth` says: that is of the owner's thread.
            self._primary.push()
            try:
                self._free_all(failed)
            finally:
                self.driver.Context.pop()
        with suppress(*failed):
            self._primary.detach()
            if self.owner.is_own_thread:
                # To detach from a context pycuda makes it current, and leaves it so (context::detach in src/cpp/cuda.hpp).
                self.libcuda.pop_context()

    def _free_all(self, failed: tuple[type[Exception], ...]) -> None:
        with suppress(*failed):
            self.driver.Context.synchronize()
        while self.owner.num_live:
            with suppress(*failed):
                self.owner.pop_newest()()
        self.functions.clear()
        self.module = None
