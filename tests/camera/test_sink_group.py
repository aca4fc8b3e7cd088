"""Several sinks at once and by URI; lines on a stream; windows, on a window system that is played."""

import base64
import io
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.fakes import ListSink, grey_pictures, result_of
from yolov3_trt.camera.frames import Frame, Result
from yolov3_trt.camera.sinks import (
    BackgroundSink,
    JsonLinesStream,
    SinkGroup,
    WindowSink,
    open_sinks,
    uri,
    window,
)
from yolov3_trt.camera.sinks.window import why_no_window
from yolov3_trt.camera.sources import VideoSource
from yolov3_trt.errors import CameraError, OutputError
from yolov3_trt.masking import masked


def result(index: int, source: str = "a", image_hw: tuple[int, int] = (48, 64)) -> Result:
    return result_of(Frame(grey_pictures([100], image_hw)[0], source, index, 0.0))


class FailingSink(ListSink):
    """Fails with its third frame, or as it is closed."""

    def __init__(self, error: Exception, when: str = "write") -> None:
        super().__init__()
        self.name, self._error, self._when = "failing", error, when

    def write(self, result: Result) -> None:
        if self._when == "write" and len(self.results) == 2:
            raise self._error
        super().write(result)

    def mark_stale(self, source: str, for_s: float) -> None:
        if self._when == "mark_stale":
            raise self._error
        super().mark_stale(source, for_s)

    def close(self) -> None:
        super().close()
        if self._when == "close":
            raise self._error

    def abort(self) -> None:
        super().abort()
        if self._when == "abort":
            raise self._error


# --- the group ---


def test_group_gives_everything_to_each_sink():
    sinks = [ListSink(), ListSink()]
    with SinkGroup(sinks) as group:
        for index in range(3):
            group.write(result(index))
        group.mark_stale("a", 4.5)
    for sink in sinks:
        assert [frame.index for frame in sink.frames] == [0, 1, 2]
        assert sink.stale == [("a", 4.5)] and sink.calls == ["close"]
    assert group.failures == []


@pytest.mark.parametrize("error", [CameraError("a: the cable is out"), OutputError("a: no space")])
def test_sink_that_fails_stops_alone_and_is_reported(error: Exception, caplog: pytest.LogCaptureFixture):
    failing, good = FailingSink(error), ListSink()
    with SinkGroup([failing, good]) as group:
        for index in range(5):
            group.write(result(index))
        group.mark_stale("a", 1.0)
    assert [frame.index for frame in failing.frames] == [0, 1] and failing.calls == ["abort"] and failing.stale == []
    assert [frame.index for frame in good.frames] == [0, 1, 2, 3, 4] and good.calls == ["close"]
    assert group.failures == [{"sink": "failing", "error": str(error)}]
    assert caplog.messages == [f"{error}; this sink has stopped"]


def test_sink_that_fails_as_it_is_closed_or_told_of_a_lost_source_leaves_the_others_to_finish():
    closing, telling, good = (
        FailingSink(OutputError("full"), "close"),
        FailingSink(CameraError("X"), "mark_stale"),
        ListSink(),
    )
    with SinkGroup([closing, telling, good]) as group:
        group.write(result(0))
        group.mark_stale("a", 1.0)
    assert closing.calls == ["close", "abort"] and telling.calls == ["abort"] and good.calls == ["close"]
    assert [failure["error"] for failure in group.failures] == ["X", "full"]


def test_with_the_last_sink_its_error_ends_the_loop():
    sinks = [FailingSink(CameraError("first")), FailingSink(CameraError("second"))]
    with pytest.raises(CameraError, match=r"^second$"), SinkGroup(sinks) as group:
        for index in range(3):
            group.write(result(index))
    assert [failure["error"] for failure in group.failures] == ["first", "second"]
    assert [sink.calls for sink in sinks] == [["abort"], ["abort"]]


def test_error_of_another_kind_passes_through_and_aborts_all():
    sinks = [FailingSink(ValueError("a bug")), ListSink()]
    with pytest.raises(ValueError, match=r"^a bug$"), SinkGroup(sinks) as group:
        for index in range(3):
            group.write(result(index))
    assert [sink.calls for sink in sinks] == [["abort"], ["abort"]] and group.failures == []


def test_interrupt_closes_all_sinks():
    sinks = [ListSink(), ListSink()]
    with pytest.raises(KeyboardInterrupt), SinkGroup(sinks):
        raise KeyboardInterrupt
    assert [sink.calls for sink in sinks] == [["close"], ["close"]]


def test_group_asks_for_the_end_when_any_of_its_sinks_does():
    sinks = [ListSink(), ListSink()]
    group = SinkGroup(sinks)
    assert group.stop_requested is False
    sinks[1].stop_requested = True
    assert group.stop_requested is True


# --- in the background ---


class SlowSink(ListSink):
    """Takes a frame when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.permits, self.begun = threading.Semaphore(0), threading.Event()

    def write(self, result: Result) -> None:
        self.begun.set()
        assert self.permits.acquire(timeout=10)
        super().write(result)


def test_slow_sink_in_the_background_keeps_nobody_waiting_until_it_is_far_behind():
    slow, before = SlowSink(), threading.active_count()
    with BackgroundSink(slow) as sink:
        for index in range(9):  # one in work, eight waiting
            sink.write(result(index))
        assert slow.frames == []
        late = threading.Thread(target=lambda: sink.write(result(9)))
        late.start()
        late.join(0.2)
        assert late.is_alive()
        slow.permits.release()
        late.join(10)
        assert not late.is_alive()
        slow.permits.release(9)
    assert [frame.index for frame in slow.frames] == list(range(10)) and slow.calls == ["close"]
    sink.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("num_frames", [3, 30], ids=["when closed", "when written"])
def test_failure_in_the_background_comes_out_and_stops_this_sink_alone(num_frames: int):
    failing, good = FailingSink(OutputError("video.mp4: no space")), ListSink()
    with SinkGroup([BackgroundSink(failing), good]) as group:
        for index in range(num_frames):
            group.write(result(index))
    assert [frame.index for frame in failing.frames] == [0, 1] and failing.calls == ["abort"]
    assert len(good.frames) == num_frames
    assert group.failures == [{"sink": "failing", "error": "video.mp4: no space"}]


def test_aborted_sink_in_the_background_leaves_out_what_waits():
    slow = SlowSink()
    sink = BackgroundSink(slow)
    sink.write(result(0))
    assert slow.begun.wait(10)
    for index in range(1, 5):
        sink.write(result(index))
    permit = threading.Timer(0.1, slow.permits.release)
    permit.start()
    sink.abort()
    permit.join()
    assert [frame.index for frame in slow.frames] == [0] and slow.calls == ["abort"]


# --- lines on a stream ---


def test_each_line_is_sent_at_once():
    sent: list[str] = []

    class Stream(io.StringIO):
        def flush(self) -> None:
            sent.append(self.getvalue())

    stream = Stream()
    with JsonLinesStream(stream) as sink:
        for index in range(3):
            sink.write(result(index))
            assert json.loads(sent[-1].splitlines()[-1])["index"] == index
    assert not stream.closed


def test_reader_of_the_lines_that_goes_away_ends_the_program_without_noise(tmp_path: Path):
    code = f"""
import sys, time
from tests.camera.test_sink_group import result
from yolov3_trt.camera.sinks import open_sinks
from yolov3_trt.errors import CameraError
with open_sinks(["jsonl", {str(tmp_path / "all.jsonl")!r}], fps=10, stats=dict, sources=["a"]) as group:
    for index in range(20_000):
        group.write(result(index))
        if group.failures:
            break
    group.write(result(-1))
    print(group.failures, file=sys.stderr)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stderr is not None
        assert json.loads(program.stdout.readline())["index"] == 0
        program.stdout.close()
        said = program.stderr.read()
    error = "jsonl: the reader of these lines has gone"
    assert said == f"{error}; this sink has stopped\n[{{'sink': 'jsonl', 'error': '{error}'}}]\n"
    assert program.returncode == 0
    assert json.loads((tmp_path / "all.jsonl").read_text().splitlines()[-1])["index"] == -1


# --- by URI ---


def opened(*uris: str, sources: tuple[str, ...] = ("a",)) -> SinkGroup:
    return open_sinks(uris, fps=10, stats=dict, sources=sources)


def test_every_kind_of_sink_has_a_uri(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = str(tmp_path)
    with opened(
        "http://127.0.0.1:0", f"{folder}/a.mp4", f"{folder}/b.AVI", f"{folder}/c.jsonl", "jsonl", f"{folder}/d/"
    ) as group:
        (address,) = group.addresses
        assert address.startswith("http://127.0.0.1:") and group.fallbacks == ()
        assert group.name == f"{address}, {folder}/a.mp4, {folder}/b.AVI, {folder}/c.jsonl, jsonl, {folder}/d/"
        for index in range(3):
            group.write(result(index))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.AVI", "c.jsonl", "d"]
    assert len(capsys.readouterr().out.splitlines()) == 3 and len(list((tmp_path / "d").iterdir())) == 3


def test_each_source_has_a_film_of_its_own_and_all_share_the_lines(tmp_path: Path):
    sources = ("left", "right", "third")
    with opened(f"{tmp_path}/video.mp4", f"{tmp_path}/found.jsonl", sources=sources) as group:
        for index in range(4):
            group.write(result(index, "right", (64, 80)))
            group.write(result(index, "third"))
        group.write(result(0, "left", (32, 32)))
    shapes = {}
    for number in range(3):
        with VideoSource(tmp_path / f"video-{number}.mp4") as video:
            shapes[number] = [frame.pixels.shape[:2] for frame in iter(video.read, None)]
    assert shapes == {0: [(32, 32)], 1: [(64, 80)] * 4, 2: [(48, 64)] * 4}
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 9


def test_film_has_the_rate_that_its_source_named_when_it_was_opened(tmp_path: Path):
    rates: dict[str, float | None] = {"a": None, "b": None, "c": None}

    def stats() -> dict[str, Any]:
        return {"sources": [{"source": name, "nominal_fps": fps} for name, fps in rates.items()]}

    with open_sinks([f"{tmp_path}/video.avi"], fps=10, stats=stats, sources=["a", "b", "c"]) as group:
        rates.update(a=25.0, b=90_000.0)  # the second names the clock of its time stamps
        for source in rates:
            group.write(result(0, source))
    shown = []
    for number in range(3):
        with VideoSource(tmp_path / f"video-{number}.avi") as video:
            shown.append(video.fps)
    assert shown == [25.0, 10.0, 10.0]


def test_folder_takes_how_many_pictures_and_how_many_to_keep(tmp_path: Path):
    with opened(f"{tmp_path}/?every=2&keep=3") as group:
        for index in range(10):
            group.write(result(index))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["00000004", "00000006", "00000008"]


def test_page_takes_names_and_the_first_line_of_a_file_as_its_password(tmp_path: Path):
    secret = tmp_path / "page-password"
    uri = f"http://127.0.0.1:0?password_file={secret}&name=door.example&name=cam.example"
    for content, fault in (
        (None, "cannot be read (No such file"),
        (b"\nfast", "is empty"),
        (b"\xff\n", "no small text"),
    ):
        if content is not None:
            secret.touch(mode=0o600)
            secret.write_bytes(content)
        with pytest.raises(CameraError, match=re.escape(fault)):
            opened(uri)
    secret.write_text("let me in\r\nsecond line\n")
    secret.chmod(0o640)
    with pytest.raises(CameraError, match=f"chmod 600 {secret}$"):
        opened(uri)
    secret.chmod(0o600)
    with opened(uri) as group:
        (address,) = group.addresses
        asking = urllib.request.Request(f"{address}/healthz", headers={"Host": "cam.example"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(asking)
        asking.add_header("Authorization", f"Basic {base64.b64encode(b'me:let me in').decode()}")
        assert urllib.request.urlopen(asking).status == 200 and "let me in" not in group.name


FORMS = (
    "window, http://127.0.0.1:8080, NAME.mp4, NAME.avi or NAME.mkv, NAME-%Y%m%d-%H%M%S.mp4?segment=10min&keep_days=14, "
    "NAME.jsonl or NAME.jsonl?max_mb=100&keep=5, jsonl (on stdout), exec:PROGRAM or FOLDER/?every=1&keep=1000"
)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "not a sink"),
        ("windows", "not a sink"),
        ("video.mov", "not a sink"),
        ("rtsp://127.0.0.1:8554/", "not a sink"),
        ("https://127.0.0.1:8080", "not a sink"),
        ("http://127.0.0.1:8080/view", "more than http://HOST:PORT?password_file=FILE&name=HOST"),
        ("http://me@127.0.0.1:8080", "more than http://HOST:PORT?password_file=FILE&name=HOST"),
        ("http://127.0.0.1:0?name=", "a page takes password_file once, and name, which may be repeated"),
        ("http://127.0.0.1:0?password=1", "a page takes password_file once, and name, which may be repeated"),
        ("http://127.0.0.1:x", "Port could not be cast to integer value as 'x'"),
        ("http://127.0.0.1:70000", "Port out of range 0-65535"),
        ("out/?every=0", "every='0' is not a number from 1"),
        ("out/?keep=all", "keep='all' is not a number from 1"),
        ("out/?all=1", "a folder takes every, keep, keep_days, keep_gb, free_gb, each once"),
        ("out/?keep=1&keep=2", "a folder takes every, keep, keep_days, keep_gb, free_gb, each once"),
        ("out/?keep_gb=0", "keep_gb='0' is not a number above 0"),
        ("a-%Y.mp4?segment=10", "segment='10' is not a time such as 30s, 10min or 1h"),
        ("a.mp4?segment=10min&keep=3", "segment, keep need the time in the name, as in a-%Y%m%d-%H%M%S.mp4"),
        ("a.jsonl?keep_days=3", "keep_days need max_mb, or the time in the name as in a-%Y%m%d.jsonl"),
        ("a-%Y.jsonl?max_mb=3", "a new file begins by the time in the name or by max_mb, not by both"),
    ],
)
def test_uri_that_names_no_sink_is_refused(text: str, fault: str):
    with pytest.raises(CameraError) as caught:
        opened(text)
    assert str(caught.value) == masked(f"{text}: {fault}; expected {FORMS}")


def test_sink_given_twice_is_refused():
    with pytest.raises(CameraError) as caught:
        opened("jsonl", "jsonl")
    assert str(caught.value) == "sinks jsonl jsonl: one is given twice; give each once"


def test_sink_that_cannot_be_opened_leaves_none_open(tmp_path: Path):
    before = threading.active_count()
    (tmp_path / "file").write_bytes(b"")
    for last in (f"{tmp_path}/file/a.jsonl", "video.mov"):
        with pytest.raises((CameraError, OutputError)):
            opened("http://127.0.0.1:0", f"{tmp_path}/a.mp4", f"{tmp_path}/a.jsonl", last, sources=("a", "b"))
    assert threading.active_count() == before and [path.name for path in tmp_path.iterdir()] == ["file"]


# --- windows ---


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> str:
    """Why there can be no window."""
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           GTK3\n")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return "there is no display ($DISPLAY and $WAYLAND_DISPLAY are not set)"


@pytest.fixture
def first_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """That is tried for the page in the window's place, instead of 8080, which may be taken here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(uri, "_FALLBACK_PORTS", range(port, port + 3))
    return port


def test_without_a_display_there_is_the_page_instead_and_the_reason(
    no_display: str, first_port: int, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(CameraError) as caught:
        WindowSink(["a"])
    assert str(caught.value) == f"window: {no_display}; watch in a browser with the sink http://127.0.0.1:8080"
    with opened("window") as first, opened("window") as second:
        assert first.addresses == (f"http://127.0.0.1:{first_port}",)
        assert first.fallbacks == (f"no window: {no_display}; the live view is at {first.addresses[0]} instead",)
        assert second.addresses[0].startswith("http://127.0.0.1:") and second.addresses != first.addresses
    assert caplog.messages == [*first.fallbacks, *second.fallbacks]


def test_window_leaves_the_port_that_another_sink_asks_for(no_display: str, first_port: int):
    asked = f"http://127.0.0.1:{first_port}"
    with opened("window", asked) as group:
        assert asked in group.addresses and len(set(group.addresses)) == 2


def test_opencv_without_windows_is_known_by_what_it_was_built_with(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    assert why_no_window() == "this OpenCV is built without windows (opencv-python-headless)"


@pytest.mark.parametrize(
    "code, reason",
    [
        ("pass", None),
        ("import os, sys; sys.stderr.write('x\\ncannot connect\\n'); sys.stderr.flush(); os.abort()", "cannot connect"),
        ("import sys; sys.exit(1)", "no reason given"),
    ],
)
def test_display_is_tried_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, code: str, reason: str | None):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(window, "_PROBE", code)
    assert why_no_window() == (reason and f"the display :77 cannot be used ({reason})")


def test_display_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(window, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(window, "_PROBE_S", 0.5)
    assert why_no_window() == "the display does not answer within 0.5 s"


class Screen:
    """A window system: what OpenCV's window functions would do."""

    def __init__(self) -> None:
        self.shown: dict[str, np.ndarray | None] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.key = -1

    def set_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(window, "why_no_window", lambda: None)
        for name, function in {
            "namedWindow": lambda title, flags: self.shown.update({title: None}),
            "resizeWindow": lambda title, width, height: self.sizes.update({title: (width, height)}),
            "imshow": lambda title, pixels: self.shown.update({title: pixels}),
            "waitKey": lambda delay: self.key,
            "getWindowProperty": lambda title, which: 1.0 if title in self.shown else -1.0,
            "destroyWindow": lambda title: self.shown.pop(title),
        }.items():
            monkeypatch.setattr(cv2, name, function)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    screen.set_up(monkeypatch)
    return screen


def test_each_source_has_a_window_no_larger_than_the_screen(screen: Screen):
    with WindowSink(["a", "b"]) as sink:
        sink.write(result(0, "a", (2160, 3840)))
        sink.write(result(0, "b"))
        sink.write(result(1, "b"))
        assert screen.sizes == {"yolov3_trt: a": (1280, 720), "yolov3_trt: b": (64, 48)}
        assert {title: pixels.shape for title, pixels in screen.shown.items()} == {
            "yolov3_trt: a": (2160, 3840, 3),
            "yolov3_trt: b": (48, 64, 3),
        }
        before = screen.shown["yolov3_trt: b"]
        sink.mark_stale("b", 3.0)
        sink.mark_stale("never seen", 3.0)
        assert (screen.shown["yolov3_trt: b"] != before).any()  # the banner
    assert screen.shown == {}
    sink.close()


@pytest.mark.parametrize("key, ends", [(-1, False), (ord("x"), False), (ord("q"), True), (27, True), (0x100071, True)])
def test_q_and_escape_ask_for_the_end(screen: Screen, key: int, ends: bool):
    with WindowSink(["a"]) as sink:
        screen.key = key
        sink.write(result(0))
        assert sink.stop_requested == ends


def test_closed_window_asks_for_the_end_and_stays_closed(screen: Screen):
    with SinkGroup([WindowSink(["a"])]) as group:
        group.write(result(0))
        del screen.shown["yolov3_trt: a"]
        group.write(result(1))
        assert group.stop_requested and screen.shown == {}


def test_window_system_that_fails_is_an_error_of_this_sink(screen: Screen, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise cv2.error("the screen is gone")

    with WindowSink(["a"]) as sink:
        sink.write(result(0))
        monkeypatch.setattr(cv2, "imshow", fail)
        monkeypatch.setattr(cv2.error, "err", "the screen is gone", raising=False)
        with pytest.raises(CameraError, match=r"^window: the picture cannot be shown \(the screen is gone\)$"):
            sink.write(result(1))
