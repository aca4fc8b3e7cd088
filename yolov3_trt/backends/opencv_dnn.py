"""OpenCV's DNN module as a backend, to compare with: its own importer, its own decoding, its own suppression."""

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.arguments import spelled
from yolov3_trt.backends import STAGES, BackendName, OpenBackend, TimedDetections
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError, require
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import ModelMeta, Postprocess, Preprocess, meta_from_spec
from yolov3_trt.models import Model
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.preprocess import Image, check_image


class OpenCvBackend(OpenBackend):
    """Runs a model by OpenCV alone, from the same Darknet weights, a picture at a time; a `Backend`."""

    name = BackendName.OPENCV
    num_slots = 1
    fallbacks = ("OpenCV decodes boxes inside its network: that time counts as inference",)

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        """Take a model, which `configure` imports.

        Args:
            model: the network and its weights.
            threads: of the CPU; OpenCV has one number for the whole process.
        """
        self._cv2 = require("cv2", extra="opencv")
        if threads is not None:
            self._cv2.setNumThreads(threads)
        self._model = model
        self.meta: ModelMeta = meta_from_spec(model.spec, model.class_names, model.class_names_from)
        self._net: Any = None
        self._result: TimedDetections | None = None

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        """Import the weights, with the cfg written anew: the very layers, input size and threshold of other backends.

        Raises:
            BackendError: this OpenCV imports no Darknet models or not this one, or suppresses boxes by another rule.
        """
        self.check_open()
        cv2, spec = self._cv2, self._model.spec
        if postprocess.nms.distance_power is not None:
            raise BackendError(
                f"{spec.name}: its boxes are suppressed by {postprocess.nms.kind.value}, OpenCV knows plain IoU only; "
                f"compare with {spelled('nms', 'plain')}"
            )
        lacks = [name for name in ("readNetFromDarknet", "NMSBoxesBatched") if not hasattr(cv2.dnn, name)]
        if lacks:  # the first went with OpenCV 5, the second came with 4.7
            raise BackendError(
                f"{spec.name}: OpenCV {cv2.__version__} has no cv2.dnn.{lacks[0]}; expected OpenCV 4.7 to 4.x to run it "
                "by: pip install 'opencv-python-headless<4.13'"
            )
        # Its [yolo] layer drops scores up to 0.2 by itself unless the cfg names another threshold.
        cfg = re.sub(r"(?m)^\[yolo\]$", f"[yolo]\nthresh={postprocess.conf}", cfg_from_spec(spec))
        try:
            weights = np.fromfile(self._model.weights_path, np.uint8)
            self._net = cv2.dnn.readNetFromDarknet(np.frombuffer(cfg.encode(), np.uint8), weights)
        except cv2.error as exc:
            raise BackendError(f"{spec.name}: OpenCV {cv2.__version__} does not import it ({exc.err})") from exc
        self._net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self._preprocess, self._postprocess = preprocess, postprocess

    def submit(self, images: Sequence[Image]) -> None:
        """See `Backend.submit`; the detections are found when it returns."""
        self.check_open()
        if self._result is not None:
            raise BackendError(f"{self.meta.name}: a result is waiting; take it before the next pictures")
        self.check_count(images)
        if self._net is None:
            self.configure(self.meta.preprocess, self.meta.postprocess)
        (image,) = images
        check_image(image)
        started_s = time.perf_counter()
        blob, placement = self._prepare(image)
        prepared_s = time.perf_counter()
        self._net.setInput(blob)
        outputs = self._net.forward(self._outputs)
        inferred_s = time.perf_counter()
        found = [self._finish(np.concatenate(outputs), placement)]
        seconds = (prepared_s - started_s, inferred_s - prepared_s, time.perf_counter() - inferred_s)
        self._result = TimedDetections(found, dict(zip(STAGES, seconds, strict=True)))

    def result(self) -> TimedDetections:
        """See `Backend.result`."""
        self.check_open()
        if self._result is None:
            raise BackendError(f"{self.meta.name}: there is no result to wait for; submit pictures first")
        result, self._result = self._result, None
        return result

    def close(self) -> None:
        """Free the network."""
        super().close()
        self._net = None

    def _prepare(self, image: Image) -> tuple[NDArray[np.float32], Placement]:
        """(1, 3, H, W) by `resize`, `copyMakeBorder` and `blobFromImage`, and where the picture lies in it."""
        cv2, input_hw = self._cv2, self.meta.input_hw
        placement = Placement.of((image.shape[0], image.shape[1]), input_hw, self._preprocess.resize)
        (top, left), (height, width) = placement.offset_hw, placement.resized_hw
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        bottom, right = input_hw[0] - top - height, input_hw[1] - left - width
        grey = (self._preprocess.pad_value,) * 3
        if self._model.spec.channels == 1:
            small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        framed = cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey)
        return cv2.dnn.blobFromImage(framed, self._preprocess.scale, swapRB=True), placement

    def _finish(self, rows: NDArray[np.float32], placement: Placement) -> Detections:
        """Rows (cells, 5 + C) of centre, size (0..1), objectness and scores -> detections in image px."""
        post, (height, width) = self._postprocess, self.meta.input_hw
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
