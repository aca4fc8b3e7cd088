"""A stand-in for an engine on a GPU: the graph that it was built from, run by ONNX Runtime in a simulated device's memory.

Where it is told so it has what real ones have and ONNX Runtime has not: the rounding of tensor cores, TensorRT 8's rule that a
profile is one context's, and other threads that break a capture.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.sim.arithmetic import Arithmetic, runner
from tests.sim.cuda_device import SimulatedCuda
from yolov3_trt.backends.ort import graph_runner
from yolov3_trt.engine.plan import Plan
from yolov3_trt.engine.verdict import Verdict
from yolov3_trt.errors import EngineError
from yolov3_trt.meta import INPUT_NAME, EngineMeta, load_model_meta
from yolov3_trt.runtime.device import DeviceArray, Stream
from yolov3_trt.runtime.execution import IOTensor

FAILURES = ("execution", "address", "shape", "enqueue")  # that can be made to happen


class SimulatedEngine:
    """Runs a graph in place of the plan that was built from it."""

    def __init__(
        self,
        graph: Path,
        device: SimulatedCuda,
        why_not_captured: str | None = None,
        *,
        arithmetic: Arithmetic | None = None,
        shares_profile: bool = True,
    ) -> None:
        """Load a graph.

        Args:
            graph: of which the plan would be.
            device: that it runs on.
            why_not_captured: why it is not captured.
            arithmetic: of its convolutions; that of ONNX Runtime when it is None.
            shares_profile: whether several contexts may use its profile at a time: TensorRT 8 lets only one, unless the
                engine was built with PROFILE_SHARING_0806.
        """
        import onnx

        self.shares_profile = shares_profile
        self.during_enqueue: Callable[[], None] = lambda: None
        self.why_not_captured = why_not_captured
        self.executions: list[SimulatedExecution] = []
        self.is_open = True
        self.num_runs = 0
        self._failing: dict[str, list[int]] = {}
        self._device = device
        content = graph.read_bytes()
        self.run = graph_runner(content) if arithmetic is None else runner(content, arithmetic)
        model = onnx.load_from_string(content).graph
        self.tensors = tuple(
            IOTensor(value.name, is_input, onnx_dtype(value), onnx_shape(value))
            for is_input, values in ((True, model.input), (False, model.output))
            for value in values
        )

    def fail(self, what: str, nth: int = 1) -> None:
        """Let the nth call of a kind from now on fail, counted from 1."""
        assert what in FAILURES
        self._failing[what] = [*self._failing.get(what, []), nth]

    def execution(self) -> "SimulatedExecution":
        self.count("execution")
        execution = SimulatedExecution(self, self._device)
        self.executions.append(execution)
        return execution

    def close(self) -> None:
        self.is_open = False

    def count(self, what: str) -> None:
        """What each call does first; it fails here where it shall."""
        assert self.is_open
        left = [nth - 1 for nth in self._failing.get(what, [])]
        self._failing[what] = [nth for nth in left if nth > 0]
        if 0 in left:
            raise EngineError(f"the {what} that shall fail")


class SimulatedExecution:
    """An execution context of a SimulatedEngine."""

    def __init__(self, engine: SimulatedEngine, device: SimulatedCuda) -> None:
        self._engine, self._device = engine, device
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = engine.tensors[0].shape
        self.is_open = True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self._engine.count("shape")
        assert name == INPUT_NAME and len(shape) == len(self._shape)
        others = [other for other in self._engine.executions if other.is_open and other is not self]
        if others and not self._engine.shares_profile:
            raise EngineError("setInputShape: no optimization profile was set: profile 0 is another context's")
        self._shape = shape

    def set_address(self, name: str, address: int) -> None:
        self._engine.count("address")
        self._addresses[name] = address

    def enqueue(self, stream: Stream) -> None:
        self._engine.count("enqueue")
        self._engine.during_enqueue()
        assert self.is_open and min(self._shape) > 0, "the shape of the input was not set"
        shape, addresses = self._shape, dict(self._addresses)  # a graph keeps those of its capture

        def run() -> None:
            self._engine.num_runs += 1
            kind = self._engine.tensors[0].dtype
            images = self._view(addresses[INPUT_NAME], shape, kind).copy()
            for name, values in self._engine.run({INPUT_NAME: images}).items():
                self._view(addresses[name], values.shape, values.dtype.name)[...] = values

        self._device.put(stream, run)

    def close(self) -> None:
        self.is_open = False

    def _view(self, address: int, shape: tuple[int, ...], kind: str) -> np.ndarray:
        return self._device.view(DeviceArray(address, shape, np.dtype(kind)), shape)


def simulated_plan(graph: Path, *, tf32: bool = False) -> Plan:
    """What `load_plan` would give of an engine of this graph on a machine that runs it; without a plan in it."""
    meta = EngineMeta(
        model=load_model_meta(graph),
        plan_sha256="0" * 64,
        plan_bytes=0,
        flavor="tensorrt",
        flavor_version="simulated",
        platform="simulated",
        gpu=SimulatedCuda.name,
        compute_capabilities=("8.7",),
        build_s=0.0,
        tf32=tf32,
    )
    return Plan(graph.with_suffix(".engine"), meta, b"", Verdict(runs=True))


def onnx_dtype(value: object) -> str:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name  # type: ignore[attr-defined]


def onnx_shape(value: object) -> tuple[int, ...]:
    """-1 where a dimension has a name instead of a number."""
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    return tuple(-1 if dim.HasField("dim_param") else dim.dim_value for dim in dims)
