"""Files to detections, one after the other, and what of it is kept however the work ends."""

import io
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FRAME_HW, FakeBackend
from yolov3_trt.data.images import save_image
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import OutputError
from yolov3_trt.jobs.detect import Found, Skipped, detect_files
from yolov3_trt.jobs.detect_record import DetectRecord

ABOUT = {"artifact": "m.onnx", "backend": "onnxruntime"}
NOTHING = {"width": 4, "height": 2, "detections": []}


def found(name: str) -> Found:
    return Found(name, (2, 4), Detections.none())


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """Within it no file grows beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- the work ---


def test_each_result_is_given_before_the_next_file_is_read(tmp_path: Path):
    for level in (10, 20):
        save_image(np.full((*FRAME_HW, 3), level, np.uint8), tmp_path / f"{level}.png")
    paths = [tmp_path / "10.png", tmp_path / "later.png", tmp_path / "20.png"]
    items = detect_files(Detector(FakeBackend()), paths)
    first = next(items)
    assert isinstance(first, Found)
    assert (first.file, first.image_hw, first.detections.xyxy[0, 2]) == (str(paths[0]), FRAME_HW, 10)
    (tmp_path / "20.png").rename(tmp_path / "later.png")
    second, third = items
    assert isinstance(second, Found) and second.detections.xyxy[0, 2] == 20
    assert third == Skipped(str(paths[2]), f"{paths[2]}: cannot be read (No such file or directory)")


def test_a_picture_with_its_boxes_is_in_place_when_its_result_is_given(tmp_path: Path):
    save_image(np.full((*FRAME_HW, 3), 30, np.uint8), tmp_path / "a.png")
    items = detect_files(Detector(FakeBackend()), [tmp_path / "a.png"] * 2, tmp_path / "out")
    next(items)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    next(items)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "a-2.png"}


# --- what is kept ---


def test_a_line_is_in_its_file_at_once_and_the_object_when_the_work_ends(tmp_path: Path):
    lines, whole = tmp_path / "deep" / "a.jsonl", tmp_path / "deep" / "a.json"
    with DetectRecord(ABOUT, 2, lambda: ("slow",), json=whole, jsonl=lines) as record:
        record.add(found("a"))
        assert lines.read_text() == '{"file": "a", "width": 4, "height": 2, "detections": []}\n'
        assert not whole.exists()
        record.add(Skipped("b", "b: damaged"))
        assert json.loads(lines.read_text().splitlines()[1]) == {"file": "b", "error": "b: damaged"}
    assert whole.read_text() == (
        '{"artifact": "m.onnx", "backend": "onnxruntime", "images": [\n'
        '{"file": "a", "width": 4, "height": 2, "detections": []}\n],\n'
        '"fallbacks": ["slow"],\n"skipped": ["b: damaged"]}\n'
    )
    assert {path.name for path in lines.parent.iterdir()} == {"a.json", "a.jsonl"}


@pytest.mark.parametrize("items", [[], [Skipped("b", "b: damaged")]], ids=["none", "all skipped"])
def test_an_object_without_pictures_is_json_too(tmp_path: Path, items: list[Skipped]):
    with DetectRecord(ABOUT, json=tmp_path / "a.json") as record:
        for item in items:
            record.add(item)
    assert json.loads((tmp_path / "a.json").read_text())["images"] == []


@pytest.mark.parametrize(
    "error, why",
    [(KeyboardInterrupt(), "interrupted"), (ValueError("no GPU"), "failed: no GPU")],
    ids=["interrupt", "error"],
)
def test_what_ends_the_work_leaves_what_was_found(tmp_path: Path, error: BaseException, why: str):
    stream = io.StringIO()
    for target in (tmp_path / "a.json", stream):
        with pytest.raises(type(error)), DetectRecord(ABOUT, 9, json=target) as record:
            record.add(found("a"))
            record.add(found("b"))
            raise error
    expected = {**ABOUT, "images": [{"file": name, **NOTHING} for name in "ab"]}
    expected["incomplete"] = {"why": why, "done": 2, "of": 9}
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(stream.getvalue()) == expected


def test_an_end_before_the_first_result_leaves_earlier_files_as_they_were(tmp_path: Path):
    targets = {"json": tmp_path / "a.json", "jsonl": tmp_path / "a.jsonl"}
    for path in targets.values():
        path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), DetectRecord(ABOUT, 9, **targets):
        raise KeyboardInterrupt
    assert [path.read_text() for path in targets.values()] == ["earlier", "earlier"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_second_file_that_cannot_be_made_leaves_nothing_of_the_first(tmp_path: Path):
    (tmp_path / "f").touch()
    with (
        pytest.raises(OutputError, match=r"cannot create this folder"),
        DetectRecord(ABOUT, json=tmp_path / "a.json", jsonl=tmp_path / "f" / "a.jsonl") as record,
    ):
        record.add(found("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_leaves_whole_lines_and_a_whole_object(tmp_path: Path):
    lines, whole = tmp_path / "a.jsonl", tmp_path / "a.json"
    with (
        files_of_at_most(1000),
        pytest.raises(OutputError) as caught,
        DetectRecord(ABOUT, 99, json=whole, jsonl=lines) as record,
    ):
        for number in range(99):
            record.add(found(f"{number:030}"))
            assert lines.read_bytes().endswith(b"\n")
    assert str(caught.value).startswith(f"{tmp_path}/a.json")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [int(row["file"]) for row in rows] == list(range(len(rows))) and len(rows) > 5


def test_a_piece_that_an_interrupt_cuts_short_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = tmp_path / "a.jsonl"
    with DetectRecord(ABOUT, jsonl=lines) as record:
        record.add(found("a"))
        file = record._lines._file  # type: ignore[union-attr]

        class Interrupted(io.FileIO):
            def write(self, content: bytes) -> int:
                super().write(content[:5])
                raise KeyboardInterrupt

        monkeypatch.setattr(record._lines, "_file", Interrupted(file.fileno(), "ab", closefd=False))
        with pytest.raises(KeyboardInterrupt):
            record.add(found("b"))
        monkeypatch.setattr(record._lines, "_file", file)
        record.add(found("c"))
    assert [json.loads(line)["file"] for line in lines.read_text().splitlines()] == ["a", "c"]
