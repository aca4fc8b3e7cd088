"""A batch under way on the GPU: pictures are copied in and fitted, the network runs, detections are found and copied out."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby, pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import DeviceError, DeviceLostError, EngineError
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import INPUT_NAME
from yolov3_trt.preprocess import Image
from yolov3_trt.runtime.buffers import Buffers
from yolov3_trt.runtime.device import Device
from yolov3_trt.runtime.device_frame import DeviceFrame
from yolov3_trt.runtime.execution import Engine, Execution
from yolov3_trt.runtime.graphs import Graphs
from yolov3_trt.runtime.kernels.detect import decode, nms
from yolov3_trt.runtime.kernels.letterbox import Frames, letterbox, lines_read, staged_hw
from yolov3_trt.runtime.kernels.source import Launch
from yolov3_trt.runtime.work import Work

_LOG = logging.getLogger(__name__)
DEVICE_STAGES = ("copy_in", "preprocess", "network", "postprocess", "copy_out")

Placements = tuple[Placement, ...]  # where each picture of a batch lies in the input
OnDevice = tuple[DeviceFrame, ...]  # the pictures that lie on the GPU already: all of a batch, or none
_Launches = tuple[tuple[Launch, ...], tuple[Launch, ...]]  # before the network, and after it

_SHORT_S = 2e-3  # what a thread does not sleep for, where it may
_SHAPES = 4  # execution contexts, each with the memory of the largest batch
_KEPT = 64  # launches of so many mixes of sizes


class Slot:
    """Runs one batch at a time, on the device's thread.

    What it gives is a view of its memory, valid until the next batch.
    """

    def __init__(self, device: Device, engine: Engine, work: Work) -> None:
        """Allocate memory and an execution context.

        Raises:
            DeviceError: there is not enough memory; nothing is held then.
            EngineError: TensorRT has not enough, or refuses an address.
        """
        self._device, self._work = device, work
        self._engine = engine
        # By rows of the batch: cameras alternate between numbers of frames, and TensorRT does part of the work of another shape
        # at its next run, which the graphs of the old one would lack.
        self._executions: dict[int, Execution] = {}
        self._started_s, self.is_short = 0.0, False  # whether the last work was over too soon to sleep for
        self._is_clean = False  # whether the lists of candidates are empty
        self._launches: dict[
            tuple[Placements, OnDevice], _Launches
        ] = {}  # building them takes longer than a small network
        with ExitStack() as undo:
            self._buffers = Buffers(device, work)
            undo.callback(self._buffers.free)
            self._done = self._buffers.done
            undo.callback(self._close_executions)
            self._graphs = Graphs(device, self._buffers.stream, why_not=work.why_no_graphs)
            # An engine of TensorRT 8 may let only one slot set a shape: found out here.
            self._execution = self._add_execution(work.meta.batch.max)
            undo.pop_all()

    @property
    def why_no_graph(self) -> str | None:
        """Why the work does not run as a CUDA graph; None where it does."""
        return self._graphs.why_not

    @property
    def host_input(self) -> NDArray[Any]:
        """Where the host puts an input that it prepares, as many rows as a batch can have."""
        return self._buffers.host_input

    @property
    def found(self) -> Mapping[str, NDArray[Any]]:
        """What the GPU found, by name."""
        return self._buffers.found

    def outputs(self, rows: int) -> dict[str, NDArray[Any]]:
        """The network's outputs, where the GPU leaves the detections to the host."""
        return {name: array[:rows] for name, array in self._buffers.host_outputs.items()}

    def stage(self, images: Sequence[Image], placements: Placements) -> None:
        """Take over pictures for `start` with the same placements, where the GPU fits them.

        Raises:
            DeviceError: there is no memory for pictures so large.
        """
        nbytes = sum(_nbytes(placement) for placement in placements)
        if not self._buffers.has_room(nbytes):
            self._graphs.drop()  # they read where the pictures were, as do the launches
            self._launches.clear()
            # For a whole batch of such pictures: the next may have more of them, and would lose the graphs again.
            self._buffers.reserve(nbytes * self._work.meta.batch.max // len(images))
        self._buffers.stage(images, placements)

    def start(self, placements: Placements, on_device: OnDevice = (), *, spin: bool = False) -> None:
        """Begin with what was staged, or with what `host_input` holds.

        Args:
            placements: of the pictures.
            on_device: the pictures, where they lie on the GPU; they stay as they are until `wait` has returned.
            spin: let `wait` ask again and again, which takes a core: to be woken up takes a thread that sleeps a tenth of a
                millisecond.

        Raises:
            DeviceError, EngineError: it cannot be run.
        """
        self._prepare(placements)
        self._started_s = time.perf_counter()
        self._graphs.run((placements, on_device), lambda: self._enqueue(placements, on_device))
        self._done = self._buffers.done_soon if spin else self._buffers.done
        self._done.record(self._buffers.stream)

    def wait(self) -> None:
        """Wait until the work is done; see `start`.

        Raises:
            DeviceError: it failed.
        """
        self._done.synchronize()
        self.is_short = time.perf_counter() - self._started_s < _SHORT_S
        self._is_clean = True

    def abandon(self) -> None:
        """Wait for what was begun before something failed, so that nothing uses the memory any more."""
        with suppress(DeviceError):
            self._buffers.stream.synchronize()

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the network alone on an input that the host prepared.

        Raises:
            DeviceError, EngineError: it cannot be run.
        """
        np.copyto(self.host_input[: len(batch)], batch)
        rows = self._work.rows(len(batch))
        self._set_rows(rows)
        self._buffers.copy_input_in(rows)
        self._execution.enqueue(self._buffers.stream)
        return self.fetch_outputs(len(batch))

    def fetch_outputs(self, rows: int) -> dict[str, NDArray[Any]]:
        """The network's outputs of the last batch, copied now.

        Raises:
            DeviceError: it failed.
        """
        self._buffers.copy_outputs_out(rows)
        self._buffers.stream.synchronize()
        return self.outputs(rows)

    def times_ms(self, placements: Placements, on_device: OnDevice = ()) -> dict[str, float]:
        """Do the work of `start` once, without a graph, and give the GPU's time for each of DEVICE_STAGES.

        Raises:
            DeviceError, EngineError: it cannot be run.
        """
        self._prepare(placements)
        events = [self._device.event() for _ in range(len(DEVICE_STAGES) + 1)]
        marks = iter(events)
        try:
            self._enqueue(placements, on_device, lambda: next(marks).record(self._buffers.stream))
            self._buffers.done.record(self._buffers.stream)
            self._buffers.done.synchronize()
            self._is_clean = True
            times = [end.elapsed_ms(since=begin) for begin, end in pairwise(events)]
        finally:
            self._device.free(*events)
        return dict(zip(DEVICE_STAGES, times, strict=True))

    def close(self) -> None:
        """Free all of it."""
        self._graphs.drop()
        self._close_executions()
        self._buffers.free()

    def _prepare(self, placements: Placements) -> None:
        """Do what cannot be part of a graph."""
        self._set_rows(self._work.rows(len(placements)))
        if not self._work.letterbox:
            _ = self._buffers.host_input
        if not self._work.decode:
            _ = self._buffers.host_outputs
        elif not self._is_clean:
            self._device.fill(self._buffers.counts, 0, self._buffers.stream)
        self._is_clean = False  # until `wait` has seen the end of it

    def _set_rows(self, rows: int) -> None:
        """Let the execution context for so many rows be the current one."""
        if not self._work.meta.batch.dynamic:
            return
        if rows in self._executions:
            self._execution = self._executions[rows]
            return
        if len(self._executions) < _SHAPES:
            try:
                self._execution = self._add_execution(rows)
                return
            except DeviceLostError:
                raise
            except (DeviceError, EngineError) as exc:
                _LOG.info("batches of %d share an execution context with others: %s", rows, exc)
        self._graphs.drop()  # of the context that now gets another shape
        self._execution = self._executions[0] = self._executions.pop(next(iter(self._executions)))  # 0: of no shape yet
        self._execution.set_input_shape(INPUT_NAME, self._work.meta.input_shape(rows))
        self._executions[rows] = self._executions.pop(0)

    def _add_execution(self, rows: int) -> Execution:
        with ExitStack() as undo:
            execution = self._engine.execution()
            undo.callback(execution.close)
            execution.set_address(INPUT_NAME, self._buffers.input.address)
            for name, array in self._buffers.outputs.items():
                execution.set_address(name, array.address)
            if self._work.meta.batch.dynamic:
                execution.set_input_shape(INPUT_NAME, self._work.meta.input_shape(rows))
            undo.pop_all()
        self._executions[rows] = execution
        return execution

    def _close_executions(self) -> None:
        while self._executions:
            self._executions.popitem()[1].close()

    def _enqueue(self, placements: Placements, on_device: OnDevice, mark: Callable[[], None] = lambda: None) -> None:
        """Put the work into the stream, calling `mark` before, between and after DEVICE_STAGES."""
        work, buffers = self._work, self._buffers
        rows = work.rows(len(placements))
        fitting, finding = self._launches_for(
            placements, on_device
        )  # before the first mark: what Python does is not the GPU's time
        mark()
        if on_device:
            pass
        elif work.letterbox:
            buffers.copy_frames_in(sum(_nbytes(placement) for placement in placements))
        else:
            buffers.copy_input_in(rows)
        mark()
        for launch in fitting:
            self._device.launch(launch, buffers.stream)
        mark()
        self._execution.enqueue(buffers.stream)
        mark()
        for launch in finding:
            self._device.launch(launch, buffers.stream)
        mark()
        if work.decode:
            buffers.copy_found_out()
        else:
            buffers.copy_outputs_out(rows)
        mark()

    def _launches_for(self, placements: Placements, on_device: OnDevice) -> _Launches:
        if (placements, on_device) not in self._launches:
            if len(self._launches) == _KEPT:
                self._launches.clear()
            work = self._work
            self._launches[placements, on_device] = (
                tuple(self._letterboxes(placements, on_device)) if work.letterbox else (),
                self._detection(work.rows(len(placements))) if work.decode else (),
            )
        return self._launches[placements, on_device]

    def _letterboxes(self, placements: Placements, on_device: OnDevice) -> list[Launch]:
        """A launch for each run of pictures of one size; for each one that lies on the GPU, wherever that is."""
        work, target, row = self._work, self._buffers.input, 0
        launches = []

        def fit(placement: Placement, frames: Frames) -> None:
            first = target.rows(row, row + frames.count).address
            launches.append(letterbox(placement, work.preprocess, frames, first, target.dtype, work.meta.channels))

        for placement, frame in zip(placements, on_device, strict=False):
            fit(placement, Frames(frame.address, frame.row_stride))
            row += 1
        if on_device:
            return launches
        address = self._buffers.frames_address
        for placement, group in groupby(placements):
            count, nbytes = len(list(group)), _nbytes(placement)
            is_packed = lines_read(placement) is not None
            frames = Frames(address, 3 * placement.image_hw[1], count, nbytes, is_packed)
            fit(placement, frames)
            address, row = address + count * nbytes, row + count
        return launches

    def _detection(self, rows: int) -> tuple[Launch, Launch]:
        meta, postprocess, buffers = self._work.meta, self._work.postprocess, self._buffers
        heads = [buffers.outputs[head.name].address for head in meta.heads]
        return (
            decode(meta, postprocess, rows, heads, np.float32, buffers.candidates),
            nms(meta, postprocess, rows, buffers.candidates, buffers.found_addresses),
        )


def _nbytes(placement: Placement) -> int:
    """Bytes of the picture that go to the GPU."""
    return 3 * prod(staged_hw(placement))
