"""The loop on real streams: GStreamer's RTSP server and Motion JPEG by HTTP, on loopback, with what goes wrong there."""

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import ListSink, fake_detector
from tests.streams import RtspServer, mjpeg_server, silent_server, why_no_rtsp_server, write_pictures
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.live import ReconnectPolicy
from yolov3_trt.camera.loop import CameraLoop, LoopOptions, run_loop
from yolov3_trt.camera.sinks import JsonLinesSink
from yolov3_trt.camera.sources import SourceOptions, open_source

IMAGE_HW = (96, 128)
LEVELS = (40, 80, 120, 160, 200)
HASTY = ReconnectPolicy(give_up_after_s=20, first_retry_s=0.1, longest_retry_s=0.5)


def plain_pictures() -> list[np.ndarray]:
    """Of one grey each, which any encoder keeps."""
    return [np.full((*IMAGE_HW, 3), level, np.uint8) for level in LEVELS]


def levels_of(sink: ListSink) -> list[int]:
    """Which of LEVELS each frame is, after the encoder."""
    means = np.array([frame.pixels.mean() for frame in sink.frames])
    nearest = np.abs(means[:, None] - np.array(LEVELS)).argmin(axis=1)
    np.testing.assert_allclose(means, np.array(LEVELS)[nearest], atol=8)
    return [int(index) for index in nearest]


@pytest.fixture(scope="module")
def rtsp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspServer]:
    """Streams LEVELS over and over, 25 a second."""
    reason = why_no_rtsp_server()
    if reason is not None:
        pytest.skip(reason)
    with RtspServer(write_pictures(tmp_path_factory.mktemp("clip"), plain_pictures()), 25) as server:
        yield server


def test_rtsp_stream_comes_frame_by_frame(rtsp: RtspServer):
    sink = ListSink()
    source = open_source(rtsp.uri, SourceOptions(timeout_s=15))
    statistics = run_loop(fake_detector(), [source], [sink], LoopOptions(max_frames=40, drop="none"))
    counts = statistics.sources[rtsp.uri]
    assert counts.image_hw == IMAGE_HW and counts.nominal_fps == 25 and counts.reconnects == 0
    assert counts.pipeline.startswith(f"OpenCV FFMPEG {rtsp.uri} (")
    steps = np.diff(levels_of(sink)) % len(LEVELS)
    assert len(steps) == 39 and np.all(steps == 1)  # none is missing, none comes twice
    assert all(frame.pixels.shape == (*IMAGE_HW, 3) for frame in sink.frames)


def test_rtsp_server_that_is_killed_and_comes_back_loses_nothing_but_time(rtsp: RtspServer, tmp_path: Path):
    num_kills, sink = 3, ListSink()
    frames_between, seen = 10, 0

    def kill_now_and_then(result: Result) -> None:
        nonlocal seen
        seen += 1
        if seen % frames_between == 0 and seen <= num_kills * frames_between:
            rtsp.kill()
            rtsp.start()

    options = LoopOptions(
        max_frames=(num_kills + 1) * frames_between, drop="none", reconnect=HASTY, on_frame=kill_now_and_then
    )
    lines = tmp_path / "found.jsonl"
    with JsonLinesSink(lines) as video:
        statistics = run_loop(
            fake_detector(), [open_source(rtsp.uri, SourceOptions(timeout_s=5))], [sink, video], options
        )
    counts = statistics.sources[rtsp.uri]
    # Frames that FFmpeg had read ahead come after a kill too, so that two kills may be one loss.
    assert 1 <= counts.reconnects <= num_kills and counts.error is None
    assert statistics.processed == len(sink.results) == len(lines.read_text().splitlines()) == 40
    assert [frame.index for frame in sink.frames] == list(range(40))
    assert statistics.ended_by == "max_frames" and statistics.stuck_sources == ()


def test_address_that_the_server_does_not_know_is_named(rtsp: RtspServer, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    uri = rtsp.uri.replace("://", "://user:secret@").replace("clip", "nothing")
    source = open_source(uri, SourceOptions(timeout_s=2))
    statistics = run_loop(fake_detector(), [source], [], LoopOptions(reconnect=ReconnectPolicy(1, 0.2, 0.2)))
    error = statistics.sources[source.name].error or ""
    assert "the camera knows no such path (404)" in error and "(given up after" in error
    assert "secret" not in error + caplog.text


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_server_that_never_answers_is_an_error_within_the_timeout(scheme: str):
    with silent_server() as port:
        source = open_source(f"{scheme}://127.0.0.1:{port}/live", SourceOptions(timeout_s=1))
        reconnect = ReconnectPolicy(give_up_after_s=2, grace_s=1)
        started_s = time.monotonic()
        statistics = run_loop(fake_detector(), [source], [], LoopOptions(reconnect=reconnect))
        assert time.monotonic() - started_s < 6
    error = statistics.sources[source.name].error or ""
    assert error.startswith(f"{source.name}: ") and "(given up after 2 s without a frame)" in error


def test_port_where_nobody_listens_is_an_error():
    with silent_server() as port:
        pass
    source = open_source(f"rtsp://127.0.0.1:{port}/live")
    statistics = run_loop(fake_detector(), [source], [], LoopOptions(reconnect=ReconnectPolicy(0.5)))
    assert (statistics.sources[source.name].error or "").startswith(
        f"rtsp://127.0.0.1:{port}/live: cannot connect to 127.0.0.1 port {port} (Connection refused); is the camera on"
    )


def test_name_that_nobody_knows_is_an_error_and_may_be_known_later(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def unknown(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    options = LoopOptions(reconnect=ReconnectPolicy(0.5, first_retry_s=0.05, longest_retry_s=0.1))
    statistics = run_loop(fake_detector(), [open_source("rtsp://door.lan/live")], [], options)
    error = statistics.sources["rtsp://door.lan/live"].error or ""
    assert "cannot connect to door.lan port 554 (Name or service not known); is the camera on" in error
    assert len(asked) > 1 and set(asked) == {"door.lan"}


def test_motion_jpeg_by_http_comes_frame_by_frame():
    sink = ListSink()
    with mjpeg_server(plain_pictures(), fps=40) as uri:
        options = LoopOptions(max_frames=40, drop="none")
        statistics = run_loop(fake_detector(), [open_source(uri)], [sink], options)
    assert statistics.processed == 40 and statistics.sources[uri].image_hw == IMAGE_HW
    steps = np.diff(levels_of(sink)) % len(LEVELS)
    assert np.all(steps == 1)


def test_motion_jpeg_that_breaks_off_is_taken_up_again():
    sink = ListSink()
    with mjpeg_server(plain_pictures(), fps=40, num_frames=15) as uri:
        options = LoopOptions(max_frames=40, drop="none", reconnect=HASTY)
        statistics = run_loop(fake_detector(), [open_source(uri)], [sink], options)
    assert statistics.sources[uri].reconnects >= 2 and len(sink.results) == 40


def test_camera_among_several_that_never_answers_does_not_disturb_the_others():
    sink = ListSink()
    with silent_server() as port, mjpeg_server(plain_pictures(), fps=40) as uri:
        silent = open_source(f"http://127.0.0.1:{port}/live", SourceOptions(timeout_s=1))
        options = LoopOptions(duration_s=5, reconnect=ReconnectPolicy(give_up_after_s=3, grace_s=1))
        loop = CameraLoop(fake_detector(), [open_source(uri), silent], [sink], options)
        statistics = loop.run()
    assert statistics.sources[silent.name].state == "failed" and statistics.sources[uri].state == "stopped"
    assert statistics.sources[uri].processed > 40
    assert {name for name, _ in sink.stale} == {silent.name}
