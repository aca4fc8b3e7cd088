"""A sink's work on a thread of its own."""

import queue
import threading

from yolov3_trt.camera.frames import Result
from yolov3_trt.camera.sinks.base import Sink

_MAX_WAITING = 8  # frames; each holds its picture


class BackgroundSink(Sink):
    """Writes on a thread of its own, so that the detector goes on meanwhile.

    No frame is left out: who writes waits when the sink is too far behind. Its error comes out of the next call.
    """

    def __init__(self, sink: Sink) -> None:
        """Take a sink, which it closes."""
        self.name, self.fallback = sink.name, sink.fallback
        self._sink = sink
        self._waiting: queue.Queue[Result | None] = queue.Queue(_MAX_WAITING)  # None is the end
        self._failure: Exception | None = None
        self._is_aborted = False
        self._thread = threading.Thread(target=self._work, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        """Hand over a frame.

        Raises:
            CameraError, OutputError: one before could not be written.
        """
        self._raise_failure()
        self._waiting.put(result)

    def close(self) -> None:
        """Write what is waiting, and finish; harmless when repeated.

        Raises:
            CameraError, OutputError: not all could be written, or the sink could not be finished.
        """
        self._end()
        self._raise_failure()
        self._sink.close()

    def abort(self) -> None:
        """Give up, with what is waiting; harmless when repeated."""
        self._is_aborted = True
        self._end()
        self._sink.abort()

    def _work(self) -> None:
        while (result := self._waiting.get()) is not None:
            if self._failure is not None or self._is_aborted:
                continue  # to the end, so that nobody waits for room
            try:
                self._sink.write(result)
            except Exception as exc:  # raised where somebody hears it
                self._failure = exc

    def _end(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            self._is_aborted = True
            raise failure
