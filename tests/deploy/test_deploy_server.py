"""The real Triton server with repositories that `deploy triton` wrote: the same detections as here, and what goes wrong.

It has the python backend only; of the others it says, for each model, that they are missing.
"""

import json
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.cli_runner import call
from tests.triton_load import Client, Clients, detections_from
from tests.triton_models import REAL, assert_equal, exporter, png_of
from tests.triton_server import READY_S, TritonServer, require_server, running_server
from yolov3_trt.data.images import load_image
from yolov3_trt.detector import open_detector
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import EngineMeta, load_model_meta, save_sidecar

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed (extra triton)")

MODELS = ("shapes", REAL)
NUM_PICTURES = 16
NUM_CLIENTS = 16
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "serving"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_server()
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def artifacts(folder: Path, data: Path) -> dict[str, Path]:
    """MODELS as `.onnx`, and an engine that no server here can open."""
    export = exporter(folder, data)
    paths = {name: export(name) for name in MODELS}
    return {**paths, "engine": _fake_engine(paths["shapes"], folder / "engine.engine")}


@pytest.fixture(scope="module")
def server(folder: Path, artifacts: dict[str, Path]) -> Iterator[TritonServer]:
    """Serves both models by the python variant; has the tensorrt and onnxruntime variants of one, and no backend for them."""
    repository = folder / "repository"
    both = [artifacts[name] for name in MODELS]
    assert call("deploy", "triton", *both, "-o", repository, "--variant", "python") == 0
    assert (
        call("deploy", "triton", artifacts["shapes"], "-o", repository, "--name", "graph", "--json", folder / "j") == 0
    )
    assert call("deploy", "triton", artifacts["engine"], "-o", repository, "--name", "plan", "--cuda-graphs") == 0
    with running_server(repository, folder, "--model-control-mode=explicit", "--load-model=*") as started:
        yield started


@pytest.fixture
def client(server: TritonServer) -> Iterator[Callable[[str], Client]]:
    opened: list[Client] = []

    def connect(model: str) -> Client:
        opened.append(Client(server.grpc_url, model))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def pictures(data: Path) -> list[Path]:
    return sorted((data / "coco" / "val64" / "images").glob("*.jpg"))[:NUM_PICTURES]


def _fake_engine(onnx_path: Path, path: Path) -> Path:
    path.write_bytes(b"no plan")
    meta = EngineMeta(
        model=load_model_meta(onnx_path),
        plan_sha256=sha256_of_file(path),
        plan_bytes=7,
        flavor="tensorrt",
        flavor_version="10.13.3",
        platform="linux-x86_64",
        gpu="NVIDIA GeForce RTX 4090",
        compute_capabilities=("8.9",),
        build_s=1.0,
    )
    save_sidecar(meta, path)
    return path


# --- what is served ---


def test_the_repository_loads_and_missing_backends_are_named_as_such(server: TritonServer, folder: Path):
    assert server.is_ready()
    index = {entry["name"]: entry for entry in server.request("v2/repository/index", {})}
    assert all("READY" in server.states(name).values() for name in MODELS)
    for name, backend in (("graph", "onnxruntime"), ("plan", "tensorrt")):
        assert index[name]["state"] == "UNAVAILABLE"
        assert f"unable to find backend library for backend '{backend}'" in index[name]["reason"], (
            "not its configuration"
        )
    assert "failed to read text proto" not in server.log, "what it says of a configuration that it cannot parse"
    warmed = {stats["batch_size"] for stats in server.statistics("shapes")["batch_stats"]}
    assert warmed >= {1, 8}, "by the warm-up"
    assert json.loads((folder / "j").read_text())["versions"][0]["variant"] == "onnxruntime"


@pytest.mark.parametrize("model", MODELS)
def test_detections_equal_the_local_ones_exactly(
    client: Callable[[str], Client], artifacts: dict[str, Path], pictures: list[Path], model: str
):
    remote, count = client(model), 0
    with open_detector(artifacts[model], conf=0.05) as wide, open_detector(artifacts[model]) as detector:
        for path in pictures:
            expected = detector(load_image(path))
            (by_bytes,) = remote.detect([path.read_bytes()])
            assert_equal(by_bytes, expected)
            frame = load_image(path)[None]
            assert_equal(*detections_from(remote.infer(frame=frame)), expected)
            asked = np.array([[0.05, 0.45, 300]], np.float32)
            assert_equal(*detections_from(remote.infer(frame=frame, postprocess=asked)), wide(load_image(path)))
            count += len(expected)
    assert model == "shapes" or count > 20


def test_pictures_of_one_request_are_a_batch(client: Callable[[str], Client], pictures: list[Path]):
    remote = client(REAL)
    together = remote.detect([path.read_bytes() for path in pictures[:8]])
    for found, path in zip(together, pictures[:8], strict=True):
        assert_equal(found, *remote.detect([path.read_bytes()]))


def test_requests_of_many_clients_share_executions(server: TritonServer, pictures: list[Path]):
    # Frames of different sizes, which may share one too.
    frames = [load_image(path) for path in pictures]
    before = server.statistics(REAL)
    barrier = threading.Barrier(NUM_CLIENTS)

    def run(number: int) -> None:
        remote = Client(server.grpc_url, REAL)
        barrier.wait()
        for turn in range(4):
            remote.infer(frame=frames[(number + turn) % NUM_PICTURES][None])
        remote.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (after := server.statistics(REAL))["inference_count"] < before["inference_count"] + 4 * NUM_CLIENTS:
        time.sleep(0.01)  # the server counts after it has answered
    inferences, executions = (after[key] - before[key] for key in ("inference_count", "execution_count"))
    assert inferences == 4 * NUM_CLIENTS
    assert executions <= inferences / 2


@pytest.mark.slow
def test_a_load_of_many_clients_meets_no_error_and_memory_stays_flat(server: TritonServer, pictures: list[Path]):
    clients = Clients(server, "shapes", [path.read_bytes() for path in pictures], NUM_CLIENTS)
    clients.watch(5.0)
    load = clients.stop()
    assert load.errors == []
    summary = load.summary()
    assert summary["requests"] > NUM_CLIENTS
    memory = summary["memory_mib"]
    assert memory[-1] < memory[2] + 50, "MiB; what is kept of each picture would be more"


def test_queue_metrics_are_there_for_autoscaling(server: TritonServer):
    metrics = server.metrics()
    manifest = (EXAMPLES / "kubernetes.yaml").read_text()
    for name in (
        "nv_inference_queue_duration_us",
        "nv_inference_request_success",
        "nv_inference_pending_request_count",
    ):
        assert name in manifest
        assert f'{name}{{model="{REAL}",version="1"}}' in metrics


def test_the_examples_probe_what_the_server_answers(server: TritonServer):
    for example in ("kubernetes.yaml", "compose.yaml"):
        paths = set(re.findall(r"v2/health/\w+", (EXAMPLES / example).read_text()))
        assert "v2/health/ready" in paths
        for path in paths:
            server.request(path)  # raises unless it answers 200


# --- a new version under load ---


def test_a_model_is_updated_under_load_without_a_failed_request(
    server: TritonServer, folder: Path, artifacts: dict[str, Path], pictures: list[Path]
):
    with Clients(server, "shapes", [path.read_bytes() for path in pictures], 4) as clients:
        clients.watch(0.5)
        assert call("deploy", "triton", artifacts["shapes"], "-o", folder / "repository", "--variant", "python") == 0
        server.load("shapes")
        clients.watch(0.5)
    load = clients.load
    assert load.errors == []
    assert set(load.versions) == {"1", "2"} and load.versions[-1] == "2"
    states = server.states("shapes")
    assert states["2"] == "READY" and states["1"] != "READY", "one version is served unless deploy is told otherwise"


# --- wrong inputs ---


def encoded(content: bytes) -> dict[str, Any]:
    return {"encoded": np.array([[content]], object)}


JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 99, np.uint8))[1].tobytes()
FRAME = np.zeros((1, 48, 64, 3), np.uint8)
ONE_SIDED = JPEG.replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 10000, 10000))
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"postprocess": np.array([[0.5, 0.45, 10]], np.float32)}, "got no picture; expected exactly one of"),
    "two pictures": ({**encoded(JPEG), "frame": FRAME}, "got encoded and frame; expected exactly one of"),
    "not a picture": (encoded(b"hello"), "5 bytes that are neither a JPEG nor a PNG"),
    "nothing": (encoded(b""), "0 bytes that are neither a JPEG nor a PNG"),
    "corrupt JPEG": (encoded(JPEG[:200] + JPEG[600:]), "picture 0 of the request: "),
    "JPEG cut short": (encoded(JPEG[:-20]), "this JPEG is cut short"),
    "100-megapixel PNG": (encoded(png_of(10000, 10000)), "a picture that is too large; expected at most 64 megapixels"),
    "100-megapixel JPEG": (encoded(ONE_SIDED), "a picture that is too large; expected at most 64 megapixels"),
    "frame without colours": ({"frame": np.zeros((1, 48, 64), np.uint8)}, "unexpected shape for input 'frame'"),
    "frame with alpha": ({"frame": np.zeros((1, 48, 64, 4), np.uint8)}, "unexpected shape for input 'frame'"),
    "too many pictures": ({"frame": np.zeros((9, 8, 8, 3), np.uint8)}, "batch-size must be <= 8"),
    "iou above one": (
        {"frame": FRAME, "postprocess": np.array([[0.5, 1.5, 10]], np.float32)},
        "iou: got 1.5; expected 0 to 1",
    ),
    "not a number": (
        {"frame": FRAME, "postprocess": np.array([[np.nan, 0.5, 10]], np.float32)},
        "expected 3 finite float32",
    ),
    "too many detections": (
        {"frame": FRAME, "postprocess": np.array([[0.5, 0.5, 301]], np.float32)},
        "a whole number up to 300",
    ),
    "half a detection": (
        {"frame": FRAME, "postprocess": np.array([[0.5, 0.5, 1.5]], np.float32)},
        "a whole number up to 300",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_its_error_and_the_server_stays(client: Callable[[str], Client], name: str):
    from tritonclient.utils import InferenceServerException

    tensors, text = WRONG[name]
    remote = client(REAL)
    with pytest.raises(InferenceServerException) as caught:
        remote.infer(**tensors)
    assert text in str(caught.value)
    assert len(remote.detect([JPEG])) == 1


def test_a_frame_of_another_type_gets_an_error(client: Callable[[str], Client], server: TritonServer):
    from tritonclient.utils import InferenceServerException

    remote = client(REAL)
    with pytest.raises(InferenceServerException, match="data-type is 'FP32'"):
        remote.infer({"frame": "FP32"}, frame=FRAME.astype(np.float32))
    assert server.is_ready() and server.process.poll() is None


def test_a_bad_request_does_not_spoil_those_it_shares_a_batch_with(server: TritonServer, pictures: list[Path]):
    from tritonclient.utils import InferenceServerException

    good = pictures[0].read_bytes()
    expected = Client(server.grpc_url, REAL).detect([good])[0]
    outcomes: list[str] = []

    def run(number: int) -> None:
        remote = Client(server.grpc_url, REAL)
        try:
            (found,) = remote.detect([good if number % 2 else good[:1000]])
        except InferenceServerException as exc:
            outcomes.append("refused" if "cut short" in str(exc) else str(exc))
        else:
            assert_equal(found, expected)
            outcomes.append("detected")
        remote.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["detected"] * 6 + ["refused"] * 6


# --- a repository that is being written ---


@pytest.mark.slow
def test_a_polling_server_passes_over_half_written_versions_and_takes_whole_ones(
    folder: Path, artifacts: dict[str, Path], pictures: list[Path], tmp_path: Path
):
    deploy = ("deploy", "triton", artifacts["shapes"], "-o", tmp_path / "repository", "--variant", "python")
    assert call(*deploy) == 0
    left = tmp_path / "repository" / "shapes" / ".2.abcdef.partial"
    left.mkdir()
    (left / "model.py").write_text("raise SystemExit('half-written')")
    with running_server(
        tmp_path / "repository", folder, "--model-control-mode=poll", "--repository-poll-secs=1"
    ) as server:
        assert server.states("shapes") == {"1": "READY"}
        assert "ignore version directory '.2.abcdef.partial'" in server.log
        with Clients(server, "shapes", [path.read_bytes() for path in pictures], 2) as clients:
            clients.watch(0.3)
            assert call(*deploy, "--queue-delay-us", "500") == 0
            deadline_s = time.monotonic() + READY_S
            while server.states("shapes").get("2") != "READY":
                assert time.monotonic() < deadline_s, server.log[-2000:]
                clients.watch(0.3)
            clients.watch(1.5)
        load = clients.load
        assert load.errors == []
        assert set(load.versions) == {"1", "2"} and load.versions[-1] == "2"
    assert not left.exists()
