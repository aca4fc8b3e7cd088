"""The command line: `yolov3_trt VERB`. One file per verb; what is heavy is imported inside the verb."""

import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from yolov3_trt._version import __version__
from yolov3_trt.cli.adopt import adopt
from yolov3_trt.cli.bench import bench
from yolov3_trt.cli.build import build
from yolov3_trt.cli.calibrate import calibrate
from yolov3_trt.cli.camera import camera
from yolov3_trt.cli.certify import certify
from yolov3_trt.cli.compare import compare
from yolov3_trt.cli.data import app as data
from yolov3_trt.cli.demo import demo
from yolov3_trt.cli.deploy import app as deploy
from yolov3_trt.cli.detect import detect
from yolov3_trt.cli.doctor import doctor
from yolov3_trt.cli.ending import exit_code, name_of_end, sigterm_unwinds
from yolov3_trt.cli.eval import evaluate
from yolov3_trt.cli.examples import epilog_of
from yolov3_trt.cli.export import export
from yolov3_trt.cli.fetch import fetch
from yolov3_trt.cli.hints import HelpfulVerbs
from yolov3_trt.cli.info import info
from yolov3_trt.cli.models import models
from yolov3_trt.cli.needs import CheckedVerb
from yolov3_trt.cli.output import say, set_up_logging
from yolov3_trt.cli.quantize import quantize
from yolov3_trt.cli.report import report
from yolov3_trt.cli.shapes import shapes
from yolov3_trt.cli.train import train
from yolov3_trt.errors import Yolov3TrtError

_START = """\
Run a Darknet-family detector at the edge.

  boxes in pictures        yolov3_trt detect shapes --sample --save out/
  a live camera            yolov3_trt camera yolov3-tiny.cfg --source 0
  a TensorRT engine        yolov3_trt build yolov3-tiny.cfg --precision fp16
  how fast and how right   yolov3_trt report yolov3-tiny.cfg --data data.yaml
  classes of your own      yolov3_trt train --data data.yaml --model yolov3-tiny

All verbs: yolov3_trt --help. One of them, with examples: yolov3_trt VERB --help. What this machine has: yolov3_trt doctor."""

app = typer.Typer(
    name="yolov3_trt",
    cls=HelpfulVerbs,
    help="Run a Darknet-family detector at the edge: export, build a TensorRT engine, detect, measure.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run": (detect, camera, demo),
    "Make": (models, fetch, export, build, adopt, info),
    "Quantise": (calibrate, quantize),
    "Measure and prove": (report, evaluate, bench, compare, certify),
    "Train": (train,),
    "This machine and others": (doctor,),
}
for _panel, _verbs in _PANELS.items():
    for _verb in _verbs:
        _name = "eval" if _verb is evaluate else _verb.__name__
        app.command(_name, cls=CheckedVerb, epilog=epilog_of(_name), rich_help_panel=_panel)(_verb)
app.command(cls=CheckedVerb, epilog=epilog_of("shapes"), hidden=True)(shapes)  # its name before `data shapes`
app.add_typer(data, name="data", rich_help_panel="Train")
app.add_typer(deploy, name="deploy", rich_help_panel="This machine and others")


def _show_version(asked: bool) -> None:
    if asked:
        print(f"yolov3_trt {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say more on stderr."),
    version: bool = typer.Option(  # noqa: ARG001 - its callback answers
        False, "--version", "-V", callback=_show_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    if context.invoked_subcommand is None:
        print(_START)
        raise typer.Exit(2)  # wrong usage: something was left out
    set_up_logging(verbose)


def entrypoint(args: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with 0, 1 (the job failed), 2 (wrong usage) or as a signal does (130, 143)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 shows "?" for what it has no sign for
            stream.reconfigure(errors="replace")
    try:
        with sigterm_unwinds():
            app(args)
    except KeyboardInterrupt as end:  # before Typer looks after it
        sys.exit(exit_code(name_of_end(end)))
    except (Yolov3TrtError, OSError) as exc:  # OSError: of the file system, where no better text was found for it
        _fail(str(exc))
    except Exception as exc:
        if isinstance(exc, RecursionError):
            _fail("the input is nested too deeply to be read")
        if not (isinstance(exc, MemoryError) or _NO_MEMORY.search(str(exc))):
            raise
        _fail(
            f"there is not enough memory ({str(exc)[:200] or 'an allocation failed'}); free some, or take smaller inputs"
        )


# What PyTorch, OpenCV, ONNX Runtime and the dynamic linker say; theirs are no MemoryError.
_NO_MEMORY = re.compile("allocate memory|[Ff]ailed to allocate|[Oo]ut of memory|bad_alloc|failed to map segment")


def _fail(text: str) -> NoReturn:
    say(f"yolov3_trt: {' '.join(text.split())}")
    sys.exit(1)
