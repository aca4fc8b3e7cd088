"""What a benchmark or an evaluation came to -> what the report says, in its order."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from yolov3_trt.benchmarking.results import BenchmarkResult, RowResult
from yolov3_trt.evaluation.accuracy import Evaluation
from yolov3_trt.report.accuracy import Scored, accuracy_section, class_section, difference_section, parity_section
from yolov3_trt.report.errors import data_set_text, error_sections
from yolov3_trt.report.figures import NONE, ms, plain
from yolov3_trt.report.parts import Picture, Report, Section, Table
from yolov3_trt.report.timing import (
    device_stage_section,
    latency_section,
    layer_sections,
    roofline_section,
    size_section,
    stage_section,
)

Gallery = Sequence[tuple[str, Mapping[str, bytes]]]  # name of a picture, label of a row -> JPEG file


def benchmark_report(result: BenchmarkResult, gallery: Gallery = (), command: Sequence[str] = ()) -> Report:
    """All that a benchmark measured; what it did not measure is left out."""
    rows = result.rows
    scored = [Scored(row.label, row.accuracy, row.bad) for row in rows if row.accuracy is not None]
    ran = sum(row.failed is None for row in rows)
    subtitle = (
        f"{_count(ran)}; {result.rounds} frames of {result.source}; {_hardware(result.machine)}",
        _alarms(rows),
    )
    sections = (
        *_latency_sections(result),
        accuracy_section(scored),
        *_check_sections(result),
        _picture_section(gallery),
        _remark_section([(row.label, reason) for row in rows for reason in row.fallbacks]),
        class_section(scored),
        _machine_section(result.machine),
        _method_section({**_timing_method(result), "annotations": result.annotations}, command),
        _figures_section(result.to_json()),
    )
    return Report("Latency and accuracy", *subtitle, tuple(found for found in sections if found))


def evaluation_report(result: Evaluation, gallery: Gallery = (), command: Sequence[str] = ()) -> Report:
    """All that an evaluation measured."""
    first, machine = result.rows[0], result.machine
    scored = [Scored(row.artifact, row.accuracy) for row in result.rows]
    sections = (
        *_accuracy_sections(result, scored),
        *error_sections(result),
        _picture_section(gallery),
        _remark_section([(row.artifact, reason) for row in result.rows for reason in row.fallbacks]),
        class_section(scored),
        _machine_section(machine),
        _method_section(_accuracy_method(result), command),
        _figures_section(result.to_json()),
    )
    subtitle = f"{first.truth.path}: {data_set_text(result)}; {_count(len(scored))}; {_hardware(machine)}"
    return Report("Accuracy", subtitle, (), tuple(found for found in sections if found))


def model_report(
    accuracy: Evaluation, speed: BenchmarkResult, gallery: Gallery = (), command: Sequence[str] = ()
) -> Report:
    """A model in several precisions: what an evaluation and a benchmark of the same artifacts measured."""
    scored = [Scored(row.artifact, row.accuracy) for row in accuracy.rows]
    remarks = [(row.artifact, reason) for row in accuracy.rows for reason in row.fallbacks]
    remarks += [(row.label, reason) for row in speed.rows for reason in row.fallbacks]
    sections = (
        *_accuracy_sections(accuracy, scored),
        *_latency_sections(speed),
        *_check_sections(speed),
        *error_sections(accuracy),
        _picture_section(gallery),
        _remark_section(list(dict.fromkeys(remarks))),
        class_section(scored),
        _machine_section(speed.machine),
        _method_section({**_accuracy_method(accuracy), **_timing_method(speed)}, command),
        _figures_section({"evaluation": accuracy.to_json(), "benchmark": speed.to_json()}),
    )
    subtitle = f"{accuracy.rows[0].truth.path}: {data_set_text(accuracy)}; {_hardware(speed.machine)}"
    return Report("Accuracy and speed", subtitle, _alarms(speed.rows), tuple(found for found in sections if found))


def _accuracy_sections(result: Evaluation, scored: Sequence[Scored]) -> Sequence[Section | None]:
    certificates = tuple(f"{name}: {certificate}" for name, certificate in result.certificates.items())
    proven = Section("Proof that AP holds", certificates) if certificates else None
    return accuracy_section(scored, result.notes), difference_section(result.differences), proven


def _latency_sections(result: BenchmarkResult) -> Sequence[Section | None]:
    return latency_section(result.rows, result.reference), stage_section(result.rows), device_stage_section(result.rows)


def _check_sections(result: BenchmarkResult) -> Sequence[Section | None]:
    return (
        parity_section(result.rows),
        size_section(result.rows),
        roofline_section(result.rows, result.rooflines),
        *layer_sections(result.layers),
    )


def _accuracy_method(result: Evaluation) -> Mapping[str, str | int | None]:
    return {
        "annotations": str(result.rows[0].truth.path),
        "resamples": result.resamples,
        "confidence": f"{result.rows[0].conf:.6g}",
    }


def _timing_method(result: BenchmarkResult) -> Mapping[str, str | int | None]:
    return {
        "frames": result.rounds,
        "source": result.source,
        "warm-up frames": result.warmup,
        "threads": result.threads,
        "a reading of the timer": f"{result.timer_overhead_us:.3g} µs",
        "reading a picture, beside the rows": None if result.decode_ms is None else f"{ms(result.decode_ms)} ms",
        "drawing its boxes, beside the rows": f"{ms(result.draw_ms)} ms",
    }


def _count(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"


def _hardware(machine: Mapping[str, Any]) -> str:
    return f"{machine['cpu']}, {machine['gpu'] or 'no GPU'}; measured on {machine['date']}"


def _alarms(rows: Sequence[RowResult]) -> tuple[str, ...]:
    alarms = []
    for row in rows:
        if row.failed is not None:
            alarms.append(f"{row.label} did not run: {row.failed}")
        elif row.parity is not None and not row.parity.passed:
            alarms.append(
                f"{row.label} FAILED the parity gate: it does not find what the reference finds, so its speed is not "
                f"comparable ({'; '.join(row.parity.faults)})."
            )
    return tuple(alarms)


def _picture_section(gallery: Gallery) -> Section | None:
    pictures = tuple(Picture(name, tuple(by_row.items())) for name, by_row in gallery if by_row)
    return Section("Pictures side by side", pictures=pictures) if pictures else None


def _remark_section(lines: Sequence[tuple[str, str]]) -> Section | None:
    """What a row does in a lesser way than it could, and why."""
    return Section("Fallbacks", (), None, Table(("row", "reason"), tuple(lines), prose=True)) if lines else None


def _machine_section(machine: Mapping[str, Any]) -> Section:
    table = Table(("what", "value"), tuple(_flat(machine)), prose=True)
    return Section("Machine and versions", (), None, table)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += _flat(value, "" if name == "versions" else f"{name} ")
        elif isinstance(value, list | tuple):
            found.append((name, ", ".join(map(plain, value)) or NONE))
        else:
            found.append((name, "none" if value is None else plain(value, ".6g")))
    return found


def _method_section(said: Mapping[str, str | int | None], command: Sequence[str]) -> Section:
    lines = tuple((name, str(value)) for name, value in said.items() if value is not None)
    table = Table(("what", "value"), lines, prose=True)
    return Section("How it was measured", (), None, table, code=shlex.join(command) or None)


def _figures_section(content: Mapping[str, Any]) -> Section:
    return Section(
        "Every figure", ("What this report was made from.",), code=json.dumps(content, indent=1, default=str)
    )
