"""Sections on time and on what it takes: latency, stages, size, roofline."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yolov3_trt.benchmarking.machine_roofline import MachineRoofline
from yolov3_trt.benchmarking.results import RowResult
from yolov3_trt.benchmarking.roofline import NetworkFigures
from yolov3_trt.benchmarking.timings import TimingFigures
from yolov3_trt.report.figures import NONE, ms, percent, plain, size, within
from yolov3_trt.report.parts import Bar, Chart, Section, Table

PERCENTILES = ("p50", "p90", "p95", "p99")


def latency_section(rows: Sequence[RowResult], reference: str | None) -> Section | None:
    """Percentiles of the whole way of a picture."""
    timed = [(row, row.timings) for row in rows if row.timings is not None]
    if not timed:
        return None
    columns = ("mean", *PERCENTILES, "min", "max")
    lines = tuple(
        (
            row.label,
            *(ms(timings.latency_ms[column]) for column in columns),
            plain(timings.fps, ".1f"),
            within(timings.speedup_vs_reference, timings.speedup_interval, ".2f", "×"),
        )
        for row, timings in timed
    )
    text = "The bar ends at the median (p50), the line at p99; ticks are p90 and p95."
    if reference is not None:
        text += f" The speed-up is over {reference}, with its interval where there is one."
    header = ("row", *(f"{column} ms" for column in columns), "fps", "speed-up")
    chart = Chart("ms", tuple(_latency_bar(row, timings) for row, timings in timed))
    return Section("Latency", (text,), chart, Table(header, lines, _bad([row for row, _ in timed])))


def stage_section(rows: Sequence[RowResult]) -> Section | None:
    """Milliseconds of each stage by the clock of the host, stacked."""
    staged = [(row, row.timings.stages_ms) for row in rows if row.timings is not None]
    return _stages("Where the time goes", staged)


def device_stage_section(rows: Sequence[RowResult]) -> Section | None:
    """The same by the device's own clock, of the rows that have one."""
    staged = [(row, row.device_stages_ms) for row in rows if row.device_stages_ms]
    return _stages("Where the time goes on the device", staged)


def _stages(title: str, staged: Sequence[tuple[RowResult, Mapping[str, float]]]) -> Section | None:
    if not staged:
        return None
    names = tuple(dict.fromkeys(name for _, stages in staged for name in stages))
    bars, lines = [], []
    for row, stages in staged:
        total = sum(stages.values())
        segments = tuple((name, stages[name]) for name in names if name in stages)
        bars.append(Bar(row.label, f"{ms(total)} ms", segments, bad=row.bad))
        lines.append((row.label, *(_stage_cell(stages.get(name), total) for name in names), ms(total)))
    header = ("row", *(f"{name} ms" for name in names), "sum ms")
    table = Table(header, tuple(lines), _bad([row for row, _ in staged]))
    return Section(title, (), Chart("ms", tuple(bars)), table)


def size_section(rows: Sequence[RowResult]) -> Section | None:
    """Bytes on disk, memory and power."""
    kinds: dict[str, tuple[Callable[[RowResult], float | None], Callable[[Any], str]]] = {
        "on disk": (lambda row: row.size_bytes, size),
        "memory MiB": (lambda row: row.memory_mib, _whole),
        "power W": (lambda row: row.power_w, plain),
    }
    sized = [row for row in rows if any(value(row) for value, _ in kinds.values())]
    if not sized:
        return None
    bars = tuple(
        Bar(row.label, size(row.size_bytes), (("size", row.size_bytes / 2**20),), bad=row.bad)
        for row in sized
        if row.size_bytes is not None
    )
    given = {name: kind for name, kind in kinds.items() if any(kind[0](row) for row in sized)}
    lines = tuple((row.label, *(shown(value(row)) for value, shown in given.values())) for row in sized)
    table = Table(("row", *given), lines, _bad(sized))
    return Section("Size", (), Chart("MiB", bars) if bars else None, table)


def roofline_section(rows: Sequence[RowResult], machines: Sequence[MachineRoofline]) -> Section | None:
    """What share of the machine's measured roofline each row reaches."""
    measured = [(row, row.roofline) for row in rows if row.roofline is not None]
    if not measured:
        return None
    bars = tuple(
        Bar(row.label, percent(roof.share), (("share", 100 * roof.share),), bad=row.bad) for row, roof in measured
    )
    lines = tuple(
        (
            row.label,
            *(plain(value, ".4g") for value in (roof.gflop, roof.gbyte, roof.intensity)),
            *(plain(value, ".4g") for value in (roof.achieved_gflops, roof.attainable_gflops)),
            percent(roof.share),
        )
        for row, roof in measured
    )
    header = ("row", "GFLOP", "GB moved", "FLOP per byte", "GFLOP/s", "attainable GFLOP/s", "share")
    longest = max([100.0, *(bar.end for bar in bars)])
    table = Table(header, lines, _bad([row for row, _ in measured]))
    return Section("Share of the machine's roofline", tuple(map(_roofline, machines)), Chart("%", bars, longest), table)


def layer_sections(networks: Sequence[NetworkFigures]) -> list[Section]:
    """Operations and bytes of each layer, a section per network."""
    header = ("layer", "GFLOP", "MB moved", "FLOP per byte", "at least ms", "bound by")
    text = "Counted from the layers; the time is what the measured roofline allows."
    return [
        Section(
            f"Layers of {network.model}",
            (text,),
            None,
            Table(
                header,
                tuple(
                    (
                        f"{layer.index} {layer.type}",
                        *(plain(value) for value in (layer.gflop, layer.mbyte, layer.intensity, layer.floor_ms)),
                        plain(layer.bound),
                    )
                    for layer in network.layers
                ),
            ),
        )
        for network in networks
    ]


def _roofline(machine: MachineRoofline) -> str:
    return (
        f"Measured on the {machine.measured_on} in {machine.precision} by {machine.by}: {plain(machine.gflops, '.4g')} GFLOP/s "
        f"in a matrix product, {plain(machine.copy_gb_s, '.4g')} GB/s in a copy. Attainable is the lower of what a network's "
        "arithmetic and its memory traffic allow."
    )


def _latency_bar(row: RowResult, timings: TimingFigures) -> Bar:
    places = {name: timings.latency_ms[name] for name in PERCENTILES}
    p50 = places["p50"]
    marks = tuple((name, place) for name, place in places.items() if name != "p50")
    return Bar(row.label, f"{ms(p50)} ms", (("p50", p50),), (p50, max(places.values())), marks, row.bad)


def _whole(value: float | None) -> str:
    return plain(value, ".0f")


def _stage_cell(value: float | None, total: float) -> str:
    if value is None:
        return NONE
    return f"{ms(value)} ({value / total:.0%})" if total else ms(value)


def _bad(rows: Sequence[RowResult]) -> frozenset[int]:
    return frozenset(index for index, row in enumerate(rows) if row.bad)
