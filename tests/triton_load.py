"""Many clients at once against a real server: by `tests/deploy/test_deploy_server.py` for seconds, by hand for a minute.

By hand: `.venv/bin/python -m tests.triton_load docs/results/triton-load.json`, with the pictures of the reference data.
"""

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.triton_server import TritonServer, running_server
from yolov3_trt.backends.triton.contract import ENCODED, FRAME, POSTPROCESS
from yolov3_trt.detections import Detections
from yolov3_trt.meta import DETECTION_OUTPUTS

TIMEOUT_S = 60.0
_TYPES = {ENCODED: "BYTES", FRAME: "UINT8", POSTPROCESS: "FP32"}


class Client:
    """A gRPC client of one model, without anything of this package between it and the server."""

    def __init__(self, url: str, model: str) -> None:
        from tritonclient.grpc import InferenceServerClient

        self.model = model
        self.version = ""  # that answered last
        self._client = InferenceServerClient(url)

    def infer(self, types: dict[str, str] | None = None, /, **tensors: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Send tensors by name, the batch first; returns the outputs by name."""
        from tritonclient.grpc import InferInput

        inputs = []
        for name, tensor in tensors.items():
            inputs.append(InferInput(name, tensor.shape, (types or _TYPES)[name]))
            inputs[-1].set_data_from_numpy(tensor)
        result = self._client.infer(self.model, inputs, client_timeout=TIMEOUT_S)
        self.version = result.get_response().model_version
        return {name: result.as_numpy(name) for name in DETECTION_OUTPUTS}

    def detect(self, pictures: Sequence[bytes]) -> list[Detections]:
        """Detections in encoded pictures, which travel in one request."""
        return detections_from(self.infer(encoded=np.array(pictures, object).reshape(-1, 1)))

    def close(self) -> None:
        """Give up the connection."""
        self._client.close()


def detections_from(outputs: dict[str, NDArray[Any]]) -> list[Detections]:
    """Outputs of the python variant as values; rows beyond the count must be zero."""
    found = []
    for count, boxes, scores, class_ids in zip(*(outputs[name] for name in DETECTION_OUTPUTS), strict=True):
        number = int(count[0])
        assert not boxes[number:].any() and not scores[number:].any() and not class_ids[number:].any()
        found.append(Detections(boxes[:number], scores[:number], class_ids[:number]))
    return found


@dataclass
class Load:
    """What many clients met."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)  # that answered, in the order of the answers
    memory_mib: list[float] = field(default_factory=list)  # of the server and its models' processes, over time

    def summary(self) -> dict[str, Any]:
        """Throughput, latency, errors and memory as JSON values."""
        p50, p99 = np.percentile(self.latencies_ms, [50, 99])
        # Eight means over the run: what grows with every request shows here.
        memory = [round(float(np.mean(part)), 1) for part in np.array_split(self.memory_mib, 8) if len(part)]
        return {
            "seconds": round(self.seconds, 1),
            "requests": len(self.latencies_ms),
            "requests_per_s": round(len(self.latencies_ms) / self.seconds, 1),
            "latency_ms": {
                "p50": round(float(p50), 1),
                "p99": round(float(p99), 1),
                "max": round(max(self.latencies_ms), 1),
            },
            "errors": len(self.errors),
            "memory_mib": memory,
        }


class Clients:
    """Threads that send pictures to a model, each the next one as soon as it has an answer, until `stop`."""

    def __init__(self, server: TritonServer, model: str, pictures: Sequence[bytes], count: int) -> None:
        self.load = Load()
        self._server, self._model, self._pictures = server, model, pictures
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._started_s = time.perf_counter()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def watch(self, seconds: float) -> None:
        """Let them go on for a while, and measure the server's memory meanwhile."""
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            time.sleep(0.25)
            self.load.memory_mib.append(memory_mib(self._server.process.pid))

    def stop(self) -> Load:
        """End them and wait for their last answers."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.load.seconds = time.perf_counter() - self._started_s
        return self.load

    def _run(self, number: int) -> None:
        from tritonclient.utils import InferenceServerException

        client = Client(self._server.grpc_url, self._model)
        turn = number
        while not self._ended.is_set():
            started_s = time.perf_counter()
            try:
                client.detect([self._pictures[turn % len(self._pictures)]])
            except InferenceServerException as exc:
                with self._lock:
                    self.load.errors.append(str(exc))
                self._ended.wait(0.1)  # not to drown a server that is gone
                continue
            with self._lock:
                self.load.latencies_ms.append(1e3 * (time.perf_counter() - started_s))
                self.load.versions.append(client.version)
            turn += 1
        client.close()


def memory_mib(pid: int) -> float:
    """What a process and its children have allocated, memory that they share counted once; without the files they map."""
    return sum(_allocated_kib(child) for child in _family(pid)) / 1024


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            for child in task.read_text().split():
                yield from _family(int(child))


def _allocated_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # the process of a version that was just unloaded
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def main() -> None:
    """Serve the bundled model, load it, write the figures."""
    from tests.cli_runner import call

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/coco/val64/images"))
    options = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(options.pictures.glob("*.jpg"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx, repository = folder / "shapes.onnx", folder / "repository"
        assert call("export", "shapes", "--batch", "1:4:8", "-o", onnx) == 0
        assert call("deploy", "triton", onnx, "-o", repository, "--variant", "python") == 0
        with running_server(repository, folder) as server:
            before = server.statistics("shapes")
            clients = Clients(server, "shapes", pictures, options.clients)
            clients.watch(options.seconds)
            load = clients.stop()
            after = server.statistics("shapes")
    content = {
        "what": "python variant of the bundled model shapes, batch 1:4:8, JPEG pictures of val64 over gRPC on loopback",
        # A load average above the clients' own share means that other work had the cores: times are then long, not typical.
        "machine": {
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "gpu": None,
            "load_average": round(os.getloadavg()[1], 1),
        },
        "clients": options.clients,
        **load.summary(),
        "executions": after["execution_count"] - before["execution_count"],
        "inferences": after["inference_count"] - before["inference_count"],
        "error_texts": sorted(set(load.errors))[:5],
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
