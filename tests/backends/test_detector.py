"""The object users hold: what it takes, what it refuses, and the host's path around what only runs the network."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx as onnx_package
import pytest

from tests.fakes import FakeBackend, SlowBackend, TwoSlots, grey_pictures
from yolov3_trt import compare, packages
from yolov3_trt.backends import Backend, BackendName, TensorBackend, ort
from yolov3_trt.backends.host_path import HostPath, fit_batch, network_of
from yolov3_trt.backends.ort import OrtBackend
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.errors import BackendError, ImageError, MetaError, MissingDependency, SettingError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.jobs.export import export as export_model
from yolov3_trt.meta import Batch, load_model_meta, save_sidecar
from yolov3_trt.models import load_model
from yolov3_trt.settings import DetectSettings
from yolov3_trt.shapes import shapes_picture
from yolov3_trt.spec import Nms, NmsKind


def widths(found: list[Any]) -> list[float]:
    """What `FakeBackend` saw: the first blue value of each picture."""
    return [float(one.xyxy[0, 2]) for one in found]


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(load_model("shapes"), tmp_path_factory.mktemp("detector") / "shapes.onnx").path


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), shapes_picture(7, 0).pixels)
    return path


# --- sidecars that do not fit their graph ---


@pytest.mark.parametrize(
    "change, text",
    [
        (
            {"input_hw": (320, 320)},
            "'images' is float32 [1, 3, 256, 256]; its sidecar says float32 [1, 3, 320, 320]",
        ),
        (
            {"input_stage": "pixels"},
            "'images' is float32 [1, 3, 256, 256]; its sidecar says uint8 [1, 256, 256, 3]",
        ),
        ({"batch": Batch(2, 2, 2)}, "'images' is float32 [1, 3, 256, 256]; its sidecar says float32 [2, 3, 256"),
        (
            {"batch": Batch(1, 1, 2)},
            "'images' is float32 [1, 3, 256, 256]; its sidecar says float32 ['N', 3, 256",
        ),
        ({"output_stage": "detections"}, "the graph's outputs are ["),
        ({"class_names": tuple("abcde")}, "its sidecar says float32 [1, 30,"),
    ],
)
def test_a_sidecar_that_does_not_fit_its_graph_is_refused_before_anything_runs(
    onnx: Path, tmp_path: Path, change: dict[str, Any], text: str
):
    meta = load_model_meta(onnx)
    if "class_names" in change:
        change = {**change, "heads": tuple(replace(head, num_classes=5) for head in meta.heads)}
    path = tmp_path / onnx.name
    path.hardlink_to(onnx)
    save_sidecar(replace(meta, **change), path)
    with pytest.raises(BackendError, match="the graph's") as caught:
        open_detector(path)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_weights_in_other_files_which_no_hash_covers_are_refused(onnx: Path, tmp_path: Path):
    model = onnx_package.load(onnx)
    path = tmp_path / "outside.onnx"
    onnx_package.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    save_sidecar(replace(load_model_meta(onnx), onnx_sha256=sha256_of_file(path)), path)
    with pytest.raises(MetaError, match="keeps weights in other files"):
        load_model_meta(path)


def test_what_fails_inside_onnxruntime_is_one_line_of_ours(onnx: Path):
    run = ort.graph_runner(onnx.read_bytes())
    with pytest.raises(BackendError, match="the graph: ONNX Runtime fails while it runs it: ") as caught:
        run({"images": np.zeros((1, 3, 8, 8), np.float32)})
    assert "\n" not in str(caught.value)


# --- pictures ---


def test_a_picture_is_an_array_or_a_path_as_text_or_path(picture_file: Path):
    with open_detector("shapes") as detect:
        expected = detect(cv2.imread(str(picture_file)))
        assert len(expected) > 0
        for one in (picture_file, str(picture_file)):
            assert np.array_equal(detect(one).xyxy, expected.xyxy)
        both = detect([str(picture_file), picture_file, shapes_picture(7, 1).pixels])
    assert [len(found) for found in both[:2]] == [len(expected)] * 2 and len(both) == 3


def test_several_pictures_may_come_from_any_iterable():
    detect = Detector(FakeBackend())
    assert widths(detect(picture for picture in grey_pictures([3, 5]))) == [3, 5]
    assert widths(detect(tuple(grey_pictures([7])))) == [7]
    assert detect([]) == []


@pytest.mark.parametrize(
    "images, got",
    [
        (None, "got None (as OpenCV's imread gives for a file that it cannot read)"),
        (7, "got int"),
        ([grey_pictures([1])[0], None], "got None (as"),
        ([object()], "got object"),
        (b"dog.jpg", "got bytes"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(images: Any, got: str):
    with pytest.raises(ImageError) as caught:
        Detector(SlowBackend(0, max_batch=4))(images)
    assert str(caught.value).startswith(got)
    assert str(caught.value).endswith(
        "; expected a picture, uint8 (height, width, 3) BGR, the path of one, or several of these"
    )


def test_a_path_without_a_picture_says_so(tmp_path: Path):
    with pytest.raises(ImageError, match=r"missing\.jpg: cannot be read"):
        Detector(FakeBackend())(tmp_path / "missing.jpg")


# --- closed ---


def forms_of(onnx: Path) -> dict[str, Callable[[], Detector]]:
    return {
        "torch": lambda: open_detector("shapes", device="cpu"),
        "onnxruntime": lambda: open_detector(onnx),
        "opencv": lambda: open_detector("shapes", backend="opencv"),
    }


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "opencv"])
def test_calls_after_closing_are_refused_in_one_line(onnx: Path, name: str):
    detect = forms_of(onnx)[name]()
    picture = shapes_picture(7, 0).pixels
    assert len(detect(picture)) > 0
    detect.close()
    detect.close()
    for call in (lambda: detect(picture), lambda: detect.submit([picture]), detect.result):
        with pytest.raises(BackendError, match=f"shapes: this {name} backend is closed; open the artifact again"):
            call()


def test_a_network_that_is_closed_says_so_too(onnx: Path):
    backend = OrtBackend(onnx)
    batch, _ = fit_batch([shapes_picture(7, 0).pixels], backend.meta)
    assert backend.infer(batch)
    backend.close()
    with pytest.raises(BackendError, match="this onnxruntime backend is closed"):
        backend.infer(batch)


# --- opening ---


def test_settings_come_by_keyword_or_as_a_value_and_keywords_win(onnx: Path):
    with open_detector(
        onnx, detect=DetectSettings(conf=0.3, iou=0.6, nms=Nms(NmsKind.DIOU)), conf=0.4, nms="plain", resize="stretch"
    ) as detect:
        assert (detect.postprocess.conf, detect.postprocess.iou) == (0.4, 0.6)
        assert detect.postprocess.nms.kind is NmsKind.PLAIN
        assert detect.meta.preprocess.resize.value == "stretch"


@pytest.mark.parametrize("size, hw", [(192, (192, 192)), ("256x192", (192, 256)), ((192, 256), (192, 256))])
def test_an_input_size_is_a_number_a_text_or_a_pair(size: Any, hw: tuple[int, int]):
    with open_detector("shapes", input_size=size, device="cpu") as detect:
        assert detect.meta.input_hw == hw


def test_what_stands_for_a_path_opens_as_one(onnx: Path):
    class Exported(os.PathLike):
        def __fspath__(self) -> str:
            return str(onnx)

    for artifact in (Exported(), str(onnx), onnx):
        with open_detector(artifact) as detect:
            assert detect.backend.name.value == "onnxruntime"
    with open_detector(load_model("shapes")) as detect:
        assert detect.meta.name == "shapes"


@pytest.mark.parametrize(
    "keywords, text",
    [
        (
            {"backend": "caffe"},
            "backend: got 'caffe'; expected one of auto, torch, onnxruntime, tensorrt, triton, opencv, openvino",
        ),
        ({"device": "gpu"}, "device: got 'gpu'; expected one of auto, cpu, cuda"),
        ({"resize": "crop"}, "resize: got 'crop'; expected one of letterbox, stretch"),
        ({"nms": "soft"}, "nms: got 'soft'; expected one of cfg, plain"),
        ({"conf": 7}, "conf: got 7; expected 0 to 1"),
        ({"threads": 0}, "threads: got 0; expected 1 to 1024"),
        ({"trust": "yes"}, "trust: got 'yes'; expected True or False"),
        ({"input_size": "big"}, "input_size: got 'big'; expected WIDTHxHEIGHT or one number, e.g. 1280x720 or 416"),
        ({"weights": 3}, "weights: got 3; expected a text"),
    ],
)
def test_an_argument_without_such_a_value_is_refused_by_its_name(keywords: dict[str, Any], text: str):
    with pytest.raises(SettingError) as caught:
        open_detector("shapes", **keywords)
    assert str(caught.value) == text


def test_no_artifact_at_all_is_refused():
    with pytest.raises(SettingError, match="artifact: got None; expected a text"):
        open_detector(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "artifact, keywords, text",
    [
        ("yolo.engine", {"device": "cpu"}, "yolo.engine: device=cpu was asked for, but an engine runs on a GPU"),
        ("triton://host:1/m", {"device": "cuda"}, "device=cuda was asked for, but its server decides that"),
        ("shapes", {"backend": "opencv", "device": "cuda"}, "shapes: device=cuda was asked for, but OpenCV runs"),
        ("yolo.onnx", {"backend": "opencv"}, "yolo.onnx: opencv does not run this; it runs on onnxruntime"),
        ("yolo.onnx", {"input_size": 320}, "yolo.onnx: weights, names and input size are those it was exported with"),
    ],
)
def test_what_does_not_go_together_is_refused(artifact: str, keywords: dict[str, Any], text: str):
    with pytest.raises(BackendError) as caught:
        open_detector(artifact, **keywords)
    assert text in str(caught.value)


def test_a_backend_that_cannot_do_what_is_asked_is_closed_again():
    fake = FakeBackend()
    with pytest.raises(BackendError, match="export it again"):
        from yolov3_trt.detector import detector_on

        detector_on(fake, DetectSettings(conf=0.1))
    assert not fake.is_open


def test_without_cuda_that_works_onnxruntime_goes_on_with_the_cpu_and_says_why(
    onnx: Path, monkeypatch: pytest.MonkeyPatch
):
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with open_detector(onnx) as detect:
        assert network_of(detect.backend).device == "cpu"
        (reason,) = detect.backend.fallbacks
    assert reason.startswith("runs on the CPU: ") and "CUDAExecutionProvider" in reason
    with pytest.raises(BackendError, match="CUDAExecutionProvider"):
        ort.OrtBackend(onnx, device="cuda")


# --- the host's path ---


def test_only_what_takes_no_pictures_gets_the_hosts_path():
    fake, device = FakeBackend(), TwoSlots(0)
    assert isinstance(fake, TensorBackend) and not isinstance(fake, Backend)
    path = Detector(fake).backend
    assert isinstance(path, HostPath) and isinstance(path, Backend) and network_of(path) is fake
    assert Detector(device).backend is device


def test_a_path_takes_one_call_at_a_time_and_as_many_pictures_as_the_artifact():
    path = HostPath(SlowBackend(0, max_batch=2))
    with pytest.raises(BackendError, match="there is no result to wait for; submit pictures first"):
        path.result()
    with pytest.raises(BackendError, match="got 3 pictures; expected 1 to 2"):
        path.submit(grey_pictures([1, 2, 3]))
    with pytest.raises(BackendError, match="got 0 pictures; expected 1 to 2"):
        path.submit([])
    path.submit(grey_pictures([1, 2]))
    with pytest.raises(BackendError, match="a result is waiting; take it before the next pictures"):
        path.submit(grey_pictures([3]))
    assert widths(path.result().detections) == [1, 2]


def test_batches_of_all_sizes_share_the_memory_of_the_largest():
    path = HostPath(SlowBackend(0, max_batch=4))
    large, _ = path.prepare(grey_pictures([1, 2, 3, 4]))
    small, _ = path.prepare(grey_pictures([9]))
    assert np.shares_memory(large, small) and (len(large), len(small)) == (4, 1)
    assert small.flags.c_contiguous and small[0, 0, 0, 0] == 9


def test_an_artifact_that_wants_more_rows_gets_them():
    fake = SlowBackend(0)
    fake.meta = replace(fake.meta, batch=Batch(3, 3, 3))
    assert widths(Detector(fake)(grey_pictures([5]))) == [5]
    assert fake.calls == [3]


def test_a_detector_says_what_it_is():
    detector = Detector(FakeBackend())
    assert repr(detector) == "<Detector fake on onnxruntime: fp32, input 64x48, 1 classes, conf 0.25, iou 0.45>"


def test_without_pytorch_onnx_runtime_runs_the_graph_of_a_model(monkeypatch: pytest.MonkeyPatch):
    picture = shapes_picture(7, 0).pixels
    with open_detector("shapes") as reference:
        wanted = reference([picture, picture])
    monkeypatch.setattr(packages, "_is_there", lambda module: module != "torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    with open_detector("shapes") as detector:
        assert detector.backend.name is BackendName.ONNXRUNTIME
        assert any("PyTorch, the reference, is not installed" in text for text in detector.backend.fallbacks)
        found = detector([picture, picture])
    for mine, its in zip(found, wanted, strict=True):
        assert np.allclose(mine.scores, its.scores, atol=1e-4) and np.allclose(mine.xyxy, its.xyxy, atol=0.01)
        assert list(mine.class_ids) == list(its.class_ids) and len(its) > 0
    with pytest.raises(MissingDependency, match="torch"):
        open_detector("shapes", backend="torch")
    with pytest.raises(MissingDependency, match="torch"):
        compare("shapes", "shapes", images="photos/")
