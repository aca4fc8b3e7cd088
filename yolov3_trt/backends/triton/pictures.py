"""The backend of a server that takes pictures: the python variant, this package's Detector on the server."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends import STAGES, BackendName, OpenBackend, TimedDetections
from yolov3_trt.backends.triton.address import Encoding
from yolov3_trt.backends.triton.contract import ENCODED, FRAME, POSTPROCESS, outputs_of
from yolov3_trt.backends.triton.remote import Flight, RemoteModel, array_of
from yolov3_trt.backends.triton.wire import Outputs
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError, require
from yolov3_trt.meta import ModelMeta, Postprocess, Preprocess
from yolov3_trt.postprocess import checked_detections
from yolov3_trt.preprocess import Image, check_image
from yolov3_trt.sizes import HW

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class _Call:
    """Pictures of one `submit`."""

    flights: list[Flight]
    images_hw: list[HW]
    submitted_s: float  # time.perf_counter() when they came, and when all were on their way
    started_s: float


class TritonPictureBackend(OpenBackend):
    """Sends pictures to servers; a `Backend`."""

    name = BackendName.TRITON

    def __init__(self, remote: RemoteModel, in_flight: int, encoding: Encoding) -> None:
        """Take over a model on servers.

        Args:
            remote: of the python variant.
            in_flight: limit of its requests.
            encoding: how pictures travel.
        """
        self.meta: ModelMeta = remote.contract.meta
        self.num_slots = in_flight
        wanted = outputs_of(remote.contract.variant, self.meta)
        self._outputs = tuple(replace(tensor, dims=(1, *tensor.dims)) for tensor in wanted)
        self._remote = remote
        self._encoding = encoding
        self._calls: deque[_Call] = deque()
        self._thresholds: NDArray[np.float32] | None = None  # where they are not the model's own

    @property
    def fallbacks(self) -> tuple[str, ...]:  # type: ignore[override]  # here it comes to light while running
        """What is not done as it could be, each with the reason."""
        lossy = f"pictures travel as JPEG of quality {_JPEG_QUALITY}, which is lossy: encoding=jpeg was asked for"
        return (*self._remote.fallbacks, *([lossy] if self._encoding is Encoding.JPEG else []))

    @property
    def statistics(self) -> dict[str, Any]:
        """See `RemoteModel.statistics`."""
        return self._remote.statistics

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        """See `Backend.configure`; only the two thresholds and a lower number of detections can be asked for."""
        own = self.meta.postprocess
        if preprocess != self.meta.preprocess:
            raise BackendError(
                f"{self.meta.name}: resize={preprocess.resize.value} was asked for; the server fits pictures with "
                f"resize={self.meta.preprocess.resize.value}; serve an artifact exported with that"
            )
        if (postprocess.nms, postprocess.max_candidates) != (own.nms, own.max_candidates):
            raise BackendError(
                f"{self.meta.name}: {postprocess.nms.kind.value} suppression of {postprocess.max_candidates} candidates was "
                f"asked for; the server does {own.nms.kind.value} of {own.max_candidates}; serve an artifact exported with that"
            )
        if postprocess.max_detections > own.max_detections:
            raise BackendError(
                f"{self.meta.name}: max_detections={postprocess.max_detections} was asked for; the server gives "
                f"{own.max_detections} at most"
            )
        given = (postprocess.conf, postprocess.iou, postprocess.max_detections)
        is_own = given == (own.conf, own.iou, own.max_detections)
        self._thresholds = None if is_own else np.array([given], np.float32)

    def submit(self, images: Sequence[Image]) -> None:
        """See `Backend.submit`; each picture is a request of its own."""
        self.check_open()
        if len(self._calls) >= self.num_slots:
            raise BackendError(f"{self.meta.name}: {self.num_slots} calls are under way; take a result first")
        self.check_count(images)
        for image in images:
            check_image(image)
        submitted_s = time.perf_counter()
        flights = [self._begin(image) for image in images]
        images_hw = [(image.shape[0], image.shape[1]) for image in images]
        self._calls.append(_Call(flights, images_hw, submitted_s, time.perf_counter()))

    def result(self) -> TimedDetections:
        """See `Backend.result`; inference is the time on the way and on the server."""
        self.check_open()
        if not self._calls:
            raise BackendError(f"{self.meta.name}: there is no result to wait for; submit pictures first")
        call = self._calls.popleft()
        try:
            answers = self._remote.wait(call.flights)
            waited_s = time.perf_counter()
            found = [self._detections(one.outputs, hw) for one, hw in zip(answers, call.images_hw, strict=True)]
        except BackendError:
            for flight in (flight for one in (call, *self._calls) for flight in one.flights):
                flight.cancel()
            self._calls.clear()
            raise
        # While it waited its turn here, an answer may long have been there.
        arrived_s = max(answer.at_s for answer in answers)
        inference_s = max(arrived_s - call.started_s, 0)
        seconds = (call.started_s - call.submitted_s, inference_s, time.perf_counter() - waited_s)
        return TimedDetections(found, dict(zip(STAGES, seconds, strict=True)))

    def close(self) -> None:
        """See `Backend.close`."""
        if not self.is_closed:
            super().close()
            self._calls.clear()
            self._remote.close()

    def _begin(self, image: Image) -> Flight:
        inputs: dict[str, tuple[str, NDArray[Any]] | bytes] = {}
        if self._thresholds is not None:
            inputs[POSTPROCESS] = ("FP32", self._thresholds)
        if self._encoding is Encoding.RAW:
            inputs[FRAME] = ("UINT8", image[None])
        else:
            inputs[ENCODED] = _encoded(image, self._encoding)
        return self._remote.begin(inputs)

    def _detections(self, outputs: Outputs, image_hw: HW) -> Detections:
        row = {wanted.name: array_of(outputs, wanted)[0] for wanted in self._outputs}
        row["num_detections"] = row["num_detections"][0]
        xyxy, scores, class_ids = checked_detections(row, self.meta)
        height, width = image_hw
        if not ((xyxy >= 0) & (xyxy <= (width, height, width, height))).all():
            raise BackendError(f"{self.meta.name}: the server gave boxes outside of the picture, {width}x{height}")
        return Detections(xyxy.copy(), scores.copy(), class_ids.copy(), class_names=self.meta.class_names)


def _encoded(image: Image, encoding: Encoding) -> bytes:
    cv2 = require("cv2", extra="opencv")
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if encoding is Encoding.JPEG else []
    good, encoded = cv2.imencode(".jpg" if encoding is Encoding.JPEG else ".png", image, options)
    if not good:
        raise BackendError(f"OpenCV cannot write a picture of {image.shape[1]}x{image.shape[0]} as {encoding.value}")
    return bytes(encoded)
