"""The text of `bench`: a table of rows, and what its figures are read against."""

from collections.abc import Iterator, Mapping
from typing import Any

from yolov3_trt.cli.output import table

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
    "ceiling",
    "parity",
    "speed-up",
)


def bench_text(content: Mapping[str, Any], layers: bool) -> str:
    """For people; with `layers` also every layer of every network."""
    where = content["machine"]
    lines = [table(_HEADER, [_cells(row) for row in content["rows"]])]
    if any(row["accuracy"] for row in content["rows"]):
        lines += ["", _accuracy(content["rows"])]
    if layers:
        for network in content["layers"]:
            lines += ["", _layers(network)]
    lines += [*_remarks(content), *_method(content)]
    hardware = f"{where['cpu']}, {where['cores']} cores, GPU: {where['gpu'] or 'none'}"
    return "\n".join([*lines, f"{hardware}; {content['frames']} frames of {content['source']}"])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    named = (row["label"], row["backend"], row["precision"] or "-")
    if row["failed"] is not None:
        return (*named, *["-"] * (len(_HEADER) - 4), "not run")
    figures = [*row["stages_ms"].values(), *(row["latency_ms"][p] for p in ("p50", "p95", "p99"))]
    share = None if row["roofline"] is None else row["roofline"]["share"]
    return (
        *named,
        *(f"{value:.2f}" for value in figures),
        f"{row['fps']:.1f}",
        "-" if share is None else f"{share:.0%}",
        _parity(row),
        _speedup(row),
    )


def _parity(row: Mapping[str, Any]) -> str:
    parity = row["parity"]
    if parity is None:
        return "-"
    if not parity["passed"]:
        return "DIFFERS"
    return "ok" if parity["conclusive"] else "nothing found"


def _speedup(row: Mapping[str, Any]) -> str:
    speedup, interval = row["speedup_vs_reference"], row["speedup_interval"]
    if speedup is None:
        return "-"
    return f"{speedup:.2f}x" if interval is None else f"{speedup:.2f}x [{interval[0]:.2f},{interval[1]:.2f}]"


def _accuracy(rows: list[dict[str, Any]]) -> str:
    metrics = ("AP", "AP50", "AP75")
    cells = [
        (row["label"], *("-" if row["accuracy"][name] is None else f"{row['accuracy'][name]:.4f}" for name in metrics))
        for row in rows
        if row["accuracy"] is not None
    ]
    return table(("artifact", *metrics), cells)


def _layers(network: Mapping[str, Any]) -> str:
    header = ("layer", "output", "GFLOP", "MB", "FLOP/B", "bound", "floor ms")
    cells = [
        (
            f"{row['index']} {row['type']}",
            "x".join(map(str, row["output_chw"])),
            f"{row['gflop']:.4f}",
            f"{row['mbyte']:.2f}",
            f"{row['intensity']:.1f}",
            row.get("bound", "-"),
            f"{row['floor_ms']:.3f}" if "floor_ms" in row else "-",
        )
        for row in network["layers"]
    ]
    total = sum(row["gflop"] for row in network["layers"])
    height, width = network["input_hw"]
    return f"{network['model']} at {height}x{width}: {total:.2f} GFLOP a picture\n{table(header, cells)}"


def _remarks(content: Mapping[str, Any]) -> Iterator[str]:
    """What must not go unsaid of single rows."""
    for row in content["rows"]:
        if row["failed"] is not None:
            yield f"{row['label']} does not run here: {row['failed']}"
        if row["parity"] is not None and not row["parity"]["passed"]:
            yield f"{row['label']} DIFFERS from {row['parity']['reference']}: {'; '.join(row['parity']['faults'])}"
        for reason in row["fallbacks"]:
            yield f"{row['label']}: {reason}"
        if row["device_stages_ms"]:
            stages = ", ".join(f"{name} {value:.3f}" for name, value in row["device_stages_ms"].items())
            yield f"{row['label']}, ms on the device: {stages}"
        if row["throughput_fps"]:
            power = "" if row["power_w"] is None else f", {row['power_w']:.1f} W"
            yield f"{row['label']}: {row['throughput_fps']:.1f} pictures/s without a pause{power}"
    if any(row["parity"] and not row["parity"]["conclusive"] for row in content["rows"]):
        yield "nothing was found in these frames by any row, so parity says nothing: give pictures with --images"


def _method(content: Mapping[str, Any]) -> Iterator[str]:
    """What the figures mean."""
    if content["reference"] is not None:
        yield f"speed-up over {content['reference']}: median of the ratio within a round, [its 95 % interval]"
    if content["ceiling"] is not None:
        for ceiling in content["ceilings"]:
            product, copy = f"{ceiling['gflops']:.0f} GFLOP/s", f"{ceiling['copy_gb_s']:.1f} GB/s"
            on = f"{ceiling['measured_on']}, {ceiling['precision']}, {ceiling['by']}"
            yield f"ceiling: share of what {product} and {copy} allow, layer by layer ({on})"
    host, overhead = content["host_ms"], content["timer_overhead_us"]
    decode = "" if host["decode"] is None else f"reading a picture {host['decode']:.2f} ms, "
    yield f"beside the rows: {decode}drawing its boxes {host['draw']:.2f} ms; a reading of the timer {overhead:.2f} µs"
