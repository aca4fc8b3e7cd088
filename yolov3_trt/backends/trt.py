"""TensorRT as a backend: pictures go to the GPU as they are, and detections come back.

The GPU fits the pictures into the input, runs the engine and finds the detections, all in one CUDA graph. What it cannot do for
an artifact or on a machine, the host does, and `fallbacks` says why.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends import STAGES, BackendName, OpenBackend, TimedDetections, Wait
from yolov3_trt.detections import Detections
from yolov3_trt.engine.plan import Plan, load_plan
from yolov3_trt.errors import BackendError, DeviceError, DeviceLostError, EngineError, ImageError
from yolov3_trt.geometry import HW, Placement
from yolov3_trt.meta import INPUT_NAME, ModelMeta, OutputStage, Postprocess, Precision, Preprocess
from yolov3_trt.postprocess import check_numbers, detections_from_outputs
from yolov3_trt.preprocess import Image, InputBuffer, check_image, prepare_batch
from yolov3_trt.runtime.cuda import CudaDevice
from yolov3_trt.runtime.device import Device
from yolov3_trt.runtime.device_frame import DeviceFrame, device_frame, is_on_device
from yolov3_trt.runtime.execution import Engine, IOTensor, TensorRTEngine, check_tensors
from yolov3_trt.runtime.kernels.detect import CAPACITY, check_detection
from yolov3_trt.runtime.slot import Slot
from yolov3_trt.runtime.work import Work

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Running:
    """Pictures on their way through a slot."""

    slot: Slot
    placements: tuple[Placement, ...]
    submitted_s: float  # time.perf_counter() when they came, and when the GPU had its work
    started_s: float


def open_tensorrt(
    path: Path, *, trust: bool = False, use_graphs: bool = True, wait: Wait = Wait.AUTO
) -> "TensorRTBackend":
    """Open an engine on the first GPU.

    Args:
        path: of the `.engine`; its sidecar lies beside it.
        trust: take it whoever owns it or can write to it.
        use_graphs: run the work of a frame as one CUDA graph.
        wait: how the thread waits for the GPU.

    Raises:
        MetaError: the sidecar is missing, damaged, or another plan's.
        EngineError: this machine cannot run it; the text says what to do.
        DeviceError: the GPU fails, or lacks memory.
        MissingDependency: pycuda, or the TensorRT that built it, is not installed.
    """
    return TensorRTBackend(load_plan(path, trust=trust), use_graphs=use_graphs, wait=wait)


class TensorRTBackend(OpenBackend):
    """Runs an engine: a `Backend`, and a `TensorBackend` for those who look at the network alone."""

    name = BackendName.TENSORRT
    num_slots = 2  # the pictures of one batch are copied while the network runs on another

    def __init__(
        self,
        plan: Plan,
        *,
        use_graphs: bool = True,
        wait: Wait = Wait.AUTO,
        open_device: Callable[[], Device] = CudaDevice,
        open_engine: Callable[[Plan, Device], Engine] = TensorRTEngine,
    ) -> None:
        """Load a plan; see `open_tensorrt`.

        Args:
            plan: this machine can run it.
            use_graphs: run the work of a frame as one CUDA graph.
            wait: how the thread waits for the GPU.
            open_device: gives the GPU.
            open_engine: gives what runs the plan there.
        """
        self.meta: ModelMeta = plan.meta.model
        if self.meta.output_stage is OutputStage.ROWS:
            raise BackendError(
                f"{plan.path}: it gives rows, for programs of your own that run the plan; to detect with it here, build it "
                "with output_stage heads, which the GPU decodes faster, or detections"
            )
        # A version that did not note it left it to TensorRT, which rounds.
        self.computes_in = "tf32" if self.meta.precision is Precision.FP32 and plan.meta.tf32 is not False else None
        self._path = plan.path
        self._use_graphs, self._wait = use_graphs, wait
        self._reasons: dict[str, str] = {}  # of what is not done as it could be, by what
        self._slots: list[Slot] = []
        self._running: deque[_Running | TimedDetections] = deque()
        self._num_empty = 0  # pictures without a candidate
        self._buffers: dict[int, InputBuffer] = {}  # of slots by identity, where the host fits the pictures
        with ExitStack() as undo:
            self._device = undo.enter_context(open_device())
            self._engine = open_engine(plan, self._device)
            undo.callback(self._engine.close)
            work = Work(self.meta, self.meta.preprocess, self.meta.postprocess, letterbox=False, decode=False)
            check_tensors(self._engine.tensors, _expected_tensors(work), plan.path)
            undo.pop_all()
        if plan.verdict.reasons:
            _LOG.warning("%s: runs here, but %s; %s", plan.path, "; ".join(plan.verdict.reasons), plan.verdict.fix)

    @property
    def fallbacks(self) -> tuple[str, ...]:  # type: ignore[override]  # here it comes to light while running
        """What is not done as it could be, each with the reason."""
        graphs = {f"no CUDA graph: {slot.why_no_graph}" for slot in self._slots if slot.why_no_graph}
        return (*(f"{what}: {reason}" for what, reason in self._reasons.items()), *sorted(graphs))

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        """See `Backend.configure`; memory for one batch is allocated here."""
        self._check_idle()
        self._reasons.clear()
        letterbox = self.meta.frame_hw is None
        decode = self.meta.output_stage is OutputStage.HEADS
        try:
            if letterbox or decode:
                self._device.load_kernels()
        except DeviceLostError:
            raise
        except DeviceError as exc:
            self._fall_back("pictures are fitted and detections found on the host", str(exc))
            letterbox = decode = False
        try:
            if decode:
                check_detection(self.meta, postprocess)
        except EngineError as exc:
            self._fall_back("detections are found on the host", str(exc))
            decode = False
        why_no_graphs = self._engine.why_not_captured if self._use_graphs else "switched off"
        self._host_meta = replace(self.meta, preprocess=preprocess)  # for what the host prepares
        self._found_meta = replace(self.meta, output_stage=OutputStage.DETECTIONS)  # of what the GPU found
        self._work = Work(self.meta, preprocess, postprocess, letterbox, decode, why_no_graphs)
        while self._slots:
            self._slots.pop().close()
        self._buffers.clear()
        self._slots.append(Slot(self._device, self._engine, self._work))

    def submit(self, images: Sequence[Image]) -> None:
        """See `Backend.submit`."""
        self.check_open()
        if len(self._running) >= self.num_slots:
            raise BackendError(f"{self.meta.name}: {self.num_slots} batches are under way; take a result first")
        self._check_configured()
        on_device = self._on_device(images)
        placements = self._placements([frame.image_hw for frame in on_device] or _sizes(images))
        slot = self._free_slot()
        submitted_s = time.perf_counter()
        try:
            if not on_device:
                self._stage(slot, images, placements)
            started_s = time.perf_counter()
            slot.start(placements, on_device, spin=self._spins(slot))
        except (DeviceError, EngineError):
            slot.abandon()
            raise
        self._running.append(_Running(slot, placements, submitted_s, started_s))

    def result(self) -> TimedDetections:
        """See `Backend.result`."""
        self.check_open()
        if not self._running:
            raise BackendError(f"{self.meta.name}: there is no result to wait for; submit pictures first")
        first = self._running.popleft()
        return first if isinstance(first, TimedDetections) else self._finish(first)

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `TensorBackend.infer`: the network alone, as comparing needs it; without a CUDA graph."""
        self.check_batch(images)
        self._check_idle()
        self._check_configured()
        return self._slots[0].run(images)

    def device_stages_ms(self, images: Sequence[Image]) -> dict[str, float]:
        """The GPU's own time for each of `engine.slot.DEVICE_STAGES` of a call with these pictures, without a CUDA graph."""
        self._check_idle()
        self._check_configured()
        on_device = self._on_device(images)
        placements = self._placements([frame.image_hw for frame in on_device] or _sizes(images))
        if not on_device:
            self._stage(self._slots[0], images, placements)
        return self._slots[0].times_ms(placements, on_device)

    def close(self) -> None:
        """Free all memory of the GPU; results that were not asked for are lost."""
        # Where the GPU has failed for good, so does making its context current; closing the device clears up all the same.
        with suppress(DeviceError), self._device.current():
            for slot in self._slots:  # first: their graphs hold kernels of the engine
                with suppress(DeviceError):
                    slot.close()
            self._engine.close()
        self._device.close()
        self._running.clear()
        self._slots = []
        super().close()

    def _check_configured(self) -> None:
        """Make sure that there is a slot; by default for what the artifact itself says."""
        if not self._slots:
            self.configure(self.meta.preprocess, self.meta.postprocess)

    def _check_idle(self) -> None:
        self.check_open()
        if self._running:
            raise BackendError(f"{self.meta.name}: pictures are under way; take their results first")

    def _spins(self, slot: Slot) -> bool:
        """Whether the thread asks again and again for a batch that begins."""
        if self._wait is not Wait.AUTO:
            return self._wait is Wait.SPIN
        # Where another batch is under way, it is throughput that counts, and the thread sleeps.
        return slot.is_short and not self._running

    def _stage(self, slot: Slot, images: Sequence[Image], placements: tuple[Placement, ...]) -> None:
        if self._work.letterbox:
            slot.stage(images, placements)
            return
        memory = slot.host_input
        if id(slot) not in self._buffers:
            self._buffers[id(slot)] = InputBuffer(self.meta, len(memory), memory)
        prepare_batch(images, self._host_meta, self._buffers[id(slot)])

    def _on_device(self, images: Sequence[Image]) -> tuple[DeviceFrame, ...]:
        """The pictures, where they lie on the GPU."""
        self.check_count(images)
        there = [image for image in images if is_on_device(image)]
        if not there:
            return ()
        if len(there) < len(images):
            raise ImageError("some images of a batch are on the GPU and some are not; give those of one kind together")
        if not self._work.letterbox:
            raise ImageError("the images are on the GPU, but the host fits them here; give them as NumPy arrays")
        return tuple(map(device_frame, there))

    def _placements(self, sizes: Sequence[HW]) -> tuple[Placement, ...]:
        placements = []
        for image_hw in sizes:
            if self.meta.frame_hw not in (None, image_hw):
                raise ImageError(
                    f"an image is {image_hw[0]}x{image_hw[1]}; expected {self.meta.frame_hw}: this engine takes whole frames "
                    "and resizes them itself; feed frames of that size, or build it without frame_size"
                )
            placements.append(Placement.of(image_hw, self.meta.input_hw, self._work.preprocess.resize))
        return tuple(placements)

    def _free_slot(self) -> Slot:
        """A slot without pictures, made now if need be; without memory for one, the oldest pictures are finished first."""
        busy = {id(running.slot) for running in self._running if isinstance(running, _Running)}
        for slot in self._slots:
            if id(slot) not in busy:
                return slot
        if "one batch at a time" not in self._reasons:
            try:
                self._slots.append(Slot(self._device, self._engine, self._work))
                return self._slots[-1]
            except DeviceLostError:
                raise
            except (DeviceError, EngineError) as exc:
                self._fall_back("one batch at a time", str(exc))
        first = self._running.popleft()
        assert isinstance(first, _Running)
        self._running.appendleft(self._finish(first))
        return first.slot

    def _finish(self, running: _Running) -> TimedDetections:
        running.slot.wait()
        done_s = time.perf_counter()
        detections = self._detections(running.slot, running.placements)
        seconds = (
            running.started_s - running.submitted_s,
            done_s - running.started_s,
            time.perf_counter() - done_s,
        )
        return TimedDetections(detections, dict(zip(STAGES, seconds, strict=True)))

    def _detections(self, slot: Slot, placements: tuple[Placement, ...]) -> list[Detections]:
        rows, postprocess = len(placements), self._work.postprocess
        if not self._work.decode:
            return detections_from_outputs(slot.outputs(rows), self.meta, postprocess, placements)
        found = slot.found
        if not found["num_candidates"][:rows].all():
            self._check_numbers(slot, rows, found["num_candidates"])
        if (found["num_detections"][:rows] < 0).any():
            # Which of too many candidates fit into the list depends on chance, so the host decides over all of them.
            self._fall_back(
                "detections of some images are found on the host",
                f"more than {CAPACITY} candidates exceed conf={postprocess.conf}",
            )
            return detections_from_outputs(slot.fetch_outputs(rows), self.meta, postprocess, placements)
        return detections_from_outputs(found, self._found_meta, postprocess, placements)

    def _check_numbers(self, slot: Slot, rows: int, num_candidates: NDArray[Any]) -> None:
        """See `check_numbers`: of the empty pictures number 1, 2, 4, 8, ..., since the heads must be fetched for it."""
        for row in np.flatnonzero(num_candidates[:rows] == 0):
            self._num_empty += 1
            if self._num_empty & (self._num_empty - 1) == 0:
                check_numbers(slot.fetch_outputs(rows), int(row), self.meta)

    def _fall_back(self, what: str, reason: str) -> None:
        if what not in self._reasons:
            _LOG.warning("%s: %s: %s", self._path, what, reason)
            self._reasons[what] = reason


def _sizes(images: Sequence[Image]) -> list[HW]:
    for image in images:
        check_image(image)
    return [(image.shape[0], image.shape[1]) for image in images]


def _expected_tensors(work: Work) -> dict[str, IOTensor]:
    """The inputs and outputs that an engine of this meta has."""
    meta = work.meta
    rows = -1 if meta.batch.dynamic else meta.batch.max
    shapes = {name: ((rows, *shape[1:]), dtype.name) for name, (shape, dtype) in work.output_shapes(1).items()}
    expected = {name: IOTensor(name, False, dtype, shape) for name, (shape, dtype) in shapes.items()}
    return {INPUT_NAME: IOTensor(INPUT_NAME, True, meta.input_dtype, (rows, *meta.input_shape(1)[1:])), **expected}
