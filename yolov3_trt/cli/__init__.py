"""The command line: `yolov3_trt VERB`. One file per verb; what is heavy is imported inside the verb."""

import io
import re
import sys
from collections.abc import Sequence
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

app = typer.Typer(
    name="yolov3_trt",
    cls=HelpfulVerbs,
    help="Run a Darknet YOLOv3 at the edge: export, build a TensorRT engine, detect, measure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _verb in (
    models,
    fetch,
    export,
    adopt,
    calibrate,
    quantize,
    build,
    detect,
    camera,
    compare,
    certify,
    bench,
    report,
    info,
    doctor,
    train,
    demo,
):
    app.command(cls=CheckedVerb, epilog=epilog_of(_verb.__name__))(_verb)
app.command(name="eval", cls=CheckedVerb, epilog=epilog_of("eval"))(evaluate)
app.command(cls=CheckedVerb, epilog=epilog_of("shapes"), hidden=True)(shapes)  # its name before `data shapes`
app.add_typer(data, name="data")
app.add_typer(deploy, name="deploy")


def _show_version(asked: bool) -> None:
    if asked:
        print(f"yolov3_trt {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say more on stderr."),
    version: bool = typer.Option(  # noqa: ARG001 - its callback answers
        False, "--version", "-V", callback=_show_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
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
