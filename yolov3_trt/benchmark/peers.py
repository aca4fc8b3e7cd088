"""OpenCV's DNN module as an outside peer: its own importer, its own decoding, its own suppression."""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.backends import STAGES, Timed
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError, require
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import Postprocess, Preprocess, meta_from_spec
from yolov3_trt.models import Model
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.preprocess import Image


class OpenCvPeer:
    """A model run by OpenCV alone, from the same Darknet weights; in the place of a `Detector`, a picture at a time."""

    num_slots = 1
    fallbacks = ("OpenCV decodes boxes inside its network: that time counts as inference",)

    def __init__(self, model: Model, preprocess: Preprocess, postprocess: Postprocess) -> None:
        """Import the weights, with the cfg written anew: the very layers, input size and threshold of the other rows.

        Raises:
            BackendError: OpenCV does not import them, or suppresses boxes by another rule.
        """
        self._cv2 = cv2 = require("cv2", extra="opencv")
        if postprocess.nms.distance_power is not None:
            raise BackendError(
                f"{model.spec.name}: its boxes are suppressed by {postprocess.nms.kind.value}, OpenCV knows plain IoU only; "
                "compare with --nms plain"
            )
        self.meta = replace(meta_from_spec(model.spec, model.class_names), preprocess=preprocess)
        self.postprocess = postprocess
        # Its [yolo] layer drops scores up to 0.2 by itself unless the cfg names another threshold.
        cfg = re.sub(r"(?m)^\[yolo\]$", f"[yolo]\nthresh={postprocess.conf}", cfg_from_spec(model.spec))
        try:
            weights = np.fromfile(model.weights_path, np.uint8)
            self._net: Any = cv2.dnn.readNetFromDarknet(np.frombuffer(cfg.encode(), np.uint8), weights)
        except cv2.error as exc:
            raise BackendError(f"{model.spec.name}: OpenCV {cv2.__version__} does not import it ({exc.err})") from exc
        self._net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self._result: Timed | None = None

    def __call__(self, image: Image) -> Detections:
        """What is in a picture."""
        return self.timed([image]).detections[0]

    def timed(self, images: Sequence[Image]) -> Timed:
        """See `Detector.timed`; one picture after the other."""
        found, seconds = list[Detections](), np.zeros(len(STAGES))
        for image in images:
            started = time.perf_counter()
            blob, placement = self._prepare(image)
            prepared = time.perf_counter()
            self._net.setInput(blob)
            outputs = self._net.forward(self._outputs)
            inferred = time.perf_counter()
            found.append(self._finish(np.concatenate(outputs), placement))
            seconds += (prepared - started, inferred - prepared, time.perf_counter() - inferred)
        return Timed(found, dict(zip(STAGES, seconds.tolist(), strict=True)))

    def submit(self, images: Sequence[Image]) -> None:
        """See `Detector.submit`."""
        self._result = self.timed(images)

    def result(self) -> Timed:
        """See `Detector.result`."""
        if self._result is None:
            raise BackendError(f"{self.meta.name}: there is no result to wait for; submit pictures first")
        result, self._result = self._result, None
        return result

    def close(self) -> None:
        """Free the network."""
        self._net = None

    def _prepare(self, image: Image) -> tuple[NDArray[np.float32], Placement]:
        """(1, 3, H, W) by `resize`, `copyMakeBorder` and `blobFromImage`, and where the picture lies in it."""
        cv2, input_hw = self._cv2, self.meta.input_hw
        placement = Placement.of((image.shape[0], image.shape[1]), input_hw, self.meta.preprocess.resize)
        (top, left), (height, width) = placement.offset_hw, placement.resized_hw
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        bottom, right = input_hw[0] - top - height, input_hw[1] - left - width
        grey = (self.meta.preprocess.pad_value,) * 3
        framed = cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey)
        return cv2.dnn.blobFromImage(framed, self.meta.preprocess.scale, swapRB=True), placement

    def _finish(self, rows: NDArray[np.float32], placement: Placement) -> Detections:
        """Rows (cells, 5 + C) of centre, size (0..1), objectness and scores -> detections in image px."""
        post, (height, width) = self.postprocess, self.meta.input_hw
        cells, class_ids = np.nonzero(rows[:, 5:] > post.conf)
        scores = rows[cells, 5 + class_ids]
        best = np.argsort(-scores, kind="stable")[: post.max_candidates]
        cells, class_ids, scores = cells[best], class_ids[best], scores[best]
        boxes = rows[cells, :4] * np.array([width, height, width, height], np.float32)
        boxes[:, :2] -= boxes[:, 2:] / 2  # xywh, input px
        kept = self._cv2.dnn.NMSBoxesBatched(boxes, scores, class_ids, post.conf, post.iou)
        keep = np.asarray(kept, int).reshape(-1)[: post.max_detections]
        xyxy = np.concatenate([boxes[keep, :2], boxes[keep, :2] + boxes[keep, 2:]], axis=1)
        return Detections(
            placement.to_image(xyxy), scores[keep], class_ids[keep].astype(np.int32), self.meta.class_names
        )
