"""The host's own way from pictures to detections, around what only runs the network."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.backends import STAGES, Backend, OpenBackend, TensorBackend, TimedDetections
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import ModelMeta, Postprocess, Preprocess
from yolov3_trt.postprocess import detections_from_outputs
from yolov3_trt.preprocess import Image, InputBuffer, prepare_batch


class HostPath(OpenBackend):
    """A `Backend` made of a `TensorBackend`: it fits pictures into the input and finds detections in the outputs.

    It works in `submit`, one call at a time. Several may share a network.
    """

    num_slots = 1

    def __init__(self, network: TensorBackend) -> None:
        """Take over what runs the network; pictures are fitted as its artifact says until `configure` says otherwise."""
        self.network = network
        self.name, self.meta = network.name, network.meta
        self._buffer: InputBuffer | None = None  # reused from call to call, as large as the largest one
        self._result: TimedDetections | None = None
        self.configure(self.meta.preprocess, self.meta.postprocess)

    @property
    def fallbacks(self) -> tuple[str, ...]:  # type: ignore[override]  # some come to light while running
        """See `Backend.fallbacks`: the network's."""
        return self.network.fallbacks

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        """See `Backend.configure`."""
        self._fitting, self._postprocess = replace(self.meta, preprocess=preprocess), postprocess

    def submit(self, images: Sequence[Image]) -> None:
        """See `Backend.submit`; the detections are found when it returns."""
        self.check_open()
        if self._result is not None:
            raise BackendError(f"{self.meta.name}: a result is waiting; take it before the next pictures")
        self.check_count(images)
        started_s = time.perf_counter()
        batch, placements = self.prepare(images)
        prepared_s = time.perf_counter()
        outputs = self.network.infer(batch)
        inferred_s = time.perf_counter()
        found = detections_from_outputs(outputs, self.meta, self._postprocess, placements)
        seconds = (prepared_s - started_s, inferred_s - prepared_s, time.perf_counter() - inferred_s)
        self._result = TimedDetections(found, dict(zip(STAGES, seconds, strict=True)))

    def result(self) -> TimedDetections:
        """See `Backend.result`."""
        self.check_open()
        if self._result is None:
            raise BackendError(f"{self.meta.name}: there is no result to wait for; submit pictures first")
        result, self._result = self._result, None
        return result

    def prepare(self, images: Sequence[Image]) -> tuple[NDArray[Any], tuple[Placement, ...]]:
        """Pictures -> the input of `network.infer` (valid until the next call) and where each lies in it.

        The batch has at least as many rows as the artifact takes; surplus ones hold whatever was there.
        """
        rows = max(len(images), self.meta.batch.min)
        if self._buffer is None or len(self._buffer.batch) < rows:
            self._buffer = InputBuffer(self.meta, rows)
        batch, placements = prepare_batch(images, self._fitting, self._buffer)
        return batch[:rows], placements

    def close(self) -> None:
        """See `Backend.close`: closes the network too."""
        super().close()
        self._result = self._buffer = None
        self.network.close()


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
