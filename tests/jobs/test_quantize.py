"""INT8 from pictures to a graph within its budget: calibration, export, and the search for what must stay float."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.cli_runner import call
from yolov3_trt.calibration.ranges import ranges_of_tensors
from yolov3_trt.calibration.table import load_table
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.errors import CalibrationError
from yolov3_trt.meta import Precision, load_model_meta
from yolov3_trt.models.architectures import shapes, yolov3
from yolov3_trt.sensitivity import int8_share, quantisable_layers, search_float_layers, snr_db
from yolov3_trt.settings import Method

# --- the arithmetic ---


def test_multiply_adds_are_those_that_darknet_prints():
    # Darknet counts a multiply-add as two: 65.86 BFLOPs for yolov3 at 416 (README of AlexeyAB's: 65.9).
    assert 2 * sum(yolov3().conv_macs.values()) == pytest.approx(65.86e9, rel=1e-3)
    assert yolov3().conv_macs[0] == 416 * 416 * 32 * 3 * 9


def test_the_share_of_int8_counts_multiply_adds():
    spec = shapes()
    total = sum(spec.conv_macs.values())
    assert int8_share(spec, ()) == 1.0
    assert int8_share(spec, (0, 0)) == pytest.approx(1 - spec.conv_macs[0] / total)
    assert int8_share(spec, quantisable_layers(spec)) == pytest.approx(0)


def test_the_signal_to_noise_ratio_is_that_of_the_worst_head():
    reference = [{"head0": np.array([3.0, 4.0]), "head1": np.array([10.0])}]
    got = [{"head0": np.array([3.0, 4.5]), "head1": np.array([9.9])}]
    assert snr_db(reference, got) == pytest.approx(10 * math.log10(25 / 0.25))
    assert snr_db(reference, reference) == math.inf


def test_ranges_are_of_all_inputs_together():
    inputs = [np.array([1.0, -2.0], np.float32), np.array([0.5, 3.0], np.float32)]
    found = ranges_of_tensors(lambda x: {"x": x, "y": x * 2}, inputs, 2, method=Method.MINMAX)
    assert found == {"x": 3.0, "y": 6.0}


def test_a_range_that_is_no_number_names_its_tensor():
    with pytest.raises(CalibrationError, match=r"tensor 'y': a value is NaN or infinite"):
        ranges_of_tensors(lambda x: {"y": x * np.float32(np.inf)}, [np.ones(2, np.float32)], 1, method=Method.MINMAX)


# --- the search ---


def test_nothing_is_skipped_within_the_budget():
    found = search_float_layers([3, 1, 2], lambda skipped: 0.5, floor=0.5)
    assert (found.float_layers, found.ap, found.ap_by_count) == ((), 0.5, {0: 0.5})


def test_the_fewest_noisy_layers_are_skipped_and_the_innocent_put_back():
    # Layers 7 and 4 cost 0.1 each; 9 looks noisy and costs nothing.
    cost = {7: 0.1, 9: 0.0, 4: 0.1}

    def ap_without(skipped: frozenset[int]) -> float:
        return 0.9 - sum(loss for layer, loss in cost.items() if layer not in skipped)

    found = search_float_layers([7, 9, 4, 1, 2, 3, 5, 6], ap_without, floor=0.895)
    assert found.float_layers == (7, 4)
    assert found.ap == pytest.approx(0.9)
    assert found.ap_by_count[0] == pytest.approx(0.7)


def test_a_budget_that_float_itself_breaks_says_how_close_it_came():
    with pytest.raises(
        CalibrationError, match=r"with all 2 layers float AP is 0\.4900; expected 0\.5000 or more: .*0\.3000"
    ):
        search_float_layers([1, 2], lambda skipped: 0.49 if len(skipped) == 2 else 0.3, floor=0.5)


# --- the command line, on the bundled model ---


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp32") / "shapes.onnx"
    assert call("export", "shapes", "-o", path) == 0
    return path


@pytest.fixture(scope="module")
def table(fp32: Path) -> Path:
    path = fp32.with_name("table.json")
    assert call("calibrate", fp32, "--images", "shapes", "--num-images", "8", "-o", path) == 0
    return path


def test_calibrating_twice_gives_the_same_bytes(fp32: Path, table: Path, tmp_path: Path):
    again = tmp_path / "again.json"
    assert call("calibrate", fp32, "--images", "shapes", "--num-images", "8", "-o", again) == 0
    assert again.read_bytes() == table.read_bytes()
    assert load_table(table).images.count == 8


def test_a_table_that_fits_is_reused_and_another_made_anew(
    fp32: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "table.json"
    copy.write_bytes(table.read_bytes())
    args = ("calibrate", fp32, "--images", "shapes", "--num-images", "8", "-o", copy)
    assert call(*args, "--json", "-") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["reused"] is True and "reused, it was made of just this model" in err
    assert call(*args, "--seed", "1") == 0
    assert "calibrating again, the table there differs in picture list" in capsys.readouterr().err
    assert copy.read_bytes() != table.read_bytes()


def test_int8_without_a_table_or_with_another_models_is_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert call("export", "shapes", "--precision", "int8", "-o", tmp_path / "x.onnx") == 2
    assert "missing with precision int8; expected pictures" in capsys.readouterr().err
    args = ("--precision", "int8", "--table", table, "-o", tmp_path / "x.onnx")
    assert call("export", "shapes", "--input-size", "128", *args) == 1
    assert "differs in input size (the table has 256x256; expected 128x128)" in capsys.readouterr().err
    assert call("export", "shapes", "--resize", "stretch", *args) == 1
    assert "differs in preprocessing" in capsys.readouterr().err
    changed = tmp_path / "changed.weights"
    from yolov3_trt.models import load_model

    content = bytearray(load_model("shapes").weights_path.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    assert call("export", "shapes", "--weights", changed, *args) == 1
    assert "differs in model" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


def test_the_ranges_are_written_as_tensorrts_cache_too(fp32: Path, table: Path, tmp_path: Path):
    copy, cache = tmp_path / "table.json", tmp_path / "shapes.cache"
    copy.write_bytes(table.read_bytes())
    args = ("calibrate", fp32, "--images", "shapes", "--num-images", "8", "-o", copy)
    assert call(*args, "--tensorrt-cache", cache) == 0
    first, *lines = cache.read_text().splitlines()
    assert first == "TRT-8601-EntropyCalibration2"
    scales = {name: struct.unpack(">f", bytes.fromhex(text))[0] for name, text in (line.split(": ") for line in lines)}
    of_qdq, of_all = load_table(table), load_table(copy)
    assert scales == pytest.approx({name: amax / 127 for name, amax in of_all.amax.items()}, rel=1e-6)
    # Implicit INT8 needs what Q/DQ leaves alone as well: what a convolution gives to its activation, and the heads.
    assert of_all.all_tensors and set(of_qdq.amax) < set(of_all.amax)
    # The cache goes with the exported FP32 graph, so its ranges are those of that.
    assert of_qdq.equalised and not of_all.equalised and of_all.doublings == of_all.bias_shifts == {}
    assert {"layers.0.conv", *(head.name for head in load_model_meta(fp32).heads)} <= set(of_all.amax) - set(
        of_qdq.amax
    )


def test_few_pictures_are_warned_about(fp32: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert call("calibrate", fp32, "--images", "shapes", "--num-images", "2", "-o", tmp_path / "t.json") == 0
    assert "warning: 2 calibration pictures; ranges are steadier with 32 or more" in capsys.readouterr().err


def test_pictures_that_accuracy_is_measured_on_are_refused(
    fp32: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_shapes_data_set(tmp_path, num_train=33, num_val=1, seed=1)
    folder = tmp_path / "images/train"
    args = (
        "calibrate",
        fp32,
        "--images",
        folder,
        "--num-images",
        "33",
        "--val-images",
        folder,
        "-o",
        tmp_path / "t.json",
    )
    assert call(*args) == 1
    assert "33 of the 33 calibration pictures are evaluation pictures too" in capsys.readouterr().err
    assert call(*args, "--allow-overlap") == 0
    assert "warning: 33 of the 33 calibration pictures" in capsys.readouterr().err


def test_quantize_counts_pictures_before_it_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write_shapes_data_set(tmp_path / "data", num_train=3, num_val=4, seed=1)
    assert call("quantize", "shapes", "--data", data, "-o", tmp_path / "out") == 1
    assert "3 pictures; expected 64 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_quantize_keeps_the_budget_and_says_what_it_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_shapes_data_set(tmp_path / "data", num_train=1, num_val=40, seed=90)
    args = ("quantize", "shapes", "--images", "shapes", "--num-images", "32", "-o", tmp_path / "out")
    val = ("--val-images", tmp_path / "data/images/val", "--annotations", tmp_path / "data/val.json")
    assert call(*args, *val, "--max-ap-drop", "0.01", "--layer-ap", "3", "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ap"] >= report["ap_fp32"] - 0.01
    assert report["int8_share_of_macs"] >= 0.9
    assert len(report["sensitivities"]) == len(quantisable_layers(shapes()))
    alone = [row["ap"] for row in report["sensitivities"]]
    assert all(0.5 < ap < 1 for ap in alone[:3]) and set(alone[3:]) == {None}
    ratios = [row["snr_db"] for row in report["sensitivities"]]
    assert ratios == sorted(ratios) and ratios[0] > 5
    path = Path(report["export"]["onnx"])
    meta = load_model_meta(path)
    assert meta.precision is Precision.INT8 and meta.calibration_sha256 is not None
    assert path.stat().st_size < (tmp_path / "out/shapes-256-fp32.onnx").stat().st_size * 0.4
