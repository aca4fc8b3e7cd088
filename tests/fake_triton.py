"""A Triton server inside this process, with faults on demand, for tests of the client that need no socket."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.fakes import FakeBackend
from yolov3_trt.backends.triton.connection import (
    Answer,
    CallError,
    ModelName,
    Region,
    ServedModel,
    ServedTensor,
    Tensor,
)
from yolov3_trt.deploy import triton as deploy
from yolov3_trt.detector import Detector
from yolov3_trt.meta import ModelMeta

Arrays = Mapping[str, np.ndarray]
REFUSED = CallError("UNAVAILABLE", "failed to connect to all addresses")
_NUMPY_TYPES = {"UINT8": np.uint8, "FP32": np.float32}


def served_model(meta: ModelMeta = FakeBackend.meta, variant: str = "python") -> ServedModel:
    """What a server says of a model that `deploy triton` configured."""
    config = deploy.config_from_model(deploy.ServedModel(meta.name, meta, deploy.Variant(variant), on_gpu=False))
    return ServedModel(
        {parameter["key"]: parameter["value"]["string_value"] for parameter in config["parameters"]},
        tuple(_tensor(tensor) for tensor in config["input"]),
        tuple(_tensor(tensor) for tensor in config["output"]),
        config["max_batch_size"],
    )


def _tensor(tensor: Mapping[str, Any]) -> ServedTensor:
    dtype = tensor["data_type"].removeprefix("TYPE_")
    return ServedTensor(tensor["name"], "BYTES" if dtype == "STRING" else dtype, tuple(tensor["dims"]))


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


@dataclass(eq=False)
class FakeServer:
    """What stands behind one host:port. It runs, hangs, or fails with `fault`; `restart` forgets what clients told it."""

    model: ServedModel = field(default_factory=served_model)
    run: Callable[[Arrays], Arrays | CallError] = detect
    fault: CallError | None = None
    hangs: bool = False
    takes_s: float = 0.0
    maps_memory: bool = True
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[dict[str, np.ndarray]] = field(default_factory=list)
    by_region: list[bool] = field(default_factory=list)  # of each request: whether a tensor came by shared memory
    probes: int = 0
    running: int = 0
    most_running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def kill(self) -> None:
        """As a killed process: nothing answers any more."""
        self.fault = REFUSED

    def restart(self) -> None:
        """It runs again, and what it had mapped is gone."""
        self.fault, self.hangs = None, False
        self.regions.clear()

    def answer(self, tensors: tuple[Tensor, ...]) -> Arrays | CallError:
        """What a request gives."""
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            time.sleep(self.takes_s)
            if self.fault is not None:
                return self.fault
            inputs = {tensor.name: self._read(tensor) for tensor in tensors}
            self.inputs.append(inputs)
            self.by_region.append(any(tensor.region is not None for tensor in tensors))
            return self.run(inputs)
        except CallError as exc:
            return exc
        finally:
            with self._lock:
                self.running -= 1

    def _read(self, tensor: Tensor) -> np.ndarray:
        if tensor.region is None:
            content = tensor.data()
        elif tensor.region.name in self.regions:
            content = self.regions[tensor.region.name][: tensor.num_bytes].tobytes()
        else:
            raise CallError("NOT_FOUND", f"Unable to find shared memory region: '{tensor.region.name}'")
        assert len(content) == tensor.num_bytes
        if tensor.dtype == "BYTES":
            return np.array([[content]], object)
        return np.frombuffer(content, _NUMPY_TYPES[tensor.dtype]).reshape(tensor.shape)


class FakeConnection:
    """A `Connection` to a `FakeServer`; what takes time is done on threads, as gRPC does it."""

    def __init__(self, name: str, server: FakeServer) -> None:
        self.server = name
        self._closing = threading.Event()
        self._to = server
        self._threads: list[threading.Thread] = []

    def served(self, model: ModelName, timeout_s: float) -> ServedModel:
        self._check(timeout_s)
        return self._to.model

    def probe(self, model: ModelName, timeout_s: float, done: Callable[[CallError | None], None]) -> None:
        self._to.probes += 1

        def run() -> None:
            try:
                self._check(timeout_s)
            except CallError as exc:
                done(exc)
            else:
                done(None)

        self._start(run)

    def infer(
        self, model: ModelName, tensors: tuple[Tensor, ...], timeout_s: float, done: Callable[[Answer], None]
    ) -> None:
        def run() -> None:
            if not self._to.hangs:
                done(Answer(self._to.answer(tensors), time.perf_counter()))
                return
            is_cancelled = self._closing.wait(timeout_s)
            error = CallError("CANCELLED" if is_cancelled else "DEADLINE_EXCEEDED", "it took too long")
            done(Answer(error, time.perf_counter()))

        self._start(run)

    def register(self, region: Region, timeout_s: float) -> None:
        self._check(timeout_s)
        if not self._to.maps_memory:
            raise CallError("INTERNAL", f"Unable to open shared memory region: '{region.key}'")
        if region.name in self._to.regions:
            raise CallError("ALREADY_EXISTS", f"shared memory region '{region.name}' already in manager")
        self._to.regions[region.name] = np.memmap(f"/dev/shm{region.key}", np.uint8, "r", shape=(region.num_bytes,))

    def unregister(self, region: Region, timeout_s: float) -> None:
        self._check(timeout_s)
        with suppress(KeyError):
            del self._to.regions[region.name]

    def registered(self, timeout_s: float) -> frozenset[str]:
        self._check(timeout_s)
        return frozenset(self._to.regions)

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _check(self, timeout_s: float) -> None:
        if self._to.hangs:
            time.sleep(timeout_s)
            raise CallError("DEADLINE_EXCEEDED", "Deadline Exceeded")
        if self._to.fault is not None:
            raise self._to.fault

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()


def wait_until(is_so: Callable[[], bool], step: Callable[[], object], within_s: float = 5.0) -> None:
    """Repeat a step until something is so; fails after a while."""
    end_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end_s
        step()
        time.sleep(0.01)
