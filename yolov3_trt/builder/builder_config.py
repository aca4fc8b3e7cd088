"""Engine options -> TensorRT's builder configuration; what a TensorRT lacks is refused, what it ignores is reported."""

from yolov3_trt.builder.dla import check_dla
from yolov3_trt.engine.api import IBuilderConfig, INetworkDefinition
from yolov3_trt.engine.flavor import Flavor
from yolov3_trt.errors import BuildError
from yolov3_trt.meta import ModelMeta
from yolov3_trt.settings import EngineSettings, FlavorName, HardwareCompatibility, Refit, check_engine

_REFIT_FLAGS = {Refit.ALL: "REFIT", Refit.IDENTICAL: "REFIT_IDENTICAL", Refit.INDIVIDUAL: "REFIT_INDIVIDUAL"}


def check_options(flavor: Flavor, options: EngineSettings, meta: ModelMeta) -> None:
    """Refuse options that this TensorRT lacks, or that do not go with the graph, before anything is built.

    Raises:
        SettingError: no TensorRT of this flavor does this.
        BuildError: the one at hand does not; and what to do.
    """
    check_engine(options, meta, flavor.name)
    for capability in options.compute_capabilities:
        if _compute_capability(flavor, capability) is None:
            names = (name[2:] for name in flavor.members("ComputeCapability") if name.startswith("SM"))
            known = ", ".join(f"{name[:-1]}.{name[-1]}" for name in sorted(names, key=int))
            raise BuildError(
                f"compute_capabilities={_listed(options)}: {flavor} does not know {capability}; it knows {known}"
            )
    if options.hardware_compatibility is not HardwareCompatibility.NONE:
        _require(
            flavor,
            "HardwareCompatibilityLevel",
            options.hardware_compatibility.value.upper(),
            f"hardware_compatibility={options.hardware_compatibility.value}",
            "set none or ampere_plus",
        )
    if options.refit is not Refit.NONE:
        _require(flavor, "BuilderFlag", _REFIT_FLAGS[options.refit], f"refit={options.refit.value}", "set none or all")
    if options.strip_weights:
        _require(flavor, "BuilderFlag", "STRIP_PLAN", "strip_weights=true", "leave it out")
    if options.dla_core is not None:
        check_dla(flavor, options.dla_core, meta)


def set_options(
    flavor: Flavor, network: INetworkDefinition, config: IBuilderConfig, options: EngineSettings
) -> tuple[str, ...]:
    """Write options that `check_options` let pass into a configuration, all but the timing cache and the DLA.

    Returns:
        Notes: what TensorRT takes but does not act on.

    Raises:
        BuildError: TensorRT refused one.
    """
    trt = flavor.trt
    notes = []
    # For `layer_report`; it makes a plan larger by the names of its layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
        if flavor.name is FlavorName.TENSORRT_RTX:
            notes.append(
                f"optimization_level={options.optimization_level}: {flavor} accepts it and builds the same plan at every level"
            )
    if options.hardware_compatibility is not HardwareCompatibility.NONE:
        level = flavor.member("HardwareCompatibilityLevel", options.hardware_compatibility.value.upper())
        config.hardware_compatibility_level = level
    # TensorRT rounds to TF32 unless told not to; an engine called FP32 would not give what PyTorch and ONNX Runtime do.
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if not flavor.strongly_typed:
        _use_own_kernels(flavor, config)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.strip_weights:
        config.set_flag(flavor.member("BuilderFlag", "STRIP_PLAN"))
    if options.refit is not Refit.NONE:
        config.set_flag(flavor.member("BuilderFlag", _REFIT_FLAGS[options.refit]))
    if options.refit is Refit.INDIVIDUAL:
        notes.append(_mark_weights(flavor, network))
    if options.compute_capabilities:
        _set_compute_capabilities(flavor, config, options)
    return tuple(notes)


def _use_own_kernels(flavor: Flavor, config: IBuilderConfig) -> None:
    """On 8.x: no kernels of cuBLAS and cuDNN, which these networks do not need and which may not be installed.

    Loading them takes a Jetson 0.6 GB (NVIDIA/TensorRT#3917).
    """
    own = flavor.trt.TacticSource.EDGE_MASK_CONVOLUTIONS, flavor.trt.TacticSource.JIT_CONVOLUTIONS
    config.set_tactic_sources(sum(1 << int(source) for source in own))


def _require(flavor: Flavor, enum: str, member: str, option: str, fix: str) -> None:
    if flavor.member(enum, member) is None:
        raise BuildError(f"{option}: {flavor} does not have {enum}.{member}; {fix}, or install a newer TensorRT")


def _set_compute_capabilities(flavor: Flavor, config: IBuilderConfig, options: EngineSettings) -> None:
    if not hasattr(config, "num_compute_capabilities") or not hasattr(config, "set_compute_capability"):
        raise BuildError(f"compute_capabilities={_listed(options)}: {flavor} takes none; leave it out")
    config.num_compute_capabilities = len(options.compute_capabilities)
    for index, capability in enumerate(options.compute_capabilities):
        if not config.set_compute_capability(_compute_capability(flavor, capability), index):
            raise BuildError(f"compute_capabilities={_listed(options)}: {flavor} refuses {capability}; leave it out")


def _compute_capability(flavor: Flavor, capability: str) -> object | None:
    """`"8.6"` -> ComputeCapability.SM86; None where there is no such member."""
    major, _, minor = capability.partition(".")
    return flavor.member("ComputeCapability", f"SM{major}{minor}") if minor else None


def _listed(options: EngineSettings) -> str:
    return ",".join(options.compute_capabilities)


def _mark_weights(flavor: Flavor, network: INetworkDefinition) -> str:
    """Mark the weights of all convolutions, by the names that this package's graphs give them, for a refit.

    Raises:
        BuildError: there are none.
    """
    if not hasattr(network, "mark_weights_refittable"):
        raise BuildError(f"refit=individual: {flavor} cannot mark weights; set none or all")
    names = []
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.type == flavor.trt.LayerType.CONVOLUTION:
            names.append(f"{layer.name}.bias")
            if layer.num_inputs == 1:  # else its kernel comes from Q/DQ nodes, and they have it from a constant
                names.append(f"{layer.name}.weight")
        elif layer.type == flavor.trt.LayerType.CONSTANT and layer.name.endswith((".conv.weight", ".conv.weight.q")):
            names.append(layer.name)
    marked = [name for name in names if network.mark_weights_refittable(name)]
    if not marked:
        raise BuildError(
            "refit=individual: no convolution of this graph has weights that can be marked; set none or all"
        )
    return f"refit=individual: {len(marked)} weights and biases of convolutions are marked"
