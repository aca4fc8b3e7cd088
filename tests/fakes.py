"""Test doubles: a backend that runs no model, a source and a sink that hold lists."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolov3_trt.backends import BackendName
from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.sinks import Sink
from yolov3_trt.camera.sources import Source
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.meta import InputStage, ModelMeta, OutputStage
from yolov3_trt.spec import Head

FRAME_HW = (48, 64)


class FakeBackend:
    """Finds one object, a "level", at the left of each picture: as wide as its first blue value, score 0.9."""

    name = BackendName.ONNXRUNTIME
    fallbacks = ()
    meta = ModelMeta(
        name="fake",
        input_hw=FRAME_HW,
        heads=(Head("head0", 0, ((8.0, 8.0),), 1, (6, 8)),),
        class_names=("level",),
        input_stage=InputStage.PIXELS,
        output_stage=OutputStage.DETECTIONS,
    )

    def __init__(self) -> None:
        self.is_open = True

    def infer(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = len(images)
        boxes = np.zeros((rows, 1, 4), np.float32)
        boxes[:, 0, 2] = images[:, 0, 0, 0]
        boxes[:, 0, 3] = 10
        return {
            "num_detections": np.ones(rows, np.int32),
            "boxes": boxes,
            "scores": np.full((rows, 1), 0.9, np.float32),
            "class_ids": np.zeros((rows, 1), np.int32),
        }

    def close(self) -> None:
        self.is_open = False


def fake_detector() -> Detector:
    return Detector(FakeBackend())


class ListSource(Source):
    """Frames of the given pictures; one in their place that is an exception is raised."""

    live = False

    def __init__(self, pictures: Sequence[np.ndarray | BaseException], age_s: float = 0.0) -> None:
        self.name, self.fps, self.is_open = "list", 10.0, True
        self._pictures = enumerate(pictures)
        self._age_s = age_s

    def read(self) -> Frame | None:
        for index, picture in self._pictures:
            if isinstance(picture, BaseException):
                raise picture
            return Frame(picture, self.name, index, time.monotonic() - self._age_s)
        return None

    def close(self) -> None:
        self.is_open = False


class ListSink(Sink):
    """Keeps what it is given, and how it ended."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.detections: list[Detections] = []
        self.calls: list[str] = []

    def write(self, frame: Frame, detections: Detections) -> None:
        self.frames.append(frame)
        self.detections.append(detections)

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


def grey_pictures(levels: Sequence[int], image_hw: Any = FRAME_HW) -> list[np.ndarray]:
    return [np.full((*image_hw, 3), level, np.uint8) for level in levels]
