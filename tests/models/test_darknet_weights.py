"""Darknet weights: byte-for-byte round trips, memory maps, and every way in which a file can be wrong."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import COCO_MODELS
from yolov3_trt.errors import WeightsError
from yolov3_trt.layers import Conv, MaxPool, Yolo
from yolov3_trt.models import load_model
from yolov3_trt.models.architectures import yolov3_tiny, yolov3_voc
from yolov3_trt.models.darknet_cfg import spec_from_cfg
from yolov3_trt.models.darknet_weights import (
    Weights,
    WeightsHeader,
    partial_weights_from_darknet,
    save_darknet_weights,
    weights_from_darknet,
)
from yolov3_trt.spec import ModelSpec

# 2 x (4 batch norm + 3 kernel) and 7 x (1 bias + 2 kernel) = 35 values, in file order 0, 1, 2, ...
TINY = ModelSpec("tiny", (Conv(2, batch_norm=True, bias=False), MaxPool(2, 2), Conv(7), Yolo(((1.0, 2.0),), 2)), (8, 8))
VALUES = np.arange(35, dtype="<f4")
HEADER = struct.pack("<3iq", 0, 2, 5, 32013312)


def tiny_weights() -> Weights:
    return {
        "layers.0.batch_norm.bias": VALUES[0:2],
        "layers.0.batch_norm.weight": VALUES[2:4],
        "layers.0.batch_norm.running_mean": VALUES[4:6],
        "layers.0.batch_norm.running_var": VALUES[6:8],
        "layers.0.conv.weight": VALUES[8:14].reshape(2, 3, 1, 1),
        "layers.2.conv.bias": VALUES[14:21],
        "layers.2.conv.weight": VALUES[21:35].reshape(7, 2, 1, 1),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.weights"
    path.write_bytes(HEADER + VALUES.tobytes())
    return path


def refusal(path: Path, spec: ModelSpec = TINY) -> str:
    with pytest.raises(WeightsError) as caught:
        weights_from_darknet(spec, path)
    return str(caught.value)


# --- round trips ---


@pytest.mark.parametrize("name", COCO_MODELS)
def test_real_weights_come_back_byte_for_byte(data: Path, tmp_path: Path, name: str):
    spec, path = spec_from_cfg(data / "models" / f"{name}.cfg"), data / "models" / f"{name}.weights"
    read = weights_from_darknet(spec, path)
    assert sum(array.size for array in read.arrays.values()) == spec.num_values
    save_darknet_weights(spec, read.arrays, tmp_path / "again.weights", read.header)
    assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()


def test_values_are_read_in_darknets_order(file: Path):
    read = weights_from_darknet(TINY, file)
    assert read.header == WeightsHeader(0, 2, 5, 32013312)
    assert {key: array.shape for key, array in read.arrays.items()} == TINY.weight_shapes
    for key, expected in tiny_weights().items():
        np.testing.assert_array_equal(read.arrays[key], expected, err_msg=key)


@pytest.mark.parametrize(
    "header, expected",
    [
        (WeightsHeader(0, 1, 0, 7), struct.pack("<3ii", 0, 1, 0, 7)),
        (WeightsHeader(0, 2, 0, 2**40), struct.pack("<3iq", 0, 2, 0, 2**40)),
        (WeightsHeader(1, 0, 0, 7), struct.pack("<3iq", 1, 0, 0, 7)),
        (None, struct.pack("<3iq", 0, 2, 5, 0)),
    ],
    ids=["0.1", "0.2", "1.0", "default"],
)
def test_made_up_weights_come_back_with_their_header(tmp_path: Path, header: WeightsHeader | None, expected: bytes):
    path = tmp_path / "tiny.weights"
    save_darknet_weights(TINY, tiny_weights(), path, header)
    assert path.read_bytes() == expected + VALUES.tobytes()
    read = weights_from_darknet(TINY, path)
    assert read.header == (header or WeightsHeader())
    np.testing.assert_array_equal(read.arrays["layers.2.conv.weight"].ravel(), VALUES[21:])


def test_arrays_of_any_layout_and_type_are_written(file: Path, tmp_path: Path):
    weights = {key: np.asfortranarray(array.astype(">f8")) for key, array in tiny_weights().items()}
    save_darknet_weights(TINY, weights, tmp_path / "again", WeightsHeader(seen=32013312))
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_arrays_view_one_memory_map_that_writing_does_not_reach(file: Path):
    before = file.read_bytes()
    arrays = weights_from_darknet(TINY, file).arrays
    bases = []
    for array in arrays.values():
        base = array
        while not isinstance(base, np.memmap):
            assert not base.flags.owndata and base.base is not None
            base = base.base
        bases.append(base)
        assert np.shares_memory(base, array) and type(array) is np.ndarray
    assert len({base.filename for base in bases}) == 1
    arrays["layers.0.conv.weight"][:] = -1
    assert (arrays["layers.0.conv.weight"] == -1).all()
    assert file.read_bytes() == before
    assert weights_from_darknet(TINY, file).arrays["layers.0.conv.weight"].min() == 8


def test_the_header_of_pytorch_yolov3_is_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    values = np.arange(1, 36, dtype="<f4")
    (tmp_path / "tiny.weights").write_bytes(struct.pack("<5i", 0, 0, 0, 7, 0) + values.tobytes())
    arrays = weights_from_darknet(TINY, tmp_path / "tiny.weights").arrays
    assert arrays["layers.0.batch_norm.bias"].tolist() == [1, 2]
    assert "its header has 20 bytes, as PyTorch-YOLOv3 writes it, though version 0.0.0 has 16" in caplog.text


def test_the_first_layers_are_read_from_a_file_that_ends_behind_one(file: Path, tmp_path: Path):
    whole = weights_from_darknet(TINY, file).arrays
    part = tmp_path / "tiny.conv.1"
    part.write_bytes(file.read_bytes()[: 20 + 4 * 14])
    partial = partial_weights_from_darknet(TINY, part)
    assert partial is not None and {key.split(".")[1] for key in partial} == {"0"}
    for key, array in partial.items():
        np.testing.assert_array_equal(array, whole[key])
    assert "it holds the first 1 of 2 convolutions, from which `train` can start (weights=)" in refusal(part)
    for length in (20 + 4 * 13, 20 + 4 * 8, 160):
        part.write_bytes(file.read_bytes()[:length])
        assert partial_weights_from_darknet(TINY, part) is None


# --- refusals ---


def test_truncated_file_is_refused(file: Path):
    file.write_bytes(file.read_bytes()[:-5])
    assert refusal(file) == (
        f"{file}: 155 bytes; tiny needs 160; 5 bytes are missing: the download was cut short, or the cfg is another model's"
    )


@pytest.mark.parametrize("classes, missing", [(0, 24), (-1, 36)])
def test_no_class_count_below_1_is_proposed(file: Path, classes: int, missing: int):
    file.write_bytes(HEADER + bytes(4 * (14 + (5 + classes) * 3)))
    assert f"; {missing} bytes are missing: " in refusal(file)


def test_oversized_file_is_refused(file: Path):
    file.write_bytes(file.read_bytes() + b"1234")
    assert refusal(file) == f"{file}: 164 bytes; tiny needs 160; 4 bytes are left over: the cfg is another model's"


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_class_count_that_would_fit_is_named(file: Path, classes: int):
    values = 14 + (5 + classes) * 3
    file.write_bytes(HEADER + bytes(4 * values))
    assert refusal(file) == (
        f"{file}: {20 + 4 * values} bytes; tiny needs 160; it fits the same network with {classes} classes instead of 2: "
        "use that cfg (`train` starts from it as it is)"
    )


def test_class_count_that_would_fit_is_named_for_three_heads(tmp_path: Path):
    path = tmp_path / "yolov3.weights"
    with path.open("wb") as file:  # sparse: as long as the published yolov3.weights, without its bytes
        file.write(HEADER)
        file.truncate(248_007_048)
    assert refusal(path, yolov3_voc()) == (
        f"{path}: 248007048 bytes; yolov3-voc needs 246714648; it fits the same network with 80 classes instead of 20: "
        "use that cfg (`train` starts from it as it is)"
    )


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "0 bytes are too few for a header; expected Darknet weights"),
        (bytes(15), "15 bytes are too few for a header; expected Darknet weights"),
        (HEADER[:18], "18 bytes are too few for a header; expected Darknet weights"),
        (b"\n <!DOCTYPE html><html>", "this is an HTML page, not Darknet weights; download the file again"),
        (b"<HTML><body>", "this is an HTML page, not Darknet weights; download the file again"),
        (b"<?xml version='1.0'?>", "this is an XML page, not Darknet weights; download the file again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
            "this is a Git LFS pointer, not Darknet weights; run git lfs pull in its repository, or download the file itself",
        ),
        (
            b"PK\x03\x04" + bytes(30),
            "this is a checkpoint of PyTorch, not Darknet weights; let the program that wrote it save Darknet's .weights",
        ),
        (b"\x1f\x8b\x08" + bytes(30), "this is a gzip archive, not Darknet weights; unpack it"),
        (b"[net]\nwidth=416", "this is a .cfg, not Darknet weights; give it as the model, and its .weights here"),
        (
            b"\x80\x02\x8a\nl\xfc" + bytes(30),
            "this is a checkpoint of PyTorch, not Darknet weights; let the program that wrote it "
            "save Darknet's .weights",
        ),
        (
            b"\x89HDF\r\n" + bytes(30),
            "this is a file of Keras (HDF5), not Darknet weights; take the .weights that it was converted from",
        ),
        (
            b"\x08\x08\x12\x07pytorch" + bytes(30),
            "this is an ONNX graph, not Darknet weights; one that this package made is run as it is, another "
            "goes with `yolov3_trt adopt`",
        ),
        (
            struct.pack("<3iq", -1, 2, 5, 0),
            "version -1.2.5 in its header; expected Darknet weights (0.1 or 0.2)",
        ),
        (
            b"\x89PNG\r\n\x1a\n" + bytes(12),
            "version 1196314761.169478669.0 in its header; expected Darknet weights (0.1 or 0.2)",
        ),
    ],
)
def test_file_of_another_kind_is_refused(file: Path, content: bytes, text: str):
    file.write_bytes(content)
    assert refusal(file) == f"{file}: {text}"


def test_missing_file_and_folder_are_refused(tmp_path: Path):
    assert refusal(tmp_path / "no") == f"{tmp_path}/no: there is no such file; expected Darknet weights"
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read (Is a directory); expected Darknet weights"


@pytest.mark.parametrize(
    "index, value, text",
    [
        (0, np.nan, "layers.0.batch_norm.bias holds 1 of 2 values that are not finite"),
        (6, np.inf, "layers.0.batch_norm.running_var holds 1 of 2 values that are not finite"),
        (20, -np.inf, "layers.2.conv.bias holds 1 of 7 values that are not finite"),
        (7, -0.5, "layers.0.batch_norm.running_var holds a negative variance, -0.5"),
    ],
)
def test_damaged_values_are_refused(file: Path, index: int, value: float, text: str):
    values = VALUES.copy()
    values[index] = value
    file.write_bytes(HEADER + values.tobytes())
    assert refusal(file) == f"{file}: {text}; the file is damaged or not this model's"


@pytest.mark.parametrize("value, taken", [(-7e-44, 0.0), (-5e-6, np.float32(-5e-6))])
def test_variance_negative_by_rounding_is_taken_as_darknet_takes_it(file: Path, value: float, taken: float):
    values = VALUES.copy()
    values[7] = value
    file.write_bytes(HEADER + values.tobytes())
    assert weights_from_darknet(TINY, file).arrays["layers.0.batch_norm.running_var"][1] == taken
    assert file.read_bytes() == HEADER + values.tobytes()


def test_nan_in_a_kernel_is_found(file: Path):
    values = VALUES.copy()
    values[9] = np.nan
    file.write_bytes(HEADER + values.tobytes())
    assert "layers.0.conv.weight holds 1 of" in refusal(file)


def test_model_without_convolution_has_no_weights(file: Path):
    file.write_bytes(HEADER)
    spec = ModelSpec("pool", (MaxPool(2, 2),), (8, 8))
    assert refusal(file, spec) == f"{file}: pool has no convolution, so there are no weights to read"


def test_model_beyond_any_file_is_refused(file: Path):
    spec = ModelSpec("huge", (Conv(10**9), Conv(10**9, size=10**9 + 1, pad=5 * 10**8)), (1, 1))
    expected = 20 + 4 * (10**9 * (1 + 3) + 10**9 * (1 + 10**9 * (10**9 + 1) ** 2))  # beyond 64 bits
    assert refusal(file, spec).startswith(f"{file}: 160 bytes; huge needs {expected}; ")


def test_weights_that_are_not_found_say_how_to_give_them(data: Path):
    cfg = data / "models" / "darknet53.cfg"
    with pytest.raises(WeightsError) as caught:
        load_model(cfg)
    where = data / "models" / "darknet53.weights"
    assert str(caught.value) == f"{cfg}: no weights given and none at {where}; give the file as weights"


def test_published_tiny_cfg_warns_of_its_mask_and_the_built_in_does_not(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "yolov3-tiny.weights"
    with path.open("wb") as file:
        file.write(HEADER)
        file.truncate(20 + 4 * yolov3_tiny().num_values)
    weights_from_darknet(yolov3_tiny(), path)
    assert not caplog.messages
    weights_from_darknet(spec_from_cfg(data / "models" / "yolov3-tiny.cfg"), path)
    assert caplog.messages == [
        f"{path}: yolov3-tiny gives its second head the anchors of mask=0,1,2, as the published cfg does, but the published "
        "weights were trained with mask=1,2,3 (COCO AP50 .33 with it, .18 without; ultralytics/yolov3#256). If these are the "
        "published weights, change the mask in the cfg or use the built-in yolov3-tiny."
    ]


@pytest.mark.parametrize(
    "spec, changes, text",
    [
        (TINY, {"layers.2.conv.bias": None}, "tiny: layers.2.conv.bias is nothing; expected (7,)"),
        (TINY, {"layers.2.conv.bias": VALUES[:6]}, "tiny: layers.2.conv.bias is (6,); expected (7,)"),
        (TINY, {"layers.0.conv.weight": VALUES[:6]}, "tiny: layers.0.conv.weight is (6,); expected (2, 3, 1, 1)"),
        (
            ModelSpec("keras", (Conv(2, batch_norm=True, bias=True),), (8, 8)),
            {},
            "keras: Darknet's format has no place for layers.0.conv.bias (a bias beside batch norm)",
        ),
    ],
)
def test_save_refuses_what_darknet_cannot_hold_and_leaves_no_file(tmp_path: Path, spec: ModelSpec, changes, text: str):
    weights = {key: array for key, array in {**tiny_weights(), **changes}.items() if array is not None}
    with pytest.raises(WeightsError) as caught:
        save_darknet_weights(spec, weights, tmp_path / "new.weights")
    assert str(caught.value) == text
    assert list(tmp_path.iterdir()) == []


# --- arbitrary input ---


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights") / "any.weights"


def result_or_refusal(path: Path, content: bytes) -> None:
    """Whole arrays of finite small parts, or a WeightsError that names the file; any other exception fails the test."""
    path.write_bytes(content)
    try:
        read = weights_from_darknet(TINY, path)
    except WeightsError as exc:
        assert str(exc).startswith(f"{path}: ")
    else:
        assert {key: array.shape for key, array in read.arrays.items()} == TINY.weight_shapes
        assert len(read.header.to_bytes()) + 140 == len(content)
        assert read.header.to_bytes() == content[:-140]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_result_or_a_refusal(scratch: Path, content: bytes):
    result_or_refusal(scratch, content)


@settings(deadline=None)
@given(
    minor=st.integers(0, 2),
    patches=st.dictionaries(st.integers(0, 159), st.integers(0, 255), max_size=8),
    length=st.one_of(st.just(160), st.integers(0, 200)),
)
def test_mutated_file_gives_a_result_or_a_refusal(scratch: Path, minor: int, patches: dict[int, int], length: int):
    content = bytearray(WeightsHeader(0, minor).to_bytes() + VALUES.tobytes())
    for index, byte in patches.items():
        content[min(index, len(content) - 1)] = byte
    result_or_refusal(scratch, bytes(content[:length].ljust(min(length, len(content) + 1), b"\0")))
