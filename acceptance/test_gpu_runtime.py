"""Engines on a GPU, each against what ONNX Runtime computed of the same graph, and against the host's own stages."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acceptance import target
from acceptance.cases import Case
from acceptance.frames import clip, suite_frames
from tests.backends.test_trt_backend import same_lists
from yolov3_trt.backends.trt import TensorRTBackend
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError
from yolov3_trt.postprocess import detections_from_outputs
from yolov3_trt.preprocess import prepare_batch

pytestmark = pytest.mark.gpu

# How far a head may be from ONNX Runtime's: the Euclidean norm of the difference over that of the head. An FP32 engine is
# built without TensorFloat-32, so that only the order of sums differs. In INT8 a value that lies between
# two steps falls on either side, and the layers after it carry that on: rounding the rest to float16 moves heads of YOLOv3 by
# up to 0.14 on the CPU, those of its FP16 graph by 0.0014. Simulated, TF32 moves them by 0.0011, and sums in float16, which
# some kernels have, by 0.005; which ones TensorRT takes is not known before it has.
TOLERANCES = {"fp32": 0.001, "tf32": 0.005, "fp16": 0.05, "int8": 0.3}

RTX_CAPTURES = "no CUDA graph: TensorRT-RTX captures the network in a CUDA graph of its own"
Record = Callable[[str, object], None]


@pytest.fixture
def detector(runtime: TensorRTBackend) -> Detector:
    """The product's own, on the open engine; whoever closes the engine closes it."""
    return Detector(runtime)


@pytest.fixture
def frames(work: Path, case: Case) -> list[np.ndarray]:
    """Camera frames, as many as a batch takes."""
    taken = suite_frames(work)
    return [taken[k % len(taken)] for k in range(case.batch)]


def found_on_the_host(frames: list[np.ndarray], runtime: TensorRTBackend) -> list[Detections]:
    """What the host's own stages make of the engine's heads."""
    batch, placements = prepare_batch(frames, runtime.meta)
    rows = runtime.meta.batch.min
    if len(batch) < rows:  # of a fixed size: what is beyond the frames does not count
        batch = np.concatenate([batch, np.zeros((rows - len(batch), *batch.shape[1:]), batch.dtype)])
    return detections_from_outputs(runtime.infer(batch), runtime.meta, runtime.meta.postprocess, placements)


def usual_fallbacks(case: Case) -> tuple[str, ...]:
    return (RTX_CAPTURES,) if case.flavor == "tensorrt_rtx" else ()


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_heads_are_those_that_onnxruntime_computed(
    case: Case, work: Path, runtime: TensorRTBackend, record_property: Record
):
    with np.load(case.expected(work)) as expected:
        images = expected["images"]
        batch = np.stack([images[k % len(images)] for k in range(case.batch)])
        for name, values in runtime.infer(batch).items():
            assert np.isfinite(values).all()
            for row in range(case.batch):
                error = relative_error(values[row], expected[name][row % len(images)])
                record_property(f"{case.name} {name} relative error", f"{error:.3g}")
                assert error <= TOLERANCES[case.precision], (name, row)


def test_detections_are_those_that_the_host_finds_in_the_engines_heads(
    case: Case, frames: list[np.ndarray], runtime: TensorRTBackend, detector: Detector
):
    expected = found_on_the_host(frames, runtime)
    assert sum(map(len, expected)) > 0
    for _ in range(4):  # the second time it is captured
        same_lists(detector(frames), expected)
    assert runtime.fallbacks == usual_fallbacks(case)


def test_frames_of_other_sizes_share_the_engine(case: Case, runtime: TensorRTBackend, detector: Detector):
    for image_hw in ((480, 640), (97, 131), (720, 1280), (97, 131), (480, 640)):
        frames = clip(1, image_hw)
        expected = found_on_the_host(frames, runtime)
        for _ in range(3):  # as it is, captured, launched
            same_lists(detector(frames), expected)
    assert runtime.fallbacks == usual_fallbacks(case)


def test_numbers_of_pictures_alternate_with_both_slots_busy(
    case: Case, frames: list[np.ndarray], runtime: TensorRTBackend, detector: Detector
):
    """TensorRT 8 lets two contexts share a profile only where the engine was built so."""
    if not case.dynamic:
        pytest.skip("a batch of one size")
    counts = [1, 3, 1, case.batch, 3, 3, 1, case.batch]
    expected = {count: found_on_the_host(frames[:count], runtime) for count in set(counts)}
    detector.submit(frames[: counts[0]])
    for count, after in zip(counts, [*counts[1:], 1], strict=True):
        detector.submit(frames[:after])
        same_lists(detector.result().detections, expected[count])
    detector.result()
    assert runtime.fallbacks == ()


def test_frames_in_memory_that_host_and_gpu_share_give_the_same(case: Case, work: Path, detector: Detector):
    """As on a Jetson; a GPU with memory of its own reaches the host's too, slowly."""
    frames = clip(case.batch, (480, 640))
    with target.open_runtime(case, work, target.open_device(shares_memory=True)) as runtime:
        sharing = Detector(runtime)
        for _ in range(3):
            same_lists(sharing(frames), detector(frames))


def test_two_batches_under_way_give_what_each_gives_alone(frames: list[np.ndarray], detector: Detector, case: Case):
    expected = detector(frames)
    mirrored = [frame[:, ::-1] for frame in frames]
    wanted = {False: expected, True: detector(mirrored)}
    order = [False, True, True, False, False, True, False, True]
    detector.submit(mirrored if order[0] else frames)
    for index, turned in enumerate(order):
        if index + 1 < len(order):
            detector.submit(mirrored if order[index + 1] else frames)
        same_lists(detector.result().detections, wanted[turned])


def test_a_third_batch_is_refused_and_the_two_are_finished(frames: list[np.ndarray], detector: Detector):
    expected = detector(frames)
    detector.submit(frames)
    detector.submit(frames)
    with pytest.raises(BackendError, match="2 batches are under way"):
        detector.submit(frames)
    for _ in range(2):
        same_lists(detector.result().detections, expected)


def test_the_device_times_its_own_stages(frames: list[np.ndarray], runtime: TensorRTBackend, detector: Detector):
    detector(frames)
    times_ms = runtime.device_stages_ms(frames)
    assert list(times_ms) == ["copy_in", "preprocess", "network", "postprocess", "copy_out"]
    assert all(time_ms >= 0 for time_ms in times_ms.values()) and times_ms["network"] > 0


def test_without_a_graph_it_finds_the_same_and_closing_frees_all_of_it(case: Case, work: Path, detector: Detector):
    frames = clip(case.batch, (480, 640))
    expected = detector(frames)
    device = target.open_device()
    without = target.open_runtime(case, work, device, use_graphs=False)
    with without:
        plain = Detector(without)
        for _ in range(3):
            same_lists(plain(frames), expected)
        assert without.fallbacks == ("no CUDA graph: switched off",)
        assert device.num_live > 0
    assert device.num_live == 0
