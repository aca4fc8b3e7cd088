"""A row of a benchmark while it is measured: a way to run an artifact with a batch size, and what is known of it so far."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from yolov3_trt.benchmarking.machine_roofline import MachineRoofline
from yolov3_trt.benchmarking.parity import BASELINE_TOLERANCE, TOLERANCES, Parity
from yolov3_trt.benchmarking.results import RowResult
from yolov3_trt.benchmarking.roofline import RowRoofline, row_roofline
from yolov3_trt.benchmarking.runs import OPENCV, RunSpec
from yolov3_trt.benchmarking.timings import Timings
from yolov3_trt.costs import layer_costs
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.evaluation.accuracy import Accuracy
from yolov3_trt.meta import ModelMeta
from yolov3_trt.preprocess import Image
from yolov3_trt.spec import ModelSpec

_LOG = logging.getLogger(__name__)
_DEVICE_TRIES = 10

Rooflines = Mapping[tuple[str, str], MachineRoofline]  # by device and precision


@runtime_checkable
class DeviceStages(Protocol):
    """A backend that can ask the device's own clock, e.g. CUDA events."""

    def device_stages_ms(self, images: Sequence[Image]) -> Mapping[str, float]:
        """Of one call with these pictures: ms by stage, e.g. copy_in, preprocess, network, postprocess, copy_out."""
        ...


@dataclass
class Row:
    """What is known of one row so far."""

    run: RunSpec
    batch: int
    opened: Detector | None  # None: it does not run
    failed: str | None = None  # why it does not
    found: list[Detections] = field(default_factory=list)  # by picture
    parity: Parity | None = None
    timings: Timings | None = None
    device_stages_ms: dict[str, float] | None = None
    throughput_fps: float | None = None
    power: dict[str, float | None] | None = None
    memory_mib: float | None = None
    accuracy: Accuracy | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The name of the row: that of the run, with `tf32` for an engine that rounds so, and the batch where it is not 1."""
        rounded = " tf32" if self.precision == "tf32" else ""
        return f"{self.run.label}{rounded}" + ("" if self.batch == 1 else f" batch {self.batch}")

    @property
    def detector(self) -> Detector:
        """What runs it; only of rows that run."""
        assert self.opened is not None, f"{self.label} does not run"
        return self.opened

    @property
    def meta(self) -> ModelMeta | None:
        """The artifact's sidecar; None where it did not open."""
        return None if self.opened is None else self.opened.meta

    @property
    def precision(self) -> str | None:
        """Which tolerance and which bytes apply."""
        own = None if self.opened is None else self.opened.arithmetic
        # What a backend is told to compute in is what it does where a graph is not INT8.
        return own if own == "int8" else self.run.precision or own

    @property
    def runs(self) -> bool:
        """Whether it has not failed."""
        return self.failed is None

    def fail(self, reason: str) -> None:
        """Take it out of what is still to be done."""
        _LOG.warning("%s does not run: %s", self.label, reason)
        self.opened, self.failed = None, reason

    def hold_to(self, reference: "Row") -> None:
        """Compare what it found with what the reference found in the same pictures."""
        tolerance = BASELINE_TOLERANCE if self.run.backend == OPENCV else TOLERANCES[self.precision or "fp32"]
        self.parity = Parity(reference.label, tolerance)
        conf = reference.detector.postprocess.conf
        for expected, got in zip(reference.found, self.found, strict=True):
            self.parity.add(expected, got, conf)
        note = settings_note(self.detector, reference.detector)
        self.notes += [] if note is None else [note]

    def result(self, reference: "Row | None", spec: ModelSpec | None, rooflines: Rooflines, shown: int) -> RowResult:
        """What it came to.

        Args:
            reference: what its speed is compared with.
            spec: its network, where that is known.
            rooflines: of the machine.
            shown: of so many pictures the detections are kept.
        """
        base = None if reference is None else reference.timings
        return RowResult(
            label=self.label,
            artifact=self.run.artifact,
            backend=self.run.backend,
            precision=self.precision,
            device=self.run.device,
            batch=self.batch,
            input_hw=None if self.meta is None else self.meta.input_hw,
            size_bytes=self.run.size_bytes,
            timings=None if self.timings is None else self.timings.figures(base),
            device_stages_ms=self.device_stages_ms,
            throughput_fps=self.throughput_fps,
            parity=self.parity,
            accuracy=self.accuracy,
            roofline=self._roofline(spec, rooflines),
            memory_mib=self.memory_mib,
            gpu=self.power,
            fallbacks=(*(() if self.opened is None else self.opened.backend.fallbacks), *self.notes),
            failed=self.failed,
            found=tuple(self.found[:shown]),
        )

    def _roofline(self, spec: ModelSpec | None, rooflines: Rooflines) -> RowRoofline | None:
        """By the device's own clock where it has one, else by the host's."""
        device, precision = self.run.device, self.precision or "fp32"
        machine = rooflines.get((device or "", "fp32" if device == "cpu" else precision))
        if spec is None or machine is None or self.timings is None:
            return None
        network_ms = (self.device_stages_ms or {}).get("network", self.timings.stages_ms["inference"])
        return row_roofline(layer_costs(spec), precision, self.batch, network_ms, machine)


def rows_of(run: RunSpec, detector: Detector, batches: Sequence[int], memory_mib: float | None) -> Iterator[Row]:
    """A row per batch size, all on one detector; one that the artifact does not take has failed."""
    limits = detector.meta.batch
    for batch in batches:
        if limits.min <= batch <= limits.max:
            yield Row(run, batch, detector, memory_mib=memory_mib)
        else:
            yield Row(run, batch, None, f"it takes batches of {limits}, not {batch}")


def median_stages(backend: DeviceStages, pictures: Sequence[Image]) -> dict[str, float]:
    """Medians over some calls, ms by stage."""
    calls = [backend.device_stages_ms(pictures) for _ in range(_DEVICE_TRIES)]
    return {stage: float(np.median([call[stage] for call in calls])) for stage in calls[0]}


def settings_note(own: Detector, reference: Detector) -> str | None:
    """What two detectors are told differently, so that they cannot find the same; None where that is nothing."""
    settings: list[tuple[str, Any, Any]] = [
        ("conf", own.postprocess.conf, reference.postprocess.conf),
        ("iou", own.postprocess.iou, reference.postprocess.iou),
        ("nms", own.postprocess.nms.kind.value, reference.postprocess.nms.kind.value),
        ("resize", own.meta.preprocess.resize.value, reference.meta.preprocess.resize.value),
    ]
    differing = [f"{name} {value} (the reference: {other})" for name, value, other in settings if value != other]
    return f"it is set to {', '.join(differing)}: give all rows the same" if differing else None
