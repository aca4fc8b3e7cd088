"""What a network costs to run, layer by layer, from its spec alone: operations, weights, values moved.

Operations are counted as Darknet prints them: two per multiply-add of a convolution; AlexeyAB's adds one per value that a
pool compares and a shortcut adds. Batch norms are folded into their convolutions; activations are not counted. Values moved
are what a layer that keeps nothing on the chip reads and writes: its weights, its sources, its output, once each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from yolov3_trt.layers import CHW, Conv, Dropout, MaxPool, Route, Shortcut, Yolo
from yolov3_trt.spec import IMAGE, ModelSpec

BYTES_PER_VALUE = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class LayerCost:
    """One layer, for one image."""

    index: int
    kind: str  # of layer, e.g. "Conv"
    output_chw: CHW
    flops: int
    weight_values: int  # read once for a whole batch
    moved_values: int  # read from the sources and written, of each image

    def moved_bytes(self, bytes_per_value: int, batch: int = 1) -> int:
        """Weights and values moved for a batch."""
        return (self.weight_values + batch * self.moved_values) * bytes_per_value

    def intensity(self, bytes_per_value: int, batch: int = 1) -> float:
        """Operations per byte moved; 0 for a layer that moves none."""
        moved = self.moved_bytes(bytes_per_value, batch)
        return batch * self.flops / moved if moved else 0.0


def layer_costs(spec: ModelSpec) -> tuple[LayerCost, ...]:
    """Of every layer of a network, for one image of `spec.input_hw`."""
    return tuple(_layer_cost(spec, index) for index in range(len(spec.layers)))


def total_flops(costs: Sequence[LayerCost]) -> int:
    """Of a whole network, for one image."""
    return sum(cost.flops for cost in costs)


def total_bytes(costs: Sequence[LayerCost], bytes_per_value: int, batch: int = 1) -> int:
    """Moved by a whole network, for a batch."""
    return sum(cost.moved_bytes(bytes_per_value, batch) for cost in costs)


def _layer_cost(spec: ModelSpec, index: int) -> LayerCost:
    layer, output_chw = spec.layers[index], spec.shapes[index]
    outputs, weights = math.prod(output_chw), 0
    moved = outputs + sum(_source_values(spec, index, source) for source in spec.sources(index))
    match layer:
        case Conv(filters=filters):
            flops = 2 * spec.conv_macs[index]
            weights = math.prod(spec.weight_shapes[f"layers.{index}.conv.weight"]) + filters  # a bias each
        case MaxPool(size=size):
            flops = size * size * outputs
        case Shortcut(sources=sources):
            flops = len(sources) * outputs
        case _:
            flops = 0
    # A mark, a name for an earlier output: nothing is computed, nothing moves.
    if isinstance(layer, Dropout | Yolo) or (isinstance(layer, Route) and len(layer.sources) == 1):
        moved = 0
    return LayerCost(index, type(layer).__name__, output_chw, flops, weights, moved)


def _source_values(spec: ModelSpec, index: int, source: int) -> int:
    shape = (spec.channels, *spec.input_hw) if source == IMAGE else spec.shapes[source]
    layer = spec.layers[index]
    return math.prod(shape) // (layer.groups if isinstance(layer, Route) else 1)
