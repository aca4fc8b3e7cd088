"""gRPC to one Triton server, by the stubs that tritonclient carries."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends.triton.model_config import ModelConfig, config_from_message
from yolov3_trt.errors import require

Inputs = Mapping[str, tuple[str, NDArray[Any]] | bytes]
Outputs = Mapping[str, NDArray[Any]]

_LARGEST = 2**31 - 1  # bytes of a message; gRPC's own limit is 4 MiB, less than a frame
_LARGEST_CONFIG = 16 << 20  # bytes of an answer that is no result
_OPTIONS = (
    ("grpc.max_send_message_length", _LARGEST),
    # gRPC waits up to two minutes before it connects again to a server that was away; a camera cannot. When to try is
    # decided by `servers.py`; this only has to be no slower.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
# A server that says so may be at fault or away, and not the request: another one, or the same one later, may do it.
_ELSEWHERE = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND"})


class CallError(Exception):
    """A call that a server did not do.

    Attributes:
        code: gRPC's name of the status.
        text: what the server said, or gRPC where there was none.
    """

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = " ".join(text.split())[:500]
        super().__init__(f"{self.code}: {self.text}")

    @property
    def is_worth_repeating(self) -> bool:
        """Whether it may go well on another server, or on this one later."""
        # The process that ran a python model died. The server says that the model is ready, but it never is again.
        return self.code in _ELSEWHERE or "Stub process" in self.text


@dataclass(frozen=True, eq=False)
class Answer:
    """What a request gave."""

    outputs: Outputs
    at_s: float  # time.perf_counter() when it came


class Connection:
    """A gRPC channel to a model on one server; any thread may use it."""

    def __init__(self, server: str, model: str, version: str = "", credentials: Any = None) -> None:
        """Prepare a channel; nothing is sent before the first call.

        Args:
            server: host:port.
            model: its name there.
            version: of it, or an empty text for the one that the server prefers.
            credentials: of `tls_credentials`; None: the channel is not encrypted.

        Raises:
            MissingDependency: tritonclient or grpcio is not installed.
        """
        self.server, self.model, self.version = server, model, version
        self._credentials = credentials
        self._grpc: Any = require("grpc", extra="triton")
        self._messages: Any = require("tritonclient.grpc.service_pb2", extra="triton")
        stubs: Any = require("tritonclient.grpc.service_pb2_grpc", extra="triton")
        self._new_stub = stubs.GRPCInferenceServiceStub
        self._connect(_LARGEST_CONFIG)

    def limit_answers(self, result_bytes: int) -> None:
        """Say how large a result may be; a larger one is refused before it is taken in. No call may be under way."""
        self._channel.close()
        self._connect(max(result_bytes + (1 << 20), _LARGEST_CONFIG))  # names and shapes take little

    def _connect(self, largest: int) -> None:
        options = (*_OPTIONS, ("grpc.max_receive_message_length", min(largest, _LARGEST)))
        if self._credentials is None:
            self._channel = self._grpc.insecure_channel(self.server, options=options)
        else:
            self._channel = self._grpc.secure_channel(self.server, self._credentials, options=options)
        self._stub = self._new_stub(self._channel)

    def config(self, timeout_s: float) -> ModelConfig:
        """The configuration of the model, which is ready.

        Raises:
            CallError: the server is not reached, or the model is not there or not ready.
        """
        names = {"name": self.model, "version": self.version}
        try:
            answer = self._call(self._stub.ModelConfig, self._messages.ModelConfigRequest(**names), timeout_s)
        except CallError as exc:
            raise CallError(exc.code, f"{exc.text}{self._why_missing(timeout_s)}") from exc
        if not self._call(self._stub.ModelReady, self._messages.ModelReadyRequest(**names), timeout_s).ready:
            raise CallError("UNAVAILABLE", f"model {self.model} is there but not ready")
        return config_from_message(answer.config)

    def infer(self, request: Any, timeout_s: float) -> Answer:
        """Send what `infer_request` made, and wait for what comes back.

        Raises:
            CallError: nothing came within the time, or the server did not do it.
        """
        response = self._call(self._stub.ModelInfer, request, timeout_s)
        return Answer(_outputs(response), time.perf_counter())

    def close(self) -> None:
        """End all calls: those under way, and those to come, raise CallError."""
        self._channel.close()

    def _why_missing(self, timeout_s: float) -> str:
        """Why the server did not load the model, or which it has instead; empty where it does not say."""
        try:
            found = self._call(self._stub.RepositoryIndex, self._messages.RepositoryIndexRequest(), timeout_s).models
        except CallError:
            return ""
        if reasons := [entry.reason for entry in found if entry.name == self.model and entry.reason]:
            return f" ({reasons[0]})"
        ready = sorted({entry.name for entry in found if entry.state == "READY"} - {self.model})
        return f" (it has {', '.join(ready)})" if ready else ""

    def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s)
        except self._grpc.RpcError as exc:
            raise CallError(exc.code().name, exc.details() or "") from exc
        except ValueError as exc:  # gRPC's error for a channel that was closed
            raise CallError("CANCELLED", str(exc)) from exc


def tls_credentials(ca: str, certificate: str, key: str) -> Any:
    """How a channel is encrypted, from PEM files; an empty name is none.

    Raises:
        OSError: a file cannot be read, is no PEM, or the key is not the certificate's; gRPC would only say that none answers.
        MissingDependency: grpcio is not installed.
    """
    context = ssl.create_default_context(cafile=ca or None)
    if certificate:
        context.load_cert_chain(certificate, key, password=lambda: "")  # a key with a password would be asked for here
    contents = [Path(name).read_bytes() if name else None for name in (ca, key, certificate)]
    return require("grpc", extra="triton").ssl_channel_credentials(*contents)


def infer_request(model: str, version: str, inputs: Inputs) -> Any:
    """A request for a model, which holds a copy of its inputs.

    Args:
        model: that shall run.
        version: of it, or an empty text.
        inputs: by name: bytes for one text in a batch of one, or Triton's name of a type and the values.
    """
    request = require("tritonclient.grpc.service_pb2", extra="triton").ModelInferRequest()
    request.model_name, request.model_version = model, version
    for name, given in inputs.items():
        if isinstance(given, bytes):  # a text travels with its length before it
            dtype, shape, content = "BYTES", (1, 1), len(given).to_bytes(4, "little") + given
        else:
            dtype, shape, content = given[0], given[1].shape, given[1].tobytes()
        request.inputs.add(name=name, datatype=dtype, shape=shape)
        request.raw_input_contents.append(content)
    return request


def _outputs(response: Any) -> Outputs:
    numpy_dtype = require("tritonclient.utils", extra="triton").triton_to_np_dtype
    try:
        return {
            output.name: np.frombuffer(raw, numpy_dtype(output.datatype)).reshape(tuple(output.shape))
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }
    except (TypeError, ValueError) as exc:
        raise CallError("DATA_LOSS", f"the response is malformed: {exc}") from exc
