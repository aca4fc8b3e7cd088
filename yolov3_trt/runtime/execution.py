"""A plan on a GPU, ready to run: what a runtime needs of TensorRT, and TensorRT's own way of it.

The tests have another way, which runs the graph that the plan was built from on the host.
"""

import weakref
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from yolov3_trt.engine.api import ICudaEngine, IExecutionContext, Runtime
from yolov3_trt.engine.flavor import Flavor, open_flavor
from yolov3_trt.engine.plan import Plan
from yolov3_trt.errors import DeviceError, EngineError
from yolov3_trt.runtime.device import Device, Stream
from yolov3_trt.runtime.runtime_cache import RuntimeCache, cache_path
from yolov3_trt.settings import FlavorName

# TensorRT's names of the types that an input or output of ours may have.
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "UINT8": "uint8"}


@dataclass(frozen=True)
class IOTensor:
    """An input or output of an engine."""

    name: str
    is_input: bool
    dtype: str  # as NumPy calls it, or TensorRT where it is none of ours
    shape: tuple[int, ...]  # -1 where it varies


class Execution(Protocol):
    """An execution context: memory for what lies between the layers, for one stream at a time."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Choose the shape of an input that varies, for the runs to come.

        Raises:
            EngineError: it is outside of what the engine was built for.
        """

    def set_address(self, name: str, address: int) -> None:
        """Say where an input is read, or an output written, by the runs to come.

        Raises:
            EngineError: TensorRT refuses.
        """

    def enqueue(self, stream: Stream) -> None:
        """Put a run into a stream.

        Raises:
            EngineError: it cannot be.
        """

    def close(self) -> None:
        """Free its memory; harmless when repeated."""


class Engine(Protocol):
    """A plan on a device. Used and closed on the device's thread, before the device is closed."""

    @property
    def tensors(self) -> tuple[IOTensor, ...]:
        """Inputs and outputs."""

    @property
    def why_not_captured(self) -> str | None:
        """Why its runs shall not become part of a CUDA graph; None where they may."""

    def execution(self) -> Execution:
        """A new execution context, which is closed with the engine at the latest.

        Raises:
            EngineError: there is no memory for it.
        """

    def close(self) -> None:
        """Free all of it; harmless when repeated."""


@dataclass
class _Loaded:
    """What TensorRT holds of a plan."""

    engine: ICudaEngine | None
    cache: RuntimeCache | None = None
    executions: list["TensorRTExecution"] = field(default_factory=list)


class TensorRTEngine:
    """A plan that TensorRT loaded."""

    def __init__(self, plan: Plan, device: Device) -> None:
        """Load a plan.

        Raises:
            MissingDependency: the TensorRT that built it is not installed.
            BuildError: that does not load.
            EngineError: TensorRT refuses the plan.
        """
        self._path, self._device = plan.path, device
        self._flavor = open_flavor(FlavorName(plan.meta.flavor))
        with device.current():
            engine: ICudaEngine = engine_from_plan(plan, self._flavor)
            self.tensors = _tensors(engine, self._flavor)
            self._loaded = _Loaded(engine)
            strategy = self._flavor.member("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE")
            if strategy is not None:  # TensorRT-RTX
                self._loaded.cache = RuntimeCache(engine, strategy, cache_path(plan, self._flavor, device))
        self.why_not_captured = (
            None if strategy is None else "TensorRT-RTX captures the network in a CUDA graph of its own"
        )
        # Also where nobody closes it, and then before the device, which was there first and is held until then.
        self._finalizer = weakref.finalize(self, _unload, self._loaded, device)

    def execution(self) -> "TensorRTExecution":
        """A new execution context."""
        engine, cache = self._loaded.engine, self._loaded.cache
        assert engine is not None
        with self._device.current(), self._flavor.log.recording() as problems:
            if cache is None:
                context = engine.create_execution_context()
            else:
                context = engine.create_execution_context(runtime_config=cache.config)
        if context is None:
            raise EngineError(
                f"{self._path}: {self._flavor} makes no execution context: {_last(problems)}; is there enough GPU memory?"
            )
        # The plan has the layers' names for `layer_report`; naming each to a profiler at every run would take time.
        context.nvtx_verbosity = self._flavor.trt.ProfilingVerbosity.NONE
        execution = TensorRTExecution(context, self._device, self._flavor, self._path)
        self._loaded.executions.append(execution)
        return execution

    def close(self) -> None:
        """Free all of it; harmless when repeated."""
        self._finalizer()


class TensorRTExecution:
    """An execution context of TensorRT's."""

    def __init__(self, context: IExecutionContext, device: Device, flavor: Flavor, path: Path) -> None:
        self._context: IExecutionContext | None = context
        self._device, self._flavor, self._path = device, flavor, path

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Choose the shape of an input that varies."""
        assert self._context is not None
        with self._device.current(), self._flavor.log.recording() as problems:
            good = self._context.set_input_shape(name, shape)
        self._check(good, f"the shape {shape} of {name}", problems)

    def set_address(self, name: str, address: int) -> None:
        """Say where an input is read or an output written."""
        assert self._context is not None
        with self._device.current(), self._flavor.log.recording() as problems:
            good = self._context.set_tensor_address(name, address)
        self._check(good, f"the address {address:#x} of {name}", problems)

    def enqueue(self, stream: Stream) -> None:
        """Put a run into a stream."""
        assert self._context is not None
        with self._device.current(), self._flavor.log.recording() as problems:
            good = self._context.execute_async_v3(stream.handle)
        self._check(good, "to run", problems)

    def close(self) -> None:
        """Free it; harmless when repeated."""
        if self._context is not None:
            with self._device.current():
                self.drop()

    def drop(self) -> None:
        """Give up the last reference, with which TensorRT frees it."""
        self._context = None

    def _check(self, good: bool, what: str, problems: list[str]) -> None:
        if not good:
            raise EngineError(f"{self._path}: {self._flavor} refuses {what}: {_last(problems)}")


def engine_from_plan(plan: Plan, flavor: Flavor) -> ICudaEngine:
    """Load a plan; the context of its GPU must be current.

    Raises:
        EngineError: TensorRT refuses it.
    """
    runtime: Runtime = flavor.trt.Runtime(flavor.log.trt_logger)
    # A version compatible plan brings code of its own; `load_plan` has made sure whose it is.
    runtime.engine_host_code_allowed = plan.meta.version_compatible
    if plan.meta.dla_core is not None:
        runtime.DLA_core = plan.meta.dla_core
    with flavor.log.recording() as problems:
        engine = runtime.deserialize_cuda_engine(plan.content)
    if engine is None:
        raise EngineError(f"{plan.path}: {flavor} does not load this plan: {_last(problems)}; build it again here")
    return engine


def check_tensors(tensors: tuple[IOTensor, ...], expected: Mapping[str, IOTensor], path: Path) -> None:
    """Whether an engine has the inputs and outputs that its sidecar says, -1 standing for a batch that varies.

    Raises:
        EngineError: it has others.
    """
    if {tensor.name for tensor in tensors} != set(expected):
        got = ", ".join(tensor.name for tensor in tensors)
        raise EngineError(f"{path}: the engine has {got}; its sidecar says {', '.join(expected)}; build it again")
    for tensor in tensors:
        if tensor != expected[tensor.name]:
            raise EngineError(
                f"{path}: the engine has {tensor}; its sidecar says {expected[tensor.name]}; build it again"
            )


def _unload(loaded: _Loaded, device: Device) -> None:
    """Free contexts before the engine, as TensorRT wants it."""
    with ExitStack() as stack:
        with suppress(DeviceError):  # it has failed or is closed: TensorRT then frees in the context that is current
            stack.enter_context(device.current())
        if loaded.cache is not None:
            loaded.cache.save()
        for execution in loaded.executions:
            execution.drop()
        loaded.executions.clear()
        loaded.cache = loaded.engine = None


def _tensors(engine: ICudaEngine, flavor: Flavor) -> tuple[IOTensor, ...]:
    tensors = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == flavor.trt.TensorIOMode.INPUT
        kind = engine.get_tensor_dtype(name).name
        tensors.append(IOTensor(name, is_input, _DTYPES.get(kind, kind), tuple(engine.get_tensor_shape(name))))
    return tuple(tensors)


def _last(problems: list[str]) -> str:
    return problems[-1] if problems else "it gave no reason"


if TYPE_CHECKING:
    from collections.abc import Callable

    _is_an_engine: Callable[[Plan, Device], Engine] = TensorRTEngine
    _is_an_execution: Callable[[IExecutionContext, Device, Flavor, Path], Execution] = TensorRTExecution
