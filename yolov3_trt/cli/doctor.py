"""`doctor`: what this machine has for the edge, what is missing or broken, and what to do."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import JsonOption
from yolov3_trt.cli.output import say, write_result

if TYPE_CHECKING:
    from yolov3_trt.doctor import Finding


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
    write_result(json, content, bug_report(found) if report else _text(found))
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
