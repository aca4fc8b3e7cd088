"""A report as one HTML file that needs nothing else: style, charts and pictures are inside, and nothing may be fetched."""

import base64
from html import escape
from pathlib import Path

from yolov3_trt.report.charts import chart_html, legend_html, plot_html
from yolov3_trt.report.parts import Picture, Report, Section, Table

# Whatever slips into a label, the browser runs no script and asks no server.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MANY_ROWS = 12  # tables longer than this are folded
_MANY_LINES = 8
_MANY_LETTERS, _LONG = 40, ' class="long"'  # cells longer than this wrap


def html_from_report(report: Report) -> str:
    """The whole file."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    alarms = "".join(f"<li>{escape(alarm)}</li>" for alarm in report.alarms)
    banner = f'<ul class="alarms" role="alert">{alarms}</ul>' if alarms else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(report.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(report.title)}</h1>\n<p class="subtitle">{escape(report.subtitle)}</p>\n{banner}\n'
        f"{''.join(map(_section, report.sections))}</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<section>\n<h2>{escape(section.title)}</h2>\n"]
    parts += [f"<p>{escape(text)}</p>\n" for text in section.text]
    if section.chart:
        parts.append(f"{chart_html(section.chart)}\n")
    if section.plots:
        parts.append(f'<div class="plots">{"".join(map(plot_html, section.plots))}</div>\n')
        parts.append(legend_html(tuple(label for label, _ in section.plots[0].lines)))
    if section.table:
        shown = _table(section.table)
        many = len(section.table.rows) > _MANY_ROWS
        parts.append(_folded(f"{len(section.table.rows)} rows", shown) if many else shown)
    parts += [_picture(picture) for picture in section.pictures]
    if section.code:
        shown = f"<pre>{escape(section.code)}</pre>\n"
        many = section.code.count("\n") > _MANY_LINES
        parts.append(_folded("JSON", shown) if many else shown)
    return "".join([*parts, "</section>\n"])


def _folded(name: str, content: str) -> str:
    return f"<details><summary>{escape(name)}</summary>\n{content}</details>\n"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    lines = []
    for index, row in enumerate(table.rows):
        marked = ' class="bad"' if index in table.bad else ""
        first = f'<th scope="row">{escape(row[0])}</th>'
        cells = "".join(f"<td{_LONG if len(cell) > _MANY_LETTERS else ''}>{escape(cell)}</td>" for cell in row[1:])
        lines.append(f"<tr{marked}>{first}{cells}</tr>\n")
    kind = ' class="prose"' if table.prose else ""
    return (
        f'<div class="wide" tabindex="0"><table{kind}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{"".join(lines)}</tbody>\n'
        "</table></div>\n"
    )


def _picture(picture: Picture) -> str:
    seen = "".join(
        f'<figure><img loading="lazy" alt="{escape(f"{picture.name}, {label}")}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"><figcaption>{escape(label)}</figcaption></figure>'
        for label, jpeg in picture.by_row
    )
    return f'<h3>{escape(picture.name)}</h3>\n<div class="pictures">{seen}</div>\n'
