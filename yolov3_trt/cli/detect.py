"""`detect`: pictures and videos to boxes."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from yolov3_trt.cli.ending import name_of_end, undivided
from yolov3_trt.cli.groups import ModelOptions, RunOptions, takes
from yolov3_trt.cli.options import (
    ArtifactArgument,
    JsonOption,
    writes,
)
from yolov3_trt.cli.output import say, show, track
from yolov3_trt.errors import Yolov3TrtError
from yolov3_trt.selection import Selection
from yolov3_trt.settings import DetectSettings, DrawSettings, settings_from

if TYPE_CHECKING:
    from yolov3_trt.detector import Detector
    from yolov3_trt.jobs.detect import Found, Skipped
    from yolov3_trt.jobs.detect_record import DetectRecord


@takes(ModelOptions, RunOptions, DetectSettings, Selection, DrawSettings, without={"clock"})
def detect(
    artifact: ArtifactArgument,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE...", help="Images, folders, globs, videos; - for a list on stdin."),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Take the picture that comes with the package, for the model `shapes`.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take the pictures in sub-folders of a folder too.")
    ] = False,
    save: Annotated[
        Path | None,
        writes("DIR", "Write each picture with its boxes there.", "--save", is_folder=True),
    ] = None,
    json: JsonOption = None,
    jsonl: Annotated[
        str | None,
        writes(
            "FILE", "Write each picture's result as a line of JSON, as soon as it is there; - for stdout.", "--jsonl"
        ),
    ] = None,
    **settings: Any,
) -> None:
    """Find objects in images, folders, globs and videos.

    Each picture is printed as it is done. A file that cannot be read is named and skipped; the exit code is then 1. Ctrl-C and
    SIGTERM keep what was found up to then.
    """
    from yolov3_trt.data.images import count_images, find_sources, picture_in_subfolder
    from yolov3_trt.detector import open_detector
    from yolov3_trt.models import sample_picture

    sources = [*(sources or ()), *([str(sample_picture())] if sample else ())]
    if not sources:
        raise typer.BadParameter("expected pictures, or --sample for the one in the package", param_hint="SOURCE...")
    if json == jsonl == "-":
        raise typer.BadParameter("stdout takes either --json - or --jsonl -", param_hint="--jsonl")
    paths = find_sources(_with_stdin(sources), recursive=recursive)
    if save is not None and any(path.resolve().parent == save.resolve() for path in paths):
        raise typer.BadParameter(f"{save} holds pictures to read, which this would overwrite", param_hint="--save")
    for folder in () if recursive else filter(Path.is_dir, map(Path, sources)):
        if (deeper := picture_in_subfolder(folder)) is not None:
            say(
                f"note: {folder} has pictures in sub-folders, e.g. {deeper}, which are left out; --recursive takes them"
            )
    own = {item.name for kind in (Selection, DrawSettings) for item in fields(kind)} & set(settings)
    selection, draw = settings_from({name: settings.pop(name) for name in own}, Selection, DrawSettings)
    with open_detector(artifact, **settings) as detector:
        record = _detect(detector, paths, count_images(paths), artifact, selection, Outputs(save, json, jsonl, draw))
    if record.skipped:
        say(f"yolov3_trt: {len(record.skipped)} of {record.num_done} files could not be read")
        raise typer.Exit(1)


@dataclass(frozen=True)
class Outputs:
    """Where results go besides the terminal."""

    save: Path | None
    json: str | None
    jsonl: str | None
    draw: DrawSettings

    @property
    def take_stdout(self) -> bool:
        """Whether stdout is for a program, and not for people."""
        return "-" in (self.json, self.jsonl)

    @property
    def allow_bar(self) -> bool:
        """Whether what is printed above a bar on the same terminal, and wrapped there, is for people."""
        return not (self.take_stdout and sys.stdout.isatty())

    def __str__(self) -> str:
        return ", ".join(str(target) for target in (self.json, self.jsonl, self.save) if target not in (None, "-"))


def _with_stdin(sources: list[str]) -> list[str]:
    """The sources, with the lines of stdin in the place of `-`."""
    return [name for source in sources for name in (_lines_of_stdin() if source == "-" else (source,))]


def _lines_of_stdin() -> list[str]:
    return [line for line in sys.stdin.read().splitlines() if line]


def _detect(
    detector: "Detector",
    paths: "Sequence[Path]",
    total: int | None,
    artifact: str,
    selection: Selection,
    outputs: Outputs,
) -> "DetectRecord":
    """Detect, print and write; says how far it came where it does not come to its end."""
    from yolov3_trt.jobs.detect import detect_files
    from yolov3_trt.jobs.detect_record import DetectRecord

    about = {"artifact": artifact, "backend": detector.backend.name.value}
    record = DetectRecord(
        about, total, lambda: detector.backend.fallbacks, json=_target(outputs.json), jsonl=_target(outputs.jsonl)
    )
    items = detect_files(detector, paths, outputs.save, selection, outputs.draw)
    try:
        with record:
            _work_off(track(items, "detecting", total, bar=outputs.allow_bar), record, outputs)
    except (KeyboardInterrupt, Yolov3TrtError) as end:
        far = f"after {record.num_done}{'' if total is None else f' of {total}'} pictures"
        if isinstance(end, KeyboardInterrupt):
            kept = f"; they are in {outputs}" if str(outputs) and record.num_done else ""
            say(f"yolov3_trt: stopped by {name_of_end(end)} {far}{kept}")
        elif record.num_done:
            say(f"yolov3_trt: failed {far}")
        raise
    return record


def _work_off(items: "Iterator[Found | Skipped]", record: "DetectRecord", outputs: Outputs) -> None:
    from yolov3_trt.jobs.detect import Skipped

    for item in items:
        with undivided():
            record.add(item)
        if isinstance(item, Skipped):
            say(f"skipped {item.error}")
        elif not outputs.take_stdout:
            show(_lines(item))


def _target(name: str | None) -> "Path | TextIO | None":
    if name is None:
        return None
    return sys.stdout if name == "-" else Path(name)


def _lines(found: "Found") -> str:
    """For people: a line, and one per object."""
    height, width = found.image_hw
    rows = [
        f"  {row.class_name:<16} {row.score:.3f}  {' '.join(f'{value:.1f}' for value in row.xyxy)}"
        for row in found.detections
    ]
    return "\n".join([f"{found.file}  {width}x{height}  {len(rows)} objects", *rows])
