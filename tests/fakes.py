"""Test doubles: backends that run no model, sources and a sink that hold lists or follow a script."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from yolov3_trt.backends import BackendName, TimedDetections
from yolov3_trt.camera.frames import Frame, FrameStatus, Result
from yolov3_trt.camera.sinks import Sink
from yolov3_trt.camera.sources import Capture, LiveSource, Source
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import CameraError
from yolov3_trt.geometry import Placement
from yolov3_trt.meta import Batch, InputStage, ModelMeta, OutputStage, Postprocess, Preprocess
from yolov3_trt.postprocess import detections_from_outputs
from yolov3_trt.preprocess import prepare_batch
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

    def __init__(self, pictures: Sequence[np.ndarray | BaseException], name: str = "list") -> None:
        self.name, self.fps, self.is_open = name, 10.0, True
        self._pictures = enumerate(pictures)

    def read(self) -> Frame | None:
        for index, picture in self._pictures:
            if isinstance(picture, BaseException):
                raise picture
            return Frame(picture, self.name, index, time.monotonic())
        return None

    def close(self) -> None:
        self.is_open = False


class ListSink(Sink):
    """Keeps what it is given, and how it ended."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.stale: list[tuple[str, float]] = []
        self.calls: list[str] = []

    @property
    def frames(self) -> list[Frame]:
        return [result.frame for result in self.results]

    @property
    def detections(self) -> list[Detections]:
        return [result.detections for result in self.results]

    def write(self, result: Result) -> None:
        self.results.append(result)

    def mark_stale(self, source: str, for_s: float) -> None:
        self.stale.append((source, for_s))

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


def result_of(frame: Frame, detections: Detections | None = None) -> Result:
    """A result with a status of no meaning."""
    return Result(frame, Detections.none() if detections is None else detections, FrameStatus(None, 0.0, 0, 1))


def grey_pictures(levels: Sequence[int], image_hw: Any = FRAME_HW) -> list[np.ndarray]:
    return [np.full((*image_hw, 3), level, np.uint8) for level in levels]


class SlowBackend(FakeBackend):
    """A `FakeBackend` that takes its time for each call."""

    def __init__(self, seconds: float, max_batch: int = 1) -> None:
        super().__init__()
        self.seconds, self.calls = seconds, list[int]()  # of each call, how many pictures
        self.meta = replace(self.meta, batch=Batch(1, 1, max_batch))

    def infer(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        self.calls.append(len(images))
        time.sleep(self.seconds)
        return super().infer(images)


class TwoSlots(FakeBackend):
    """A device: takes whole pictures, runs calls one after the other beside the caller, two of which may wait."""

    num_slots = 2

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.max_pending = seconds, 0
        self._pending: deque[tuple[TimedDetections, float]] = deque()
        self._free_s = 0.0

    @property
    def num_pending(self) -> int:
        return len(self._pending)

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        pass

    def submit(self, images: Sequence[np.ndarray]) -> None:
        assert len(self._pending) < 2
        found = detections_from_outputs(
            self.infer(np.stack(images)), self.meta, self.meta.postprocess, self._whole(images)
        )
        self._free_s = max(self._free_s, time.monotonic()) + self.seconds
        stages = {"preprocess": 0.0, "inference": self.seconds, "postprocess": 0.0}
        self._pending.append((TimedDetections(found, stages), self._free_s))
        self.max_pending = max(self.max_pending, len(self._pending))

    def result(self) -> TimedDetections:
        timed, done_s = self._pending.popleft()
        time.sleep(max(0.0, done_s - time.monotonic()))
        return timed

    def _whole(self, images: Sequence[np.ndarray]) -> list[Placement]:
        return [prepare_batch([image], self.meta)[1][0] for image in images]


class ScriptedCamera(LiveSource):
    """A camera that does in turn, for each opening, what a script says.

    An opening is a list of pictures, or of a float (wait so many seconds), an exception (raise it) or None (hang until
    `let_go`). After its last opening it does as in that one.
    """

    def __init__(self, *openings: Sequence[Any], name: str = "camera", is_remote: bool = True) -> None:
        self.name, self.is_remote, self.timeout_s = name, is_remote, 0.3
        self.openings, self.num_opened, self.num_closed = list(openings), 0, 0
        self.let_go = threading.Event()

    def open(self) -> "ScriptedCapture":
        script = iter(self.openings[min(self.num_opened, len(self.openings) - 1)])
        self.num_opened += 1
        capture = ScriptedCapture(self, script)
        first = capture.next_picture()
        if first is None:
            raise CameraError(f"{self.name}: not there")
        capture.first = first
        return capture


class ScriptedCapture(Capture):
    """An opening of a `ScriptedCamera`."""

    image_hw, fps, fallbacks = FRAME_HW, 25.0, ()

    def __init__(self, camera: ScriptedCamera, script: Iterator[Any]) -> None:
        self.first: np.ndarray | None = None
        self.pipeline = f"script {camera.num_opened}"
        self._camera, self._script = camera, script

    def next_picture(self) -> np.ndarray | None:
        for item in self._script:
            if item is None:
                self._camera.let_go.wait()
            elif isinstance(item, BaseException):
                raise item
            elif isinstance(item, float):
                time.sleep(item)
            else:
                return item
        return None

    def read(self) -> np.ndarray:
        picture, self.first = self.first, None
        picture = self.next_picture() if picture is None else picture
        if picture is None:
            raise CameraError(f"{self._camera.name}: lost")
        return picture

    def close(self) -> None:
        self._camera.num_closed += 1
