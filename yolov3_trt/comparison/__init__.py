"""Parity of two artifacts on the same pictures: how far their heads are apart, and which detections they share."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends.host_path import fit_batch, network_of
from yolov3_trt.comparison.heads import HeadDifference
from yolov3_trt.data.images import NamedImage
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError
from yolov3_trt.matching import MATCH_IOU, MatchedPairs, match
from yolov3_trt.meta import OutputStage, Postprocess
from yolov3_trt.postprocess import detections_from_outputs

__all__ = ["MATCH_IOU", "Comparison", "HeadDifference", "compare_detectors", "match"]

_HEAD_FIGURES = ("max_abs", "mean_abs", "cosine", "relative", "snr_db")


@dataclass
class Comparison:
    """Two artifacts, A and B, over all pictures."""

    heads: dict[str, HeadDifference] = field(default_factory=dict)  # empty unless both give heads
    pairs: MatchedPairs = field(default_factory=MatchedPairs)
    # What A and B find from a low confidence on, by picture, where that was asked for and both give heads.
    low: tuple[list[Detections], list[Detections]] = field(default_factory=lambda: ([], []))

    def to_json(self) -> dict[str, Any]:
        """As `compare --json` writes it; None for what is not finite."""
        return {
            "images": self.pairs.images,
            "heads": {
                name: {key: _finite(getattr(head, key)) for key in _HEAD_FIGURES} for name, head in self.heads.items()
            },
            "detections": {
                "a": self.pairs.detections_a,
                "b": self.pairs.detections_b,
                "matched": self.pairs.matched,
                "max_score_difference": self.pairs.max_score_difference,
                "min_iou": self.pairs.min_iou,
            },
        }


def compare_detectors(
    a: Detector, b: Detector, images: Iterable[NamedImage], low_conf: float | None = None
) -> Comparison:
    """Run both on the same pictures; with `low_conf` what they find from that confidence on is kept as well.

    Raises:
        BackendError: they are of different networks.
    """
    if a.meta.input_hw != b.meta.input_hw or a.meta.num_classes != b.meta.num_classes:
        raise BackendError(
            f"{a.meta.name} takes {a.meta.input_hw} and knows {a.meta.num_classes} classes, {b.meta.name} "
            f"{b.meta.input_hw} and {b.meta.num_classes}; expected two artifacts of one network"
        )
    if _grids(a) != _grids(b):
        raise BackendError(
            f"{a.meta.name} and {b.meta.name} have heads of different shapes ({_grids(a)}; {_grids(b)}); expected two "
            "artifacts of one network"
        )
    result = Comparison()
    both_heads = all(
        network_of(one.backend) is not None and one.meta.output_stage is OutputStage.HEADS for one in (a, b)
    )
    low_conf = low_conf if both_heads else None
    for image in images:
        found_a, low_a, outputs_a = _run(a, image, low_conf)
        found_b, low_b, outputs_b = _run(b, image, low_conf)
        if low_a is not None and low_b is not None:
            result.low[0].append(low_a)
            result.low[1].append(low_b)
        if both_heads:
            for name in a.meta.output_names:
                result.heads.setdefault(name, HeadDifference()).add(outputs_a[name], outputs_b[name])
        result.pairs.add(found_a, found_b)
    return result


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _grids(detector: Detector) -> str:
    return ", ".join("{}x{}x{}".format(head.channels, *head.grid_hw) for head in detector.meta.heads)


def _run(
    detector: Detector, image: NamedImage, low_conf: float | None
) -> tuple[Detections, Detections | None, dict[str, NDArray[Any]]]:
    """The same fitting by the host for both where they let one look at the network; else what the detector finds."""
    network = network_of(detector.backend)
    if network is None:
        return detector(image.pixels), None, {}
    batch, placements = fit_batch([image.pixels], detector.meta)
    outputs = {name: array[:1].copy() for name, array in network.infer(batch).items()}

    def found(settings: Postprocess) -> Detections:
        return detections_from_outputs(outputs, detector.meta, settings, placements)[0]

    low = None if low_conf is None else found(replace(detector.postprocess, conf=low_conf))
    return found(detector.postprocess), low, outputs
