"""The `triton://` client against servers inside this process: addresses, contracts, repeats, limits and shared memory."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_triton import REFUSED, Arrays, FakeConnection, FakeServer, served_model, wait_until
from tests.fakes import FakeBackend, grey_pictures
from tests.triton_models import memory_left
from yolov3_trt.backends import STAGES, PictureBackend
from yolov3_trt.backends.triton import TritonBackend, TritonPictureBackend, open_triton, servers
from yolov3_trt.backends.triton.address import CallOptions, Encoding, TritonAddress, parse_address
from yolov3_trt.backends.triton.connection import CallError, ServedModel, ServedTensor
from yolov3_trt.deploy.pictures import decode_picture
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError, ImageError
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import Batch, InputStage, ModelMeta, OutputStage, meta_from_spec
from yolov3_trt.models import load_spec

META = FakeBackend.meta
BATCHED = replace(META, batch=Batch(1, 2, 4))
HEADS = replace(META, input_stage=InputStage.TENSOR, output_stage=OutputStage.HEADS, batch=Batch(1, 1, 4))
INVALID = CallError("INVALID_ARGUMENT", "a picture of 9000x9000 px; expected at most 64 megapixels")
PICTURES = grey_pictures([10, 60, 110])


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "REST_S", 0.02)
    monkeypatch.setattr(servers, "LONGEST_REST_S", 0.1)
    monkeypatch.setattr(servers, "QUICK_S", 0.2)


@pytest.fixture(autouse=True)
def _nothing_left_in_shared_memory() -> Iterator[None]:
    before = regions_there()
    yield
    assert regions_there() == before


def regions_there() -> set[str]:
    return set(memory_left())


@contextmanager
def opened(*fakes: FakeServer, query: str = "", host: str = "127.0.0.1") -> Iterator[Any]:
    """The backend of these servers, which listen at ports 1, 2, ..."""
    by_name = {f"{host}:{port}": fake for port, fake in enumerate(fakes, start=1)}
    url = f"triton://{','.join(by_name)}/fake?{query or 'retries=8'}"
    with open_triton(url, connect=lambda name: FakeConnection(name, by_name[name])) as backend:
        yield backend


def found_by(backend: Any, picture: np.ndarray) -> Detections:
    detections: Detections = Detector(backend)(picture)
    return detections


def same(a: Detections, b: Detections) -> bool:
    columns = ("xyxy", "scores", "class_ids")
    return a.class_names == b.class_names and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in columns)


@pytest.mark.parametrize(
    "text, address",
    [
        ("triton://gpu1:8001/yolov3", TritonAddress(("gpu1:8001",), "yolov3")),
        ("triton://gpu1/yolov3:12", TritonAddress(("gpu1:8001",), "yolov3", "12")),
        ("triton://10.0.0.5:9000,[::1]:7/m", TritonAddress(("10.0.0.5:9000", "[::1]:7"), "m")),
        ("triton://a,a,b/m", TritonAddress(("a:8001", "b:8001"), "m")),
        (
            "triton://a/m?deadline_ms=250&retries=0&in_flight=16&encoding=jpeg&shared_memory=off",
            TritonAddress(("a:8001",), "m", "", CallOptions(0.25, 0, 16, Encoding.JPEG, False)),
        ),
    ],
)
def test_an_address_names_servers_a_model_and_how_to_call_it(text: str, address: TritonAddress):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text, error",
    [
        ("triton://gpu1:8001", "'' names no model or version"),
        ("triton://gpu1:8001/a/b", "'/a/b' names no model or version"),
        ("triton://gpu1/m:latest", "'/m:latest' names no model or version"),
        ("triton://gpu1/m:", "'/m:' names no model or version"),
        ("triton:///m", "'' names no server"),
        ("triton://me@gpu1/m", "'me@gpu1' names no server"),
        ("triton://gpu1:http/m", "expected host:port"),
        ("triton://gpu1:99999/m", "expected host:port"),
        ("triton://[::1/m", "expected triton://host:port"),
        ("triton://a/m?speed=high", "there is no option 'speed'; expected deadline_ms, retries"),
        ("triton://a/m?retries=-1", "retries='-1'; expected a whole number"),
        ("triton://a/m?deadline_ms=0", "deadline_ms=0; expected more than 0"),
        ("triton://a/m?in_flight=0", "expected 0 to 1000 retries, 1 to 1024 in flight"),
        ("triton://a/m?encoding=gif", "encoding='gif', shared_memory='on'; expected raw, png or jpeg"),
        ("triton://a/m?retries", "expected triton://host:port"),
    ],
)
def test_an_address_of_another_form_is_refused(text: str, error: str):
    with pytest.raises(BackendError) as raised:
        parse_address(text)
    assert error in str(raised.value) and text in str(raised.value) and "\n" not in str(raised.value)


def without(name: str) -> Callable[[ServedModel], ServedModel]:
    return lambda model: replace(model, parameters={k: v for k, v in model.parameters.items() if k != name})


def with_parameter(name: str, value: str) -> Callable[[ServedModel], ServedModel]:
    return lambda model: replace(model, parameters={**model.parameters, name: value})


def with_output(index: int, **changes: Any) -> Callable[[ServedModel], ServedModel]:
    def change(model: ServedModel) -> ServedModel:
        outputs = list(model.outputs)
        outputs[index] = replace(outputs[index], **changes)
        return replace(model, outputs=tuple(outputs))

    return change


@pytest.mark.parametrize(
    "change, error",
    [
        (without("yolov3_trt_contract"), "this model's config has no yolov3_trt_contract: it is not this package's"),
        (
            with_parameter("yolov3_trt_contract", "yolov3_trt.triton/9"),
            "its contract is 'yolov3_trt.triton/9'; expected",
        ),
        (
            with_parameter("yolov3_trt_variant", "openvino"),
            "yolov3_trt_variant: 'openvino' is not a valid Variant; expected tensorrt",
        ),
        (with_parameter("yolov3_trt_meta", "{"), "yolov3_trt_meta: this sidecar cannot be read"),
        (with_parameter("yolov3_trt_meta", '{"format": "x"}'), "format 'x'; expected 'yolov3_trt.model/1'"),
        (lambda model: replace(model, max_batch=0), "max_batch_size is 0; expected 1 or more"),
        (lambda model: replace(model, inputs=model.inputs[:1]), "input 'frame' is not there; got ['encoded']"),
        (with_output(1, dims=(300, 5)), "output 'boxes' is FP32 [300, 5] per picture; expected FP32 [300, 4]"),
        (with_output(0, dtype="INT64"), "output 'num_detections' is INT64 [1] per picture; expected INT32 [1]"),
        (with_output(2, dims=(100,)), "output 'scores' is FP32 [100] per picture; expected FP32 [300]"),
        (with_output(3, name="labels"), "output 'class_ids' is not there; got ['boxes', 'labels'"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused(change: Callable[[ServedModel], ServedModel], error: str):
    fake = FakeServer(change(served_model()))
    with pytest.raises(BackendError) as raised, opened(fake):
        pass
    assert error in str(raised.value) and "127.0.0.1:1/fake" in str(raised.value)
    assert "deploy triton" in str(raised.value)


@pytest.mark.parametrize("batch", [Batch(1, 1, 1), Batch(1, 2, 4), Batch(2, 2, 2)], ids=str)
@pytest.mark.parametrize("variant", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("stage", list(OutputStage))
def test_what_deploy_writes_keeps_the_contract(batch: Batch, variant: str, stage: OutputStage):
    model = served_model(replace(META, batch=batch, output_stage=stage), variant)
    with opened(FakeServer(model)) as backend:
        assert isinstance(backend, TritonBackend) and not isinstance(backend, PictureBackend)
        assert backend.meta == replace(META, batch=batch, output_stage=stage)


def test_tensors_are_checked_against_the_sidecar():
    model = served_model(HEADS, "onnxruntime")
    for wrong, error in (
        (replace(model, inputs=(ServedTensor("images", "FP32", (3, 48, 63)),)), "expected FP32 [3, 48, 64]"),
        (replace(model, inputs=(ServedTensor("images", "UINT8", (3, 48, 64)),)), "is UINT8 [3, 48, 64] per picture"),
        (replace(model, outputs=(ServedTensor("head0", "FP32", (6, 6)),)), "expected FP32 [6, 6, 8]"),
    ):
        with pytest.raises(BackendError) as raised, opened(FakeServer(wrong)):
            pass
        assert error in str(raised.value)
    free = replace(model, inputs=(ServedTensor("images", "FP32", (-1, -1, -1)),))
    with opened(FakeServer(free)) as backend:
        assert backend.meta == HEADS


def test_pictures_come_back_as_the_servers_detections():
    fake = FakeServer(served_model(BATCHED))
    with opened(fake) as backend:
        assert isinstance(backend, TritonPictureBackend) and isinstance(backend, PictureBackend)
        timed = Detector(backend).timed(PICTURES)
        assert backend.fallbacks == () and backend.statistics["failovers"] == 0
    local = Detector(FakeBackend())(PICTURES)
    assert [same(a, b) for a, b in zip(timed.detections, local, strict=True)] == [True] * 3
    assert set(timed.stages_s) == set(STAGES) and min(timed.stages_s.values()) >= 0
    assert all(fake.by_region) and not any("postprocess" in inputs for inputs in fake.inputs)


def test_frames_that_are_not_contiguous_and_of_other_sizes_arrive_as_they_are():
    pictures = [np.random.default_rng(side).integers(0, 256, (side, 70, 3), np.uint8)[:, ::-1] for side in (9, 200, 50)]
    fake = FakeServer()
    with opened(fake) as backend:
        detector = Detector(backend)
        for picture in pictures:
            detector(picture)
            picture[:] = 0
        assert len(regions_there()) == 1 == len(fake.regions)  # the larger took the place of the smaller
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
        return FakeServer().run({"frame": got[0][None]})

    fake = FakeServer(run=decode)
    with opened(fake, query=f"encoding={encoding.value}") as backend:
        found_by(backend, picture)
        lossy = [reason for reason in backend.fallbacks if "lossy" in reason]
    assert not fake.by_region[0] and "frame" not in fake.inputs[0]
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
    assert fake.by_region == [True] * 2


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
        assert statistics["servers"]["127.0.0.1:1"] == {
            "requests": 3,
            "failures": 1,
            "takes_requests": False,
            "shared_memory": True,
            "last_error": str(REFUSED),
        }
        assert any("1 requests were repeated, 1 on another server" in reason for reason in backend.fallbacks)
    assert len(second.inputs) == 5
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"127.0.0.1:1: takes no requests for now: {REFUSED}"
    ]


def test_all_that_was_on_its_way_to_a_server_that_dies_is_repeated():
    first, second = FakeServer(takes_s=0.05), FakeServer(takes_s=0.05)
    with opened(first, second) as backend:
        for picture in (*PICTURES, PICTURES[0]):
            backend.submit([picture])
        first.kill()
        found = [backend.result().detections[0] for _ in range(4)]
        assert backend.statistics["failovers"] == 2 == backend.statistics["servers"]["127.0.0.1:1"]["failures"]
    local = Detector(FakeBackend())([*PICTURES, PICTURES[0]])
    assert [same(a, b) for a, b in zip(found, local, strict=True)] == [True] * 4


def test_a_server_that_is_back_is_used_again_and_maps_the_memory_anew():
    fake = FakeServer()
    with opened(fake, query="deadline_ms=3000&retries=100") as backend:
        found_by(backend, PICTURES[0])
        fake.kill()
        backend.submit(PICTURES[:1])
        time.sleep(0.1)
        fake.restart()
        assert same(backend.result().detections[0], Detector(FakeBackend())(PICTURES[0]))
        assert backend.statistics["servers"]["127.0.0.1:1"]["takes_requests"] and fake.regions
        assert fake.by_region == [True, True]
        # So quickly that no request met it dead: the server does not know the memory, and says so.
        fake.restart()
        found_by(backend, PICTURES[1])
        assert fake.by_region == [True, True, True] and backend.statistics["failovers"] == 0


def test_a_server_that_comes_back_with_another_model_stays_out(caplog: pytest.LogCaptureFixture):
    first, second = FakeServer(), FakeServer()
    with opened(first, second) as backend:
        first.kill()
        for picture in PICTURES:
            found_by(backend, picture)
        first.model = served_model(replace(META, class_names=("height",)))
        first.restart()
        wait_until(lambda: first.probes >= 2, lambda: found_by(backend, PICTURES[0]))
        assert not backend.statistics["servers"]["127.0.0.1:1"]["takes_requests"]
        assert any(
            "it serves another model now, which differs in class_names" in reason for reason in backend.fallbacks
        )
        first.model = served_model(replace(META, weights_sha256="f" * 64))  # an update of the same
        wait_until(lambda: bool(first.inputs), lambda: found_by(backend, PICTURES[0]))
    assert "127.0.0.1:1: takes requests again" in caplog.messages


def test_servers_of_different_models_are_refused():
    other = FakeServer(served_model(replace(META, class_names=("height",))))
    with pytest.raises(
        BackendError, match=r"127.0.0.1:1 and 127.0.0.1:2 differ in class_names; deploy the same to both"
    ):
        with opened(FakeServer(), other):
            pass


def test_a_server_that_is_away_at_first_is_no_hindrance():
    first, second = FakeServer(fault=REFUSED), FakeServer()
    with opened(first, second) as backend:
        assert backend.fallbacks == (f"127.0.0.1:1: takes no requests: {REFUSED}",)
        found_by(backend, PICTURES[0])
        first.restart()
        wait_until(lambda: bool(first.inputs), lambda: found_by(backend, PICTURES[0]))
        assert backend.statistics["failovers"] == 0 and backend.fallbacks == ()


def test_without_any_server_the_error_says_what_each_said():
    missing = FakeServer(fault=CallError("NOT_FOUND", "Request for unknown model: 'fake' is not found"))
    with pytest.raises(BackendError) as raised, opened(FakeServer(fault=REFUSED), missing):
        pass
    assert str(raised.value) == (
        "triton://127.0.0.1:1,127.0.0.1:2/fake: no server serves this model: 127.0.0.1:1: UNAVAILABLE: failed to connect to "
        "all addresses; 127.0.0.1:2: NOT_FOUND: Request for unknown model: 'fake' is not found; expected host:port of "
        "Triton's gRPC, mostly 8001"
    )
    with pytest.raises(BackendError, match="deploy it there, or name one that is"), opened(missing):
        pass


@pytest.mark.parametrize("how", ["killed", "hanging"])
def test_when_all_are_gone_the_error_comes_within_the_deadline(how: str):
    fakes = [FakeServer(), FakeServer()]
    with opened(*fakes, query="deadline_ms=800&retries=1000") as backend:
        detector = Detector(backend)
        detector(PICTURES[0])
        for fake in fakes:
            fake.fault, fake.hangs = (REFUSED, False) if how == "killed" else (None, True)
        started_s = time.monotonic()
        with pytest.raises(BackendError, match=r"no answer within 0.8 s, after \d+ tries: 127.0.0.1:") as raised:
            detector(PICTURES[1])
        assert 0.7 < time.monotonic() - started_s < 3
        assert ("UNAVAILABLE" if how == "killed" else "DEADLINE_EXCEEDED") in str(raised.value)
        for fake in fakes:
            fake.restart()
        wait_until(lambda: any(fake.inputs[2:] for fake in fakes), lambda: detector(PICTURES[2]))


def test_a_server_that_hangs_costs_half_of_the_deadline():
    fakes = [FakeServer(), FakeServer()]
    with opened(*fakes, query="deadline_ms=2000") as backend:
        fakes[0].hangs = True
        started_s = time.monotonic()
        found_by(backend, PICTURES[0])
        assert 0.9 < time.monotonic() - started_s < 2
        assert "DEADLINE_EXCEEDED" in backend.statistics["servers"]["127.0.0.1:1"]["last_error"]


def test_what_a_server_refuses_is_not_repeated():
    fakes = [FakeServer(run=lambda inputs: INVALID) for _ in range(2)]
    with opened(*fakes) as backend:
        with pytest.raises(BackendError) as raised:
            found_by(backend, PICTURES[0])
        assert str(raised.value) == (
            "triton://127.0.0.1:1,127.0.0.1:2/fake: the request failed at try 1: 127.0.0.1:1: INVALID_ARGUMENT: a picture of "
            "9000x9000 px; expected at most 64 megapixels"
        )
        assert backend.statistics["repeats"] == 0 and backend.fallbacks == ()


def test_repeats_end_with_their_number():
    fake = FakeServer()
    with opened(fake, query="retries=2") as backend:
        fake.run = lambda inputs: CallError("UNAVAILABLE", "Exceeds maximum queue size")
        with pytest.raises(
            BackendError, match=r"the request failed at try 3: 127\.0\.0\.1:1: UNAVAILABLE: Exceeds maximum"
        ):
            found_by(backend, PICTURES[0])
        assert backend.statistics["repeats"] == 2 and fake.probes == 2


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
        with pytest.raises(
            BackendError, match="this server takes pictures and gives detections; use it through Detector"
        ):
            backend.infer(np.zeros((1, 48, 64, 3), np.uint8))
        fake.fault = INVALID
        backend.submit(PICTURES[:1])
        backend.submit(PICTURES[1:2])
        with pytest.raises(BackendError, match="INVALID_ARGUMENT"):
            backend.result()
        with pytest.raises(BackendError, match="there is no result to wait for"):
            backend.result()
        fake.restart()
        assert len(found_by(backend, PICTURES[2])) == 1


@pytest.mark.parametrize(
    "change, error",
    [
        ({"num_detections": np.array([[301]], np.int32)}, "the server gave 301 detections"),
        ({"num_detections": np.array([[-1]], np.int32)}, "the server gave -1 detections"),
        ({"class_ids": np.ones((1, 300), np.int32)}, "or classes that the model has not"),
        (
            {"boxes": np.zeros((1, 299, 4), np.float32)},
            r"the server gave float32 \(1, 299, 4\) as 'boxes'; expected float32",
        ),
        ({"scores": np.zeros((1, 300), np.float64)}, r"the server gave float64 \(1, 300\) as 'scores'"),
        ({"scores": None}, "the server gave nothing as 'scores'"),
        (
            {"num_detections": np.array([[2]], np.int32), "scores": np.arange(300, dtype=np.float32)},
            "the server's detections are not valid: scores are not in descending order",
        ),
    ],
)
def test_an_answer_that_cannot_be_is_an_error(change: dict[str, Any], error: str):
    fake = FakeServer()
    run = fake.run
    fake.run = lambda inputs: {name: array for name, array in {**run(inputs), **change}.items() if array is not None}
    with opened(fake) as backend, pytest.raises(BackendError, match=error):
        found_by(backend, PICTURES[0])


def test_a_server_that_cannot_map_memory_gets_bytes_and_the_reason_is_told(caplog: pytest.LogCaptureFixture):
    fake = FakeServer(maps_memory=False)
    with opened(fake) as backend:
        for picture in PICTURES:
            assert same(found_by(backend, picture), Detector(FakeBackend())(picture))
        (reason,) = backend.fallbacks
    assert reason.startswith(
        "127.0.0.1:1: pictures travel over the socket: it cannot map shared memory (INTERNAL: Unable"
    )
    assert fake.by_region == [False] * 3 and len(caplog.messages) == 1


@pytest.mark.parametrize("query, host", [("shared_memory=off", "127.0.0.1"), ("", "192.0.2.1")])
def test_memory_is_not_shared_with_servers_elsewhere_or_when_told_so(query: str, host: str):
    fake = FakeServer()
    with opened(fake, query=query, host=host) as backend:
        found_by(backend, PICTURES[0])
        assert backend.fallbacks == () and not regions_there()
    assert fake.by_region == [False]


def test_a_full_memory_folder_is_met_before_it_ends_the_process(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    fake = FakeServer()
    with opened(fake) as backend:
        found_by(backend, PICTURES[0])
        assert not regions_there()
        assert "0.0 MiB of /dev/shm cannot be had (No space left on device)" in backend.fallbacks[0]
    assert fake.by_region == [False]


def test_closing_gives_back_what_the_servers_mapped():
    fake = FakeServer(takes_s=0.05)
    with opened(fake, query="in_flight=3") as backend:
        for picture in PICTURES:
            backend.submit([picture])
        assert len(fake.regions) == len(regions_there()) == 3
        backend.close()  # what is under way is waited for: the server may be reading
        backend.close()
        assert not fake.regions and not regions_there() and len(fake.inputs) == 3


def test_memory_that_a_server_may_still_read_is_left_to_it():
    fake = FakeServer()
    with opened(fake, query="deadline_ms=500") as backend:
        found_by(backend, PICTURES[0])
        fake.hangs = True
        with pytest.raises(BackendError, match=r"no answer within 0.5 s|the request failed"):
            found_by(backend, PICTURES[1])
        fake.hangs = False
    assert len(fake.regions) == 1 and not regions_there()


def test_memory_that_was_too_small_is_given_back_while_other_requests_are_on_their_way():
    fake = FakeServer(takes_s=0.02)
    with opened(fake, query="in_flight=2") as backend:
        backend.submit([np.zeros((40, 60, 3), np.uint8)])
        for side in range(50, 90, 10):
            backend.submit([np.zeros((side, 60, 3), np.uint8)])
            backend.result()
            assert len(fake.regions) == len(regions_there()) <= 2
    assert all(fake.by_region) and not fake.regions


def test_a_server_that_hung_knows_the_memory_it_had_mapped():
    fakes = [FakeServer(), FakeServer()]
    with opened(*fakes, query="deadline_ms=1000") as backend:
        for picture in PICTURES:
            found_by(backend, picture)
        fakes[0].hangs = True
        found_by(backend, PICTURES[0])
        found_by(backend, PICTURES[0])
        fakes[0].hangs = False
        before = len(fakes[0].inputs)
        wait_until(lambda: len(fakes[0].inputs) > before, lambda: found_by(backend, PICTURES[0]))
        assert all(fakes[0].by_region) and not any("shared memory" in reason for reason in backend.fallbacks)
    assert not fakes[0].regions and not fakes[1].regions


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
    assert fake.most_running == 2 and not fake.regions


def test_the_real_model_keeps_the_contract_with_the_fake_of_its_config():
    meta: ModelMeta = replace(meta_from_spec(load_spec("shapes")), batch=Batch(1, 4, 8))
    with opened(FakeServer(served_model(meta))) as backend:
        assert backend.meta == meta and backend.num_slots == 4


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
    assert Path("/dev/shm").is_dir()


def test_info_shows_what_a_server_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from yolov3_trt import backends
    from yolov3_trt.cli.info import info

    url, server = "triton://127.0.0.1:1/fake", FakeServer(served_model(BATCHED))
    served = open_triton(url, connect=lambda name: FakeConnection(name, server))
    monkeypatch.setattr(backends, "open_backend", lambda artifact: served if artifact == url else None)
    info(url)
    out = capsys.readouterr().out
    assert "fake, 1 classes" in out and "yes, on its server" in out
