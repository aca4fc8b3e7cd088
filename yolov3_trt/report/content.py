"""Content of `bench` or `eval`, plain JSON values, -> what the report says, in its order."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from yolov3_trt.report.accuracy import accuracy_section, class_section, difference_section, parity_section
from yolov3_trt.report.figures import NONE, listed, ms, number, part, plain, within
from yolov3_trt.report.parts import Picture, Report, Section, Table
from yolov3_trt.report.rows import Json, Row, rows_of
from yolov3_trt.report.timing import latency_section, layer_sections, roofline_section, size_section, stage_section

Gallery = Sequence[tuple[str, Mapping[str, bytes]]]


def report_from_content(content: Json, gallery: Gallery = ()) -> Report:
    """All that can be said from what is there; parts that are missing or null are left out."""
    rows = rows_of(content)
    sections = (
        latency_section(content, rows),
        stage_section(rows),
        stage_section(rows, "device_stages_ms", "Where the time goes on the device"),
        accuracy_section(content, rows),
        difference_section(content),
        parity_section(rows),
        size_section(rows),
        roofline_section(content, rows),
        *layer_sections(content),
        _picture_section(gallery),
        _remark_section(rows),
        class_section(rows),
        _machine_section(content),
        _method_section(content),
        Section("Every figure", ("What this report was made from.",), code=json.dumps(content, indent=1, default=str)),
    )
    timed = any(row.latency for row in rows)
    title = "Latency and accuracy" if timed else "Accuracy"
    return Report(title, _subtitle(content, rows), _alarms(rows), tuple(found for found in sections if found))


def _subtitle(content: Json, rows: Sequence[Row]) -> str:
    machine = part(content, "machine")
    ran = sum(row.failure is None for row in rows)
    pieces = [f"{ran} row{'' if ran == 1 else 's'}"]
    if content.get("frames") is not None:
        pieces.append(f"{plain(content['frames'])} frames of {plain(content.get('source'))}")
    if machine:
        pieces.append(f"{plain(machine.get('cpu'))}, GPU: {plain(machine.get('gpu') or 'none')}")
    return "; ".join(pieces)


def _alarms(rows: Sequence[Row]) -> tuple[str, ...]:
    alarms = []
    for row in rows:
        if row.passed is False:
            faults = "; ".join(map(str, listed(part(row.json, "parity"), "faults")))
            alarms.append(
                f"{row.label} FAILED the parity gate: it does not find what the reference finds, so its speed is not "
                f"comparable{f' ({faults})' if faults else ''}."
            )
        elif row.failure:
            alarms.append(f"{row.label} did not run: {row.failure}")
    return tuple(alarms)


def _picture_section(gallery: Gallery) -> Section | None:
    pictures = tuple(Picture(name, tuple(by_row.items())) for name, by_row in gallery if by_row)
    return Section("Pictures side by side", pictures=pictures) if pictures else None


def _remark_section(rows: Sequence[Row]) -> Section | None:
    """What a row does in a lesser way than it could, and why."""
    lines = tuple((row.label, str(reason)) for row in rows for reason in listed(row.json, "fallbacks"))
    return Section("Fallbacks", (), None, Table(("row", "reason"), lines, prose=True)) if lines else None


def _machine_section(content: Json) -> Section | None:
    lines = tuple(_flat(part(content, "machine")))
    return Section("Machine and versions", (), None, Table(("what", "value"), lines, prose=True)) if lines else None


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


def _method_section(content: Json) -> Section | None:
    said = {
        "frames": content.get("frames"),
        "source": content.get("source"),
        "rounds": content.get("rounds"),
        "warm-up frames": content.get("warmup"),
        "threads": content.get("threads"),
        "annotations": content.get("annotations"),
        "resamples": content.get("resamples"),
        "confidence": content.get("conf"),
    }
    lines = [(name, plain(value, ".6g")) for name, value in said.items() if value is not None]
    if number(content.get("timer_overhead_us")) is not None:
        lines.append(("a reading of the timer", within(content["timer_overhead_us"], None, ".3g", " µs")))
    for name, what in (("decode", "reading a picture"), ("draw", "drawing its boxes")):
        if number(part(content, "host_ms").get(name)) is not None:
            lines.append((f"{what}, beside the rows", f"{ms(part(content, 'host_ms')[name])} ms"))
    command = " ".join(shlex.quote(str(word)) for word in listed(content, "command"))
    if not lines and not command:
        return None
    table = Table(("what", "value"), tuple(lines), prose=True) if lines else None
    return Section("How it was measured", (), None, table, code=command or None)
