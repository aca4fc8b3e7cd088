"""Sections on time and on what it takes: latency, stages, size, roofline."""

from collections.abc import Mapping, Sequence

from yolov3_trt.report.figures import NONE, listed, ms, number, part, percent, plain, size, within
from yolov3_trt.report.parts import Bar, Chart, Section, Table
from yolov3_trt.report.rows import Json, Row

PERCENTILES = ("p50", "p90", "p95", "p99")


def latency_section(content: Json, rows: Sequence[Row]) -> Section | None:
    """Percentiles of the whole way of a picture."""
    timed = [row for row in rows if number(row.latency.get("p50")) is not None]
    if not timed:
        return None
    columns = ("mean", *PERCENTILES, "min", "max")
    lines = [
        (
            row.label,
            *(ms(row.latency.get(column)) for column in columns),
            plain(row.json.get("fps"), ".1f"),
            within(row.json.get("speedup_vs_reference"), row.json.get("speedup_interval"), ".2f", "×"),
        )
        for row in timed
    ]
    text = "The bar ends at the median (p50), the line at p99; ticks are p90 and p95."
    reference = content.get("reference")
    if reference:
        text += f" The speed-up is over {reference}, with its interval where there is one."
    header = ("row", *(f"{column} ms" for column in columns), "fps", "speed-up")
    chart = Chart("ms", tuple(map(_latency_bar, timed)))
    return Section("Latency", (text,), chart, Table(header, tuple(lines), _bad(timed)))


def stage_section(rows: Sequence[Row], key: str = "stages_ms", title: str = "Where the time goes") -> Section | None:
    """Milliseconds of each stage, stacked."""
    staged = [row for row in rows if row.stages(key)]
    if not staged:
        return None
    names = tuple(dict.fromkeys(name for row in staged for name in row.stages(key)))
    bars, lines = [], []
    for row in staged:
        stages = row.stages(key)
        total = sum(stages.values())
        segments = tuple((name, stages[name]) for name in names if name in stages)
        bars.append(Bar(row.label, f"{ms(total)} ms", segments, bad=row.bad))
        lines.append((row.label, *(_stage_cell(stages.get(name), total) for name in names), ms(total)))
    header = ("row", *(f"{name} ms" for name in names), "sum ms")
    return Section(title, (), Chart("ms", tuple(bars)), Table(header, tuple(lines), _bad(staged)))


def size_section(rows: Sequence[Row]) -> Section | None:
    """Bytes on disk, memory and power."""
    sized = [row for row in rows if any(number(row.json.get(key)) for key in ("size_bytes", "memory_mib", "power_w"))]
    if not sized:
        return None
    bars = tuple(
        Bar(row.label, size(bytes_), (("size", bytes_ / 2**20),), bad=row.bad)
        for row in sized
        if (bytes_ := number(row.json.get("size_bytes"))) is not None
    )
    kinds = {"on disk": ("size_bytes", size), "memory MiB": ("memory_mib", _whole), "power W": ("power_w", plain)}
    given = {name: kind for name, kind in kinds.items() if any(number(row.json.get(kind[0])) for row in sized)}
    lines = tuple((row.label, *(shown(row.json.get(key)) for key, shown in given.values())) for row in sized)
    table = Table(("row", *given), lines, _bad(sized))
    return Section("Size", (), Chart("MiB", bars) if bars else None, table)


def roofline_section(content: Json, rows: Sequence[Row]) -> Section | None:
    """What share of the machine's measured ceiling each row reaches."""
    shares = [(row, part(row.json, "roofline")) for row in rows]
    measured = [(row, roof) for row, roof in shares if number(roof.get("share")) is not None]
    if not measured:
        return None
    bars = tuple(
        Bar(row.label, percent(roof["share"]), (("share", 100 * float(roof["share"])),), bad=row.bad)
        for row, roof in measured
    )
    columns = ("gflop", "gbyte", "intensity", "achieved_gflops", "ceiling_gflops")
    lines = tuple(
        (row.label, *(plain(roof.get(column), ".4g") for column in columns), percent(roof["share"]))
        for row, roof in measured
    )
    header = ("row", "GFLOP", "GB moved", "FLOP per byte", "GFLOP/s", "ceiling GFLOP/s", "share")
    longest = max([100.0, *(bar.end for bar in bars)])
    table = Table(header, lines, _bad([row for row, _ in measured]))
    return Section("Share of the machine's ceiling", _ceiling(content), Chart("%", bars, longest), table)


def layer_sections(content: Json) -> list[Section]:
    """Operations and bytes of each layer, a section per model."""
    columns = {"GFLOP": "gflop", "MB moved": "mbyte", "FLOP per byte": "intensity", "at least ms": "floor_ms"}
    sections = []
    for model in listed(content, "layers"):
        layers = (
            [layer for layer in listed(model, "layers") if isinstance(layer, Mapping)]
            if isinstance(model, Mapping)
            else []
        )
        lines = tuple(
            (
                f"{plain(layer.get('index'))} {plain(layer.get('type'))}",
                *(plain(layer.get(key), ".3g") for key in columns.values()),
                plain(layer.get("bound")),
            )
            for layer in layers
        )
        if lines:
            text = "Counted from the layers; the time is what the measured ceiling allows."
            title = f"Layers of {plain(model.get('model'))}"
            sections.append(Section(title, (text,), None, Table(("layer", *columns, "bound by"), lines)))
    return sections


def _ceiling(content: Json) -> tuple[str, ...]:
    ceiling = part(content, "ceiling")
    if not ceiling:
        return ()
    return (
        f"Measured on the {plain(ceiling.get('measured_on'))}: {plain(ceiling.get('gflops'), '.4g')} GFLOP/s in a matrix "
        f"product, {plain(ceiling.get('copy_gb_s'), '.4g')} GB/s in a copy. A row's ceiling is the lower of what its "
        "arithmetic and its memory traffic allow.",
    )


def _latency_bar(row: Row) -> Bar:
    places = {name: number(row.latency.get(name)) for name in PERCENTILES}
    p50 = places["p50"] or 0.0
    marks = tuple((name, place) for name, place in places.items() if place is not None and name != "p50")
    whisker = (p50, max(place for _, place in marks)) if marks else None
    return Bar(row.label, f"{ms(p50)} ms", (("p50", p50),), whisker, marks, row.bad)


def _whole(value: object) -> str:
    return plain(value, ".0f")


def _stage_cell(value: float | None, total: float) -> str:
    if value is None:
        return NONE
    return f"{ms(value)} ({value / total:.0%})" if total else ms(value)


def _bad(rows: Sequence[Row]) -> frozenset[int]:
    return frozenset(index for index, row in enumerate(rows) if row.bad)
