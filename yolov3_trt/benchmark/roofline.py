"""How near a row comes to what the machine can do: the network's operations and bytes against the measured ceiling.

The roofline of Williams, Waterman and Patterson (2009), layer by layer.
"""

from collections.abc import Sequence
from typing import Any

from yolov3_trt.benchmark.ceiling import Ceiling
from yolov3_trt.costs import BYTES_PER_VALUE, LayerCost, total_bytes, total_flops


def row_roofline(
    costs: Sequence[LayerCost], precision: str, batch: int, network_ms: float, ceiling: Ceiling
) -> dict[str, Any]:
    """Achieved share of what is attainable, of calls with `batch` pictures whose network takes `network_ms`.

    Bytes are those of layers that each read and write memory once, at the row's precision; a runtime that fuses layers moves
    fewer, so a share above 1 is possible where memory is the limit.
    """
    bytes_per_value = BYTES_PER_VALUE[precision]
    flops, moved = batch * total_flops(costs), total_bytes(costs, bytes_per_value, batch)
    achieved = flops / network_ms / 1e6
    attainable = attainable_gflops(costs, bytes_per_value, batch, ceiling)
    return {
        "gflop": flops / 1e9,
        "gbyte": moved / 1e9,
        "intensity": flops / moved,
        "achieved_gflops": achieved,
        "ceiling_gflops": attainable,
        "share": achieved / attainable,
    }


def attainable_gflops(costs: Sequence[LayerCost], bytes_per_value: int, batch: int, ceiling: Ceiling) -> float:
    """Of a whole network: each layer takes the longer of its computing and its moving."""
    floor_s = sum(_floor_s(cost, bytes_per_value, batch, ceiling) for cost in costs)
    return batch * total_flops(costs) / floor_s / 1e9


def layer_table(costs: Sequence[LayerCost], ceiling: Ceiling | None, precision: str = "fp32") -> list[dict[str, Any]]:
    """A row per layer, for one picture: operations, bytes, their ratio; with a ceiling what bounds it and its shortest time."""
    bytes_per_value = BYTES_PER_VALUE[precision]
    rows = []
    for cost in costs:
        intensity = cost.intensity(bytes_per_value)
        row: dict[str, Any] = {
            "index": cost.index,
            "type": cost.kind,
            "output_chw": list(cost.output_chw),
            "gflop": cost.flops / 1e9,
            "mbyte": cost.moved_bytes(bytes_per_value) / 1e6,
            "intensity": intensity,
        }
        if ceiling is not None:
            row["bound"] = "memory" if intensity * ceiling.copy_gb_s < ceiling.gflops else "compute"
            row["floor_ms"] = _floor_s(cost, bytes_per_value, 1, ceiling) * 1e3
        rows.append(row)
    return rows


def _floor_s(cost: LayerCost, bytes_per_value: int, batch: int, ceiling: Ceiling) -> float:
    computing = batch * cost.flops / (ceiling.gflops * 1e9)
    return max(computing, cost.moved_bytes(bytes_per_value, batch) / (ceiling.copy_gb_s * 1e9))
