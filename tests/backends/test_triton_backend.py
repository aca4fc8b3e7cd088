"""`triton://` against the real server: what comes back equals what is found here, and errors are clear."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli_runner import Run
from tests.triton_models import REAL, assert_equal, deploy, deploy_stand_in, exporter
from tests.triton_server import TritonServer, require_server, running_server
from yolov3_trt.backends.triton import TritonBackend, TritonPictureBackend, open_triton
from yolov3_trt.backends.triton.address import parse_address
from yolov3_trt.backends.triton.remote import RemoteModel
from yolov3_trt.data.images import load_image
from yolov3_trt.detector import open_detector
from yolov3_trt.errors import BackendError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD
from yolov3_trt.geometry import iou_matrix
from yolov3_trt.preprocess import Image
from yolov3_trt.shapes import iter_shapes_clip

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed (extra triton)")

NUM_PICTURES = 8  # of val64; all 64 by hand, see docs/serving.md
IDLE_MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return [None for _ in requests]\n"
IDLE_CONFIG = """
    input { name: "x" data_type: TYPE_FP32 dims: 1 }
    output { name: "y" data_type: TYPE_FP32 dims: 1 }
    instance_group { kind: KIND_CPU }
"""
Export = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_server()
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def export(folder: Path, data: Path) -> Export:
    return exporter(folder, data)


@pytest.fixture(scope="module")
def server(folder: Path, export: Export) -> Iterator[TritonServer]:
    """Both models by the python variant, the bundled one's graph by a stand-in for the onnxruntime variant, and bad ones."""
    repository = folder / "repository"
    deploy(repository, export("shapes"), "shapes")
    deploy(repository, export(REAL), REAL)
    deploy_stand_in(repository, export("shapes"), "graph")
    for name, backend in (("foreign", "python"), ("broken", "openvino")):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(IDLE_MODEL)
        (repository / name / "config.pbtxt").write_text(f'name: "{name}" backend: "{backend}" {IDLE_CONFIG}')
    with running_server(repository, folder) as started:
        yield started


@pytest.fixture(scope="module")
def photos(data: Path) -> list[Path]:
    return sorted((data / "coco" / "val64" / "images").glob("*.jpg"))[:NUM_PICTURES]


@pytest.fixture(scope="module")
def scenes() -> list[Image]:
    return [picture.pixels for picture in iter_shapes_clip(3, 6, (240, 320))]


@pytest.mark.parametrize("query", ["", "?encoding=png"])
@pytest.mark.parametrize("model", ["shapes", REAL])
def test_detections_equal_the_local_ones_exactly(
    server: TritonServer, export: Export, photos: list[Path], scenes: list[Image], model: str, query: str
):
    pictures = scenes if model == "shapes" else [load_image(path) for path in photos]
    url = f"triton://{server.grpc_url}/{model}{query}"
    for conf in (None, EVAL_CONF_THRESHOLD):
        with open_detector(export(model), conf=conf) as local, open_detector(url, conf=conf) as remote:
            assert isinstance(remote.backend, TritonPictureBackend)
            expected = [local(picture) for picture in pictures]
            for detections, wanted in zip(remote(pictures), expected, strict=True):
                assert_equal(detections, wanted)
            (entry,) = remote.backend.statistics["servers"].values()
            assert entry["requests"] == len(pictures) and entry["failures"] == 0 and remote.backend.fallbacks == ()
    assert sum(map(len, expected)) > 20


def test_requests_in_flight_come_back_in_order(server: TritonServer, export: Export, scenes: list[Image]):
    url = f"triton://{server.grpc_url}/shapes?in_flight=6"
    with open_detector(export("shapes")) as local, open_detector(url) as remote:
        assert remote.num_slots == 6
        for picture in scenes:
            remote.submit([picture])
        for picture in scenes:
            assert_equal(remote.result().detections[0], local(picture))


def test_jpeg_finds_the_same_objects_and_is_said_to_be_lossy(server: TritonServer, export: Export, scenes: list[Image]):
    url = f"triton://{server.grpc_url}/shapes?encoding=jpeg"
    with open_detector(export("shapes"), conf=0.7) as local, open_detector(url) as remote:
        for picture in scenes:
            sure, found = local(picture), remote(picture)
            assert len(sure) > 0 and iou_matrix(sure.xyxy, found.xyxy).max(axis=1).min() > 0.8
        assert any("lossy" in reason for reason in remote.backend.fallbacks)


def test_a_network_alone_is_fed_and_read_from_here(server: TritonServer, export: Export, scenes: list[Image]):
    url = f"triton://{server.grpc_url}/graph"
    with open_detector(export("shapes")) as local, open_detector(url) as remote:
        assert isinstance(remote.backend.network, TritonBackend) and remote.meta == local.meta
        for detections, wanted in zip(remote(scenes), local(scenes), strict=True):
            assert_equal(detections, wanted)
        batch, _ = local.backend.prepare(scenes[:3])
        outputs = remote.backend.network.infer(batch)
        for name, array in local.backend.network.infer(batch).items():
            np.testing.assert_array_equal(outputs[name], array)


def test_the_verb_detect_says_the_same(server: TritonServer, export: Export, photos: list[Path], run: Run):
    found = run("detect", f"triton://{server.grpc_url}/{REAL}", *photos[:4], "--json", "-")
    local = run("detect", export(REAL), *photos[:4], "--json", "-")
    assert found.code == local.code == 0 and found.json["backend"] == "triton"
    assert found.json["images"] == local.json["images"] and not found.complaints


def test_the_verb_eval_says_the_same(
    server: TritonServer, export: Export, photos: list[Path], data: Path, tmp_path: Path, run: Run
):
    content = json.loads((data / "coco" / "instances_val64.json").read_text())
    names = {path.name for path in photos}
    content["images"] = [image for image in content["images"] if Path(image["file_name"]).name in names]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    annotations = tmp_path / "part.json"
    annotations.write_text(json.dumps(content))
    url = f"triton://{server.grpc_url}/{REAL}"
    options = ("--images", photos[0].parent, "--annotations", annotations, "--json", "-", "--resamples", "0")
    found, local = (run("eval", artifact, *options).json for artifact in (url, export(REAL)))
    apart = {"artifact", "artifacts", "backend", "size_bytes", "machine"}  # it has the load of the moment

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if key not in apart}
        return [plain(one) for one in value] if isinstance(value, list) else value

    assert plain(found) == plain(local) and '"AP": 0.' in json.dumps(found)


@pytest.mark.parametrize(
    "path, error",
    [
        ("nosuch", "NOT_FOUND: Request for unknown model: 'nosuch' is not found (it has foreign, graph, "),
        ("shapes:7", "NOT_FOUND: Request for unknown model: 'shapes' version 7 is not found"),
        ("broken", "unable to find backend library for backend 'openvino'"),
        ("foreign", "yolov3_trt_contract: there is none: the model is not this package's"),
    ],
)
def test_a_model_that_is_not_there_is_said_so(server: TritonServer, path: str, error: str, run: Run):
    outcome = run("detect", f"triton://{server.grpc_url}/{path}", __file__)
    assert outcome.code == 1 and error in outcome.stderr and "Traceback" not in outcome.stderr
    assert len(outcome.complaints) == 1


def test_a_port_that_is_not_grpc_is_said_so(server: TritonServer):
    with pytest.raises(BackendError, match=r"UNAVAILABLE: failed to connect.*expected host:port of Triton's gRPC"):
        open_triton(f"triton://127.0.0.1:{server.ports.http}/shapes?deadline_ms=2000")


def test_a_version_can_be_named(server: TritonServer, scenes: list[Image]):
    with open_detector(f"triton://{server.grpc_url}/shapes:1") as remote:
        assert len(remote(scenes[0])) > 0


def test_a_request_that_the_server_refuses_says_why_and_is_not_repeated(server: TritonServer, scenes: list[Image]):
    """As a client that is not this one could send it; what the server refuses is in `test_deploy_server.py`."""
    frame = scenes[0][None]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"encoded": b"no picture"}, "INVALID_ARGUMENT: picture 0 of the request: 10 bytes that are neither"),
        ({"frame": ("FP32", frame.astype(np.float32))}, "inference input 'frame' data-type is 'FP32'"),
        ({"framed": ("UINT8", frame)}, "unexpected inference input 'framed'"),
        (
            {"frame": ("UINT8", frame), "postprocess": ("FP32", np.array([[2, 0.45, 9]], np.float32))},
            "conf: got 2.0; expected 0 to 1",
        ),
    ]
    remote = RemoteModel(parse_address(f"triton://{server.grpc_url}/shapes"))
    try:
        for inputs, error in cases:
            with pytest.raises(BackendError) as raised:
                remote.wait([remote.begin(inputs)])
            assert error in str(raised.value) and "the request failed at try 1" in str(raised.value)
        remote.wait([remote.begin({"frame": ("UINT8", frame)})])
        assert remote.statistics["repeats"] == 0 and server.is_ready()
    finally:
        remote.close()


def test_a_frame_beyond_the_servers_limit_is_an_error_and_the_next_one_is_not(
    server: TritonServer, scenes: list[Image]
):
    with open_detector(f"triton://{server.grpc_url}/shapes?deadline_ms=60000") as remote:
        with pytest.raises(BackendError, match="a picture of 8001x8000 px; expected at most 64 megapixels"):
            remote(np.zeros((8001, 8000, 3), np.uint8))
        assert len(remote(scenes[0])) > 0
