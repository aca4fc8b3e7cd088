"""Videos in segments, and what sinks that never end may take of a disk."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.camera.test_sinks import frame, indices_in, read_all, small_disk  # noqa: F401 - a fixture
from tests.fakes import result_of
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sinks import (
    FramesSink,
    JsonLinesSink,
    Limits,
    NoRoom,
    PatientSink,
    SegmentsSink,
    encoders,
    open_sinks,
    storage,
)
from yolov3_trt.camera.sinks.timed_names import TimedNames
from yolov3_trt.errors import CameraError

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffprobe") is None or encoders.ffmpeg_codec() is None, reason="needs Debian's package ffmpeg"
)
PATTERN = "door-%Y%m%d-%H%M%S.mp4"


def segments(folder: Path, limits: Limits | None = None, *, segment_s: float = 1.0, live: bool = False) -> SegmentsSink:
    return SegmentsSink(folder / PATTERN, lambda: 10.0, lambda: live, segment_s=segment_s, limits=limits or Limits())


def facts_of(path: Path) -> tuple[str, int, float]:
    """Codec, frames that can be decoded, and seconds, by ffprobe."""
    entries = "stream=codec_name,nb_read_frames:format=duration"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "json", str(path)]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    (stream,) = said["streams"]
    return stream["codec_name"], int(stream["nb_read_frames"]), float(said["format"]["duration"])


@needs_ffmpeg
def test_segments_follow_one_another_without_a_gap_and_their_frames_keep_their_times(tmp_path: Path):
    sink = segments(tmp_path, live=True)
    taken_s = [0.0, 0.1, 0.3, 0.95, 1.0, 1.5, 2.2, 2.4]
    now_s = time.monotonic()
    for index, at_s in enumerate(taken_s):
        image_hw = (48, 64) if index < 7 else (64, 48)  # the camera changed its size
        sink.write(result_of(Frame(np.full((*image_hw, 3), 20 * index, np.uint8), "a", index, now_s + at_s)))
    sink.close()
    paths = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [len(read_all(path)) for path in paths] == [4, 2, 1, 1]  # the last is that of the other size
    codec, frames, seconds = facts_of(paths[0])
    assert codec in ("h264", "vp9") and frames == 4 and seconds == pytest.approx(0.95 + 0.1, abs=0.06)
    assert all(re.fullmatch(r"door-\d{8}-\d{6}(-\d)?\.mp4", path.name) for path in tmp_path.iterdir())


@needs_ffmpeg
def test_segment_plays_while_it_is_written_and_after_a_kill_and_the_next_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    code = f"""
import os, time
from pathlib import Path
import numpy as np
from tests.fakes import result_of
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sinks import Limits, SegmentsSink
pattern = Path({str(tmp_path / PATTERN)!r})
sink = SegmentsSink(pattern, lambda: 10.0, lambda: False, segment_s=600, limits=Limits())
for index in range(10_000):
    sink.write(result_of(Frame(np.full((48, 64, 3), index % 200, np.uint8), 'a', index, 0.0)))
    if index == 60:
        print(sink._encoder._process.pid, flush=True)
    time.sleep(0 if index < 60 else 0.01)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        encoder = int(program.stdout.readline())
        deadline_s = time.monotonic() + 60
        while sum(path.stat().st_size for path in tmp_path.iterdir()) < 4000 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        (path,) = tmp_path.iterdir()
        while_written = facts_of(path)[1]
        program.kill()
        os.kill(encoder, 9)  # as a power cut does
    assert facts_of(path)[1] >= while_written > 20
    (tmp_path / "door-20200101-000000.mp4").write_bytes(header := path.read_bytes()[:700])
    os.utime(tmp_path / "door-20200101-000000.mp4", (0, 0))
    (tmp_path / "other.mp4").write_bytes(header)
    with segments(tmp_path) as sink:
        sink.write(result_of(frame(0, 0)))
    names = sorted(left.name for left in tmp_path.iterdir())
    assert len(names) == 3 and path.name in names and names[-1] == "other.mp4"
    assert caplog.messages == [
        f"{tmp_path}/door-20200101-000000.mp4: a run that was killed left this, with nothing to play in it; removed"
    ]


def test_encoder_that_dies_costs_one_segment_and_one_that_always_dies_the_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    calls = 0

    class Dying:
        def add(self, picture: np.ndarray, at_s: float) -> None:
            nonlocal calls
            calls += 1
            if calls == 2 or calls >= 8:
                raise CameraError("it died")

        def close(self) -> None: ...

    monkeypatch.setattr("yolov3_trt.camera.sinks.segments.open_encoder", lambda *arguments, **options: Dying())
    sink = segments(tmp_path, segment_s=0.4)
    for index in range(9):
        sink.write(result_of(frame(0, index)))
    with pytest.raises(CameraError, match="it died"):
        sink.write(result_of(frame(0, 9)))
    assert caplog.messages.count("it died; the next frame begins another") == 3


def test_without_ffmpeg_opencv_writes_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(encoders, "ffmpeg_codec", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    uris = [f"{tmp_path}/{{source}}-%Y%m%d-%H%M%S.mp4?segment=1s&keep=2", f"{tmp_path}/plain.mp4"]
    with open_sinks(uris, fps=10, stats=dict, sources=["front door"]) as group:
        for index in range(35):
            group.write(result_of(Frame(np.full((48, 64, 3), index, np.uint8), "front door", index, 0.0)))
        said = (
            "there is no ffmpeg program (apt install ffmpeg): OpenCV writes the videos, as MPEG-4 part 2, which no "
            "browser plays"
        )
        assert group.fallbacks == (f"{said}; a segment that is not finished when the program is killed is lost", said)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3 and names[-1] == "plain.mp4"  # two are kept
    assert all(re.fullmatch(r"front_door-\d{8}-\d{6}(-\d)?\.mp4", name) for name in names[:2])
    assert sum(len(read_all(tmp_path / name)) for name in names[:2]) == 15


@pytest.mark.parametrize(
    "name, fault",
    [
        ("a-%q.mp4", "there is no %q"),
        ("a-%.mp4", "there is no %."),
        ("%Y/a-%d.mp4", "the time may stand in the name of"),
    ],
)
def test_name_that_has_no_meaning_is_refused(name: str, fault: str):
    with pytest.raises(CameraError, match=f"^{re.escape(name)}: {fault}.*; expected e.g. %Y%m%d-%H%M%S$"):
        TimedNames(Path(name))


def test_names_have_the_time_in_utc_and_a_number_where_there_is_one_already(tmp_path: Path):
    names = TimedNames(tmp_path / PATTERN)
    path = names.at(1_700_000_000)
    assert path.name == "door-20231114-221320.mp4"
    for number in ("", "-1", "-2"):
        new = names.new_at(1_700_000_000)
        assert new.name == f"door-20231114-221320{number}.mp4" and names.own.fullmatch(new.name)
        new.touch()
    assert not names.own.fullmatch("door-20231114.mp4") and not names.own.fullmatch("xdoor-20231114-221320.mp4")


# --- what they may take of the disk ---


@pytest.fixture
def old_files(tmp_path: Path) -> Iterator[list[Path]]:
    """Of 1000 bytes each, 5, 4, 3, 2, 1 and 0 days old, and one of somebody else."""
    files = [tmp_path / f"door-2026010{day}-000000.mp4" for day in range(6)]
    for day, path in enumerate(files):
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - (5 - day) * 86_400 - 60,) * 2)
    other = tmp_path / "mine.mp4"
    other.write_bytes(bytes(10_000))
    os.utime(other, (0, 0))
    yield files
    assert other.exists()


@pytest.mark.parametrize(
    "limits, in_use, left",
    [
        (Limits(), 0, 6),
        (Limits(keep=2), 0, 2),
        (Limits(keep=2), 1, 1),  # and the one that is being written
        (Limits(keep_days=2.5), 0, 3),
        (Limits(keep_gb=3.5e-6), 0, 3),
        (Limits(keep_gb=3.5e-6), 1000, 2),
        (Limits(keep_days=4.5, keep_gb=4.5e-6, keep=5), 0, 4),
    ],
)
def test_oldest_files_go_first_and_only_own_ones(old_files: list[Path], limits: Limits, in_use: int, left: int):
    files = storage.Storage(old_files[0].parent, TimedNames(old_files[0].parent / PATTERN).own, limits)
    files.make_room(in_use)
    assert files.files == [path for path in old_files if path.exists()] == old_files[6 - left :]


def test_clock_that_is_set_makes_no_file_old(old_files: list[Path], monkeypatch: pytest.MonkeyPatch):
    """A board without a battery begins in 1970, and knows the time a minute later."""
    folder = old_files[0].parent
    real_s = time.time()
    monkeypatch.setattr(time, "time", lambda: 100.0)
    files = storage.Storage(folder, TimedNames(folder / PATTERN).own, Limits(keep_days=2.5))
    (new := folder / "door-19700101-000140.mp4").write_bytes(bytes(10))
    os.utime(new, (100, 100))
    files.add(new)
    monkeypatch.setattr(time, "time", lambda: real_s)
    files.make_room()
    assert files.files == [*old_files, new]


def test_reserve_is_held_by_deleting_only_where_it_was_asked_for(
    old_files: list[Path], monkeypatch: pytest.MonkeyPatch
):
    def usage(folder: Path) -> shutil._ntuple_diskusage:
        used = sum(path.stat().st_size for path in old_files if path.exists())
        return shutil._ntuple_diskusage(100_000, 96_000 + used - 6000, 10_000 - used)  # 4 % are free at first

    monkeypatch.setattr(shutil, "disk_usage", usage)
    own = TimedNames(old_files[0].parent / PATTERN).own
    with pytest.raises(NoRoom, match=r"0.0 MB of the disk are free, 0.0 shall stay so; make room, or set limits"):
        storage.Storage(old_files[0].parent, own, Limits()).make_room()
    assert all(path.exists() for path in old_files)
    storage.Storage(old_files[0].parent, own, Limits(free_gb=7e-6)).make_room()
    assert [path.exists() for path in old_files] == [False, False, False, True, True, True]
    with pytest.raises(NoRoom):  # not even without any
        storage.Storage(old_files[0].parent, own, Limits(free_gb=11e-6)).make_room()
    assert not any(path.exists() for path in old_files)


def test_lines_by_day_go_on_in_the_next_file_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now_s = [1_700_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now_s[0])
    with JsonLinesSink(tmp_path / "found-%Y%m%d.jsonl", limits=Limits(keep=2)) as sink:
        for index in range(8):
            now_s[0] = 1_700_000_000 + index * 43_200
            sink.write(result_of(frame(0, index)))
            sink._flush()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["found-20231117.jsonl", "found-20231118.jsonl"]
    assert [indices_in(tmp_path / name) for name in names] == [[5, 6], [7]]


def test_sinks_wait_for_room_and_go_on_when_there_is_some(
    small_disk: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(storage, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("yolov3_trt.camera.sinks.segments._LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("yolov3_trt.camera.sinks.json_lines._FLUSH_EVERY_S", 0.0)
    ballast = small_disk / "ballast"
    lines, folder = small_disk / "a.jsonl", small_disk / "frames"
    sinks = [PatientSink(JsonLinesSink(lines)), PatientSink(FramesSink(folder, ["list"]))]
    if encoders.ffmpeg_codec() is not None:
        sinks.append(PatientSink(segments(small_disk)))
    for sink in sinks:
        with sink:
            for index in range(9):
                if index == 3:
                    ballast.write_bytes(bytes(int(7.8 * 2**20)))  # less than a twentieth is left
                elif index == 6:
                    ballast.unlink()
                sink.write(result_of(frame(0, index)))
        assert caplog.messages[-1] == f"{sink.name}: there is room again; 3 frames were left out"
    assert indices_in(lines) == [0, 1, 2, 6, 7, 8] and len(list(folder.iterdir())) == 6
    assert len(caplog.messages) == 2 * len(sinks)
    sink = PatientSink(JsonLinesSink(lines, limits=Limits(free_gb=1.0)))
    with pytest.raises(NoRoom, match="1 frames at the end were left out"), sink:
        sink.write(result_of(frame(0, 9)))
