"""The network of an artifact alone: a picture in, heads out, where asked with a layer of another one in place of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends.host_path import fit_batch, network_of
from yolov3_trt.comparison.layers import LayerProbe, Maps, nearest_powers
from yolov3_trt.detector import Detector
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import ModelMeta, OutputStage, Precision, Preprocess
from yolov3_trt.models import Model
from yolov3_trt.preprocess import Image

Batch = NDArray[Any]
Heads = Mapping[str, NDArray[Any]]  # by the names of outputs
Network = Callable[[Image, Preprocess], tuple[Heads, tuple[Placement, ...]]]


@dataclass(frozen=True, eq=False)
class Side:
    """One of two artifacts that are compared.

    Attributes:
        detector: of it.
        probe: its layers; None where they cannot be looked into.
        model: where it is one.
        turned: whether its network gets the channels of pictures in the other order.
    """

    detector: Detector
    probe: LayerProbe | None
    model: Model | None = None
    turned: bool = False

    @property
    def meta(self) -> ModelMeta:
        """Of the artifact, with what it was opened with."""
        return replace(self.detector.meta, postprocess=self.detector.postprocess)

    def fit(self, pixels: Image, preprocess: Preprocess) -> tuple[Batch, tuple[Placement, ...]]:
        """A picture as the network takes it, fitted in this way, and where it lies in that."""
        seen = np.ascontiguousarray(pixels[:, :, ::-1]) if self.turned else pixels
        return fit_batch([seen], replace(self.detector.meta, preprocess=preprocess))

    def network(self) -> Network | None:
        """What gives its heads; None where only detections come out."""
        if self.probe is not None:
            run = self.probe.runner(self._head_layers)
            return self._network(lambda batch: self._heads(run(batch)))
        backend = network_of(self.detector.backend)
        if backend is None or self.meta.output_stage is not OutputStage.HEADS:
            return None
        return self._network(lambda batch: {name: array.copy() for name, array in backend.infer(batch).items()})

    def with_layer_of(self, other: "Side", layer: int) -> Network:
        """The network, but for one layer that gives what it gives in the other one; the layers of both can be looked into."""
        assert self.probe is not None and other.probe is not None
        own, theirs = self.probe.runner([layer]), other.probe.runner([layer])
        rest = self.probe.runner(self._head_layers, given=layer)

        def network(pixels: Image, preprocess: Preprocess) -> tuple[Heads, tuple[Placement, ...]]:
            batch, placements = self.fit(pixels, preprocess)
            mine, given = own(batch)[layer], theirs(other.fit(pixels, preprocess)[0])[layer]
            if self.meta.precision is Precision.INT8:  # whose channels may be larger by powers of two, see `layers`
                given = given / nearest_powers(given, mine)
            if other.meta.precision is Precision.INT8:
                given = given * nearest_powers(mine, given)
            return self._heads(rest(batch, given.astype(np.float32))), placements

        return network

    def _network(self, heads: Callable[[Batch], Heads]) -> Network:
        def network(pixels: Image, preprocess: Preprocess) -> tuple[Heads, tuple[Placement, ...]]:
            batch, placements = self.fit(pixels, preprocess)
            return heads(batch), placements

        return network

    @property
    def _head_layers(self) -> tuple[int, ...]:
        return tuple(head.layer - 1 for head in self.detector.meta.heads)  # the convolution before it gives its values

    def _heads(self, maps: Maps) -> Heads:
        pairs = zip(self.detector.meta.heads, self._head_layers, strict=True)
        return {head.name: maps[layer].astype(np.float32, copy=False) for head, layer in pairs}
