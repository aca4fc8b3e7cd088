"""Reports of what `bench` and `eval` measured: one self-contained HTML file, Markdown, or JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolov3_trt.errors import OutputError
from yolov3_trt.files import write_text

SUFFIXES = (".html", ".md", ".json")


def write_report(
    path: Path, content: Mapping[str, Any], gallery: Sequence[tuple[str, Mapping[str, bytes]]] = ()
) -> None:
    """Write a report, whole or not at all.

    Args:
        path: its suffix says what it becomes: one of SUFFIXES.
        content: plain JSON values as `bench --json` and `eval --json` write them; what is missing or null is left out.
        gallery: pictures side by side, in HTML only: (name of the picture, label of a row -> JPEG file).

    Raises:
        OutputError: another suffix, or the file cannot be written.
    """
    from yolov3_trt.report.content import report_from_content
    from yolov3_trt.report.markdown import markdown_from_report
    from yolov3_trt.report.page import html_from_report

    check_report_path(path)
    if path.suffix == ".json":
        write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return
    report = report_from_content(content, gallery)
    write_text(path, html_from_report(report) if path.suffix == ".html" else markdown_from_report(report))


def check_report_path(path: Path) -> None:
    """Refuse a name that says no format, before hours are spent on measuring.

    Raises:
        OutputError: what it is and what was expected.
    """
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path}: a report is one of {', '.join(SUFFIXES)}; give a name that ends in one of them")
