"""gRPC to one Triton server, by the stubs that tritonclient carries."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends.triton.connection import (
    Answer,
    CallError,
    ModelName,
    Region,
    ServedModel,
    ServedTensor,
    Tensor,
)
from yolov3_trt.errors import require

_LARGEST = 2**31 - 1  # bytes of a message; gRPC's own limit is 4 MiB, less than a frame
_OPTIONS = (
    ("grpc.max_send_message_length", _LARGEST),
    ("grpc.max_receive_message_length", _LARGEST),
    # gRPC waits up to two minutes before it connects again to a server that was away; a camera cannot. When to try is
    # decided by `servers.py`; this only has to be no slower.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcConnection:
    """A `Connection` over gRPC, unencrypted."""

    def __init__(self, server: str) -> None:
        """Prepare a channel; nothing is sent before the first call.

        Raises:
            MissingDependency: tritonclient or grpcio is not installed.
        """
        self.server = server
        self._grpc: Any = require("grpc", extra="triton")
        self._messages: Any = require("tritonclient.grpc.service_pb2", extra="triton")
        self._config: Any = require("tritonclient.grpc.model_config_pb2", extra="triton")
        stubs: Any = require("tritonclient.grpc.service_pb2_grpc", extra="triton")
        self._numpy_dtype: Any = require("tritonclient.utils", extra="triton").triton_to_np_dtype
        self._channel = self._grpc.insecure_channel(server, options=_OPTIONS)
        self._stub = stubs.GRPCInferenceServiceStub(self._channel)

    def served(self, model: ModelName, timeout_s: float) -> ServedModel:
        """See `Connection.served`."""
        names = {"name": model.name, "version": model.version}
        try:
            config = self._call(self._stub.ModelConfig, self._messages.ModelConfigRequest(**names), timeout_s).config
        except CallError as exc:
            raise CallError(exc.code, f"{exc.text}{self._why_missing(model, timeout_s)}") from exc
        if not self._call(self._stub.ModelReady, self._messages.ModelReadyRequest(**names), timeout_s).ready:
            raise CallError("UNAVAILABLE", f"model {model} is there but not ready")
        return ServedModel(
            {key: value.string_value for key, value in config.parameters.items()},
            tuple(self._served_tensor(tensor) for tensor in config.input),
            tuple(self._served_tensor(tensor) for tensor in config.output),
            config.max_batch_size,
        )

    def probe(self, model: ModelName, timeout_s: float, done: Callable[[CallError | None], None]) -> None:
        """See `Connection.probe`."""
        request = self._messages.ModelReadyRequest(name=model.name, version=model.version)

        def finish(future: Any) -> None:
            answer = self._result(future)
            if isinstance(answer, CallError):
                done(answer)
            else:
                done(None if answer.ready else CallError("UNAVAILABLE", f"model {model} is not ready"))

        self._stub.ModelReady.future(request, timeout=timeout_s).add_done_callback(finish)

    def infer(
        self, model: ModelName, tensors: tuple[Tensor, ...], timeout_s: float, done: Callable[[Answer], None]
    ) -> None:
        """See `Connection.infer`."""
        request = self._messages.ModelInferRequest(model_name=model.name, model_version=model.version)
        for tensor in tensors:
            self._add_tensor(request, tensor)

        def finish(future: Any) -> None:
            at_s = time.perf_counter()
            answer = self._result(future)
            done(Answer(answer if isinstance(answer, CallError) else self._outputs(answer), at_s))

        self._stub.ModelInfer.future(request, timeout=timeout_s).add_done_callback(finish)

    def register(self, region: Region, timeout_s: float) -> None:
        """See `Connection.register`."""
        request = self._messages.SystemSharedMemoryRegisterRequest(
            name=region.name, key=region.key, offset=0, byte_size=region.num_bytes
        )
        self._call(self._stub.SystemSharedMemoryRegister, request, timeout_s)

    def unregister(self, region: Region, timeout_s: float) -> None:
        """See `Connection.unregister`."""
        request = self._messages.SystemSharedMemoryUnregisterRequest(name=region.name)
        self._call(self._stub.SystemSharedMemoryUnregister, request, timeout_s)

    def registered(self, timeout_s: float) -> frozenset[str]:
        """See `Connection.registered`."""
        request = self._messages.SystemSharedMemoryStatusRequest()
        return frozenset(self._call(self._stub.SystemSharedMemoryStatus, request, timeout_s).regions)

    def close(self) -> None:
        """See `Connection.close`."""
        self._channel.close()

    def _why_missing(self, model: ModelName, timeout_s: float) -> str:
        """Why the server did not load a model, or which it has instead; empty where it does not say."""
        try:
            found = self._call(self._stub.RepositoryIndex, self._messages.RepositoryIndexRequest(), timeout_s).models
        except CallError:
            return ""
        if reasons := [entry.reason for entry in found if entry.name == model.name and entry.reason]:
            return f" ({reasons[0]})"
        ready = sorted({entry.name for entry in found if entry.state == "READY"} - {model.name})
        return f" (it has {', '.join(ready)})" if ready else ""

    def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s)
        except self._grpc.RpcError as exc:
            raise CallError(exc.code().name, exc.details()) from exc

    def _result(self, future: Any) -> Any:
        """What a finished call gave, or the CallError that it ended with."""
        try:
            return future.result()
        except self._grpc.RpcError as exc:
            return CallError(exc.code().name, exc.details())
        except self._grpc.FutureCancelledError:
            return CallError("CANCELLED", "given up by this client")

    def _add_tensor(self, request: Any, tensor: Tensor) -> None:
        added = request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=tensor.shape)
        if tensor.region is not None:
            added.parameters["shared_memory_region"].string_param = tensor.region.name
            added.parameters["shared_memory_byte_size"].int64_param = tensor.num_bytes
            return
        content = tensor.data()
        # A string travels with its length before it.
        request.raw_input_contents.append(
            len(content).to_bytes(4, "little") + content if tensor.dtype == "BYTES" else content
        )

    def _outputs(self, response: Any) -> dict[str, NDArray[Any]] | CallError:
        try:
            return {
                output.name: np.frombuffer(raw, self._numpy_dtype(output.datatype)).reshape(tuple(output.shape))
                for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
            }
        except (TypeError, ValueError) as exc:
            return CallError("DATA_LOSS", f"the response is malformed: {exc}")

    def _served_tensor(self, tensor: Any) -> ServedTensor:
        dtype = self._config.DataType.Name(tensor.data_type).removeprefix("TYPE_")
        return ServedTensor(tensor.name, "BYTES" if dtype == "STRING" else dtype, tuple(tensor.dims))
