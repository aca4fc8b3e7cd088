"""Answers the requests of many clients with as few calls of the detector as possible.

Free of Triton's own types, so that it runs without a server.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends.host_path import HostPath
from yolov3_trt.backends.triton.contract import ENCODED, FRAME, POSTPROCESS
from yolov3_trt.deploy.pictures import check_frame, decode_picture
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError, ImageError, MetaError, Yolov3TrtError
from yolov3_trt.meta import DETECTION_OUTPUTS, Postprocess
from yolov3_trt.preprocess import Image

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class _Picture:
    """One picture of a request."""

    request: int  # its index
    row: int
    pixels: Image
    asked: Postprocess


class PictureService:
    """Answers requests with a detector, which it does not own. One thread at a time."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._own = detector.postprocess
        self._detector_for = lru_cache(maxsize=8)(self._other_detector)

    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | Yolov3TrtError]:
        """Detect in the pictures of all requests together.

        Args:
            requests: tensors by name, each with the batch B as its first dimension: `encoded` bytes (B, 1) or `frame` uint8
                (B, H, W, 3), exactly one of the two, and at will `postprocess` float32 (B, 3).

        Returns:
            Per request DETECTION_OUTPUTS in image px, `num_detections` as (B, 1), rows from it on zero; or what is wrong
            with the request, which the others do not suffer from.
        """
        answers: list[Tensors | Yolov3TrtError] = [{} for _ in requests]
        pictures: list[_Picture] = []
        for index, tensors in enumerate(requests):
            try:
                pictures += list(self._read(index, tensors))
            except Yolov3TrtError as exc:
                answers[index] = exc
        found: list[dict[int, Detections]] = [{} for _ in requests]  # by row: groups take them out of order
        for group in self._groups(pictures):
            try:
                detections = self._detect(group)
            except Yolov3TrtError as exc:
                for picture in group:
                    answers[picture.request] = exc
                continue
            for picture, one in zip(group, detections, strict=True):
                found[picture.request][picture.row] = one
        return [
            was if isinstance(was, Yolov3TrtError) else _tensors([rows[row] for row in sorted(rows)], self._own)
            for was, rows in zip(answers, found, strict=True)
        ]

    def _read(self, index: int, tensors: Tensors) -> Iterator[_Picture]:
        """Decode the pictures of a request."""
        given = [name for name in (ENCODED, FRAME) if name in tensors]
        if len(given) != 1:
            raise ImageError(
                f"got {' and '.join(given) or 'no picture'}; expected exactly one of {ENCODED} and {FRAME}"
            )
        rows = tensors[given[0]]
        asked = [self._asked(row) for row in tensors.get(POSTPROCESS, ())] or [self._own] * len(rows)
        if len(asked) != len(rows):
            raise ImageError(f"{len(asked)} rows of {POSTPROCESS} for {len(rows)} pictures; expected one each")
        for number, (row, postprocess) in enumerate(zip(rows, asked, strict=True)):
            try:
                pixels = decode_picture(_bytes(row)) if given[0] == ENCODED else check_frame(row)
                self._check_frame_size(pixels)
            except ImageError as exc:
                raise ImageError(f"picture {number} of the request: {exc}") from exc
            yield _Picture(index, number, pixels, postprocess)

    def _check_frame_size(self, pixels: Image) -> None:
        wanted = self._detector.meta.frame_hw
        if wanted is not None and pixels.shape[:2] != wanted:
            raise ImageError(f"it has {pixels.shape[0]}x{pixels.shape[1]} px; this model takes frames of {wanted} only")

    def _asked(self, row: NDArray[Any]) -> Postprocess:
        """The sidecar's postprocessing with a request's thresholds."""
        if row.shape != (3,) or row.dtype != np.float32 or not np.isfinite(row).all():
            raise MetaError(f"{POSTPROCESS} is {row.tolist()}; expected 3 finite float32: conf, iou, max_detections")
        # The shortest decimal: 0.45 as its sender wrote it, not as float32 holds it.
        conf, iou = (float(str(value)) for value in row[:2])
        asked = self._own.override(conf=conf, iou=iou, max_detections=int(row[2]))
        if asked.max_detections != row[2] or asked.max_detections > self._own.max_detections:
            raise MetaError(
                f"{POSTPROCESS}: max_detections={row[2]:g}; expected a whole number up to "
                f"{self._own.max_detections}, the rows of the outputs"
            )
        return asked

    def _groups(self, pictures: Sequence[_Picture]) -> list[list[_Picture]]:
        """Put pictures together that one detector can take, which is nearly always all of them."""
        groups: dict[Postprocess, list[_Picture]] = {}
        for picture in pictures:
            groups.setdefault(self._own if self._is_narrower(picture.asked) else picture.asked, []).append(picture)
        return list(groups.values())

    def _is_narrower(self, asked: Postprocess) -> bool:
        """Whether what is asked for is part of what the sidecar's thresholds find.

        A box is suppressed by better ones only, so a higher confidence threshold may as well be applied afterwards.
        """
        return asked.iou == self._own.iou and asked.conf >= self._own.conf

    def _detect(self, group: Sequence[_Picture]) -> list[Detections]:
        is_own = self._is_narrower(group[0].asked)
        detector = self._detector if is_own else self._detector_for(group[0].asked)
        found = detector.timed([picture.pixels for picture in group]).detections
        return [_narrowed(one, picture.asked) for one, picture in zip(found, group, strict=True)]

    def _other_detector(self, asked: Postprocess) -> Detector:
        """The same network with wider thresholds; there is nothing to close."""
        backend = self._detector.backend
        if not isinstance(backend, HostPath):
            raise BackendError(
                f"{backend.meta.name}: conf={asked.conf} and iou={asked.iou} were asked for, but this "
                f"model runs with conf={self._own.conf} or more and iou={self._own.iou}"
            )
        return Detector(backend.network, asked, self._detector.meta.preprocess.resize)


def _narrowed(found: Detections, asked: Postprocess) -> Detections:
    return found[found.scores > np.float32(asked.conf)][: asked.max_detections]


def _bytes(row: NDArray[Any]) -> bytes:
    value = row[0] if row.shape == (1,) else row
    if not isinstance(value, bytes):
        raise ImageError(f"{ENCODED} is {row.dtype} {row.shape}; expected the bytes of one picture a row")
    return value


def _tensors(found: Sequence[Detections], own: Postprocess) -> Tensors:
    """Detections of B pictures as DETECTION_OUTPUTS, with room for as many as the sidecar allows."""
    rows = own.max_detections
    counts = np.array([[len(one)] for one in found], np.int32).reshape(-1, 1)
    boxes = np.zeros((len(found), rows, 4), np.float32)
    scores = np.zeros((len(found), rows), np.float32)
    class_ids = np.zeros((len(found), rows), np.int32)
    for index, one in enumerate(found):
        boxes[index, : len(one)] = one.xyxy
        scores[index, : len(one)] = one.scores
        class_ids[index, : len(one)] = one.class_ids
    return dict(zip(DETECTION_OUTPUTS, (counts, boxes, scores, class_ids), strict=True))
