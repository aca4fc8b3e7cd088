"""`watch`: results of cameras and files as an iterator, which ends in every way without leaving anything open."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import yolov3_trt
from yolov3_trt import SettingError, Yolov3TrtError

CLIP = "shapes://?seed=5&frames=6&size=160x120"


def readers() -> int:
    return sum(thread.name.startswith(("read ", "grab ")) for thread in threading.enumerate())


def test_results_come_one_by_one_and_the_summary_says_how_it_went(tmp_path: Path):
    watching = yolov3_trt.watch("shapes", CLIP, sinks=tmp_path / "found.jsonl", conf=0.4, nms="plain", track=True)
    results = list(watching)
    assert [result.frame.index for result in results] == list(range(6))
    assert results[0].frame.pixels.shape == (120, 160, 3) and all((r.detections.scores > 0.4).all() for r in results)
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(lines) == 6 and {row.track_id for row in results[-1].detections} - {None}
    summary = watching.to_json()
    assert (summary["processed"], summary["ended_by"], summary["errors"]) == (6, "sources", [])
    assert (summary["artifact"], summary["backend"]) == ("shapes", "torch")
    assert list(watching) == [] and readers() == 0


def test_who_stops_taking_ends_it_and_files_are_finished(tmp_path: Path):
    for _ in yolov3_trt.watch("shapes", CLIP, sinks=[tmp_path / "a.jsonl"]):
        break  # nothing holds the iterator any more
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1 and readers() == 0
    with yolov3_trt.watch("shapes", CLIP, sinks=[tmp_path / "b.jsonl"]) as watching:
        next(watching)
        watching.stop("enough")
        list(watching)
    assert watching.to_json()["ended_by"] == "enough" and (tmp_path / "b.jsonl").is_file() and readers() == 0
    with pytest.raises(ZeroDivisionError), yolov3_trt.watch("shapes", CLIP) as watching:
        for _ in watching:
            _ = 1 / 0
    assert watching.to_json()["ended_by"] == "closed" and readers() == 0


def test_what_cannot_be_opened_is_said_at_the_first_result(tmp_path: Path):
    watching = yolov3_trt.watch(tmp_path / "none.onnx", CLIP)
    with pytest.raises(Yolov3TrtError, match=r"none\.onnx"):
        next(watching)
    with pytest.raises(Yolov3TrtError, match=r"no\.mp4: cannot be read"), yolov3_trt.watch("shapes", "no.mp4"):
        pass


@pytest.mark.parametrize(
    "keywords, text",
    [
        ({"drop": "all"}, "drop: got 'all'; expected latest or none"),
        ({"transport": "http"}, "transport: got 'http'; expected one of tcp, udp"),
        ({"max_frames": 0}, "max_frames: got 0; expected 1 to "),
        ({"duration": float("nan")}, "duration: got nan; expected 0 to "),
        ({"timeout": 0.1}, "timeout: got 0.1; expected 0.5 to "),
        ({"size": "wide"}, "size: got 'wide'; expected WIDTHxHEIGHT"),
        ({"conf": 2}, "conf: got 2; expected 0 to 1"),
        ({"sinks": 3}, "sinks: got 3; expected a text"),
        ({"trust": "yes"}, "trust: got 'yes'; expected True or False"),
    ],
)
def test_arguments_are_refused_before_anything_is_opened(keywords: dict[str, Any], text: str):
    with pytest.raises(SettingError) as caught:
        yolov3_trt.watch("shapes", CLIP, **keywords)
    assert str(caught.value).startswith(text)


def test_never_is_a_time_to_give_up():
    assert yolov3_trt.watch("shapes", give_up_after=float("inf")) is not None
