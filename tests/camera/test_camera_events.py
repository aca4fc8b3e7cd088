"""Numbers and events through the loop: in results, lines, statistics and metrics."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ListSink, ListSource, fake_detector, grey_pictures
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.loop import LoopOptions, run_loop
from yolov3_trt.camera.metrics import metrics_text
from yolov3_trt.camera.sinks import JsonLinesSink
from yolov3_trt.selection import Selection

# The middle of the box's lower edge is at 4 to 25 px, that is over 0.25 of the width after 12 of 30 pictures and back again.
LEVELS = [*range(8, 50, 3), *range(50, 8, -3), 8, 8, 8]


class TimedSource(ListSource):
    """Ten pictures a second, as of a video."""

    def read(self) -> Frame | None:
        frame = super().read()
        return None if frame is None else replace(frame, position_s=frame.index / 10)


def test_events_are_in_results_lines_statistics_and_metrics(tmp_path: Path):
    zones = tmp_path / "zones.toml"
    zones.write_text(
        "[[line]]\nname = 'gate'\npoints = [[0.25, 1], [0.25, 0]]\nsource = 'door'\n"  # from below: to the right is in
        "[[zone]]\nname = 'all'\npoints = [[0, 0], [1, 0], [1, 1], [0, 1]]\nwatch = true\n"
    )
    sink = ListSink()
    options = LoopOptions(selection=Selection(zones=zones), events=True)
    sources = [TimedSource(grey_pictures(LEVELS), name) for name in ("door", "yard")]
    with JsonLinesSink(tmp_path / "found.jsonl") as lines:
        statistics = run_loop(fake_detector(), sources, [sink, lines], options)
    of_door = [result for result in sink.results if result.frame.source == "door"]
    events = [(event.kind, event.place, event.direction) for result in of_door for event in result.events]
    assert sorted(events, key=str) == [
        ("appeared", None, None),
        ("crossed", "gate", "in"),
        ("crossed", "gate", "out"),
        ("entered", "all", None),
    ]
    assert {row.track_id for result in sink.results for row in result.detections} == {1}  # each source counts its own
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert sum("detections" in row for row in rows) == 2 * len(LEVELS)
    assert all(found["track_id"] == 1 for row in rows for found in row.get("detections", ()))
    (crossed,) = [row for row in rows if row.get("direction") == "in"]
    told = crossed["index"]
    assert crossed["position_s"] == told / 10 and crossed["ago_s"] == pytest.approx(0.3, abs=0.11)
    assert LEVELS[round(told - 10 * crossed["ago_s"])] > 32 >= LEVELS[round(told - 10 * crossed["ago_s"]) - 1]
    expected = {"source": "door", "event": "crossed", "line": "gate", "track_id": 1, "class_name": "level", "width": 64}
    assert expected.items() <= crossed.items() and "detections" not in crossed
    check_that_the_page_names_every_key(rows)
    summary = statistics.summary()
    door, yard = (row["objects"] for row in summary["sources"])
    assert door["lines"] == {"gate": {"in": {"level": 1}, "out": {"level": 1}}} and yard["lines"] == {}
    assert door["present"] == yard["present"] == door["zones"]["all"]["present"] == {"level": 1}
    assert summary["stages_ms"]["tracking"]["p50"] > 0
    parser = pytest.importorskip("prometheus_client.parser")
    families = {family.name: family for family in parser.text_string_to_metric_families(metrics_text(summary))}
    crossings = {
        (one.labels["line"], one.labels["direction"]): one.value
        for one in families["yolov3_trt_line_crossings"].samples
    }
    assert crossings == {("gate", "in"): 1, ("gate", "out"): 1}
    assert {one.labels["source"]: one.value for one in families["yolov3_trt_zone_entries"].samples} == {
        "door": 1,
        "yard": 1,
    }


def check_that_the_page_names_every_key(rows: list[dict[str, Any]]) -> None:
    """And no other; docs/lines.md."""
    page = (Path(__file__).parents[2] / "docs" / "lines.md").read_text()
    frame_keys, object_keys, event_keys = (
        {key for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall("`(.*?)`", cell)}
        for table in re.split(r"\| key \|.*\n", page)[1:]
    )
    frames = [row for row in rows if row["format"] == "yolov3_trt.frame/1"]
    events = [row for row in rows if row["format"] == "yolov3_trt.event/1"]
    assert len(frames) + len(events) == len(rows) and {key for row in frames for key in row} == frame_keys
    assert {key for row in frames for found in row["detections"] for key in found} == object_keys
    seen = {key for row in events for key in row}
    shared = {"source", "index", "width", "height", "position_s", "captured_s", "time"}
    assert seen >= shared and seen - shared <= event_keys and event_keys - seen == {"for_s"}  # nobody left


def test_numbers_alone_come_without_events():
    sink = ListSink()
    statistics = run_loop(fake_detector(), [ListSource(grey_pictures([9, 10]))], [sink], LoopOptions(track=True))
    assert [found.track_ids.tolist() for found in sink.detections] == [[1], [1]]
    assert [result.events for result in sink.results] == [(), ()]
    assert statistics.summary()["sources"][0]["objects"] is None
