"""The steps of a benchmark: open what is asked for, hold it to the reference, time it in turn, and say what it came to."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from yolov3_trt.backends import BackendName
from yolov3_trt.benchmarking.frames import Frames
from yolov3_trt.benchmarking.latency import measure, rounds_for, throughput_fps
from yolov3_trt.benchmarking.machine import resident_mib
from yolov3_trt.benchmarking.machine_roofline import MachineRoofline, measure_roofline
from yolov3_trt.benchmarking.power import PowerReader, Sampler
from yolov3_trt.benchmarking.results import RowResult
from yolov3_trt.benchmarking.roofline import NetworkFigures, network_figures
from yolov3_trt.benchmarking.rows import DeviceStages, Row, median_stages, rows_of
from yolov3_trt.benchmarking.runs import (
    CANNOT_RUN,
    BenchmarkConfig,
    RunSpec,
    implied_reference,
    run_specs,
    specs_by_layers,
)
from yolov3_trt.costs import layer_costs
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError, MissingDependency
from yolov3_trt.evaluation.accuracy import Accuracy
from yolov3_trt.preprocess import Image
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.spec import ModelSpec

_SUSTAINED_S = 2.0  # of the phases in which a row runs alone: throughput, power


@dataclass(frozen=True)
class Schedule:
    """How long and how often."""

    rounds: int = 50
    warmup: int = 5
    duration_s: float | None = None  # in place of `rounds`

    def iterate(self) -> int | Iterable[int]:
        """For `measure`."""
        return self.rounds if self.duration_s is None else rounds_for(self.duration_s)


class Benchmark:
    """The rows of a benchmark, from opening to closing; the steps are called in the order they are written in.

    Usable once, as a context manager, on one thread.
    """

    def __init__(self, config: BenchmarkConfig, reporter: Reporter = SILENT) -> None:
        self.config, self.reporter = config, reporter
        self.rows: list[Row] = []
        self.reference: Row | None = None
        self.rooflines: dict[tuple[str, str], MachineRoofline] = {}  # by device and precision
        self._stack = ExitStack()
        self._specs: dict[str, ModelSpec] = {}

    def __enter__(self) -> "Benchmark":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, reference: str | None = None) -> None:
        """Open everything; what cannot run here becomes a row with the reason.

        Args:
            reference: label, artifact or backend of the reference, or `none`; by default PyTorch in FP32.

        Raises:
            BackendError: nothing runs, or no row is the reference asked for.
            Yolov3TrtError: an artifact cannot be read.
        """
        runs = run_specs(self.config)
        self._specs = specs_by_layers([run.model for run in runs if run.model is not None])
        for run in runs:
            self.rows += self._open(run)
        running = self._need_one()
        if reference is None and not any(_is_reference(row.run) for row in running):
            implied = implied_reference([row.detector.meta for row in running], self.config)
            if implied is not None:
                self.reporter.say(
                    f"{implied.label}: PyTorch on the weights that the artifacts were made from, as reference"
                )
                self.rows = [*self._open(implied), *self.rows]
        self.reference = self._choose(reference)

    def check(self, frames: Frames) -> None:
        """Run everything on every picture, and hold it to what the reference finds."""
        ordered = sorted(self.rows, key=lambda row: row is not self.reference)
        for row in self.reporter.track(ordered, "checking", len(ordered)):
            if row.runs:
                self._look(row, frames.pictures)
        self._need_one()
        if self.reference is None or not self.reference.runs:
            self.reference = None
            return
        for row in self.rows:
            if row.runs and row is not self.reference:
                row.hold_to(self.reference)

    def time(self, frames: Frames, schedule: Schedule) -> None:
        """Time all rows in interleaved rounds, then each by the device's own clock, where it has one."""
        running = {row.label: row for row in self.rows if row.runs}

        def progress(rounds: Iterable[Any]) -> Iterable[Any]:
            return self.reporter.track(rounds, "timing", schedule.rounds) if schedule.duration_s is None else rounds

        if schedule.duration_s is not None:
            self.reporter.say(f"timing: {schedule.duration_s:g} s ...")
        timings = measure(
            {label: row.detector for label, row in running.items()},
            frames.pictures,
            rounds=schedule.iterate(),
            warmup=schedule.warmup,
            batches={label: row.batch for label, row in running.items()},
            progress=progress,
        )
        for label, row in running.items():
            row.timings = timings[label]
            backend = row.detector.backend
            if isinstance(backend, DeviceStages):
                row.device_stages_ms = median_stages(backend, _batch_of(frames.pictures, row.batch))

    def sustain(self, frames: Frames, reader: PowerReader | None) -> None:
        """Run rows alone for a while: those that overlap calls for throughput, those on a GPU for power and clocks."""
        for row in self.rows:
            on_gpu = reader is not None and row.run.device == "cuda"
            if not row.runs or not (on_gpu or row.detector.num_slots > 1):
                continue
            self.reporter.say(f"{row.label}: {_SUSTAINED_S:g} s without a pause ...")
            with ExitStack() as stack:
                sampler = stack.enter_context(Sampler(reader)) if on_gpu and reader is not None else None
                row.throughput_fps = throughput_fps(row.detector, frames.pictures, row.batch, _SUSTAINED_S)
            row.power = None if sampler is None else sampler.mean

    def score(self, evaluate: Callable[[Detector], Accuracy], conf: float) -> None:
        """Accuracy of each way to run an artifact; rows that differ in the batch alone share it.

        Args:
            evaluate: measures a detector.
            conf: at which they are opened for that.
        """
        known: dict[int, Accuracy] = {}
        for row in self.rows:
            if not row.runs:
                continue
            try:
                if id(row.run) not in known:
                    self.reporter.say(f"{row.run.label}: accuracy ...")
                    with row.run.open(replace(self.config.detect, conf=conf)) as detector:
                        known[id(row.run)] = evaluate(detector)
                row.accuracy = known[id(row.run)]
            except CANNOT_RUN as exc:
                row.notes.append(f"accuracy not measured: {exc}")

    def measure_rooflines(self) -> None:
        """What the devices of the rows can do at most, in the rows' precisions."""
        pairs = {
            (row.run.device, "fp32" if row.run.device == "cpu" else row.precision or "fp32")
            for row in self.rows
            if row.runs and row.run.device is not None
        }
        for device, precision in sorted(pairs):
            self.reporter.say(f"the roofline of the {device} in {precision} ...")
            try:
                self.rooflines[device, precision] = measure_roofline(device, precision, self.config.threads)
            except MissingDependency as exc:
                self.reporter.say(f"no roofline of the {device}: {exc}")

    def results(self, shown: int = 0) -> tuple[RowResult, ...]:
        """All rows; of the first `shown` pictures they keep what was found."""
        return tuple(row.result(self.reference, self.spec_of(row), self.rooflines, shown) for row in self.rows)

    def networks(self) -> tuple[NetworkFigures, ...]:
        """Every network among the rows, layer by layer, against the roofline of the first device in FP32."""
        machine = next((found for (_, precision), found in self.rooflines.items() if precision == "fp32"), None)
        specs = [spec for row in self.rows if (spec := self.spec_of(row)) is not None]
        different = {(spec.layers_sha256, spec.input_hw): spec for spec in specs}
        return tuple(network_figures(spec, layer_costs(spec), machine) for spec in different.values())

    @property
    def faults(self) -> tuple[str, ...]:
        """What makes the whole a failure: rows that differ from the reference, artifacts of which no row runs here."""
        run = {row.run.artifact for row in self.rows if row.runs}
        faults = []
        for row in self.rows:
            if not row.runs and row.run.named and row.run.artifact not in run:
                faults.append(f"{row.label} does not run here: {row.failed}")
            elif row.parity is not None and not row.parity.passed:
                faults.append(f"{row.label} differs from {row.parity.reference}: {'; '.join(row.parity.faults)}")
        return tuple(faults)

    def spec_of(self, row: Row) -> ModelSpec | None:
        """The network of a row, at its input size; None where its layers are those of no model at hand."""
        meta = row.meta
        spec = None if meta is None or meta.layers_sha256 is None else self._specs.get(meta.layers_sha256)
        return None if spec is None or meta is None else spec.with_input_hw(meta.input_hw)

    def _open(self, run: RunSpec) -> list[Row]:
        self.reporter.say(f"opening {run.label} ...")
        before = resident_mib()
        try:
            detector = run.open(self.config.detect)
        except CANNOT_RUN as exc:
            row = Row(run, self.config.batches[0], None)
            row.fail(" ".join(str(exc).split()))
            return [row]
        self._stack.callback(detector.close)
        after = resident_mib()
        grown = None if before is None or after is None else max(0.0, after - before)
        return list(rows_of(run, detector, self.config.batches, grown))

    def _look(self, row: Row, pictures: Sequence[Image]) -> None:
        before = resident_mib()
        try:
            for start in range(0, len(pictures), row.batch):
                # The last ones are filled up: a batch of another size is another program to some backends.
                taken = [pictures[(start + k) % len(pictures)] for k in range(row.batch)]
                row.found += row.detector.timed(taken).detections
        except CANNOT_RUN as exc:
            row.fail(" ".join(str(exc).split()))
            return
        del row.found[len(pictures) :]
        after = resident_mib()
        if row.memory_mib is not None and before is not None and after is not None:
            row.memory_mib += max(0.0, after - before)

    def _need_one(self) -> list[Row]:
        running = [row for row in self.rows if row.runs]
        if not running:
            reasons = "; ".join(f"{row.label}: {row.failed}" for row in self.rows)
            raise BackendError(f"nothing runs here: {reasons}")
        return running

    def _choose(self, name: str | None) -> Row | None:
        running = [row for row in self.rows if row.runs]
        if name == "none":
            return None
        if name is None:
            return next((row for row in running if _is_reference(row.run)), None)
        for row in running:
            if name in (row.label, row.run.artifact, row.run.backend):
                return row
        known = ", ".join(row.label for row in running)
        raise BackendError(f"reference {name}: no such row runs here; expected one of {known}, or none")


def _is_reference(run: RunSpec) -> bool:
    return run.backend == BackendName.TORCH.value and run.precision == "fp32" and run.model is not None


def _batch_of(pictures: Sequence[Image], batch: int) -> list[Image]:
    return [pictures[k % len(pictures)] for k in range(batch)]
