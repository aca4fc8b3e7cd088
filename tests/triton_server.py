"""A real Triton Inference Server for tests: the one inside the pip package nvidia-pytriton, on the CPU.

A virtual environment of its own, `.venv-triton` (`make .venv-triton/installed`), holds it, since nvidia-pytriton wants a NumPy
below 2, and this package, which the server's python backend imports. Without it the tests are skipped and say so.
"""

import functools
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

VENV = Path(__file__).parents[1] / ".venv-triton"
READY_S = 180.0  # a model is a Python process that imports OpenCV and ONNX Runtime; two cores may be busy

_ASK = """
import json, pathlib, sys, sysconfig, onnxruntime, pytriton, yolov3_trt
print(json.dumps({
    "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "libpython": str(pathlib.Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME") or "none")),
    "server": str(pathlib.Path(pytriton.__file__).parent / "tritonserver"),
}))
"""


@dataclass(frozen=True)
class Installation:
    """Where the server and what it needs lie."""

    version: str  # of the Python of `.venv-triton`
    libpython: Path  # which the stub of the python backend loads
    server: Path  # folder: bin, backends, python_backend_stubs

    @property
    def libraries(self) -> Path:
        """The server's own."""
        return self.server.parents[1] / "nvidia_pytriton.libs"

    @property
    def stub(self) -> Path:
        """What runs a model of the python backend, for that Python."""
        return self.server / "python_backend_stubs" / self.version / "triton_python_backend_stub"


@functools.cache
def find_server() -> Installation | str:
    """The installed server, or why there is none."""
    python = VENV / "bin" / "python"
    if not python.exists():
        return f"no Triton server: {VENV.name} is missing; run: make {VENV.name}/installed"
    asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=False)
    if asked.returncode:
        return f"no Triton server: {VENV.name} is incomplete ({asked.stderr.strip().splitlines()[-1]})"
    said = json.loads(asked.stdout.splitlines()[-1])
    found = Installation(said["version"], Path(said["libpython"]), Path(said["server"]))
    for path, what in ((found.stub, "a stub for this Python"), (found.libpython, "a shared libpython")):
        if not path.is_file():
            return f"no Triton server: {VENV.name} has Python {found.version}, without {what} at {path}"
    return found


def require_server() -> Installation:
    """The installed server; without one the test is skipped."""
    found = find_server()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def free_port() -> int:
    """A TCP port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Ports:
    """Where a server listens, all on 127.0.0.1."""

    http: int = field(default_factory=free_port)
    grpc: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)


class TritonServer:
    """A running server process."""

    def __init__(self, repository: Path, folder: Path, *options: str, ports: Ports | None = None) -> None:
        """Start it.

        Args:
            repository: of models.
            folder: for its backend folder and its log, kept afterwards; servers may share one.
            options: more of tritonserver's, e.g. `--model-control-mode=explicit`.
            ports: to listen at, e.g. those of a server that was killed; by default free ones.
        """
        found = require_server()
        self.ports = ports or Ports()
        self.log_path = folder / f"tritonserver-{self.ports.http}.log"
        backends = _backend_folder(found, folder)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [found.server / "bin" / "tritonserver", *self._options(repository, backends), *options],
                env=_environment(found),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _options(self, repository: Path, backends: Path) -> list[str]:
        return [
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            "--strict-readiness=false",  # ready even if a model has no backend here
            "--exit-on-error=false",
            "--disable-auto-complete-config",  # the generated configs must stand alone
            "--exit-timeout-secs=5",
        ]

    @property
    def grpc_url(self) -> str:
        """For `tritonclient.grpc` and `triton://`: host:port."""
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def log(self) -> str:
        """All it has said so far."""
        return self.log_path.read_text(errors="replace")

    def is_ready(self) -> bool:
        """Whether `/v2/health/ready` answers 200."""
        try:
            self.request("v2/health/ready")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def wait_until_ready(self, timeout_s: float = READY_S) -> None:
        """Wait for `/v2/health/ready`; fails with the end of the log."""
        deadline_s = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"tritonserver is not ready (exit code {self.process.poll()}):\n{self.log[-3000:]}")
            time.sleep(0.1)

    def request(self, path: str, content: dict[str, Any] | None = None) -> Any:
        """GET an HTTP address of the server, or POST `content` to it; returns the JSON answered, None for nothing."""
        body = None if content is None else json.dumps(content).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.http}/{path}", body, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def metrics(self) -> str:
        """The text that Prometheus reads."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.metrics}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def load(self, model: str) -> None:
        """Load a model's newest version, under `--model-control-mode=explicit`."""
        self.request(f"v2/repository/models/{model}/load", {})

    def states(self, model: str) -> dict[str, str]:
        """State of each version of a model: READY, UNAVAILABLE, ..."""
        index = self.request("v2/repository/index", {})
        return {entry["version"]: entry["state"] for entry in index if entry["name"] == model and "version" in entry}

    def statistics(self, model: str) -> dict[str, Any]:
        """Counts of a model's newest version, among them `inference_count` and `execution_count`."""
        answer = self.request(f"v2/models/{model}/stats")
        return dict(max(answer["model_stats"], key=lambda version: int(version["version"])))

    def kill(self) -> None:
        """End it at once, as a crash does; the processes of its models notice and follow."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and end it after a while."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=15)
        self.kill()


@contextmanager
def running_server(repository: Path, folder: Path, *options: str, ports: Ports | None = None) -> Iterator[TritonServer]:
    """A server that is ready, until the block ends; see `TritonServer`."""
    server = TritonServer(repository, folder, *options, ports=ports)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def _backend_folder(found: Installation, folder: Path) -> Path:
    """A backend folder with the stub of the running Python beside the python backend, which the package keeps apart."""
    backends = folder / "backends"
    python = backends / "python"
    if not python.is_dir():
        source = found.server / "backends" / "python"
        shutil.copytree(source, python, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(found.stub, python)
        (python / found.stub.name).chmod(0o755)
    return backends


def _environment(found: Installation) -> dict[str, str]:
    """The server finds its libraries, and its stubs the Python of `.venv-triton` by the PATH."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {
        **inherited,
        "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(VENV),
        "LD_LIBRARY_PATH": f"{found.libraries}:{found.libpython.parent}",
    }
