"""A benchmark of simulated detectors: device clocks, throughput, power, failures, and how a row says it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fakes import FakeBackend, TwoSlots, grey_pictures
from yolov3_trt.backends.host_path import HostPath
from yolov3_trt.benchmarking.frames import Frames
from yolov3_trt.benchmarking.latency import rounds_for
from yolov3_trt.benchmarking.machine_roofline import MachineRoofline
from yolov3_trt.benchmarking.power import Reading
from yolov3_trt.benchmarking.rows import DeviceStages, median_stages
from yolov3_trt.benchmarking.runs import BenchmarkConfig, RunSpec
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError, DeviceError, EngineError
from yolov3_trt.evaluation.accuracy import Accuracy
from yolov3_trt.evaluation.scores import Scores
from yolov3_trt.jobs import benchmark as job
from yolov3_trt.jobs import benchmark_steps
from yolov3_trt.jobs.benchmark_steps import Benchmark, Schedule
from yolov3_trt.settings import DetectSettings

FRAMES = Frames(("a", "b"), tuple(grey_pictures([10, 20])), "two grey pictures")
QUICK = Schedule(rounds=12, warmup=1)


class GpuBackend(HostPath):
    """One with a clock of its own, which counts its calls."""

    fallbacks = ("no CUDA graph: simulated",)

    def __init__(self) -> None:
        super().__init__(FakeBackend())
        self.asked = 0

    def device_stages_ms(self, images: Sequence[np.ndarray]) -> Mapping[str, float]:
        self.asked += 1
        return {"copy_in": 0.5, "network": float(self.asked), "copy_out": 0.25}


class OtherBackend(FakeBackend):
    """Finds what no other does."""

    def infer(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        outputs = dict(super().infer(images))
        return {**outputs, "boxes": outputs["boxes"] + np.array([30, 0, 30, 20], np.float32)}


def run_spec(label: str, open_it: Callable[..., Any], device: str = "cpu", named: bool = True) -> RunSpec:
    return RunSpec(label, label, "onnxruntime", None, device, 1000, named, open_it)


@pytest.fixture
def benchmark_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Benchmark]:
    """A benchmark of runs by hand, checked on FRAMES."""

    def make(*found: RunSpec, reference: str | None = None) -> Benchmark:
        monkeypatch.setattr(benchmark_steps, "run_specs", lambda config: list(found))
        monkeypatch.setattr(benchmark_steps, "_SUSTAINED_S", 0.01)
        benchmark = Benchmark(BenchmarkConfig(()))
        benchmark.open(reference)
        benchmark.check(FRAMES)
        return benchmark

    return make


def plain(settings: DetectSettings) -> Detector:
    return Detector(FakeBackend())


def fails_with(error: Exception) -> Callable[..., Any]:
    def fail(settings: DetectSettings) -> Any:
        raise error

    return fail


def test_device_stages_are_medians_by_the_devices_clock(benchmark_of: Callable[..., Benchmark]):
    backend = GpuBackend()
    assert isinstance(backend, DeviceStages) and not isinstance(FakeBackend(), DeviceStages)
    assert median_stages(GpuBackend(), []) == {"copy_in": 0.5, "network": 5.5, "copy_out": 0.25}  # of 1 to 10
    benchmark = benchmark_of(run_spec("gpu", lambda _: Detector(backend), "cuda"), run_spec("cpu", plain))
    benchmark.time(FRAMES, QUICK)
    gpu, cpu = benchmark.results()
    assert gpu.device_stages_ms["network"] == 5.5
    assert gpu.fallbacks == ("no CUDA graph: simulated",)
    assert cpu.device_stages_ms is None
    assert gpu.parity is None and gpu.timings.speedup_vs_reference is None  # there is no reference


def test_the_roofline_is_by_the_devices_clock_where_there_is_one(
    benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
):
    from yolov3_trt.models.architectures import yolov3_tiny

    benchmark = benchmark_of(run_spec("gpu", lambda _: Detector(GpuBackend()), "cuda"))
    monkeypatch.setattr(benchmark, "spec_of", lambda row: yolov3_tiny())
    benchmark.rooflines["cuda", "fp32"] = MachineRoofline(10_000, 1_000, "cuda", "fp32", "hand")
    benchmark.time(FRAMES, QUICK)
    roofline = benchmark.results()[0].roofline
    assert roofline.achieved_gflops == pytest.approx(5.571e3 / 5.5, rel=1e-3)


def test_a_row_that_finds_something_else_is_a_fault(benchmark_of: Callable[..., Benchmark]):
    benchmark = benchmark_of(
        run_spec("good", plain),
        run_spec("same", plain),
        run_spec("other", lambda _: Detector(OtherBackend())),
        reference="good",
    )
    (fault,) = benchmark.faults
    assert fault == "other differs from good: 0% matched (2 missing, 2 extra); expected 99%"


def test_rows_that_are_set_to_find_different_things_say_so(benchmark_of: Callable[..., Benchmark]):
    strict = replace(FakeBackend.meta.postprocess, conf=0.5)
    rows = (run_spec("good", plain), run_spec("strict", lambda _: Detector(FakeBackend(), strict)))
    good, row = benchmark_of(*rows, reference="good").results()
    assert good.fallbacks == ()
    assert row.fallbacks == ("it is set to conf 0.5 (the reference: 0.25): give all rows the same",)


def test_what_fails_while_it_runs_becomes_a_row_too(benchmark_of: Callable[..., Benchmark]):
    class Failing(FakeBackend):
        def infer(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
            raise DeviceError("cuMemAlloc: out of memory")

    benchmark = benchmark_of(run_spec("good", plain), run_spec("bad", lambda _: Detector(Failing())), reference="good")
    benchmark.time(FRAMES, QUICK)
    good, bad = benchmark.results()
    assert good.failed is None and good.timings.latency_ms["p50"] > 0
    assert bad.failed == "cuMemAlloc: out of memory"
    assert {bad.to_json()[key] for key in ("latency_ms", "stages_ms", "fps", "parity", "roofline")} == {None}
    assert benchmark.faults == ("bad does not run here: cuMemAlloc: out of memory",)


def test_nothing_that_runs_is_an_error_with_every_reason(benchmark_of: Callable[..., Benchmark]):
    rows = [run_spec(name, fails_with(EngineError(f"no GPU for {name}"))) for name in "ab"]
    with pytest.raises(BackendError, match="nothing runs here: a: no GPU for a; b: no GPU for b"):
        benchmark_of(*rows)


def test_an_extra_row_that_does_not_run_is_no_fault(benchmark_of: Callable[..., Benchmark]):
    extra = run_spec("extra", fails_with(BackendError("no such kernel")), named=False)
    benchmark = benchmark_of(run_spec("good", plain), extra)
    assert benchmark.faults == ()
    assert benchmark.results()[1].failed == "no such kernel"


class FixedReader:
    about = {"reader": "fixed"}  # noqa: RUF012  # as the protocol has it

    def __init__(self) -> None:
        self.is_open = True

    def read(self) -> Reading:
        return Reading(power_w=42, gpu_mhz=1500)

    def close(self) -> None:
        self.is_open = False


def test_rows_that_overlap_calls_and_rows_on_a_gpu_run_alone_as_well(
    benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
):
    reader = FixedReader()
    monkeypatch.setattr("yolov3_trt.jobs.benchmark.open_power_reader", lambda: (reader, None))
    two = TwoSlots(0.001)
    rows = (
        run_spec("two", lambda _: Detector(two)),
        run_spec("gpu", lambda _: Detector(GpuBackend()), "cuda"),
        run_spec("cpu", plain),
    )
    benchmark = benchmark_of(*rows, reference="cpu")
    result = job.measured(benchmark, FRAMES, QUICK, roofline=False, labelled=None)
    overlapping, gpu, cpu = result.rows
    assert overlapping.throughput_fps > 0 and overlapping.power_w is None and two.num_pending == 0
    assert (gpu.power_w, gpu.gpu["gpu_mhz"]) == (42, 1500) and gpu.throughput_fps > 0
    assert (cpu.throughput_fps, cpu.power_w, cpu.gpu) == (None, None, None)
    assert result.machine["gpu_state"] == {"reader": "fixed"} and not reader.is_open
    assert (result.num_pictures, result.rounds, result.decode_ms) == (2, 12, None)


def test_accuracy_is_measured_once_per_way_at_a_threshold_of_its_own(benchmark_of: Callable[..., Benchmark]):
    opened: list[Any] = []

    def open_it(settings: DetectSettings) -> Detector:
        opened.append(settings.conf)
        return Detector(FakeBackend())

    def refuse(settings: DetectSettings) -> Detector:
        if settings.conf is not None:
            raise BackendError("conf=0.005 was asked for, but this graph gives conf=0.25")
        return Detector(FakeBackend())

    benchmark = benchmark_of(run_spec("good", open_it), run_spec("fixed", refuse))
    accuracy = Accuracy(Scores({"AP": 0.5}, (), (), None, None), {1: None, 2: None}, np.empty((0, 2)))
    benchmark.score(lambda detector: accuracy, conf=0.005)
    good, fixed = benchmark.results()
    assert opened == [None, 0.005]
    assert good.accuracy is accuracy and good.to_json()["accuracy"]["images"] == 2
    assert fixed.accuracy is None
    assert fixed.fallbacks == ("accuracy not measured: conf=0.005 was asked for, but this graph gives conf=0.25",)


def test_a_schedule_is_a_count_or_a_duration():
    assert Schedule(7).iterate() == 7
    assert isinstance(Schedule(7, duration_s=1.0).iterate(), type(rounds_for(1)))
