"""What a benchmark came to: a row for each way to run an artifact, and what the figures are read against."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from yolov3_trt.benchmarking.machine_roofline import MachineRoofline
from yolov3_trt.benchmarking.parity import Parity
from yolov3_trt.benchmarking.roofline import NetworkFigures, RowRoofline
from yolov3_trt.benchmarking.timings import TimingFigures
from yolov3_trt.data.images import NamedImage
from yolov3_trt.detections import Detections
from yolov3_trt.evaluation.accuracy import Accuracy
from yolov3_trt.geometry import HW


@dataclass(frozen=True, eq=False)
class RowResult:
    """A way to run an artifact with a batch size; None for what was not measured or does not apply."""

    label: str
    artifact: str
    backend: str
    precision: str | None
    device: str | None  # "cpu" or "cuda"; None for a server's
    batch: int
    input_hw: HW | None
    size_bytes: int | None  # of the file
    timings: TimingFigures | None = None
    device_stages_ms: Mapping[str, float] | None = None  # by the device's own clock
    throughput_fps: float | None = None  # pictures per second with all slots busy
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    roofline: RowRoofline | None = None
    memory_mib: float | None = None  # that the process grew by
    gpu: Mapping[str, float | None] | None = None  # power and clocks while it ran alone; see `power.Reading`
    fallbacks: tuple[str, ...] = ()  # what it does in a lesser way than it could, each with the reason
    failed: str | None = None  # why it does not run
    found: tuple[Detections, ...] = ()  # in the first pictures

    @property
    def power_w(self) -> float | None:
        """Mean power of the GPU while it ran alone, W."""
        return None if self.gpu is None else self.gpu.get("power_w")

    @property
    def bad(self) -> bool:
        """Whether its figures must not be taken for those of the reference's results."""
        return self.failed is not None or (self.parity is not None and not self.parity.passed)

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        plain = ("label", "artifact", "backend", "precision", "device", "batch", "input_hw", "size_bytes")
        timed = (
            dict.fromkeys(item.name for item in fields(TimingFigures))
            if self.timings is None
            else self.timings.to_json()
        )
        parts = {"parity": self.parity, "accuracy": self.accuracy, "roofline": self.roofline}
        rest = ("device_stages_ms", "throughput_fps", "memory_mib", "power_w", "gpu", "failed")
        return {
            **{name: getattr(self, name) for name in plain},
            **timed,
            **{name: None if part is None else part.to_json() for name, part in parts.items()},
            **{name: getattr(self, name) for name in rest},
            "fallbacks": list(self.fallbacks),
        }


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """A whole benchmark."""

    rows: tuple[RowResult, ...]
    reference: str | None  # label of the row that the others are held to
    faults: tuple[str, ...]  # rows that differ from the reference, artifacts that do not run here; none: it passed
    layers: tuple[NetworkFigures, ...]  # every network among the rows
    machine: Mapping[str, Any]  # what it was measured on; see `machine.machine`
    rooflines: tuple[MachineRoofline, ...]  # of each device and precision among the rows; none where not measured
    source: str  # where the pictures come from
    num_pictures: int
    rounds: int  # timed calls of a row
    warmup: int  # calls before those
    threads: int | None
    timer_overhead_us: float  # of one reading of the clock
    decode_ms: float | None  # reading a picture, median; None where none was read
    draw_ms: float  # drawing what the first row found, median
    peak_rss_mib: float | None
    annotations: str | None = None  # that accuracy was measured with
    shown: tuple[NamedImage, ...] = ()  # the first pictures, which each row's `found` belongs to

    @property
    def passed(self) -> bool:
        """Whether every row finds what the reference finds, and every artifact runs here."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """As `bench --json` writes it."""
        names = ("machine", "threads", "source", "rounds", "warmup", "reference", "timer_overhead_us", "peak_rss_mib")
        return {
            **{name: getattr(self, name) for name in names},
            "pictures": self.num_pictures,
            "frames": self.rounds,
            "host_ms": {"decode": self.decode_ms, "draw": self.draw_ms},
            "rooflines": [one.to_json() for one in self.rooflines],
            **({} if self.annotations is None else {"annotations": self.annotations}),
            "rows": [row.to_json() for row in self.rows],
            "layers": [network.to_json() for network in self.layers],
            "faults": list(self.faults),
        }
