"""Several sinks as one."""

import logging
from collections.abc import Callable, Sequence

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink
from yolov3_trt.errors import CameraError, OutputError

_LOG = logging.getLogger(__name__)


class SinkGroup(Sink):
    """Gives every frame to each of its sinks. One that fails stops alone; the others go on.

    Attributes:
        failures: of the sinks that failed, in order: `{"sink": its name, "error": why}`.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        """Take sinks, which it closes."""
        self.name = ", ".join(sink.name for sink in sinks)
        self.failures: list[dict[str, str]] = []
        self._sinks = tuple(sinks)
        self._working = list(sinks)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the sinks can be watched, URLs."""
        return tuple(sink.address for sink in self._sinks if sink.address is not None)

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Why there are other sinks than those asked for."""
        return tuple(sink.fallback for sink in self._sinks if sink.fallback is not None)

    @property
    def stop_requested(self) -> bool:  # type: ignore[override]  # read only here
        """Whether any sink wants the loop to end."""
        return any(sink.stop_requested for sink in self._working)

    def write(self, result: Result) -> None:
        """Give a frame to every sink that works.

        Raises:
            CameraError, OutputError: the last sink failed, so that there would be nobody to go on for.
        """
        for sink in tuple(self._working):
            try:
                sink.write(result)
            except (CameraError, OutputError) as exc:
                self._stop(sink, exc)
                if not self._working:
                    raise

    def mark_stale(self, source: str, for_s: float) -> None:
        """Tell every sink that works."""
        for sink in tuple(self._working):
            try:
                sink.mark_stale(source, for_s)
            except (CameraError, OutputError) as exc:
                self._stop(sink, exc)

    def close(self) -> None:
        """Finish every sink; what cannot be finished is among the failures. Harmless when repeated."""
        self._end_all(lambda sink: sink.close())

    def abort(self) -> None:
        """Give up every sink; harmless when repeated."""
        self._end_all(lambda sink: sink.abort())

    def _end_all(self, end: Callable[[Sink], None]) -> None:
        while self._working:
            sink = self._working[0]
            try:
                end(sink)
            except (CameraError, OutputError) as exc:
                self._stop(sink, exc)
            else:
                self._working.remove(sink)

    def _stop(self, sink: Sink, error: CameraError | OutputError) -> None:
        self._working.remove(sink)
        self.failures.append({"sink": sink.name, "error": str(error)})
        _LOG.error("%s; this sink has stopped", error)
        try:
            sink.abort()
        except (CameraError, OutputError) as exc:
            _LOG.error("%s; could not be cleaned up", exc)
