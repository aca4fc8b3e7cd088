"""From a source through the loop into sinks: frames in order, files whole or absent, times as computed by hand."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.fakes import FRAME_HW, ListSink, ListSource, fake_detector, grey_pictures
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.loop import STAGES, LoopTimes, run_loop
from yolov3_trt.camera.sinks import JsonLinesSink, Sink, VideoSink
from yolov3_trt.camera.sources import ShapesSource, VideoSource, open_source
from yolov3_trt.detections import Detections
from yolov3_trt.errors import CameraError, OutputError
from yolov3_trt.geometry import HW
from yolov3_trt.shapes import iter_shapes_clip

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
            sink.write(Frame(pixels, "list", index, 0.0), Detections.none())


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


# --- the loop ---


def test_every_frame_reaches_every_sink_in_order_with_its_own_detections():
    source, sinks, seen = ListSource(grey_pictures(LEVELS)), [ListSink(), ListSink()], []
    with fake_detector() as detector:
        summary = run_loop(detector, source, sinks, on_frame=lambda *call: seen.append(call))
        assert detector.backend.is_open and source.is_open  # who opened them closes them
    for sink in sinks:
        assert sink.calls == []
        assert [frame.index for frame in sink.frames] == [0, 1, 2, 3, 4, 5]
        assert [frame.pixels[0, 0, 0] for frame in sink.frames] == list(LEVELS)
        assert [found.xyxy[0, 2] for found in sink.detections] == list(LEVELS)
    assert [call[0] for call in seen] == sinks[0].frames and [call[1] for call in seen] == sinks[0].detections
    assert (summary.captured, summary.processed, summary.dropped) == (6, 6, 0)
    assert summary.fps == pytest.approx(6 / summary.elapsed_s)


def test_loop_stops_after_max_frames_and_reads_no_further():
    source, sink = ListSource([*grey_pictures(LEVELS[:2]), AssertionError("read too far")]), ListSink()
    assert run_loop(fake_detector(), source, [sink], max_frames=2).processed == 2
    assert run_loop(fake_detector(), source, [sink], max_frames=0).processed == 0
    assert len(sink.frames) == 2


@pytest.mark.parametrize("failure, ending", [(CameraError("lost"), "abort"), (KeyboardInterrupt(), "close")])
def test_exception_leaves_the_loop_and_its_owner_decides(failure: BaseException, ending: str):
    detector, source, sink = fake_detector(), ListSource([*grey_pictures(LEVELS[:3]), failure]), ListSink()
    with pytest.raises(type(failure)), sink:
        try:
            run_loop(detector, source, [sink])
        finally:
            assert sink.calls == [] and detector.backend.is_open and source.is_open
    assert sink.calls == [ending] and len(sink.frames) == 3


def test_times_are_those_of_their_stages():
    times = LoopTimes()
    for n in (5, 1, 3, 2, 4):  # any order
        # Taken 2 ms before capture ends; stages of n, 2, 10 n, 3 and 4 ms.
        marks_ms = np.cumsum([1000.0, n, 2, 10 * n, 3, 4])
        times.add((marks_ms[1] - 2) / 1e3, list(marks_ms / 1e3))
    summary = times.summary(elapsed_s=0.5)
    assert (summary.captured, summary.processed, summary.dropped, summary.fps) == (5, 5, 0, 10)
    assert summary.stages_ms == pytest.approx(dict(zip(STAGES, (3, 2, 30, 3, 4), strict=True)))
    # 15, 25, 35, 45, 55: p95 lies 0.8, p99 0.96 of the way from the fourth to the fifth.
    assert summary.latency_ms == pytest.approx({"p50": 35, "p95": 53, "p99": 54.6})
    assert summary.frame_age_ms == pytest.approx({"p50": 37, "p95": 55, "p99": 56.6})
    assert json.loads(json.dumps(summary.to_json())) == summary.to_json()


def test_frame_age_counts_from_the_capture():
    summary = run_loop(fake_detector(), ListSource(grey_pictures(LEVELS), age_s=100), [])
    assert summary.frame_age_ms["p50"] >= 100_000 > summary.latency_ms["p99"] >= summary.latency_ms["p50"] > 0


def test_loop_without_frames_has_no_percentiles():
    summary = run_loop(fake_detector(), ListSource([]), [])
    nothing = {"p50": None, "p95": None, "p99": None}
    assert summary.to_json() == {
        "captured": 0,
        "processed": 0,
        "dropped": 0,
        "elapsed_s": summary.elapsed_s,
        "fps": None,
        "latency_ms": nothing,
        "frame_age_ms": nothing,
        "stages_ms": dict.fromkeys(STAGES),
    }


# --- sources ---


def test_shapes_come_with_the_truth_of_each_frame():
    expected, truths = list(iter_shapes_clip(7, 4, (64, 96))), []
    with open_source("shapes://?seed=7&frames=4&size=64x96") as source:
        assert isinstance(source, ShapesSource) and source.truth is None
        sink = ListSink()
        run_loop(fake_detector(), source, [sink], on_frame=lambda frame, _: truths.append((frame, source.truth)))
        assert source.read() is None
    assert [frame.index for frame in sink.frames] == [0, 1, 2, 3]
    assert {frame.source for frame in sink.frames} == {"shapes://?seed=7&frames=4&size=64x96"}
    for (read, truth), picture in zip(truths, expected, strict=True):
        assert read.pixels is truth.pixels
        assert_array_equal(truth.pixels, picture.pixels)
        assert_array_equal(truth.xyxy, picture.xyxy)
        assert_array_equal(truth.class_ids, picture.class_ids)


def test_every_part_of_a_shapes_uri_has_a_default():
    source = open_source("shapes://")
    assert source.name == "shapes://?seed=0&frames=100&size=480x640"
    assert (source.fps, source.live) == (30.0, False)
    assert open_source("shapes://?fps=12").fps == 12.0
    again = open_source(source.name)
    assert_array_equal(again.read().pixels, source.read().pixels)


FORM = "shapes://?seed=1&frames=100&size=480x640&fps=30"


@pytest.mark.parametrize(
    "uri, fault",
    [
        ("shapes://clip", "only parameters may follow shapes://"),
        ("shapes:///?seed=1", "only parameters may follow shapes://"),
        ("shapes://[", "Invalid IPv6 URL"),
        ("shapes://?sed=1", "there is no parameter 'sed'"),
        ("shapes://?seed", "seed='' has no meaning"),
        ("shapes://?seed=-1", "seed='-1' has no meaning"),
        ("shapes://?frames=0", "frames='0' has no meaning"),
        ("shapes://?size=480", "size='480' has no meaning"),
        ("shapes://?size=480x640x3", "size='480x640x3' has no meaning"),
        ("shapes://?fps=nan", "fps='nan' has no meaning"),
        ("shapes://?seed=1&seed=2", "a parameter is given twice"),
    ],
)
def test_shapes_uri_that_is_not_understood_is_refused(uri: str, fault: str):
    with pytest.raises(CameraError) as caught:
        open_source(uri)
    assert str(caught.value) == f"{uri}: {fault}; expected {FORM} or a part of it, with the size as HEIGHTxWIDTH"


def test_shapes_too_small_to_draw_are_refused():
    with pytest.raises(CameraError, match=r"^shapes of 480x63 px; expected 64 or more each way$"):
        open_source("shapes://?size=480x63")


@pytest.mark.parametrize("uri", ["0", "csi://0", "rtsp://host/clip.mp4", "picture.jpg", "folder", "", "shapes"])
def test_source_of_another_kind_is_refused(uri: str):
    with pytest.raises(CameraError) as caught:
        open_source(uri)
    assert str(caught.value) == (
        f"{uri}: not a source; expected a video file (.avi, .m4v, .mkv, .mov, .mp4, .mpeg, .mpg, .webm) "
        f"or generated frames ({FORM})"
    )


def test_video_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "folder.mp4").mkdir()
    for name, reason in (("no.mp4", "No such file or directory"), ("folder.mp4", "Is a directory")):
        with pytest.raises(CameraError) as caught:
            open_source(f"{tmp_path}/{name}")
        assert str(caught.value) == f"{tmp_path}/{name}: cannot be read ({reason}); expected a video file"


@pytest.mark.parametrize("content", [b"", b"not a video"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.AVI"])
def test_file_that_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CameraError) as caught:
        open_source(f"{tmp_path}/{name}")
    assert str(caught.value) == (
        f"{tmp_path}/{name}: not a video that OpenCV can decode, or damaged; "
        "copy it again, or convert it to an .mp4 with H.264"
    )


def test_video_cut_short_gives_what_there_is_and_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "clip.avi"
    write_all(VideoSink(path, 10), shades(6))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + (content.index(b"idx1") - content.index(b"movi")) // 2])
    with VideoSource(path) as source:
        frames = list(iter(source.read, None))
        assert source.read() is None
    assert 1 <= len(frames) < 6
    assert caplog.messages == [f"{path}: {len(frames)} frames read, 6 announced; the video may be cut short"]


# --- films ---


@pytest.mark.parametrize("name", ["film.mp4", "film.avi", "FILM.MP4", "größe ü.avi"])
@pytest.mark.parametrize("count", [1, 9])
def test_film_is_read_as_written(tmp_path: Path, name: str, count: int, caplog: pytest.LogCaptureFixture):
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
    with VideoSink(tmp_path / "film.avi", 10) as sink:
        summary = run_loop(fake_detector(), ListSource(grey_pictures([40] * 3)), [sink])
    assert summary.processed == 3
    for shown in read_all(tmp_path / "film.avi"):
        assert_allclose(shown.pixels[30:], 40, atol=12)
        assert np.ptp(shown.pixels[:20]) > 100  # a coloured box and its label


def test_last_row_and_column_of_odd_frames_are_cut_off(tmp_path: Path):
    write_all(VideoSink(tmp_path / "film.mp4", 10), grey_pictures([100] * 3, (33, 47)))
    assert [frame.pixels.shape for frame in read_all(tmp_path / "film.mp4")] == [(32, 46, 3)] * 3


def test_frame_of_another_size_is_refused(tmp_path: Path):
    with pytest.raises(CameraError) as caught, VideoSink(tmp_path / "film.mp4", 10) as sink:
        sink.write(frame(10, 0), Detections.none())
        sink.write(frame(10, 1, (64, 48)), Detections.none())
    assert str(caught.value) == (
        f"{tmp_path}/film.mp4: frame 1 of list is 64x48, the film 48x64 (height x width); give each source a film of its own"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["film.mkv", "film"])
def test_film_of_another_kind_is_refused(tmp_path: Path, name: str):
    with pytest.raises(CameraError) as caught:
        VideoSink(tmp_path / name, 10)
    assert str(caught.value) == f"{tmp_path}/{name}: films are written as .mp4 or .avi; give a name that ends so"


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_film_without_speed_is_refused(tmp_path: Path, fps: float):
    with pytest.raises(CameraError) as caught:
        VideoSink(tmp_path / "film.mp4", fps)
    assert str(caught.value) == f"{tmp_path}/film.mp4: fps={fps}; expected a number above 0"
    assert list(tmp_path.iterdir()) == []


def test_film_that_the_encoder_refuses_is_an_error(tmp_path: Path):
    with pytest.raises(CameraError) as caught:
        write_all(VideoSink(tmp_path / "film.mp4", 10), grey_pictures([0], (1, 1)))
    assert str(caught.value) == (
        f"{tmp_path}/film.mp4: this OpenCV cannot write 1x1 px at 10 fps as mp4v; "
        "try .avi, or install an OpenCV with FFmpeg"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_bytes", [3_000, 30_000])
@pytest.mark.parametrize("name", ["film.mp4", "film.avi"])
def test_film_on_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path, name: str, num_bytes: int):
    noise = list(np.random.default_rng(0).integers(0, 256, (30, *FRAME_HW, 3), np.uint8))
    with pytest.raises(CameraError) as caught, files_of_at_most(num_bytes):
        write_all(VideoSink(tmp_path / name, 10), noise)
    assert str(caught.value) == f"{tmp_path}/{name}: the film could not be completed; is the disk full?"
    assert list(tmp_path.iterdir()) == []


# --- JSON lines ---


def test_lines_are_json_with_detections_as_detect_writes_them(tmp_path: Path):
    path, sink = tmp_path / "new" / "found.jsonl", ListSink()
    with JsonLinesSink(path) as lines:
        run_loop(fake_detector(), ListSource(grey_pictures(LEVELS)), [sink, lines])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {
            "source": "list",
            "index": index,
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
        sink.write(frame(0, 3), Detections.none())
    assert (tmp_path / "found.jsonl").read_text() == (
        '{"source": "list", "index": 3, "captured_s": 4.25, "detections": []}\n'
    )


@pytest.mark.parametrize("count", [1, 1000], ids=["when closed", "when written"])
def test_lines_on_a_full_disk_are_an_error_that_leaves_nothing(tmp_path: Path, count: int):
    with pytest.raises(OutputError) as caught, files_of_at_most(10):
        write_all(JsonLinesSink(tmp_path / "found.jsonl"), grey_pictures([0] * count, (1, 1)))
    assert str(caught.value) == f"{tmp_path}/found.jsonl: cannot be written (File too large)"
    assert list(tmp_path.iterdir()) == []


# --- whole or absent ---


def open_sink(name: str, path: Path) -> Sink:
    return VideoSink(path, 10) if name.endswith((".mp4", ".avi")) else JsonLinesSink(path)


@pytest.fixture(params=["film.mp4", "film.avi", "found.jsonl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of a file that is already there."""
    path = tmp_path / request.param
    path.write_bytes(b"old")
    return path


def test_file_appears_when_it_is_closed(path: Path):
    sink = open_sink(path.name, path)
    sink.write(frame(10, 0), Detections.none())
    assert path.read_bytes() == b"old"
    sink.close()
    content = path.read_bytes()
    assert content != b"old"
    sink.close()
    sink.abort()
    assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]


# An OSError too, which is not this file's.
@pytest.mark.parametrize(
    "failure", [CameraError("lost"), OutputError("another file"), OSError(5, "I/O"), SystemExit(1)]
)
def test_error_keeps_the_old_file_and_leaves_nothing_behind(path: Path, failure: BaseException):
    source = ListSource([*grey_pictures(LEVELS), failure])
    with pytest.raises(type(failure)) as caught, open_sink(path.name, path) as sink:
        run_loop(fake_detector(), source, [sink])
    assert caught.value is failure
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_interrupt_keeps_what_was_written_up_to_then(path: Path):
    source = ListSource([*grey_pictures(LEVELS), KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt), open_sink(path.name, path) as sink:
        run_loop(fake_detector(), source, [sink])
    frames = path.read_text().splitlines() if path.suffix == ".jsonl" else read_all(path)
    assert len(frames) == len(LEVELS) and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_without_a_frame_there_is_no_file_and_a_warning(path: Path, failure, caplog: pytest.LogCaptureFixture):
    source = ListSource([] if failure is None else [failure()])
    try:
        with open_sink(path.name, path) as sink:
            run_loop(fake_detector(), source, [sink])
    except KeyboardInterrupt:
        assert failure is KeyboardInterrupt
    sink.close()
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]
    assert caplog.messages == [f"{path}: not written, there was no frame"]


def test_folder_that_cannot_be_written_is_known_before_the_first_frame(path: Path):
    below = path / "sub" / path.name
    with pytest.raises(OutputError) as caught:
        open_sink(path.name, below)
    assert str(caught.value) == (
        f"{below.parent}: cannot create this folder (Not a directory); give a writable one with -o"
    )
    assert path.read_bytes() == b"old"
