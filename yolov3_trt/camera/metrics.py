"""The statistics of a loop in Prometheus' text format, version 0.0.4."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_OF_SOURCE = (  # name, kind, key of the statistics, help
    ("captured_frames_total", "counter", "captured", "Frames that the source gave."),
    ("processed_frames_total", "counter", "processed", "Frames that went through the detector."),
    ("dropped_frames_total", "counter", "dropped", "Frames that came too late."),
    ("reconnects_total", "counter", "reconnects", "How often the source was opened again."),
    ("fps", "gauge", "fps", "Results per second."),
)
_OF_OBJECTS = {  # kind, help
    "objects": ("gauge", "Objects that are there."),
    "objects_appeared_total": ("counter", "Objects that have come."),
    "line_crossings_total": ("counter", "Objects that have crossed a line."),
    "zone_objects": ("gauge", "Objects that are in a zone."),
    "zone_entries_total": ("counter", "Objects that have entered a zone."),
}


def metrics_text(stats: Mapping[str, Any]) -> str:
    """A snapshot of `Statistics` for `/metrics`; times in seconds."""
    return "\n".join([*_lines(stats), ""])


def _lines(stats: Mapping[str, Any]) -> Iterator[str]:
    sources = stats.get("sources", [])
    for name, kind, key, text in _OF_SOURCE:
        yield from _head(name, kind, text)
        for row in sources:
            yield f"yolov3_trt_{name}{{{_label('source', row['source'])}}} {row[key] or 0}"
    yield from _counts(sources)
    yield from _head("source_up", "gauge", "Whether the source gives frames.")
    for row in sources:
        yield f"yolov3_trt_source_up{{{_label('source', row['source'])}}} {int(row['state'] == 'running')}"
    yield from _head(
        "frame_age_seconds", "gauge", "From the frame to its result: the share of frames that took no longer."
    )
    for row in sources:
        yield from _quantiles("frame_age_seconds", row["frame_age_ms"], _label("source", row["source"]))
    yield from _head("latency_seconds", "gauge", "Of the detector: the share of frames that took no longer.")
    yield from _quantiles("latency_seconds", stats.get("latency_ms", {}))
    yield from _head("running_seconds", "gauge", "Since the start of the loop.")
    yield f"yolov3_trt_running_seconds {stats.get('elapsed_s', 0.0):.3f}"


def _counts(sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What `EventEngine` counts, of the sources where there are events."""
    lines: dict[str, list[str]] = {name: [] for name in _OF_OBJECTS}
    for row in sources:
        for name, labels, value in _counted(row.get("objects") or {}):
            pairs = {"source": row["source"], **labels}.items()
            lines[name].append(f"yolov3_trt_{name}{{{','.join(_label(*pair) for pair in pairs)}}} {value}")
    for name, samples in lines.items():
        if samples:
            yield from _head(name, *_OF_OBJECTS[name])
            yield from samples


def _counted(objects: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], int]]:
    """Each count with the name of its metric and its labels."""
    for name, key in (("objects", "present"), ("objects_appeared_total", "appeared")):
        for kind, count in objects.get(key, {}).items():
            yield name, {"class": kind}, count
    for line, both in objects.get("lines", {}).items():
        for direction, counts in both.items():
            for kind, count in counts.items():
                yield "line_crossings_total", {"line": line, "direction": direction, "class": kind}, count
    for zone, by_key in objects.get("zones", {}).items():
        for name, key in (("zone_objects", "present"), ("zone_entries_total", "entered")):
            for kind, count in by_key[key].items():
                yield name, {"zone": zone, "class": kind}, count


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP yolov3_trt_{name} {text}"
    yield f"# TYPE yolov3_trt_{name} {kind}"


def _quantiles(name: str, percentiles: Mapping[str, float | None], *labels: str) -> Iterator[str]:
    for percentile, value_ms in percentiles.items():
        if value_ms is not None:
            quantile = _label("quantile", f"{int(percentile.removeprefix('p')) / 100:g}")
            yield f"yolov3_trt_{name}{{{','.join([*labels, quantile])}}} {value_ms / 1e3:.6f}"


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{name}="{escaped}"'
