"""Real servers that are killed, stopped and started again under the client: no picture is lost, and the end is clear."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fake_triton import wait_until
from tests.fakes import ListSink
from tests.triton_models import assert_equal, deploy, exporter
from tests.triton_server import TritonServer, require_server
from yolov3_trt.camera.loop import CameraLoop, LoopOptions
from yolov3_trt.camera.sources.shapes import ShapesSource
from yolov3_trt.data.coco import TruePicture
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.errors import BackendError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, evaluate_labelled
from yolov3_trt.preprocess import Image
from yolov3_trt.shapes import iter_shapes_clip

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed (extra triton)")

DEADLINE_S = 4.0


class Pair:
    """Two servers of one repository, which tests may kill; each starts again where it was."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self._repository, self._folder = repository, folder
        self.servers = [TritonServer(repository, folder) for _ in range(2)]
        for server in self.servers:
            server.wait_until_ready()

    @property
    def url(self) -> str:
        return f"triton://{','.join(server.grpc_url for server in self.servers)}/shapes"

    def start(self, *indices: int) -> None:
        """Those that run no more, anew."""
        for index in indices:
            self.servers[index] = TritonServer(self._repository, self._folder, ports=self.servers[index].ports)
        for index in indices:
            self.servers[index].wait_until_ready()

    def heal(self) -> None:
        """Both run."""
        self.start(*(index for index, server in enumerate(self.servers) if server.process.poll() is not None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_server()
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def artifact(folder: Path) -> Path:
    return exporter(folder)("shapes")


@pytest.fixture(scope="module")
def both(folder: Path, artifact: Path) -> Iterator[Pair]:
    deploy(folder / "repository", artifact, "shapes")
    pair = Pair(folder / "repository", folder)
    yield pair
    for server in pair.servers:
        server.kill()


@pytest.fixture
def pair(both: Pair) -> Pair:
    both.heal()
    return both


@pytest.fixture(scope="module")
def scenes() -> list[Image]:
    return [picture.pixels for picture in iter_shapes_clip(5, 7, (240, 320))]


@pytest.fixture(scope="module")
def expected(artifact: Path, scenes: list[Image]) -> list[Detections]:
    with open_detector(artifact) as detector:
        return detector(scenes)


def statistics_of(detector: Detector) -> dict[str, Any]:
    statistics: dict[str, Any] = detector.backend.statistics  # type: ignore[attr-defined]
    return statistics


def _takes_requests(detector: Detector, server: TritonServer) -> bool:
    return bool(statistics_of(detector)["servers"][server.grpc_url]["takes_requests"])


def test_a_server_killed_during_an_evaluation_loses_no_picture(
    pair: Pair, artifact: Path, caplog: pytest.LogCaptureFixture
):
    clip = list(iter_shapes_clip(7, 24, (240, 320)))

    def labelled(kill_at: int | None = None) -> Iterator[tuple[Image, TruePicture]]:
        for number, picture in enumerate(clip):
            if number == kill_at:
                pair.servers[0].kill()
            truth = TruePicture(f"{number}.png", (240, 320), picture.xyxy, picture.class_ids)
            yield picture.pixels, truth

    with open_detector(artifact, conf=EVAL_CONF_THRESHOLD) as detector:
        expected = evaluate_labelled(detector, labelled(), detector.meta.class_names)
    with open_detector(pair.url, conf=EVAL_CONF_THRESHOLD) as detector:
        found = evaluate_labelled(detector, labelled(kill_at=9), detector.meta.class_names)
        statistics = statistics_of(detector)
    assert found == expected and found["images"] == len(clip) and found["AP50"] > 0.5
    assert statistics["failovers"] == 1
    first, second = (statistics["servers"][server.grpc_url] for server in pair.servers)
    assert (first["failures"], second["failures"], first["takes_requests"]) == (1, 0, False)
    assert first["requests"] + second["requests"] == len(clip) + 1
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{pair.servers[0].grpc_url}: takes no requests for now: UNAVAILABLE" in warning.message


def test_a_server_killed_with_frames_of_the_camera_loop_on_it_loses_none(pair: Pair, artifact: Path):
    sink, killed = ListSink(), threading.Event()

    def kill_one(result: Any) -> None:
        if result.frame.index == 7 and not killed.is_set():
            killed.set()
            pair.servers[1].kill()

    with open_detector(pair.url) as detector:
        source = ShapesSource(seed=6, num_frames=30, image_hw=(240, 320))
        summary = CameraLoop(detector, [source], [sink], LoopOptions(on_frame=kill_one)).run().summary()
        statistics = statistics_of(detector)
        fallbacks = detector.backend.fallbacks
    (row,) = summary["sources"]
    assert (row["captured"], row["processed"], row["dropped"]) == (30, 30, 0)
    assert [frame.index for frame in sink.frames] == list(range(30))
    assert statistics["failovers"] >= 1 and any("on another server" in reason for reason in fallbacks)
    clip = iter_shapes_clip(6, 30, (240, 320))
    with open_detector(artifact) as local:
        for detections, picture in zip(sink.detections, clip, strict=True):
            assert_equal(detections, local(picture.pixels))


def test_with_both_killed_the_error_comes_in_time_and_a_restart_is_noticed(
    pair: Pair, scenes: list[Image], expected: list[Detections]
):
    with open_detector(f"{pair.url}?deadline_ms={DEADLINE_S * 1e3:.0f}&retries=1000") as detector:
        detector(scenes[0])
        for server in pair.servers:
            server.kill()
        started_s = time.monotonic()
        with pytest.raises(BackendError) as raised:
            detector(scenes[1])
        assert DEADLINE_S - 0.5 < time.monotonic() - started_s < DEADLINE_S + 1
        assert "no answer within 4 s" in str(raised.value) and "\n" not in str(raised.value)
        assert all(f"{server.grpc_url}: UNAVAILABLE" in str(raised.value) for server in pair.servers)
        pair.start(0)

        def ask() -> None:
            with suppress(BackendError):  # its rest may not be over yet
                assert_equal(detector(scenes[2]), expected[2])

        wait_until(lambda: _takes_requests(detector, pair.servers[0]), ask, within_s=20)
        (entry, other) = (statistics_of(detector)["servers"][server.grpc_url] for server in pair.servers)
        assert entry["takes_requests"] and not other["takes_requests"]


def test_a_request_waits_for_the_only_server_to_be_back(pair: Pair, scenes: list[Image], expected: list[Detections]):
    url = f"triton://{pair.servers[0].grpc_url}/shapes?deadline_ms=60000&retries=1000"
    with open_detector(url) as detector:
        detector(scenes[0])
        pair.servers[0].kill()
        starter = threading.Thread(target=pair.start, args=(0,))
        starter.start()
        try:
            assert_equal(detector(scenes[1]), expected[1])
        finally:
            starter.join()
        assert statistics_of(detector)["repeats"] >= 1 and statistics_of(detector)["failovers"] == 0


def test_a_server_that_hangs_is_passed_over_and_used_again(pair: Pair, scenes: list[Image], expected: list[Detections]):
    hanging = pair.servers[0]
    with open_detector(f"{pair.url}?deadline_ms={DEADLINE_S * 1e3:.0f}") as detector:
        detector(scenes[0])
        os.kill(hanging.process.pid, signal.SIGSTOP)
        try:
            started_s = time.monotonic()
            for picture, wanted in zip(scenes[1:6], expected[1:6], strict=True):
                assert_equal(detector(picture), wanted)
            assert time.monotonic() - started_s < DEADLINE_S
            entry = statistics_of(detector)["servers"][hanging.grpc_url]
            assert entry["failures"] == 1 and "DEADLINE_EXCEEDED" in entry["last_error"]
        finally:
            os.kill(hanging.process.pid, signal.SIGCONT)
        wait_until(
            lambda: _takes_requests(detector, hanging),
            lambda: assert_equal(detector(scenes[6]), expected[6]),
            within_s=20,
        )
    assert hanging.is_ready()
