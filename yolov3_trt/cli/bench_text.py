"""The text of `bench`: a table of rows, and what its figures are read against."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from yolov3_trt.cli.output import table

if TYPE_CHECKING:
    from yolov3_trt.benchmarking.results import BenchmarkResult, RowResult
    from yolov3_trt.benchmarking.roofline import NetworkFigures

_HEADER = (
    "artifact",
    "backend",
    "precision",
    "pre ms",
    "net ms",
    "post ms",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "fps",
    "roofline",
    "parity",
    "speed-up",
)


def bench_text(result: "BenchmarkResult", layers: bool) -> str:
    """For people; with `layers` also every layer of every network."""
    where = result.machine
    lines = [table(_HEADER, [_cells(row) for row in result.rows])]
    if any(row.accuracy for row in result.rows):
        lines += ["", _accuracy(result.rows)]
    if layers:
        for network in result.layers:
            lines += ["", _layers(network)]
    lines += [*_remarks(result), *_method(result)]
    hardware = f"{where['cpu']}, {where['cores']} cores, GPU: {where['gpu'] or 'none'}"
    return "\n".join([*lines, f"{hardware}; {result.rounds} frames of {result.source}"])


def _cells(row: "RowResult") -> tuple[str, ...]:
    named = (row.label, row.backend, row.precision or "-")
    if row.timings is None:
        return (*named, *["-"] * (len(_HEADER) - 4), "not run")
    latency = row.timings.latency_ms
    figures = [*row.timings.stages_ms.values(), *(latency[p] for p in ("p50", "p95", "p99"))]
    return (
        *named,
        *(f"{value:.2f}" for value in figures),
        f"{row.timings.fps:.1f}",
        "-" if row.roofline is None else f"{row.roofline.share:.0%}",
        _parity(row),
        _speedup(row),
    )


def _parity(row: "RowResult") -> str:
    if row.parity is None:
        return "-"
    if not row.parity.passed:
        return "DIFFERS"
    return "ok" if row.parity.conclusive else "nothing found"


def _speedup(row: "RowResult") -> str:
    if row.timings is None or row.timings.speedup_vs_reference is None:
        return "-"
    speedup, interval = row.timings.speedup_vs_reference, row.timings.speedup_interval
    return f"{speedup:.2f}x" if interval is None else f"{speedup:.2f}x [{interval[0]:.2f},{interval[1]:.2f}]"


def _accuracy(rows: "Sequence[RowResult]") -> str:
    metrics = ("AP", "AP50", "AP75")
    cells = [
        (row.label, *("-" if (value := row.accuracy.metrics[name]) is None else f"{value:.4f}" for name in metrics))
        for row in rows
        if row.accuracy is not None
    ]
    return table(("artifact", *metrics), cells)


def _layers(network: "NetworkFigures") -> str:
    header = ("layer", "output", "GFLOP", "MB", "FLOP/B", "bound", "floor ms")
    cells = [
        (
            f"{layer.index} {layer.type}",
            "x".join(map(str, layer.output_chw)),
            f"{layer.gflop:.4f}",
            f"{layer.mbyte:.2f}",
            f"{layer.intensity:.1f}",
            layer.bound or "-",
            "-" if layer.floor_ms is None else f"{layer.floor_ms:.3f}",
        )
        for layer in network.layers
    ]
    total = sum(layer.gflop for layer in network.layers)
    height, width = network.input_hw
    return f"{network.model} at {width}x{height}: {total:.2f} GFLOP a picture\n{table(header, cells)}"


def _remarks(result: "BenchmarkResult") -> Iterator[str]:
    """What a reader must know about single rows."""
    for row in result.rows:
        if row.failed is not None:
            yield f"{row.label} does not run here: {row.failed}"
        if row.parity is not None and not row.parity.passed:
            yield f"{row.label} DIFFERS from {row.parity.reference}: {'; '.join(row.parity.faults)}"
        for reason in row.fallbacks:
            yield f"{row.label}: {reason}"
        if row.device_stages_ms:
            stages = ", ".join(f"{name} {value:.3f}" for name, value in row.device_stages_ms.items())
            yield f"{row.label}, ms on the device: {stages}"
        if row.throughput_fps:
            power = "" if row.power_w is None else f", {row.power_w:.1f} W"
            yield f"{row.label}: {row.throughput_fps:.1f} pictures/s without a pause{power}"
    if any(row.parity and not row.parity.conclusive for row in result.rows):
        yield "nothing was found in these frames by any row, so parity says nothing: give pictures with --images"


def _method(result: "BenchmarkResult") -> Iterator[str]:
    """What the figures mean."""
    if result.reference is not None:
        yield f"speed-up over {result.reference}: median of the ratio within a round, [its 95 % interval]"
    for machine in result.rooflines:
        product, copy = f"{machine.gflops:.0f} GFLOP/s", f"{machine.copy_gb_s:.1f} GB/s"
        on = f"{machine.measured_on}, {machine.precision}, {machine.by}"
        yield f"roofline: share of what {product} and {copy} allow, layer by layer ({on})"
    decode = "" if result.decode_ms is None else f"reading a picture {result.decode_ms:.2f} ms, "
    yield (
        f"beside the rows: {decode}drawing its boxes {result.draw_ms:.2f} ms; a reading of the timer "
        f"{result.timer_overhead_us:.2f} µs"
    )
