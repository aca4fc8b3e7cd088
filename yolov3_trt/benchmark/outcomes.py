"""What was found out of one row, and how `bench --json` says it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from yolov3_trt.benchmark.ceiling import Ceiling
from yolov3_trt.benchmark.entrants import OPENCV, Entrant
from yolov3_trt.benchmark.parity import PEER_TOLERANCE, TOLERANCES, Parity
from yolov3_trt.benchmark.roofline import row_roofline
from yolov3_trt.benchmark.timings import Timings
from yolov3_trt.costs import layer_costs
from yolov3_trt.detections import Detections
from yolov3_trt.preprocess import Image
from yolov3_trt.spec import ModelSpec

_LOG = logging.getLogger(__name__)
_DEVICE_TRIES = 10


@runtime_checkable
class DeviceStages(Protocol):
    """A backend that can ask the device's own clock, e.g. CUDA events."""

    def device_stages_ms(self, images: Sequence[Image]) -> Mapping[str, float]:
        """Of one call with these pictures: ms by stage, e.g. copy_in, preprocess, network, postprocess, copy_out."""
        ...


@dataclass
class Outcome:
    """What was found out of one row."""

    entrant: Entrant
    found: list[Detections] = field(default_factory=list)  # by picture
    parity: Parity | None = None
    timings: Timings | None = None
    device_stages_ms: dict[str, float] | None = None
    throughput_fps: float | None = None
    power: dict[str, float | None] | None = None
    memory_mib: float | None = None
    accuracy: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Of the row."""
        return self.entrant.label

    @property
    def detector(self) -> Any:
        """A `Detector`; only of rows that run."""
        return self.entrant.detector

    @property
    def runs(self) -> bool:
        """Whether it has not failed."""
        return self.entrant.failed is None

    def fail(self, reason: str) -> None:
        """Take it out of what is still to be done."""
        _LOG.warning("%s does not run: %s", self.label, reason)
        self.entrant = self.entrant.without(reason)


def row_json(
    outcome: Outcome, reference: Outcome | None, spec: ModelSpec | None, ceilings: Mapping[tuple[str, str], Ceiling]
) -> dict[str, Any]:
    """A row; null for what was not measured or does not apply."""
    entrant, candidate = outcome.entrant, outcome.entrant.candidate
    timings, meta = outcome.timings, entrant.meta
    base = None if reference is None else reference.timings
    power = outcome.power or {}
    return {
        "label": outcome.label,
        "artifact": candidate.artifact,
        "backend": candidate.backend,
        "precision": entrant.precision,
        "device": candidate.device,
        "batch": entrant.batch,
        "input_hw": None if meta is None else list(meta.input_hw),
        "size_bytes": candidate.size_bytes,
        **(dict.fromkeys(_TIMED) if timings is None else timings.to_json(base)),
        "device_stages_ms": outcome.device_stages_ms,
        "throughput_fps": outcome.throughput_fps,
        "parity": None if outcome.parity is None else outcome.parity.to_json(),
        "accuracy": outcome.accuracy,
        "roofline": _roofline(outcome, spec, ceilings),
        "memory_mib": outcome.memory_mib,
        "power_w": power.get("power_w"),
        "gpu": outcome.power,
        "fallbacks": [*entrant.fallbacks, *outcome.notes],
        "failed": entrant.failed,
    }


_TIMED = tuple(Timings(wall_s=[1.0], cpu_s=[1.0], stages_s={}).to_json(None))


def _roofline(
    outcome: Outcome, spec: ModelSpec | None, ceilings: Mapping[tuple[str, str], Ceiling]
) -> dict[str, Any] | None:
    """By the device's own clock where it has one, else by the host's."""
    device, precision = outcome.entrant.candidate.device, outcome.entrant.precision or "fp32"
    ceiling = ceilings.get((device or "", "fp32" if device == "cpu" else precision))
    if spec is None or ceiling is None or outcome.timings is None:
        return None
    network_ms = (outcome.device_stages_ms or {}).get("network", outcome.timings.stages_ms["inference"])
    return row_roofline(layer_costs(spec), precision, outcome.entrant.batch, network_ms, ceiling)


def parity_of(entrant: Entrant, found: Sequence[Detections], reference: Outcome) -> Parity:
    """Of what a row found with what the reference found in the same pictures."""
    candidate = entrant.candidate
    tolerance = PEER_TOLERANCE if candidate.backend == OPENCV else TOLERANCES[entrant.precision or "fp32"]
    parity = Parity(reference.label, tolerance)
    conf = reference.detector.postprocess.conf
    for expected, got in zip(reference.found, found, strict=True):
        parity.add(expected, got, conf)
    return parity


def median_stages(backend: DeviceStages, pictures: Sequence[Image]) -> dict[str, float]:
    """Medians over some calls, ms by stage."""
    calls = [backend.device_stages_ms(pictures) for _ in range(_DEVICE_TRIES)]
    return {stage: float(np.median([call[stage] for call in calls])) for stage in calls[0]}


def settings_note(own: Any, reference: Any) -> str | None:
    """What two detectors are told differently, so that they cannot find the same; None where that is nothing."""
    settings = [
        ("--conf", own.postprocess.conf, reference.postprocess.conf),
        ("--iou", own.postprocess.iou, reference.postprocess.iou),
        ("--nms", own.postprocess.nms.kind.value, reference.postprocess.nms.kind.value),
        ("--resize", own.meta.preprocess.resize.value, reference.meta.preprocess.resize.value),
    ]
    differing = [f"{option} {value} (the reference: {other})" for option, value, other in settings if value != other]
    return f"it is set to {', '.join(differing)}: give all rows the same" if differing else None
