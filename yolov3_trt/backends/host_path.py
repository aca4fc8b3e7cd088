"""The host's own way from pictures to detections, around what only runs the network."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.backends import STAGES, Backend, OpenBackend, OverlappingBackend, TensorBackend, TimedDetections
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import ModelMeta, Postprocess, Preprocess
from yolov3_trt.postprocess import detections_from_outputs
from yolov3_trt.preprocess import Image, InputBuffer, prepare_batch


@dataclass
class _Call:
    """One that was submitted; all but `result` is for a network that overlaps."""

    placements: tuple[Placement, ...]
    prepare_s: float
    started_s: float
    result: TimedDetections | None = None


class HostPath(OpenBackend):
    """A `Backend` made of a `TensorBackend`: it fits pictures into the input and finds detections in the outputs.

    A network that overlaps runs while the next pictures are fitted; with others all is done in `submit`, one call at a time.
    Several may share a network.
    """

    def __init__(self, network: TensorBackend) -> None:
        """Take over what runs the network; pictures are fitted as its artifact says until `configure` says otherwise."""
        self.network = network
        self.name, self.meta = network.name, network.meta
        self._overlapping = network if isinstance(network, OverlappingBackend) else None
        self.num_slots = 1 if self._overlapping is None else self._overlapping.num_slots
        # Reused from call to call, each as large as its largest one; what a network works on is not written to.
        self._buffers: deque[InputBuffer | None] = deque([None] * self.num_slots)
        self._calls: deque[_Call] = deque()
        self.configure(self.meta.preprocess, self.meta.postprocess)

    @property
    def fallbacks(self) -> tuple[str, ...]:  # type: ignore[override]  # some come to light while running
        """See `Backend.fallbacks`: the network's."""
        return self.network.fallbacks

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        """See `Backend.configure`."""
        self._fitting, self._postprocess = replace(self.meta, preprocess=preprocess), postprocess

    def submit(self, images: Sequence[Image]) -> None:
        """See `Backend.submit`."""
        self.check_open()
        if len(self._calls) == self.num_slots:
            are = "a result is" if self.num_slots == 1 else f"{self.num_slots} results are"
            raise BackendError(f"{self.meta.name}: {are} waiting; take it before the next pictures")
        self.check_count(images)
        began_s = time.perf_counter()
        batch, placements = self.prepare(images)
        call = _Call(placements, time.perf_counter() - began_s, time.perf_counter())
        if self._overlapping is None:
            call.result = self._finished(self.network.infer(batch), call)
        else:
            self._overlapping.start(batch)
            self._buffers.rotate(-1)
        self._calls.append(call)

    def result(self) -> TimedDetections:
        """See `Backend.result`."""
        self.check_open()
        if not self._calls:
            raise BackendError(f"{self.meta.name}: there is no result to wait for; submit pictures first")
        call = self._calls.popleft()
        if call.result is not None:
            return call.result
        assert self._overlapping is not None
        return self._finished(self._overlapping.finish(), call)

    def prepare(self, images: Sequence[Image]) -> tuple[NDArray[Any], tuple[Placement, ...]]:
        """Pictures -> the input of `network.infer` (valid until the next call) and where each lies in it.

        The batch has at least as many rows as the artifact takes; surplus ones hold whatever was there.
        """
        rows = max(len(images), self.meta.batch.min)
        buffer = self._buffers[0]
        if buffer is None or len(buffer.batch) < rows:
            buffer = self._buffers[0] = InputBuffer(self.meta, rows)
        batch, placements = prepare_batch(images, self._fitting, buffer)
        return batch[:rows], placements

    def close(self) -> None:
        """See `Backend.close`: closes the network too."""
        super().close()
        self._calls.clear()
        self.network.close()
        self._buffers.clear()

    def _finished(self, outputs: Mapping[str, NDArray[Any]], call: _Call) -> TimedDetections:
        """What is in the outputs of a call that has just ended."""
        inferred_s = time.perf_counter()
        found = detections_from_outputs(outputs, self.meta, self._postprocess, call.placements)
        seconds = (call.prepare_s, inferred_s - call.started_s, time.perf_counter() - inferred_s)
        return TimedDetections(found, dict(zip(STAGES, seconds, strict=True)))


def as_backend(opened: Backend | TensorBackend) -> Backend:
    """What takes pictures as it is; anything else on the host's path."""
    return opened if isinstance(opened, Backend) else HostPath(opened)


def network_of(backend: Backend) -> TensorBackend | None:
    """What runs the network alone, to look at its outputs; None where only detections come out, as of a server of pictures."""
    network = backend.network if isinstance(backend, HostPath) else backend
    return network if isinstance(network, TensorBackend) else None


def fit_batch(images: Sequence[Image], meta: ModelMeta) -> tuple[NDArray[Any], tuple[Placement, ...]]:
    """Pictures -> a batch of at least as many rows as the artifact takes, and where each picture lies in it."""
    return prepare_batch(images, meta, InputBuffer(meta, max(len(images), meta.batch.min)))
