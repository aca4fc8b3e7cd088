"""What a machine can do at most, measured: multiply-adds of a large matrix product, and bytes of a large copy; a roofline.

The roofline of Williams, Waterman and Patterson (2009): work takes the longer of its computing and its moving.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from yolov3_trt.costs import LayerCost
from yolov3_trt.errors import MissingDependency, require

_TRIES = 8
_SIDE = {"cpu": 1536, "cuda": 8192}  # of the square matrices
_COPY_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}  # well beyond any cache


@dataclass(frozen=True)
class MachineRoofline:
    """The best of several tries."""

    gflops: float  # of a square matrix product, two operations per multiply-add
    copy_gb_s: float  # read and written
    measured_on: str  # "cpu" or "cuda"
    precision: str  # of the product
    by: str  # the library that computed it

    def floor_s(self, cost: LayerCost, bytes_per_value: int, batch: int = 1) -> float:
        """The shortest time that a layer can take here, seconds for `batch` pictures."""
        computing = batch * cost.flops / (self.gflops * 1e9)
        return max(computing, cost.moved_bytes(bytes_per_value, batch) / (self.copy_gb_s * 1e9))

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        return asdict(self)


def measure_roofline(device: str = "cpu", precision: str = "fp32", threads: int | None = None) -> MachineRoofline:
    """Measure a device for half a second or so: by PyTorch where it is installed, else by NumPy on all cores.

    Args:
        device: `cpu` or `cuda`.
        precision: of the product: `fp32`, `tf32`, `fp16`, `bf16` or `int8`. A CPU is measured in `fp32` whatever is asked for:
            that is what it computes FP16 and INT8 graphs in here.
        threads: of the CPU; by default the library's choice.

    Raises:
        MissingDependency: a GPU is to be measured without PyTorch.
    """
    try:
        torch = require("torch", extra="export")
    except MissingDependency:
        if device != "cpu":
            raise
        return _numpy_roofline()
    if device == "cpu":
        precision = "fp32"
        if threads is not None:
            torch.set_num_threads(threads)
    product, side = _torch_product(torch, device, precision), _SIDE[device]
    source = torch.ones(_COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    gflops = 2 * side**3 / _best_s(product, wait) / 1e9
    copy_gb_s = 2 * source.numel() / _best_s(lambda: target.copy_(source), wait) / 1e9
    return MachineRoofline(gflops, copy_gb_s, device, precision, f"torch {torch.__version__}")


def _torch_product(torch: Any, device: str, precision: str) -> Callable[[], object]:
    side = _SIDE[device]
    if precision == "int8":
        a, b = (torch.ones(side, side, dtype=torch.int8, device=device) for _ in range(2))
        return lambda: torch._int_mm(a, b.t())  # the one product of int8 that PyTorch has
    dtype = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    # Not zeros: a GPU draws less power for those, and clocks higher.
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))

    def product() -> object:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        try:
            return a @ b
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False

    return product


def _numpy_roofline() -> MachineRoofline:
    side = _SIDE["cpu"]
    a, b = np.random.default_rng(0).random((2, side, side), np.float32)
    out = np.empty_like(a)
    source = np.ones(_COPY_BYTES["cpu"], np.uint8)
    target = np.empty_like(source)
    gflops = 2 * side**3 / _best_s(lambda: np.matmul(a, b, out=out), _nothing) / 1e9
    copy_gb_s = 2 * source.size / _best_s(lambda: np.copyto(target, source), _nothing) / 1e9
    return MachineRoofline(gflops, copy_gb_s, "cpu", "fp32", f"numpy {np.__version__}")


def _best_s(work: Callable[[], object], wait: Callable[[], object]) -> float:
    """Seconds of the fastest of several tries: others on the machine can only slow it down."""
    work()
    wait()
    seconds = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _nothing() -> None:
    pass
