"""What answers requests inside the server, without a server: rows and requests, thresholds, and pictures of strangers."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.fakes import FRAME_HW, FakeBackend
from yolov3_trt.backends import TimedDetections
from yolov3_trt.deploy import python_model
from yolov3_trt.deploy.pictures import check_frame, decode_picture
from yolov3_trt.deploy.service import PictureService
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError, ImageError, Yolov3TrtError
from yolov3_trt.meta import Batch, InputStage, OutputStage, Postprocess, Preprocess


class CountingBackend(FakeBackend):
    """A level as wide as each picture's first blue value; notes how many rows each call has."""

    meta = replace(FakeBackend.meta, batch=Batch(1, 4, 4))

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def infer(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        self.rows.append(len(images))
        return super().infer(images)


def level(width: int) -> np.ndarray:
    """A frame on which the fake finds a level of that width."""
    frame = np.zeros((*FRAME_HW, 3), np.uint8)
    frame[0, 0, 0] = width
    return frame


def widths(answer: Any) -> list[float]:
    assert not isinstance(answer, Yolov3TrtError), answer
    assert answer["num_detections"].dtype == answer["class_ids"].dtype == np.int32
    assert answer["num_detections"].shape == (len(answer["boxes"]), 1)
    return [boxes[0, 2] for boxes in answer["boxes"]]


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def strings(*contents: bytes) -> np.ndarray:
    return np.array(contents, object).reshape(-1, 1)


def test_pictures_of_all_requests_go_through_full_batches_and_back_to_their_requests():
    backend = CountingBackend()
    service = PictureService(Detector(backend))
    answers = service.answer(
        [
            {"frame": np.stack([level(10), level(20), level(30)])},
            {"encoded": strings(png(level(11)))},
            {"frame": np.stack([level(12), level(22)])},
        ]
    )
    assert [widths(answer) for answer in answers] == [[10, 20, 30], [11], [12, 22]]
    assert backend.rows == [4, 2]
    assert answers[0]["boxes"].shape == (3, 300, 4) and answers[0]["scores"].shape == (3, 300)  # type: ignore[index]


def test_no_requests_are_no_calls():
    backend = CountingBackend()
    assert PictureService(Detector(backend)).answer([]) == []
    assert backend.rows == []


def test_each_bad_request_has_its_own_error_and_the_others_their_answers():
    service = PictureService(Detector(CountingBackend()))
    good, none, both, torn = service.answer(
        [
            {"frame": level(7)[None]},
            {},
            {"frame": level(7)[None], "encoded": strings(png(level(7)))},
            {"encoded": strings(png(level(7)), png(level(8))[:-30])},
        ]
    )
    assert widths(good) == [7]
    assert str(none) == "got no picture; expected exactly one of encoded and frame"
    assert str(both) == "got encoded and frame; expected exactly one of encoded and frame"
    assert str(torn) == "picture 1 of the request: this PNG is cut short; copy the file again"


def test_narrower_thresholds_of_some_share_the_call_of_the_others():
    backend = CountingBackend()
    service = PictureService(Detector(backend))
    asked = np.array([[0.25, 0.45, 300], [0.95, 0.45, 300]], np.float32)
    (answer,) = service.answer([{"frame": np.stack([level(10), level(20)]), "postprocess": asked}])
    assert not isinstance(answer, Yolov3TrtError)
    assert answer["num_detections"].tolist() == [[1], [0]], "the score is 0.9"
    assert not answer["boxes"][1].any() and not answer["scores"][1].any()
    assert backend.rows == [2]


def test_wider_thresholds_than_the_graph_has_are_refused():
    service = PictureService(Detector(CountingBackend()))
    wide, own = service.answer(
        [
            {"frame": level(1)[None], "postprocess": np.array([[0.1, 0.45, 300]], np.float32)},
            {"frame": level(2)[None]},
        ]
    )
    assert isinstance(wide, BackendError) and "but this graph gives conf=0.25" in str(wide)
    assert widths(own) == [2]


def test_one_row_of_thresholds_for_each_picture():
    service = PictureService(Detector(CountingBackend()))
    asked = np.array([[0.3, 0.45, 9]], np.float32)
    (answer,) = service.answer([{"frame": np.stack([level(1), level(2)]), "postprocess": asked}])
    assert str(answer) == "1 rows of postprocess for 2 pictures; expected one each"


@pytest.mark.parametrize(
    "row, text",
    [
        ([0.5, 0.45, 0], "max_detections: got 0; expected 1 to "),
        ([0.5, 0.45, 301], "max_detections=301; expected a whole number up to 300, the rows of the outputs"),
        ([0.5, 0.45, 2.5], "max_detections=2.5; expected a whole number"),
        ([-0.1, 0.45, 10], "conf: got -0.1; expected 0 to 1"),
        ([np.inf, 0.45, 10], "expected 3 finite float32: conf, iou, max_detections"),
    ],
)
def test_thresholds_out_of_range_are_refused(row: list[float], text: str):
    service = PictureService(Detector(CountingBackend()))
    (answer,) = service.answer([{"frame": level(1)[None], "postprocess": np.array([row], np.float32)}])
    assert isinstance(answer, Yolov3TrtError) and text in str(answer)


def test_a_graph_for_whole_frames_takes_frames_of_its_size_only():
    backend = CountingBackend()
    backend.meta = replace(CountingBackend.meta, frame_hw=FRAME_HW)
    service = PictureService(Detector(backend))
    good, bad = service.answer([{"frame": level(5)[None]}, {"frame": np.zeros((1, 10, 10, 3), np.uint8)}])
    assert widths(good) == [5]
    assert "it has 10x10 px; this model takes frames of (48, 64) only" in str(bad)


class OwnWay(CountingBackend):
    """A backend that takes pictures, and must be configured before the first of them."""

    num_slots = 1

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        assert not self.rows, "configured again"

    def submit(self, images: Sequence[np.ndarray]) -> None:
        self.rows.append(len(images))

    def result(self) -> TimedDetections:
        one = Detections(np.ones((1, 4), np.float32), np.full(1, 0.9, np.float32), np.zeros(1, np.int32))
        return TimedDetections([one] * self.rows[-1], dict.fromkeys(("preprocess", "inference", "postprocess"), 0.0))


class HeadsBackend(CountingBackend):
    """Sure of one object, in the column of grid cells that a picture's first blue value names."""

    meta = replace(CountingBackend.meta, output_stage=OutputStage.HEADS)

    def infer(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        self.rows.append(len(images))
        head = np.zeros((len(images), 6, 6, 8), np.float32)
        head[:, 4] = -10
        head[:, 5] = 10
        for row, image in enumerate(images):
            head[row, 4, 2, image[0, 0, 0]] = 0  # objectness 0.5
        return {"head0": head}


def test_rows_keep_their_order_whatever_thresholds_they_have():
    backend = HeadsBackend()
    service = PictureService(Detector(backend))
    rows = [[0.25, 0.45, 300], [0.1, 0.45, 300], [0.4, 0.45, 300], [0.1, 0.6, 300], [0.6, 0.45, 300]]
    frames = np.stack([level(column) for column in (5, 6, 7, 3, 4)])
    (answer,) = service.answer([{"frame": frames, "postprocess": np.array(rows, np.float32)}])
    assert not isinstance(answer, Yolov3TrtError)
    assert answer["num_detections"].tolist() == [[1], [1], [1], [1], [0]]
    centres = [(boxes[0, 0] + boxes[0, 2]) / 2 for boxes in answer["boxes"][:4]]
    assert centres == [44, 52, 60, 28], "8 px a cell"
    assert sorted(backend.rows) == [1, 1, 3], "the wider ones go by themselves"


def test_a_backend_that_takes_pictures_is_never_configured_anew():
    backend = OwnWay()
    backend.meta = replace(CountingBackend.meta, input_stage=InputStage.TENSOR, output_stage=OutputStage.HEADS)
    service = PictureService(Detector(backend))
    asked = [np.array([row], np.float32) for row in ([0.5, 0.45, 5], [0.1, 0.45, 5], [0.5, 0.6, 5])]
    narrow, low, iou = service.answer([{"frame": level(1)[None], "postprocess": row} for row in asked])
    assert not isinstance(narrow, Yolov3TrtError) and narrow["num_detections"].tolist() == [[1]]
    for wide, text in ((low, "conf=0.1 and iou=0.45 were asked for"), (iou, "conf=0.5 and iou=0.6 were asked for")):
        assert isinstance(wide, BackendError) and text in str(wide)


# --- pictures ---


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_are_decoded_as_opencv_decodes_them(suffix: str):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 21, 3), np.uint8)
    content = cv2.imencode(suffix, pixels)[1]
    np.testing.assert_array_equal(decode_picture(content.tobytes()), cv2.imdecode(content, cv2.IMREAD_COLOR))


def test_grey_pictures_become_colour_and_exif_turns_them():
    grey = cv2.imencode(".jpg", np.full((8, 16), 77, np.uint8))[1].tobytes()
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\x00\x00" + tiff
    assert decode_picture(grey).shape == (8, 16, 3)
    assert decode_picture(grey[:2] + exif + grey[2:]).shape == (16, 8, 3), "orientation 6: a quarter turn"


def jpeg_of_two_sizes(side: int) -> bytes:
    """A JPEG that says 16x16 to a reader which takes what follows RST0 for a segment, and this side to libjpeg."""

    def start_of_frame(side: int) -> bytes:
        return b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, side, side, 3) + bytes([1, 17, 0, 2, 17, 1, 3, 17, 1])

    small = start_of_frame(16)
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(small)) + small
    skipped = start_of_frame(side) + comment[:4]
    plain = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    at = plain.index(b"\xff\xc0")
    return b"\xff\xd8\xff\xd0" + struct.pack(">H", 2 + len(skipped)) + skipped + small + plain[2:at] + plain[at + 19 :]


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "0 bytes that are neither a JPEG nor a PNG"),
        (b"BM" + bytes(60), "62 bytes that are neither a JPEG nor a PNG"),
        (b"\x89PNG\r\n\x1a\n", "this PNG is cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IEND" + bytes(4), "not a picture that OpenCV can read, or damaged"),
        (b"\x89PNG\r\n\x1a\n\xc7\x10\x42\xddtEXt" + bytes(99), "this PNG is cut short"),  # took 3.2 GiB
        (b"\xff\xd8\xff", "this JPEG is cut short"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 9, "this JPEG is cut short"),
        (jpeg_of_two_sizes(9000), "a picture that is too large; expected at most 64 megapixels: make it smaller"),
        (b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x00\x00\x10\xff\xd9", "this JPEG is cut short"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, text: str):
    with pytest.raises(ImageError, match=text):
        decode_picture(content)


def test_damaged_bytes_never_do_more_than_an_error():
    rng = np.random.default_rng(1)
    good = [cv2.imencode(s, rng.integers(0, 256, (24, 24, 3), np.uint8))[1].tobytes() for s in (".jpg", ".png")]
    for turn in range(300):
        content = bytearray(good[turn % 2])
        for at in rng.integers(2, len(content), 3):
            content[at] = rng.integers(256)
        try:
            pixels = decode_picture(bytes(content[: rng.integers(8, len(content) + 1)] if turn % 3 else content))
        except ImageError:
            continue
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and 1 <= pixels.shape[0] * pixels.shape[1] <= 64_000_000


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_frame_is_refused(frame: np.ndarray):
    with pytest.raises(ImageError, match=r"expected uint8 \(height, width, 3\) BGR"):
        check_frame(frame)


def test_a_frame_beyond_the_limit_is_refused():
    frame = np.broadcast_to(np.uint8(0), (8001, 8000, 3))
    with pytest.raises(ImageError, match="a picture of 8001x8000 px; expected at most 64 megapixels"):
        check_frame(frame)


# --- inside the server ---


@pytest.mark.parametrize("counts, threads", [([1], 6), ([2], 3), ([2, 1], 2), ([9], 1), ([], 6)])
def test_instances_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch, counts: list[int], threads: int):
    monkeypatch.setattr(python_model.os, "sched_getaffinity", lambda _: set(range(6)))
    config = {"instance_group": [{"count": count} for count in counts]}
    assert python_model._threads(config, "CPU") == threads
    assert python_model._threads(config, "GPU") is None, "the engine needs none of ours"


def test_a_version_without_its_artifact_says_so(tmp_path: Path):
    with pytest.raises(
        BackendError, match=r"0 artifacts; expected one of detector.onnx, detector.engine; deploy it again"
    ):
        python_model._artifact(tmp_path)
    (tmp_path / "detector.engine").write_bytes(b"")
    assert python_model._artifact(tmp_path) == tmp_path / "detector.engine"
