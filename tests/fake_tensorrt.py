"""A stand-in for TensorRT, for the logic that differs between releases. It compiles nothing: its plans are made-up bytes.

Its classes and enums have exactly the members that those of a real release have, by the release's table in the reference data
(`tensorrt_api`); any other raises AttributeError, as it would there. The integers of enums are made up.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from yolov3_trt.engine.flavor import Flavor, make_log
from yolov3_trt.settings import FlavorName

CANCELED = "IBuilder::buildSerializedNetwork: Error Code 7: BuildCanceled (Build canceled by user)"
PLAN = b"made-up plan"


@dataclass
class Layer:
    """A layer of the network that the parser finds."""

    name: str
    kind: str = "CONVOLUTION"
    num_inputs: int = 1
    gives: str = "FLOAT"  # a DataType
    on_dla: bool = False
    reason: str | None = None  # what TensorRT says of why it cannot run on a DLA


@dataclass
class FakeTensorRT:
    """A release of TensorRT and what it shall do; afterwards, what it was told."""

    version: str
    table: dict[str, list[str]]  # members by class
    layers: list[Layer] = field(default_factory=list)
    plan: bytes | None = PLAN
    parse_errors: tuple[str, ...] = ()
    takes_profile: bool = True
    num_dla_cores: int = 0
    device: str = "GPU 1"  # what timing caches belong to
    timings: tuple[str, ...] = ()  # what this build adds to a timing cache
    junk_gives_empty_cache: bool = False  # a damaged timing cache: a warning and an empty one, else None
    num_steps: int = 3
    during_build: Callable[[], None] = lambda: None
    # Inputs and outputs of an engine: name, TensorIOMode, DataType, shape.
    tensors: tuple[tuple[str, str, str, tuple[int, ...]], ...] = ()
    refuses: frozenset[str] = frozenset()  # members of a runtime, engine or context that fail, after a message
    name: FlavorName = FlavorName.TENSORRT

    flags: list[str] = field(default_factory=list)  # of the configuration
    cleared: list[str] = field(default_factory=list)  # flags that were on
    tactics: int | None = None
    previews: list[str] = field(default_factory=list)
    network_flags: int | None = None
    profile: tuple[tuple[int, ...], ...] | None = None
    pools: dict[str, int] = field(default_factory=dict)
    config: Any = None
    marked: list[str] = field(default_factory=list)  # for a refit
    runs: list[dict[str, Any]] = field(default_factory=list)  # addresses, input shapes and stream of each
    saved_cache: bytes = b"compiled"  # what a runtime cache has at the end
    runtime: Any = None
    reported: list[str] = field(default_factory=list)  # phases and steps told to a monitor, and its answers

    def __post_init__(self) -> None:
        self.module = SimpleNamespace(__version__=self.version)
        for name, members in self.table.items():
            setattr(self.module, name, self._make(name, members))
        self.flavor = Flavor(self.name, self.version, self.module, make_log(self.module))

    def _make(self, name: str, members: list[str]) -> type:
        if {"name", "value"} <= set(members):
            return IntEnum(name, [(member, value) for value, member in enumerate(filter(str.isupper, members))])
        if name in ("ILogger", "IProgressMonitor"):  # made to be subclassed, by classes with members of their own
            return type(name, (), {member: member for member in members if member.isupper()})
        behaviour = _BEHAVIOURS.get(name, _Limited)
        return type(name, (behaviour,), {"_members": frozenset(members), "_fake": self})

    def say(self, message: str, level: str = "ERROR") -> None:
        """A message through the logger."""
        self.flavor.log.trt_logger.log(getattr(self.module.ILogger, level), message)

    def fails(self, member: str) -> bool:
        """Whether a call fails, and the message that TensorRT gives then."""
        if member in self.refuses:
            self.say(f"Error Code 1: {member} cannot be done")
        return member in self.refuses

    def __str__(self) -> str:
        return str(self.flavor)


def fake_tensorrt(data: Path, release: str, **settings: Any) -> FakeTensorRT:
    """The stand-in for a release, e.g. "10.3.0"."""
    flavor = settings.get("name", FlavorName.TENSORRT).value
    table = json.loads((data / "tensorrt_api" / f"{flavor}-{release}.json").read_text())
    return FakeTensorRT(release, table, **settings)


class _Limited:
    """An object without any member that its class lacks in the real release."""

    _members: frozenset[str] = frozenset()
    _fake: FakeTensorRT

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            _check(type(self), name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name in self._members:
            raise NotImplementedError(f"this stand-in does not say what {type(self).__name__}.{name} does")
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            _check(type(self), name)
        object.__setattr__(self, name, value)


def _check(kind: type[_Limited], name: str) -> None:
    if name not in kind._members:
        raise AttributeError(f"{kind.__name__} of TensorRT {kind._fake.version} has no {name}")


class _Builder(_Limited):
    def __init__(self, logger: Any) -> None:
        assert logger is self._fake.flavor.log.trt_logger

    @property
    def num_DLA_cores(self) -> int:
        return self._fake.num_dla_cores

    def create_network(self, flags: int) -> Any:
        self._fake.network_flags = flags
        return self._fake.module.INetworkDefinition()

    def create_builder_config(self) -> Any:
        self._fake.config = self._fake.module.IBuilderConfig()
        return self._fake.config

    def create_optimization_profile(self) -> Any:
        return self._fake.module.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        fake = self._fake
        if not self._report(getattr(config, "progress_monitor", None)):
            fake.say(CANCELED)
            return None
        fake.during_build()
        if config._timing_cache is not None:
            config._timing_cache._entries |= set(fake.timings)
        return None if fake.plan is None else _HostMemory(fake.plan)

    def _report(self, monitor: Any) -> bool:
        """One phase of steps; as TensorRT does, what a monitor raises is taken for a wish to stop."""
        if monitor is None:
            return True
        monitor.phase_start("Building", None, self._fake.num_steps)
        for step in range(self._fake.num_steps):
            try:
                goes_on = monitor.step_complete("Building", step)
            except Exception:
                goes_on = False
            self._fake.reported.append(f"step {step}: {goes_on}")
            if not goes_on:
                break
        monitor.phase_finish("Building")
        return goes_on


class _Network(_Limited):
    @property
    def num_layers(self) -> int:
        return len(self._fake.layers)

    def get_layer(self, index: int) -> Any:
        layer, made = self._fake.layers[index], self._fake.module.ILayer()
        made._layer, made.name, made.num_inputs = layer, layer.name, layer.num_inputs
        made.type = self._fake.module.LayerType[layer.kind]
        made.num_outputs = 1
        made.get_output = lambda index: SimpleNamespace(dtype=self._fake.module.DataType[layer.gives])
        return made

    def mark_weights_refittable(self, name: str) -> bool:
        self._fake.marked.append(name)
        return True


class _Parser(_Limited):
    def __init__(self, network: Any, logger: Any) -> None:
        assert isinstance(network, _Network)

    def parse_from_file(self, path: str) -> bool:
        return not self._fake.parse_errors

    @property
    def num_errors(self) -> int:
        return len(self._fake.parse_errors)

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self._fake.parse_errors[index])


class _Profile(_Limited):
    def set_shape(self, input: str, *shapes: tuple[int, ...]) -> None:
        assert input == "images"
        self._shapes = shapes


class _Config(_Limited):
    def __init__(self) -> None:
        self._timing_cache: Any = None
        if "progress_monitor" in self._members:
            self.progress_monitor = None

    def set_flag(self, flag: Any) -> None:
        assert isinstance(flag, self._fake.module.BuilderFlag)
        self._fake.flags.append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        assert isinstance(flag, self._fake.module.BuilderFlag)
        self._fake.cleared.append(flag.name)

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._fake.tactics = tactic_sources
        return True

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        assert isinstance(feature, self._fake.module.PreviewFeature) and enable
        self._fake.previews.append(feature.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._fake.pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: _Profile) -> int:
        self._fake.profile = profile._shapes
        return 0 if self._fake.takes_profile else -1

    def can_run_on_DLA(self, layer: Any) -> bool:
        if layer._layer.reason is not None:
            self._fake.say(layer._layer.reason)
        return layer._layer.on_dla

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        content = serialized_timing_cache or json.dumps({"device": self._fake.device, "entries": []})
        try:
            found = json.loads(content)
        except ValueError:
            if not self._fake.junk_gives_empty_cache:
                return None
            self._fake.say("Failed to deserialize timing cache. Returning an empty timing cache.", "WARNING")
            found = {"device": self._fake.device, "entries": []}
        cache = self._fake.module.ITimingCache()
        cache._device, cache._entries = found["device"], set(found["entries"])
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        taken = cache._device == self._fake.device or ignore_mismatch
        if taken:
            self._timing_cache = cache
        return taken


class _TimingCache(_Limited):
    _device: str
    _entries: set[str]

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        taken = self._device == input_cache._device or ignore_mismatch
        if taken:
            self._entries |= input_cache._entries
        return taken

    def serialize(self) -> Any:
        return _HostMemory(timing_cache(self._device, *self._entries))


class _Runtime(_Limited):
    def __init__(self, logger: Any) -> None:
        assert logger is self._fake.flavor.log.trt_logger
        self._fake.runtime = self

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        return None if self._fake.fails("deserialize_cuda_engine") else self._fake.module.ICudaEngine()


class _Engine(_Limited):
    @property
    def num_io_tensors(self) -> int:
        return len(self._fake.tensors)

    def get_tensor_name(self, index: int) -> str:
        return self._fake.tensors[index][0]

    def get_tensor_mode(self, name: str) -> Any:
        return self._fake.module.TensorIOMode[self._row(name)[1]]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._fake.module.DataType[self._row(name)[2]]

    def get_tensor_shape(self, name: str) -> Any:
        return self._row(name)[3]

    def create_runtime_config(self) -> Any:
        return self._fake.module.IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        if self._fake.fails("create_execution_context"):
            return None
        context = self._fake.module.IExecutionContext()
        context._config = runtime_config
        return context

    def _row(self, name: str) -> Any:
        return next(row for row in self._fake.tensors if row[0] == name)


class _Context(_Limited):
    def __init__(self) -> None:
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._config: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return not self._fake.fails("set_input_shape")

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return not self._fake.fails("set_tensor_address")

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._fake.fails("execute_async_v3"):
            return False
        self._fake.runs.append(
            {"addresses": dict(self._addresses), "shapes": dict(self._shapes), "stream": stream_handle}
        )
        return True


class _RuntimeConfig(_Limited):
    def __init__(self) -> None:
        self._cache: Any = None

    def create_runtime_cache(self) -> Any:
        return self._fake.module.IRuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self._cache = cache
        return True


class _RuntimeCache(_Limited):
    _content = b""

    def deserialize(self, blob: bytes) -> bool:
        taken = blob == self._fake.saved_cache  # else it is another machine's
        self._content = blob if taken else b""
        return taken

    def serialize(self) -> Any:
        return _HostMemory(self._fake.saved_cache)


class _HostMemory(bytes):
    """What `IHostMemory` is used for: bytes, by the buffer protocol."""


_BEHAVIOURS: dict[str, type[_Limited]] = {
    "Builder": _Builder,
    "IBuilderConfig": _Config,
    "ICudaEngine": _Engine,
    "IExecutionContext": _Context,
    "INetworkDefinition": _Network,
    "IOptimizationProfile": _Profile,
    "ITimingCache": _TimingCache,
    "IRuntimeCache": _RuntimeCache,
    "IRuntimeConfig": _RuntimeConfig,
    "OnnxParser": _Parser,
    "Runtime": _Runtime,
}


def timing_cache(device: str, *entries: str) -> bytes:
    """A timing cache as the stand-in writes it."""
    return json.dumps({"device": device, "entries": sorted(entries)}).encode()
