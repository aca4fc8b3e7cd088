"""Speed beside peers on the same input: `make bench`. Ordinary test runs skip these."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.peers import (
    SMALL,
    THREADS,
    Subject,
    load_subject,
    naive_postprocess,
    opencv_letterbox_blob,
    realistic_threshold,
    seeded_heads,
)
from yolov3_trt.camera.draw import draw_detections
from yolov3_trt.data.images import load_image
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.geometry import Placement, Resize
from yolov3_trt.meta import ModelMeta, Postprocess, meta_from_spec
from yolov3_trt.models import Model
from yolov3_trt.models.architectures import yolov3
from yolov3_trt.postprocess import candidates_from_heads, detections_from_outputs
from yolov3_trt.preprocess import InputBuffer, prepare_batch

HD = (1080, 1920)


@pytest.fixture(scope="module")
def meta() -> ModelMeta:
    """YOLOv3 at 416: three heads, 80 classes."""
    return meta_from_spec(yolov3())


@pytest.mark.benchmark(group="preprocess: 1920x1080 -> 416")
@pytest.mark.parametrize("who", ["yolov3_trt", "opencv"])
def test_preprocess(benchmark: BenchmarkFixture, meta: ModelMeta, who: str):
    cv2.setNumThreads(THREADS)
    frame = np.random.default_rng(0).integers(0, 256, (*HD, 3), np.uint8)
    buffer = InputBuffer(meta, rows=1)
    if who == "opencv":
        blob = benchmark(opencv_letterbox_blob, frame, meta.input_hw)
        prepare_batch([frame], meta, buffer)
        np.testing.assert_allclose(blob, buffer.batch, atol=1e-6)  # they do the same
    else:
        benchmark(prepare_batch, [frame], meta, buffer)


class _Thresholds(Detector):
    """Only what `naive_postprocess` asks of a detector."""

    def __init__(self, postprocess: Postprocess) -> None:
        self.postprocess = postprocess


@pytest.mark.parametrize("who", ["yolov3_trt", "naive"])
@pytest.mark.parametrize(
    "conf, objects, low, high",
    [
        pytest.param(0.25, 14, 50, 75, marks=pytest.mark.benchmark(group="postprocess: 60 candidates above 0.25")),
        pytest.param(0.005, 255, 900, 1100, marks=pytest.mark.benchmark(group="postprocess: 1000 above 0.005")),
    ],
)
def test_postprocess(
    benchmark: BenchmarkFixture, meta: ModelMeta, conf: float, objects: int, low: int, high: int, who: str
):
    heads = seeded_heads(meta, objects)
    post = replace(meta.postprocess, conf=conf)
    everything = replace(post, max_candidates=10**6)
    count = len(candidates_from_heads([h[0] for h in heads.values()], meta.heads, meta.input_hw, everything).scores)
    assert low <= count <= high
    place = Placement.of(HD, meta.input_hw, Resize.LETTERBOX)
    expected = detections_from_outputs(heads, meta, post, [place])[0]
    if who == "naive":
        found = benchmark(naive_postprocess, heads, meta, _Thresholds(post))
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    else:
        benchmark(detections_from_outputs, heads, meta, post, [place])


def test_drawing_twenty_boxes(benchmark: BenchmarkFixture):
    benchmark.group = "20 boxes and labels onto 1280x720"
    random = np.random.default_rng(0)
    corner, size = random.uniform(0, 0.7, (20, 2)), random.uniform(0.1, 0.3, (20, 2))
    boxes = np.concatenate([corner, corner + size], axis=1) * [1280, 720, 1280, 720]
    names = tuple(f"class {n}" for n in range(20))
    found = Detections(
        boxes.astype(np.float32),
        np.linspace(0.9, 0.3, 20, dtype=np.float32),
        np.arange(20, dtype=np.int32),
        class_names=names,
    )
    image = np.full((720, 1280, 3), 128, np.uint8)
    benchmark.pedantic(draw_detections, [image, found], rounds=60, warmup_rounds=3)


@pytest.fixture(scope="module", params=SMALL, ids=lambda subject: subject.name)
def subject(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Subject, Model, Path, Path]:
    return request.param, *load_subject(request.param, data, tmp_path_factory.mktemp("subject"))


@pytest.mark.parametrize("who", ["onnxruntime", "torch", "opencv"])
def test_whole_image(benchmark: BenchmarkFixture, subject: tuple[Subject, Model, Path, Path], data: Path, who: str):
    which, model, cfg, onnx = subject
    benchmark.group = f"picture -> detections: {which.name}, {THREADS} threads"
    picture = load_image(data / "images" / "dog.jpg")
    with open_detector(onnx) as detector:
        conf = realistic_threshold(which, detector, picture)
    detect: Callable[[np.ndarray], object]
    if who == "opencv":
        cv2.setNumThreads(THREADS)
        detect = open_detector(model, backend="opencv", conf=conf, nms="plain")
    elif who == "torch":
        detect = open_detector(cfg, weights=model.weights_path, conf=conf, threads=THREADS)
    else:
        detect = open_detector(onnx, conf=conf, threads=THREADS)
    detect(picture)  # warm
    benchmark.pedantic(detect, [picture], rounds=60, warmup_rounds=3)
