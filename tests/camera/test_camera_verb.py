"""`camera` as it is typed: sources in, files out, and every way to end."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli_runner import call
from tests.streams import silent_server
from yolov3_trt.camera.sources import VideoSource
from yolov3_trt.cli.live_line import line_text
from yolov3_trt.jobs.export import export
from yolov3_trt.models import load_model

CLIP = "shapes://?seed=3&frames=8&size=128x96"
ENDLESS = "shapes://?seed=3&frames=999999999&size=128x96&live=1&fps=20"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as ONNX."""
    path = tmp_path_factory.mktemp("model") / "shapes.onnx"
    export(load_model("shapes"), path)
    return path


def camera(graph: Path, *args: str | Path) -> int:
    return call("camera", graph, "--threads", "1", *args)


def test_clip_becomes_a_film_lines_and_a_summary(graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    summary = tmp_path / "summary.json"
    sinks = f"{tmp_path}/video.mp4,{tmp_path}/found.jsonl"
    assert camera(graph, "--source", CLIP, "--sink", sinks, "--json", summary, "--events") == 0
    out, err = capfd.readouterr()
    content = json.loads(summary.read_text())
    assert (content["captured"], content["processed"], content["dropped"]) == (8, 8, 0)
    assert (content["backend"], content["precision"], content["ended_by"]) == ("onnxruntime", "fp32", "sources")
    assert content["artifact"] == str(graph) and content["errors"] == [] and content["sinks"]["failures"] == []
    assert {"wait", "preprocess", "inference", "postprocess", "tracking", "sinks"} == set(content["stages_ms"])
    with VideoSource(tmp_path / "video.mp4") as video:
        assert len(list(iter(video.read, None))) == 8
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(8)) and any(line["detections"] for line in lines)
    assert {found["track_id"] for line in lines for found in line["detections"]} - {None}
    assert (
        ": nothing appeared\n" in out
        and "8 frames in " in out
        and "ended by sources; onnxruntime fp32" in out
        and CLIP.split("&size")[0] in out
    )
    assert err == ""


def test_lines_are_those_of_detect(graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    video, lines, found = tmp_path / "video.avi", tmp_path / "found.jsonl", tmp_path / "found.json"
    assert camera(graph, "--source", CLIP, "--sink", video) == 0
    assert camera(graph, "--source", video, "--sink", lines) == 0
    assert call("detect", graph, video, "--threads", "1", "--json", found) == 0
    rows = [json.loads(line)["detections"] for line in lines.read_text().splitlines()]
    assert rows == [image["detections"] for image in json.loads(found.read_text())["images"]] and len(rows) == 8


def test_several_sources_each_have_their_row(graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    other = CLIP.replace("seed=3&frames=8", "seed=4&frames=5")
    assert camera(graph, "--source", f"{CLIP},{other}", "--sink", tmp_path / "a.jsonl", "--json", "-") == 0
    rows = json.loads(capfd.readouterr().out)["sources"]
    assert [(row["source"], row["processed"]) for row in rows] == [(CLIP, 8), (other, 5)]


def test_stdout_that_is_a_sink_stays_clean(graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    summary = tmp_path / "summary.json"
    assert camera(graph, "--source", CLIP, "--sink", "jsonl", "--max-frames", "3", "--json", summary) == 0
    out, err = capfd.readouterr()
    assert [json.loads(line)["index"] for line in out.splitlines()] == [0, 1, 2]
    assert "ended by max_frames" in err and json.loads(summary.read_text())["processed"] == 3
    assert camera(graph, "--source", CLIP, "--sink", "jsonl", "--json", "-") == 2
    assert "stdout takes either --sink jsonl or --json -" in " ".join(capfd.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    "args, message",
    [
        (["--source", "nothing.mp4"], r"yolov3_trt: nothing.mp4: cannot be read \(No such file or directory\)"),
        (["--source", "ftp://x"], r"yolov3_trt: 'ftp://x': not a source; expected a camera"),
        (["--source", f"{CLIP},{CLIP}"], r"yolov3_trt: sources .*: expected one or more, each of them once"),
        (["--source", CLIP, "--drop", "latest"], r"yolov3_trt: .*: no frame of a file comes late; give --realtime"),
        (["--source", "/dev/video987"], r"yolov3_trt: /dev/video987: there is no /dev/video987"),
        (["--source", "csi://0"], r"yolov3_trt: csi://0: CSI cameras need GStreamer, but this OpenCV"),
    ],
)
def test_what_cannot_be_opened_is_one_error(
    graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], args: list[str], message: str
):
    assert camera(graph, *args, "--sink", tmp_path / "a.jsonl") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.match(message, last), last
    assert list(tmp_path.iterdir()) == []


def test_size_that_is_not_understood_is_a_usage_error(graph: Path, capfd: pytest.CaptureFixture[str]):
    assert camera(graph, "--size", "720p") == 2
    assert "expected WIDTHxHEIGHT or one number, e.g. 1280x720" in " ".join(
        capfd.readouterr().err.replace("│", " ").split()
    )


def test_sink_that_fails_leaves_the_summary_and_exit_code_1(
    graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    for index, side in enumerate((64, 96)):  # a video has one size
        assert camera(graph, "--source", f"shapes://?frames=1&size={side}x128", "--sink", f"{tmp_path}/in{index}/") == 0
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(2):
        (picture,) = (path for path in (tmp_path / f"in{index}").rglob("*") if path.is_file())
        picture.rename(pictures / f"{index}{picture.suffix}")
    capfd.readouterr()
    sinks = f"{tmp_path}/video.mp4,{tmp_path}/found.jsonl"
    assert camera(graph, "--source", pictures, "--sink", sinks, "--json", tmp_path / "summary.json") == 1
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["processed"] == 2 and [row["sink"] for row in content["sinks"]["failures"]] == [
        f"{tmp_path}/video.mp4"
    ]
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 2
    assert "the video 64x128" in capfd.readouterr().err.splitlines()[-1]


def test_line_says_how_the_loop_is_doing():
    stats: dict[str, Any] = {
        "elapsed_s": 61.2,
        "processed": 1800,
        "fps": 29.95,
        "frame_age_ms": {"p95": 41.7},
        "dropped": 3,
        "sources": [{"source": "0", "state": "running"}, {"source": "rtsp://host/a", "state": "lost"}],
    }
    assert line_text(stats) == "61 s  1800 frames  29.9 fps  age p95 42 ms  3 dropped  rtsp://host/a lost"
    stats |= {"fps": None, "frame_age_ms": {"p95": None}, "sources": []}
    assert line_text(stats) == "61 s  1800 frames  - fps  age p95 -  3 dropped"


# --- ended from outside, in a process of its own ---


@pytest.fixture
def started(graph: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts the verb; whatever it does, it ends with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*args: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "yolov3_trt", "camera", graph, "--threads", "1", *args]
        process = subprocess.Popen(
            [str(part) for part in command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(condition: Any, timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_an_ordinary_end_that_finishes_files(started: Any, tmp_path: Path, number: signal.Signals):
    process = started(
        "--source", ENDLESS, "--sink", f"{tmp_path}/found.jsonl,{tmp_path}/video.avi", "--json", tmp_path / "s.json"
    )
    wait_for(lambda: any(path.stat().st_size > 2000 for path in tmp_path.iterdir() if "video" in path.name))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["ended_by"] == number.name and content["captured"] == content["processed"] + content["dropped"]
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == content["processed"] > 0
    with VideoSource(tmp_path / "video.avi") as video:
        # The picture before stands in where none was captured, or detected, in time.
        assert len(list(iter(video.read, None))) >= content["processed"]
    assert f"ended by {number.name}" in out
    assert {path.name for path in tmp_path.iterdir()} == {"found.jsonl", "video.avi", "s.json"}


def test_interrupt_while_opencv_hangs_ends_soon_and_ps_shows_no_password(started: Any, tmp_path: Path):
    secrets = tmp_path / "camera.env"
    secrets.write_text("CAM_PASSWORD=S3CRET#/?\n")
    secrets.chmod(0o600)
    with silent_server() as port:
        source = f"rtsp://me:${{CAM_PASSWORD}}@127.0.0.1:{port}/a"
        options = ("--credentials", secrets, "--sink", tmp_path / "a.jsonl", "--timeout", "60")
        process = started("--source", source, *options)
        assert (
            process.stderr is not None and f"rtsp://me:***@127.0.0.1:{port}/a: opening it" in process.stderr.readline()
        )
        time.sleep(0.3)
        for entry in Path("/proc").glob(
            "[0-9]*/cmdline"
        ):  # what `ps` reads, of this program and of all that it started
            with suppress(OSError):
                assert b"S3CRET" not in entry.read_bytes()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "S3CRET" not in out + err
