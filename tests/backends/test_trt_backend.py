"""The TensorRT backend on a simulated device, whose engine is the graph under ONNX Runtime. Nothing here ran on a GPU."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import EACH_COCO_MODEL
from tests.sim.arithmetic import Arithmetic
from tests.sim.cuda_device import SimulatedCuda, SimulatedEvent
from tests.sim.device import SECTOR_BYTES, has_compiler
from tests.sim.engine import SimulatedEngine, simulated_plan
from yolov3_trt.backends import STAGES, Backend, Wait, open_backend
from yolov3_trt.backends.trt import TensorRTBackend
from yolov3_trt.data.images import load_image
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.errors import BackendError, DeviceError, DeviceLostError, EngineError, ImageError
from yolov3_trt.geometry import Resize
from yolov3_trt.jobs.export import export as export_model
from yolov3_trt.meta import Batch, InputStage, OutputStage, Postprocess
from yolov3_trt.models import Model, load_model
from yolov3_trt.runtime import slot
from yolov3_trt.settings import GraphSettings
from yolov3_trt.shapes import iter_shapes_clip

pytestmark = pytest.mark.skipif(not has_compiler(), reason="g++ is not installed: nothing compiles the simulation")

OPTIONS = {
    "heads": GraphSettings(),
    "dynamic": GraphSettings(batch=Batch(1, 2, 4)),
    "pixels, fixed batch": GraphSettings(input_stage=InputStage.PIXELS, batch=Batch(2, 2, 2)),
    "detections": GraphSettings(output_stage=OutputStage.DETECTIONS, batch=Batch(1, 1, 2)),
    "whole frames": GraphSettings(
        input_stage=InputStage.PIXELS, frame_size=(120, 200), output_stage=OutputStage.DETECTIONS
    ),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The bundled model's graph with OPTIONS, exported once."""
    folder = tmp_path_factory.mktemp("graphs")

    def export(kind: str) -> Path:
        path = folder / f"{kind.replace(' ', '-')}.onnx"
        if not path.exists():
            export_model(load_model("shapes"), path, graph=OPTIONS[kind])
        return path

    return export


@pytest.fixture(scope="module")
def exported_coco(
    coco_model: Callable[[str], Model], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A real model's FP32 graph, exported once."""
    folder = tmp_path_factory.mktemp("coco")

    def export(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            export_model(coco_model(name), path)
        return path

    return export


class Rig:
    """A backend on a simulated device, and what is under it."""

    def __init__(
        self,
        graph: Path,
        *,
        is_integrated: bool = False,
        traced: bool = False,
        why_not_captured: str | None = None,
        arithmetic: Arithmetic | None = None,
        shares_profile: bool = True,
        tf32: bool = False,
        **opened_with: Any,
    ) -> None:
        self.device = SimulatedCuda(seed=1, is_integrated=is_integrated, traced=traced)
        self.engines: list[SimulatedEngine] = []
        self._engine = {
            "why_not_captured": why_not_captured,
            "arithmetic": arithmetic,
            "shares_profile": shares_profile,
        }
        self._graph, self._plan, self._opened_with = graph, simulated_plan(graph, tf32=tf32), opened_with
        self.prepare_engine: Callable[[SimulatedEngine], None] = lambda engine: None

    def open(self) -> TensorRTBackend:
        def open_engine(_plan: object, device: SimulatedCuda) -> SimulatedEngine:
            self.engines.append(SimulatedEngine(self._graph, device, **self._engine))
            self.prepare_engine(self.engines[-1])
            return self.engines[-1]

        return TensorRTBackend(
            self._plan, open_device=lambda: self.device, open_engine=open_engine, **self._opened_with
        )

    def detector(self, **postprocess: float) -> Detector:
        backend = self.open()
        return Detector(backend, backend.meta.postprocess.override(**postprocess))

    @property
    def num_graph_launches(self) -> int:
        """Launches less those of kernels; a kernel in a graph does not count."""
        return self.device.done["graph launch"]


@pytest.fixture
def rig(graph: Callable[[str], Path]) -> Iterator[Callable[..., Rig]]:
    """Makes rigs; whatever a test did with one, nothing is left on its device."""
    rigs: list[Rig] = []

    def make(kind: str = "heads", **options: bool | str) -> Rig:
        rigs.append(Rig(graph(kind), **options))
        return rigs[-1]

    yield make
    for made in rigs:
        made.device.close()
        assert made.device.num_live == 0
        assert made.device.free_bytes_after_close == made.device.total_bytes


def pictures(count: int, image_hw: tuple[int, int] = (120, 200), seed: int = 3) -> list[np.ndarray]:
    return [picture.pixels for picture in iter_shapes_clip(seed, count, image_hw)]


def same(found: Detections, expected: Detections) -> None:
    """Equal to the last bit of a box, class and order; scores to what two ways of an exponential differ by."""
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, rtol=1e-6, atol=1e-3)


def same_lists(found: list[Detections], expected: list[Detections]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        same(a, b)


# --- it gives what the same graph gives under ONNX Runtime ---


@pytest.mark.parametrize("is_integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("kind", OPTIONS)
def test_detections_equal_those_of_the_onnxruntime_backend(
    kind: str, is_integrated: bool, graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames = pictures(5)
    with open_detector(graph(kind)) as expected, rig(kind, is_integrated=is_integrated).detector() as detector:
        assert isinstance(detector.backend, Backend)
        wanted = expected(frames)
        assert sum(map(len, wanted)) > 5
        same_lists(detector(frames), wanted)
        same(detector(frames[3]), wanted[3])
        assert detector.backend.fallbacks == ()


@pytest.mark.data
@pytest.mark.parametrize("resize", Resize, ids=lambda resize: resize.value)
@pytest.mark.parametrize("name", EACH_COCO_MODEL)
def test_detections_of_real_models_on_photographs_equal_those_of_onnxruntime(
    name: str, resize: Resize, data: Path, exported_coco: Callable[[str], Path]
):
    graph = exported_coco(name)
    rig = Rig(graph)
    images = [load_image(path) for path in sorted((data / "coco" / "val64" / "images").glob("*.jpg"))[::4]]
    with open_detector(graph, conf=0.1, resize=resize) as expected:
        backend = rig.open()
        with Detector(backend, backend.meta.postprocess.override(conf=0.1), resize) as detector:
            wanted = expected(images)
            assert sum(map(len, wanted)) > 50
            same_lists(detector(images), wanted)
            assert detector.backend.fallbacks == ()


def test_pictures_of_any_sizes_share_a_batch(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    frames = [*pictures(1, (97, 131)), *pictures(2, (200, 100)), *pictures(1, (64, 64))]
    with open_detector(graph("dynamic")) as expected, rig("dynamic").detector() as detector:
        same_lists(detector(frames), expected(frames))


def test_a_batch_larger_than_the_engine_takes_is_split_and_smaller_ones_are_run_as_they_are(
    graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames, made = pictures(7), rig("dynamic")
    with open_detector(graph("dynamic")) as expected, made.detector() as detector:
        same_lists(detector(frames), expected(frames))
        assert made.engines[0].num_runs == 2  # 4 and 3


def test_the_network_alone_gives_the_heads_that_onnxruntime_gives(
    graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    with open_detector(graph("dynamic")) as expected, rig("dynamic").open() as backend:
        batch, _ = expected.backend.prepare(pictures(3))
        wanted = expected.backend.network.infer(batch)
        for name, values in backend.infer(batch).items():
            np.testing.assert_array_equal(values, wanted[name])
        with pytest.raises(BackendError, match=r"got a batch of float64"):
            backend.infer(batch.astype(float))


def test_thresholds_of_the_detector_apply_on_the_device(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    frames = pictures(4)
    with (
        open_detector(graph("heads"), conf=0.6, iou=0.2, max_detections=2) as expected,
        rig().detector(conf=0.6, iou=0.2, max_detections=2) as detector,
    ):
        same_lists(detector(frames), expected(frames))


# --- CUDA graphs: the second time that the same work comes ---


def test_work_that_comes_again_runs_as_a_graph(rig: Callable[..., Rig]):
    made = rig()
    with made.detector() as detector:
        first = detector(pictures(1)[0])
        assert (made.device.done["capture"], made.num_graph_launches) == (0, 0)
        for picture in pictures(4):
            detector(picture)
        assert (made.device.done["capture"], made.num_graph_launches) == (1, 4)
        same(detector(pictures(1)[0]), first)


def test_a_graph_is_captured_again_for_another_size_of_pictures(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    made = rig()
    small, large = pictures(3), pictures(3, (300, 260))
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        for picture in [*small, *large, *small]:  # the larger ones move the memory of the pictures
            same(detector(picture), expected(picture))
        assert made.device.done["capture"] == 3
        for picture in [small[0], large[0], small[1], large[1]]:  # both fit now, and both graphs are kept
            same(detector(picture), expected(picture))
        assert made.device.done["capture"] == 3


def test_each_number_of_pictures_keeps_its_graph(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    frames = pictures(4)
    # Cameras alternate between numbers of frames. Without memory for another context the one that is there changes its shape.
    for failing, launches in ((None, 7), ("execution", 3), ("shape", 3)):
        made = rig("dynamic")
        with open_detector(graph("dynamic")) as expected, made.detector() as detector:
            if failing:
                for nth in range(1, 20, 2 if failing == "shape" else 1):
                    made.engines[0].fail(failing, nth)
            for count in (1, 1, 3, 3, 1, 3, 4, 4, 3, 1):
                same_lists(detector(frames[:count]), expected(frames[:count]))
            assert made.num_graph_launches == launches, failing


def test_only_some_graphs_are_kept(rig: Callable[..., Rig]):
    made = rig()
    with made.detector() as detector:
        detector(np.zeros((200, 200, 3), np.uint8))
        for _ in range(2):
            for side in range(100, 112):
                detector(np.zeros((side, side, 3), np.uint8))
        alive = made.device.num_live
        for side in range(100, 112):
            detector(np.zeros((side, side, 3), np.uint8))
        assert made.device.num_live == alive


def test_without_graphs_it_says_so(rig: Callable[..., Rig]):
    made = rig(use_graphs=False)
    with made.detector() as detector:
        for picture in pictures(3):
            detector(picture)
        assert made.device.done["capture"] == 0
        assert detector.backend.fallbacks == ("no CUDA graph: switched off",)


def test_an_engine_with_graphs_of_its_own_is_not_captured(rig: Callable[..., Rig]):
    made = rig(why_not_captured="TensorRT-RTX captures the network in a CUDA graph of its own")
    with made.detector() as detector:
        for picture in pictures(3):
            detector(picture)
        assert made.device.done["capture"] == 0
        (reason,) = detector.backend.fallbacks
        assert reason == "no CUDA graph: TensorRT-RTX captures the network in a CUDA graph of its own"


def test_a_capture_that_fails_leaves_the_work_running_without_a_graph(
    graph: Callable[[str], Path], rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
):
    made = rig()
    frames = pictures(5)
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        for nth in (1, 2, 3):
            made.device.fail("capture", nth)
        with caplog.at_level(logging.WARNING):
            for picture in frames:
                same(detector(picture), expected(picture))
        assert made.device.done["capture"] == 3
        (reason,) = detector.backend.fallbacks
        assert "capturing failed" in reason and "the capture that shall fail" in reason
        assert caplog.text.count("capturing failed") == 1


def test_a_capture_that_fails_once_is_tried_again_without_a_word(
    graph: Callable[[str], Path], rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
):
    """As by another thread that waits for the whole device meanwhile (NVIDIA/TensorRT#2888)."""
    made = rig()
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        first, second, *others = pictures(4)
        same(detector(first), expected(first))

        def wait_in_another_thread() -> None:
            thread = threading.Thread(target=made.device.disturb)
            thread.start()
            thread.join()

        made.engines[0].during_enqueue = wait_in_another_thread
        same(detector(second), expected(second))
        made.engines[0].during_enqueue = lambda: None
        for picture in others:
            same(detector(picture), expected(picture))
        assert (made.device.done["capture"], made.num_graph_launches) == (2, 2)
        assert (detector.backend.fallbacks, "capturing failed" in caplog.text) == ((), False)


def test_nothing_is_collected_while_a_graph_is_captured(rig: Callable[..., Rig]):
    """What the collector frees of another device breaks a capture: cuMemFree is not allowed then."""
    made = rig()

    class OfAnotherDevice:
        def __del__(self) -> None:
            made.device.disturb()

    def make_garbage() -> None:
        garbage = OfAnotherDevice()
        garbage.itself = garbage  # type: ignore[attr-defined]
        del garbage
        _ = [[] for _ in range(3000)]  # enough for the collector to begin

    made.prepare_engine = lambda engine: setattr(engine, "during_enqueue", make_garbage)
    with made.detector() as detector:
        for picture in pictures(3):
            detector(picture)
        assert (made.device.done["capture"], made.num_graph_launches, detector.backend.fallbacks) == (1, 2, ())
    assert gc.isenabled()


def test_captures_that_fail_now_and_then_do_not_add_up(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    made = rig("dynamic")
    with open_detector(graph("dynamic")) as expected, made.detector() as detector:
        for count in (1, 2, 3, 4):  # another number of pictures begins afresh
            made.device.fail("capture")
            frames = pictures(count)
            for _ in range(3):  # as it is, the capture that fails, and the one that works
                same_lists(detector(frames), expected(frames))
        assert (made.device.done["capture"], detector.backend.fallbacks) == (8, ())


def test_an_engine_whose_profile_only_one_slot_may_use_finishes_the_first_batch_first(
    graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    """TensorRT 8 without profile sharing refuses the shape of a second context, of another slot or number of pictures."""
    made, frames = rig("dynamic", shares_profile=False), pictures(4)
    with open_detector(graph("dynamic")) as expected, made.detector() as detector:
        same_lists(detector(frames), expected(frames))
        for first, second in ((0, 1), (2, 3)):
            detector.submit([frames[first]])
            detector.submit([frames[second]])
            same(detector.result().detections[0], expected(frames[first]))
            same(detector.result().detections[0], expected(frames[second]))
        (reason,) = detector.backend.fallbacks
        assert reason.startswith("one batch at a time: ") and "profile 0 is another context's" in reason
    assert not made.device.num_live


def test_an_engine_rounds_to_tf32_only_where_it_was_built_so(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    batch = np.random.default_rng(0).random((1, 3, 256, 256), np.float32)
    with open_backend(graph("heads")) as reference:
        expected = {name: values.copy() for name, values in reference.infer(batch).items()}
    for tf32, arithmetic, least, most in ((False, None, 0, 1e-6), (True, Arithmetic.TF32, 2e-4, 2e-3)):
        with rig(tf32=tf32, arithmetic=arithmetic).open() as backend:
            assert backend.computes_in == ("tf32" if tf32 else None)
            for name, values in backend.infer(batch).items():
                error = np.linalg.norm(values - expected[name]) / np.linalg.norm(expected[name])
                assert least <= error <= most, name


def test_the_letterbox_reads_each_byte_of_shared_memory_about_once(rig: Callable[..., Rig]):
    made = rig(is_integrated=True, traced=True, use_graphs=False)
    with made.detector() as detector:
        detector(
            pictures(1, (270, 480))[0]
        )  # 1.9 px of it to one of the input, each of whose pixels has four neighbours
        assert 480 * 270 * 3 <= made.device.done["uncached sectors"] * SECTOR_BYTES < 1.25 * 480 * 270 * 3


def test_launches_are_built_once_and_before_the_gpu_is_timed(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []

    def telling(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def told_first(*args: Any, **kwargs: Any) -> Any:
            told.append(name)
            return function(*args, **kwargs)

        return told_first

    for name in ("letterbox", "decode", "nms"):
        monkeypatch.setattr(slot, name, telling(name, getattr(slot, name)))
    made = rig(use_graphs=False)
    with made.detector() as detector:
        monkeypatch.setattr(made.device, "launch", telling("launch", made.device.launch))
        small, large = pictures(1), pictures(1, (130, 200))
        detector.backend.device_stages_ms(small)
        assert told == ["letterbox", "decode", "nms", "launch", "launch", "launch"]
        told.clear()
        detector(small[0])
        assert told == ["launch"] * 3
        for frames, built in ((large, 3), (large, 0), (small, 3)):  # memory for larger ones lies elsewhere
            told.clear()
            detector(frames[0])
            assert len(told) == 3 + built


def test_ever_larger_pictures_do_not_take_memory_anew_with_each(rig: Callable[..., Rig]):
    made = rig()
    with made.detector() as detector:
        detector(np.zeros((100, 100, 3), np.uint8))
        before = made.device.done["allocation"]
        for side in range(101, 122):  # up to 1.46 times the bytes of the first
            detector(np.zeros((side, 100, 3), np.uint8))
        assert made.device.done["allocation"] - before == 2  # host and device, once


def test_only_a_device_with_memory_of_its_own_is_copied_to(rig: Callable[..., Rig]):
    for is_integrated, copies in ((False, 2), (True, 0)):  # the picture in, the detections out
        made = rig(is_integrated=is_integrated, use_graphs=False)
        with made.detector() as detector:
            detector(pictures(1)[0])
            before = made.device.done["copy"]
            detector(pictures(1)[0])
            assert made.device.done["copy"] == before + copies


def test_a_thread_sleeps_unless_the_work_is_short_and_alone(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch):
    made, (frame,) = rig(), pictures(1)
    slept: list[bool] = []
    wait = SimulatedEvent.synchronize
    monkeypatch.setattr(SimulatedEvent, "synchronize", lambda event: (slept.append(not event.has_time), wait(event))[1])
    with made.detector() as detector:
        for short_s, expected in ((0.0, [True, True]), (60.0, [True, False])):  # the first after it was long: as it was
            monkeypatch.setattr(slot, "_SHORT_S", short_s)
            slept.clear()
            detector(frame)
            detector(frame)
            assert slept == expected
        for _ in range(2):
            slept.clear()
            detector.submit([frame])
            detector.submit([frame])
            detector.result()
            detector.result()
        assert slept == [False, True]


@pytest.mark.parametrize("wait", ["spin", "sleep"])
def test_a_thread_waits_as_it_is_told(wait: str, rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch):
    made, (frame,) = rig(wait=Wait(wait)), pictures(1)
    slept: list[bool] = []
    synchronize = SimulatedEvent.synchronize
    monkeypatch.setattr(
        SimulatedEvent, "synchronize", lambda event: (slept.append(not event.has_time), synchronize(event))[1]
    )
    with made.detector() as detector:
        for _ in range(2):
            detector.submit([frame])
            detector.submit([frame])
            detector.result()
            detector.result()
    assert slept == [wait == "sleep"] * 4


def test_only_the_lines_that_the_letterbox_reads_are_copied(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    (frame,) = pictures(1, (1080, 1920))
    made = rig(use_graphs=False)
    with made.detector() as detector, open_detector(graph("heads")) as expected:
        same_lists(detector([frame]), expected([frame]))
        side = detector.meta.input_hw[0]
    assert made.device.done["bytes to the device"] == 2 * (1080 * side // 1920) * 1920 * 3 < frame.nbytes / 2


class OnGpu:
    """A picture in the memory of a device, with a pitch, as a decoder leaves it."""

    def __init__(self, device: SimulatedCuda, picture: np.ndarray, **changes: object) -> None:
        height, width = picture.shape[:2]
        pitch = 3 * width + 20
        self.array = device.device_array((height * pitch,), np.uint8)
        lines = device.view(self.array, (height * pitch,)).reshape(height, pitch)
        lines[:, : 3 * width] = picture.reshape(height, -1)
        self.__cuda_array_interface__ = {
            **{"shape": picture.shape, "typestr": "|u1", "strides": (pitch, 3, 1)},
            **{"data": (self.array.address, True), "version": 3},
            **changes,
        }


def test_pictures_that_lie_on_the_gpu_are_fitted_where_they_are(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    made = rig("dynamic")
    frames = [pictures(1)[0], pictures(1, (90, 160))[0]]
    with open_detector(graph("dynamic")) as expected, made.detector() as detector:
        there = [OnGpu(made.device, frame) for frame in frames]
        copied = made.device.done["bytes to the device"]
        for _ in range(3):
            same_lists(detector(there), expected(frames))
        assert (made.device.done["bytes to the device"], made.num_graph_launches) == (copied, 2)
        same(detector(there[0]), expected(frames[0]))
        for changes, message in (
            ({"typestr": "<f4"}, r"is <f4 \(120, 200, 3\); expected uint8"),
            ({"strides": (620, 1, 3)}, r"has strides \(620, 1, 3\); expected pixels side by side"),
            ({"stream": 7}, "still written by a stream"),
        ):
            with pytest.raises(ImageError, match=message):
                detector(OnGpu(made.device, frames[0], **changes))
        with pytest.raises(ImageError, match="some images of a batch are on the GPU"):
            detector([there[0], frames[1]])
        with pytest.raises(ImageError, match="expected uint8"):
            expected(there[0])
        same_lists(detector(frames), expected(frames))


# --- two slots ---


def test_two_batches_are_under_way_at_a_time_and_results_come_in_their_order(
    graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames = pictures(6)
    with open_detector(graph("heads")) as expected, rig().detector() as detector:
        assert detector.num_slots == 2
        detector.submit([frames[0]])
        found = []
        for picture in frames[1:]:
            detector.submit([picture])
            found += detector.result().detections
        found += detector.result().detections
        same_lists(found, expected(frames))


def test_more_pictures_than_a_batch_keep_both_slots_busy_and_a_failure_leaves_none_under_way(
    graph: Callable[[str], Path], rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
):
    made, frames = rig(), pictures(5)
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        under_way: list[int] = []
        submit = detector.backend.submit
        monkeypatch.setattr(
            detector.backend,
            "submit",
            lambda images: (submit(images), under_way.append(len(detector.backend._running))),
        )
        timed = detector.timed(frames)
        same_lists(timed.detections, expected(frames))
        assert under_way == [1, 2, 2, 2, 2]
        assert all(seconds >= 0 for seconds in timed.stages_s.values())
        with pytest.raises(ImageError):
            detector([frames[0], frames[1], np.zeros((0, 3), np.uint8), frames[2]])
        same(detector(frames[3]), expected(frames[3]))


def test_a_third_batch_is_refused_and_a_result_that_nothing_leads_to(rig: Callable[..., Rig]):
    (frame,) = pictures(1)
    with rig().detector() as detector:
        with pytest.raises(BackendError, match="there is no result to wait for; submit pictures first"):
            detector.result()
        detector.submit([frame])
        detector.submit([frame])
        with pytest.raises(BackendError, match="2 batches are under way; take a result first"):
            detector.submit([frame])
        with pytest.raises(BackendError, match="pictures are under way"):
            detector.backend.infer(np.zeros(detector.meta.input_shape(1), np.float32))
        assert len(detector.result().detections) == len(detector.result().detections) == 1


def test_pictures_may_be_overwritten_once_they_are_submitted(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    (frame,) = pictures(1)
    with open_detector(graph("heads")) as expected, rig().detector() as detector:
        wanted = expected(frame)
        detector.submit([frame])
        frame[:] = 0
        same(detector.result().detections[0], wanted)


def test_without_memory_for_a_second_slot_the_first_one_is_finished_first(
    graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames, made = pictures(6), rig()
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        detector(frames[0])
        made.device.fail("allocation", 3)
        alive = made.device.num_live
        found = []
        for first, second in zip(frames[::2], frames[1::2], strict=True):
            detector.submit([first])
            detector.submit([second])
            found += [*detector.result().detections, *detector.result().detections]
        same_lists(found, expected(frames))
        (reason,) = detector.backend.fallbacks
        assert reason.startswith("one batch at a time: ")
        assert made.device.num_live == alive + 1  # a graph


def test_the_time_is_split_into_stages(rig: Callable[..., Rig]):
    with rig().detector() as detector:
        timed = detector.timed(pictures(3))
        assert len(timed.detections) == 3
        assert tuple(timed.stages_s) == STAGES
        assert all(seconds > 0 for seconds in timed.stages_s.values())
        assert timed.stages_s["inference"] > timed.stages_s["postprocess"]


def test_the_device_times_its_own_stages(rig: Callable[..., Rig]):
    made = rig()
    with made.open() as backend:
        times = backend.device_stages_ms(pictures(1))
        assert list(times) == ["copy_in", "preprocess", "network", "postprocess", "copy_out"]
        assert all(time_ms >= 0 for time_ms in times.values()) and times["network"] > 0
        alive = made.device.num_live
        backend.device_stages_ms(pictures(1))
        assert made.device.num_live == alive


# --- what the GPU cannot do, the host does, and it is said ---


def test_without_kernels_the_host_fits_pictures_and_finds_detections(
    graph: Callable[[str], Path], rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
):
    frames, made = pictures(5), rig("dynamic")

    def no_nvcc() -> None:
        raise DeviceError("nvcc is not installed")

    monkeypatch.setattr(made.device, "load_kernels", no_nvcc)
    with open_detector(graph("dynamic")) as expected, made.detector() as detector:
        same_lists(detector(frames), expected(frames))
        same_lists(detector(frames[:2]), expected(frames[:2]))
        assert detector.backend.fallbacks == (
            "pictures are fitted and detections found on the host: nvcc is not installed",
        )


def test_more_candidates_than_suppression_takes_on_the_device_are_left_to_the_host(
    graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames, backend = pictures(3), rig().open()
    many = Postprocess(conf=0.25, max_candidates=2000)
    with open_detector(graph("heads")) as expected, Detector(backend, many) as detector:
        same_lists(detector(frames), expected(frames))
        (reason,) = detector.backend.fallbacks
        assert reason.startswith("detections are found on the host: max_candidates=2000")


def test_images_with_more_candidates_than_the_list_holds_are_decoded_on_the_host(
    graph: Callable[[str], Path], rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
):
    from yolov3_trt.runtime.kernels import detect

    monkeypatch.setattr(detect.CandidateBuffers, "__init__", small_lists(detect.CandidateBuffers.__init__))
    frames = pictures(4)
    with (
        open_detector(graph("dynamic"), conf=0.01) as expected,
        rig("dynamic").detector(conf=0.01) as detector,
    ):
        same_lists(detector(frames), expected(frames))
        (reason,) = detector.backend.fallbacks
        assert reason.startswith("detections of some images are found on the host: more than ")
        same_lists(detector(frames), expected(frames))


def small_lists(original: Callable[..., None]) -> Callable[..., None]:
    """Lists of four candidates in memory for many."""
    return lambda self, counts, keys, boxes: original(self, counts, keys, boxes, 4)


# --- faults: the right error, nothing lost, and the next call works ---


def test_heads_of_nan_are_no_empty_scene_on_the_device_either(rig: Callable[..., Rig]):
    made, values = rig("dynamic"), np.float32(-9)

    def fixed(engine: SimulatedEngine) -> None:
        run = engine.run
        engine.run = lambda inputs: {name: np.full_like(array, values) for name, array in run(inputs).items()}

    made.prepare_engine = fixed
    with made.detector() as detector:
        assert [len(found) for found in detector(pictures(3))] == [0, 0, 0]  # looked at: 1 and 2
        values = np.float32(np.nan)
        with pytest.raises(BackendError, match="all of head0 is NaN, so nothing can be found"):
            detector(pictures(1))  # 4
        assert len(detector(pictures(1))[0]) == 0  # not looked at
        values = np.float32(-9)
        assert len(detector(pictures(1))[0]) == 0


def test_a_frame_of_another_size_is_refused_where_whole_frames_are_wanted(rig: Callable[..., Rig]):
    with rig("whole frames").detector() as detector:
        with pytest.raises(ImageError, match=r"an image is 90x200; expected .*120, 200.* without frame_size"):
            detector(np.zeros((90, 200, 3), np.uint8))
        detector(np.zeros((120, 200, 3), np.uint8))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused_and_the_next_one_works(image: np.ndarray, rig: Callable[..., Rig]):
    with rig("dynamic").detector() as detector:
        with pytest.raises(ImageError, match="expected uint8"):
            detector([pictures(1)[0], image])
        assert len(detector(pictures(3))) == 3
        with pytest.raises(BackendError, match="got 5 pictures; expected 1 to 4"):
            detector.submit(pictures(5))


@pytest.mark.parametrize("kind", ["heads", "detections", "whole frames"])
@pytest.mark.parametrize("is_integrated", [False, True], ids=["discrete", "integrated"])
def test_without_memory_at_any_allocation_nothing_is_left_and_the_next_call_works(
    kind: str, is_integrated: bool, graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    (frame,) = pictures(1)
    with open_detector(graph(kind)) as reference:
        expected = reference(frame)
    counted = rig(kind, is_integrated=is_integrated)
    with counted.detector() as detector:
        detector(frame)
    total = counted.device.done["allocation"]
    assert total >= 6
    for nth in range(1, total + 1):
        made = rig(kind, is_integrated=is_integrated)
        made.device.fail("allocation", nth)
        backend = made.open()
        with backend:
            alive = made.device.num_live
            with pytest.raises(DeviceError, match="the allocation that shall fail"):
                Detector(backend)(frame)
            if not backend._slots:
                assert made.device.num_live == alive
            same(Detector(backend)(frame), expected)
        assert made.device.num_live == 0


@pytest.mark.parametrize("what", ["execution", "address"])
def test_an_engine_without_an_execution_context_is_an_error_that_leaves_nothing(what: str, rig: Callable[..., Rig]):
    made = rig()
    made.prepare_engine = lambda engine: engine.fail(what)
    with made.open() as backend:
        with pytest.raises(EngineError, match=f"the {what} that shall fail"):
            Detector(backend)
        assert made.device.num_live == 0
        assert not any(execution.is_open for execution in made.engines[0].executions)
        Detector(backend)(pictures(1)[0])


def break_next(made: Rig, call: str) -> None:
    if call == "enqueue":
        made.engines[0].fail(call)
    else:
        made.device.fail(call)


@pytest.mark.parametrize("call", ["copy", "launch", "enqueue", "synchronize"])
def test_a_call_that_fails_is_an_error_and_the_next_one_works(
    call: str, graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames, made = pictures(6), rig(use_graphs=False)
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        for bad, good in zip(frames[::2], frames[1::2], strict=True):
            break_next(made, call)
            with pytest.raises((DeviceError, EngineError), match=f"the {call} that shall fail"):
                detector(bad)
            same(detector(good), expected(good))


def test_after_a_fault_of_the_gpu_nothing_falls_back_and_all_of_it_is_freed(rig: Callable[..., Rig]):
    frames = pictures(1)
    made = rig()
    with made.detector() as detector:
        detector(frames)
        made.device.break_()
        for _ in range(2):  # as a graph, which is not captured three times then, and on a second slot
            with pytest.raises(DeviceLostError, match="illegal memory access"):
                detector(frames)
        with pytest.raises(DeviceLostError):
            detector.backend.configure(detector.meta.preprocess, detector.postprocess)
        assert detector.backend.fallbacks == () and made.device.done["capture"] <= 1


@pytest.mark.parametrize("call", ["launch", "synchronize"])
def test_a_graph_that_fails_is_an_error_and_its_next_launch_works(
    call: str, graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames, made = pictures(6), rig()
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        for frame in frames[:2]:  # one at a time: in the same slot
            detector(frame)
        launched = made.num_graph_launches
        for bad, good in zip(frames[2::2], frames[3::2], strict=True):
            break_next(made, call)
            with pytest.raises(DeviceError, match=f"the {call} that shall fail"):
                detector(bad)
            same(detector(good), expected(good))
        assert made.num_graph_launches >= launched + 2
        assert detector.backend.fallbacks == ()


@pytest.mark.parametrize("call", ["copy", "launch", "enqueue"])
def test_a_call_that_fails_while_it_is_captured_costs_neither_the_result_nor_the_next_capture(
    call: str, graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    frames, made = pictures(4), rig()
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        detector(frames[0])
        break_next(made, call)
        same_lists(detector(frames), expected(frames))
        captured = made.device.done["capture"]
        same(detector(frames[3]), expected(frames[3]))
        assert (made.device.done["capture"], detector.backend.fallbacks) == (captured, ())  # the second try worked


def test_a_failure_in_one_slot_leaves_the_other_alone(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    frames, made = pictures(3), rig(use_graphs=False)
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        detector.submit([frames[0]])
        detector.submit([frames[1]])
        made.device.fail("synchronize")
        with pytest.raises(DeviceError, match="the synchronize that shall fail"):
            detector.result()
        same(detector.result().detections[0], expected(frames[1]))
        same(detector(frames[2]), expected(frames[2]))


def test_candidates_of_a_failed_run_are_not_found_in_the_next(graph: Callable[[str], Path], rig: Callable[..., Rig]):
    full, empty = pictures(1)[0], np.zeros((120, 200, 3), np.uint8)
    made = rig(use_graphs=False)
    with open_detector(graph("heads")) as expected, made.detector() as detector:
        detector(empty)
        made.device.fail("launch", 3)  # letterbox, decode, nms: the candidates stay in their list
        with pytest.raises(DeviceError, match="the launch that shall fail"):
            detector(full)
        same(detector(empty), expected(empty))


def test_another_thread_is_refused_by_name(rig: Callable[..., Rig]):
    errors: list[str] = []
    with rig().detector() as detector:

        def use() -> None:
            for action in (lambda: detector(pictures(1)[0]), detector.close):
                try:
                    action()
                except DeviceError as exc:
                    errors.append(str(exc))

        thread = threading.Thread(target=use, name="grabber")
        thread.start()
        thread.join()
        assert len(errors) == 2
        assert all("opened by thread 'MainThread', used by thread 'grabber'" in error for error in errors)
        detector(pictures(1)[0])


def test_use_after_close_is_refused_and_closing_again_does_nothing(rig: Callable[..., Rig]):
    made = rig()
    detector = made.detector()
    detector(pictures(1)[0])
    detector.submit(pictures(1))  # nobody takes the result
    detector.close()
    detector.close()
    assert made.device.num_live == 0
    assert not made.engines[0].is_open
    for call in (lambda: detector(pictures(1)[0]), detector.result):
        with pytest.raises(BackendError, match="shapes: this tensorrt backend is closed; open the artifact again"):
            call()


def test_an_engine_with_other_outputs_than_its_sidecar_says_is_refused(
    graph: Callable[[str], Path], rig: Callable[..., Rig]
):
    device = SimulatedCuda()
    plan = simulated_plan(graph("heads"))
    with pytest.raises(EngineError, match=r"the engine has images, num_detections.*its sidecar says.*build it again"):
        TensorRTBackend(
            plan,
            open_device=lambda: device,
            open_engine=lambda _, opened: SimulatedEngine(graph("detections"), opened),
        )
    with pytest.raises(EngineError, match=r"the engine has IOTensor\(name='images'.*its sidecar says IOTensor"):
        device = SimulatedCuda()
        TensorRTBackend(
            plan, open_device=lambda: device, open_engine=lambda _, opened: SimulatedEngine(graph("dynamic"), opened)
        )
    assert device.num_live == 0
