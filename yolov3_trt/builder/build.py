"""ONNX graph -> TensorRT engine and its sidecar."""

import functools
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.builder.builder_config import check_options, set_options
from yolov3_trt.builder.dla import DlaPlacement, place_on_dla
from yolov3_trt.builder.progress import BuildProgress, watch_build
from yolov3_trt.builder.resources import check_resources
from yolov3_trt.builder.timing_cache import TimingCacheFile, timing_cache_path
from yolov3_trt.engine.api import Builder, IBuilderConfig, IHostMemory, INetworkDefinition, OnnxParser
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.engine.flavor import Flavor, open_flavor
from yolov3_trt.engine.machine import this_platform
from yolov3_trt.errors import BuildError
from yolov3_trt.files import replacing
from yolov3_trt.meta import INPUT_NAME, EngineMeta, ModelMeta, Precision, load_model_meta, save_sidecar, sidecar_path
from yolov3_trt.settings import EngineSettings, Refit

_LOG = logging.getLogger(__name__)

# TensorRT has one logger per process, so two builds at once would find each other's errors in theirs.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class CheckedGraph:
    """A graph of this package that is known to be the one its sidecar describes: its bytes need not be read for that again."""

    path: Path
    meta: ModelMeta


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that was built, and what is to be said about it."""

    meta: EngineMeta
    notes: tuple[str, ...]  # what was not done as asked, or should be known
    dla: DlaPlacement | None  # of builds for a DLA


@dataclass(frozen=True)
class _Compiled:
    plan: IHostMemory
    notes: tuple[str, ...]
    dla: DlaPlacement | None


def build_engine(
    graph: Path | CheckedGraph,
    engine_path: Path,
    options: EngineSettings | None = None,
    *,
    inputs: Mapping[str, str] | None = None,
    progress: BuildProgress | None = None,
) -> BuiltEngine:
    """Compile a graph of this package into a plan, and write the plan and then its sidecar, each atomically.

    Ctrl-C stops a build, see `watch_build`; what was at `engine_path` before stays as it was then, as after any failure.

    Args:
        graph: the file, its sidecar beside it, or one whose sidecar was read already.
        engine_path: where the plan goes. It is plain: other TensorRT programs load it.
        options: see `EngineSettings`.
        inputs: all that the plan depends on, by name, for the sidecar.
        progress: is told how the build gets on.

    Raises:
        MetaError: the graph's sidecar is missing or not this graph's.
        MissingDependency: no TensorRT is installed.
        BuildError: TensorRT lacks an option, refused the graph or failed, with its messages; or the disk is too full.
        OutputError: the engine cannot be written.
    """
    options = options or EngineSettings()
    checked = CheckedGraph(graph, load_model_meta(graph)) if isinstance(graph, Path) else graph
    onnx_path, meta = checked.path, checked.meta
    flavor = open_flavor(options.flavor)
    check_options(flavor, options, meta)
    watch = functools.partial(watch_build, progress=progress, estimate_s=estimated_build_s(engine_path))
    # The file is opened first: a build of minutes must not end at an unwritable folder.
    with _ONE_AT_A_TIME, replacing(engine_path) as partial:
        notes = check_resources(onnx_path, engine_path, meta.precision)
        start = time.perf_counter()
        compiled = _build_plan(flavor, onnx_path, meta, options, watch)
        build_s = time.perf_counter() - start
        content = memoryview(compiled.plan)
        partial.write_bytes(content)
    engine_meta = EngineMeta(
        model=meta,
        plan_sha256=hashlib.sha256(content).hexdigest(),
        plan_bytes=content.nbytes,
        flavor=flavor.name.value,
        flavor_version=flavor.version,
        platform=this_platform(),
        gpu=_gpu_name(flavor),
        compute_capabilities=_compute_capabilities(flavor, options),
        build_s=round(build_s, 3),
        hardware_compatibility=options.hardware_compatibility.value,
        version_compatible=options.version_compatible,
        dla_core=options.dla_core,
        tf32=options.tf32,
        inputs=inputs or {},
    )
    save_sidecar(engine_meta, engine_path)
    _LOG.info("%s: %.1f MB in %.1f s", engine_path, content.nbytes / 1e6, build_s)
    return BuiltEngine(engine_meta, (*notes, *compiled.notes), compiled.dla)


def estimated_build_s(engine_path: Path) -> float | None:
    """How long a build to this path took the last time, by the sidecar it left; None where there is none."""
    try:
        build_s = json.loads(sidecar_path(engine_path).read_bytes())["build_s"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or no sidecar of an engine
        return None
    return float(build_s) if isinstance(build_s, int | float) else None


def _build_plan(
    flavor: Flavor, onnx_path: Path, meta: ModelMeta, options: EngineSettings, watch: Callable[..., IHostMemory | None]
) -> _Compiled:
    """The plan as TensorRT's host memory object, and what came up on the way; `watch` is a `watch_build`."""
    flavor.log.take_problems()
    builder = _builder(flavor)
    network = builder.create_network(_network_flags(flavor))
    parser = _parse(flavor, network, onnx_path)
    config = builder.create_builder_config()
    notes = [*set_options(flavor, network, config, options)]
    _add_profile(flavor, builder, config, onnx_path, meta)
    _allow_weak_types(flavor, network, config, meta)
    dla = None
    if options.dla_core is not None:
        dla = place_on_dla(flavor, builder, network, config, options.dla_core)
        notes.append(str(dla))
    timing_cache = None
    if options.timing_cache is not None:
        path = timing_cache_path(options.timing_cache, flavor, installed_gpu())
        timing_cache = TimingCacheFile(path, flavor, config)

    def build(_: OnnxParser = parser) -> IHostMemory | None:  # the network reads the parser's weights until it is built
        return builder.build_serialized_network(network, config)

    plan = watch(flavor, config, build)
    if plan is None:
        problems = flavor.log.take_problems()
        last = problems[-1] if problems else "it gave no reason"
        raise BuildError(
            f"{onnx_path}: {flavor} did not build an engine: {last}{_advice(flavor, options)}", log=problems
        )
    if timing_cache is not None:
        timing_cache.save()
        notes += timing_cache.notes
    return _Compiled(plan, tuple(notes), dla)


def _builder(flavor: Flavor) -> Builder:
    try:
        builder: Builder = flavor.trt.Builder(flavor.log.trt_logger)
    except TypeError as exc:  # how pybind reports the null pointer that TensorRT gives without a GPU
        problems = flavor.log.take_problems()
        reason = problems[-1] if problems else str(exc)
        raise BuildError(
            f"{flavor} cannot build here: {reason}; it needs an NVIDIA GPU and driver. TensorRT-RTX builds without (pip "
            "install 'yolov3-trt[rtx]', flavor tensorrt_rtx)",
            log=problems,
        ) from exc
    return builder


def _network_flags(flavor: Flavor) -> int:
    """Explicit batch where it must be asked for (8.x), types from the graph where they can be (10 and newer)."""
    explicit_batch = flavor.member("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")
    strongly_typed = flavor.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
    return sum(1 << int(flag) for flag in (explicit_batch, strongly_typed) if flag is not None)


def _parse(flavor: Flavor, network: INetworkDefinition, onnx_path: Path) -> OnnxParser:
    parser: OnnxParser = flavor.trt.OnnxParser(network, flavor.log.trt_logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = tuple(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise BuildError(f"{onnx_path}: {flavor} cannot read this graph: {'; '.join(errors)}", log=errors)
    return parser


def _add_profile(flavor: Flavor, builder: Builder, config: IBuilderConfig, onnx_path: Path, meta: ModelMeta) -> None:
    """Say which batches come, where the batch varies."""
    if not meta.batch.dynamic:
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(
        INPUT_NAME, *(meta.input_shape(size) for size in (meta.batch.min, meta.batch.opt, meta.batch.max))
    )
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"{onnx_path}: {flavor} refuses batch {meta.batch} for this graph")
    if (
        not flavor.strongly_typed
    ):  # 8.x: else only one execution context may use the profile, and pictures wait for each other
        config.set_preview_feature(flavor.member("PreviewFeature", "PROFILE_SHARING_0806"), True)


def _allow_weak_types(flavor: Flavor, network: INetworkDefinition, config: IBuilderConfig, meta: ModelMeta) -> None:
    """TensorRT 8.x types weakly: it keeps float16 and int8 only where a flag allows them, and then uses them elsewhere too.

    So FP16 is allowed only to a graph that holds float16: an INT8 graph whose rest is FP32 stays so, as on 10 and newer.
    """
    if flavor.strongly_typed:
        return
    if meta.precision is Precision.FP16 or (meta.precision is Precision.INT8 and _holds_float16(flavor, network)):
        config.set_flag(flavor.member("BuilderFlag", "FP16"))
    if meta.precision is Precision.INT8:
        config.set_flag(flavor.member("BuilderFlag", "INT8"))


def _holds_float16(flavor: Flavor, network: INetworkDefinition) -> bool:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    tensors = (layer.get_output(index) for layer in layers for index in range(layer.num_outputs))
    return any(tensor.dtype == flavor.trt.DataType.HALF for tensor in tensors)


def _advice(flavor: Flavor, options: EngineSettings) -> str:
    """What may help where an option, not the graph, is likely at fault."""
    if flavor.builds_on_cpu and installed_gpu() is None and (options.strip_weights or options.refit is not Refit.NONE):
        return f" ({flavor} needs a GPU to build plans for a refit: build there, or leave out refit and strip_weights)"
    return ""


def _gpu_name(flavor: Flavor) -> str | None:
    """Of the GPU that a plan is tuned for."""
    gpu = None if flavor.builds_on_cpu else installed_gpu()
    return gpu.name if gpu else None


def _compute_capabilities(flavor: Flavor, options: EngineSettings) -> tuple[str, ...]:
    """For which a plan is made."""
    gpu = installed_gpu()
    if flavor.builds_on_cpu or gpu is None:
        return options.compute_capabilities
    return ("{}.{}".format(*gpu.compute_capability),)
