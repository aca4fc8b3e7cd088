"""`bench`: latency and accuracy against the PyTorch reference on the same frames."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from yolov3_trt.cli.bench_text import bench_text
from yolov3_trt.cli.data_options import AnnotationsOption, DataOption, SkipFaultyOption, SplitOption, sets_from_options
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import JsonOption, ThreadsOption, TrustOption, WaitOption, writes
from yolov3_trt.cli.output import reporter, say, write_result
from yolov3_trt.settings import DetectSettings


@takes(ModelOptions, DetectSettings)
def bench(
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT...", help="Models, .onnx or .engine files.")],
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Frames; default: those of --data, or generated ones, 640x480."),
    ] = None,
    data: DataOption = None,
    split: SplitOption = None,
    skip_faulty: SkipFaultyOption = False,
    annotations: AnnotationsOption = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="ROW", help="What is 1.0: a row, artifact, backend, or none; default: PyTorch in FP32."),
    ] = None,
    torch_variants: Annotated[
        str,
        typer.Option(metavar="V,V,...", help="More PyTorch rows: fp16, bf16, channels_last, compile, joined by +."),
    ] = "",
    device: Annotated[str, typer.Option(help="Of PyTorch: cpu or cuda; auto: cuda where it has one.")] = "auto",
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Of .onnx rows: onnxruntime (default), openvino; repeatable, a row for each."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of OpenVINO rows, beside INT8: fp32 (default), bf16, fp16; repeatable."),
    ] = None,
    onnxruntime_devices: Annotated[str, typer.Option(metavar="D,D", help="Of ONNX Runtime rows: cpu, cuda.")] = "cpu",
    baselines: Annotated[str, typer.Option(metavar="NAME", help="Other software on the same models: opencv.")] = "",
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
    wait: WaitOption = "auto",
    report: Annotated[
        Path | None,
        writes("FILE", "Write a report: .html, .md or .json.", "--report"),
    ] = None,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Time artifacts on the same frames, taking turns, and hold what they find to the reference.

    A row that finds something else than the reference does is marked, and the exit code is 1; so it is where an artifact
    does not run here. --weights, --names and --input-size are for the artifacts that are models.
    """
    from yolov3_trt.jobs.benchmark import benchmark
    from yolov3_trt.report import check_report_path, write_benchmark_report

    if report is not None:
        check_report_path(report)
    pictures, labelled = sets_from_options(images, data, split, annotations, skip_faulty=skip_faulty)
    result = benchmark(
        artifacts,
        images=pictures,
        data=labelled,
        reference=reference,
        torch_variants=torch_variants,
        device=device,
        backend=backend or (),
        precision=precision or (),
        onnxruntime_devices=onnxruntime_devices,
        baselines=baselines,
        frames=frames,
        warmup=warmup,
        duration=duration,
        batch=batch,
        threads=threads,
        roofline=roofline,
        trust=trust,
        wait=wait,
        reporter=reporter(),
        **settings,
    )
    command = ["yolov3_trt", *sys.argv[1:]]
    if report is not None:
        write_benchmark_report(report, result, command)
        say(f"wrote {report}")
    write_result(json, {"command": command, **result.to_json()}, bench_text(result, layers))
    for fault in result.faults:
        say(f"yolov3_trt: {fault}")
    if result.faults:
        raise typer.Exit(1)
