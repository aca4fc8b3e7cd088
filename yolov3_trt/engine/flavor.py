"""The two TensorRT families, `tensorrt` and TensorRT-RTX, behind one module object. The only file that imports them.

They share one API from 8.6 on as far as this package uses it, see `engine/api.py`; where a version lacks a member, the caller
probes for it by name. Both export the same C symbols, so a process loads one of them, never both.
"""

import importlib.util
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.errors import require
from yolov3_trt.settings import FlavorName

_LOG = logging.getLogger(__name__)

MODULES = {FlavorName.TENSORRT: "tensorrt", FlavorName.TENSORRT_RTX: "tensorrt_rtx_bindings"}
_EXTRAS = {FlavorName.TENSORRT: "tensorrt", FlavorName.TENSORRT_RTX: "rtx"}


@dataclass(frozen=True)
class Flavor:
    """A loaded TensorRT."""

    name: FlavorName
    version: str
    trt: Any  # the module
    log: "BuildLog"

    def __str__(self) -> str:
        return f"{self.name.value} {self.version}"

    @property
    def builds_on_cpu(self) -> bool:
        """TensorRT-RTX compiles for GPUs that are not there."""
        return self.name is FlavorName.TENSORRT_RTX

    @property
    def strongly_typed(self) -> bool:
        """Whether the graph's own types can decide precision (TensorRT 10 and newer, RTX always)."""
        return self.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") is not None

    def member(self, enum: str, name: str) -> Any | None:
        """A member of an enum of TensorRT's, or None where this version lacks it; their integers differ by version."""
        return getattr(getattr(self.trt, enum, None), name, None)

    def members(self, enum: str) -> tuple[str, ...]:
        """The names of all members of an enum; empty where this version lacks it."""
        return tuple(getattr(getattr(self.trt, enum, None), "__members__", ()))


def open_flavor(name: FlavorName = FlavorName.AUTO) -> Flavor:
    """Load a TensorRT: with AUTO the full one where it is installed and has a GPU, else TensorRT-RTX.

    Raises:
        MissingDependency: it is not installed, or its libraries do not load.
    """
    return _load(_choose() if name is FlavorName.AUTO else name)


def installed_flavors() -> tuple[FlavorName, ...]:
    """Those that can be imported, without importing them."""
    return tuple(name for name, module in MODULES.items() if importlib.util.find_spec(module))


def _choose() -> FlavorName:
    installed = installed_flavors()
    if FlavorName.TENSORRT in installed and (installed_gpu() or FlavorName.TENSORRT_RTX not in installed):
        return FlavorName.TENSORRT
    if FlavorName.TENSORRT in installed:
        _LOG.info("tensorrt is installed but finds no GPU; using TensorRT-RTX, which compiles on the CPU")
    return FlavorName.TENSORRT_RTX


@cache
def _load(name: FlavorName) -> Flavor:
    trt = require(MODULES[name], extra=_EXTRAS[name])
    return Flavor(name, trt.__version__, trt, make_log(trt))


class BuildLog:
    """TensorRT's messages: to `logging` as they come, and kept for the error of the build under way.

    TensorRT has one logger per process, the first that it is given; so there is one of these per flavor. TensorRT calls it
    from threads of its own.
    """

    def __init__(self) -> None:
        self.trt_logger: Any = None  # the object TensorRT calls
        self._lock = threading.Lock()
        self._problems: list[str] = []
        self._recordings: list[list[str]] = []

    def add(self, level: int, message: str) -> None:
        """Take a message of a `logging` level."""
        _LOG.debug("%s", message)
        if level >= logging.WARNING:
            with self._lock:
                for problems in (self._problems, *self._recordings):
                    problems.append(message)

    def take_problems(self) -> tuple[str, ...]:
        """Warnings and errors since the last call, oldest first."""
        with self._lock:
            problems, self._problems = tuple(self._problems), []
        return problems

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Yield a list of the warnings and errors that come inside the block; `take_problems` gives them as well."""
        problems: list[str] = []
        with self._lock:
            self._recordings.append(problems)
        try:
            yield problems
        finally:
            with self._lock:
                self._recordings = [recording for recording in self._recordings if recording is not problems]


def make_log(trt: Any) -> BuildLog:
    """A log with a logger of this TensorRT's kind."""
    log = BuildLog()
    # TensorRT's notes are for its developers, so all of them are for --verbose; what made a build fail comes in BuildError.
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
        trt.ILogger.INFO: logging.DEBUG,
        trt.ILogger.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(levels.get(severity, logging.DEBUG), message)

    log.trt_logger = Logger()
    return log
