"""The long run of `tests.soak_camera`, short: real sources, real sinks, a process of its own."""

import argparse
from pathlib import Path

import pytest

from tests import soak_service
from tests.soak_camera import soak
from tests.streams import why_no_rtsp_server


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory and threads are read from /proc")
def test_memory_and_threads_stay_as_they_are(tmp_path: Path):
    figures = soak(tmp_path, argparse.Namespace(minutes=0.3, fps=10, every=0.5, kills=0, attacks=True, video="mp4"))
    assert figures["exit_code"] == 0
    summary = figures["summary"]
    assert summary["captured"] == summary["processed"] + summary["dropped"] and summary["errors"] == []
    assert figures["json_lines"] == summary["processed"] > 30
    assert abs(figures["threads"]["end"] - figures["threads"]["begin"]) <= 1
    assert abs(figures["open_files"]["end"] - figures["open_files"]["begin"]) <= 1
    assert figures["memory"]["end"] - figures["memory"]["begin"] < 10  # MiB; buffers still settle in so short a run


@pytest.mark.slow
@pytest.mark.skipif(why_no_rtsp_server() is not None, reason=str(why_no_rtsp_server()))
@pytest.mark.skipif(soak_service.why_not() is not None, reason=str(soak_service.why_not()))
def test_a_service_that_is_killed_loses_a_second_and_nothing_twice(tmp_path: Path):
    figures = soak_service.soak(tmp_path, argparse.Namespace(minutes=1.2, fps=5, runs=(15, 18), seed=1))
    assert figures["kills_of_the_service"] >= 2 and figures["last_exit_code"] == 0
    for lines in (figures["lines"], figures["program"]):
        assert lines["said"] > 5 and lines["twice"] == 0
        assert lines["oldest_lost_s_before_a_kill"] < 15  # a flush a second, and the age of frames on a busy machine
    assert figures["segments"]["left"] >= 2 and figures["segments"]["faulty"] == []
    assert figures["most_bytes_of_segments"] < figures["limit_bytes_of_segments"] + 1e6
