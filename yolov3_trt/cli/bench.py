"""`bench`: latency and accuracy against the PyTorch reference on the same frames."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.bench_text import bench_text
from yolov3_trt.cli.options import (
    ConfOption,
    InputSizeOption,
    IouOption,
    JsonOption,
    NamesOption,
    NmsOption,
    ResizeOption,
    ThreadsOption,
    TrustOption,
    WeightsOption,
    parse_input_hw,
    readable,
    writable,
)
from yolov3_trt.cli.output import say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.benchmark.frames import Frames
    from yolov3_trt.benchmark.run import Benchmark

_PEERS = ("opencv",)
_DEVICES = ("cpu", "cuda")
_GALLERY_PICTURES = 4
_RESAMPLES = 500  # draws of the images for the interval of AP, as `eval` takes by default


def bench(
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT...", help="Models, .onnx or .engine files.")],
    images: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="Frames; default: generated ones, 640x480.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="COCO instances (JSON) of the folder --images: adds AP to rows.",
            callback=readable("--annotations"),
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="ROW", help="What is 1.0: a row, artifact, backend, or none; default: PyTorch in FP32."),
    ] = None,
    torch_variants: Annotated[
        str | None,
        typer.Option(metavar="V,V,...", help="More PyTorch rows: fp16, bf16, channels_last, compile, joined by +."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of PyTorch: cpu or cuda; auto: cuda where it has one.")] = "auto",
    onnxruntime_devices: Annotated[str, typer.Option(metavar="D,D", help="Of .onnx rows: cpu, cuda.")] = "cpu",
    peers: Annotated[str | None, typer.Option(help="Others on the same models: opencv.")] = None,
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    conf: ConfOption = None,
    iou: IouOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    frames: Annotated[int, typer.Option(min=1, help="Timed calls per row.")] = 50,
    duration: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Time for so many seconds in all, in place of --frames.")
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Calls per row before that are not timed.")] = 5,
    batch: Annotated[str, typer.Option(metavar="N,N,...", help="Pictures per call; a row for each.")] = "1",
    threads: ThreadsOption = None,
    roofline: Annotated[bool, typer.Option(help="Measure what the machine can do at most.")] = True,
    layers: Annotated[bool, typer.Option("--layers", help="Print operations and bytes of every layer.")] = False,
    trust: TrustOption = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=writable("--report", is_file=True), help="Write a report: .html, .md or .json."
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Time artifacts on the same frames, taking turns, and hold what they find to the reference.

    A row that finds something else than the reference does is marked, and the exit code is 1; so it is where an artifact
    does not run here. --weights, --names and --input-size are for the artifacts that are models.
    """
    from yolov3_trt.benchmark.content import measure_all, with_rows
    from yolov3_trt.benchmark.entrants import Wanted, default_device
    from yolov3_trt.benchmark.run import Benchmark, Schedule
    from yolov3_trt.evaluate import EVAL_CONF_THRESHOLD
    from yolov3_trt.reporter import Reporter
    from yolov3_trt.settings import DetectSettings

    _check(report, annotations, images)
    _check_reference(reference, artifacts)
    own_device = default_device() if device == "auto" else _chosen(device, _DEVICES, "--device")[0]
    wanted = Wanted(
        tuple(artifacts),
        weights,
        names,
        parse_input_hw(input_size),
        DetectSettings(conf, iou, nms=nms, resize=resize),  # type: ignore[arg-type]  # a text is coerced,
        own_device,
        _variants(torch_variants, own_device),
        _chosen(onnxruntime_devices, _DEVICES, "--onnxruntime-devices"),
        _chosen(peers, _PEERS, "--peers"),
        _batches(batch),
        threads,
        trust,
    )
    schedule = Schedule(frames, warmup, duration)
    with Benchmark(wanted, Reporter(say, track)) as benchmark:
        benchmark.open(reference)
        pictures = _pictures(benchmark, images, frames)
        benchmark.check(pictures)
        content = {"command": ["yolov3_trt", *sys.argv[1:]], **measure_all(benchmark, pictures, schedule, roofline)}
        if annotations is not None and images is not None:
            benchmark.score(lambda detector: _accuracy(detector, annotations, Path(images[0])), EVAL_CONF_THRESHOLD)
            content["annotations"] = str(annotations)
        content = with_rows(content, benchmark)
        if report is not None:
            _write_report(report, content, benchmark, pictures)
        faults = benchmark.faults
    write_result(json, content, bench_text(content, layers))
    for fault in faults:
        say(f"yolov3_trt: {fault}")
    if faults:
        raise typer.Exit(1)


def _check(report: Path | None, annotations: Path | None, images: list[str] | None) -> None:
    """Refuse before anything is measured what would fail after."""
    if report is not None:
        from yolov3_trt.report import check_report_path

        check_report_path(report)
    if annotations is not None and (images is None or len(images) != 1 or not Path(images[0]).is_dir()):
        raise typer.BadParameter(
            "wants --images with the one folder that its pictures are in", param_hint="--annotations"
        )


def _check_reference(reference: str | None, artifacts: Sequence[str]) -> None:
    """Refuse what can be the name of no row: those begin with an artifact's, or its file name."""
    from yolov3_trt.backends import BackendName

    named = tuple(name for artifact in artifacts for name in (artifact, Path(artifact).name))
    if reference not in (None, "none", *_PEERS, *(name.value for name in BackendName)):
        if not reference or not reference.startswith(named):
            raise typer.BadParameter(f"{reference} is not among the artifacts", param_hint="--reference")


def _variants(text: str | None, device: str) -> tuple[Any, ...]:
    from yolov3_trt.backends.torch_options import TorchOptions
    from yolov3_trt.errors import BackendError

    try:
        return tuple(TorchOptions.parse(variant, device) for variant in (text or "").split(",") if variant)
    except BackendError as exc:
        raise typer.BadParameter(str(exc), param_hint="--torch-variants") from None


def _chosen(text: str | None, known: Sequence[str], option: str) -> tuple[str, ...]:
    """`a,b` -> names, each known."""
    names = tuple(dict.fromkeys(name for name in (text or "").split(",") if name))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r}; expected {' or '.join(known)}", param_hint=option)
    return names


def _batches(text: str) -> tuple[int, ...]:
    """`1,4,8` -> numbers of pictures."""
    words = text.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= 1024 for word in words):
        raise typer.BadParameter(f"{text!r}; expected numbers from 1 on, e.g. 1,4,8", param_hint="--batch")
    return tuple(dict.fromkeys(map(int, words)))


def _pictures(benchmark: "Benchmark", images: list[str] | None, most: int) -> "Frames":
    from yolov3_trt.benchmark.frames import generated_frames, read_frames

    if images:
        return read_frames(images, most)
    metas = [outcome.entrant.meta for outcome in benchmark.outcomes]
    return generated_frames(most, next((meta.frame_hw for meta in metas if meta and meta.frame_hw), None))


def _accuracy(detector: Any, annotations: Path, folder: Path) -> dict[str, Any]:
    from yolov3_trt.evaluate import detect_all, load_annotations, score_detections
    from yolov3_trt.evaluate.bootstrap import draw_images, interval, resampled_ap

    truth = load_annotations(annotations, detector.meta.class_names)
    found = detect_all(detector, truth, folder, lambda items: track(items, "evaluating", len(truth.images)))
    scores = score_detections(truth, found)
    draws = draw_images(len(found), _RESAMPLES, seed=0)
    bounds = interval(resampled_ap(scores.matches, draws)[:, 0])
    return {"images": len(found), **scores.metrics, "AP_interval": bounds}


def _write_report(path: Path, content: dict[str, Any], benchmark: "Benchmark", pictures: "Frames") -> None:
    """With what each row found, drawn onto the first pictures."""
    from yolov3_trt.camera.draw import draw_detections
    from yolov3_trt.cli.worst import small_jpeg
    from yolov3_trt.report import write_report

    gallery = []
    for number, name in enumerate(pictures.names[:_GALLERY_PICTURES]):
        drawn = {}
        for outcome in benchmark.outcomes:
            if outcome.runs and outcome.entrant.batch == benchmark.wanted.batches[0]:
                canvas = draw_detections(pictures.pictures[number], outcome.found[number])
                drawn[outcome.label] = small_jpeg(canvas)
        gallery.append((Path(name).name, drawn))
    write_report(path, content, gallery)
    say(f"wrote {path}")
