"""A build that can be watched and stopped.

TensorRT builds on a thread of its own, while the calling thread waits, tells how far it is, and hears Ctrl-C. From version 10
on, and TensorRT-RTX, TensorRT says what it does, and stops when asked to; 8.x does neither.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from yolov3_trt.engine.api import IBuilderConfig, IHostMemory
from yolov3_trt.engine.flavor import Flavor

_LOG = logging.getLogger(__name__)
_TICK_S = 0.1  # between two looks at a build


@dataclass(frozen=True)
class BuildState:
    """How far a build is."""

    elapsed_s: float
    estimate_s: float | None = None  # how long it took when this engine was built before; None: it never was
    # Of what TensorRT reports; None where it reports nothing (8.x), or has not begun.
    phase: str | None = None  # what it does now, in its words
    fraction: float | None = None  # share of its steps done, 0..1; they do not take equally long


class BuildProgress(Protocol):
    """Is told how a build gets on, some times a second, on the thread that called `build_engine`."""

    def update(self, state: BuildState) -> None:
        """Take the newest state; an exception ends the build."""


@dataclass
class _Phase:
    parent: str | None
    num_steps: int
    num_done: int = 0


class Phases:
    """What TensorRT reports: phases of steps, in which other phases may run. Used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, _Phase] = {}  # by name, the last started last
        self._fraction: float | None = None
        self._cancelled = threading.Event()

    def start(self, name: str, parent: str | None, num_steps: int) -> None:
        """A phase begins."""
        with self._lock:
            if not self._open:
                self._fraction = 0.0
            self._open.pop(name, None)
            self._open[name] = _Phase(parent, num_steps)

    def step(self, name: str, step: int) -> bool:
        """A step, counted from 0, of a phase is done; whether to go on."""
        with self._lock:
            if name in self._open:
                self._open[name].num_done = step + 1
        return not self._cancelled.is_set()

    def finish(self, name: str) -> None:
        """A phase is over."""
        with self._lock:
            self._open.pop(name, None)
            if not self._open:
                self._fraction = 1.0

    def cancel(self) -> None:
        """Ask for an end at the next step."""
        self._cancelled.set()

    def state(self) -> tuple[str | None, float | None]:
        """Name of the phase that began last, and the share done of the outermost one."""
        with self._lock:
            root = next((name for name, phase in self._open.items() if phase.parent not in self._open), None)
            if root is not None:
                # An inner phase ends a little before the step that it is: the share must not fall back in between.
                self._fraction = max(self._fraction or 0.0, self._share(root))
            return next(reversed(self._open), None), self._fraction

    def _share(self, name: str) -> float:
        phase = self._open[name]
        inner = max((self._share(child) for child, other in self._open.items() if other.parent == name), default=0.0)
        return min((phase.num_done + inner) / max(phase.num_steps, 1), 1.0)


class _Worker(threading.Thread):
    """Runs a build. A daemon: where a build cannot be stopped, the program can still end."""

    def __init__(self, build: Callable[[], IHostMemory | None]) -> None:
        super().__init__(name="TensorRT build", daemon=True)
        self.ended = threading.Event()
        self._build = build
        self._plan: IHostMemory | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._plan = self._build()
        except BaseException as exc:  # for `result`
            self._error = exc
        finally:
            self.ended.set()

    def result(self) -> IHostMemory | None:
        """What the build gave or raised; to be called when it has ended."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._plan


def watch_build(
    flavor: Flavor,
    config: IBuilderConfig,
    build: Callable[[], IHostMemory | None],
    progress: BuildProgress | None = None,
    estimate_s: float | None = None,
) -> IHostMemory | None:
    """Run a build on another thread and wait for it here; Ctrl-C, or an exception of `progress`, stops it.

    Where TensorRT can be stopped, this comes back when it has, so that nothing goes on behind the caller's back. TensorRT 8.x
    cannot be: it is left to itself, and what it builds is dropped.

    Args:
        flavor: what builds.
        config: of the build; gets a monitor where there is such a thing.
        build: the call that builds.
        progress: is told how it gets on.
        estimate_s: how long it will take, if that is known; passed on to `progress`.

    Returns:
        The plan; None where TensorRT failed.
    """
    phases = Phases()
    monitor = _make_monitor(flavor.trt, phases)
    if monitor is not None and hasattr(config, "progress_monitor"):
        config.progress_monitor = monitor
    worker = _Worker(build)
    started_s = time.monotonic()
    worker.start()
    try:
        while not worker.ended.wait(_TICK_S):
            if progress is not None:
                progress.update(BuildState(time.monotonic() - started_s, estimate_s, *phases.state()))
    finally:
        if not worker.ended.is_set():
            phases.cancel()
            if monitor is None:
                _LOG.warning("%s cannot be stopped: it builds on, for nothing, until this program ends", flavor)
            else:
                worker.join()
    if progress is not None:
        progress.update(BuildState(time.monotonic() - started_s, estimate_s, *phases.state()))
    return worker.result()


def _make_monitor(trt: Any, phases: Phases) -> Any | None:
    """An IProgressMonitor that reports to `phases`; None where TensorRT has none.

    TensorRT calls it from threads of its own and swallows what it raises: so it only takes notes, and the callers' own code
    runs on their thread.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
