"""Time artifacts on the same pictures, taking turns, and hold what they find to a reference."""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.arguments import MAX_COUNT, flag, integer, number, one_of, size, text
from yolov3_trt.backends import BackendName, DeviceName, RunPrecision, Wait
from yolov3_trt.backends.torch_options import TorchOptions
from yolov3_trt.benchmarking.frames import Frames, generated_frames, read_frames
from yolov3_trt.benchmarking.machine import machine, peak_resident_mib
from yolov3_trt.benchmarking.power import open_power_reader
from yolov3_trt.benchmarking.results import BenchmarkResult
from yolov3_trt.benchmarking.rows import Row
from yolov3_trt.benchmarking.runs import OPENCV, BenchmarkConfig, default_device
from yolov3_trt.benchmarking.timings import timer_overhead_us
from yolov3_trt.camera.draw import draw_detections
from yolov3_trt.data.images import NamedImage
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.detector import MAX_THREADS, Detector
from yolov3_trt.errors import BackendError, SettingError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD
from yolov3_trt.evaluation.accuracy import Accuracy, measure_accuracy
from yolov3_trt.jobs.benchmark_steps import Benchmark, Schedule
from yolov3_trt.jobs.opening import Artifact, artifacts_from, sets_from, several
from yolov3_trt.models import is_model
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.settings import DetectSettings, settings_from

BASELINES = (OPENCV,)
DEVICES = ("cpu", "cuda")
GRAPH_BACKENDS = (BackendName.ONNXRUNTIME.value, BackendName.OPENVINO.value)
MAX_BATCH = 1024
_SHOWN = 4  # pictures that a report shows
_MAX_S = 7 * 86_400.0


def benchmark(
    artifacts: Artifact | Iterable[Artifact],
    *,
    images: Artifact | Sequence[Artifact] | PictureSet | None = None,
    data: str | os.PathLike[str] | LabelledSet | None = None,
    split: str | None = None,
    annotations: str | os.PathLike[str] | None = None,
    skip_faulty: bool = False,
    reference: str | None = None,
    torch_variants: str | Iterable[str] = (),
    device: str = "auto",
    backend: str | Iterable[str] = "onnxruntime",
    precision: str | Iterable[str] = "fp32",
    onnxruntime_devices: str | Iterable[str] = "cpu",
    baselines: str | Iterable[str] = (),
    weights: str | os.PathLike[str] | None = None,
    names: str | None = None,
    input_size: Any = None,
    frames: int = 50,
    warmup: int = 5,
    duration: float | None = None,
    batch: int | str | Iterable[int] = 1,
    threads: int | None = None,
    roofline: bool = True,
    trust: bool = False,
    wait: str = "auto",
    reporter: Reporter = SILENT,
    **settings: Any,
) -> BenchmarkResult:
    """Time artifacts on the same pictures, in interleaved rounds, and compare what they find with a reference.

    A row that finds something else than the reference does, and an artifact that does not run here, are in `faults` of the
    result and do not end the benchmark.

    Args:
        artifacts: what `open_detector` opens, one or more.
        images: pictures, see `data.picture_set`; None: those of `data`, or generated ones.
        data: labelled pictures, see `data.labelled_set`: adds average precision to each row. With a COCO JSON `images` may be
            the folder of its images.
        split: of a data.yaml; None: `val`.
        annotations: COCO instances of `images`, which is one folder then; the same as `data`.
        skip_faulty: leave out faulty labels and pictures, which is said, instead of refusing the set.
        reference: what counts as right: a row's label, an artifact, a backend, or `none`; None: PyTorch in FP32.
        torch_variants: further PyTorch rows: `fp16`, `bf16`, `channels_last`, `compile`, joined by `+`.
        device: of PyTorch: `cpu`, `cuda`, or `auto`.
        backend: of the `.onnx` rows, a row for each: `onnxruntime`, `openvino`.
        precision: of the OpenVINO rows, a row for each: `fp32`, `bf16`, `fp16`; see `open_backend`.
        onnxruntime_devices: of the rows on ONNX Runtime: `cpu`, `cuda`.
        baselines: other software on the same models: `opencv`.
        weights: of the artifacts that are models; so are the next two. See `open_detector`.
        names: class names of models.
        input_size: of models, px.
        frames: timed calls of each row.
        warmup: calls of each row before those.
        duration: time for so many seconds in all, in place of `frames`.
        batch: pictures of a call; of several sizes a row each.
        threads: CPU threads of each backend.
        roofline: measure what the machine can do at most.
        trust: of engines, see `open_backend`.
        wait: how the thread waits for engines, see `open_backend`.
        reporter: is told how it gets on.
        settings: any of `DetectSettings`, for all rows.

    Raises:
        SettingError: an argument has no such value.
        BackendError: nothing runs here.
        Yolov3TrtError: an artifact or a picture cannot be read.

    >>> result = benchmark(["yolov3.onnx", "yolov3.engine"], images="photos/")  # doctest: +SKIP
    >>> result.rows[0].timings.latency_ms["p50"]  # doctest: +SKIP
    """
    (detect,) = settings_from(settings, DetectSettings)
    on = one_of("device", device, DeviceName)
    own_device = default_device() if on is DeviceName.AUTO else on.value
    config = BenchmarkConfig(
        artifacts=artifacts_from(artifacts),
        weights=None if weights is None else text("weights", weights),
        names=names,
        input_size=None if input_size is None else size("input_size", input_size),
        detect=detect,
        device=own_device,
        torch_variants=_variants(torch_variants, own_device),
        backends=_chosen("backend", backend, GRAPH_BACKENDS) or GRAPH_BACKENDS[:1],
        precisions=_chosen("precision", precision, [one.value for one in RunPrecision]) or ("fp32",),
        onnxruntime_devices=_chosen("onnxruntime_devices", onnxruntime_devices, DEVICES),
        baselines=_chosen("baselines", baselines, BASELINES),
        batches=_batches(batch),
        threads=None if threads is None else integer("threads", threads, 1, MAX_THREADS),
        trust=flag("trust", trust),
        wait=one_of("wait", wait, Wait).value,
    )
    schedule = Schedule(
        integer("frames", frames, 1, MAX_COUNT),
        integer("warmup", warmup, 0, MAX_COUNT),
        None if duration is None else number("duration", duration, 0, _MAX_S),
    )
    given, labelled = sets_from(
        images, data, split, annotations, reporter, skip_faulty=flag("skip_faulty", skip_faulty)
    )
    _check_reference(reference, config)
    if config.baselines and not any(map(is_model, config.artifacts)):
        raise SettingError(
            "baselines", "given without a model, which is what they read; expected a .cfg among the artifacts"
        )
    with Benchmark(config, reporter) as steps:
        steps.open(reference)
        pictures = _frames(steps, given, schedule.rounds)
        steps.check(pictures)
        return measured(steps, pictures, schedule, flag("roofline", roofline), labelled)


def measured(
    steps: Benchmark, frames: Frames, schedule: Schedule, roofline: bool, labelled: LabelledSet | None
) -> BenchmarkResult:
    """Time a benchmark that is open and checked, and say what it came to."""
    where = machine()  # with the load that others put on it, before this does
    reader, no_reader = open_power_reader()
    try:
        where["gpu_state"] = {"reader": None, "reason": no_reader} if reader is None else reader.about
        if roofline:
            steps.measure_rooflines()
        steps.time(frames, schedule)
        steps.sustain(frames, reader)
    finally:
        if reader is not None:
            reader.close()
    overhead_us, timed = timer_overhead_us(), [row for row in steps.rows if row.timings is not None]
    drawing_ms = draw_ms(frames, timed)
    if labelled is not None:
        _score(steps, labelled)
    shown = zip(frames.names[:_SHOWN], frames.pictures, strict=False)
    return BenchmarkResult(
        rows=steps.results(_SHOWN),
        reference=None if steps.reference is None else steps.reference.label,
        faults=steps.faults,
        layers=steps.networks(),
        machine=where,
        rooflines=tuple(steps.rooflines.values()),
        source=frames.source,
        num_pictures=len(frames.pictures),
        rounds=max(len(row.timings.wall_s) for row in timed if row.timings is not None),
        warmup=schedule.warmup,
        threads=steps.config.threads,
        timer_overhead_us=overhead_us,
        decode_ms=frames.decode_ms,
        draw_ms=drawing_ms,
        peak_rss_mib=peak_resident_mib(),
        annotations=None if labelled is None else str(labelled.path),
        shown=tuple(NamedImage(name, picture) for name, picture in shown),
    )


def draw_ms(frames: Frames, rows: Sequence[Row]) -> float:
    """Median time to draw what the first row found onto a picture, ms."""
    seconds = []
    for picture, detections in zip(frames.pictures, rows[0].found, strict=True):
        started = time.perf_counter()
        draw_detections(picture, detections)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds) * 1e3)


def _score(steps: Benchmark, labelled: LabelledSet) -> None:
    """Average precision of each row."""

    def evaluate(detector: Detector) -> Accuracy:
        truth = labelled.truth_for(detector.meta.class_names)
        for note in truth.notes:
            steps.reporter.say(f"note: {note}")
        return measure_accuracy(detector, truth, track=steps.reporter.track)

    steps.score(evaluate, EVAL_CONF_THRESHOLD)


def _frames(steps: Benchmark, given: PictureSet | None, most: int) -> Frames:
    """The pictures given, or generated ones of the size that a graph for whole frames takes."""
    if given is not None:
        return read_frames(given, most)
    return generated_frames(
        most, next((row.meta.frame_hw for row in steps.rows if row.meta and row.meta.frame_hw), None)
    )


def _words(values: str | Iterable[str]) -> list[str]:
    """Texts, or one with commas between them."""
    return [word for word in values.split(",") if word] if isinstance(values, str) else list(values)


def _chosen(name: str, values: str | Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(_words(values)))
    for value in found:
        if value not in known:
            raise SettingError(name, f"got {value!r}; expected {' or '.join(known)}")
    return found


def _variants(values: str | Iterable[str], device: str) -> tuple[TorchOptions, ...]:
    try:
        return tuple(TorchOptions.parse(variant, device) for variant in _words(values))
    except BackendError as exc:
        raise SettingError("torch_variants", str(exc)) from None


def _batches(values: int | str | Iterable[int]) -> tuple[int, ...]:
    """`4`, `[1, 4]` or `1,4,8` -> numbers of pictures."""
    items: Iterable[Any] = values.split(",") if isinstance(values, str) else several(values)
    if isinstance(values, str):
        if not all(item.isdecimal() and len(item) < 5 for item in items):
            raise SettingError("batch", f"got {values!r}; expected numbers from 1 on, e.g. 1,4,8")
        items = map(int, items)
    return tuple(dict.fromkeys(integer("batch", item, 1, MAX_BATCH) for item in items))


def _check_reference(reference: str | None, config: BenchmarkConfig) -> None:
    """Refuse what can be the name of no row: those begin with an artifact's, or its file name."""
    named = tuple(name for artifact in config.artifacts for name in (artifact, Path(artifact).name))
    if reference in (None, "none", *(name.value for name in BackendName)):
        return
    if not text("reference", reference) or not str(reference).startswith(named):
        raise SettingError("reference", f"got {reference!r}; expected an artifact, a row, a backend or none")
