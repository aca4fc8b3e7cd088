"""`fetch`: published weights into the cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolov3_trt.cli.options import JsonOption
from yolov3_trt.cli.output import say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.jobs.fetch import Fetched


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A published Darknet model (`models` lists them).")],
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="A mirror that has the file, in place of the known places.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Take this file, which is here already.")
    ] = None,
    dest: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the weights go; default: the cache, where every verb looks."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="The digest to expect, in place of the published one.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Download the published weights of a model, check them by their digest, and keep them.

    A download that was interrupted goes on where it stopped when the same command is given again.
    """
    from yolov3_trt.jobs.fetch import fetch as job
    from yolov3_trt.reporter import Reporter

    if url is not None and source is not None:
        raise typer.BadParameter("goes not with --url", param_hint="--from")
    try:
        fetched = job(name, url=url, source=source, destination=dest, sha256=sha256, reporter=Reporter(say, track))
    except KeyboardInterrupt:
        say("yolov3_trt: stopped; what has come is kept: the same command goes on from there")
        raise
    write_result(json, fetched.to_json(), _text(fetched))
    if json != "-":
        say(_next(fetched, in_cache=dest is None))


def _text(fetched: "Fetched") -> str:
    where = "was there already" if fetched.source is None else f"from {fetched.source}"
    return f"{fetched.path}  {fetched.num_bytes:,} bytes, {fetched.digest.replace(':', ' ')}\n  {where}"


def _next(fetched: "Fetched", *, in_cache: bool) -> str:
    """What to type now."""
    if fetched.cfg is not None:
        cfg = fetched.path.with_suffix(".cfg")
        return f"{fetched.name} is not built in: save {fetched.cfg} as {cfg}, then: yolov3_trt detect {cfg} PICTURE --save out/"
    weights = "" if in_cache else f" --weights {fetched.path}"
    return f"now: yolov3_trt detect {fetched.name} PICTURE{weights} --save out/"
