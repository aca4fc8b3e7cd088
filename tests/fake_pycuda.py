"""A stand-in for pycuda and for libcuda's graphs: its GPU is a part of the host's memory, and it runs no kernels.

Like pycuda it refuses every call without a current context on the thread that calls, and it counts what is not freed.
"""

import ctypes
import itertools
import sys
import threading
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

TOTAL_BYTES = 8 << 30
OUT_OF_MEMORY, CAPTURE_INVALIDATED = 2, 901
TEXTS = {
    OUT_OF_MEMORY: b"out of memory",
    CAPTURE_INVALIDATED: b"operation failed due to a previous error during capture",
}


class Error(Exception):
    """Of pycuda, whose text is the name of a call and what the driver says."""


class OutOfMemory(Error):
    """`pycuda.driver.MemoryError`."""


class FakePycuda:
    """The modules, what they shall fail at, and what became of what they made."""

    def __init__(self, *, is_integrated: bool = False) -> None:
        self.is_integrated = is_integrated
        self.compute_capability = (8, 7)
        self.failing: dict[str, Exception] = {}  # by the driver's call
        self.calls: list[str] = []
        self.live: Counter[str] = Counter()  # memory, streams, events and modules that are not freed
        self.launches: list[tuple[Any, ...]] = []
        self.loaded: list[bytes] = []
        self.refused: set[bytes] = set()  # cubins that the driver does not load
        self.retained = 0
        self.stacks: dict[int, int] = {}  # contexts on the stack of each thread
        self.handles = itertools.count(0x5000)

    def call(self, name: str) -> None:
        """What each call of the driver does first."""
        if not self.stacks.get(threading.get_ident()):
            raise Error(f"{name} failed: invalid device context - no currently active context?")
        self.calls.append(name)
        self.fail(name)

    def fail(self, name: str) -> None:
        """Raise what a call shall fail with; a new one each time, as a traceback would keep what it has seen alive."""
        if name in self.failing:
            error = self.failing[name]
            raise type(error)(*error.args)

    def push(self) -> None:
        self.fail("cuCtxPushCurrent")
        self.stacks[threading.get_ident()] = self.stacks.get(threading.get_ident(), 0) + 1

    def pop(self) -> None:
        assert self.stacks.get(threading.get_ident()), "pycuda: cannot pop non-current context"
        self.stacks[threading.get_ident()] -= 1

    @property
    def is_balanced(self) -> bool:
        """Whether no thread has a context left current, for which pycuda aborts the process."""
        return not any(self.stacks.values())

    def modules(self) -> dict[str, Any]:
        """For sys.modules."""
        package, driver = (ModuleType(name) for name in ("pycuda", "pycuda.driver"))
        vars(driver).update(
            Error=Error,
            MemoryError=OutOfMemory,
            init=lambda: None,
            Device=self._device,
            Context=SimpleNamespace(pop=self.pop, synchronize=lambda: self.call("cuCtxSynchronize")),
            device_attribute=SimpleNamespace(INTEGRATED=18),
            host_alloc_flags=SimpleNamespace(DEVICEMAP=2),
            mem_get_info=lambda: (self.call("cuMemGetInfo"), (TOTAL_BYTES - 5, TOTAL_BYTES))[1],
            mem_alloc=lambda size: Memory(self, size, "cuMemAlloc"),
            pagelocked_empty=self._pagelocked_empty,
            Stream=lambda flags: Handle(self, "cuStreamCreate", flags),
            Event=lambda flags: Event(self, "cuEventCreate", flags),
            memcpy_htod_async=lambda to, of, stream: self._copy(
                "cuMemcpyHtoDAsync", to, of.ctypes.data, of.nbytes, stream
            ),
            memcpy_dtoh_async=lambda to, of, stream: self._copy(
                "cuMemcpyDtoHAsync", to.ctypes.data, of, to.nbytes, stream
            ),
            memset_d8_async=self._fill,
            module_from_buffer=lambda cubin: Module(self, cubin),
        )
        return {"pycuda": package, "pycuda.driver": driver}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let it be what `import pycuda` gives."""
        for name, module in self.modules().items():
            patch.setitem(sys.modules, name, module)

    def _device(self, ordinal: int) -> SimpleNamespace:
        if ordinal:
            raise Error("cuDeviceGet failed: invalid device ordinal")
        return SimpleNamespace(
            name=lambda: "Fake GPU",
            compute_capability=lambda: self.compute_capability,
            total_memory=lambda: TOTAL_BYTES,
            get_attribute=lambda attribute: {18: int(self.is_integrated)}[attribute],
            retain_primary_context=self._retain,
        )

    def _retain(self) -> SimpleNamespace:
        self.retained += 1
        return SimpleNamespace(push=self.push, detach=self._detach)

    def _detach(self) -> None:
        self.retained -= 1

    def _pagelocked_empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], mem_flags: int) -> np.ndarray:
        memory = Memory(self, int(np.prod(shape)) * dtype.itemsize, "cuMemHostAlloc", bool(mem_flags))
        memory.__array_interface__ = {
            "shape": shape, "typestr": dtype.str, "data": (int(memory), False), "version": 3,
        }  # fmt: skip
        return np.asarray(memory)

    def _copy(self, name: str, target: int, source: int, nbytes: int, stream: "Handle") -> None:
        self.call(name)
        assert isinstance(stream, Handle)
        ctypes.memmove(target, source, nbytes)

    def _fill(self, target: int, byte: int, count: int, stream: "Handle") -> None:
        self.call("cuMemsetD8Async")
        assert isinstance(stream, Handle)
        ctypes.memset(target, byte, count)


class Made:
    """What a call of the driver made; it is freed once, in a current context."""

    def __init__(self, fake: FakePycuda, call: str) -> None:
        fake.call(call)
        fake.live[call] += 1
        self.fake, self.made_by = fake, call

    def destroy(self) -> None:
        assert self.made_by, "freed twice"
        self.fake.live[self.made_by] -= 1
        self.made_by = ""


class Memory(Made):
    """`DeviceAllocation` and `PagelockedHostAllocation`."""

    def __init__(self, fake: FakePycuda, size: int, call: str, is_mapped: bool = False) -> None:
        super().__init__(fake, call)
        self.bytes = np.full(size, 0xCD, np.uint8)
        self.is_mapped = is_mapped

    def __int__(self) -> int:
        return int(self.bytes.ctypes.data)

    def get_device_pointer(self) -> int:
        assert self.is_mapped
        return int(self)

    def free(self) -> None:
        self.fake.call("cuMemFree")
        self.destroy()


class Handle(Made):
    """A stream; it goes with the last reference, as pycuda's do."""

    def __init__(self, fake: FakePycuda, call: str, flags: int) -> None:
        super().__init__(fake, call)
        self.flags = flags
        self.handle = next(fake.handles)

    def __del__(self) -> None:
        if getattr(self, "made_by", ""):
            self.destroy()

    def synchronize(self) -> None:
        self.fake.call("cuStreamSynchronize")


class Event(Handle):
    """An event; the time between two is 2.5 ms."""

    def record(self, stream: Handle) -> None:
        assert isinstance(stream, Handle)
        self.fake.call("cuEventRecord")

    def time_since(self, other: "Event") -> float:
        self.fake.call("cuEventElapsedTime")
        return 2.5


class Module(Made):
    """Kernels that are loaded."""

    def __init__(self, fake: FakePycuda, cubin: bytes) -> None:
        if cubin in fake.refused:
            raise Error("cuModuleLoadDataEx failed: device kernel image is invalid")
        super().__init__(fake, "cuModuleLoadDataEx")
        fake.loaded.append(cubin)

    def __del__(self) -> None:
        if getattr(self, "made_by", ""):
            self.destroy()

    def get_function(self, name: str) -> SimpleNamespace:
        fake, formats = self.fake, []

        def launch(grid: Any, block: Any, stream: Handle, *args: bytes) -> None:
            fake.call("cuLaunchKernel")
            assert [f"{len(struct)}s" for struct in args] == formats
            fake.launches.append((name, grid, block, stream.handle, *args))

        return SimpleNamespace(prepare=formats.extend, prepared_async_call=launch)


class FakeLibCuda:
    """The calls of libcuda that make graphs; they return a CUresult, and count what is not destroyed."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.calls: list[str] = []
        self.live: set[int] = set()  # graphs, executable or not
        self.is_capturing = False
        self.gives_graph = True
        self._handles = itertools.count(0x7000)
        for name in ("cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch"):
            self._declare(name)
        for name in ("cuGraphExecDestroy", "cuGraphDestroy", "cuGetErrorString", "cuCtxPopCurrent_v2"):
            self._declare(name)
        self._declare("cuDevicePrimaryCtxSetFlags_v2")

    def _declare(self, name: str) -> None:
        def function(*args: Any) -> int:
            self.calls.append(name)
            done: int | None = getattr(self, f"_{name}")(*args)
            return self.failing.get(name, 0) if done is None else done

        setattr(self, name, function)

    def _make(self, name: str, pointer: Any) -> None:
        if name not in self.failing:
            pointer._obj.value = next(self._handles)
            self.live.add(pointer._obj.value)

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:
        assert mode == 1, "expected CU_STREAM_CAPTURE_MODE_THREAD_LOCAL"
        self.is_capturing = "cuStreamBeginCapture_v2" not in self.failing

    def _cuStreamEndCapture(self, stream: int, graph: Any) -> None:
        assert self.is_capturing, "the stream is not being captured"
        self.is_capturing = False
        self._make("cuStreamEndCapture", graph)

    def _cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: int) -> None:
        assert graph.value in self.live
        self._make("cuGraphInstantiateWithFlags", executable)

    def _cuGraphLaunch(self, executable: int, stream: int) -> None:
        assert executable in self.live

    def _cuGraphExecDestroy(self, executable: int) -> None:
        self.live.remove(executable)

    def _cuGraphDestroy(self, graph: Any) -> None:
        self.live.remove(graph.value)

    def _cuCtxPopCurrent_v2(self, context: Any) -> None:
        pass

    def _cuDevicePrimaryCtxSetFlags_v2(self, device: int, flags: int) -> None:
        assert (device, flags) == (0, 1), "expected CU_CTX_SCHED_SPIN"

    def _cuGetErrorString(self, code: int, text: Any) -> None:
        text._obj.value = TEXTS[code]
