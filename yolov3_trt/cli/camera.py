"""`camera`: the live loop."""

import json as json_text
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from yolov3_trt.camera.settings import CameraSettings
from yolov3_trt.cli.ending import ended_by_signals
from yolov3_trt.cli.groups import ModelOptions, RunOptions, takes
from yolov3_trt.cli.live_line import live_line
from yolov3_trt.cli.options import (
    ArtifactArgument,
    JsonOption,
)
from yolov3_trt.cli.output import say, table, write_result
from yolov3_trt.cli.service_manager import ServiceManager
from yolov3_trt.selection import Selection
from yolov3_trt.settings import DetectSettings, DrawSettings


@takes(ModelOptions, RunOptions, DetectSettings, Selection, DrawSettings, CameraSettings)
def camera(
    artifact: ArtifactArgument,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI[,URI...]",
            help="0 or /dev/video0, csi://0, rtsp://..., http://..., a video, a folder or glob, shapes://; repeatable; "
            "NAME=URI names it. "
            "Default: 0. A comma inside a URI is written %2C.",
        ),
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI[,URI...]",
            help="window, http://127.0.0.1:8080, FILE.mp4 (.mkv, .avi), FILE-%Y%m%d-%H%M%S.mp4?segment=10min, FILE.jsonl, "
            "jsonl, exec:PROGRAM, FOLDER/; repeatable. Default: window.",
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
    cameras: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file of further sources, each with a name, sinks and options of its own.",
        ),
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Give objects numbers that they keep from frame to frame.")
    ] = False,
    events: Annotated[
        bool,
        typer.Option(
            "--events", help="Tell who appears, leaves, and enters or crosses what stands in --zones; with numbers."
        ),
    ] = False,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Detect in live cameras, streams and files, and show or write what is found, until Ctrl-C.

    Of live sources only the newest frame is used, so that the picture never lags. One that stalls is opened again; when it
    stays away it is given up, the others go on, and the exit code is 1 at the end. Ctrl-C, SIGTERM and q in a window are
    ordinary ends: files are finished, the summary is printed, the exit code is 0. A second Ctrl-C ends at once with 130.
    """
    from yolov3_trt.camera.sources import split_uris
    from yolov3_trt.errors import Yolov3TrtError
    from yolov3_trt.jobs.watch import watch

    sink_uris = split_uris(sink or ([] if cameras else ["window"]))
    if "jsonl" in sink_uris and json == "-":
        raise typer.BadParameter("stdout takes either --sink jsonl or --json -", param_hint="--json")
    watching = watch(
        artifact,
        *split_uris(source or []),
        sinks=sink_uris,
        max_frames=max_frames,
        duration=duration,
        drop=drop,
        cameras=cameras,
        track=track,
        events=events,
        on_tick=lambda: tick(),
        **settings,
    )
    manager = ServiceManager()

    def tick() -> None:
        update()
        manager.alive()

    with _info_logging(), watching, live_line(watching.snapshot) as update:
        manager.ready()
        try:
            with ended_by_signals(watching.stop):
                for _ in watching:
                    pass
        except Yolov3TrtError:  # of the detector, or of the last sink
            if not watching.to_json()["errors"]:
                raise
    manager.stopping()
    content = watching.to_json()
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
def _info_logging() -> Iterator[None]:
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
    stages = "  ".join(
        f"{stage} {_number(times['p50'])}"
        for stage, times in content["stages_ms"].items()
        if stage != "tracking" or times["p50"] is not None
    )
    latency = content["latency_ms"]
    lines = [
        table(header, rows),
        "",
        f"{content['processed']} frames in {content['elapsed_s']:.1f} s, {_number(content['fps'])} fps, "
        f"ended by {content['ended_by']}; {content['backend']} {content['precision']}",
        f"latency ms: p50 {_number(latency['p50'])}, p95 {_number(latency['p95'])}, p99 {_number(latency['p99'])}; "
        f"medians of the stages: {stages}",
    ]
    lines += [f"{row['source']}: {_counts(row['objects'])}" for row in content["sources"] if row["objects"]]
    lines += [f"{row['source']}: {row['pipeline']}" for row in content["sources"] if row["pipeline"]]
    reasons = [*content["fallbacks"], *content["loop_fallbacks"], *content["sinks"]["fallbacks"]]
    reasons += [reason for row in content["sources"] for reason in row["fallbacks"]]
    lines += [f"fallback: {reason}" for reason in reasons]
    return "\n".join(lines)


def _counts(objects: dict[str, Any]) -> str:
    """`3 person, 1 dog appeared; gate: 2 in, 1 out; drive: 3 entered`."""
    came = ", ".join(f"{count} {name}" for name, count in objects["appeared"].items()) or "nothing"
    lines = [
        f"{name}: {sum(both['in'].values())} in, {sum(both['out'].values())} out"
        for name, both in objects["lines"].items()
    ]
    zones = [f"{name}: {sum(counts['entered'].values())} entered" for name, counts in objects["zones"].items()]
    return "; ".join([f"{came} appeared", *lines, *zones])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
