"""ONNX graph -> TensorRT engine and its sidecar."""

import hashlib
import logging
import platform
import time
from pathlib import Path
from typing import Any

from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.engine.flavor import Flavor, open_flavor
from yolov3_trt.engine.options import EngineOptions
from yolov3_trt.errors import BuildError
from yolov3_trt.files import replacing
from yolov3_trt.meta import INPUT_NAME, EngineMeta, ModelMeta, Precision, load_model_meta, save_sidecar

_LOG = logging.getLogger(__name__)


def build_engine(onnx_path: Path, engine_path: Path, options: EngineOptions | None = None) -> EngineMeta:
    """Compile a graph of this package into a plan, and write the plan and then its sidecar, each atomically.

    Args:
        onnx_path: the graph; its sidecar lies beside it.
        engine_path: where the plan goes. It is plain: other TensorRT programs load it.
        options: see `EngineOptions`.

    Returns:
        The sidecar.

    Raises:
        MetaError: the graph's sidecar is missing or not this graph's.
        MissingDependency: no TensorRT is installed.
        BuildError: TensorRT refused the graph or failed; holds its messages.
        OutputError: the engine cannot be written.
    """
    options = options or EngineOptions()
    meta = load_model_meta(onnx_path)
    flavor = open_flavor(options.flavor)
    with replacing(engine_path) as partial:  # opened first: a build of minutes must not end at an unwritable folder
        start = time.perf_counter()
        plan = _build_plan(flavor, onnx_path, meta, options)
        build_s = time.perf_counter() - start
        content = memoryview(plan)
        partial.write_bytes(content)
    gpu = installed_gpu()
    engine_meta = EngineMeta(
        model=meta,
        plan_sha256=hashlib.sha256(content).hexdigest(),
        plan_bytes=content.nbytes,
        flavor=flavor.name.value,
        flavor_version=flavor.version,
        platform=f"{platform.system()}-{platform.machine()}".lower(),
        gpu=gpu.name if gpu and not flavor.builds_on_cpu else None,
        compute_capabilities=("{}.{}".format(*gpu.compute_capability),) if gpu and not flavor.builds_on_cpu else (),
        build_s=round(build_s, 3),
    )
    save_sidecar(engine_meta, engine_path)
    _LOG.info("%s: %.1f MB in %.1f s", engine_path, content.nbytes / 1e6, build_s)
    return engine_meta


def _build_plan(flavor: Flavor, onnx_path: Path, meta: ModelMeta, options: EngineOptions) -> Any:
    """The plan as TensorRT's host memory object, which supports the buffer protocol."""
    trt = flavor.trt
    flavor.log.take_problems()
    builder = _builder(flavor)
    network = builder.create_network(_network_flags(flavor))
    parser = trt.OnnxParser(network, flavor.log.trt_logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = tuple(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise BuildError(f"{onnx_path}: {_version(flavor)} cannot read this graph: {'; '.join(errors)}", log=errors)

    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if meta.batch.dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape(
            INPUT_NAME, *(meta.input_shape(size) for size in (meta.batch.min, meta.batch.opt, meta.batch.max))
        )
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"{onnx_path}: {_version(flavor)} refuses batch {meta.batch} for this graph")
    _allow_weak_types(flavor, config, meta)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        problems = flavor.log.take_problems()
        last = problems[-1] if problems else "it gave no reason"
        raise BuildError(f"{onnx_path}: {_version(flavor)} did not build an engine: {last}", log=problems)
    return plan


def _builder(flavor: Flavor) -> Any:
    try:
        return flavor.trt.Builder(flavor.log.trt_logger)
    except TypeError as exc:  # how pybind reports the null pointer that TensorRT gives without a GPU
        problems = flavor.log.take_problems()
        reason = problems[-1] if problems else str(exc)
        raise BuildError(
            f"{_version(flavor)} cannot build here: {reason}; it needs an NVIDIA GPU and driver. TensorRT-RTX builds "
            "without (pip install 'yolov3-trt[rtx]', --flavor tensorrt_rtx)",
            log=problems,
        ) from exc


def _network_flags(flavor: Flavor) -> int:
    """Explicit batch where it must be asked for (8.x), types from the graph where they can be (10 and newer)."""
    flags = flavor.trt.NetworkDefinitionCreationFlag
    wanted = [getattr(flags, name) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if hasattr(flags, name)]
    return sum(1 << int(flag) for flag in wanted)


def _allow_weak_types(flavor: Flavor, config: Any, meta: ModelMeta) -> None:
    """TensorRT 8.x types weakly: it keeps float16 and int8 only where a flag allows them."""
    if flavor.strongly_typed:
        return
    if meta.precision in (Precision.FP16, Precision.INT8):
        config.set_flag(flavor.trt.BuilderFlag.FP16)
    if meta.precision is Precision.INT8:
        config.set_flag(flavor.trt.BuilderFlag.INT8)


def _version(flavor: Flavor) -> str:
    return f"{flavor.name.value} {flavor.version}"
