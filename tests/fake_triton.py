"""Triton's gRPC service inside this process, with faults on demand, for tests of the client."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.fakes import FakeBackend
from yolov3_trt.backends.triton.model_config import ModelConfig
from yolov3_trt.deploy import triton as deploy
from yolov3_trt.detector import Detector
from yolov3_trt.meta import ModelMeta

grpc = pytest.importorskip("grpc", reason="grpcio is not installed (extra triton)")
service_pb2 = pytest.importorskip(
    "tritonclient.grpc.service_pb2", reason="tritonclient is not installed (extra triton)"
)

Arrays = Mapping[str, np.ndarray]
Fault = tuple[str, str]  # gRPC's name of a status, and what the server says
_NUMPY_TYPES = {"UINT8": np.uint8, "FP32": np.float32, "INT32": np.int32, "FP64": np.float64}
_TYPES = {np.dtype(kind): name for name, kind in _NUMPY_TYPES.items()}


def served_model(meta: ModelMeta = FakeBackend.meta, variant: str = "python") -> ModelConfig:
    """What a server says of a model that `deploy triton` configured."""
    return deploy.config_from_model(deploy.ServedModel(meta.name, meta, deploy.Variant(variant), on_gpu=False))


def detect(inputs: Arrays) -> Arrays:
    """The python variant on a `FakeBackend`: DETECTION_OUTPUTS of one raw frame, in image px."""
    found = Detector(FakeBackend())(inputs["frame"][0])
    most = FakeBackend.meta.postprocess.max_detections
    outputs = {
        "num_detections": np.array([[len(found)]], np.int32),
        "boxes": np.zeros((1, most, 4), np.float32),
        "scores": np.zeros((1, most), np.float32),
        "class_ids": np.zeros((1, most), np.int32),
    }
    outputs["boxes"][0, : len(found)], outputs["scores"][0, : len(found)] = found.xyxy, found.scores
    return outputs


class FakeServer:
    """A server at a port of its own. It runs, hangs, refuses with `fault`, or is killed and started again."""

    def __init__(
        self,
        model: ModelConfig | None = None,
        run: Callable[[Arrays], Arrays | Fault] = detect,
        takes_s: float = 0.0,
        credentials: Any = None,
    ) -> None:
        self.model = model or served_model()
        self.run, self.takes_s = run, takes_s
        self.fault: Fault | None = None
        self.hangs = False
        self.inputs: list[dict[str, np.ndarray]] = []  # of each request that was run
        self.questions = self.running = self.most_running = 0
        self._lock = threading.Lock()
        self._port = 0
        self._credentials = credentials  # of grpc.ssl_server_credentials; None: not encrypted
        self.start()

    @property
    def name(self) -> str:
        """Its host:port."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, where it did before."""
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                getattr(self, f"_{name}"),
                request_deserializer=getattr(service_pb2, f"{name}Request").FromString,
                response_serializer=getattr(service_pb2, f"{name}Response").SerializeToString,
            )
            for name in ("ModelConfig", "ModelReady", "RepositoryIndex", "ModelInfer")
        }
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))
        self._server = grpc.server(ThreadPoolExecutor(16), options=options)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)]
        )
        if self._credentials is None:
            self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        else:
            self._port = self._server.add_secure_port(f"127.0.0.1:{self._port}", self._credentials)
        self._server.start()

    def kill(self) -> None:
        """As a killed process: nothing answers any more."""
        self._server.stop(None).wait()

    def _ModelConfig(self, request: Any, context: Any) -> Any:
        from google.protobuf.json_format import ParseDict

        with self._lock:
            self.questions += 1
        self._fail(context)
        answer = service_pb2.ModelConfigResponse()
        ParseDict(dict(self.model), answer.config)
        return answer

    def _ModelReady(self, request: Any, context: Any) -> Any:
        self._fail(context)
        return service_pb2.ModelReadyResponse(ready=True)

    def _RepositoryIndex(self, request: Any, context: Any) -> Any:
        self._fail(context)
        return service_pb2.RepositoryIndexResponse()

    def _ModelInfer(self, request: Any, context: Any) -> Any:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            time.sleep(self.takes_s)
            self._fail(context)
            inputs = {
                tensor.name: _array(tensor, content)
                for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
            }
            self.inputs.append(inputs)
            outputs = self.run(inputs)
        finally:
            with self._lock:
                self.running -= 1
        if isinstance(outputs, tuple):
            context.abort(grpc.StatusCode[outputs[0]], outputs[1])
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, array in outputs.items():
            answer.outputs.add(name=name, datatype=_TYPES[array.dtype], shape=array.shape)
            answer.raw_output_contents.append(array.tobytes())
        return answer

    def _fail(self, context: Any) -> None:
        while self.hangs and context.is_active():
            time.sleep(0.005)
        if self.fault is not None:
            context.abort(grpc.StatusCode[self.fault[0]], self.fault[1])


@contextmanager
def running(*fakes: FakeServer) -> Iterator[tuple[FakeServer, ...]]:
    """Servers that are killed in the end."""
    try:
        yield fakes
    finally:
        for fake in fakes:
            fake.hangs = False
            fake.kill()


def _array(tensor: Any, content: bytes) -> np.ndarray:
    if tensor.datatype == "BYTES":
        assert int.from_bytes(content[:4], "little") == len(content) - 4
        return np.array([[content[4:]]], object).reshape(tuple(tensor.shape))
    return np.frombuffer(content, _NUMPY_TYPES[tensor.datatype]).reshape(tuple(tensor.shape))


def wait_until(is_so: Callable[[], bool], step: Callable[[], object], within_s: float = 5.0) -> None:
    """Repeat a step until something is so; fails after a while."""
    end_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end_s
        step()
        time.sleep(0.01)
