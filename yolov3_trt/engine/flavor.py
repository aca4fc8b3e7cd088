"""The two TensorRT families, `tensorrt` and TensorRT-RTX, behind one module object. The only file that imports them.

They share one API from 8.5 on as far as this package uses it; where a version lacks a member, the caller probes with
hasattr. Both export the same C symbols, so a process loads one of them, never both.
"""

import importlib.util
import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.engine.options import FlavorName
from yolov3_trt.errors import BuildError, require

_LOG = logging.getLogger(__name__)


_MODULES = {FlavorName.TENSORRT: "tensorrt", FlavorName.TENSORRT_RTX: "tensorrt_rtx_bindings"}
_EXTRAS = {FlavorName.TENSORRT: "tensorrt", FlavorName.TENSORRT_RTX: "rtx"}


@dataclass(frozen=True)
class Flavor:
    """A loaded TensorRT."""

    name: FlavorName
    version: str
    trt: Any  # the module
    log: "BuildLog"

    @property
    def builds_on_cpu(self) -> bool:
        """TensorRT-RTX compiles for GPUs that are not there."""
        return self.name is FlavorName.TENSORRT_RTX

    @property
    def strongly_typed(self) -> bool:
        """Whether the graph's own types can decide precision (TensorRT 10 and newer, RTX always)."""
        return hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def open_flavor(name: FlavorName = FlavorName.AUTO) -> Flavor:
    """Load a TensorRT: with AUTO the full one where it is installed and has a GPU, else TensorRT-RTX.

    Raises:
        MissingDependency: it is not installed.
        BuildError: it is, but its libraries do not load.
    """
    return _load(_choose() if name is FlavorName.AUTO else name)


def installed_flavors() -> tuple[FlavorName, ...]:
    """Those that can be imported, without importing them."""
    return tuple(name for name, module in _MODULES.items() if importlib.util.find_spec(module))


def _choose() -> FlavorName:
    installed = installed_flavors()
    if FlavorName.TENSORRT in installed and (installed_gpu() or FlavorName.TENSORRT_RTX not in installed):
        return FlavorName.TENSORRT
    if FlavorName.TENSORRT in installed:
        _LOG.info("tensorrt is installed but finds no GPU; using TensorRT-RTX, which compiles on the CPU")
    return FlavorName.TENSORRT_RTX


@cache
def _load(name: FlavorName) -> Flavor:
    try:
        trt = require(_MODULES[name], extra=_EXTRAS[name])
    except (OSError, RuntimeError, FileNotFoundError) as exc:  # a library of theirs is missing or of another CUDA
        raise BuildError(f"{_MODULES[name]} is installed but does not load: {exc}") from exc
    return Flavor(name, trt.__version__, trt, _make_log(trt))


class BuildLog:
    """TensorRT's messages: to `logging` as they come, and kept for the error of the build under way.

    TensorRT has one logger per process, the first that it is given; so there is one of these per flavour.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.trt_logger: Any = None  # the object TensorRT calls

    def add(self, level: int, message: str) -> None:
        """Take a message of a `logging` level."""
        _LOG.debug("%s", message)
        if level >= logging.WARNING:
            self.problems.append(message)

    def take_problems(self) -> tuple[str, ...]:
        """Warnings and errors since the last call, oldest first."""
        problems, self.problems = tuple(self.problems), []
        return problems


def _make_log(trt: Any) -> BuildLog:
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
