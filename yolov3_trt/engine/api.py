"""The part of TensorRT's Python API that this package uses and every release from 8.6 to 11.4 and TensorRT-RTX have.

A member that a release lacks is not here: code asks `hasattr` first, which mypy insists on then, or `Flavor.member` for one of
an enum. tests/engine/test_tensorrt_api.py compares these types, and the code, with the members of real releases.
"""

# ruff: noqa: D102 (methods are NVIDIA's, and documented there)

from collections.abc import Iterable
from typing import Any, Protocol


class IHostMemory(Protocol):
    """Bytes that TensorRT owns: a plan or a timing cache. `bytes`, `memoryview` and hashes take it."""

    nbytes: int

    def __buffer__(self, flags: int, /) -> memoryview: ...


class ITensor(Protocol):
    """What a layer of a network gives."""

    dtype: Any  # a DataType


class ILayer(Protocol):
    """A layer of a network."""

    name: str
    type: Any  # a LayerType
    num_inputs: int
    num_outputs: int

    def get_output(self, index: int) -> ITensor: ...


class INetworkDefinition(Protocol):
    """What a builder compiles."""

    num_layers: int

    def get_layer(self, index: int) -> ILayer: ...


class ParserError(Protocol):
    """Why a graph was refused."""

    def desc(self) -> str: ...


class OnnxParser(Protocol):
    """Reads a graph into the network that it was made for, which holds on to the parser's weights."""

    num_errors: int

    def parse_from_file(self, model: str) -> bool: ...

    def get_error(self, index: int) -> ParserError: ...


class IOptimizationProfile(Protocol):
    """The shapes of inputs whose shape varies."""

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None: ...


class ITimingCache(Protocol):
    """How long kernels took on this GPU."""

    def combine(self, input_cache: "ITimingCache", ignore_mismatch: bool) -> bool: ...

    def serialize(self) -> IHostMemory: ...


class IBuilderConfig(Protocol):
    """Options of a build."""

    builder_optimization_level: int
    hardware_compatibility_level: Any  # a HardwareCompatibilityLevel
    profiling_verbosity: Any  # a ProfilingVerbosity
    default_device_type: Any  # a DeviceType
    DLA_core: int

    def set_flag(self, flag: Any) -> None: ...

    def clear_flag(self, flag: Any) -> None: ...

    def set_tactic_sources(self, tactic_sources: int) -> bool: ...

    def set_preview_feature(self, feature: Any, enable: bool) -> None: ...

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...  # -1: refused

    def can_run_on_DLA(self, layer: ILayer) -> bool: ...

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None: ...

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...


class Builder(Protocol):
    """Compiles networks."""

    num_DLA_cores: int

    def create_network(self, flags: int) -> INetworkDefinition: ...

    def create_builder_config(self) -> IBuilderConfig: ...

    def create_optimization_profile(self) -> IOptimizationProfile: ...

    # None: it failed, or a progress monitor stopped it
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...


class EngineInspector(Protocol):
    """Tells what an engine is made of."""

    def get_engine_information(self, format: Any) -> str: ...


class IExecutionContext(Protocol):
    """An engine with memory of its own for what lies between its layers; one stream at a time."""

    nvtx_verbosity: Any  # a ProfilingVerbosity

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...

    def set_tensor_address(self, name: str, memory: int) -> bool: ...

    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    """A plan on the GPU."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> Any: ...  # a TensorIOMode

    def get_tensor_dtype(self, name: str) -> Any: ...  # a DataType

    def get_tensor_shape(self, name: str) -> Iterable[int]: ...  # -1: varies

    def create_engine_inspector(self) -> EngineInspector: ...

    def create_execution_context(self, runtime_config: Any = ...) -> IExecutionContext | None: ...


class Runtime(Protocol):
    """Makes engines of plans."""

    engine_host_code_allowed: bool
    DLA_core: int

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...
