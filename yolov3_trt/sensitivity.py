"""INT8 within an accuracy budget: which layers have to stay float, and what that costs.

Layers are ranked by how much noise each one alone brings into the heads when it is quantised. Then as few of the noisiest as
possible are left float, so that average precision stays within the budget.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends.ort import graph_runner
from yolov3_trt.calibration.distilled import Weights
from yolov3_trt.calibration.table import CalibrationTable
from yolov3_trt.errors import CalibrationError
from yolov3_trt.files import sha256_of_file, write_bytes
from yolov3_trt.layers import Conv, Shortcut
from yolov3_trt.meta import INPUT_NAME, ModelMeta, Precision, save_sidecar
from yolov3_trt.spec import ModelSpec

Heads = Mapping[str, NDArray[np.float32]]
Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one layer alone does to the heads."""

    layer: int  # as the cfg counts
    kind: str  # `convolutional`, `shortcut`
    macs: int  # multiply-adds for one image; 0 for a shortcut
    snr_db: float  # signal-to-noise ratio of the worst head: 20 log10(|head| / |difference|)
    ap: float | None = None  # with this layer alone in int8, where it was measured


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        float_layers: that stay float; noisiest first.
        ap: with them.
        ap_by_count: what was tried: AP by the number of the noisiest layers left float.
    """

    float_layers: tuple[int, ...]
    ap: float
    ap_by_count: Mapping[int, float]


class QuantizedVariants:
    """INT8 variants of one model, each with other layers left float.

    Args:
        graph: the FP32 graph (an onnx ModelProto).
        meta: of that graph.
        table: its calibration table.
        weights: that were distilled, see `calibration.distilled`.
        float_precision: what everything that is not int8 computes in.
    """

    def __init__(self, graph: Any, meta: ModelMeta, table: CalibrationTable, weights: Weights, rest: Precision) -> None:
        from yolov3_trt.graph.equalise import equalised
        from yolov3_trt.graph.plain import with_weights

        self._float = equalised(graph, table.doublings)
        self._graph = with_weights(self._float, weights)
        self.meta, self._table, self._rest = meta, table, rest

    def heads(self, inputs: Sequence[NDArray[Any]], float_layers: frozenset[int] | None) -> list[Heads]:
        """Heads for each input; None is the float graph itself. The rest is FP32, so only INT8's noise shows."""
        graph = self._float if float_layers is None else self._quantised(float_layers, Precision.FP32)
        run = graph_runner(graph.SerializeToString())
        return [run({INPUT_NAME: batch}) for batch in inputs]

    def save(self, path: Path, float_layers: frozenset[int]) -> None:
        """Write a variant with its sidecar, to be opened as any artifact."""
        write_bytes(path, self._quantised(float_layers, self._rest).SerializeToString())
        save_sidecar(replace(self.meta, precision=Precision.INT8, onnx_sha256=sha256_of_file(path)), path)

    def _quantised(self, float_layers: frozenset[int], rest: Precision) -> Any:
        from yolov3_trt.graph.qdq import qdq_from_onnx
        from yolov3_trt.graph.qdq_placement import QdqPolicy

        policy = QdqPolicy(float_layers=float_layers, float_precision=rest)
        return qdq_from_onnx(self._graph, self._table.amax, policy, self._table.bias_shifts)


def quantisable_layers(spec: ModelSpec) -> tuple[int, ...]:
    """Convolutions and sums: the layers whose inputs INT8 quantises."""
    return tuple(index for index, layer in enumerate(spec.layers) if isinstance(layer, Conv | Shortcut))


def sensitivities(
    spec: ModelSpec,
    reference: Sequence[Heads],
    heads_with_only: Callable[[int], Sequence[Heads]],
    progress: Progress = iter,
) -> tuple[Sensitivity, ...]:
    """Rank the layers, the noisiest first.

    Args:
        spec: of the model.
        reference: heads of the float graph, one mapping per input.
        heads_with_only: the same with this one layer quantised.
        progress: wraps the iteration over the layers.
    """
    found = []
    for layer in progress(quantisable_layers(spec)):
        kind = "convolutional" if isinstance(spec.layers[layer], Conv) else "shortcut"
        ratio = snr_db(reference, heads_with_only(layer))
        found.append(Sensitivity(layer, kind, spec.conv_macs.get(layer, 0), ratio))
    return tuple(sorted(found, key=lambda sensitivity: (sensitivity.snr_db, sensitivity.layer)))


def with_ap(
    ranking: Sequence[Sensitivity], count: int, ap_with_only: Callable[[int], float], progress: Progress = iter
) -> tuple[Sensitivity, ...]:
    """The same ranking, its first `count` layers each with the AP that remains with that layer alone quantised."""
    measured = {layer: ap_with_only(layer) for layer in progress([row.layer for row in ranking[:count]])}
    return tuple(replace(row, ap=measured.get(row.layer)) for row in ranking)


def snr_db(reference: Sequence[Heads], got: Sequence[Heads]) -> float:
    """Signal-to-noise ratio of the worst head over all inputs, dB; infinite where nothing differs."""
    ratios = []
    for name in reference[0]:
        signal = sum(float(np.square(heads[name], dtype=np.float64).sum()) for heads in reference)
        noise = sum(
            float(np.square(heads[name] - other[name], dtype=np.float64).sum())
            for heads, other in zip(reference, got, strict=True)
        )
        ratios.append(10 * math.log10(signal / noise) if noise else math.inf)
    return min(ratios)


def search_float_layers(
    ranking: Sequence[int], ap_without: Callable[[frozenset[int]], float], floor: float
) -> SearchResult:
    """Leave as few layers float as AP allows.

    First a binary search for how many of the noisiest layers have to be; then each of them is tried in int8 again, the least
    noisy first. AP is not quite monotonous, so fewer may do; what is returned was measured.

    Args:
        ranking: layers, noisiest first.
        ap_without: AP of the model with these layers float and all others in int8.
        floor: that AP must reach.

    Raises:
        CalibrationError: not even with all of them float.
    """
    tried: dict[int, float] = {}

    def ap_of(count: int) -> float:
        if count not in tried:
            tried[count] = ap_without(frozenset(ranking[:count]))
        return tried[count]

    low, high = 0, len(ranking)  # `high` is enough; `low` - 1 is not
    if ap_of(0) >= floor:
        return SearchResult((), tried[0], tried)
    if ap_of(high) < floor:
        raise CalibrationError(
            f"with all {high} layers float AP is {tried[high]:.4f}; expected {floor:.4f} or more: the budget is smaller than "
            f"what FP16 itself costs (in int8 throughout: {tried[0]:.4f})"
        )
    low = 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if ap_of(middle) >= floor else (middle + 1, high)
    skipped, ap = list(ranking[:high]), tried[high]
    for layer in reversed(ranking[:high]):
        fewer = frozenset(skipped) - {layer}
        without = ap_without(fewer)
        if without >= floor:
            skipped.remove(layer)
            ap = without
    return SearchResult(tuple(skipped), ap, dict(sorted(tried.items())))


def int8_share(spec: ModelSpec, float_layers: Iterable[int]) -> float:
    """Share of the convolutions' multiply-adds that are done in int8."""
    macs = spec.conv_macs
    return 1 - sum(macs.get(layer, 0) for layer in set(float_layers)) / sum(macs.values())
