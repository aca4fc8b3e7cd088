"""A whole benchmark: open what is wanted, hold it to the reference, time it in turn, and say what it came to."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from yolov3_trt.backends import BackendName
from yolov3_trt.benchmark.ceiling import Ceiling, measure_ceiling
from yolov3_trt.benchmark.entrants import (
    CANNOT_RUN,
    Candidate,
    Entrant,
    Wanted,
    candidates,
    implied_reference,
    specs_by_layers,
    with_batches,
)
from yolov3_trt.benchmark.frames import Frames
from yolov3_trt.benchmark.latency import measure, rounds_for, throughput_fps
from yolov3_trt.benchmark.machine import resident_mib
from yolov3_trt.benchmark.outcomes import DeviceStages, Outcome, median_stages, parity_of, row_json, settings_note
from yolov3_trt.benchmark.power import PowerReader, Sampler
from yolov3_trt.benchmark.roofline import layer_table
from yolov3_trt.costs import layer_costs
from yolov3_trt.errors import BackendError, MissingDependency
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

    def __init__(self, wanted: Wanted, reporter: Reporter = SILENT) -> None:
        self.wanted, self.reporter = wanted, reporter
        self.outcomes: list[Outcome] = []
        self.reference: Outcome | None = None
        self.ceilings: dict[tuple[str, str], Ceiling] = {}  # by device and precision
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
        todo = candidates(self.wanted)
        self._specs = specs_by_layers([found.model for found in todo if found.model is not None])
        for candidate in todo:
            self.outcomes += self._open(candidate)
        running = self._need_one()
        if reference is None and not any(_is_reference(outcome.entrant.candidate) for outcome in running):
            metas = [outcome.entrant.meta for outcome in running]
            implied = implied_reference([meta for meta in metas if meta is not None], self.wanted)
            if implied is not None:
                self.reporter.say(
                    f"{implied.label}: PyTorch on the weights that the artifacts were made from, as reference"
                )
                self.outcomes = [*self._open(implied), *self.outcomes]
        self.reference = self._choose(reference)

    def check(self, frames: Frames) -> None:
        """Run everything on every picture, and hold it to what the reference finds."""
        ordered = sorted(self.outcomes, key=lambda outcome: outcome is not self.reference)
        for outcome in self.reporter.track(ordered, "checking", len(ordered)):
            if outcome.runs:
                self._look(outcome, frames.pictures)
        self._need_one()
        if self.reference is None or not self.reference.runs:
            self.reference = None
            return
        for outcome in self.outcomes:
            if outcome.runs and outcome is not self.reference:
                outcome.parity = parity_of(outcome.entrant, outcome.found, self.reference)
                note = settings_note(outcome.detector, self.reference.detector)
                outcome.notes += [] if note is None else [note]

    def time(self, frames: Frames, schedule: Schedule) -> None:
        """Time all rows in interleaved rounds, then each by the device's own clock, where it has one."""
        running = {outcome.label: outcome for outcome in self.outcomes if outcome.runs}

        def progress(rounds: Iterable[Any]) -> Iterable[Any]:
            return self.reporter.track(rounds, "timing", schedule.rounds) if schedule.duration_s is None else rounds

        if schedule.duration_s is not None:
            self.reporter.say(f"timing: {schedule.duration_s:g} s ...")
        timings = measure(
            {label: outcome.detector for label, outcome in running.items()},
            frames.pictures,
            rounds=schedule.iterate(),
            warmup=schedule.warmup,
            batches={label: outcome.entrant.batch for label, outcome in running.items()},
            progress=progress,
        )
        for label, outcome in running.items():
            outcome.timings = timings[label]
            backend = outcome.detector.backend
            if isinstance(backend, DeviceStages):
                pictures = _batch_of(frames.pictures, outcome.entrant.batch)
                outcome.device_stages_ms = median_stages(backend, pictures)

    def sustain(self, frames: Frames, reader: PowerReader | None) -> None:
        """Run rows alone for a while: those that overlap calls for throughput, those on a GPU for power and clocks."""
        for outcome in self.outcomes:
            on_gpu = reader is not None and outcome.entrant.candidate.device == "cuda"
            if not outcome.runs or not (on_gpu or outcome.detector.num_slots > 1):
                continue
            self.reporter.say(f"{outcome.label}: {_SUSTAINED_S:g} s without a pause ...")
            with ExitStack() as stack:
                sampler = stack.enter_context(Sampler(reader)) if on_gpu and reader is not None else None
                batch = outcome.entrant.batch
                outcome.throughput_fps = throughput_fps(outcome.detector, frames.pictures, batch, _SUSTAINED_S)
            outcome.power = None if sampler is None else sampler.mean

    def score(self, evaluate: Callable[[Any], dict[str, Any]], conf: float) -> None:
        """Accuracy of each way to run an artifact; rows that differ in the batch alone share it.

        Args:
            evaluate: a detector -> its metrics.
            conf: at which they are opened for that.
        """
        known: dict[int, dict[str, Any]] = {}
        for outcome in self.outcomes:
            candidate = outcome.entrant.candidate
            if not outcome.runs:
                continue
            try:
                if id(candidate) not in known:
                    self.reporter.say(f"{candidate.label}: accuracy ...")
                    detector = candidate.open(replace(self.wanted.detect, conf=conf))
                    try:
                        known[id(candidate)] = evaluate(detector)
                    finally:
                        detector.close()
                outcome.accuracy = known[id(candidate)]
            except CANNOT_RUN as exc:
                outcome.notes.append(f"accuracy not measured: {exc}")

    def measure_ceilings(self) -> None:
        """What the devices of the rows can do at most, in the rows' precisions."""
        wanted = {
            (device, "fp32" if device == "cpu" else outcome.entrant.precision or "fp32")
            for outcome in self.outcomes
            if outcome.runs and (device := outcome.entrant.candidate.device) is not None
        }
        for device, precision in sorted(wanted):
            self.reporter.say(f"the ceiling of the {device} in {precision} ...")
            try:
                self.ceilings[device, precision] = measure_ceiling(device, precision, self.wanted.threads)
            except MissingDependency as exc:
                self.reporter.say(f"no ceiling of the {device}: {exc}")

    def rows(self) -> list[dict[str, Any]]:
        """All rows as `bench --json` writes them."""
        return [row_json(found, self.reference, self.spec_of(found.entrant), self.ceilings) for found in self.outcomes]

    def layers(self) -> list[dict[str, Any]]:
        """Every network among the rows, layer by layer, against the ceiling of the first device in FP32."""
        ceiling = next((found for (_, precision), found in self.ceilings.items() if precision == "fp32"), None)
        specs = [spec for outcome in self.outcomes if (spec := self.spec_of(outcome.entrant)) is not None]
        different = {(spec.layers_sha256, spec.input_hw): spec for spec in specs}
        return [
            {"model": spec.name, "input_hw": list(spec.input_hw), "layers": layer_table(layer_costs(spec), ceiling)}
            for spec in different.values()
        ]

    @property
    def faults(self) -> list[str]:
        """What makes the whole a failure: rows that differ from the reference, artifacts of which no row runs here."""
        run = {outcome.entrant.candidate.artifact for outcome in self.outcomes if outcome.runs}
        faults = []
        for outcome in self.outcomes:
            candidate = outcome.entrant.candidate
            if not outcome.runs and candidate.named and candidate.artifact not in run:
                faults.append(f"{outcome.label} does not run here: {outcome.entrant.failed}")
            elif outcome.parity is not None and outcome.parity.faults:
                faults.append(
                    f"{outcome.label} differs from {outcome.parity.reference}: {'; '.join(outcome.parity.faults)}"
                )
        return faults

    def spec_of(self, entrant: Entrant) -> ModelSpec | None:
        """The network of a row, at its input size; None where its layers are those of no model at hand."""
        meta = entrant.meta
        spec = None if meta is None or meta.layers_sha256 is None else self._specs.get(meta.layers_sha256)
        return None if spec is None or meta is None else spec.with_input_hw(meta.input_hw)

    def _open(self, candidate: Candidate) -> list[Outcome]:
        self.reporter.say(f"opening {candidate.label} ...")
        before = resident_mib()
        try:
            detector = candidate.open(self.wanted.detect)
        except CANNOT_RUN as exc:
            outcomes = [Outcome(Entrant(candidate.label, candidate, self.wanted.batches[0]))]
            outcomes[0].fail(" ".join(str(exc).split()))
            return outcomes
        self._stack.callback(detector.close)
        after = resident_mib()
        grown = None if before is None or after is None else max(0.0, after - before)
        opened = with_batches(candidate, detector, self.wanted.batches)
        return [Outcome(entrant, memory_mib=grown) for entrant in opened]

    def _look(self, outcome: Outcome, pictures: Sequence[Image]) -> None:
        batch = outcome.entrant.batch
        before = resident_mib()
        try:
            for start in range(0, len(pictures), batch):
                # The last ones are filled up: a batch of another size is another program to some backends.
                taken = [pictures[(start + k) % len(pictures)] for k in range(batch)]
                outcome.found += outcome.detector.timed(taken).detections
        except CANNOT_RUN as exc:
            outcome.fail(" ".join(str(exc).split()))
            return
        del outcome.found[len(pictures) :]
        after = resident_mib()
        if outcome.memory_mib is not None and before is not None and after is not None:
            outcome.memory_mib += max(0.0, after - before)

    def _need_one(self) -> list[Outcome]:
        running = [outcome for outcome in self.outcomes if outcome.runs]
        if not running:
            reasons = "; ".join(f"{outcome.label}: {outcome.entrant.failed}" for outcome in self.outcomes)
            raise BackendError(f"nothing runs here: {reasons}")
        return running

    def _choose(self, wanted: str | None) -> Outcome | None:
        running = [outcome for outcome in self.outcomes if outcome.runs]
        if wanted == "none":
            return None
        if wanted is None:
            return next((outcome for outcome in running if _is_reference(outcome.entrant.candidate)), None)
        for outcome in running:
            candidate = outcome.entrant.candidate
            if wanted in (outcome.label, candidate.artifact, candidate.backend):
                return outcome
        known = ", ".join(outcome.label for outcome in running)
        raise BackendError(f"--reference {wanted}: no such row runs here; expected one of {known}, or none")


def _is_reference(candidate: Candidate) -> bool:
    return (
        candidate.backend == BackendName.TORCH.value and candidate.precision == "fp32" and candidate.model is not None
    )


def _batch_of(pictures: Sequence[Image], batch: int) -> list[Image]:
    return [pictures[k % len(pictures)] for k in range(batch)]
