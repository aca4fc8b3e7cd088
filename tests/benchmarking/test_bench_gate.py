"""The parity gate, on detections by hand and on a peer."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.fakes import TwoSlots
from tests.opencv_versions import needs_darknet_importer
from yolov3_trt.backends.host_path import HostPath
from yolov3_trt.backends.opencv_dnn import OpenCvBackend
from yolov3_trt.backends.pytorch import TorchBackend
from yolov3_trt.backends.torch_options import TorchOptions
from yolov3_trt.benchmarking.parity import BASELINE_TOLERANCE, TOLERANCES, Parity, Tolerance
from yolov3_trt.benchmarking.rows import Row
from yolov3_trt.benchmarking.runs import RunSpec
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.errors import BackendError
from yolov3_trt.meta import Precision
from yolov3_trt.models import load_model
from yolov3_trt.shapes import shapes_picture
from yolov3_trt.spec import Nms, NmsKind

TOLERANCE = Tolerance(0.05, 0.02, 0.9, 0.8, 0.1)
CONF = 0.25


def found(*rows: tuple[float, float, int]) -> Detections:
    """(left, score, class) each, boxes of 10 x 10 px."""
    lefts, scores, class_ids = zip(*rows, strict=True) if rows else ((), (), ())
    xyxy = np.array([[left, 0, left + 10, 10] for left in lefts], np.float32).reshape(-1, 4)
    return Detections(xyxy, np.array(scores, np.float32), np.array(class_ids, np.int32))


def checked(reference: Detections, row: Detections, tolerance: Tolerance = TOLERANCE) -> Parity:
    parity = Parity("torch", tolerance)
    parity.add(reference, row, CONF)
    return parity


def test_the_same_detections_pass():
    same = found((0, 0.9, 0), (50, 0.8, 1))
    content = checked(same, same).to_json()
    assert (content["matched"], content["missing"], content["extra"], content["passed"]) == (2, 0, 0, True)
    assert (content["max_score_difference"], content["min_iou"], content["share_matched"]) == (0, 1, 1)
    assert content["tolerance"]["min_iou"] == 0.9
    assert content["conclusive"]


def test_pictures_without_anything_pass_and_prove_nothing():
    content = checked(found(), found()).to_json()
    assert content["passed"] and not content["conclusive"]
    assert content["min_iou"] is None


def test_detections_of_one_side_alone_count_unless_they_are_near_the_threshold():
    parity = checked(found((0, 0.9, 0), (50, 0.3, 0)), found((0, 0.9, 0), (100, 0.6, 0), (150, 0.26, 0)))
    assert (parity.pairs.matched, parity.missing, parity.extra, parity.at_threshold) == (1, 0, 1, 2)
    assert parity.faults == ("50% matched (0 missing, 1 extra); expected 80%",)


def test_the_margin_shrinks_with_the_room_above_the_threshold():
    parity = Parity("torch", TOLERANCE)
    parity.add(found((0, 0.999, 0), (50, 0.991, 0)), found(), conf=0.99)
    assert (parity.missing, parity.at_threshold) == (1, 1)  # surely above 0.99 + 0.15 * 0.01


def test_another_class_is_another_object():
    parity = checked(found((0, 0.9, 0)), found((0, 0.9, 1)))
    assert (parity.pairs.matched, parity.missing, parity.extra) == (0, 1, 1)


def test_scores_and_boxes_must_be_near():
    parity = checked(found((0, 0.9, 0), (50, 0.8, 0)), found((0, 0.9, 0), (52, 0.74, 0)))
    # Boxes of 10 px that lie 2 px apart share 80 of 120.
    assert parity.faults == (
        "max score difference 0.0600; expected at most 0.05",
        "mean score difference 0.0300; expected at most 0.02",
        "IoU of a pair 0.667; expected at least 0.9",
    )
    assert not parity.to_json()["passed"]


def test_pictures_add_up():
    parity = Parity("torch", TOLERANCE)
    for row in (found((0, 0.9, 0)), found((0, 0.88, 0)), found()):
        parity.add(found((0, 0.9, 0)), row, CONF)
    assert (parity.pairs.images, parity.pairs.matched, parity.missing) == (3, 2, 1)
    assert parity.pairs.mean_score_difference == pytest.approx(0.01, abs=1e-6)


def test_every_precision_has_a_tolerance_and_the_exact_one_is_the_tightest():
    assert {precision.value for precision in Precision} <= TOLERANCES.keys()
    for name in ("max_score_difference", "mean_score_difference", "threshold_margin"):
        by_precision = [getattr(TOLERANCES[name_], name) for name_ in ("fp32", "fp16", "int8")]
        assert by_precision == sorted(by_precision)


def test_an_engine_that_rounds_to_tf32_is_named_and_held_so():
    class Rounding(TwoSlots):
        computes_in = "tf32"

    run = RunSpec("m.engine", "m.engine", "tensorrt", None, "cuda", None, True, lambda settings: Detector(Rounding(0)))
    row, reference = (Row(run, 2, Detector(backend)) for backend in (Rounding(0), TwoSlots(0)))
    row.hold_to(reference)
    assert row.parity is not None
    assert (row.label, row.precision, row.parity.tolerance) == ("m.engine tf32 batch 2", "tf32", TOLERANCES["tf32"])
    assert (reference.label, reference.precision) == ("m.engine batch 2", "fp32")
    for name in ("max_score_difference", "mean_score_difference", "threshold_margin"):
        assert getattr(TOLERANCES["fp32"], name) < getattr(TOLERANCES["tf32"], name)


# --- on the bundled model ---


@pytest.fixture(scope="module")
def reference() -> Detector:
    return Detector(TorchBackend(load_model("shapes")))


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [shapes_picture(7_000_000, index).pixels for index in range(4)]


class Swapped(HostPath):
    """Feeds red as blue."""

    def prepare(self, images):
        return super().prepare([np.ascontiguousarray(image[..., ::-1]) for image in images])


@needs_darknet_importer
def test_opencv_finds_what_the_reference_finds(reference: Detector, pictures: list[np.ndarray]):
    peer = open_detector("shapes", backend="opencv")
    parity = Parity("torch", BASELINE_TOLERANCE)
    for picture in pictures:
        parity.add(reference(picture), peer(picture), CONF)
    assert parity.pairs.matched >= 8 and not parity.faults
    assert isinstance(peer.backend, OpenCvBackend) and len(peer(pictures)) == 4


@needs_darknet_importer
def test_opencv_is_given_the_threshold_that_its_own_layer_would_cut_off(
    reference: Detector, pictures: list[np.ndarray]
):
    detector = Detector(reference.backend.network, replace(reference.postprocess, conf=0.01))
    peer = open_detector("shapes", backend="opencv", conf=0.01)
    scores = peer(pictures[0]).scores
    assert scores.min() < 0.2
    assert len(scores) == pytest.approx(len(detector(pictures[0])), abs=1)


def test_opencv_refuses_a_suppression_it_does_not_have():
    with pytest.raises(
        BackendError, match="suppressed by diounms, OpenCV knows plain IoU only; compare with nms='plain'"
    ):
        open_detector("shapes", backend="opencv", nms=Nms(NmsKind.DIOU))


@pytest.mark.parametrize("gone", ["readNetFromDarknet", "NMSBoxesBatched"])
def test_an_opencv_without_what_it_needs_as_a_peer_says_which_one_has_it(monkeypatch: pytest.MonkeyPatch, gone: str):
    for name in ("readNetFromDarknet", "NMSBoxesBatched"):  # both there at first, as in 4.7 to 4.x
        monkeypatch.setattr(cv2.dnn, name, lambda *args: None, raising=False)
    monkeypatch.delattr(cv2.dnn, gone)
    with pytest.raises(
        BackendError, match=rf"OpenCV {cv2.__version__} has no cv2.dnn.{gone}; expected OpenCV 4.7 to 4.x"
    ):
        open_detector("shapes", backend="opencv")


def test_swapped_channels_do_not_pass(reference: Detector, pictures: list[np.ndarray]):
    swapped = Detector(Swapped(TorchBackend(load_model("shapes"))))
    parity = Parity("torch", TOLERANCES["fp32"])
    for picture in pictures:
        parity.add(reference(picture), swapped(picture), CONF)
    assert len(parity.faults) >= 3


# --- PyTorch's variants ---


@pytest.mark.parametrize(
    "text, options, words",
    [
        ("bf16", TorchOptions(dtype="bf16"), "bf16"),
        ("channels_last", TorchOptions(channels_last=True), "fp32+channels_last"),
        ("fp16+cuda+compile", TorchOptions("cuda", "fp16", compiled=True), "cuda+fp16+compile"),
        ("cuda", TorchOptions("cuda"), "cuda"),
    ],
)
def test_a_variant_is_read_and_named(text: str, options: TorchOptions, words: str):
    assert TorchOptions.parse(text) == options
    assert str(options) == words


def test_an_unknown_variant_is_refused_with_the_known_ones():
    with pytest.raises(
        BackendError, match="'fp8' is unknown; expected fp32, fp16, bf16, cpu, cuda, channels_last, comp"
    ):
        TorchOptions.parse("cuda+fp8")


@pytest.mark.parametrize("text", ["channels_last", "bf16", "bf16+channels_last"])
def test_a_variant_gives_float32_heads_near_the_references(reference: Detector, text: str, pictures: list[np.ndarray]):
    options = TorchOptions.parse(text)
    backend = TorchBackend(load_model("shapes"), options=options)
    batch, _ = reference.backend.prepare(pictures[:1])
    expected, got = reference.backend.network.infer(batch), backend.infer(batch)
    for name, head in expected.items():
        assert got[name].dtype == np.float32 and got[name].flags.c_contiguous
        limit = 1e-3 if options.dtype == "fp32" else 0.05 * float(np.abs(head).max())
        np.testing.assert_allclose(got[name], head, atol=limit)
    backend.close()


def test_cuda_that_is_not_there_is_refused():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match=r"shapes: PyTorch .* has no CUDA device here; expected a GPU"):
        TorchBackend(load_model("shapes"), options=TorchOptions("cuda"))
