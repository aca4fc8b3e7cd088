"""The real pycuda on a stand-in for the driver (tests/sim/driver), which runs the kernels as the simulation does.

`make pycuda-simulated` builds both and runs this; in the ordinary run it is skipped. It shows that `runtime/cuda.py` and pycuda
fit together; it says nothing of a GPU.
"""

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from yolov3_trt.errors import DeviceError
from yolov3_trt.geometry import Placement, Resize
from yolov3_trt.meta import Preprocess
from yolov3_trt.preprocess import fit_image
from yolov3_trt.runtime.cuda import CudaDevice
from yolov3_trt.runtime.kernels.letterbox import Frames, letterbox

DRIVER = os.environ.get("SIMULATED_DRIVER")

pytestmark = pytest.mark.skipif(
    not DRIVER, reason="pycuda is not set up on the simulated driver: make pycuda-simulated"
)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The stand-in that pycuda is linked to, with the kernels; nothing may be left on it."""
    from tests.sim.device import KERNELS, MODULE, _compiled

    monkeypatch.setenv("SIMULATED_KERNELS", str(_compiled(MODULE, KERNELS)))
    library = ctypes.CDLL("libcuda.so.1")
    yield library
    assert (library.simulated_driver_live(), library.simulated_driver_depth()) == (0, 0)
    assert library.simulated_driver_retained() == 0


def fit_on(device: CudaDevice, pictures: list[np.ndarray], *, by_graph: bool) -> list[np.ndarray]:
    """Pictures of one size, letterboxed to 64x96 as bytes."""
    preprocess, image_hw = Preprocess(), pictures[0].shape[:2]
    placement = Placement.of(image_hw, (64, 96), Resize.LETTERBOX)
    stream = device.stream()
    host_in, host_out = device.host_array(pictures[0].shape, np.uint8), device.host_array((1, 64, 96, 3), np.uint8)
    frame, batch = device.device_array(pictures[0].shape, np.uint8), device.device_array((1, 64, 96, 3), np.uint8)
    launch = letterbox(placement, preprocess, Frames(frame.address, 3 * image_hw[1]), batch.address, np.uint8)

    def work() -> None:
        device.copy_to_device(host_in.array, frame, stream)
        device.launch(launch, stream)
        device.copy_to_host(batch, host_out.array, stream)

    device.load_kernels()
    graph = device.capture(stream, work) if by_graph else None
    results = []
    for picture in pictures:
        host_in.array[:] = picture
        if graph is None:
            work()
        else:
            graph.launch(stream)
        stream.synchronize()
        results.append(host_out.array[0].copy())
    return results


def pictures() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8))


def fitted(picture: np.ndarray) -> np.ndarray:
    out = np.empty((64, 96, 3), np.uint8)
    fit_image(picture, Preprocess(), out)
    return out


@pytest.mark.parametrize("by_graph", [False, True], ids=["directly", "by a graph"])
def test_pictures_are_fitted_as_on_the_host(by_graph: bool, driver: ctypes.CDLL, tmp_path: Path):
    with CudaDevice(cache=tmp_path) as device:
        assert (device.name, device.compute_capability) == ("simulated driver", (8, 7))
        for found, picture in zip(fit_on(device, pictures(), by_graph=by_graph), pictures(), strict=True):
            np.testing.assert_array_equal(found, fitted(picture))
        assert driver.simulated_driver_depth() == 0
        assert device.num_live == 5 + by_graph
    assert device.num_live == 0
    device.close()


def test_what_is_freed_is_gone_and_the_rest_stays(driver: ctypes.CDLL):
    with CudaDevice() as device:
        free_bytes = device.free_bytes
        array, host, stream, event = (
            device.device_array((1000,), np.float32),
            device.host_array((1000,), np.float32),
            device.stream(),
            device.event(),
        )
        assert device.free_bytes < free_bytes
        event.record(stream)
        event.synchronize()
        assert event.elapsed_ms(since=event) == 0
        device.free(array, host, event, stream)
        del host
        assert device.free_bytes == free_bytes
        with pytest.raises(DeviceError, match="was freed"):
            device.free(array)


def test_errors_of_the_driver_name_the_call_and_leave_the_device_usable(driver: ctypes.CDLL):
    with CudaDevice() as device:
        with pytest.raises(DeviceError, match=r"cuMemAlloc failed: out of memory.*make the batch smaller"):
            device.device_array((2 << 30,), np.uint8)
        with pytest.raises(DeviceError, match=r"time between events: cuEventElapsedTime"):
            device.event().elapsed_ms(since=device.event())
        device.device_array((16,), np.uint8)


def test_a_capture_that_the_driver_ends_is_an_error_and_the_stream_goes_on(driver: ctypes.CDLL):
    with CudaDevice() as device:
        stream, array = device.stream(), device.device_array((16,), np.uint8)

        def wait() -> None:
            with device.current():
                driver.cuStreamSynchronize(ctypes.c_void_p(stream.handle))

        with pytest.raises(DeviceError, match="cuStreamEndCapture failed"):
            device.capture(stream, wait)
        device.fill(array, 7, stream)
        stream.synchronize()


def test_mapped_memory_of_an_integrated_device_has_an_address_there(
    driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SIMULATED_INTEGRATED", "1")
    with CudaDevice() as device:
        assert device.is_integrated
        host = device.host_array((4, 4), np.uint8, mapped=True)
        assert host.device_address == host.array.ctypes.data


def test_a_device_lives_and_ends_in_another_thread(driver: ctypes.CDLL, tmp_path: Path):
    results: list[np.ndarray] = []

    def use() -> None:
        with CudaDevice(cache=tmp_path) as device:
            results.extend(fit_on(device, pictures(), by_graph=True))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[2], fitted(pictures()[2]))


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise KeyError('a bug')", "del device"])
def test_a_process_ends_cleanly_with_a_device_that_nobody_closed(end: str, driver: ctypes.CDLL):
    script = f"""
        import atexit, ctypes
        from yolov3_trt.runtime.cuda import CudaDevice
        library = ctypes.CDLL("libcuda.so.1")
        atexit.register(lambda: print("left", library.simulated_driver_live(), library.simulated_driver_retained()))
        device = CudaDevice()
        held = [device.device_array((10,), "u1"), device.host_array((10,), "u1"), device.stream(), device.event()]
        {end}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    expected = {"raise SystemExit(3)": 3, "raise KeyError('a bug')": 1}.get(end, 0)
    assert done.returncode == expected, done.stderr
    assert "left 0 0" in done.stdout
    assert ("Traceback" in done.stderr) == (expected == 1)


def test_the_whole_backend_finds_what_onnxruntime_finds(driver: ctypes.CDLL, tmp_path: Path):
    from tests.backends.test_trt_backend import same_lists
    from tests.sim.engine import SimulatedEngine, simulated_plan
    from yolov3_trt.backends.trt import TensorRTBackend
    from yolov3_trt.detector import Detector, open_detector
    from yolov3_trt.runtime.device import DeviceArray
    from yolov3_trt.shapes import iter_shapes_clip

    graph = os.environ.get("SHAPES_ONNX")
    if graph is None:
        pytest.skip("SHAPES_ONNX names no graph of the bundled model")

    class OnDriver(CudaDevice):
        """Lets the engine's stand-in work in the device's memory, which is the host's."""

        def put(self, stream: object, work: object) -> None:
            work()  # type: ignore[operator]

        def view(self, array: DeviceArray, shape: tuple[int, ...]) -> np.ndarray:
            memory = (ctypes.c_char * array.nbytes).from_address(array.address)
            return np.frombuffer(memory, array.dtype).reshape(shape)

    frames = [picture.pixels for picture in iter_shapes_clip(3, 4, (120, 200))]
    device = OnDriver(cache=tmp_path)
    why = "its stand-in runs on the host"
    with open_detector(graph) as expected:
        backend = TensorRTBackend(
            simulated_plan(Path(graph)),
            open_device=lambda: device,
            open_engine=lambda _, opened: SimulatedEngine(Path(graph), opened, why),
        )
        with Detector(backend) as detector:
            same_lists(detector(frames), expected(frames))
            assert all(time_ms >= 0 for time_ms in backend.device_stages_ms(frames[:1]).values())
