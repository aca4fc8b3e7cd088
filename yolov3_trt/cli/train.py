"""`train`: a model on a user's own classes."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.data_options import SkipFaultyOption, checking, faults_told, list_skipped, tell_notes, there
from yolov3_trt.cli.ending import ended_by_signals, exit_code
from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import DeviceName, JsonOption, reads, writes
from yolov3_trt.cli.output import progress_bar, reporter, say, table, write_result
from yolov3_trt.training.settings import TrainSettings

if TYPE_CHECKING:
    from yolov3_trt.training.watcher import StepReport


@takes(ModelOptions, TrainSettings)
def train(
    data: Annotated[
        Path,
        typer.Option(
            metavar="SET",
            callback=there,
            help="Data set: a YOLO data.yaml, a Darknet .data file, a VOC folder, or a folder with one or with COCO JSONs.",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which part of it to validate on; default: val, where there is one."),
    ] = None,
    skip_faulty: SkipFaultyOption = False,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Built-in model or a .cfg; see `models`.")] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Begin with random weights.")] = False,
    resume: Annotated[
        Path | None,
        reads(
            "DIR",
            "Go on with the run in this folder; all but the data set comes from there.",
            "--resume",
            is_folder=True,
        ),
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where to train; auto: a CUDA GPU if there is one.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Threads that read and augment pictures.")] = 2,
    cache_mib: Annotated[int, typer.Option(min=0, help="Memory for pictures, so that they are read once.")] = 512,
    output: Annotated[
        Path | None,
        writes("DIR", "The run's folder; default: runs/train.", "-o", "--output", is_folder=True),
    ] = None,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Train or fine-tune a model on a labelled data set; writes a Darknet .cfg and .weights.

    Ctrl-C and SIGTERM stop after the current step; `--resume` goes on from there, as it does after a crash.
    """
    from yolov3_trt.data.reading import load_data_set
    from yolov3_trt.errors import require
    from yolov3_trt.jobs.train import check_start
    from yolov3_trt.jobs.train import train as job

    require("torch", extra="train")
    check_start(resume, from_scratch, model=model, folder=output, **settings)  # before the pictures are read
    with faults_told():
        data_set = load_data_set(data, checking, split=split, skip_faulty=skip_faulty)
    tell_notes(data_set.notes)
    list_skipped(data_set.path, data_set.skipped)
    asked: list[str] = []  # the signal to stop, when it has come

    def stop(signal_name: str) -> None:
        asked.append(signal_name)
        say("stopping after this step ...")

    with ended_by_signals(stop), _progress(lambda: bool(asked)) as watcher:
        result = job(
            model,
            output,
            data=data_set,
            resume=resume,
            from_scratch=from_scratch,
            device=device,
            workers=workers,
            cache_mib=cache_mib,
            watcher=watcher,
            reporter=reporter(),
            **settings,
        )
    if not result.finished:
        say(f"stopped; go on with: yolov3_trt train --data {data} --resume {result.path.parent}")
        raise typer.Exit(exit_code(asked[0]))
    write_result(json, result.to_json(), _summary(result.path.with_suffix(""), result.best))


@contextmanager
def _progress(stop: Callable[[], bool]) -> Iterator[Any]:
    """A bar with the losses on a terminal; a line per epoch everywhere."""
    from yolov3_trt.training.watcher import Watcher

    runs: list[TrainSettings] = []

    def epoch_line(entry: dict[str, Any]) -> str:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in entry["loss"].items())
        accuracy = f"; AP {entry['AP']:.4f}, AP50 {entry['AP50']:.4f}" if entry.get("AP") is not None else ""
        return f"epoch {entry['epoch']}/{runs[0].epochs}: {losses}{accuracy} ({entry['train_s']:.0f} s)"

    if not sys.stderr.isatty():
        yield Watcher(on_epoch=lambda entry: say(epoch_line(entry)), stop=stop, on_start=runs.append)
        return
    with progress_bar() as progress:
        task = progress.add_task("training", total=None)

        def on_step(report: "StepReport") -> None:
            losses = " ".join(f"{name} {value:.3f}" for name, value in report.loss.items())
            progress.update(
                task,
                total=runs[0].epochs * report.steps,
                completed=report.epoch * report.steps + report.step + 1,
                description=f"epoch {report.epoch + 1}/{runs[0].epochs} {losses}",
            )

        yield Watcher(
            on_step, lambda entry: progress.console.print(epoch_line(entry), highlight=False), stop, runs.append
        )


def _summary(stem: Path, best: Mapping[str, Any]) -> str:
    text = f"{stem}.cfg, {stem}.weights"
    if best.get("AP") is None:
        return text + " (of the last epoch; no validation pictures)"
    row = (str(best["epoch"]), *(f"{best[name]:.4f}" for name in ("AP", "AP50", "AP75")))
    return f"{text}\n" + table(("best epoch", "AP", "AP50", "AP75"), [row])
