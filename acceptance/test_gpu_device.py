"""A device of its own kind: contexts, memory, streams, graphs, and how it ends."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from acceptance import target
from acceptance.cases import SIMULATED
from acceptance.on_device import OnDevice
from yolov3_trt.errors import DeviceError
from yolov3_trt.runtime.device import Device

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[1]

on_a_gpu_only = pytest.mark.skipif(SIMULATED, reason="the simulated device has no contexts and no driver")


def current_context() -> int | None:
    """The driver's context that is current on this thread; None where there is none."""
    context = ctypes.c_void_p()
    assert ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value


# --- contexts ---


@on_a_gpu_only
def test_the_context_is_current_only_while_it_is_used(device: Device):
    assert current_context() is None
    with device.current():
        outer = current_context()
        with device.current():
            assert current_context() == outer is not None
        device.free(device.event())
        assert current_context() == outer
    assert current_context() is None


@on_a_gpu_only
def test_two_devices_on_one_gpu_share_its_primary_context(device: Device):
    with target.open_device() as other:
        with device.current():
            mine = current_context()
        with other.current():
            assert current_context() == mine
    free_bytes = device.free_bytes  # closing one leaves the other its context
    assert free_bytes > 0


# --- memory ---


def test_what_goes_to_the_device_comes_back(on_device: OnDevice):
    for array in (np.arange(12.0).reshape(3, 4), np.arange(5, dtype=np.uint8)[:, None]):
        copied = on_device.put(array)
        np.testing.assert_array_equal(on_device.get(copied), array)
        on_device.device.free(copied)


def test_memory_that_was_freed_is_there_again(device: Device):
    num_bytes = 64 << 20
    alive, before = device.num_live, device.free_bytes
    for _ in range(3):
        array, host = device.device_array((num_bytes,), np.uint8), device.host_array((num_bytes // 8,), np.float64)
        host.array[...] = 1.0
        assert device.free_bytes <= before - num_bytes
        device.free(array, host)
    assert device.num_live == alive
    assert device.free_bytes > before - num_bytes
    with pytest.raises(DeviceError, match=r"freed|not handed out"):
        device.free(array)


def test_more_memory_than_there_is_is_an_error_that_costs_nothing(on_device: OnDevice):
    device = on_device.device
    alive = device.num_live
    with pytest.raises(DeviceError, match="out of memory"):
        device.device_array((device.total_bytes * 2,), np.uint8)
    assert device.num_live == alive
    np.testing.assert_array_equal(on_device.get(on_device.put(np.arange(5))), np.arange(5))


def test_a_copy_from_memory_that_is_not_pinned_is_refused(on_device: OnDevice):
    into = on_device.empty((4,), np.float32)
    with pytest.raises(DeviceError, match="not pinned by this device"):
        on_device.device.copy_to_device(np.zeros(4, np.float32), into, on_device.stream)


# --- streams, events and graphs ---


def test_events_measure_what_lies_between_them(on_device: OnDevice):
    device, stream = on_device.device, on_device.stream
    array = on_device.empty((16 << 20,), np.uint8)
    begin, end = device.event(), device.event()
    begin.record(stream)
    for value in range(10):
        device.fill(array, value, stream)
    end.record(stream)
    end.synchronize()
    assert 0 < end.elapsed_ms(since=begin) < 10_000
    assert set(np.unique(on_device.get(array))) == {9}


def test_a_graph_does_its_work_at_every_launch_and_not_when_it_is_captured(on_device: OnDevice):
    device, stream = on_device.device, on_device.stream
    array, host = on_device.put(np.zeros(8, np.uint8)), device.host_array((8,), np.uint8)

    def work() -> None:
        device.fill(array, 3, stream)
        device.copy_to_host(array, host.array, stream)

    host.array.fill(0)
    graph = device.capture(stream, work)
    stream.synchronize()
    assert not host.array.any()
    for _ in range(3):
        host.array.fill(0)
        graph.launch(stream)
        stream.synchronize()
        assert (host.array == 3).all()
    device.free(graph)
    with pytest.raises(DeviceError):
        graph.launch(stream)


def test_a_capture_that_fails_leaves_the_stream_as_it_was(on_device: OnDevice):
    device, stream = on_device.device, on_device.stream
    array = on_device.put(np.zeros(8, np.uint8))
    alive = device.num_live

    def allocates() -> None:
        device.fill(array, 1, stream)
        device.device_array((8,), np.uint8)

    with pytest.raises(DeviceError, match="while a graph is captured"):
        device.capture(stream, allocates)
    assert device.num_live == alive
    np.testing.assert_array_equal(on_device.get(array), np.zeros(8, np.uint8))
    device.free(device.capture(stream, lambda: device.fill(array, 2, stream)))


# --- threads, and how it ends ---


def test_another_thread_is_refused_by_name(device: Device):
    errors: list[str] = []

    def use() -> None:
        for action in (lambda: device.free_bytes, device.stream, device.close):
            try:
                action()
            except DeviceError as exc:
                errors.append(str(exc))

    thread = threading.Thread(target=use, name="grabber")
    thread.start()
    thread.join()
    assert len(errors) == 3 and all("used by thread 'grabber'" in error for error in errors)
    assert device.free_bytes > 0


def test_closing_twice_does_nothing_and_use_after_that_is_refused():
    device = target.open_device()
    device.device_array((1 << 20,), np.uint8)
    device.host_array((1 << 20,), np.uint8)
    device.stream()
    device.close()
    device.close()
    assert device.num_live == 0
    with pytest.raises(DeviceError, match="the device is closed; open another"):
        device.stream()
    with target.open_device() as again:
        assert again.free_bytes > 0


ENDINGS = {
    "open objects": "",
    "a graph under way": "graph.launch(stream)",
    "a collected device": "del device, array, host, stream, event, graph; import gc; gc.collect()",
    "an early exit": "raise SystemExit(0)",
}


@pytest.mark.parametrize("last", ENDINGS.values(), ids=list(ENDINGS))
def test_an_interpreter_that_ends_with_open_objects_ends_clean(last: str):
    code = f"""
import numpy as np
from acceptance.target import open_device
device = open_device()
array, host = device.device_array((1 << 20,), np.uint8), device.host_array((1 << 20,), np.uint8)
stream, event = device.stream(), device.event()
device.fill(array, 1, stream)
device.load_kernels()
graph = device.capture(stream, lambda: device.fill(array, 2, stream))
event.record(stream)
{last}
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_device_that_nobody_closed_gives_its_memory_back():
    with target.open_device() as watcher:
        before = watcher.free_bytes
        device = target.open_device()
        device.device_array((256 << 20,), np.uint8)
        del device
        gc.collect()
        assert watcher.free_bytes > before - (200 << 20)
