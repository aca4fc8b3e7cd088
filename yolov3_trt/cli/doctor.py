"""`doctor`: what this machine has for the edge, what is missing or broken, and what to do."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import JsonOption
from yolov3_trt.cli.output import say, write_result

if TYPE_CHECKING:
    from yolov3_trt.doctor import Finding

_COLORS = {"ok": "32", "warning": "33", "missing": "36", "error": "1;31"}  # green, yellow, cyan, bold red


def doctor(
    report: Annotated[
        bool, typer.Option("--report", help="Print what a bug report needs, as Markdown to be pasted there.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Check the machine: TensorRT, CUDA, OpenCV, cameras, memory, power mode. Ends with 1 where something is broken."""
    from yolov3_trt import __version__
    from yolov3_trt.doctor import Status, bug_report, findings

    found = findings()
    content = {"version": __version__, "findings": [_finding_json(finding) for finding in found]}
    write_result(json, content, bug_report(found) if report else colored(_text(found)))
    broken = [finding.name for finding in found if finding.status is Status.ERROR]
    if broken:
        say(f"yolov3_trt: installed but broken: {', '.join(broken)}; the fixes are in the report")
        raise typer.Exit(1)


def _finding_json(finding: "Finding") -> dict[str, Any]:
    return {"name": finding.name, "status": finding.status.value, "detail": finding.detail, "fix": finding.fix}


def _text(found: "tuple[Finding, ...]") -> str:
    lines = []
    for finding in found:
        lines.append(f"{finding.status.value:<8}  {finding.name:<14} {finding.detail}")
        if finding.fix is not None:
            lines.append(f"{'':<25}fix: {finding.fix}")
    return "\n".join(lines)


def colored(text: str) -> str:
    """The report with each line's first word in the colour of its status, where a person looks at it and wants colours.

    `NO_COLOR` forbids them, `FORCE_COLOR` asks for them where stdout is no terminal, as everywhere.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if console.color_system is None or console.no_color:
        return text
    words = {status: f"\x1b[{code}m{status}\x1b[0m" for status, code in _COLORS.items()}
    return re.sub(rf"^({'|'.join(words)})(?=\s)", lambda found: words[found[1]], text, flags=re.MULTILINE)
