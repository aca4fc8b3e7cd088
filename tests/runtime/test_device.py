"""Devices: what both keep to, the GPU's own side on a stand-in for pycuda, a frame's way through the simulated one."""

import ctypes
import inspect
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.fake_pycuda import CAPTURE_INVALIDATED, Error, FakeLibCuda, FakePycuda, OutOfMemory
from tests.sim.cuda_device import SimulatedCuda
from tests.sim.device import has_compiler
from yolov3_trt.errors import DeviceError, DeviceLostError, MissingDependency
from yolov3_trt.geometry import Placement, Resize
from yolov3_trt.meta import Preprocess
from yolov3_trt.preprocess import fit_image
from yolov3_trt.runtime.cuda import CudaDevice
from yolov3_trt.runtime.device import Device, DeviceArray, HostArray, Stream
from yolov3_trt.runtime.kernels.cubin import PTX
from yolov3_trt.runtime.kernels.letterbox import Frames, letterbox
from yolov3_trt.runtime.kernels.shipped import shipped
from yolov3_trt.runtime.kernels.source import Launch
from yolov3_trt.runtime.libcuda import LibCuda

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="g++ is not installed: nothing compiles the simulation")
LAUNCH = Launch("nms", (2, 1, 1), (512, 1, 1), b"a struct of 20 bytes")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePycuda:
    pycuda = FakePycuda()
    pycuda.install(monkeypatch)
    return pycuda


@pytest.fixture
def libcuda() -> FakeLibCuda:
    return FakeLibCuda()


@pytest.fixture
def gpu(fake: FakePycuda, libcuda: FakeLibCuda, tmp_path: Path) -> Iterator[CudaDevice]:
    with CudaDevice(cache=tmp_path, libcuda=LibCuda(libcuda)) as opened:
        yield opened
    assert fake.is_balanced and not fake.retained and not +fake.live and not libcuda.live


@pytest.fixture
def simulated() -> Iterator[SimulatedCuda]:
    if not has_compiler():
        pytest.skip("g++ is not installed: nothing compiles the simulation")
    with SimulatedCuda(seed=1) as opened:
        yield opened


@pytest.fixture(params=["gpu", "simulated"])
def device(request: pytest.FixtureRequest) -> Device:
    opened: Device = request.getfixturevalue(request.param)
    return opened


def text_of(call: Callable[[], object], kind: type[DeviceError] = DeviceError) -> str:
    try:
        call()
    except kind as exc:  # not by pytest.raises: that keeps the frames of the error, and so what they refer to
        return str(exc)
    pytest.fail("there was no error")


def run(call: Callable[[], object]) -> None:
    call()


def in_thread(call: Callable[[], object]) -> str:
    """The text of the error that a call gives in a thread of its own."""
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(text_of(call)), name="camera")
    thread.start()
    thread.join()
    return texts[0]


# --- what both keep to ---


def test_both_have_what_a_device_has_with_the_same_parameters(device: Device):
    for name in sorted(name for name in vars(Device) if name[0] != "_" or name in ("__enter__", "__exit__")):
        wanted = vars(Device)[name]
        if isinstance(wanted, property):
            assert not callable(getattr(device, name))
        else:
            parameters = inspect.signature(getattr(type(device), name)).parameters.values()
            expected = inspect.signature(wanted).parameters.values()
            assert [(p.name, p.kind, p.default) for p in parameters] == [(p.name, p.kind, p.default) for p in expected]


def test_what_is_copied_to_the_device_comes_back(device: Device):
    host, back = device.host_array((3, 5), np.float32), device.host_array((3, 5), np.float32)
    memory, stream = device.device_array((3, 5), np.float32), device.stream()
    host.array[:] = np.arange(15).reshape(3, 5)
    back.array[:] = -1
    device.copy_to_device(host.array, memory, stream)
    device.copy_to_host(memory, back.array, stream)
    stream.synchronize()
    assert_array_equal(back.array, host.array)
    assert memory.nbytes == 60 and device.num_live == 4


def test_parts_are_copied_by_rows_and_filled_by_bytes(device: Device):
    host, memory, stream = device.host_array((4, 2), np.int16), device.device_array((4, 2), np.int16), device.stream()
    host.array[:] = np.arange(8).reshape(4, 2)
    device.fill(memory, 1, stream)
    device.copy_to_device(host.array[2:3], memory.rows(1, 2), stream)
    device.copy_to_host(memory, host.array, stream)
    stream.synchronize()
    assert_array_equal(host.array, [[257, 257], [4, 5], [257, 257], [257, 257]])
    for start, stop in [(0, 5), (-1, 2), (3, 2)]:
        assert "it has no such rows" in text_of(lambda start=start, stop=stop: memory.rows(start, stop))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda host: host.copy(), "the host's is not pinned by this device"),
        (lambda host: host[:, :3], "the host's is not contiguous"),
        (lambda host: host.astype(np.float64), "expected one dtype, and the device's at least as large"),
        (lambda host: host.repeat(2), "expected one dtype, and the device's at least as large"),
    ],
)
def test_copies_that_would_wait_or_write_beyond_are_refused(device: Device, change: Callable[[Any], Any], message: str):
    host, memory, stream = (
        device.host_array((2, 4), np.float32),
        device.device_array((2, 4), np.float32),
        device.stream(),
    )
    array = change(host.array)
    for copy in (
        lambda: device.copy_to_device(array, memory, stream),
        lambda: device.copy_to_host(memory, array, stream),
    ):
        assert message in text_of(copy)


def test_what_was_freed_is_of_no_use(device: Device):
    host, memory, stream = device.host_array((4,), np.uint8), device.device_array((4,), np.uint8), device.stream()
    event = device.event()
    kept, part = host.array.copy(), memory.rows(0, 2)
    assert kept.shape == (4,)
    device.free(memory, event)
    for use in (
        lambda: device.copy_to_device(host.array, memory, stream),
        lambda: device.fill(part, 0, stream),
        lambda: device.free(memory),
        lambda: device.free(part),
        lambda: event.record(stream),
    ):
        assert "was freed, or is another device's" in text_of(use)
    assert "was freed" in text_of(lambda: device.free(stream, stream))
    assert "this" in text_of(stream.synchronize) and device.num_live == 1


def test_another_thread_is_told_whose_the_device_is(device: Device):
    stream = device.stream()
    expected = (
        f"{device.name}: opened by thread 'MainThread', used by thread 'camera'; a device is used and closed by the thread "
        "that opened it: open one in each thread"
    )
    for call in (device.stream, stream.synchronize, lambda: device.current().__enter__(), device.close):
        assert in_thread(call) == expected
    stream.synchronize()


def test_a_forked_process_is_told_to_open_its_own(device: Device, monkeypatch: pytest.MonkeyPatch):
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert f"opened by process {parent}, used by its fork {parent + 1}; open one there" in text_of(device.stream)
    monkeypatch.undo()


def test_closing_frees_everything_once_and_ends_all_use(device: Device):
    host, memory = device.host_array((4,), np.uint8), device.device_array((4,), np.uint8)
    stream, event = device.stream(), device.event()
    graph = device.capture(stream, lambda: device.fill(memory, 0, stream))
    assert device.num_live == 5
    device.close()
    device.close()
    assert device.num_live == 0
    pageable = np.zeros(4, np.uint8)  # the pinned one must not be looked at any more
    for use in (
        lambda: device.device_array((1,), np.uint8),
        lambda: device.host_array((1,), np.uint8),
        device.stream,
        device.event,
        device.load_kernels,
        lambda: device.free_bytes,
        lambda: device.current().__enter__(),
        lambda: device.copy_to_device(pageable, memory, stream),
        lambda: device.copy_to_host(memory, pageable, stream),
        lambda: device.fill(memory, 0, stream),
        lambda: device.launch(LAUNCH, stream),
        lambda: device.capture(stream, lambda: None),
        lambda: device.free(host),
        lambda: graph.launch(stream),
        lambda: event.record(stream),
        lambda: event.elapsed_ms(event),
        event.synchronize,
        stream.synchronize,
    ):
        assert text_of(use) == f"{device.name}: the device is closed; open another"


def test_an_error_in_the_block_closes_the_device_and_passes(device: Device):
    with pytest.raises(KeyError), device, device.current():
        device.device_array((4,), np.uint8)
        raise KeyError
    assert device.num_live == 0


def test_it_is_not_closed_while_its_context_is_in_use(device: Device):
    with device.current(), device.current():
        assert text_of(device.close).endswith("closed inside current() or a capture; close it after that")
    stream = device.stream()
    assert "inside current() or a capture" in text_of(lambda: device.capture(stream, device.close))
    stream.synchronize()


@needs_compiler
def test_another_devices_things_are_refused(device: Device):
    with SimulatedCuda() as other:
        stream, memory = other.stream(), other.device_array((4,), np.uint8)
        own = device.stream()
        for use in (
            lambda: device.launch(LAUNCH, stream),
            lambda: device.capture(stream, lambda: None),
            lambda: device.fill(memory, 0, own),
            lambda: device.free(own, memory),
        ):
            assert "is another device's" in text_of(use)
    own.synchronize()  # nothing of a refused `free` is freed


@pytest.mark.parametrize("use", ["array", "host array", "stream", "event", "free", "wait", "record", "capture"])
def test_what_cannot_be_captured_is_refused_and_the_stream_goes_on(device: Device, use: str):
    stream, event, memory = device.stream(), device.event(), device.device_array((4,), np.uint8)
    body: dict[str, Callable[[], object]] = {
        "array": lambda: device.device_array((4,), np.uint8),
        "host array": lambda: device.host_array((4,), np.uint8),
        "stream": device.stream,
        "event": device.event,
        "free": lambda: device.free(memory),
        "wait": stream.synchronize,
        "record": lambda: event.record(stream),
        "capture": lambda: device.capture(stream, lambda: None),
    }
    text = text_of(lambda: device.capture(stream, lambda: run(body[use])))
    assert text.endswith("cannot be done while a graph is captured; do it before")
    assert device.num_live == 3
    device.capture(stream, lambda: device.fill(memory, 0, stream)).launch(stream)
    stream.synchronize()


def test_kernels_are_not_loaded_while_a_graph_is_captured(device: Device):
    stream = device.stream()
    text = text_of(lambda: device.capture(stream, lambda: device.launch(LAUNCH, stream)))
    assert text == f"{device.name}: loading the kernels: cannot be done while a graph is captured; do it before"
    device.load_kernels()
    device.capture(stream, lambda: device.launch(LAUNCH, stream))


def test_what_the_body_of_a_capture_raises_passes_through(device: Device):
    stream = device.stream()

    def body() -> None:
        raise KeyError("engine")

    with pytest.raises(KeyError, match="engine"):
        device.capture(stream, body)
    assert device.num_live == 1
    device.capture(stream, lambda: None).launch(stream)


def test_the_time_between_events_is_the_devices(device: Device):
    stream, start, end = device.stream(), device.event(), device.event()
    start.record(stream)
    end.record(stream)
    end.synchronize()
    assert 0 <= end.elapsed_ms(start) < 1000


def test_mapped_arrays_are_for_devices_that_share_the_hosts_memory(
    device: Device, fake: FakePycuda, libcuda: FakeLibCuda
):
    assert not device.is_integrated
    text = text_of(lambda: device.host_array((2, 3), np.uint8, mapped=True))
    assert text == f"{device.name}: uint8 (2, 3), mapped; this device has memory of its own: copy to it instead"
    fake.is_integrated = True
    cuda = isinstance(device, CudaDevice)
    jetson: Device = CudaDevice(libcuda=LibCuda(libcuda)) if cuda else SimulatedCuda(is_integrated=True)
    with jetson:
        mapped, plain = jetson.host_array((2, 3), np.uint8, mapped=True), jetson.host_array((2, 3), np.uint8)
        assert mapped.device_address == mapped.array.ctypes.data and plain.device_address is None
        mapped.array[:] = 7


def test_it_says_what_it_is(device: Device):
    assert device.compute_capability == (8, 7) and device.name
    assert 0 < device.free_bytes <= device.total_bytes


# --- the GPU, on a stand-in for pycuda ---


DRIVER_CALLS = (
    *("cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuMemGetInfo", "cuMemcpyHtoDAsync"),
    *("cuMemcpyDtoHAsync", "cuMemsetD8Async", "cuLaunchKernel", "cuModuleLoadDataEx", "cuStreamSynchronize"),
    *("cuEventRecord", "cuEventElapsedTime", "cuCtxPushCurrent"),
)


def every_call(gpu: CudaDevice) -> dict[str, Callable[[], object]]:
    """A use of the device by the driver's call that it leads to."""
    host, memory, stream = gpu.host_array((4,), np.uint8), gpu.device_array((4,), np.uint8), gpu.stream()
    event = gpu.event()
    return {
        "cuMemAlloc": lambda: gpu.device_array((1, 3), np.float32),
        "cuMemHostAlloc": lambda: gpu.host_array((1, 3), np.float32),
        "cuStreamCreate": gpu.stream,
        "cuEventCreate": gpu.event,
        "cuMemGetInfo": lambda: gpu.free_bytes,
        "cuMemcpyHtoDAsync": lambda: gpu.copy_to_device(host.array, memory, stream),
        "cuMemcpyDtoHAsync": lambda: gpu.copy_to_host(memory, host.array, stream),
        "cuMemsetD8Async": lambda: gpu.fill(memory, 0, stream),
        "cuLaunchKernel": lambda: gpu.launch(LAUNCH, stream),
        "cuModuleLoadDataEx": gpu.load_kernels,
        "cuStreamSynchronize": stream.synchronize,
        "cuEventRecord": lambda: event.record(stream),
        "cuEventElapsedTime": lambda: event.elapsed_ms(event),
        "cuCtxPushCurrent": stream.synchronize,
    }


@pytest.mark.parametrize("call", DRIVER_CALLS)
def test_errors_of_the_driver_are_ours_and_leave_no_context_current(gpu: CudaDevice, fake: FakePycuda, call: str):
    use = every_call(gpu)[call]
    fake.failing[call] = Error(f"{call} failed: an illegal memory access was encountered")
    text = text_of(use, DeviceLostError)
    assert text.startswith("Fake GPU: ")
    assert text.endswith(
        f": {call} failed: an illegal memory access was encountered; this process can no longer use the GPU: start it again"
    )
    assert fake.is_balanced and gpu.num_live == 4
    del fake.failing[call]
    use()
    assert fake.is_balanced


def test_memory_that_is_not_there_says_what_to_do(gpu: CudaDevice, fake: FakePycuda):
    fake.failing["cuMemAlloc"] = OutOfMemory("cuMemAlloc failed: out of memory")
    assert text_of(lambda: gpu.device_array((1, 3, 416, 416), np.float16)) == (
        "Fake GPU: float16 (1, 3, 416, 416) on the device: cuMemAlloc failed: out of memory; close what else uses its memory, "
        "or make the batch smaller"
    )


def test_the_context_is_pushed_once_however_deep(gpu: CudaDevice, fake: FakePycuda):
    with gpu.current(), gpu.current():
        gpu.device_array((4,), np.uint8)
        assert fake.stacks == {threading.get_ident(): 1}
    assert fake.is_balanced


def test_streams_do_not_wait_for_the_default_stream_and_show_their_handle(gpu: CudaDevice):
    stream = gpu.stream()
    made = gpu._context.streams[stream.handle]
    assert made.flags == 1 and made.handle == stream.handle


@pytest.mark.parametrize("call", ["cuMemFree", "cuCtxSynchronize", "cuCtxPushCurrent"])
def test_it_closes_whatever_fails(fake: FakePycuda, libcuda: FakeLibCuda, call: str):
    device = CudaDevice(libcuda=LibCuda(libcuda))
    for _ in range(2):
        device.device_array((4,), np.uint8)
        device.stream()
    fake.failing[call] = Error(f"{call} failed: unspecified launch failure")
    device.close()
    assert fake.is_balanced and not fake.retained
    assert fake.calls.count("cuMemFree") == (0 if call == "cuCtxPushCurrent" else 2)
    assert fake.live["cuStreamCreate"] == (2 if call == "cuCtxPushCurrent" else 0)


def test_the_context_that_pycuda_leaves_current_when_it_detaches_is_popped(fake: FakePycuda, libcuda: FakeLibCuda):
    CudaDevice(libcuda=LibCuda(libcuda)).close()
    assert libcuda.calls == ["cuDevicePrimaryCtxSetFlags_v2", "cuCtxPopCurrent_v2"]


def test_a_device_that_nobody_closes_is_released_with_the_last_reference(fake: FakePycuda, libcuda: FakeLibCuda):
    device = CudaDevice(libcuda=LibCuda(libcuda))
    stream, memory = device.stream(), device.device_array((4,), np.uint8)
    graph = device.capture(stream, lambda: None)
    assert memory.nbytes == 4
    del device
    assert not +fake.live and not libcuda.live and not fake.retained and fake.is_balanced
    assert "the device is closed" in text_of(lambda: graph.launch(stream))


def test_a_fork_leaves_to_its_parent_what_is_open(
    fake: FakePycuda, libcuda: FakeLibCuda, monkeypatch: pytest.MonkeyPatch
):
    device = CudaDevice(libcuda=LibCuda(libcuda))
    device.device_array((4,), np.uint8)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    del device
    assert fake.live["cuMemAlloc"] == fake.retained == 1 and fake.calls == ["cuMemAlloc"]


def test_a_thread_may_end_without_closing_its_device(fake: FakePycuda, libcuda: FakeLibCuda):
    opened: list[CudaDevice] = []

    def work() -> None:
        opened.append(CudaDevice(libcuda=LibCuda(libcuda)))
        opened[0].device_array((4,), np.uint8)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert fake.is_balanced
    assert "used by thread 'MainThread'" in text_of(opened[0].close)
    opened.clear()
    assert not +fake.live and fake.is_balanced


def test_the_interpreters_end_frees_what_is_open():
    code = (
        "import atexit, pytest\n"
        "from tests.fake_pycuda import *\n"
        "fake = FakePycuda()\n"
        "atexit.register(lambda: print(fake.is_balanced, fake.retained, sum(fake.live.values())))\n"
        "fake.install(pytest.MonkeyPatch())\n"
        "from yolov3_trt.runtime.cuda import CudaDevice\nfrom yolov3_trt.runtime.libcuda import LibCuda\n"
        "device = CudaDevice(libcuda=LibCuda(FakeLibCuda()))\n"
        "memory, stream = device.device_array((4,), 'u1'), device.stream()\n"
        "print(sum(fake.live.values()))\n"
        "with device.current(): raise SystemExit(3)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (result.returncode, result.stdout.split(), result.stderr) == (3, ["2", "True", "0", "0"], "")


def test_importing_the_module_touches_neither_pycuda_nor_the_driver():
    code = "import sys, ctypes; ctypes.CDLL = None\nimport yolov3_trt.runtime.cuda\nassert 'pycuda' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_gpu_that_is_not_there_and_an_old_driver_are_named(fake: FakePycuda, libcuda: FakeLibCuda):
    assert text_of(lambda: CudaDevice(1, libcuda=LibCuda(libcuda))) == (
        "GPU 1: cuDeviceGet failed: invalid device ordinal; yolov3_trt doctor shows what this machine has"
    )
    del libcuda.cuGraphInstantiateWithFlags
    assert "expected an NVIDIA driver for CUDA 11.4 or newer" in text_of(lambda: LibCuda(libcuda))


def test_without_pycuda_the_text_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="pycuda")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingDependency, match=r"pip install 'yolov3-trt\[pycuda\]'"):
        CudaDevice()


def test_pycuda_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("importlib.import_module", missing)
    cause = r"^pycuda.driver is installed, but does not import \(ImportError: libcuda.so.1: cannot open shared .*doctor"
    with pytest.raises(MissingDependency, match=cause):
        CudaDevice()


# --- its kernels; where their code comes from is in test_compiled.py ---


def test_a_launch_gives_the_kernel_its_struct(gpu: CudaDevice, fake: FakePycuda):
    stream = gpu.stream()
    for _ in range(2):
        gpu.launch(LAUNCH, stream)
    assert fake.launches == [("nms", (2, 1, 1), (512, 1, 1), stream.handle, b"a struct of 20 bytes")] * 2
    assert fake.loaded == [shipped("sm_87")]


def test_code_that_the_driver_refuses_leaves_no_context_current(gpu: CudaDevice, fake: FakePycuda):
    fake.refused.add(shipped("sm_87"))
    gpu.load_kernels()
    assert fake.loaded == [shipped(PTX)] and fake.is_balanced


def test_a_graph_is_captured_launched_and_freed(gpu: CudaDevice, libcuda: FakeLibCuda):
    stream = gpu.stream()
    graph = gpu.capture(stream, lambda: None)
    for _ in range(2):
        graph.launch(stream)
    gpu.free(graph)
    assert [call.removeprefix("cu") for call in libcuda.calls[1:]] == [
        *("StreamBeginCapture_v2", "StreamEndCapture", "GraphInstantiateWithFlags", "GraphDestroy"),
        *("GraphLaunch", "GraphLaunch", "GraphExecDestroy"),
    ]
    assert not libcuda.live
    assert "was freed" in text_of(lambda: graph.launch(stream))


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_capture_that_fails_leaves_nothing_behind(gpu: CudaDevice, libcuda: FakeLibCuda, fake: FakePycuda, call: str):
    stream = gpu.stream()
    libcuda.failing[call] = CAPTURE_INVALIDATED
    text = text_of(lambda: gpu.capture(stream, lambda: None))
    assert text == f"{call} failed: operation failed due to a previous error during capture (CUresult 901)"
    assert not libcuda.is_capturing and not libcuda.live and fake.is_balanced and gpu.num_live == 1
    libcuda.failing.clear()
    gpu.capture(stream, lambda: None).launch(stream)


@pytest.mark.parametrize("ends", [True, False], ids=["with a graph", "invalid"])
def test_a_body_that_fails_ends_the_capture(gpu: CudaDevice, libcuda: FakeLibCuda, fake: FakePycuda, ends: bool):
    stream, memory = gpu.stream(), gpu.device_array((4,), np.uint8)
    fake.failing["cuMemsetD8Async"] = Error("cuMemsetD8Async failed: invalid argument")
    if not ends:
        libcuda.failing["cuStreamEndCapture"] = CAPTURE_INVALIDATED
    text = text_of(lambda: gpu.capture(stream, lambda: gpu.fill(memory, 0, stream)))
    assert text == "Fake GPU: filling an array: cuMemsetD8Async failed: invalid argument"
    assert not libcuda.is_capturing and not libcuda.live and fake.is_balanced


HANDLES = r"""
typedef unsigned long long Handle;
static const Handle stream = 0x7f00deadbeef1000, graph = 0x7f00deadbeef2000, executable = 0x7f00deadbeef3000;
int cuStreamBeginCapture_v2(Handle of, int mode) { return of == stream && mode == 1 ? 0 : 1; }
int cuStreamEndCapture(Handle of, Handle* made) { *made = graph; return of == stream ? 0 : 1; }
int cuGraphInstantiateWithFlags(Handle* made, Handle of, Handle flags)
{ *made = executable; return of == graph && flags == 0 ? 0 : 1; }
int cuGraphLaunch(Handle what, Handle on) { return what == executable && on == stream ? 0 : 1; }
int cuGraphExecDestroy(Handle what) { return what == executable ? 0 : 1; }
int cuGraphDestroy(Handle what) { return what == graph ? 0 : 1; }
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { return device == 0 && flags == 1 ? 0 : 1; }
int cuCtxPopCurrent_v2(Handle* context) { *context = stream; return 0; }
int cuGetErrorString(int code, const char** text) { *text = code == 1 ? "invalid argument" : 0; return code != 1; }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_handles_of_64_bits_reach_a_library_whole(tmp_path: Path):
    library = tmp_path / "libcuda.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=HANDLES, text=True, check=True)
    libcuda, stream = LibCuda(ctypes.CDLL(str(library))), 0x7F00DEADBEEF1000
    graph = libcuda.capture(stream, lambda: None)
    assert graph == 0x7F00DEADBEEF3000
    libcuda.launch(graph, stream)
    libcuda.destroy(graph)
    assert text_of(lambda: libcuda.launch(1, stream)) == "cuGraphLaunch failed: invalid argument (CUresult 1)"


def test_a_graph_that_cannot_be_launched_names_the_call(gpu: CudaDevice, libcuda: FakeLibCuda):
    stream = gpu.stream()
    graph = gpu.capture(stream, lambda: None)
    libcuda.failing["cuGraphLaunch"] = CAPTURE_INVALIDATED
    assert text_of(lambda: graph.launch(stream)).startswith("cuGraphLaunch failed: ")


# --- a frame's way through the simulated device ---

PREPROCESS = Preprocess()
FRAME_HW, INPUT_HW = (30, 50), (32, 32)


class FrameWay:
    """All that it takes to bring frames to the network's input: pinned frame, its copy, the batch, and the batch's copy."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.frame: HostArray = device.host_array((*FRAME_HW, 3), np.uint8)
        self.result: HostArray = device.host_array((*INPUT_HW, 3), np.uint8)
        self.on_device: DeviceArray = device.device_array(self.frame.array.shape, np.uint8)
        self.batch: DeviceArray = device.device_array(self.result.array.shape, np.uint8)
        self.stream: Stream = device.stream()
        device.load_kernels()
        placement = Placement.of(FRAME_HW, INPUT_HW, Resize.LETTERBOX)
        frames = Frames(self.on_device.address, 3 * FRAME_HW[1])
        self.letterbox = letterbox(placement, PREPROCESS, frames, self.batch.address, np.uint8)

    def enqueue(self) -> None:
        self.device.copy_to_device(self.frame.array, self.on_device, self.stream)
        self.device.launch(self.letterbox, self.stream)
        self.device.copy_to_host(self.batch, self.result.array, self.stream)

    def fitted(self, launch: Callable[[], None], frame: np.ndarray) -> np.ndarray:
        self.frame.array[:] = frame
        launch()
        self.stream.synchronize()
        return self.result.array.copy()


def frames_of_noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *FRAME_HW, 3), np.uint8)


def fitted_on_the_host(frame: np.ndarray) -> np.ndarray:
    out = np.zeros((*INPUT_HW, 3), np.uint8)
    fit_image(frame, PREPROCESS, out)
    return out


def assert_fitted(got: np.ndarray, frame: np.ndarray) -> None:
    # OpenCV for ARM may round a pixel the other way.
    assert np.abs(got.astype(int) - fitted_on_the_host(frame)).max() <= (os.uname().machine != "x86_64")


def test_a_frame_is_fitted_by_calls_and_the_next_by_their_graph(simulated: SimulatedCuda):
    first, second, third = frames_of_noise(3)
    way = FrameWay(simulated)
    assert_fitted(way.fitted(way.enqueue, first), first)
    way.frame.array[:] = second
    graph = simulated.capture(way.stream, way.enqueue)
    assert_fitted(way.result.array, first)  # a capture runs nothing
    for frame in (second, third):
        assert_fitted(way.fitted(lambda: graph.launch(way.stream), frame), frame)


@needs_compiler
def test_a_frame_in_mapped_memory_needs_no_copy():
    (frame,) = frames_of_noise(1)
    with SimulatedCuda(is_integrated=True) as device:
        source = device.host_array(frame.shape, np.uint8, mapped=True)
        result = device.host_array((*INPUT_HW, 3), np.uint8, mapped=True)
        assert source.device_address and result.device_address
        source.array[:] = frame
        placement = Placement.of(FRAME_HW, INPUT_HW, Resize.LETTERBOX)
        frames = Frames(source.device_address, 3 * FRAME_HW[1])
        device.launch(letterbox(placement, PREPROCESS, frames, result.device_address, np.uint8), device.stream())
        assert_fitted(result.array, frame)


@pytest.mark.parametrize("nth", range(1, 6))
def test_no_memory_at_any_allocation_leaves_none_behind_and_the_next_try_works(simulated: SimulatedCuda, nth: int):
    (frame,) = frames_of_noise(1)
    simulated.fail("allocation", nth)
    assert "the allocation that shall fail" in text_of(lambda: FrameWay(simulated))
    assert simulated.num_live == nth - 1
    way = FrameWay(simulated)  # while the remains of the first are still there
    assert_fitted(way.fitted(way.enqueue, frame), frame)
    simulated.close()
    assert simulated.num_live == 0
    with SimulatedCuda() as next_device:
        way = FrameWay(next_device)
        assert_fitted(way.fitted(way.enqueue, frame), frame)


@pytest.mark.parametrize("call, nth", [("copy", 1), ("copy", 2), ("launch", 1), ("capture", 1), ("synchronize", 1)])
def test_a_call_that_fails_once_works_the_next_time(simulated: SimulatedCuda, call: str, nth: int):
    (frame,) = frames_of_noise(1)
    way = FrameWay(simulated)
    live = simulated.num_live
    simulated.fail(call, nth)
    assert f"the {call} that shall fail" in text_of(
        lambda: (simulated.capture(way.stream, way.enqueue).launch(way.stream), way.stream.synchronize())
    )
    assert simulated.num_live - live in (0, 1)  # a graph where all but waiting for it worked
    graph = simulated.capture(way.stream, way.enqueue)
    assert_fitted(way.fitted(lambda: graph.launch(way.stream), frame), frame)


def test_a_graph_whose_memory_was_freed_fails(simulated: SimulatedCuda):
    way = FrameWay(simulated)
    graph = simulated.capture(way.stream, way.enqueue)
    simulated.free(way.on_device)
    assert "was freed" in text_of(lambda: graph.launch(way.stream))


def test_a_kernel_that_writes_where_it_must_not_is_the_devices_error(simulated: SimulatedCuda):
    way = FrameWay(simulated)
    simulated.free(way.batch)
    assert "it read or wrote where it must not" in text_of(lambda: simulated.launch(way.letterbox, way.stream))


@needs_compiler
def test_its_memory_is_as_large_as_it_says():
    with SimulatedCuda(total_bytes=100) as device:
        memory = device.device_array((60,), np.uint8)
        assert device.free_bytes == 40
        assert text_of(lambda: device.device_array((41,), np.uint8)).endswith(
            "uint8 (41,) on the device: out of memory"
        )
        device.free(memory)
        device.device_array((100,), np.uint8)
