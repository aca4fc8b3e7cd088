"""CUDA graphs of a stream's work, by what the work is, captured when the same work comes again."""

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable

from yolov3_trt.errors import DeviceError, DeviceLostError, EngineError
from yolov3_trt.runtime.device import Device, Graph, Stream

_LOG = logging.getLogger(__name__)

# Cameras have one or a few sizes of pictures, a folder of photographs has any number.
_KEPT = 8
# What makes a capture fail is often over soon: another thread that waits for the whole device (NVIDIA/TensorRT#2888).
_TRIES = 3


class Graphs:
    """The graphs of one stream.

    Attributes:
        why_not: why there are none; None where there may be.
    """

    def __init__(self, device: Device, stream: Stream, *, why_not: str | None = None) -> None:
        """Begin with none.

        Args:
            device: of the stream.
            stream: what is captured, and launched into.
            why_not: why none shall be made; None where they shall.
        """
        self._device, self._stream = device, stream
        self._graphs: OrderedDict[Hashable, Graph | None] = OrderedDict()  # None: the work came once
        self._failures = 0  # in a row
        self.why_not = why_not

    def run(self, key: Hashable, body: Callable[[], None]) -> None:
        """Put work into the stream: as it is when it comes for the first time, and as a graph from then on.

        What happens only at the first use of a kernel or of a shape could not be captured. Where capturing fails three times
        in a row, it is not tried again, and `why_not` and the log say so.

        Args:
            key: equal for equal work.
            body: puts the work into the stream.

        Raises:
            DeviceError, EngineError: it cannot be run.
        """
        if self.why_not is None and key in self._graphs and self._graphs[key] is None:
            self._capture(key, body)
        graph = self._graphs.get(key) if self.why_not is None else None
        if graph is not None:
            self._graphs.move_to_end(key)
            graph.launch(self._stream)
            return
        body()
        if self.why_not is None:
            self._keep(key, None)

    def drop(self) -> None:
        """Forget all of them, as an address or a shape that they were captured with is no longer valid."""
        while self._graphs:
            self._free(self._graphs.popitem()[1])

    def _capture(self, key: Hashable, body: Callable[[], None]) -> None:
        was_collecting = gc.isenabled()
        gc.disable()  # what it frees of another device meanwhile would break the capture
        try:
            self._keep(key, self._device.capture(self._stream, body))
        except DeviceLostError:
            raise
        except (DeviceError, EngineError) as exc:
            self._failures += 1
            if self._failures < _TRIES:
                _LOG.info("capturing a CUDA graph failed, and is tried again: %s", exc)
                return
            self.drop()
            self.why_not = f"capturing failed: {exc}"
            _LOG.warning("no CUDA graphs, so each frame takes more of the CPU's time: %s", self.why_not)
        else:
            self._failures = 0
            _LOG.info("captured a CUDA graph for %s", key)
        finally:
            if was_collecting:
                gc.enable()

    def _keep(self, key: Hashable, graph: Graph | None) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > _KEPT:
            self._free(self._graphs.popitem(last=False)[1])

    def _free(self, graph: Graph | None) -> None:
        if graph is not None:
            self._device.free(graph)
