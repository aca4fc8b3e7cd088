"""A report as Markdown: the same texts and tables, which hold every figure of the charts; no pictures."""

import re

from yolov3_trt.report.parts import Report, Section, Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&])")


def markdown_from_report(report: Report) -> str:
    """The whole file."""
    parts = [f"# {escaped(report.title)}", escaped(report.subtitle)]
    parts += [f"> **{escaped(alarm)}**" for alarm in report.alarms]
    for section in report.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _section(section: Section) -> list[str]:
    if section.pictures and not section.table:
        names = ", ".join(escaped(picture.name) for picture in section.pictures)
        return [f"## {escaped(section.title)}", f"In the HTML report: {names}"]
    parts = [f"## {escaped(section.title)}", *map(escaped, section.text)]
    if section.table:
        parts.append(_table(section.table))
    if section.code:
        longest = max((len(run) for run in re.findall("`+", section.code)), default=0)
        fence = "`" * max(3, longest + 1)
        parts.append(f"{fence}\n{section.code}\n{fence}")
    return parts


def _table(table: Table) -> str:
    lines = [_line(table.header), _line(("---", *("---:" for _ in table.header[1:])), plain=True)]
    for index, row in enumerate(table.rows):
        cells = [escaped(cell) for cell in row]
        lines.append(_line([f"**✗ {cells[0]}**", *cells[1:]] if index in table.bad else cells, plain=True))
    return "\n".join(lines)


def _line(cells: "tuple[str, ...] | list[str]", plain: bool = False) -> str:
    return "| " + " | ".join(cells if plain else map(escaped, cells)) + " |"
