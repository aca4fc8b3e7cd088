"""One report of what both Pythons found: JSON and Markdown. The standard library only."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from acceptance.cases import SIMULATED, SIMULATED_GPU, Case
from acceptance.targets import judge

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
_LABEL = " (simulated: no figure of a GPU)" if SIMULATED else ""


def write(out: Path, steps: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> tuple[Path, Path]:
    """Join what the steps left in a folder; returns the JSON and the Markdown file, named after the GPU."""
    content = join(out, steps, cases)
    gpu = content["machine"].get("gpu") or {}
    name = re.sub(r"[^a-z0-9]+", "-", str(gpu.get("name", "unknown-gpu")).lower()).strip("-")
    paths = out / f"{name}.json", out / f"{name}.md"
    paths[0].write_text(json.dumps(content, indent=1) + "\n")
    paths[1].write_text(markdown(content))
    return paths


def join(out: Path, steps: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> dict[str, Any]:
    """Everything that is known; null for what no step has found out."""
    runtime, torch = (_read(out / f"python-{role}.json") or {} for role in ("runtime", "torch"))
    groups = dict.fromkeys(case.group for case in cases)
    tests = (
        "parity-kernels",
        *(f"parity-{case.name}" for case in cases),
        *(f"sanitizer-{tool}" for tool in SANITIZERS),
    )
    engines, peers = (_timed(out, kind, groups) for kind in ("engines", "torch"))
    return {
        "format": "yolov3_trt.gpu/1",
        "simulated": SIMULATED,
        "machine": _machine(runtime, torch),
        "cases": [case.name for case in cases],
        "targets": list(judge(engines["rows"], peers["rows"])),
        "parity": {name: parity(out / f"{name}.xml") for name in tests},
        "builds": {case.name: _build(out, case) for case in cases},
        "kernels": _read(out / "kernels.json"),
        "engines": engines,
        "torch": peers,
        "steps": [dict(step) for step in steps],
    }


def tensorrt_major(out: Path) -> int | None:
    """Of the TensorRT that was found; None where that is not known."""
    versions = (_read(out / "python-runtime.json") or {}).get("versions", {})
    major = str(versions.get("tensorrt", "")).partition(".")[0]
    return int(major) if major.isdigit() else None


def parity(junit: Path) -> dict[str, Any] | None:
    """Counts of a test run, the tests that failed, and the properties that were recorded; None where there was none."""
    try:
        root = ElementTree.parse(junit).getroot()
    except (OSError, ElementTree.ParseError):
        return None
    tests = list(root.iter("testcase"))
    kinds = ("failure", "error", "skipped")
    counts = {kind: sum(test.find(kind) is not None for test in tests) for kind in kinds}
    bad = [test for test in tests if test.find("failure") is not None or test.find("error") is not None]
    return {
        "simulated": SIMULATED,
        "passed": len(tests) - sum(counts.values()),
        **counts,
        "failed": [f"{test.get('classname')}::{test.get('name')}" for test in bad],
        "recorded": {str(item.get("name")): item.get("value") for item in root.iter("property")},
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The report for people."""
    machine, gpu = content["machine"], content["machine"].get("gpu") or {}
    sections = [
        f"# GPU acceptance: {gpu.get('name', 'no GPU found')}{_LABEL}",
        "\n".join(f"- {key}: {value}" for key, value in {**gpu, **machine["versions"], "cpu": machine["cpu"]}.items()),
        *_section("Targets", ("subject", "target", "value", ""), _target_rows(content["targets"])),
        *_section("Engines", _ENGINE_HEADER, _engine_rows(content["engines"]["rows"])),
        *_section("PyTorch", _TORCH_HEADER, _torch_rows(content["torch"]["rows"])),
        *_section("Kernels", _KERNEL_HEADER, _kernel_rows((content["kernels"] or {}).get("rows", []))),
        *_section("Parity", ("tests", "passed", "failed", "skipped"), _parity_rows(content["parity"])),
        *_section("Steps", ("step", "state", "s", "reason"), [tuple(map(str, s.values())) for s in content["steps"]]),
    ]
    return "\n\n".join(sections) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, in Markdown."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, str]:
    return f"## {title}{_LABEL}", table(header, rows) if rows else "Nothing was found out."


def _target_rows(targets: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    def verdict(row: Mapping[str, Any]) -> str:
        if row["met"] is None:
            return "not measured"
        return "simulated" if SIMULATED else "met" if row["met"] else "missed"

    def value(row: Mapping[str, Any]) -> str:
        return "" if row["value"] is None else f"{row['value']:.3g}{row['unit']}"

    return [(row["subject"], row["target"], value(row), verdict(row)) for row in targets]


_ENGINE_HEADER = (
    *("engine", "graph", "p50 ms", "p99 ms", "network ms", "pre+post µs", "fps, two slots", "CPU %", "GPU MiB"),
    "fallbacks",
)


def _engine_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for row in rows:
        if "failed" in row:
            found.append((row["name"], *[""] * (len(_ENGINE_HEADER) - 2), row["failed"]))
            continue
        for key, graph in (("with_graph", "yes"), ("without_graph", "no")):
            figures, stages = row[key], row[key]["device_stages_ms"]
            values = (
                f"{figures['latency_ms']['p50']:.3f}",
                f"{figures['latency_ms']['p99']:.3f}",
                f"{stages['network']:.3f}",
                f"{1e3 * (stages['preprocess'] + stages['postprocess']):.1f}",
                f"{figures['throughput_fps']:.1f}",
                f"{100 * figures['cpu_share_of_a_core']:.0f}",
                f"{figures['gpu_memory_mib']:.0f}",
            )
            found.append((row["name"], graph, *values, "; ".join(figures["fallbacks"])))
    return found


_TORCH_HEADER = ("subject", "batch", "variant", "p50 ms", "p99 ms", "network ms", "")


def _torch_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for row in rows:
        names = (row["subject"], str(row["batch"]), row["variant"])
        if "failed" in row:
            found.append((*names, "", "", "", row["failed"]))
            continue
        times = (row["latency_ms"]["p50"], row["latency_ms"]["p99"], row["network_ms"]["p50"])
        found.append((*names, *(f"{time_ms:.3f}" for time_ms in times), ""))
    return found


_KERNEL_HEADER = ("kernel", "subject", "rows", "µs", "MB", "GB/s", "share of a copy")


def _kernel_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            *(row["kernel"], row["subject"], str(row["rows"]), f"{row['time_us']:.2f}"),
            *(f"{row['num_bytes'] / 1e6:.3f}", f"{row['gb_per_s']:.1f}", f"{row['share_of_copy']:.2f}"),
        )
        for row in rows
    ]


def _parity_rows(runs: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [(name, *(("not run", "", "") if run is None else _counts(run))) for name, run in runs.items()]


def _counts(run: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(run["passed"]), str(run["failure"] + run["error"]), str(run["skipped"])


def _machine(runtime: Mapping[str, Any], torch: Mapping[str, Any]) -> dict[str, Any]:
    """What both Pythons were found on, and what they have, in words."""
    versions = {}
    for role, found in (("TensorRT's Python", runtime), ("PyTorch's Python", torch)):
        texts = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items())
        versions[role] = f"{found.get('python', 'not checked')}; {texts}"
    gpu = SIMULATED_GPU if SIMULATED else runtime.get("gpu")
    return {"gpu": gpu, "cpu": runtime.get("cpu"), "nvcc": runtime.get("nvcc"), "versions": versions}


def _timed(out: Path, kind: str, groups: Iterable[str]) -> dict[str, Any]:
    """What was measured of engines or of PyTorch, all models together."""
    parts = [part for part in (_read(out / f"{kind}-{group}.json") for group in groups) if part is not None]
    return {
        "simulated": SIMULATED,
        "machine": parts[0]["machine"] if parts else None,
        "seconds": parts[0]["seconds"] if parts else None,
        "rows": [row for part in parts for row in part["rows"]],
    }


def _build(out: Path, case: Case) -> dict[str, Any] | None:
    built = _read(out / "builds" / f"{case.name}.json")
    return None if built is None else {key: built.get(key) for key in ("simulated", "bytes", "build_s", "notes")}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content
