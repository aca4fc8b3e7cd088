"""Building for a deep learning accelerator (DLA) of a Jetson, and which layers it takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from yolov3_trt.engine.api import Builder, IBuilderConfig, INetworkDefinition
from yolov3_trt.engine.flavor import Flavor
from yolov3_trt.errors import BuildError
from yolov3_trt.meta import ModelMeta, Precision


@dataclass(frozen=True)
class DlaPlacement:
    """Where each layer of a network runs, by TensorRT's names, in its order; constants run nowhere."""

    core: int
    on_dla: tuple[str, ...]
    on_gpu: tuple[str, ...]
    num_transitions: int  # times that the next layer in the network's order is on the other of the two
    # Of layers on the GPU: TensorRT's words, where it gave any.
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        count = len(self.on_dla) + len(self.on_gpu)
        return (
            f"DLA core {self.core} takes {len(self.on_dla)} of {count} layers, the GPU the others; "
            f"{self.num_transitions} changes between them"
        )


def check_dla(flavor: Flavor, core: int, meta: ModelMeta) -> None:
    """Refuse a graph of which no layer could run on a DLA of this TensorRT; see also `check_engine`.

    Raises:
        BuildError: why, and what would.
    """
    # With the calibrators of TensorRT 8 and 10 a DLA took INT8 by itself only; it takes Q/DQ graphs from 11 on.
    if meta.precision is Precision.INT8 and flavor.member("BuilderFlag", "INT8") is not None:
        raise BuildError(
            f"dla_core={core} with an int8 graph: up to TensorRT 10 a DLA takes no Q/DQ nodes, and this is {flavor}; export "
            "with precision fp16, or give trtexec the fp32 graph and a calibration cache (`calibrate --tensorrt-cache`)"
        )


def place_on_dla(
    flavor: Flavor, builder: Builder, network: INetworkDefinition, config: IBuilderConfig, core: int
) -> DlaPlacement:
    """Let a DLA core run all that it can, and the GPU the rest.

    The precision flags of weakly typed networks must be set before: they decide what a DLA can run.

    Raises:
        BuildError: there is no such core.
    """
    if builder.num_DLA_cores <= core:
        raise BuildError(
            f"dla_core={core}: {flavor} finds {builder.num_DLA_cores or 'no'} DLA cores here; "
            + (f"expected 0..{builder.num_DLA_cores - 1}" if builder.num_DLA_cores else "leave it out to use the GPU")
        )
    config.default_device_type = flavor.trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(flavor.trt.BuilderFlag.GPU_FALLBACK)
    return _placement(flavor, network, config, core)


def _placement(flavor: Flavor, network: INetworkDefinition, config: IBuilderConfig, core: int) -> DlaPlacement:
    on_dla: dict[str, bool] = {}
    reasons = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == flavor.trt.LayerType.CONSTANT:
            continue
        with flavor.log.recording() as problems:
            on_dla[layer.name] = config.can_run_on_DLA(layer)
        if problems and not on_dla[layer.name]:
            reasons[layer.name] = problems[0]
    return DlaPlacement(
        core,
        on_dla=tuple(name for name, runs in on_dla.items() if runs),
        on_gpu=tuple(name for name, runs in on_dla.items() if not runs),
        num_transitions=sum(before != after for before, after in pairwise(on_dla.values())),
        reasons=reasons,
    )
