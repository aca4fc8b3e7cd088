"""Calibration tables: equal runs give equal bytes, foreign and stale ones are refused with the reason."""

import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov3_trt.calibration.observers import scale_from_amax
from yolov3_trt.calibration.table import (
    CalibratedModel,
    CalibrationTable,
    PictureList,
    check_table,
    load_table,
    save_table,
    table_differences,
)
from yolov3_trt.calibration.tensorrt_cache import tensorrt_cache_text
from yolov3_trt.errors import CalibrationError
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import ModelMeta, Preprocess
from yolov3_trt.settings import Method
from yolov3_trt.spec import Head

PICTURES = PictureList.of(["a" * 64, "b" * 64])
TABLE = CalibrationTable(
    model=CalibratedModel("tiny", onnx_sha256="1" * 64, layers_sha256="5" * 64, weights_sha256="2" * 64),
    preprocess=Preprocess(),
    input_hw=(64, 96),
    images=PICTURES,
    method=Method.PERCENTILE,
    amax={"layers.1.leaky": 0.1, "layers.0.conv": 6.0, "images": 1.0},
    percentile=99.99,
    seed=3,
    versions={"yolov3_trt": "0.1", "onnxruntime": "1.31"},
)
META = ModelMeta(
    "tiny",
    (64, 96),
    (Head("head0", 10, ((1.5, 2.0),), 1, (2, 3)),),
    ("cat",),
    onnx_sha256="1" * 64,
    layers_sha256="5" * 64,
    weights_sha256="2" * 64,
)
FLOATS = st.floats(2.0**-126, 2.0**127, width=32, exclude_min=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "calib" / "tiny.json"
    save_table(TABLE, path)
    return path


def test_a_table_comes_back_as_it_was(path: Path):
    assert load_table(path) == TABLE


def test_a_table_is_text_with_a_tensor_a_line_sorted_and_short(path: Path):
    lines = path.read_text().splitlines()
    at = lines.index(' "amax": {')
    assert lines[at + 1 : at + 5] == ['  "images": 1.0,', '  "layers.0.conv": 6.0,', '  "layers.1.leaky": 0.1', " },"]
    assert lines[1] == ' "format": "yolov3_trt.calibration/1",'


def test_equal_tables_give_equal_bytes_whatever_the_order_of_their_tensors(path: Path, tmp_path: Path):
    other = replace(TABLE, amax=dict(reversed(TABLE.amax.items())), versions=dict(reversed(TABLE.versions.items())))
    save_table(other, tmp_path / "other.json")
    save_table(load_table(path), tmp_path / "again.json")
    assert (tmp_path / "other.json").read_bytes() == path.read_bytes() == (tmp_path / "again.json").read_bytes()
    assert other == TABLE


@settings(max_examples=50, deadline=None)
@given(amax=st.dictionaries(st.text(min_size=1, max_size=8), FLOATS, min_size=1, max_size=8))
def test_ranges_are_kept_as_float32(amax: dict[str, float], tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("tables") / "table.json"
    save_table(replace(TABLE, amax=amax), path)
    assert load_table(path).amax == amax
    written = json.loads(path.read_text())["amax"]
    assert list(written) == sorted(amax)
    assert all(len(repr(value).replace("e+", "e").strip("0.")) <= 16 for value in written.values())


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e39, 1e-50])
def test_a_range_that_no_scale_can_be_made_of_is_refused(value: float):
    with pytest.raises(CalibrationError, match=r"tensor 'x': amax .*; expected a float32 above 0"):
        replace(TABLE, amax={"x": value})


@pytest.mark.parametrize("method, percentile", [(Method.PERCENTILE, None), (Method.ENTROPY, 99.9)])
def test_a_percentile_belongs_to_its_method(method: Method, percentile: float | None):
    with pytest.raises(CalibrationError, match="expected one with 'percentile' only"):
        replace(TABLE, method=method, percentile=percentile)


@pytest.mark.parametrize(
    "edit, reason",
    [
        (
            {"format": "yolov3_trt.calibration/9"},
            "format 'yolov3_trt.calibration/9'; expected 'yolov3_trt.calibration/1'",
        ),
        ({"surprise": 1}, "surprise: Unexpected keyword argument; calibrate again"),
        ({"method": "guess"}, "method: Input should be 'minmax', 'percentile', 'entropy' or 'mse'; calibrate again"),
        ({"amax": {"x": "wide"}}, "amax.x: Input should be a valid number"),
        ({"amax": {"x": math.nan}}, "tensor 'x': amax nan; expected a float32 above 0; calibrate again"),
        ({"images": {"count": 2}}, "images.sha256: Field required"),
        ({"preprocess": {"pad_value": 300}}, "preprocess.pad_value: got 300; expected 0 to 255"),
        ({"input_hw": [64]}, "input_hw.1: Field required"),
    ],
)
def test_a_damaged_table_is_refused_with_the_place(path: Path, edit: dict[str, object], reason: str):
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(CalibrationError) as caught:
        load_table(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_table_is_refused(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="calibrate again"):
        load_table(path)


def test_a_missing_table_is_refused(tmp_path: Path):
    with pytest.raises(CalibrationError, match="there is no such calibration table; make it with `calibrate`"):
        load_table(tmp_path / "none.json")


def test_a_table_that_fits_has_no_differences(path: Path):
    table = load_table(path)
    use = {"meta": META, "images": PICTURES, "method": Method.PERCENTILE, "percentile": 99.99}
    assert table_differences(table, **use) == ()
    check_table(table, path, **use)
    check_table(table, path)


@pytest.mark.parametrize(
    "use, reason",
    [
        (
            {"meta": replace(META, name="other", weights_sha256="3" * 64)},
            "model (the table has weights tiny 222222222222…; expected other 333333333333…)",
        ),
        (
            {"meta": replace(META, onnx_sha256="4" * 64)},
            "model (the table has graph tiny 111111111111…; expected tiny 444444444444…)",
        ),
        (
            {"meta": replace(META, layers_sha256="6" * 64)},
            "layers (the table has tiny 555555555555…; expected tiny 666666666666…: the same weights, another cfg)",
        ),
        (
            {"meta": replace(META, onnx_sha256=None, weights_sha256=None)},
            "model (the table has graph tiny 111111111111…; expected tiny without a hash)",
        ),
        (
            {"meta": replace(META, preprocess=Preprocess(Resize.STRETCH, 114))},
            "preprocessing (the table has resize letterbox, pad_value 128, scale 0.00392157; expected resize stretch, "
            "pad_value 114, scale 0.00392157)",
        ),
        ({"meta": replace(META, input_hw=(64, 64))}, "input size (the table has 96x64; expected 64x64)"),
        (
            {"images": PictureList(64, "5" * 64)},
            f"picture list (the table has 2 pictures {PICTURES.sha256[:12]}…; expected 64 pictures 555555555555…)",
        ),
        ({"method": Method.MSE}, "method (the table has percentile 99.99; expected mse)"),
        (
            {"method": Method.PERCENTILE, "percentile": 99.9},
            "method (the table has percentile 99.99; expected percentile 99.9)",
        ),
    ],
)
def test_a_stale_table_is_refused_with_the_reason(path: Path, use: dict[str, object], reason: str):
    assert table_differences(TABLE, **use) == (reason,)
    with pytest.raises(CalibrationError) as caught:
        check_table(TABLE, path, **use)
    assert str(caught.value) == (
        f"{path}: this calibration table differs in {reason}: calibrate again, or give the table that belongs here"
    )


def test_every_difference_is_named():
    meta = replace(META, preprocess=Preprocess(Resize.STRETCH), input_hw=(32, 32), onnx_sha256="6" * 64)
    found = table_differences(TABLE, meta=meta, images=PictureList.of([]), method=Method.MINMAX)
    assert [text.partition(" (")[0] for text in found] == [
        "model",
        "preprocessing",
        "input size",
        "picture list",
        "method",
    ]


def test_a_picture_list_is_its_contents_in_order():
    assert PictureList.of(["a", "b"]) == PictureList.of(iter(["a", "b"]))
    assert len({PictureList.of(hashes).sha256 for hashes in (["a", "b"], ["b", "a"], ["a"], ["ab"], [])}) == 5


def test_tensorrts_cache_has_the_known_form():
    table = replace(TABLE, amax={"data": 127 * struct.unpack(">f", bytes.fromhex("3c010a14"))[0], "images": 127.0})
    assert tensorrt_cache_text(table) == "TRT-8601-EntropyCalibration2\ndata: 3c010a14\nimages: 3f800000\n"
    assert tensorrt_cache_text(table, version=100300).startswith("TRT-100300-EntropyCalibration2\n")


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["images", "layers.0.conv", "a b", "a:0"]), FLOATS, min_size=1))
def test_tensorrts_cache_has_the_scales_of_the_table(amax: dict[str, float]):
    _, *lines = tensorrt_cache_text(replace(TABLE, amax=amax)).splitlines()
    read = (re.fullmatch(r"(.+): ([0-9a-f]{8})", line) for line in lines)
    found = {match[1]: struct.unpack(">f", bytes.fromhex(match[2]))[0] for match in read if match}
    assert found == {name: scale_from_amax(value) for name, value in amax.items()}
    for value in amax.values():
        assert scale_from_amax(value) == np.float32(value) / np.float32(127)


@pytest.mark.parametrize("name", ["two\nlines", "", "a\r"])
def test_a_name_that_tensorrts_cache_cannot_hold_is_refused(name: str):
    with pytest.raises(CalibrationError, match="TensorRT's cache has one tensor a line"):
        tensorrt_cache_text(replace(TABLE, amax={name: 1.0}))


def test_what_belongs_to_a_convolution_is_on_one_line(tmp_path: Path):
    shifts = {"layers.2.conv": (0.1, -2.5e-8), "layers.0.conv": (1.0,)}
    full = replace(
        TABLE, equalised=True, doublings={"layers.0.conv": (0, 3, 9)}, biases_corrected=True, bias_shifts=shifts
    )
    path = tmp_path / "table.json"
    save_table(full, path)
    lines = path.read_text().splitlines()
    assert '  "layers.0.conv": [0, 3, 9]' in lines
    first = lines.index('  "layers.0.conv": [1.0],')
    assert lines[first + 1] == '  "layers.2.conv": [0.1, -2.5e-08]'
    assert load_table(path) == full


def test_a_shift_that_is_no_number_is_refused():
    with pytest.raises(CalibrationError, match="bias_shifts: one is not finite"):
        replace(TABLE, bias_shifts={"layers.0.conv": (math.inf,)})
