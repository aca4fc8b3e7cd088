"""How near a row comes to what the machine can do: the network's operations and bytes against the machine's roofline."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from yolov3_trt.benchmarking.machine_roofline import MachineRoofline
from yolov3_trt.costs import BYTES_PER_VALUE, LayerCost, total_bytes, total_flops
from yolov3_trt.geometry import HW
from yolov3_trt.spec import ModelSpec


@dataclass(frozen=True)
class RowRoofline:
    """A row's share of what is attainable.

    Bytes are those of layers that each read and write memory once, at the row's precision; a runtime that fuses layers moves
    fewer, so a share above 1 is possible where memory is the limit.
    """

    gflop: float  # of a call
    gbyte: float
    intensity: float  # operations per byte
    achieved_gflops: float
    attainable_gflops: float  # each layer takes the longer of its computing and its moving
    share: float

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        return asdict(self)


def row_roofline(
    costs: Sequence[LayerCost], precision: str, batch: int, network_ms: float, machine: MachineRoofline
) -> RowRoofline:
    """Of calls with `batch` pictures whose network takes `network_ms`."""
    bytes_per_value = BYTES_PER_VALUE[precision]
    flops, moved = batch * total_flops(costs), total_bytes(costs, bytes_per_value, batch)
    achieved = flops / network_ms / 1e6
    attainable = attainable_gflops(costs, bytes_per_value, batch, machine)
    return RowRoofline(flops / 1e9, moved / 1e9, flops / moved, achieved, attainable, achieved / attainable)


def attainable_gflops(costs: Sequence[LayerCost], bytes_per_value: int, batch: int, machine: MachineRoofline) -> float:
    """Of a whole network: each layer takes the longer of its computing and its moving."""
    floor_s = sum(machine.floor_s(cost, bytes_per_value, batch) for cost in costs)
    return batch * total_flops(costs) / floor_s / 1e9


@dataclass(frozen=True)
class LayerFigures:
    """A layer, for one picture."""

    index: int
    type: str
    output_chw: tuple[int, int, int]
    gflop: float
    mbyte: float
    intensity: float  # operations per byte
    bound: str | None = None  # "memory" or "compute", by the machine's roofline; None where that was not measured
    floor_ms: float | None = None  # the shortest time by it


@dataclass(frozen=True)
class NetworkFigures:
    """A network, layer by layer."""

    model: str
    input_hw: HW
    layers: tuple[LayerFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        return asdict(self)


def network_figures(
    spec: ModelSpec, costs: Sequence[LayerCost], machine: MachineRoofline | None, precision: str = "fp32"
) -> NetworkFigures:
    """Operations, bytes and their ratio of each layer; with a machine's roofline what bounds it and its shortest time."""
    layers = tuple(layer_figures(cost, machine, BYTES_PER_VALUE[precision]) for cost in costs)
    return NetworkFigures(spec.name, spec.input_hw, layers)


def layer_figures(cost: LayerCost, machine: MachineRoofline | None, bytes_per_value: int) -> LayerFigures:
    """One layer, for one picture."""
    intensity = cost.intensity(bytes_per_value)
    moved = cost.moved_bytes(bytes_per_value)
    figures = (cost.index, cost.kind, cost.output_chw, cost.flops / 1e9, moved / 1e6, intensity)
    if machine is None:
        return LayerFigures(*figures)
    bound = "memory" if intensity * machine.copy_gb_s < machine.gflops else "compute"
    return LayerFigures(*figures, bound, machine.floor_s(cost, bytes_per_value) * 1e3)
