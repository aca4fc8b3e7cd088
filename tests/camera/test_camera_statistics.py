"""Counts, rates and times of a loop, as computed by hand."""

import json

import pytest

from yolov3_trt.camera.statistics import STAGES, Call, Rate, Statistics, Times


def call(names: tuple[str, ...], stages_ms: tuple[float, float, float], wait_ms: float) -> Call:
    preprocess, inference, postprocess = (value / 1e3 for value in stages_ms)
    age_s = wait_ms / 1e3 + preprocess + inference + postprocess
    stages_s = {"preprocess": preprocess, "inference": inference, "postprocess": postprocess}
    return Call(names, [age_s] * len(names), [wait_ms / 1e3] * len(names), stages_s)


def test_percentiles_are_those_of_the_sorted_times_within_half_a_percent():
    times = Times()
    for n in range(1000, 0, -1):  # 1 to 1000 ms, any order
        times.add(n / 1e3)
    assert times.percentiles_ms() == pytest.approx({"p50": 500, "p95": 950, "p99": 990}, rel=0.006)


@pytest.mark.parametrize("seconds", [0.0, 1e-7, 3e-5, 0.02, 1.0, 900.0])
def test_every_duration_has_its_class(seconds: float):
    times = Times()
    times.add(seconds)
    expected_ms = max(seconds, 1e-6) * 1e3
    assert times.percentiles_ms() == pytest.approx(
        dict.fromkeys(("p50", "p95", "p99"), expected_ms), rel=0.006, abs=1e-4
    )


def test_no_duration_has_no_percentiles():
    assert Times().percentiles_ms() == {"p50": None, "p95": None, "p99": None}


def test_rate_is_that_of_regular_events_and_follows_a_change():
    rate = Rate()
    assert rate.per_s is None
    rate.add(0.0)
    assert rate.per_s is None
    now_s = 0.0
    for _ in range(5):
        now_s += 0.1
        rate.add(now_s)
        assert rate.per_s == pytest.approx(10)
    for _ in range(50):
        now_s += 0.5
        rate.add(now_s)
    assert rate.per_s == pytest.approx(2, rel=0.01)


def test_times_of_calls_are_those_of_their_frames():
    statistics = Statistics({"backend": "fake"})
    for name in ("a", "b"):
        statistics.add_source(name, True)
    statistics.start()
    for n, names in ((1, ("a",)), (2, ("a", "b")), (3, ("b",))):
        statistics.add_call(call(names, (1.0, 10.0 * n, 2.0), wait_ms=5.0), float(n))
        for _ in names:
            statistics.add_sinks(0.004)
    statistics.end("test")
    summary = statistics.summary()
    assert summary["backend"] == "fake" and summary["ended_by"] == "test"
    assert (summary["processed"], summary["calls"]) == (4, 3)
    assert [row["processed"] for row in summary["sources"]] == [2, 2]
    # Calls of 13, 23 and 33 ms; that of 23 counts for both of its frames. Half of four values: the second smallest.
    assert summary["latency_ms"] == pytest.approx({"p50": 23, "p95": 33, "p99": 33}, rel=0.006)
    assert summary["frame_age_ms"] == pytest.approx({"p50": 28, "p95": 38, "p99": 38}, rel=0.006)
    assert summary["sources"][0]["latency_ms"]["p50"] == pytest.approx(13, rel=0.006)
    assert list(summary["stages_ms"]) == list(STAGES)
    medians = {stage: times["p50"] for stage, times in summary["stages_ms"].items()}
    assert medians.pop("tracking") is None  # nobody asked for it
    expected = {"wait": 5, "preprocess": 1, "inference": 20, "postprocess": 2, "sinks": 4}
    assert medians == pytest.approx(expected, rel=0.006)
    assert json.loads(json.dumps(summary)) == summary


def test_snapshot_has_the_rate_of_now_and_the_summary_that_of_the_whole():
    statistics = Statistics()
    statistics.add_source("a", True)
    statistics.start()
    for n in range(3):
        statistics.add_call(call(("a",), (1.0, 1.0, 1.0), 1.0), n / 10)
    assert statistics.snapshot()["fps"] == statistics.snapshot()["sources"][0]["fps"] == pytest.approx(10)
    statistics.end("test")
    summary = statistics.summary()
    assert summary["fps"] == pytest.approx(3 / summary["elapsed_s"])
    assert statistics.summary()["elapsed_s"] == summary["elapsed_s"]
