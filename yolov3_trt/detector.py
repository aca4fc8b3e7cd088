"""The object users hold: pictures in, detections out."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends import STAGES, Backend, BackendName, PictureBackend, Timed, open_backend
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import HW, Placement, Resize
from yolov3_trt.meta import ModelMeta, OutputStage, Postprocess
from yolov3_trt.models import is_model, load_model
from yolov3_trt.postprocess import Outputs, detections_from_outputs
from yolov3_trt.preprocess import Image, InputBuffer, prepare_batch
from yolov3_trt.spec import Nms


class Detector:
    """Preprocess, backend and postprocess as one callable.

    It owns the backend: use it as a context manager, or `close` it. One thread at a time.
    """

    def __init__(self, backend: Backend, postprocess: Postprocess | None = None, resize: Resize | None = None) -> None:
        """Take over a backend.

        Args:
            backend: what runs the model.
            postprocess: thresholds; by default the artifact's own.
            resize: by default the artifact's own.

        Raises:
            BackendError: a graph that detects or resizes by itself cannot do what `postprocess` or `resize` asks for.
        """
        self.backend = backend
        meta = backend.meta
        self.postprocess = postprocess or meta.postprocess
        self.meta: ModelMeta = replace(meta, preprocess=meta.preprocess.override(resize=resize))
        if meta.frame_hw is not None and self.meta.preprocess != meta.preprocess:
            raise BackendError(
                f"{meta.name}: resize={self.meta.preprocess.resize.value} was asked for, but this graph resizes whole frames "
                f"itself, with resize={meta.preprocess.resize.value} built in; export it again with that"
            )
        if meta.output_stage is OutputStage.DETECTIONS:
            _check_within(self.postprocess, meta)
        self._buffer: InputBuffer | None = None  # reused from call to call
        self._pictures = backend if isinstance(backend, PictureBackend) else None
        self._results: deque[Timed] = deque()  # of `submit`, where the backend takes no pictures
        if self._pictures is not None:
            self._pictures.configure(self.meta.preprocess, self.postprocess)

    @overload
    def __call__(self, images: Image) -> Detections: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[Detections]: ...
    def __call__(self, images: Image | Sequence[Image]) -> Detections | list[Detections]:
        """Detect objects.

        Args:
            images: one picture, uint8 (H, W, 3) BGR as OpenCV reads it, or any number of them, of any sizes; of
                `meta.frame_hw` where the graph takes whole frames.

        Returns:
            Detections in image px, clipped to the picture; a list when a list was given.

        Raises:
            ImageError: a picture is of another shape or type.
        """
        if isinstance(images, np.ndarray):
            return self.timed([images]).detections[0]
        return self.timed(images).detections

    def timed(self, images: Sequence[Image]) -> Timed:
        """Detect objects, as calling it does, and say where the time went.

        Raises:
            ImageError: a picture is of another shape or type.
        """
        step = self.meta.batch.max
        calls = []
        for start in range(0, len(images), step):
            self.submit(images[start : start + step])
            calls.append(self.result())
        found = [detections for call in calls for detections in call.detections]
        return Timed(found, {stage: sum(call.stages_s[stage] for call in calls) for stage in STAGES})

    @property
    def num_slots(self) -> int:
        """Calls of `submit` that may wait for their `result` at a time: more than 1 where a backend overlaps them."""
        return self._pictures.num_slots if self._pictures is not None else 1

    def submit(self, images: Sequence[Image]) -> None:
        """Begin with pictures, 1 to `meta.batch.max` of them; for throughput, `num_slots` calls at a time.

        Raises:
            ImageError: a picture is of another shape or type.
            BackendError: as many are under way as there are slots.
        """
        if self._pictures is not None:
            self._pictures.submit(images)
            return
        if self._results:
            raise BackendError(f"{self.meta.name}: a result is waiting; take it before the next pictures")
        started_s = time.perf_counter()
        batch, placements = self.prepare(images)
        prepared_s = time.perf_counter()
        outputs = self.backend.infer(batch)
        inferred_s = time.perf_counter()
        found = self.finish(outputs, placements)
        seconds = (prepared_s - started_s, inferred_s - prepared_s, time.perf_counter() - inferred_s)
        self._results.append(Timed(found, dict(zip(STAGES, seconds, strict=True))))

    def result(self) -> Timed:
        """Wait for the pictures submitted first, of those whose result was not asked for yet.

        Raises:
            BackendError: none are under way, or running them failed.
        """
        if self._pictures is not None:
            return self._pictures.result()
        if not self._results:
            raise BackendError(f"{self.meta.name}: there is no result to wait for; submit pictures first")
        return self._results.popleft()

    def prepare(self, images: Sequence[Image]) -> tuple[NDArray[Any], tuple[Placement, ...]]:
        """Pictures -> the input of `backend.infer` (valid until the next call) and where each lies in it.

        The batch has at least as many rows as the artifact takes; surplus ones hold whatever was there.
        """
        rows = max(len(images), self.meta.batch.min)
        if self._buffer is None or len(self._buffer.batch) != rows:
            self._buffer = InputBuffer(self.meta, rows)
        return prepare_batch(images, self.meta, self._buffer)

    def finish(self, outputs: Outputs, placements: Sequence[Placement]) -> list[Detections]:
        """What the backend gave for a prepared batch -> detections in image px, one per placement."""
        return detections_from_outputs(outputs, self.meta, self.postprocess, placements)

    def close(self) -> None:
        """Close the backend."""
        self.backend.close()

    def __enter__(self) -> "Detector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_detector(
    artifact: str | Path,
    *,
    weights: str | Path | None = None,
    names: str | None = None,
    input_hw: HW | None = None,
    backend: BackendName | str = BackendName.AUTO,
    conf: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    nms: Nms | None = None,
    resize: Resize | str | None = None,
    threads: int | None = None,
    trust: bool = False,
) -> Detector:
    """Open an artifact for detection.

    Args:
        artifact: a built-in model, a `.cfg`, an `.onnx`, an `.engine` or `triton://host:port/model`.
        weights: of a model; see `load_model`.
        names: of a model's classes; see `load_model`.
        input_hw: of a model, px; see `load_model`.
        backend: what must run it; by default what the artifact is for.
        conf: replaces the artifact's own `Postprocess.conf`; so do the next three theirs.
        iou: `Postprocess.iou`.
        max_detections: `Postprocess.max_detections`.
        nms: `Postprocess.nms`.
        resize: `letterbox` or `stretch`; by default the artifact's own.
        threads: CPU threads of the backend.
        trust: of an engine, see `open_backend`.

    Raises:
        Yolov3TrtError: says where, what and how to fix it.
    """
    if not is_model(artifact) and (weights or names or input_hw):
        raise BackendError(f"{artifact}: weights, names and input size are those it was exported with; leave them out")
    source = load_model(artifact, weights, names, input_hw) if is_model(artifact) else artifact
    opened = open_backend(source, BackendName(backend), threads=threads, trust=trust)
    with ExitStack() as on_failure:
        on_failure.callback(opened.close)
        postprocess = opened.meta.postprocess.override(conf=conf, iou=iou, max_detections=max_detections, nms=nms)
        detector = Detector(opened, postprocess, None if resize is None else Resize(resize))
        on_failure.pop_all()
    return detector


def _check_within(postprocess: Postprocess, meta: ModelMeta) -> None:
    """A graph that ends in detections has its thresholds built in; a caller can only ask for fewer results."""
    own = meta.postprocess
    if postprocess.iou != own.iou or postprocess.nms != own.nms:
        raise BackendError(
            f"{meta.name}: iou={postprocess.iou} with {postprocess.nms.kind.value} was asked for, but this graph "
            f"has iou={own.iou} with {own.nms.kind.value} built in; export it again with those"
        )
    if postprocess.conf < own.conf or postprocess.max_detections > own.max_detections:
        raise BackendError(
            f"{meta.name}: conf={postprocess.conf} and at most {postprocess.max_detections} detections were asked "
            f"for, but this graph gives conf={own.conf} and {own.max_detections}; export it again with those"
        )
