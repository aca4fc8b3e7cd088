"""The object users hold: pictures in, detections out."""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np

from yolov3_trt.arguments import flag, integer, size, size_text, text
from yolov3_trt.backends import (
    STAGES,
    Backend,
    BackendName,
    DeviceName,
    RunPrecision,
    TensorBackend,
    TimedDetections,
    Wait,
    natural_backend,
    open_backend,
)
from yolov3_trt.backends.host_path import as_backend
from yolov3_trt.data.images import load_image
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError, ImageError, Yolov3TrtError
from yolov3_trt.geometry import HW, Resize
from yolov3_trt.meta import ModelMeta, OutputStage, Postprocess, RowsLayout
from yolov3_trt.models import Model, is_model, load_model
from yolov3_trt.preprocess import Image
from yolov3_trt.runtime.device_frame import is_on_device
from yolov3_trt.settings import DetectSettings
from yolov3_trt.spec import Nms

MAX_THREADS = 1024
AnyImage = Image | str | os.PathLike[str]  # uint8 (H, W, 3) BGR, or the path of a picture


class Detector:
    """Finds objects in pictures: preprocess, network and postprocess as one callable.

    It owns the backend: use it as a context manager, or `close` it. One thread at a time.

    >>> with open_detector("shapes") as detect:  # doctest: +SKIP
    ...     for found in detect("picture.jpg"):
    ...         print(found.class_name, found.score, found.xyxy)
    """

    def __init__(
        self, backend: Backend | TensorBackend, postprocess: Postprocess | None = None, resize: Resize | None = None
    ) -> None:
        """Take over a backend.

        Args:
            backend: what runs the model; one that only runs the network gets the host's path around it.
            postprocess: thresholds; by default the artifact's own.
            resize: by default the artifact's own.

        Raises:
            BackendError: a graph that detects or resizes by itself cannot do what `postprocess` or `resize` asks for.
        """
        self.backend = as_backend(backend)
        meta = self.backend.meta
        self.postprocess = postprocess or meta.postprocess
        self.meta: ModelMeta = replace(meta, preprocess=meta.preprocess.override(resize=resize))
        if meta.frame_hw is not None and self.meta.preprocess != meta.preprocess:
            raise BackendError(
                f"{meta.name}: resize={self.meta.preprocess.resize.value} was asked for, but this graph resizes whole frames "
                f"itself, with resize={meta.preprocess.resize.value} built in; export it again with that"
            )
        if meta.output_stage is OutputStage.DETECTIONS:
            _check_within(self.postprocess, meta)
        if meta.output_stage is OutputStage.ROWS and meta.rows_layout is not RowsLayout.CHANNELS_FIRST:
            _check_conf(self.postprocess, meta)
        self.backend.configure(self.meta.preprocess, self.postprocess)

    @overload
    def __call__(self, images: AnyImage) -> Detections: ...  # type: ignore[overload-overlap]  # a str is iterable too
    @overload
    def __call__(self, images: Iterable[AnyImage]) -> list[Detections]: ...
    def __call__(self, images: AnyImage | Iterable[AnyImage]) -> Detections | list[Detections]:
        """Detect objects.

        Args:
            images: one picture, uint8 (H, W, 3) BGR as OpenCV reads it, or its path; or any number of them, of any sizes. Of
                `meta.frame_hw` where the graph takes whole frames. An engine also takes pictures that lie on its GPU and are
                complete: what has a `__cuda_array_interface__`, as tensors of PyTorch do.

        Returns:
            Detections in image px, clipped to the picture; a list when several were given.

        Raises:
            ImageError: a picture is of another shape or type, or its file cannot be read.
            BackendError: running it failed, or the detector is closed.
        """
        if isinstance(images, (np.ndarray, str, os.PathLike)) or is_on_device(images):
            return self.timed([images]).detections[0]
        return self.timed(images).detections

    def timed(self, images: Iterable[AnyImage]) -> TimedDetections:
        """Detect objects, as calling it with several pictures does, and say where the time went; reading files is not in it.

        Raises:
            ImageError: a picture is of another shape or type, or its file cannot be read.
            BackendError: running it failed, or the detector is closed.
        """
        if isinstance(images, (bytes, bytearray)) or not isinstance(images, Iterable):
            raise _no_picture(images)
        waiting, step = list(images), self.meta.batch.max
        calls: list[TimedDetections] = []
        begin_s, reading_s, under_way = time.perf_counter(), 0.0, 0
        with ExitStack() as stack:
            stack.callback(lambda: self._drop(under_way))  # where one fails, those beside it
            for start in range(0, len(waiting), step):
                read_s = time.perf_counter()
                pictures = _pictures(waiting[start : start + step])
                reading_s += time.perf_counter() - read_s
                if under_way == self.num_slots:
                    under_way -= 1
                    calls.append(self.result())
                self.submit(pictures)
                under_way += 1
            while under_way:
                under_way -= 1
                calls.append(self.result())
        if len(calls) == 1:
            return calls[0]
        found = [detections for call in calls for detections in call.detections]
        stages_s = {stage: sum(call.stages_s[stage] for call in calls) for stage in STAGES}
        if self.num_slots > 1:
            # The host prepares pictures while others are under way: what is left of the time, it waited.
            host_s = reading_s + stages_s["preprocess"] + stages_s["postprocess"]
            stages_s["inference"] = max(0.0, time.perf_counter() - begin_s - host_s)
        return TimedDetections(found, stages_s)

    def _drop(self, count: int) -> None:
        """Wait for results that nobody will ask for."""
        for _ in range(count):
            with suppress(Yolov3TrtError):
                self.result()

    @property
    def arithmetic(self) -> str:
        """What it computes in: the artifact's precision, or `tf32` for an FP32 engine that was built to round so."""
        return getattr(self.backend, "computes_in", None) or self.meta.precision.value

    @property
    def num_slots(self) -> int:
        """Calls of `submit` that may wait for their `result` at a time: more than 1 where a backend overlaps them."""
        return self.backend.num_slots

    def submit(self, images: Sequence[AnyImage]) -> None:
        """Begin with pictures, 1 to `meta.batch.max` of them; for throughput, `num_slots` calls at a time.

        Raises:
            ImageError: a picture is of another shape or type, or its file cannot be read.
            BackendError: as many are under way as there are slots, or the detector is closed.
        """
        self.backend.submit(_pictures(images))

    def result(self) -> TimedDetections:
        """Wait for the pictures submitted first, of those whose result was not asked for yet.

        Raises:
            BackendError: none are under way, or running them failed.
        """
        return self.backend.result()

    def close(self) -> None:
        """Close the backend."""
        self.backend.close()

    def __enter__(self) -> "Detector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        meta, post = self.meta, self.postprocess
        return (
            f"<Detector {meta.name} on {self.backend.name.value}: {meta.precision.value}, input {size_text(meta.input_hw)}, "
            f"{meta.num_classes} classes, conf {post.conf:g}, iou {post.iou:g}>"
        )


def open_detector(
    artifact: str | os.PathLike[str] | Model,
    *,
    weights: str | os.PathLike[str] | None = None,
    names: str | None = None,
    input_size: int | str | HW | None = None,
    backend: BackendName | str = BackendName.AUTO,
    device: DeviceName | str = DeviceName.AUTO,
    threads: int | None = None,
    trust: bool = False,
    precision: RunPrecision | str | None = None,
    wait: Wait | str = Wait.AUTO,
    detect: DetectSettings | None = None,
    conf: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    nms: str | Nms | None = None,
    resize: Resize | str | None = None,
) -> Detector:
    """Open an artifact for detection.

    Args:
        artifact: a built-in model, a `.cfg`, an `.onnx`, an `.engine` or `triton://host:port/model`; or a loaded model.
        weights: of a model; see `load_model`.
        names: of a model's classes; see `load_model`.
        input_size: of a model, px: one number, `WIDTHxHEIGHT` or a pair (height, width); by default the model's own.
        backend: what must run it; by default what the artifact is for.
        device: `cpu`, `cuda`, or `auto` for the GPU where the backend has one, else the CPU.
        threads: CPU threads of the backend.
        trust: of an engine, see `open_backend`.
        precision: what OpenVINO computes in, see `open_backend`.
        wait: how the thread waits for an engine, see `open_backend`.
        detect: thresholds and the like; what is None in it is as the artifact says.
        conf: confidence threshold, 0..1, in place of that in `detect`; so are the next four. See `DetectSettings`.
        iou: threshold of non-maximum suppression, 0..1.
        max_detections: per picture at most.
        nms: `cfg`, `plain` or an `Nms`.
        resize: `letterbox` or `stretch`.

    Raises:
        SettingError: an argument has no such value; the text begins with its name.
        Yolov3TrtError: the artifact cannot be opened; says where, what and how to fix it.

    >>> detect = open_detector("yolov3.onnx", conf=0.4, nms="plain", device="cpu")  # doctest: +SKIP
    """
    given: dict[str, Any] = {"conf": conf, "iou": iou, "max_detections": max_detections, "nms": nms, "resize": resize}
    settings = replace(
        detect or DetectSettings(), **{name: value for name, value in given.items() if value is not None}
    )
    threads = None if threads is None else integer("threads", threads, 1, MAX_THREADS)
    source = _source(artifact, weights, names, input_size)
    opened = open_backend(
        source, backend, device=device, threads=threads, trust=flag("trust", trust), precision=precision, wait=wait
    )
    return detector_on(opened, settings)


def detector_on(opened: Backend | TensorBackend, settings: DetectSettings) -> Detector:
    """A detector of a backend that is open already, and that is closed if it cannot do what the settings ask for.

    Raises:
        BackendError: a graph that detects or resizes by itself has something else built in.
        SettingError: settings do not go with the artifact's own.
    """
    try:
        meta = settings.apply(opened.meta)
        return Detector(opened, meta.postprocess, meta.preprocess.resize)
    except Yolov3TrtError:
        opened.close()
        raise


def _source(artifact: Any, weights: Any, names: Any, input_size: Any) -> str | Model:
    """What `open_backend` takes: a model with its options, or the path or address of an artifact."""
    hw = None if input_size is None else size("input_size", input_size)
    given = artifact if isinstance(artifact, Model) else text("artifact", artifact)
    if isinstance(given, str) and is_model(given):
        return load_model(given, None if weights is None else text("weights", weights), names, hw)
    if weights or names or hw:
        natural_backend(given)  # a name that is wrong is the first thing to say
        name = given.spec.name if isinstance(given, Model) else given
        raise BackendError(f"{name}: weights, names and input size are those it was exported with; leave them out")
    return given


def _pictures(images: Sequence[AnyImage]) -> list[Image]:
    return [image if isinstance(image, np.ndarray) or is_on_device(image) else _read(image) for image in images]


def _read(image: Any) -> Image:
    if not isinstance(image, (str, os.PathLike)):
        raise _no_picture(image)
    if "://" in os.fsdecode(image):
        raise ImageError(f"{image}: an address; expected a file (`watch` takes streams and snapshots)")
    return load_image(Path(image))


def _no_picture(value: Any) -> ImageError:
    got = "None (as OpenCV's imread gives for a file that it cannot read)" if value is None else type(value).__name__
    return ImageError(
        f"got {got}; expected a picture, uint8 (height, width, 3) BGR, the path of one, or several of these"
    )


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


def _check_conf(postprocess: Postprocess, meta: ModelMeta) -> None:
    """The rows of OpenCV's layouts have 0 in place of scores up to a threshold."""
    if postprocess.conf < meta.postprocess.conf:
        raise BackendError(
            f"{meta.name}: conf={postprocess.conf} was asked for, but this graph leaves out scores up to "
            f"{meta.postprocess.conf}; export it again with that conf"
        )
