"""Charts as plain SVG.

A bar is an SVG of its own as wide as its column, with places in percent and no view box. So bars shrink with the page while
the texts beside them, which are HTML, keep their size: legible at the width of a phone.
"""

import math
from html import escape

from yolov3_trt.report.parts import Bar, Chart, Plot

NUM_COLORS = 8  # of segments, in the style sheet
_BAR_HEIGHT, _BAR_TOP, _ROW_HEIGHT = 16, 3, 22  # px


def chart_html(chart: Chart) -> str:
    """A figure: a line per bar with its label, the bar and its value, then the scale and the legend."""
    end = _scale_end(chart)
    rows = "".join(_row(bar, end, chart.legend) for bar in chart.bars)
    return f'<figure class="chart">{rows}{_axis(end, chart.unit)}{legend_html(chart.legend)}</figure>'


def plot_html(plot: Plot) -> str:
    """A figure: lines on a square, the names of its axes, and a legend where there are several."""
    drawn = "".join(
        f'<polyline class="l{number % NUM_COLORS}" points="'
        f'{" ".join(f"{100 * x:.2f},{100 - 100 * y:.2f}" for x, y in points)}"><title>{escape(label)}</title></polyline>'
        for number, (label, points) in enumerate(plot.lines)
    )
    across, up = map(escape, plot.axes)
    return (
        f'<figure class="plot"><figcaption>{escape(plot.title)}</figcaption><div class="up">{up}: 1 at the top</div>'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="presentation">{drawn}</svg>'
        f'<div class="across"><span>0</span><span>{across}</span><span>1</span></div></figure>'
    )


def ticks(end: float) -> list[float]:
    """Round numbers from 0 to `end`, three to six of them."""
    if end <= 0:
        return [0.0]
    rough = end / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [n * step for n in range(int(end / step * 1.0001) + 1)]


def _scale_end(chart: Chart) -> float:
    return chart.end or max((bar.end for bar in chart.bars), default=0.0) or 1.0


def _row(bar: Bar, end: float, legend: tuple[str, ...]) -> str:
    bad = ' <strong class="bad">✗</strong>' if bar.bad else ""
    kind = "bar bad" if bar.bad else "bar"
    return (
        f'<div class="row"><div class="label">{escape(bar.label)}{bad}</div>'
        f'<svg class="{kind}" width="100%" height="{_ROW_HEIGHT}" role="presentation">{_drawn(bar, end, legend)}</svg>'
        f'<div class="figure">{escape(bar.figure)}</div></div>'
    )


def _drawn(bar: Bar, end: float, legend: tuple[str, ...]) -> str:
    shapes, start = [], 0.0
    for name, length in bar.segments:
        color = legend.index(name) % NUM_COLORS
        shapes.append(
            f'<rect class="c{color}" x="{_at(start, end)}" width="{_at(length, end)}" y="{_BAR_TOP}" '
            f'height="{_BAR_HEIGHT}"><title>{escape(name)}: {length:.4g}</title></rect>'
        )
        start += length
    middle = _BAR_TOP + _BAR_HEIGHT / 2
    if bar.whisker:
        low, high = (_at(place, end) for place in bar.whisker)
        shapes.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>')
        ends = bar.marks or (("from", bar.whisker[0]), ("to", bar.whisker[1]))
        shapes += [_mark(name, place, end) for name, place in ends]
    return "".join(shapes)


def _mark(name: str, place: float, end: float) -> str:
    x = _at(place, end)
    return (
        f'<line class="whisker" x1="{x}" x2="{x}" y1="{_BAR_TOP + 3}" y2="{_BAR_TOP + _BAR_HEIGHT - 3}">'
        f"<title>{escape(name)}: {place:.4g}</title></line>"
    )


def _axis(end: float, unit: str) -> str:
    marks = []
    for place in ticks(end):
        anchor = "start" if place == 0 else "end" if place > 0.93 * end else "middle"
        x = _at(place, end)
        marks.append(f'<line x1="{x}" x2="{x}" y1="0" y2="4"/>')
        marks.append(f'<text x="{x}" y="16" text-anchor="{anchor}">{place:.4g}</text>')
    base = '<line x1="0" x2="100%" y1="0.5" y2="0.5"/>'
    return (
        f'<div class="row axis"><div class="label"></div><svg class="axis" width="100%" height="20" role="presentation">'
        f'{base}{"".join(marks)}</svg><div class="figure">{escape(unit)}</div></div>'
    )


def legend_html(names: tuple[str, ...]) -> str:
    """Colours and what they stand for; nothing where there is one only."""
    if len(names) < 2:
        return ""
    keys = "".join(
        f'<li><svg width="12" height="12" role="presentation"><rect class="c{index % NUM_COLORS}" width="12" height="12"/>'
        f"</svg> {escape(name)}</li>"
        for index, name in enumerate(names)
    )
    return f'<ul class="legend">{keys}</ul>'


def _at(value: float, end: float) -> str:
    """A place or length of the scale in percent; what lies beyond an end is drawn there."""
    return f"{100 * min(max(value / end, 0), 1):.3f}%"
