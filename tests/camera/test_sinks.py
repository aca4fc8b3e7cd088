"""Videos, lines and pictures from a loop: as they were seen, whole or absent."""

import json
import os
import re
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.fakes import FRAME_HW, ListSink, ListSource, fake_detector, grey_pictures, result_of
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.loop import run_loop
from yolov3_trt.camera.sinks import (
    FramesSink,
    JsonLinesSink,
    Limits,
    NoRoom,
    PatientSink,
    Sink,
    VideoSink,
    encoders,
    json_lines,
    open_sinks,
)
from yolov3_trt.camera.sinks import window as window_module
from yolov3_trt.camera.sources import VideoSource, open_source
from yolov3_trt.data.images import load_image
from yolov3_trt.errors import BackendError, CameraError, OutputError
from yolov3_trt.geometry import HW

LEVELS = (0, 10, 20, 30, 40, 50)


def frame(level: int, index: int, image_hw: HW = FRAME_HW) -> Frame:
    return Frame(grey_pictures([level], image_hw)[0], "list", index, 1.25 + index)


def shades(count: int) -> list[np.ndarray]:
    """Smooth pictures, which survive an encoder nearly unchanged, each brighter than the one before."""
    ramp = np.linspace(40, 140, FRAME_HW[1], dtype=np.float32)
    return [np.array(ramp[None, :, None] + np.zeros((*FRAME_HW, 3)) + 12 * i, np.uint8) for i in range(count)]


def write_all(sink: Sink, pictures: list[np.ndarray]) -> None:
    with sink:
        for index, pixels in enumerate(pictures):
            sink.write(result_of(Frame(pixels, "list", index, 0.0)))


def read_all(path: Path) -> list[Frame]:
    with VideoSource(path) as source:
        return list(iter(source.read, None))


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """What a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- videos ---


@pytest.fixture(params=["ffmpeg", "OpenCV"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What writes the videos."""
    if request.param == "OpenCV":
        monkeypatch.setattr(encoders, "ffmpeg_codec", lambda: None)
    elif encoders.ffmpeg_codec() is None:
        pytest.skip("needs the ffmpeg program (Debian's package ffmpeg)")
    return str(request.param)


@pytest.mark.parametrize("name", ["video.mp4", "video.avi", "VIDEO.MP4", "größe ü.avi"])
@pytest.mark.parametrize("count", [1, 9])
def test_film_is_read_as_written(tmp_path: Path, name: str, count: int, encoder: str, caplog: pytest.LogCaptureFixture):
    path, pictures = tmp_path / "new" / name, shades(count)
    write_all(VideoSink(path, 12.5), pictures)
    assert list(path.parent.iterdir()) == [path]
    with open_source(str(path)) as source:
        assert (source.name, source.fps, source.live) == (str(path), 12.5, False)
    frames = read_all(path)
    assert [frame.index for frame in frames] == list(range(count))
    times = [frame.captured_s for frame in frames]
    assert times == sorted(times)
    assert_allclose([frame.pixels for frame in frames], pictures, atol=10)
    assert not caplog.messages


def test_film_shows_the_boxes(tmp_path: Path):
    with VideoSink(tmp_path / "video.avi", 10) as sink:
        statistics = run_loop(fake_detector(), [ListSource(grey_pictures([40] * 3))], [sink])
    assert statistics.processed == 3
    for shown in read_all(tmp_path / "video.avi"):
        assert_allclose(shown.pixels[30:], 40, atol=12)
        assert np.ptp(shown.pixels[:20]) > 100  # a coloured box and its label


def test_picture_before_stands_in_for_frames_that_were_dropped(tmp_path: Path):
    """At 10 fps: no frame is repeated before the first, and none for longer than two seconds."""
    levels = {7: 40, 8: 80, 11: 120, 12: 160, 1000: 200}
    with VideoSink(tmp_path / "video.avi", 10) as sink:
        for index, level in levels.items():
            sink.write(result_of(frame(level, index)))
    shown = [int(shown.pixels.mean()) for shown in read_all(tmp_path / "video.avi")]
    assert_allclose(shown, [40, *3 * [80], 120, *21 * [160], 200], atol=3)


def test_last_row_and_column_of_odd_frames_are_cut_off(tmp_path: Path):
    write_all(VideoSink(tmp_path / "video.mp4", 10), grey_pictures([100] * 3, (33, 47)))
    assert [frame.pixels.shape for frame in read_all(tmp_path / "video.mp4")] == [(32, 46, 3)] * 3


def test_frame_of_another_size_ends_the_film_which_is_kept(tmp_path: Path):
    path = tmp_path / "video.mp4"
    with pytest.raises(CameraError) as caught, VideoSink(path, 10) as sink:
        sink.write(result_of(frame(10, 0)))
        sink.write(result_of(frame(10, 1)))
        sink.write(result_of(frame(10, 2, (64, 48))))
    assert str(caught.value) == (
        f"{path}: frame 2 of list is 48x64, the video 64x48; the video ends after 2 frames; "
        "give each source a video of its own"
    )
    assert list(tmp_path.iterdir()) == [path] and len(read_all(path)) == 2


@pytest.mark.parametrize("name", ["video.mov", "video"])
def test_film_of_another_kind_is_refused(tmp_path: Path, name: str):
    with pytest.raises(CameraError) as caught:
        VideoSink(tmp_path / name, 10)
    assert str(caught.value) == f"{tmp_path}/{name}: videos are written as .mp4, .mkv, .avi; give a name that ends so"


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_film_without_speed_is_refused(tmp_path: Path, fps: float):
    with pytest.raises(CameraError) as caught:
        VideoSink(tmp_path / "video.mp4", fps)
    assert str(caught.value) == f"{tmp_path}/video.mp4: fps={fps}; expected a number above 0"
    assert list(tmp_path.iterdir()) == []


def test_film_that_the_encoder_refuses_is_an_error(tmp_path: Path, encoder: str):
    with pytest.raises(CameraError) as caught:
        write_all(VideoSink(tmp_path / "video.mp4", 10), grey_pictures([0], (1, 1)))
    assert (
        str(caught.value)
        == f"{tmp_path}/video.mp4: "
        + {
            "OpenCV": "this OpenCV cannot write 1x1 px at 10 fps as mp4v; try .avi, or install an OpenCV with FFmpeg",
            "ffmpeg": "pictures of 1x1 px are too small for a video",
        }[encoder]
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_bytes", [3_000, 30_000])
@pytest.mark.parametrize("name", ["video.mp4", "video.avi"])
def test_film_on_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path, name: str, num_bytes: int):
    noise = list(np.random.default_rng(0).integers(0, 256, (30, *FRAME_HW, 3), np.uint8))
    with pytest.raises(CameraError) as caught, files_of_at_most(num_bytes):
        write_all(VideoSink(tmp_path / name, 10), noise)
    assert re.fullmatch(
        f"{tmp_path}/{name}: the video could not be completed(: ffmpeg: it (ended|failed) .*)?; is the disk full\\?",
        str(caught.value),
    )
    assert list(tmp_path.iterdir()) == []


# --- JSON lines ---


def test_lines_are_json_with_detections_as_detect_writes_them(tmp_path: Path):
    path, sink = tmp_path / "new" / "found.jsonl", ListSink()
    with JsonLinesSink(path) as lines:
        run_loop(fake_detector(), [ListSource(grey_pictures(LEVELS))], [sink, lines])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        assert row.pop("age_ms") >= 0 and row.pop("time").endswith("+00:00")
    assert rows == [
        {
            "format": "yolov3_trt.frame/1",
            "source": "list",
            "index": index,
            "width": 64,
            "height": 48,
            "position_s": None,
            "captured_s": round(sink.frames[index].captured_s, 6),
            "detections": [
                {"class_id": 0, "class_name": "level", "score": 0.9, "xyxy": [0.0, 0.0, float(level), 10.0]}
            ],
        }
        for index, level in enumerate(LEVELS)
    ]
    assert list(path.parent.iterdir()) == [path]


def test_frame_without_detections_is_a_line_too(tmp_path: Path):
    with JsonLinesSink(tmp_path / "found.jsonl") as sink:
        sink.write(result_of(frame(0, 3)))
    text = (tmp_path / "found.jsonl").read_text()
    assert re.sub('"time": "[^"]+"', '"time": ""', text) == (
        '{"format": "yolov3_trt.frame/1", "source": "list", "index": 3, "width": 64, "height": 48, "position_s": null, '
        '"captured_s": 4.25, "time": "", "age_ms": 0.0, "detections": []}\n'
    )


def test_line_has_the_moment_of_the_capture_in_universal_time(tmp_path: Path):
    taken = Frame(grey_pictures([0])[0], "list", 0, time.monotonic() - 3600)
    with JsonLinesSink(tmp_path / "found.jsonl") as sink:
        sink.write(result_of(taken))
    row = json.loads((tmp_path / "found.jsonl").read_text())
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    assert abs(datetime.fromisoformat(row["time"]) - hour_ago) < timedelta(seconds=10)


def test_lines_are_in_the_file_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now_s = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    path = tmp_path / "found.jsonl"
    sink = JsonLinesSink(path)
    counts = []
    for now_s[0] in (50.2, 50.4, 51.0, 51.9, 52.1):
        sink.write(result_of(frame(0, len(counts))))
        assert list(tmp_path.iterdir()) == [path]
        counts.append(len(path.read_text().splitlines()))
    assert counts == [0, 0, 3, 3, 5]
    patient = PatientSink(sink)
    patient.write(result_of(frame(0, 5)))
    now_s[0] = 53.5
    patient.mark_stale("list", 1.5)  # no further frame comes
    assert len(path.read_text().splitlines()) == 6
    sink.abort()


def write_lines(path: Path, indices: Iterable[int], **options: int) -> None:
    with JsonLinesSink(path, **options) as sink:
        for index in indices:
            sink.write(result_of(frame(0, index)))
            sink._flush()


def indices_in(path: Path) -> list[int]:
    return [json.loads(line)["index"] for line in path.read_text().splitlines()]


def test_lines_of_a_restart_are_added_and_a_torn_one_is_taken_off(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "found.jsonl"
    write_lines(path, range(3))
    write_lines(path, range(3, 5))
    assert indices_in(path) == [0, 1, 2, 3, 4] and not caplog.messages
    path.write_bytes(path.read_bytes()[:-20])  # a power cut
    write_lines(path, [9])
    assert indices_in(path) == [0, 1, 2, 3, 9]
    assert caplog.messages == [f"{path}: the last line is cut short, as by a power cut; it is taken off"]
    path.write_text('{"index": 7}')  # of another program, whole but for its end
    write_lines(path, [8])
    assert indices_in(path) == [7, 8] and len(caplog.messages) == 1
    path.write_bytes(other := b'{"a": [' + b"1, " * 500_000)  # no line at all
    with pytest.raises(CameraError, match="does not hold lines of detections"):
        JsonLinesSink(path)
    assert path.read_bytes() == other
    path.write_text("my diary")
    with pytest.raises(CameraError, match=r"does not hold lines of detections; give another name, or move it away$"):
        JsonLinesSink(path)
    assert path.read_text() == "my diary"


def test_lines_go_on_in_a_new_file_when_it_is_taken_away_or_large(tmp_path: Path):
    path = tmp_path / "found.jsonl"
    with JsonLinesSink(path) as sink:
        sink.write(result_of(frame(0, 0)))
        sink._flush()
        path.rename(tmp_path / "taken")  # logrotate
        sink.write(result_of(frame(0, 1)))
    assert (indices_in(tmp_path / "taken"), indices_in(path)) == ([0], [1])
    size = path.stat().st_size
    write_lines(path, range(2, 9), max_bytes=2 * size + 10, keep=2)
    names = ["found.jsonl", "found.jsonl.1", "found.jsonl.2", "taken"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [indices_in(tmp_path / name) for name in names[:3]] == [[7, 8], [5, 6], [3, 4]]


@pytest.mark.parametrize("count", [1, 1000], ids=["when closed", "when written"])
def test_lines_on_a_full_disk_are_an_error_that_leaves_nothing(tmp_path: Path, count: int):
    with pytest.raises(OutputError) as caught, files_of_at_most(10):
        write_all(JsonLinesSink(tmp_path / "found.jsonl"), grey_pictures([0] * count, (1, 1)))
    assert str(caught.value) == f"{tmp_path}/found.jsonl: cannot be written (File too large)"
    assert list(tmp_path.iterdir()) == []


# --- a full disk, with something on it ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", ["video.mp4", "video.avi"])
def test_film_that_fills_the_disk_is_ended_and_kept(small_disk: Path, name: str):
    path, written = small_disk / name, 0
    (small_disk / "ballast").write_bytes(bytes(5 * 2**20))
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    with pytest.raises(CameraError) as caught, VideoSink(path, 10) as sink:  # aborted, which no longer harms it
        for index in range(2000):
            sink.write(result_of(Frame(np.roll(noise, 97 * index, 0), "list", index, 0.0)))
            written += 1
    assert 5 < written < 2000
    assert re.fullmatch(
        rf"{path}: the disk is full \([0-9.]+ MiB left\); the video ends after {written} frames; "
        "make room, or give another folder",
        str(caught.value),
    )
    assert len(read_all(path)) == written and set(small_disk.iterdir()) == {path, small_disk / "ballast"}


def test_lines_that_fill_the_disk_end_with_a_whole_one_and_are_kept(small_disk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_lines, "_FLUSH_EVERY_S", 0)
    path, written = small_disk / "found.jsonl", 0
    (small_disk / "ballast").write_bytes(bytes(8 * 2**20 - 20_000))
    free = Limits(free_gb=1e-9)
    with pytest.raises(NoRoom) as caught, JsonLinesSink(path, limits=free) as sink:
        for index in range(1000):
            sink.write(result_of(frame(0, index)))
            written += 1
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(written)) and written > 50
    assert re.search("No space left on device|0.0 MB of the disk are free", str(caught.value))
    assert sorted(small_disk.iterdir()) == [small_disk / "ballast", path]


def test_pictures_that_fill_the_disk_are_whole(small_disk: Path):
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    free = Limits(free_gb=1e-9)
    with pytest.raises(NoRoom) as caught, FramesSink(small_disk, ["list"], limits=free) as sink:
        for index in range(100):
            sink.write(result_of(Frame(noise, "list", index, 0.0)))
    names = sorted(path.name for path in small_disk.iterdir())
    assert names == [f"{index:08}.jpg" for index in range(len(names))] and len(names) > 5
    assert str(caught.value) == f"{small_disk}/{len(names):08}.jpg: cannot be written (No space left on device)"
    assert all(load_image(path).shape == (480, 640, 3) for path in small_disk.iterdir())


def test_full_disk_stops_its_own_sink_and_no_other(small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    uris = [f"{small_disk}/video.avi", f"{tmp_path}/found.jsonl", "http://127.0.0.1:0"]
    with open_sinks(uris, fps=10, stats=dict, sources=["list"]) as group:
        for index in range(2000):
            group.write(result_of(Frame(noise, "list", index, 0.0)))
            if group.failures and index % 100 == 99:
                break
        with urllib.request.urlopen(f"{group.addresses[0]}/snapshot.jpg") as answer:
            assert answer.status == 200
    (failure,) = group.failures
    assert failure["sink"] == uris[0] and failure["error"].startswith(f"{uris[0]}: the disk is full (")
    assert [message for message in caplog.messages if "stopped" in message] == [
        f"{failure['error']}; this sink has stopped"
    ]
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == index + 1
    assert 5 < len(read_all(small_disk / "video.avi")) < index


def test_killed_program_leaves_its_lines_in_the_file(tmp_path: Path):
    code = f"""
import time
from tests.camera.test_sinks import frame, result_of
from yolov3_trt.camera.sinks import JsonLinesSink
from pathlib import Path
sink = JsonLinesSink(Path({str(tmp_path / "found.jsonl")!r}))
for index in range(10_000):
    sink.write(result_of(frame(0, index)))
    time.sleep(0.01)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as program:
        deadline_s = time.monotonic() + 30
        while not any(path.stat().st_size for path in tmp_path.iterdir()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        program.kill()
    (left,) = tmp_path.iterdir()
    rows = [json.loads(line) for line in left.read_text().splitlines()]
    assert left.name == "found.jsonl" and [row["index"] for row in rows] == list(range(len(rows))) and rows


# --- pictures ---


def test_frames_are_pictures_named_after_their_index_with_the_boxes(tmp_path: Path):
    with FramesSink(tmp_path / "new", ["list"]) as sink:
        run_loop(fake_detector(), [ListSource(grey_pictures(LEVELS))], [sink])
    for index, level in enumerate(LEVELS):
        pixels = load_image(tmp_path / "new" / f"{index:08}.jpg")
        assert_allclose(pixels[30:], level, atol=12)
        assert np.ptp(pixels[:20]) > 100
    assert len(list((tmp_path / "new").iterdir())) == len(LEVELS)


def test_pictures_of_several_sources_are_told_apart_and_only_the_newest_kept(tmp_path: Path):
    with FramesSink(tmp_path, ["left", "right"], every=3, limits=Limits(keep=4)) as sink:
        for index in range(13):
            for source in ("left", "right"):
                sink.write(result_of(Frame(grey_pictures([0])[0], source, 2 * index, 0.0)))
    # Of 0, 3, 6, 9 and 12, whose indices are twice that.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0-00000018.jpg", "0-00000024.jpg", "1-00000018.jpg", "1-00000024.jpg",
    ]  # fmt: skip


def test_a_restart_goes_on_in_the_folder_and_keeps_the_newest_of_all_runs(tmp_path: Path):
    for indices in ((0, 1, 2), (0, 1)):
        with FramesSink(tmp_path, ["list"], limits=Limits(keep=4)) as sink:
            for index in indices:
                sink.write(result_of(frame(0, index)))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:2] == ["00000001.jpg", "00000002.jpg"] and len(names) == 4
    assert all(re.fullmatch(r"\d{8}-\d{6}-0000000[01]\.jpg", name) for name in names[2:])


def test_folder_with_pictures_is_refused(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(CameraError) as caught:
        FramesSink(tmp_path, ["list"])
    assert str(caught.value) == f"{tmp_path}: there are other JPEGs in it; give an empty folder or a new one"


# --- whole or absent ---


def open_sink(name: str, path: Path) -> Sink:
    return VideoSink(path, 10)


@pytest.fixture(params=["video.mp4", "video.avi"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of a file that is already there."""
    path = tmp_path / request.param
    path.write_bytes(b"old")
    return path


def test_file_appears_when_it_is_closed(path: Path):
    sink = open_sink(path.name, path)
    sink.write(result_of(frame(10, 0)))
    assert path.read_bytes() == b"old"
    sink.close()
    content = path.read_bytes()
    assert content != b"old"
    sink.close()
    sink.abort()
    assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]


# An OSError too, which is not this file's.
@pytest.mark.parametrize(
    "failure", [BackendError("lost"), OutputError("another file"), OSError(5, "I/O"), SystemExit(1)]
)
def test_error_keeps_the_old_file_and_leaves_nothing_behind(path: Path, failure: BaseException):
    source = ListSource([*grey_pictures(LEVELS), failure])
    with pytest.raises(type(failure)) as caught, open_sink(path.name, path) as sink:
        run_loop(fake_detector(), [source], [sink])
    assert caught.value is failure
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_interrupt_keeps_what_was_written_up_to_then(path: Path):
    source = ListSource([*grey_pictures(LEVELS), KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt), open_sink(path.name, path) as sink:
        run_loop(fake_detector(), [source], [sink])
    assert len(read_all(path)) == len(LEVELS) and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_without_a_frame_there_is_no_file_and_a_warning(path: Path, failure, caplog: pytest.LogCaptureFixture):
    source = ListSource([] if failure is None else [failure()])
    try:
        with open_sink(path.name, path) as sink:
            run_loop(fake_detector(), [source], [sink])
    except KeyboardInterrupt:
        assert failure is KeyboardInterrupt
    sink.close()
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]
    assert caplog.messages == [f"{path}: not written, there was no frame"]


def test_folder_that_cannot_be_written_is_known_before_the_first_frame(path: Path):
    below = path / "sub" / path.name
    with pytest.raises(OutputError) as caught:
        open_sink(path.name, below)
    assert str(caught.value) == (f"{below.parent}: cannot create this folder (Not a directory); give a writable one")
    assert path.read_bytes() == b"old"


def test_a_link_planted_where_a_picture_is_written_leads_nowhere(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / ".00000007.jpg.partial").write_text("of a run that was killed")
    sink = FramesSink(tmp_path / "frames", ["a"])
    assert not any((tmp_path / "frames").iterdir())
    (tmp_path / "frames" / ".00000000.jpg.partial").symlink_to(precious)
    sink.write(result_of(Frame(grey_pictures([0])[0], "a", 0, 0.0)))
    assert precious.read_text() == "mine" and (tmp_path / "frames" / "00000000.jpg").read_bytes().startswith(
        b"\xff\xd8"
    )


def test_lines_are_added_to_no_link_where_others_can_write_and_to_no_pipe(tmp_path: Path):
    folder, precious = tmp_path / "shared", tmp_path / "precious.json"
    precious.write_text('{"mine": 1}')  # the part behind the last line end would be taken off, or a line added
    folder.mkdir()
    (folder / "a.jsonl").symlink_to(precious)
    folder.chmod(0o777)
    with pytest.raises(OutputError, match="it is a link, in a folder that others can write to"):
        JsonLinesSink(folder / "a.jsonl")
    with JsonLinesSink(folder / "b.jsonl") as sink:
        (folder / "b.jsonl").unlink()
        (folder / "b.jsonl").symlink_to(precious)  # while it is being written
        with pytest.raises(OutputError, match="it is a link"):
            sink.write(result_of(Frame(grey_pictures([0])[0], "a", 0, 0.0)))
            sink._flush()
    assert precious.read_text() == '{"mine": 1}'
    os.mkfifo(folder / "c.jsonl")
    with pytest.raises(OutputError, match="it is no file but a pipe"):
        JsonLinesSink(folder / "c.jsonl")
    folder.chmod(0o700)  # a link of one's own is followed
    with JsonLinesSink(folder / "a.jsonl") as sink:
        sink.write(result_of(Frame(grey_pictures([0])[0], "a", 0, 0.0)))
    assert precious.read_text().startswith('{"mine": 1}\n{"')


def test_the_window_probe_runs_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cv2.py").write_text("open('EXECUTED', 'w')")
    monkeypatch.chdir(tmp_path)
    window_module._why_probe_fails()
    assert not (tmp_path / "EXECUTED").exists()
