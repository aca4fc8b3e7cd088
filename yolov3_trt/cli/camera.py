"""`camera`: the live loop."""

import json as json_text
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from yolov3_trt.cli.ending import ended_by_signals
from yolov3_trt.cli.live_line import live_line
from yolov3_trt.cli.options import (
    ArtifactArgument,
    BackendOption,
    ConfOption,
    InputSizeOption,
    IouOption,
    JsonOption,
    MaxDetectionsOption,
    ModelOptions,
    NamesOption,
    NmsOption,
    ResizeOption,
    ThreadsOption,
    TrustOption,
    WeightsOption,
    open_for_verb,
)
from yolov3_trt.cli.output import say, table, write_result
from yolov3_trt.settings import DetectSettings

if TYPE_CHECKING:
    from yolov3_trt.camera.loop import LoopOptions
    from yolov3_trt.camera.sources import LiveSource, Source
    from yolov3_trt.detector import Detector
    from yolov3_trt.geometry import HW

_DEFAULT_VIDEO_FPS = 30.0  # where no source says its own


def camera(
    artifact: ArtifactArgument,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI[,URI...]",
            help="0 or /dev/video0, csi://0, rtsp://..., http://..., a video, a folder or glob, shapes://; repeatable. "
            "Default: 0. A comma inside a URI is written %2C.",
        ),
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI[,URI...]",
            help="window, http://127.0.0.1:8080, FILE.mp4, FILE.avi, FILE.jsonl, jsonl, FOLDER/; repeatable. Default: window.",
        ),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="End after so many results.")] = None,
    duration: Annotated[float | None, typer.Option(min=0, metavar="S", help="End after so many seconds.")] = None,
    drop: Annotated[
        Literal["latest", "none"] | None,
        typer.Option(
            help="Late frames: `latest` drops all but the newest, `none` waits; default: live ones are dropped."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Ask cameras for this size, e.g. 1280x720.")
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, max=1000, help="Ask cameras for this rate.")] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Files at their own pace.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.5, metavar="S", help="For a camera to open, and to give its next frame.")
    ] = 10.0,
    give_up_after: Annotated[
        float, typer.Option(min=0, metavar="S", help="Without a frame, until a source is given up; inf: never.")
    ] = 60.0,
    latency: Annotated[int, typer.Option(min=0, metavar="MS", help="How long streams wait for late packets.")] = 200,
    transport: Annotated[Literal["tcp", "udp"], typer.Option(help="Of RTSP streams.")] = "tcp",
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    backend: BackendOption = "auto",
    conf: ConfOption = None,
    iou: IouOption = None,
    max_detections: MaxDetectionsOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    threads: ThreadsOption = None,
    trust: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Detect in live cameras, streams and files, and show or write what is found, until Ctrl-C.

    Of live sources only the newest frame is used, so that the picture never lags. One that stalls is opened again; when it
    stays away it is given up, the others go on, and the exit code is 1 at the end. Ctrl-C, SIGTERM and q in a window are
    ordinary ends: files are finished, the summary is printed, the exit code is 0. A second Ctrl-C ends at once with 130.
    """
    from yolov3_trt.camera.live import Patience
    from yolov3_trt.camera.loop import LoopOptions
    from yolov3_trt.camera.sources import LiveSource, SourceOptions, open_source, split_uris

    sink_uris = split_uris(sink or ["window"])
    if "jsonl" in sink_uris and json == "-":
        raise typer.BadParameter("stdout takes either --sink jsonl or --json -", param_hint="--json")
    asked = SourceOptions(_parse_size(size), fps, realtime, timeout, latency, transport)
    with ExitStack() as stack:
        stack.enter_context(_told_more())
        sources: list[Source | LiveSource] = []
        for uri in split_uris(source or ["0"]):
            opened = open_source(uri, asked)
            sources.append(opened if isinstance(opened, LiveSource) else stack.enter_context(opened))
        detector = stack.enter_context(
            open_for_verb(
                artifact,
                ModelOptions(weights, names, input_size),
                DetectSettings(conf, iou, max_detections, nms, resize),
                backend=backend,
                threads=threads,
                trust=trust,
            )
        )
        options = LoopOptions(max_frames, duration, drop, Patience(give_up_after))
        content = {"artifact": artifact, **_run(detector, sources, sink_uris, options)}
        _report(content, json, is_stdout_taken="jsonl" in sink_uris)
        code = 1 if content["errors"] else 0
        for error in content["errors"]:
            say(f"yolov3_trt: {error}")
        if content["stuck_sources"]:
            # A thread that is still inside OpenCV would be ended by the interpreter in the middle of C++, which aborts.
            sys.stdout.flush()
            os._exit(code)
    raise typer.Exit(code)


@contextmanager
def _told_more() -> Iterator[None]:
    """Within it, what the camera modules do is logged without --verbose too: which pipeline is tried is worth a line."""
    logger = logging.getLogger("yolov3_trt.camera")
    before = logger.level
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.setLevel(before)


def _report(content: dict[str, Any], json_target: str | None, *, is_stdout_taken: bool) -> None:
    """Give the summary; on stderr where stdout is a sink's."""
    if not is_stdout_taken:
        write_result(json_target, content, _text(content))
        return
    say(_text(content))
    if json_target is not None:
        from yolov3_trt.files import write_text

        write_text(Path(json_target), json_text.dumps(content, indent=1, allow_nan=False) + "\n")


def _run(
    detector: "Detector", sources: "Sequence[Source | LiveSource]", sink_uris: Sequence[str], options: "LoopOptions"
) -> dict[str, Any]:
    """The summary; sinks are finished."""
    from yolov3_trt.camera.loop import CameraLoop
    from yolov3_trt.camera.sinks import open_sinks
    from yolov3_trt.camera.statistics import Statistics
    from yolov3_trt.errors import Yolov3TrtError

    backend = detector.backend
    about = {
        "backend": backend.name.value,
        "precision": detector.meta.precision.value,
        "fallbacks": list(backend.fallbacks),
    }
    statistics = Statistics(about)
    names = [source.name for source in sources]
    errors: list[str] = []
    with (
        open_sinks(sink_uris, fps=_video_fps(sources), stats=statistics.snapshot, sources=names) as sinks,
        live_line(statistics.snapshot) as update,
    ):
        loop = CameraLoop(detector, sources, [sinks], replace(options, on_tick=update), statistics)
        try:
            with ended_by_signals(loop.stop):
                loop.run()
        except Yolov3TrtError as exc:  # of the detector, or of the last sink: what was written so far is kept
            errors.append(str(exc))
    content = statistics.summary()
    errors += [row["error"] for row in content["sources"] if row["error"] is not None]
    errors += [failure["error"] for failure in sinks.failures if failure["error"] not in errors]
    return {
        **content,
        "stuck_sources": list(statistics.stuck_sources),
        "sinks": {"asked": list(sink_uris), "fallbacks": list(sinks.fallbacks), "failures": sinks.failures},
        "errors": errors,
    }


def _video_fps(sources: "Sequence[Source | LiveSource]") -> float:
    """Of videos: what the sources say; several that differ share the fastest, as each video is one of them."""
    known = [fps for source in sources if (fps := getattr(source, "fps", None)) is not None]
    return max(known, default=_DEFAULT_VIDEO_FPS)


def _parse_size(text: str | None) -> "HW | None":
    from yolov3_trt.arguments import size

    return None if text is None else size("size", text)


def _text(content: dict[str, Any]) -> str:
    """The summary for people."""
    header = ("source", "captured", "processed", "dropped", "reconnects", "fps", "age p50 ms", "p95", "p99")
    rows = [
        (
            row["source"],
            *(str(row[key]) for key in ("captured", "processed", "dropped", "reconnects")),
            _number(row["fps"]),
            *(_number(row["frame_age_ms"][percentile]) for percentile in ("p50", "p95", "p99")),
        )
        for row in content["sources"]
    ]
    stages = "  ".join(f"{stage} {_number(times['p50'])}" for stage, times in content["stages_ms"].items())
    latency = content["latency_ms"]
    lines = [
        table(header, rows),
        "",
        f"{content['processed']} frames in {content['elapsed_s']:.1f} s, {_number(content['fps'])} fps, "
        f"ended by {content['ended_by']}; {content['backend']} {content['precision']}",
        f"latency ms: p50 {_number(latency['p50'])}, p95 {_number(latency['p95'])}, p99 {_number(latency['p99'])}; "
        f"medians of the stages: {stages}",
    ]
    lines += [f"{row['source']}: {row['pipeline']}" for row in content["sources"] if row["pipeline"]]
    reasons = [*content["fallbacks"], *content["loop_fallbacks"], *content["sinks"]["fallbacks"]]
    reasons += [reason for row in content["sources"] for reason in row["fallbacks"]]
    lines += [f"fallback: {reason}" for reason in reasons]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
