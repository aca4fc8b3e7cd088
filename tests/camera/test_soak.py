"""The long run of `tests.soak_camera`, short: real sources, real sinks, a process of its own."""

import argparse
from pathlib import Path

import pytest

from tests.soak_camera import soak


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
