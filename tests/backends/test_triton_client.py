"""The `triton://` client against servers inside this process: repeats, limits, deadlines, and what is refused."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fake_triton import Arrays, FakeServer, Fault, detect, running, served_model, wait_until
from tests.fakes import FakeBackend, grey_pictures
from yolov3_trt.backends import STAGES, Backend
from yolov3_trt.backends.host_path import network_of
from yolov3_trt.backends.triton import TritonBackend, TritonPictureBackend, open_triton, servers
from yolov3_trt.backends.triton.address import Encoding
from yolov3_trt.deploy.pictures import decode_picture
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError, ImageError
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import Batch, InputStage, OutputStage

META = FakeBackend.meta
BATCHED = replace(META, batch=Batch(1, 2, 4))
HEADS = replace(META, input_stage=InputStage.TENSOR, output_stage=OutputStage.HEADS, batch=Batch(1, 1, 4))
INVALID: Fault = ("INVALID_ARGUMENT", "a picture of 9000x9000 px; expected at most 64 megapixels")
GONE = "UNAVAILABLE: failed to connect to all addresses"
PICTURES = grey_pictures([10, 60, 110])


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "REST_S", 0.02)
    monkeypatch.setattr(servers, "LONGEST_REST_S", 0.1)
    monkeypatch.setattr(servers, "QUICK_S", 0.2)


def url_of(*fakes: FakeServer, query: str = "retries=8") -> str:
    return f"triton://{','.join(fake.name for fake in fakes)}/fake?{query}"


@contextmanager
def opened(*fakes: FakeServer, query: str = "retries=8") -> Iterator[Any]:
    """The backend of these servers, which are killed in the end."""
    with running(*fakes), open_triton(url_of(*fakes, query=query)) as backend:
        yield backend


def found_by(backend: Any, picture: np.ndarray) -> Detections:
    detections: Detections = Detector(backend)(picture)
    return detections


def same(a: Detections, b: Detections) -> bool:
    columns = ("xyxy", "scores", "class_ids")
    return a.class_names == b.class_names and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in columns)


def test_pictures_come_back_as_the_servers_detections():
    fake = FakeServer(served_model(BATCHED))
    with opened(fake) as backend:
        assert isinstance(backend, TritonPictureBackend) and isinstance(backend, Backend)
        timed = Detector(backend).timed(PICTURES)
        assert backend.fallbacks == () and backend.statistics["failovers"] == 0
    local = Detector(FakeBackend())(PICTURES)
    assert [same(a, b) for a, b in zip(timed.detections, local, strict=True)] == [True] * 3
    assert set(timed.stages_s) == set(STAGES) and min(timed.stages_s.values()) >= 0
    assert len(fake.inputs) == 3 and not any("postprocess" in inputs for inputs in fake.inputs)


def test_frames_that_are_not_contiguous_and_of_other_sizes_arrive_as_they_are():
    pictures = [np.random.default_rng(side).integers(0, 256, (side, 70, 3), np.uint8)[:, ::-1] for side in (9, 200, 50)]
    fake = FakeServer()
    with opened(fake) as backend:
        detector = Detector(backend)
        for picture in pictures:
            detector(picture)
            picture[:] = 0
    assert [inputs["frame"].shape for inputs in fake.inputs] == [(1, 9, 70, 3), (1, 200, 70, 3), (1, 50, 70, 3)]
    again = [np.random.default_rng(side).integers(0, 256, (side, 70, 3), np.uint8)[:, ::-1] for side in (9, 200, 50)]
    assert all(np.array_equal(inputs["frame"][0], picture) for inputs, picture in zip(fake.inputs, again, strict=True))


def test_thresholds_that_are_not_the_models_own_travel_along():
    fake = FakeServer()
    with opened(fake) as backend:
        backend.configure(META.preprocess, META.postprocess.override(conf=0.005, max_detections=7))
        backend.submit(PICTURES[:1])
        backend.result()
    np.testing.assert_array_equal(fake.inputs[0]["postprocess"], np.array([[0.005, 0.45, 7]], np.float32))


@pytest.mark.parametrize(
    "preprocess, postprocess, error",
    [
        (replace(META.preprocess, resize=Resize.STRETCH), {}, "resize=stretch was asked for; the server fits pictures"),
        ({}, {"max_detections": 301}, "max_detections=301 was asked for; the server gives 300 at most"),
        ({}, {"max_candidates": 400}, "suppression of 400 candidates was asked for; the server does"),
    ],
)
def test_what_the_server_does_not_do_is_refused(preprocess: Any, postprocess: dict[str, Any], error: str):
    with opened(FakeServer()) as backend, pytest.raises(BackendError) as raised:
        backend.configure(preprocess or META.preprocess, replace(META.postprocess, **postprocess))
    assert error in str(raised.value)


@pytest.mark.parametrize("encoding", [Encoding.PNG, Encoding.JPEG])
def test_pictures_can_travel_as_files(encoding: Encoding):
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    got: list[np.ndarray] = []

    def decode(inputs: Arrays) -> Arrays:
        got.append(decode_picture(inputs["encoded"][0, 0]))
        return detect({"frame": got[0][None]})

    fake = FakeServer(run=decode)
    with opened(fake, query=f"encoding={encoding.value}") as backend:
        found_by(backend, picture)
        lossy = [reason for reason in backend.fallbacks if "lossy" in reason]
    assert "frame" not in fake.inputs[0]
    assert np.array_equal(got[0], picture) is (encoding is Encoding.PNG)
    assert bool(lossy) is (encoding is Encoding.JPEG)


def network(inputs: Arrays) -> Mapping[str, np.ndarray]:
    """Logits that depend on each value of the input."""
    images = inputs["images"]
    return {"head0": np.repeat(images[:, :1, ::8, ::8], HEADS.heads[0].channels, axis=1) * np.float32(3)}


def test_batches_come_back_as_heads_and_are_finished_here():
    fake = FakeServer(served_model(HEADS, "onnxruntime"), network)
    images = np.random.default_rng(1).random((3, 3, 48, 64), np.float32)
    with opened(fake) as backend:
        outputs = backend.infer(images)
        np.testing.assert_array_equal(outputs["head0"], network({"images": images})["head0"])
        with pytest.raises(BackendError, match=r"got a batch of float32 \(3, 3, 48, 60\); expected float32 Nx3x48x64"):
            backend.infer(images[..., :60])
        assert Detector(backend).num_slots == 1 and len(Detector(backend)(PICTURES)) == 3
        assert isinstance(backend, TritonBackend) and not isinstance(backend, Backend)


def test_the_scalar_that_triton_wraps_is_unwrapped():
    meta = replace(META, batch=Batch(1, 2, 4))

    def run(inputs: Arrays) -> Arrays:
        outputs = dict(FakeBackend().infer(inputs["images"]))
        full = {name: np.zeros((2, 300, *array.shape[2:]), array.dtype) for name, array in outputs.items()}
        for name in ("boxes", "scores", "class_ids"):
            full[name][:, :1] = outputs[name]
        return {**full, "num_detections": np.ones((2, 1), np.int32)}

    with opened(FakeServer(served_model(meta, "tensorrt"), run)) as backend:
        found = Detector(backend)(PICTURES[:2])
    assert all(same(a, b) for a, b in zip(found, Detector(FakeBackend())(PICTURES[:2]), strict=True))


def test_a_request_is_repeated_on_another_server_when_one_is_away(caplog: pytest.LogCaptureFixture):
    first, second = FakeServer(), FakeServer()
    with opened(first, second) as backend:
        for _ in range(4):
            found_by(backend, PICTURES[0])
        assert len(first.inputs) == len(second.inputs) == 2
        first.kill()
        assert all(same(found_by(backend, p), Detector(FakeBackend())(p)) for p in PICTURES)
        statistics = backend.statistics
        assert statistics["failovers"] == statistics["repeats"] == 1
        entry = statistics["servers"][first.name]
        error = entry.pop("last_error")
        assert entry == {"requests": 3, "failures": 1, "takes_requests": False} and error.startswith(GONE)
        assert any("1 requests were repeated, 1 on another server" in reason for reason in backend.fallbacks)
    assert len(second.inputs) == 5
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith(f"{first.name}: takes no requests for now: {GONE}") and "\n" not in warning


def test_all_that_was_on_its_way_to_a_server_that_dies_is_repeated():
    first, second = FakeServer(takes_s=0.1), FakeServer(takes_s=0.1)
    with opened(first, second) as backend:
        for picture in (*PICTURES, PICTURES[0]):
            backend.submit([picture])
        wait_until(lambda: first.running == 2, lambda: None)
        first.kill()
        found = [backend.result().detections[0] for _ in range(4)]
        assert backend.statistics["failovers"] == 2 == backend.statistics["servers"][first.name]["failures"]
    local = Detector(FakeBackend())([*PICTURES, PICTURES[0]])
    assert [same(a, b) for a, b in zip(found, local, strict=True)] == [True] * 4


def test_a_request_waits_for_the_only_server_to_be_back():
    fake = FakeServer()
    with opened(fake, query="deadline_ms=5000&retries=100") as backend:
        found_by(backend, PICTURES[0])
        fake.kill()
        backend.submit(PICTURES[:1])
        time.sleep(0.1)
        fake.start()
        assert same(backend.result().detections[0], Detector(FakeBackend())(PICTURES[0]))
        assert backend.statistics["servers"][fake.name]["takes_requests"]
        assert backend.statistics["repeats"] > 0 == backend.statistics["failovers"]


def test_a_server_that_comes_back_with_another_model_stays_out(caplog: pytest.LogCaptureFixture):
    first, second = FakeServer(), FakeServer()
    with opened(first, second) as backend:
        first.kill()
        for picture in PICTURES:
            found_by(backend, picture)
        first.model = served_model(replace(META, class_names=("height",)))
        asked = first.questions
        first.start()
        wait_until(lambda: first.questions >= asked + 2, lambda: found_by(backend, PICTURES[0]))
        assert not backend.statistics["servers"][first.name]["takes_requests"] and not first.inputs
        assert any("it serves another model now, different in class_names: " in reason for reason in backend.fallbacks)
        first.model = served_model(replace(META, weights_sha256="f" * 64))  # an update of the same
        wait_until(lambda: bool(first.inputs), lambda: found_by(backend, PICTURES[0]))
    assert f"{first.name}: takes requests again" in caplog.messages


def test_servers_of_different_models_are_refused():
    fakes = FakeServer(), FakeServer(served_model(replace(META, class_names=("height",))))
    text = f"{fakes[0].name} and {fakes[1].name} differ in class_names: .* and .*; deploy the same to both"
    with pytest.raises(BackendError, match=text), opened(*fakes):
        pass


def test_a_server_that_is_away_at_first_is_no_hindrance():
    first, second = FakeServer(), FakeServer()
    first.kill()
    with opened(first, second) as backend:
        (reason,) = backend.fallbacks
        assert reason.startswith(f"{first.name}: takes no requests: {GONE}")
        found_by(backend, PICTURES[0])
        first.start()
        wait_until(lambda: bool(first.inputs), lambda: found_by(backend, PICTURES[0]))
        assert backend.statistics["failovers"] == 0 and backend.fallbacks == ()


def test_without_any_server_the_error_says_what_each_said():
    gone, missing = FakeServer(), FakeServer()
    gone.kill()
    missing.fault = ("NOT_FOUND", "Request for unknown model: 'fake' is not found")
    with running(gone, missing):
        with pytest.raises(BackendError) as raised:
            open_triton(url_of(gone, missing))
        said = str(raised.value)
        assert said.startswith(
            f"triton://{gone.name},{missing.name}/fake: no server serves this model: {gone.name}: {GONE}"
        )
        assert said.endswith(
            f"{missing.name}: NOT_FOUND: Request for unknown model: 'fake' is not found; expected host:port of Triton's gRPC, "
            "mostly 8001"
        )
        with pytest.raises(BackendError, match="deploy it there, or name one that is"):
            open_triton(url_of(missing))


@pytest.mark.parametrize("how", ["killed", "hanging"])
def test_when_all_are_gone_the_error_comes_within_the_deadline(how: str):
    fakes = [FakeServer(), FakeServer()]
    with opened(*fakes, query="deadline_ms=800&retries=1000") as backend:
        detector = Detector(backend)
        detector(PICTURES[0])
        for fake in fakes:
            fake.kill() if how == "killed" else setattr(fake, "hangs", True)
        started_s = time.monotonic()
        with pytest.raises(BackendError, match=r"no answer within 0.8 s, after \d+ tries: 127.0.0.1:") as raised:
            detector(PICTURES[1])
        assert 0.7 < time.monotonic() - started_s < 3
        assert ("UNAVAILABLE" if how == "killed" else "DEADLINE_EXCEEDED") in str(raised.value)
        assert all(fake.name in str(raised.value) for fake in fakes)
        for fake in fakes:
            fake.start() if how == "killed" else setattr(fake, "hangs", False)
        before = [len(fake.inputs) for fake in fakes]
        wait_until(lambda: [len(fake.inputs) for fake in fakes] != before, lambda: detector(PICTURES[2]))


def test_a_server_that_hangs_costs_half_of_the_deadline():
    fakes = [FakeServer(), FakeServer()]
    with opened(*fakes, query="deadline_ms=2000") as backend:
        fakes[0].hangs = True
        started_s = time.monotonic()
        found_by(backend, PICTURES[0])
        assert 0.9 < time.monotonic() - started_s < 2
        assert "DEADLINE_EXCEEDED" in backend.statistics["servers"][fakes[0].name]["last_error"]
        before_s = time.monotonic()
        for picture in PICTURES:
            found_by(backend, picture)
        assert time.monotonic() - before_s < 0.9, (
            "it is passed over, though it is asked now and then whether it is back"
        )
        fakes[0].hangs, before = False, len(fakes[0].inputs)
        wait_until(lambda: len(fakes[0].inputs) > before, lambda: found_by(backend, PICTURES[0]))


def test_what_a_server_refuses_is_not_repeated():
    fakes = [FakeServer(run=lambda inputs: INVALID) for _ in range(2)]
    with opened(*fakes) as backend:
        with pytest.raises(BackendError) as raised:
            found_by(backend, PICTURES[0])
        assert str(raised.value) == (
            f"triton://{fakes[0].name},{fakes[1].name}/fake: the request failed at try 1: {fakes[0].name}: INVALID_ARGUMENT: a "
            "picture of 9000x9000 px; expected at most 64 megapixels"
        )
        assert backend.statistics["repeats"] == 0 and backend.fallbacks == ()


def test_repeats_end_with_their_number():
    fake = FakeServer()
    with opened(fake, query="retries=2") as backend:
        fake.run = lambda inputs: ("UNAVAILABLE", "Exceeds maximum queue size")
        with pytest.raises(
            BackendError, match=r"the request failed at try 3: 127\.0\.0\.1:\d+: UNAVAILABLE: Exceeds maximum"
        ):
            found_by(backend, PICTURES[0])
        # Asked when it was opened, and before each repeat whether it is well; maybe once more since.
        assert backend.statistics["repeats"] == 2 and fake.questions in (3, 4) and len(fake.inputs) == 3


def test_the_limit_of_requests_in_flight_is_kept():
    fake = FakeServer(served_model(BATCHED), takes_s=0.03)
    with opened(fake, query="in_flight=3") as backend:
        assert backend.num_slots == 3
        for _ in range(3):
            backend.submit([*PICTURES, PICTURES[0]])
        with pytest.raises(BackendError, match="3 calls are under way; take a result first"):
            backend.submit(PICTURES[:1])
        assert [len(backend.result().detections) for _ in range(3)] == [4, 4, 4]
    assert fake.most_running == 3 and len(fake.inputs) == 12


def test_wrong_use_is_refused_and_an_error_leaves_no_results_behind():
    fake = FakeServer()
    with opened(fake) as backend:
        with pytest.raises(BackendError, match="there is no result to wait for; submit pictures first"):
            backend.result()
        with pytest.raises(BackendError, match="got 2 pictures; expected 1 to 1"):
            backend.submit(PICTURES[:2])
        with pytest.raises(ImageError, match=r"an image is uint8 \(48, 64\); expected uint8 \(height, width, 3\) BGR"):
            backend.submit([PICTURES[0][..., 0]])
        assert network_of(backend) is None
        fake.fault = INVALID
        backend.submit(PICTURES[:1])
        backend.submit(PICTURES[1:2])
        with pytest.raises(BackendError, match="INVALID_ARGUMENT"):
            backend.result()
        with pytest.raises(BackendError, match="there is no result to wait for"):
            backend.result()
        fake.fault = None
        assert len(found_by(backend, PICTURES[2])) == 1


@pytest.mark.parametrize(
    "change, error",
    [
        (
            {"num_detections": np.array([[301]], np.int32)},
            "what it gave are no detections: 301 of them; expected 0 to 300",
        ),
        ({"num_detections": np.array([[-1]], np.int32)}, "what it gave are no detections: -1 of them"),
        ({"class_ids": np.ones((1, 300), np.int32)}, "classes that are not 0 to 0"),
        (
            {"boxes": np.zeros((1, 299, 4), np.float32)},
            r"the server gave float32 \(1, 299, 4\) as 'boxes'; expected float32",
        ),
        ({"scores": np.zeros((1, 300), np.float64)}, r"the server gave float64 \(1, 300\) as 'scores'"),
        ({"scores": None}, "the server gave nothing as 'scores'"),
        *(
            ({"scores": np.full((1, 300), score, np.float32)}, "scores that are not 0 to 1, best first")
            for score in (np.nan, np.inf, 2.5, -0.1)
        ),
        ({"boxes": np.full((1, 300, 4), np.nan, np.float32)}, "boxes that are no numbers"),
        ({"boxes": np.full((1, 300, 4), np.inf, np.float32)}, "boxes outside of the picture"),
        ({"boxes": np.full((1, 300, 4), -1e9, np.float32)}, "boxes outside of the picture"),
        ({"boxes": np.zeros((1, 4, 300), np.float32)}, r"the server gave float32 \(1, 4, 300\) as 'boxes'"),
        ({"boxes": np.zeros((5000, 300, 4), np.float32)}, "RESOURCE_EXHAUSTED"),  # 24 MB
        (
            {"num_detections": np.array([[2]], np.int32), "scores": np.arange(300, dtype=np.float32)[None] / 300},
            "what it gave are no detections: scores that are not 0 to 1, best first",
        ),
    ],
)
def test_an_answer_that_cannot_be_is_an_error(change: dict[str, Any], error: str):
    fake = FakeServer()
    run = fake.run
    fake.run = lambda inputs: {name: array for name, array in {**run(inputs), **change}.items() if array is not None}
    with opened(fake) as backend, pytest.raises(BackendError, match=error):
        found_by(backend, PICTURES[0])


def test_after_an_error_what_is_still_on_its_way_counts_and_is_waited_for_at_the_end():
    fake = FakeServer(takes_s=0.1)
    fake.run = lambda inputs: INVALID
    with opened(fake, query="in_flight=2") as backend:
        for _ in range(2):
            backend.submit(PICTURES[:1])
        with pytest.raises(BackendError, match="INVALID_ARGUMENT"):
            backend.result()
        for _ in range(2):
            backend.submit(PICTURES[1:2])
    assert fake.most_running == 2


@pytest.mark.parametrize("how", ["answering slowly", "hanging", "killed"])
def test_closing_ends_what_is_under_way_at_once(how: str):
    fake = FakeServer()
    with opened(fake, query="in_flight=2&retries=1000") as backend:
        fake.takes_s, fake.hangs = 0.5, how == "hanging"
        if how == "killed":
            fake.kill()
        for picture in PICTURES[:2]:
            backend.submit([picture])
        started_s = time.monotonic()
        backend.close()
        backend.close()
        assert time.monotonic() - started_s < 0.4


def test_a_result_that_waits_behind_unanswered_requests_is_late_in_time_too():
    fake = FakeServer(served_model(BATCHED))
    with opened(fake, query="deadline_ms=500&in_flight=1") as backend:
        fake.hangs = True
        started_s = time.monotonic()
        backend.submit([PICTURES[0], PICTURES[1]])
        with pytest.raises(BackendError, match=r"no answer within 0\.5 s"):
            backend.result()
        assert time.monotonic() - started_s < 1.5


def test_without_tritonclient_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['grpc'] = None\n"
        "from yolov3_trt.detector import open_detector\nfrom yolov3_trt.errors import MissingDependency\n"
        "try: open_detector('triton://a/m')\nexcept MissingDependency as exc: print(exc)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "grpc is not installed; run: pip install 'yolov3-trt[triton]'"


def test_statistics_are_plain_values():
    with opened(FakeServer()) as backend:
        found_by(backend, PICTURES[0])
        assert json.loads(json.dumps(backend.statistics)) == backend.statistics


def test_the_client_is_loaded_only_when_a_server_is_asked():
    code = (
        "import sys; import yolov3_trt.backends.triton; print(not {'grpc', 'tritonclient', 'cv2'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True"


def test_info_shows_what_a_server_runs(capsys: pytest.CaptureFixture[str]):
    from yolov3_trt.cli.info import info

    with running(FakeServer(served_model(BATCHED))) as (fake,):
        info(url_of(fake))
    out = capsys.readouterr().out
    assert "fake, 1 classes" in out and "yes, on its server" in out
