"""What the suite runs on: the first GPU, or a simulated one where YOLOV3_TRT_SIMULATED_GPU is 1."""

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np

from acceptance.cases import SIMULATED, Case
from yolov3_trt.backends.trt import TensorRTBackend
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.engine.plan import load_plan
from yolov3_trt.runtime.cuda import CudaDevice
from yolov3_trt.runtime.device import Device


def why_not() -> str | None:
    """Why nothing can run here; None where it can."""
    if SIMULATED:
        from tests.sim.device import has_compiler

        return None if has_compiler() else "g++ is not installed: nothing compiles the simulation"
    if installed_gpu() is None:
        return "this machine shows no NVIDIA GPU and driver"
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed (extra pycuda)"
    return None


def open_device(*, shares_memory: bool = False) -> Device:
    """The GPU, for the thread that calls; with `shares_memory` it is used as one that has none of its own."""
    if SIMULATED:
        from tests.sim.cuda_device import SimulatedCuda

        return SimulatedCuda(is_integrated=shares_memory)
    device = CudaDevice()
    device._context.is_integrated |= shares_memory
    return device


def open_runtime(case: Case, work: Path, device: Device, *, use_graphs: bool = True) -> TensorRTBackend:
    """The engine of a case, run as the product runs it; closing it closes the device."""
    if SIMULATED:
        from tests.sim.arithmetic import Arithmetic
        from tests.sim.engine import SimulatedEngine, simulated_plan

        graph = case.graph(work)
        arithmetic = Arithmetic.TF32 if case.precision == "tf32" else None
        return TensorRTBackend(
            simulated_plan(graph, tf32=case.precision == "tf32"),
            use_graphs=use_graphs,
            open_device=lambda: device,
            open_engine=lambda _, opened: SimulatedEngine(graph, opened, arithmetic=arithmetic),  # type: ignore[arg-type]
        )
    # The suite built it itself, wherever the user let it.
    plan = load_plan(case.engine(work), trust=True)
    return TensorRTBackend(plan, use_graphs=use_graphs, open_device=lambda: device)


def copy_gb_per_s(device: Device, num_bytes: int, repeats: int = 20) -> float:
    """What a copy from memory of the device to memory of the device moves, reads and writes counted: median."""
    source, target = (device.device_array((num_bytes,), np.uint8) for _ in range(2))
    try:
        times_ms = _simulated_copies(num_bytes, repeats) if SIMULATED else _copies(device, source, target, repeats)
    finally:
        device.free(source, target)
    return 2 * num_bytes / (float(np.median(times_ms)) * 1e-3) / 1e9


def _copies(device: Device, source: Any, target: Any, repeats: int) -> list[float]:
    import pycuda.driver as cuda

    times_ms = []
    with device.current():
        begin, end = cuda.Event(), cuda.Event()
        for _ in range(repeats):
            begin.record()
            cuda.memcpy_dtod_async(target.address, source.address, source.nbytes)
            end.record()
            end.synchronize()
            times_ms.append(float(end.time_since(begin)))
        del begin, end  # while the context is current, as pycuda destroys them there
    return times_ms[1:]  # the first one may wait for memory to be made


def _simulated_copies(num_bytes: int, repeats: int) -> list[float]:
    source, target = np.zeros((2, num_bytes), np.uint8)
    times_ms = []
    for _ in range(repeats):
        begin_s = time.perf_counter()
        np.copyto(target, source)
        times_ms.append((time.perf_counter() - begin_s) * 1e3)
    return times_ms
