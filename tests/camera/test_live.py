"""Cameras that stall, vanish, come back or never were: the watchdog, with a script in place of a camera."""

import logging
import math
import threading
import time

import numpy as np
import pytest

from tests.fakes import ListSink, ListSource, ScriptedCamera, fake_detector, grey_pictures
from yolov3_trt.camera.live import LiveInlet, ReconnectPolicy
from yolov3_trt.camera.loop import LoopOptions, run_loop
from yolov3_trt.camera.sources.base import SourceLost
from yolov3_trt.errors import CameraError

LEVELS = (0, 10, 20)
PICTURES = grey_pictures(LEVELS)


def hasty(give_up_after_s: float = 5.0, max_stuck: int = 4, max_frames: int | None = None) -> LoopOptions:
    """ReconnectPolicy of a test; every frame is used."""
    reconnect = ReconnectPolicy(
        give_up_after_s, first_retry_s=0.05, longest_retry_s=0.1, grace_s=0.1, max_stuck=max_stuck
    )
    return LoopOptions(max_frames=max_frames, drop="none", reconnect=reconnect)


def test_lost_camera_is_opened_again_and_counted(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    camera, sink = ScriptedCamera(PICTURES, PICTURES, PICTURES, [CameraError("camera: gone")]), ListSink()
    statistics = run_loop(fake_detector(), [camera], [sink], hasty(0.4))
    source = statistics.sources["camera"]
    assert source.reconnects == 2 and source.state == "failed"
    assert [frame.pixels[0, 0, 0] for frame in sink.frames] == list(LEVELS) * 3
    assert [frame.index for frame in sink.frames] == list(range(9))  # counted on
    assert camera.num_closed >= 3  # each that opened
    assert caplog.messages.count("camera: back again") == 2
    lost = [message for message in caplog.messages if message.startswith("camera: lost; trying again in 0.1 s")]
    assert len(lost) == 3


def test_camera_that_stays_away_is_given_up_and_the_others_go_on():
    camera = ScriptedCamera(PICTURES, [CameraError("camera: gone")])
    other = ListSource(grey_pictures([5] * 20))
    started_s = time.monotonic()
    statistics = run_loop(fake_detector(), [camera, other], [ListSink()], hasty(0.5))
    assert 0.5 <= time.monotonic() - started_s < 3
    rows = {row["source"]: row for row in statistics.summary()["sources"]}
    assert rows["list"]["processed"] == 20 and rows["list"]["error"] is None
    assert rows["camera"]["processed"] == 3 and rows["camera"]["state"] == "failed"
    assert rows["camera"]["error"].startswith("camera: gone")
    assert rows["camera"]["last_loss"] == "camera: gone"


def test_local_camera_that_is_not_there_is_an_error_at_once():
    camera = ScriptedCamera([CameraError("0: there is no /dev/video0")], is_remote=False)
    statistics = run_loop(fake_detector(), [camera], [], hasty(60))
    assert statistics.elapsed_s < 2 and camera.num_opened == 1
    assert statistics.sources["camera"].error == "0: there is no /dev/video0"


def test_local_camera_that_is_unplugged_may_come_back():
    camera = ScriptedCamera(PICTURES, [CameraError("camera: gone")], PICTURES, is_remote=False)
    statistics = run_loop(fake_detector(), [camera], [], hasty(max_frames=6))
    assert statistics.processed == 6 and statistics.sources["camera"].reconnects == 1


def test_stream_that_is_not_there_yet_is_waited_for():
    camera = ScriptedCamera([CameraError("camera: refused")], [CameraError("camera: refused")], PICTURES)
    statistics = run_loop(fake_detector(), [camera], [], hasty(max_frames=3))
    assert statistics.processed == 3 and statistics.sources["camera"].reconnects == 0  # it was never lost


@pytest.mark.parametrize("script", [[None], [PICTURES[0], None]], ids=["when opened", "when read"])
def test_camera_that_hangs_inside_opencv_hangs_nothing_else(script: list[np.ndarray | None]):
    camera, sink = ScriptedCamera(script, PICTURES), ListSink()
    statistics = run_loop(fake_detector(), [camera], [sink], hasty(max_frames=3 + (len(script) > 1)))
    assert [frame.pixels[0, 0, 0] for frame in sink.frames][-3:] == list(LEVELS)
    assert statistics.stuck_sources == ("camera",)  # its thread was left behind
    camera.let_go.set()
    wait_for_no_thread()
    assert camera.num_closed == 1 + (len(script) > 1)  # the late one closed itself, and gave no frame


def test_no_more_than_so_many_threads_hang():
    camera = ScriptedCamera([None])
    statistics = run_loop(fake_detector(), [camera], [], hasty(2.0, max_stuck=2))
    assert camera.num_opened == 2 and statistics.sources["camera"].state == "failed"
    camera.let_go.set()
    wait_for_no_thread()


def test_sinks_hear_of_a_camera_that_gives_nothing():
    camera, sink = ScriptedCamera([PICTURES[0], None]), ListSink()
    run_loop(fake_detector(), [camera], [sink], LoopOptions(duration_s=3.8, reconnect=ReconnectPolicy(grace_s=60)))
    assert {name for name, _ in sink.stale} == {"camera"}
    seconds = [for_s for _, for_s in sink.stale]
    assert 2 <= len(seconds) <= 4 and seconds == sorted(seconds) and 1.5 <= seconds[0] < 3
    camera.let_go.set()
    wait_for_no_thread()


def test_waits_between_attempts_double_up_to_a_limit(caplog: pytest.LogCaptureFixture):
    camera = ScriptedCamera([CameraError("camera: refused")])
    reconnect = ReconnectPolicy(1.6, first_retry_s=0.1, longest_retry_s=0.4)
    run_loop(fake_detector(), [camera], [], LoopOptions(reconnect=reconnect))
    waits = [
        message.split("trying again in ")[1].split(" s")[0] for message in caplog.messages if "again in" in message
    ]
    assert waits[:4] == ["0.1", "0.2", "0.4", "0.4"]


def test_a_single_frame_between_losses_does_not_make_them_new():
    camera = ScriptedCamera([PICTURES[0], CameraError("camera: gone")])
    reconnect = ReconnectPolicy(60, first_retry_s=0.1, longest_retry_s=0.8)
    statistics = run_loop(fake_detector(), [camera], [], LoopOptions(duration_s=2.5, reconnect=reconnect))
    assert 2 <= statistics.sources["camera"].captured <= 6  # at 0, 0.1, 0.3, 0.7, 1.5 s, and not at 0, 0.1, 0.2, ...


def test_what_goes_on_for_a_day_takes_a_few_dozen_lines():
    inlet = LiveInlet(ScriptedCamera([]), None, None, ReconnectPolicy(math.inf))  # type: ignore[arg-type]
    told = [inlet._is_news(f"camera: gone for {second} s", second) for second in range(0, 86_400, 10)]
    assert told[:6] == [True] * 5 + [False] and 20 < sum(told) < 50
    told = [inlet._is_news(("a", "b")[second % 2], 86_400 + second) for second in range(1000)]  # comes and goes
    assert sum(told) <= 3


def test_local_camera_is_waited_for_where_a_time_is_given():
    absent = [CameraError("camera: there is no /dev/video0")]
    camera = ScriptedCamera(absent, absent, PICTURES, is_remote=False)
    reconnect = ReconnectPolicy(math.inf, waits_for_absent=True, first_retry_s=0.05)
    statistics = run_loop(fake_detector(), [camera], [], LoopOptions(max_frames=3, drop="none", reconnect=reconnect))
    assert statistics.processed == 3 and camera.num_opened == 3


def test_a_refused_password_is_not_tried_again_soon():
    camera = ScriptedCamera([SourceLost("camera: refuses this user or password (401)", "refused")])
    reconnect = ReconnectPolicy(1.0, first_retry_s=0.05)
    statistics = run_loop(fake_detector(), [camera], [], LoopOptions(reconnect=reconnect))
    assert camera.num_opened == 1 and (statistics.sources["camera"].error or "").startswith("camera: refuses")


def test_a_camera_that_never_came_has_failed_at_the_end_of_the_time():
    camera, reconnect = ScriptedCamera([CameraError("camera: refused")]), ReconnectPolicy(math.inf)
    statistics = run_loop(fake_detector(), [camera], [], LoopOptions(duration_s=0.3, reconnect=reconnect))
    source = statistics.sources["camera"]
    assert (source.state, source.error) == ("failed", "camera: refused (no frame came until the end)")


def test_error_that_is_no_loss_ends_the_loop():
    camera = ScriptedCamera([PICTURES[0], ValueError("a bug")])
    with pytest.raises(ValueError, match=r"^a bug$"):
        run_loop(fake_detector(), [camera], [], hasty())


def wait_for_no_thread() -> None:
    """Of the sources; those that were let go end soon."""
    for thread in threading.enumerate():
        if thread.name.startswith("grab"):
            thread.join(5)
            assert not thread.is_alive()
