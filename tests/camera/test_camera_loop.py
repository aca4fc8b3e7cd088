"""The capture loop: every frame in order and counted, cameras never lag, several share a call fairly."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import (
    FRAME_HW,
    ListSink,
    ListSource,
    ScriptedCamera,
    SlowBackend,
    TwoSlots,
    fake_detector,
    grey_pictures,
)
from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.inlets import Pace
from yolov3_trt.camera.loop import CameraLoop, LoopOptions, run_loop
from yolov3_trt.camera.sinks import VideoSink
from yolov3_trt.camera.sources import SourceOptions, open_source
from yolov3_trt.camera.statistics import STAGES, Statistics
from yolov3_trt.data.images import find_sources, iter_images
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.errors import BackendError, CameraError
from yolov3_trt.meta import Batch
from yolov3_trt.shapes import iter_shapes_clip

LEVELS = (0, 10, 20, 30, 40, 50)


def paced(pictures: Sequence[np.ndarray], fps: float) -> Iterator[Any]:
    """The script of a camera: the pictures over and over, at a rate."""
    for picture in itertools.cycle(pictures):
        yield 1 / fps
        yield picture


def of_source(sink: ListSink, name: str) -> list[Result]:
    return [result for result in sink.results if result.frame.source == name]


# --- files: every frame ---


def test_every_frame_reaches_every_sink_in_order_with_its_own_detections():
    source, sinks, seen = ListSource(grey_pictures(LEVELS)), [ListSink(), ListSink()], []
    with fake_detector() as detector:
        statistics = run_loop(detector, [source], sinks, LoopOptions(on_frame=seen.append))
        assert detector.backend.network.is_open and source.is_open  # who opened them closes them
    for sink in sinks:
        assert sink.calls == []
        assert [frame.index for frame in sink.frames] == [0, 1, 2, 3, 4, 5]
        assert [frame.pixels[0, 0, 0] for frame in sink.frames] == list(LEVELS)
        assert [found.xyxy[0, 2] for found in sink.detections] == list(LEVELS)
    assert seen == sinks[0].results
    assert (statistics.captured, statistics.processed, statistics.dropped) == (6, 6, 0)
    assert statistics.ended_by == "sources"


def test_loop_stops_after_max_frames_and_counts_none_that_was_only_read_ahead():
    source, sink = ListSource(grey_pictures(range(0, 250, 2))), ListSink()
    statistics = run_loop(fake_detector(), [source], [sink], LoopOptions(max_frames=2))
    assert (statistics.captured, statistics.processed, statistics.dropped) == (2, 2, 0)
    assert statistics.ended_by == "max_frames" and len(sink.frames) == 2
    assert source.read().index <= 7  # it was not read ahead without limit


def test_loop_stops_after_its_duration():
    statistics = run_loop(
        fake_detector(), [ScriptedCamera(paced(grey_pictures([9]), 50))], [], LoopOptions(duration_s=0.3)
    )
    assert statistics.ended_by == "duration" and 0.3 <= statistics.elapsed_s < 2
    assert statistics.processed > 0


def test_sink_that_asks_for_the_end_gets_it():
    sink = ListSink()

    def press_q(result: Result) -> None:
        sink.stop_requested = result.frame.index == 3

    statistics = run_loop(fake_detector(), [ListSource(grey_pictures(LEVELS))], [sink], LoopOptions(on_frame=press_q))
    assert statistics.ended_by == "viewer" and [frame.index for frame in sink.frames] == [0, 1, 2, 3]


@pytest.mark.parametrize("failure, ending", [(BackendError("broken"), "abort"), (KeyboardInterrupt(), "close")])
def test_exception_leaves_the_loop_and_its_owner_decides(failure: BaseException, ending: str):
    detector, source, sink = fake_detector(), ListSource([*grey_pictures(LEVELS[:3]), failure]), ListSink()
    with pytest.raises(type(failure)), sink:
        try:
            run_loop(detector, [source], [sink])
        finally:
            assert sink.calls == [] and detector.backend.network.is_open and source.is_open
    assert sink.calls == [ending] and len(sink.frames) == 3


def test_file_that_fails_is_told_and_the_others_go_on(caplog: pytest.LogCaptureFixture):
    broken = ListSource([*grey_pictures([1]), CameraError("broken: it is")], name="broken")
    sink = ListSink()
    statistics = run_loop(fake_detector(), [broken, ListSource(grey_pictures(LEVELS))], [sink])
    rows = statistics.summary()["sources"]
    assert [(row["source"], row["state"], row["processed"], row["error"]) for row in rows] == [
        ("broken", "failed", 1, "broken: it is"),
        ("list", "ended", 6, None),
    ]
    assert caplog.messages == ["broken: it is"]


@pytest.mark.parametrize("sources", [[], [ListSource([]), ListSource([])]], ids=["none", "twice"])
def test_no_source_or_one_given_twice_is_refused(sources: list[ListSource]):
    names = "list, list" if sources else "(none)"
    with pytest.raises(CameraError) as caught:
        CameraLoop(fake_detector(), sources, [])
    assert str(caught.value) == f"sources {names}: expected one or more, each of them once"


def test_dropping_frames_of_a_file_needs_real_time():
    with pytest.raises(
        CameraError, match=r"^list: no frame of a file comes late; give realtime=True with drop=.latest.$"
    ):
        CameraLoop(fake_detector(), [ListSource([])], [], LoopOptions(drop="latest"))


def test_loop_without_frames_has_no_percentiles():
    summary = run_loop(fake_detector(), [ListSource([])], []).summary()
    nothing = {"p50": None, "p95": None, "p99": None}
    assert (summary["captured"], summary["processed"], summary["dropped"], summary["fps"]) == (0, 0, 0, None)
    assert summary["latency_ms"] == summary["frame_age_ms"] == nothing
    assert summary["stages_ms"] == dict.fromkeys(STAGES, nothing)


def test_detections_on_a_clip_equal_those_of_detect_on_its_frames(tmp_path: Path):
    clip, sink = tmp_path / "clip.avi", ListSink()
    with VideoSink(clip, 10) as video:
        run_loop(fake_detector(), [open_source("shapes://?seed=5&frames=12&size=160x120")], [video])
    with open_detector("shapes", threads=1) as detector:
        with open_source(str(clip)) as source:
            run_loop(detector, [source], [sink])
        expected = [detector(image.pixels) for image in iter_images(find_sources([str(clip)]))]
    assert len(expected) == len(sink.detections) == 12 and sum(map(len, expected)) > 12
    for found, alone in zip(sink.detections, expected, strict=True):
        for column in ("xyxy", "scores", "class_ids"):
            np.testing.assert_array_equal(getattr(found, column), getattr(alone, column))


# --- real time ---


def test_frames_are_due_at_their_time_and_lost_time_is_not_caught_up():
    pace = Pace(10.0)
    assert pace.next_s(100.0) == 0.0
    assert pace.next_s(100.02) == pytest.approx(0.08)
    assert pace.next_s(100.25) == 0.0  # 50 ms late
    assert pace.next_s(100.26) == pytest.approx(0.04)  # so the next comes after 50
    assert pace.next_s(105.0) == 0.0  # far behind: the count begins anew
    assert pace.next_s(105.0) == pytest.approx(0.1)


@pytest.mark.parametrize("drop, expected", [(None, 20), ("none", 20), ("latest", 3)])
def test_video_in_real_time_takes_its_time_and_drops_only_when_told(tmp_path: Path, drop: Any, expected: int):
    with VideoSink(tmp_path / "clip.avi", 50) as video:
        run_loop(fake_detector(), [ListSource(grey_pictures([9] * 20))], [video])
    detector = Detector(SlowBackend(0.0 if drop != "latest" else 0.15))
    with open_source(str(tmp_path / "clip.avi"), SourceOptions(realtime=True)) as source:
        statistics = run_loop(detector, [source], [], LoopOptions(drop=drop))
    assert statistics.captured == 20 == statistics.processed + statistics.dropped
    assert statistics.elapsed_s >= 19 / 50 - 0.001
    assert (statistics.processed == 20) == (expected == 20) and statistics.processed >= 2


def test_generator_that_is_live_drops_what_comes_too_late():
    with open_source("shapes://?live=1&frames=30&fps=100&size=64x64") as source:
        statistics = run_loop(Detector(SlowBackend(0.1)), [source], [])
    assert statistics.captured == 30 == statistics.processed + statistics.dropped
    assert 0 < statistics.processed < 30 and statistics.summary()["sources"][0]["state"] == "ended"


# --- cameras: never behind ---


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.slow
def test_camera_of_60_fps_never_lags_behind_a_detector_of_5_fps():
    pictures = grey_pictures([10, 20, 30], (480, 640))
    memory: list[float] = []
    camera = ScriptedCamera(paced([picture.copy() for picture in pictures], 60))
    options = LoopOptions(duration_s=8, on_frame=lambda result: memory.append(resident_mib()))
    sink = ListSink()
    statistics = run_loop(Detector(SlowBackend(0.2)), [camera], [sink], options)
    summary = statistics.summary()
    assert statistics.captured == statistics.processed + statistics.dropped
    assert 30 <= statistics.processed <= 40 and statistics.captured > 5 * statistics.processed
    interval_ms = statistics.elapsed_s * 1e3 / statistics.captured
    # This machine is shared: a thread that is due may wait for a core. A frame that queued would be older by 200 ms.
    scheduling_ms = 50
    assert summary["frame_age_ms"]["p95"] < summary["latency_ms"]["p95"] + interval_ms + scheduling_ms
    assert max(memory[5:]) - memory[5] < 8  # MiB; kept frames would take 1 each
    indices = [frame.index for frame in sink.frames]
    assert indices == sorted(set(indices)) and indices[-1] - indices[0] > 200  # gaps are the dropped ones
    drops = [result.status.dropped for result in sink.results]
    assert drops == sorted(drops) and drops[-1] <= statistics.dropped


def test_camera_without_dropping_waits_for_the_detector():
    camera, sink = ScriptedCamera([*grey_pictures(LEVELS)]), ListSink()
    statistics = run_loop(Detector(SlowBackend(0.02)), [camera], [sink], LoopOptions(drop="none", max_frames=6))
    assert [frame.pixels[0, 0, 0] for frame in sink.frames] == list(LEVELS)
    assert (statistics.captured, statistics.processed, statistics.dropped) == (6, 6, 0)


def test_device_works_on_the_next_frame_while_sinks_have_the_last_one():
    backend, sink = TwoSlots(0.03), ListSink()
    camera = ScriptedCamera(paced(grey_pictures(LEVELS), 200))
    at_work: list[int] = []  # calls under way while the sinks have a frame
    options = LoopOptions(max_frames=10, on_frame=lambda result: at_work.append(backend.num_pending))
    run_loop(Detector(backend), [camera], [sink], options)
    # After the last frame there is none; and a camera may be late now and then on a machine that is shared.
    assert sum(at_work[:-1]) >= 6 and at_work[-1] == 0
    assert backend.max_pending == 1  # no frame waits behind another


def test_file_keeps_every_slot_of_the_device_busy():
    backend, sink = TwoSlots(0.01), ListSink()
    run_loop(Detector(backend), [ListSource(grey_pictures(LEVELS))], [sink])
    assert backend.max_pending == 2 and [frame.index for frame in sink.frames] == [0, 1, 2, 3, 4, 5]
    assert [found.xyxy[0, 2] for found in sink.detections] == list(LEVELS)


# --- several cameras ---


def test_cameras_of_different_sizes_and_rates_share_calls_in_order():
    rates = {"a": 200.0, "b": 90.0, "c": 40.0, "d": 10.0}
    sides = {"a": 1, "b": 2, "c": 3, "d": 4}  # times FRAME_HW
    cameras = []
    for name, rate in rates.items():
        height, width = FRAME_HW[0] * sides[name], FRAME_HW[1] * sides[name]
        cameras.append(ScriptedCamera(paced(grey_pictures(LEVELS, (height, width)), rate), name=name))
    backend, sink = SlowBackend(0.02, max_batch=4), ListSink()
    statistics = run_loop(Detector(backend), cameras, [sink], LoopOptions(duration_s=2.0))
    assert max(backend.calls) > 1 and max(backend.calls) <= 4 and sum(backend.calls) == len(sink.results)
    for name in rates:
        results, row = of_source(sink, name), statistics.sources[name]
        indices = [result.frame.index for result in results]
        assert indices == sorted(set(indices))
        assert len(results) == row.processed > 0 and row.captured == row.processed + row.dropped
        assert row.image_hw == (FRAME_HW[0] * sides[name], FRAME_HW[1] * sides[name])
        for result in results:  # its own pixels and its own detections
            assert result.frame.pixels.shape[0] == FRAME_HW[0] * sides[name]
            level = LEVELS[result.frame.index % len(LEVELS)]
            assert result.frame.pixels[0, 0, 0] == level
            assert result.detections.xyxy[0, 2] == pytest.approx(level * sides[name], abs=0.01)
    # The slow one is not starved by the fast one: nearly each of its frames is used.
    assert statistics.sources["d"].processed >= statistics.sources["d"].captured - 2


def test_sources_take_turns_where_not_all_fit_into_a_call():
    sources = [ListSource(grey_pictures([level] * 6), name=name) for name, level in (("a", 1), ("b", 2), ("c", 3))]
    backend, sink = SlowBackend(0.01, max_batch=2), ListSink()
    run_loop(Detector(backend), sources, [sink])
    order = [frame.source for frame in sink.frames]
    for n in range(3, 15, 3):
        counts = [order[:n].count(name) for name in "abc"]
        assert max(counts) - min(counts) <= 2
    for name in "abc":
        assert [result.frame.index for result in of_source(sink, name)] == [0, 1, 2, 3, 4, 5]
    assert sum(backend.calls) == 18 and max(backend.calls) == 2


def test_batch_that_stays_partly_empty_is_told():
    backend = SlowBackend(0.0, max_batch=4)
    backend.meta = replace(backend.meta, batch=Batch(4, 4, 4))
    loop = CameraLoop(Detector(backend), [ListSource(grey_pictures(LEVELS))], [])
    (reason,) = loop.run().summary()["loop_fallbacks"]
    assert reason.startswith("fake takes 4 pictures a call; with 1 sources the rest of the batch is empty")


# --- ends ---


def test_stop_from_another_thread_ends_the_loop_with_the_frames_under_way():
    sink = ListSink()
    loop = CameraLoop(Detector(SlowBackend(0.05)), [ScriptedCamera(paced(grey_pictures([9]), 100))], [sink])
    timer = threading.Timer(0.3, loop.stop, ["asked"])
    timer.start()
    statistics = loop.run()
    timer.join()
    assert statistics.ended_by == "asked" and statistics.elapsed_s < 3
    assert statistics.processed == len(sink.results) > 0
    assert statistics.captured == statistics.processed + statistics.dropped
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("grab", "read"))]


def test_statistics_can_be_read_by_another_thread_at_any_time():
    statistics, seen, is_over = Statistics({"backend": "fake"}), [], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            seen.append(statistics.snapshot())

    watcher = threading.Thread(target=watch)
    watcher.start()
    camera = ScriptedCamera(paced(grey_pictures(LEVELS), 200))
    run_loop(Detector(SlowBackend(0.01)), [camera], [], LoopOptions(duration_s=0.5), statistics)
    is_over.set()
    watcher.join()
    assert len(seen) > 10 and all(row["backend"] == "fake" for row in seen)
    counts = [row["processed"] for row in seen]
    assert counts == sorted(counts) and counts[-1] > 0
    for row in seen:  # at most one frame waits and one is under way
        assert 0 <= row["captured"] - row["processed"] - row["dropped"] <= 2
    assert statistics.captured == statistics.processed + statistics.dropped


def test_clip_of_the_generator_comes_with_the_truth_of_each_frame():
    with open_source("shapes://?seed=7&frames=4&size=96x64") as source:
        assert source.truth is None
        for picture in iter_shapes_clip(7, 4, (64, 96)):
            frame = source.read()
            assert frame.pixels is source.truth.pixels
            np.testing.assert_array_equal(frame.pixels, picture.pixels)
            np.testing.assert_array_equal(source.truth.xyxy, picture.xyxy)
        assert source.read() is None
