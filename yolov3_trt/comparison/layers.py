"""The first layer where two artifacts of one network part: where "wrong boxes" come from.

Both get the same picture, and each gives what its layers make of it. The error of a layer is the norm of the difference over
the norm of what A's layer gives. Rounding makes it grow a little from layer to layer; a layer that is wrong makes it jump.

A layer has departed when its error is beyond what its precision explains (`TOLERANCE`), or `JUMP` times that of the layers
that it reads, which finds a small fault before it has grown. Measured on the four models of this project, healthy graphs
against PyTorch: errors up to 4e-6 (fp32), 8e-3 (fp16), 0.31 (int8), each at most 3.6 times those of the layers before.

INT8 graphs may hold channels multiplied by powers of two (`graph.equalise`), which the next layer takes back. So against one
of those each channel is divided by the power of two that brings it closest, first.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.meta import INPUT_NAME, Precision

if TYPE_CHECKING:
    from yolov3_trt.models import Model

Maps = Mapping[int, NDArray[Any]]  # by layer, (N, C, H, W)
LayerRunner = Callable[..., Maps]  # images, and the map of the given layer where there is one

# Largest error of a layer, and the error that rounding makes in a single one.
TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 3e-2, Precision.INT8: 0.5}
ROUNDING = {Precision.FP32: 2e-7, Precision.FP16: 3e-4, Precision.INT8: 5e-3}
JUMP = 10.0
MAX_DOUBLINGS = 9  # that `graph.equalise` multiplies a channel by, at most
_LAYERS_AT_A_TIME = 16  # so many maps of both sides are in memory


class LayerProbe(Protocol):
    """An artifact whose layers can be looked into."""

    layers: tuple[int, ...]  # that it has, as the cfg counts
    sources: Mapping[int, Sequence[int]]  # of a layer: those that it reads
    names: Mapping[int, str]  # of a layer: what it does

    def runner(self, layers: Collection[int], given: int | None = None) -> "LayerRunner":
        """What gives some layers for an input of the artifact.

        Args:
            layers: to give.
            given: a layer whose map comes from elsewhere, with each input, in place of its own.
        """
        ...


@dataclass(frozen=True)
class LayerError:
    """One layer of two artifacts."""

    layer: int
    name: str  # what it does: `Conv, LeakyRelu`
    error: float  # relative
    before: float | None  # the largest of the layers that it reads; None for one that reads the picture


@dataclass(frozen=True)
class LayerComparison:
    """Layers in order, up to where they part."""

    precision: Precision  # the coarser one
    errors: tuple[LayerError, ...]
    departed: LayerError | None
    input_error: float | None  # relative; None where the inputs are of different kinds

    def to_json(self) -> dict[str, Any]:
        """As `compare --json` writes it; None for what is not finite."""
        return {
            "precision": self.precision.value,
            "tolerance": TOLERANCE[self.precision],
            "jump": JUMP,
            "input_error": _finite(self.input_error),
            "errors": [_json(error) for error in self.errors],
            "departed": None if self.departed is None else _json(self.departed),
        }


class GraphProbe:
    """The layers of an ONNX file of this package."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ExportError: it is no ONNX graph.
        """
        from yolov3_trt.graph.parts import load_graph
        from yolov3_trt.graph.probe import layer_operators, layer_sources, layer_values

        self._graph = load_graph(path)
        self._values = layer_values(self._graph)
        self.layers = tuple(self._values)
        self.sources: Mapping[int, Sequence[int]] = layer_sources(self._graph)
        self.names: Mapping[int, str] = layer_operators(self._graph)

    def runner(self, layers: Collection[int], given: int | None = None) -> LayerRunner:
        """See `LayerProbe`."""
        from yolov3_trt.backends.ort import graph_runner
        from yolov3_trt.graph.probe import GIVEN, probed

        wanted = {layer: self._values[layer] for layer in layers if layer != given}
        graph = probed(self._graph, tuple(wanted.values()), None if given is None else self._values[given])
        run = graph_runner(graph.SerializeToString()) if wanted else None

        def maps(images: NDArray[Any], of_given: NDArray[Any] | None = None) -> Maps:
            feeds = {INPUT_NAME: images} if of_given is None else {INPUT_NAME: images, GIVEN: of_given}
            outputs = {} if run is None else run(feeds)
            found = {layer: outputs[value] for layer, value in wanted.items()}
            return found if given is None or of_given is None else {**found, given: of_given}

        return maps


class ModelProbe:
    """The layers of the PyTorch reference."""

    def __init__(self, model: "Model") -> None:
        from yolov3_trt.reference import module_from_spec

        spec = model.spec
        self._network = module_from_spec(spec, model.weights)
        self.layers = tuple(range(len(spec.layers)))
        self.sources: Mapping[int, Sequence[int]] = {
            layer: tuple(n for n in spec.sources(layer) if n >= 0) for layer in self.layers
        }
        self.names: Mapping[int, str] = {layer: type(spec.layers[layer]).__name__ for layer in self.layers}

    def runner(self, layers: Collection[int], given: int | None = None) -> LayerRunner:
        """See `LayerProbe`."""
        from yolov3_trt.reference import run_layers

        def maps(images: NDArray[Any], of_given: NDArray[Any] | None = None) -> Maps:
            instead = None if given is None or of_given is None else {given: of_given}
            return run_layers(self._network, images, layers, instead)

        return maps


def compare_layers(
    a: LayerProbe,
    b: LayerProbe,
    inputs: tuple[NDArray[Any], NDArray[Any]],
    precision: Precision,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> LayerComparison:
    """Go through the layers that both have, in order, until one departs.

    Args:
        a: what is right.
        b: what is asked.
        inputs: the same picture as each takes it.
        precision: of the coarser one of the two.
        progress: wraps the iteration over groups of layers.
    """
    common = [layer for layer in a.layers if layer in set(b.layers)]
    groups = [common[start : start + _LAYERS_AT_A_TIME] for start in range(0, len(common), _LAYERS_AT_A_TIME)]
    known: dict[int, float] = {}
    errors: list[LayerError] = []
    departed = None
    for group in progress(groups):
        maps_a, maps_b = a.runner(group)(inputs[0]), b.runner(group)(inputs[1])
        for layer in group:
            known[layer] = relative_error(maps_a[layer], maps_b[layer], equalised=precision is Precision.INT8)
            before = max((known[source] for source in b.sources.get(layer, ()) if source in known), default=None)
            errors.append(LayerError(layer, b.names[layer], known[layer], before))
            if has_departed(errors[-1], precision):
                departed = errors[-1]
                break
        if departed is not None:
            break
    return LayerComparison(precision, tuple(errors), departed, _input_error(*inputs))


def has_departed(found: LayerError, precision: Precision) -> bool:
    """Whether a layer's error is more than its precision and what it reads explain; NaN is."""
    explained = JUMP * max(found.before or 0.0, ROUNDING[precision])
    return not found.error <= min(TOLERANCE[precision], explained)


def relative_error(a: NDArray[Any], b: NDArray[Any], *, equalised: bool = False) -> float:
    """Norm of the difference of two maps (N, C, H, W) over the norm of the first, for their first pictures.

    It is infinite where their shapes differ.

    Args:
        a: what is right.
        b: what is asked.
        equalised: channels of `b` may be larger by powers of two.
    """
    a, b = a[:1].astype(np.float64), b[:1].astype(np.float64)
    if a.shape != b.shape:
        return float("inf")
    if equalised and a.ndim == 4:
        b = b * nearest_powers(a, b)
    with np.errstate(invalid="ignore"):
        difference, size = float(np.linalg.norm(a - b)), float(np.linalg.norm(a))
    return difference / size if size else difference


def nearest_powers(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """The power of two of each channel, 1 to 2**-MAX_DOUBLINGS, that brings `b` to the size of `a`, in their first pictures.

    Maps are (N, C, H, W), the powers (C, 1, 1).
    """
    a, b = a[:1].astype(np.float64), b[:1].astype(np.float64)
    with np.errstate(over="ignore"):
        sizes_a, sizes_b = (np.sqrt(np.square(maps).sum(axis=(0, 2, 3))) for maps in (a, b))
    there = (sizes_a > 0) & (sizes_b > 0) & np.isfinite(sizes_a) & np.isfinite(sizes_b)
    ratio = np.divide(sizes_b, sizes_a, out=np.ones_like(sizes_a), where=there)
    doublings = np.clip(np.round(np.log2(ratio)), 0, MAX_DOUBLINGS)
    powers: NDArray[np.float64] = (2.0**-doublings)[:, None, None]
    return powers


def _input_error(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
        return None
    return relative_error(a, b)


def _json(found: LayerError) -> dict[str, Any]:
    return {
        "layer": found.layer,
        "name": found.name,
        "error": _finite(found.error),
        "before": _finite(found.before),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
