"""Every verb on a real model, and on inputs that are damaged, mistaken or missing."""

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from tests.cli_runner import Outcome, Run, call, files_in
from yolov3_trt.backends import BackendName, RunPrecision
from yolov3_trt.cli import options, output
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.models import load_spec
from yolov3_trt.models.class_names import SHAPE_NAMES

MODEL = "yolo-fastest-1.1"
METRICS = {"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"}
TINY_CFG = """[net]
height=32
width=32
channels=3

[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask=0,1
anchors=8,8, 16,16
classes=2
num=2
"""

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed"
)


@pytest.fixture(scope="session")
def cfg(coco_cfg: Callable[[str], Path]) -> Path:
    return coco_cfg(MODEL)


@pytest.fixture(scope="session")
def exported(cfg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fp32.onnx, fp16.onnx and what each export reported: fp32.json, fp16.json."""
    folder = tmp_path_factory.mktemp("exported")
    for precision in ("fp32", "fp16"):
        report = folder / f"{precision}.json"
        assert not call(
            "export", cfg, "--precision", precision.upper(), "-o", folder / f"{precision}.onnx", "--json", report
        )
    return folder


@pytest.fixture(scope="session")
def onnx(exported: Path) -> Path:
    return exported / "fp32.onnx"


@pytest.fixture(scope="session")
def engine(onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built on the CPU from the FP32 graph."""
    path = tmp_path_factory.mktemp("engine") / "fp32.engine"
    assert not call("build", onnx, "--flavor", "tensorrt_rtx", "-o", path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The cfg of a network of three layers and 2 classes, seeded weights beside it."""
    path = tmp_path / "tiny.cfg"
    path.write_text(TINY_CFG)
    path.with_suffix(".names").write_text("a\nb\n")
    write_weights(path, np.random.default_rng(0).uniform(0.1, 0.5, load_spec(path).num_values))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where results would go; not created."""
    return tmp_path / "out"


@pytest.fixture
def dog(data: Path) -> Path:
    return data / "images" / "dog.jpg"


@pytest.fixture(scope="session")
def eight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO annotations of eight images of val64."""
    content = json.loads((data / "coco" / "instances_val64.json").read_text())
    content["images"] = content["images"][:8]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    path = tmp_path_factory.mktemp("coco") / "eight.json"
    path.write_text(json.dumps(content))
    return path


def write_weights(cfg: Path, values: np.ndarray) -> Path:
    path = cfg.with_suffix(".weights")
    path.write_bytes(struct.pack("<3iq", 0, 2, 5, 0) + np.asarray(values, "<f4").tobytes())
    return path


def in_process_of_its_own(*args: str | Path, prefix: tuple[str, ...] = (), **env: str) -> Outcome:
    command = [*prefix, sys.executable, "-m", "yolov3_trt", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=60)
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_fails(outcome: Outcome, *texts: str) -> None:
    """The job failed with one line that holds these texts, and no result came out."""
    assert outcome.code == 1, outcome
    assert len(outcome.complaints) == 1, outcome.stderr
    assert outcome.complaints[0].startswith("yolov3_trt: ")
    for text in texts:
        assert text in outcome.complaints[0]
    assert outcome.stdout == ""


# --- what the verbs do ---


@pytest.mark.parametrize(
    "choices, values",
    [
        (options.BackendChoice, set(BackendName)),
        (options.RunPrecisionName, set(RunPrecision)),
    ],
)
def test_choices_of_an_option_are_the_values_of_its_enum(choices, values):
    assert set(get_args(choices)) == {value.value for value in values}


def test_models_lists_the_built_in_networks(run: Run):
    models = run("models", "--json", "-").json["models"]
    others = ("yolov4", "yolov4-tiny", "yolov7-tiny", "shapes")
    assert [model["name"] for model in models] == ["yolov3", "yolov3-spp", "yolov3-tiny", "yolov3-voc", *others]
    assert models[0]["num_parameters"] == 61_949_149
    assert (models[3]["num_classes"], models[3]["input_hw"], models[3]["heads"]) == (20, [416, 416], 3)
    assert "61,949,149" in run("models").stdout


@pytest.mark.parametrize("precision, most", [("fp32", 1e-5), ("fp16", 2e-2)])
def test_export_reports_its_distance_from_the_reference(exported: Path, precision: str, most: float):
    report = json.loads((exported / f"{precision}.json").read_text())
    assert report["onnx"] == str(exported / f"{precision}.onnx")
    assert report["bytes"] == (exported / f"{precision}.onnx").stat().st_size
    assert report["verified"] is True
    assert set(report["relative_error"]) == {"head0", "head1"}
    assert 0 < max(report["relative_error"].values()) < most
    assert report["meta"]["precision"] == precision
    assert report["meta"] == json.loads((exported / f"{precision}.onnx.json").read_text())


def test_export_leaves_graph_and_sidecar_and_nothing_else(exported: Path):
    names = {f"{precision}{suffix}" for precision in ("fp32", "fp16") for suffix in (".onnx", ".onnx.json", ".json")}
    assert files_in(exported) == names
    assert (exported / "fp16.onnx").stat().st_size < 0.6 * (exported / "fp32.onnx").stat().st_size


def test_export_writes_only_json_to_stdout(run: Run, tiny: Path, out: Path):
    outcome = run("-v", "export", tiny, "-o", out / "tiny.onnx", "--json", "-")
    assert outcome.code == 0
    assert outcome.json["onnx"] == str(out / "tiny.onnx")


def test_export_takes_size_batch_stages_and_thresholds(run: Run, tiny: Path, out: Path):
    stages = ("--input-stage", "pixels", "--output-stage", "detections", "--batch", "1:2:4", "--input-size", "64x32")
    outcome = run(
        "export", tiny, *stages, "--conf", "0.5", "--resize", "stretch", "-o", out / "tiny.onnx", "--json", "-"
    )
    meta = outcome.json["meta"]
    assert meta["input_hw"] == [32, 64]
    assert meta["batch"] == {"min": 1, "opt": 2, "max": 4}
    assert (meta["input_stage"], meta["output_stage"]) == ("pixels", "detections")
    assert (meta["preprocess"]["resize"], meta["postprocess"]["conf"]) == ("stretch", 0.5)


def test_export_takes_the_size_of_whole_frames_and_detect_holds_pictures_to_it(
    run: Run, tiny: Path, dog: Path, monkeypatch: pytest.MonkeyPatch
):
    height, width, _ = cv2.imread(str(dog)).shape
    monkeypatch.chdir(tiny.parent)
    stages = ("--input-stage", "pixels", "--frame-size", f"{width}x{height}")
    outcome = run("export", tiny, *stages, "--json", "-")
    graph = Path(f"engines/tiny-32-fp32-camera-{width}x{height}.onnx")
    assert outcome.json["onnx"] == str(graph)
    assert outcome.json["meta"]["frame_hw"] == [height, width]
    assert f"({height}, {width}, 3)" in run("info", graph).stdout.replace("(1, ", "(")
    (image,) = run("detect", graph, dog, "--json", "-").json["images"]
    assert (image["width"], image["height"]) == (width, height)
    cv2.imwrite("half.png", cv2.imread(str(dog))[: height // 2])
    assert_fails(
        run("detect", graph, "half.png"),
        f"an image is uint8 ({height // 2}, {width}, 3); expected uint8 ({height}, {width}, 3)",
        "or export the model without frame_size",
    )


@needs_rtx
def test_build_from_a_model_writes_graph_and_engine(run: Run, tiny: Path, out: Path):
    outcome = run("build", tiny, "--flavor", "tensorrt_rtx", "-o", out / "tiny.engine", "--json", "-")
    assert outcome.code == 0
    assert files_in(out) == {f"tiny.{name}" for name in ("onnx", "onnx.json", "engine", "engine.json")}
    report = outcome.json
    assert report["export"]["meta"]["precision"] == "fp16"
    assert report["bytes"] == (out / "tiny.engine").stat().st_size
    assert report["meta"] == json.loads((out / "tiny.engine.json").read_text())
    assert report["meta"]["flavor"] == "tensorrt_rtx"


@needs_rtx
def test_build_from_an_onnx_writes_the_engine_beside_it(run: Run, exported: Path, onnx: Path, out: Path):
    out.mkdir()
    for name in ("fp32.onnx", "fp32.onnx.json"):
        shutil.copy(exported / name, out)
    outcome = run("build", out / "fp32.onnx", "--flavor", "tensorrt_rtx", "--json", "-")
    assert outcome.json["engine"] == str(out / "fp32.engine")
    assert outcome.json["export"] is None and outcome.json["reason"] == "there was no engine yet"
    assert files_in(out) == {"fp32.onnx", "fp32.onnx.json", "fp32.engine", "fp32.engine.json"}


@needs_rtx
def test_options_become_a_recipe_that_builds_the_same(run: Run, tiny: Path, out: Path):
    args = (
        "--flavor",
        "tensorrt_rtx",
        "--precision",
        "fp32",
        "--batch",
        "1:2:4",
        "--conf",
        "0.4",
        "--workspace-mib",
        "64",
    )
    first = run("build", tiny, *args, "-o", out / "a.engine", "--save-recipe", out / "a.toml", "--json", "-").json
    recipe = (out / "a.toml").read_text()
    assert "batch = [1, 2, 4]" in recipe and "conf = 0.4" in recipe and "workspace_mib = 64" in recipe
    again = run("build", out / "a.toml", "-o", out / "a.engine")
    assert "kept: nothing changed since it was built" in again.stdout
    second = run("build", out / "a.toml", "-o", out / "b.engine", "--json", "-").json
    assert second["meta"]["plan_sha256"] == first["meta"]["plan_sha256"]
    assert second["meta"]["inputs"] == first["meta"]["inputs"]
    forced = run("build", out / "a.toml", "-o", out / "a.engine", "--force")
    assert "built: asked to" in forced.stdout and "s the last time ..." in forced.stderr


@needs_rtx
def test_int8_is_calibrated_on_the_way(run: Run, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    args = ("--flavor", "tensorrt_rtx", "--precision", "int8", "--images", "shapes", "--num-images", "4")
    outcome = run("build", tiny, *args, "--table", out / "t.json", "-o", out / "tiny.engine", "--json", "-")
    assert outcome.json["meta"]["model"]["precision"] == "int8"
    assert json.loads((out / "t.json").read_text())["images"]["count"] == 4


@pytest.mark.parametrize(
    "args, text",
    [
        (
            ("RECIPE", "--batch", "2"),
            "--batch: given with RECIPE, which says it itself; leave it out, or change the recipe",
        ),
        (
            ("RECIPE", "--images", "shapes"),
            "--images: given with precision fp16; expected int8, which alone has ranges",
        ),
        (("ONNX", "--precision", "fp16"), "given with ONNX, which was exported with its own; leave it out, or build "),
        (
            ("MODEL", "--precision", "int8"),
            "--images: missing with precision int8; expected pictures to find the ranges on",
        ),
    ],
)
def test_build_refuses_options_that_do_not_go_together(run: Run, tiny: Path, onnx: Path, args: tuple, text: str):
    recipe = Path(__file__).parents[2] / "engines" / "shapes-256-fp16.toml"
    places = {"RECIPE": str(recipe), "ONNX": str(onnx), "MODEL": str(tiny)}
    outcome = run("build", *(places.get(arg, arg) for arg in args))
    assert outcome.code == 2
    shown = re.sub(r"\s+", "", outcome.usage_error)
    assert re.sub(r"\s+", "", text.replace(args[0], places[args[0]]) if args[0] != "MODEL" else text) in shown


def test_a_recipe_that_cannot_be_built_is_refused_with_its_key(run: Run, out: Path):
    out.mkdir()
    recipe = out / "r.toml"
    recipe.write_text('format = "yolov3_trt.recipe/1"\nmodel = "shapes"\n[graph]\nprecision = "int8"\n')
    assert_fails(
        run("build", recipe),
        f"{recipe}: calibration.images: missing",
        "give images, or as table the file that `calibrate` made",
    )


@needs_rtx
def test_the_layers_of_an_engine_take_a_gpu(run: Run, engine: Path):
    if installed_gpu() is not None:
        pytest.skip("there is a GPU")
    assert_fails(run("info", engine, "--layers"), "cannot run here: this machine shows no NVIDIA GPU and driver")


def test_detect_reports_each_picture_of_files_folders_and_globs(run: Run, onnx: Path, data: Path, dog: Path):
    folder, pattern = data / "images" / "exact320", str(data / "images" / "[ek]*")  # eagle, kite, two folders
    outcome = run("detect", onnx, dog, folder, pattern, "--json", "-")
    assert outcome.code == 0
    report = outcome.json
    assert set(report) == {"artifact", "backend", "images"}
    assert (report["artifact"], report["backend"]) == (str(onnx), "onnxruntime")
    files = [dog, *sorted(folder.iterdir()), data / "images" / "eagle.jpg", data / "images" / "kite.jpg"]
    assert [image["file"] for image in report["images"]] == [str(file) for file in files]
    found = report["images"][0]
    assert set(found) == {"file", "width", "height", "detections"}
    assert (found["width"], found["height"]) == (768, 576)
    assert {row["class_name"] for row in found["detections"]} >= {"dog", "bicycle"}
    for row in found["detections"]:
        assert set(row) == {"class_id", "class_name", "score", "xyxy"}
        assert 0.25 < row["score"] < 1
        x1, y1, x2, y2 = row["xyxy"]
        assert 0 <= x1 < x2 <= 768 and 0 <= y1 < y2 <= 576
    assert next(row for row in found["detections"] if row["class_name"] == "dog")["class_id"] == 16


def test_detect_without_json_prints_a_line_per_object(run: Run, onnx: Path, dog: Path):
    outcome = run("detect", onnx, dog)
    first, *rest = outcome.stdout.splitlines()
    assert first == f"{dog}  768x576  {len(rest)} objects"
    assert any(line.split()[0] == "dog" for line in rest)


def test_detect_on_a_cfg_finds_what_its_onnx_finds(run: Run, cfg: Path, onnx: Path, dog: Path):
    by_torch, by_ort = run("detect", cfg, dog, "--json", "-").json, run("detect", onnx, dog, "--json", "-").json
    assert by_torch["backend"] == "torch"
    expected = by_ort["images"][0]["detections"]
    got = by_torch["images"][0]["detections"]
    assert len(got) == len(expected) > 0
    for a, b in zip(got, expected, strict=True):
        assert a["class_name"] == b["class_name"]
        assert a["score"] == pytest.approx(b["score"], abs=1e-4)
        assert a["xyxy"] == pytest.approx(b["xyxy"], abs=0.05)


def test_a_higher_threshold_leaves_the_same_best_detections(run: Run, onnx: Path, dog: Path):
    every = run("detect", onnx, dog, "--json", "-").json["images"][0]["detections"]
    few = run("detect", onnx, dog, "--conf", "0.5", "--json", "-").json["images"][0]["detections"]
    assert few == [row for row in every if row["score"] > 0.5]
    assert 0 < len(few) < len(every)
    assert run("detect", onnx, dog, "--max-detections", "1", "--json", "-").json["images"][0]["detections"] == every[:1]


def test_detect_saves_pictures_with_boxes_and_keeps_equal_names_apart(
    run: Run, onnx: Path, dog: Path, tmp_path: Path, out: Path
):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(dog, tmp_path / name)
    eagle = dog.with_name("eagle.jpg")
    shutil.copy(eagle, tmp_path / "no_suffix")
    outcome = run("detect", onnx, tmp_path / "one", tmp_path / "two", tmp_path / "no_suffix", "--save", out)
    assert outcome.code == 0
    assert files_in(out) == {"dog.jpg", "dog-2.jpg", "no_suffix.jpg"}
    before, after = cv2.imread(str(dog)).astype(int), cv2.imread(str(out / "dog-2.jpg")).astype(int)
    assert after.shape == before.shape
    changed = (np.abs(after - before).max(axis=2) > 60).mean()
    assert 0.005 < changed < 0.3  # lines and labels, not another picture
    assert cv2.imread(str(out / "no_suffix.jpg")).shape == cv2.imread(str(eagle)).shape


def test_detect_does_not_save_over_the_pictures_it_reads(run: Run, onnx: Path, dog: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(dog, photos)
    outcome = run("detect", onnx, photos, "--save", tmp_path / "x" / ".." / "photos")
    assert outcome.code == 2
    assert "holds pictures to read, which this would overwrite" in outcome.usage_error
    assert (photos / "dog.jpg").read_bytes() == dog.read_bytes()


def test_detect_reads_unusual_but_sound_pictures(run: Run, onnx: Path, dog: Path, tmp_path: Path):
    shutil.copy(dog.parent / "exact320" / "dog.png", tmp_path / "png_by_content.jpg")
    # What phones append to a photograph, here with the marker of a scan in it.
    (tmp_path / "motion_photo.jpg").write_bytes(dog.read_bytes() + b"ftypmp4\xff\xd9...\xff\xda...")
    outcome = run("detect", onnx, tmp_path, "--json", "-")
    assert (outcome.code, outcome.complaints) == (0, [])
    assert [len(image["detections"]) > 0 for image in outcome.json["images"]] == [True, True]


def test_a_file_name_that_is_no_text_does_not_lose_the_result(onnx: Path, dog: Path, tmp_path: Path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    shutil.copy(os.fsencode(dog), name)
    outcome = in_process_of_its_own("detect", onnx, tmp_path, PYTHONIOENCODING="utf-8:strict")
    assert outcome.code == 0, outcome.stderr
    assert r"caf\udce9.jpg  768x576" in outcome.stdout


def test_eval_reports_the_metrics_of_coco(run: Run, onnx: Path, data: Path):
    coco = data / "coco"
    outcome = run(
        "eval",
        onnx,
        "--images",
        coco / "val64" / "images",
        "--annotations",
        coco / "instances_val64.json",
        "--json",
        "-",
    )
    report = outcome.json
    assert set(report) >= {"artifact", "backend", "precision", "images"} | METRICS
    assert (report["backend"], report["precision"], report["images"]) == ("onnxruntime", "fp32", 64)
    # Modes cv2-letterbox and darknet-letterbox of the reference data: .1797 and .1757, with other suppression.
    assert report["AP"] == pytest.approx(0.178, abs=0.015)
    assert 0 < report["AP_small"] < report["AP_medium"] < report["AP_large"] < 1
    assert outcome.complaints == []


@pytest.mark.parametrize("ids", ["missing", "all zero"])
def test_eval_does_not_depend_on_the_ids_of_annotations(
    run: Run, onnx: Path, data: Path, eight: Path, tmp_path: Path, ids: str
):
    content = json.loads(eight.read_text())
    for row in content["annotations"]:
        del row["id"]
        if ids == "all zero":
            row["id"] = 0
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    images = ("--images", data / "coco" / "val64" / "images", "--json", "-")
    expected = run("eval", onnx, "--annotations", eight, *images).json
    assert expected["AP"] > 0
    found = run("eval", onnx, "--annotations", other, *images).json
    assert {**found, "machine": None} == {**expected, "machine": None}  # it has the load of the moment


def test_compare_finds_a_graph_and_its_reference_equal(run: Run, cfg: Path, onnx: Path, data: Path):
    outcome = run("compare", cfg, onnx, "--images", str(data / "images" / "[dk]*"), "--names", "coco", "--json", "-")
    report = outcome.json
    assert (report["a"], report["b"], report["images"]) == (str(cfg), str(onnx), 2)
    assert set(report["heads"]) == {"head0", "head1"}
    for head in report["heads"].values():
        assert 0 < head["mean_abs"] < head["max_abs"] < 1e-3
        assert head["cosine"] == pytest.approx(1, abs=1e-6)
    found = report["detections"]
    assert found["a"] == found["b"] == found["matched"] > 5
    assert found["min_iou"] > 0.999


def test_compare_shows_what_half_precision_costs(run: Run, exported: Path, dog: Path):
    fp32, fp16 = exported / "fp32.onnx", exported / "fp16.onnx"
    report = run("compare", fp32, fp16, "--images", dog, "--json", "-").json
    assert 1e-3 < report["heads"]["head0"]["max_abs"] < 1
    assert "matched" in run("compare", fp32, fp16, "--images", dog).stdout


def test_compare_refuses_heads_of_different_shapes(run: Run, tiny: Path, tmp_path: Path, dog: Path):
    other = tmp_path / "stride1.cfg"
    other.write_text(TINY_CFG.replace("stride=2", "stride=1"))
    for suffix in (".weights", ".names"):
        shutil.copy(tiny.with_suffix(suffix), other.with_suffix(suffix))
    outcome = run("compare", tiny, other, "--images", dog)
    assert_fails(outcome, "tiny and stride1 have heads of different shapes (14x16x16; 14x32x32)")


def test_compare_of_infinite_heads_is_still_json(run: Run, tiny: Path, dog: Path):
    write_weights(tiny, np.full(load_spec(tiny).num_values, 1e38))
    outcome = run("compare", tiny, tiny, "--images", dog, "--json", "-")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["heads"]["head0"]["max_abs"] is None


def test_info_of_a_model_lists_its_layers(run: Run, cfg: Path):
    report = run("info", cfg, "--json", "-").json
    assert (report["name"], report["num_classes"], report["input_hw"]) == (MODEL, 80, [320, 320])
    assert report["layers"][0] == {"index": 0, "type": "Conv", "output_chw": [8, 160, 160]}
    lines = run("info", cfg).stdout.splitlines()
    assert len(lines) == 1 + len(report["layers"])
    assert lines[1].split() == ["0", "Conv", "8x160x160"]


def test_info_of_an_onnx_shows_its_sidecar(run: Run, onnx: Path):
    report = run("info", onnx, "--json", "-").json
    assert report["meta"] == json.loads((onnx.parent / "fp32.onnx.json").read_text())
    assert report["verdict"] == "yes, on ONNX Runtime"
    assert "head0 10x10, head1 20x20" in run("info", onnx).stdout


@needs_rtx
def test_info_of_an_engine_says_whether_it_runs_here(run: Run, engine: Path):
    report = run("info", engine, "--json", "-").json
    assert report["meta"] == json.loads((engine.parent / "fp32.engine.json").read_text())
    assert report["verdict"].startswith(("no: ", "perhaps: "))
    assert f"runs here      {report['verdict']}" in run("info", engine).stdout


def test_a_result_goes_to_a_json_file_and_as_text_to_stdout(run: Run, onnx: Path, dog: Path, out: Path):
    outcome = run("detect", onnx, dog, "--json", out / "deeper" / "dog.json")
    assert json.loads((out / "deeper" / "dog.json").read_text())["images"][0]["file"] == str(dog)
    assert outcome.stdout.startswith(f"{dog}  768x576")
    assert files_in(out) == {"deeper", "deeper/dog.json"}


@pytest.mark.parametrize("verb", ["detect", "eval", "compare", "bench"])
def test_stdout_holds_json_alone_while_stderr_tells_the_progress(
    verb: str, run: Run, onnx: Path, data: Path, dog: Path, eight: Path
):
    args = {
        "detect": (onnx, dog),
        "eval": (onnx, "--images", data / "coco" / "val64" / "images", "--annotations", eight),
        "compare": (onnx, onnx, "--images", dog),
        "bench": (onnx, "--frames", "1", "--warmup", "0"),
    }
    outcome = run("-v", verb, *args[verb], "--json", "-")
    assert isinstance(outcome.json, dict)
    assert outcome.stderr.splitlines()[0].endswith(" ...")


def test_where_no_bar_can_be_drawn_a_line_tells_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = iter(range(0, 1000, 4))  # s; each look takes one
    monkeypatch.setattr("yolov3_trt.cli.output.time.monotonic", lambda: float(next(clock)))
    assert list(output.track(iter("abcdef"), "detecting", 6)) == list("abcdef")
    assert capsys.readouterr().err.splitlines() == [
        "detecting: 6 ...",
        "detecting: 3 of 6, 12 s, 12 s to go ...",
        "detecting: 6 of 6, 24 s, 0 s to go ...",
    ]
    assert output.progress_text(7, None, 30.0) == output.progress_text(7, 5, 30.0) == "7, 30 s"


# --- wrong usage: exit code 2 ---


@pytest.mark.parametrize(
    "args, text",
    [
        (["paint"], "No such command 'paint'"),
        (["detect", "x.onnx"], "expected pictures, or --sample for the one in the package"),
        (["export", "tiny.cfg", "--precision", "int4"], "'int4' is not one of 'fp32', 'fp16'"),
        (["export", "tiny.cfg", "--colour", "red"], "No such option: --colour"),
        (
            ["export", "tiny.cfg", "--input-size", "0"],
            "Invalid value for --input-size: got '0'; expected 1 to 99999 px a side",
        ),
        (
            ["export", "tiny.cfg", "--batch", "2:4"],
            "--batch: got '2:4'; expected a number or MIN:OPT:MAX, e.g. 1 or 1:4:8",
        ),
        (["export", "tiny.cfg", "--batch", "4:2:1"], "--batch: got 4:2:1; expected 1 <= MIN <= OPT <= MAX"),
        (
            ["export", "tiny.cfg", "--frame-size", "x"],
            "Invalid value for --frame-size: got 'x'; expected WIDTHxHEIGHT or one number, e.g. 1280x720 or 416",
        ),
        (
            ["export", "tiny.cfg", "--frame-size", "1280x720"],
            "Invalid value for --frame-size: given with --input-stage tensor; expected pixels",
        ),
        (["export", "tiny.cfg", "--opset", "12"], "Invalid value for --opset: got 12; expected 14 to 25"),
        (["export", "tiny.cfg", "--dla-core", "0"], "No such option: --dla-core"),
        (["export", "tiny.cfg", "--thresh", "0.3"], "No such option: --thresh; here it is --conf"),
        (["build", "tiny.cfg", "--fp16"], "No such option: --fp16; here it is --precision fp16"),
        (["build", "tiny.cfg", "--skip-layers", "3"], "No such option: --skip-layers; here it is --float-layers"),
        (["build", "tiny.cfg", "--workspace", "3"], "No such option: --workspace; here it is --workspace-mib"),
        (["detect", "a.onnx", "x.jpg", "-o", "out"], "No such option: -o; here it is --save"),
        (
            ["detect", "a.onnx", "--source", "x.jpg"],
            "No such option: --source; here it is given without one, as SOURCE...",
        ),
        (["export", "--cfg", "tiny.cfg"], "No such option: --cfg; here it is given without one, as MODEL"),
        (["detect", "a.onnx", "x.jpg", "--imgsz", "320"], "No such option: --imgsz; here it is --input-size"),
        (["build", "tiny.cfg", "--dla-core", "99"], "Invalid value for --dla-core: got 99; expected 0 to 15"),
        (
            ["build", "tiny.cfg", "--float-layers", "1,x"],
            "Invalid value for --float-layers: got '1,x'; expected layer numbers",
        ),
        (["export", "tiny.cfg", "-o", "graph"], "graph; expected a file name that ends in .onnx"),
        (["build", "a.onnx", "-o", "a.onnx"], "a.onnx; expected a file name that ends in .engine or .plan"),
        (
            ["build", "a.onnx", "--batch", "4"],
            "given with a.onnx, which was exported with its own; leave it out, or build from the model",
        ),
        (
            ["build", "a.onnx", "--frame-size", "1280x720"],
            "Invalid value for --frame-size: given with a.onnx, which was exported with its own",
        ),
        (["detect", "a.onnx", "x.jpg", "--conf", "1.5"], "Invalid value for --conf: got 1.5; expected 0 to 1"),
        (["detect", "a.onnx", "x.jpg", "--max-detections", "0"], "--max-detections: got 0; expected 1 to 512"),
        (["bench", "a.onnx", "--frames", "0"], "Invalid value for '--frames'"),
        (["bench", "a.onnx", "--reference", "b.onnx"], "expected an artifact, a row, a backend or none"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(
    run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], text: str
):
    monkeypatch.chdir(tiny.parent)
    before = files_in(tiny.parent)
    outcome = run(*args)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert text in outcome.usage_error
    assert files_in(tiny.parent) == before


def test_the_sample_picture_shows_every_shape_once(run: Run, out: Path):
    outcome = run("detect", "shapes", "--sample", "--save", out, "--json", "-")
    (image,) = outcome.json["images"]
    assert sorted(row["class_name"] for row in image["detections"]) == sorted(SHAPE_NAMES)
    assert files_in(out) == {"shapes.jpg"}
    assert "or --sample for the one in the package" in run("detect", "shapes").usage_error


# --- bad input: exit code 1, one line, nothing half-written ---


def test_the_module_ends_its_process_with_1_and_no_traceback():
    outcome = in_process_of_its_own("export", "yolov9")
    assert_fails(outcome, "yolov9: there is no such model; did you mean yolov4? expected one of yolov3, yolov3-spp")


@pytest.mark.parametrize(
    "args, texts",
    [
        (["export", "missing.cfg"], ["missing.cfg: cannot be read (No such file or directory)"]),
        (["export", "yolov3", "--weights", "missing.weights"], ["missing.weights: there is no such file"]),
        (["detect", "missing.onnx", "{dog}"], ["missing.onnx: there is no such file"]),
        (["detect", "{onnx}", "missing.jpg"], ["missing.jpg: there is no such file or folder"]),
        (["detect", "{onnx}", "missing*.jpg"], ["missing*.jpg: no file matches"]),
        (
            ["detect", "{onnx}", "http://h/a.jpg"],
            ["http://h/a.jpg: a URL; expected a file, folder or glob: download it first"],
        ),
        (["detect", "{onnx}", "empty"], ["empty: there are no pictures in this folder; expected .bmp, .jpeg, .jpg"]),
        (["detect", "{onnx}", "x" * 300], ["File name too long"]),
        (["detect", "x" * 300 + ".onnx", "{dog}"], ["File name too long"]),
        (
            ["detect", "{dog}", "{dog}"],
            ["dog.jpg: this is a picture or a video; the model comes first: a built-in model (yolov3,"],
        ),
        (
            ["detect", "yolov3-tinny", "{dog}", "--names", "coco"],
            ["not an artifact; did you mean yolov3-tiny? expected"],
        ),
        (
            ["info", "tiny.weights"],
            ["tiny.weights: these are Darknet weights: give the .cfg; ", "tiny.cfg lies beside it"],
        ),
        (["detect", "{onnx}", "{dog}", "--backend", "torch"], ["torch does not run this; it runs on onnxruntime"]),
        (["detect", "{onnx}", "{dog}", "--names", "voc"], ["are those it was exported with; leave them out"]),
        (["build", "missing.onnx"], ["missing.onnx: there is no such file"]),
        (["info", "missing.engine"], ["missing.engine: there is no such file"]),
        (["export", "tiny.cfg", "--names", "coco"], ["coco: 80 class names; expected 2, one a line"]),
    ],
)
def test_what_is_missing_or_does_not_go_together_is_named(
    run: Run,
    onnx: Path,
    dog: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    texts: list[str],
):
    monkeypatch.chdir(tiny.parent)
    Path("empty").mkdir()
    before = files_in(tiny.parent)
    outcome = run(*(arg.format(onnx=onnx, dog=dog) for arg in args))
    assert_fails(outcome, *texts)
    assert files_in(tiny.parent) - before <= {"engines"}  # the default folder, empty


@pytest.mark.parametrize("verb, name", [("export", "m.onnx"), ("build", "m.engine")])
@pytest.mark.parametrize(
    "change, text",
    [
        (lambda content: content[:100_000], "100000 bytes; m needs 1384268; 1284268 bytes are missing"),
        (lambda content: content + bytes(100), "1384368 bytes; m needs 1384268; 100 bytes are left over"),
        (lambda content: content[:10], "10 bytes are too few for a header"),
        (lambda content: b"<!DOCTYPE html>" + content, "this is an HTML page, not Darknet weights"),
    ],
    ids=["truncated", "oversized", "header only", "a web page"],
)
def test_weights_of_the_wrong_length_are_refused(
    run: Run, cfg: Path, tmp_path: Path, out: Path, verb: str, name: str, change: Callable[[bytes], bytes], text: str
):
    shutil.copy(cfg, tmp_path / "m.cfg")
    (tmp_path / "m.weights").write_bytes(change(cfg.with_suffix(".weights").read_bytes()))
    assert_fails(run(verb, tmp_path / "m.cfg", "-o", out / name), "m.weights", text)
    assert files_in(out) == set()


@pytest.mark.parametrize(
    "old, new, text",
    [
        ("[yolo]", "[lstm]", "m.cfg:19: [lstm] is a recurrent layer; this package runs networks that end in [yolo]"),
        ("[yolo]", "[route]\nlayers=-4\n[yolo]", "m.cfg:20: [route] layers=-4 reaches before the first layer"),
        ("stride=2", "stride=2\ncoordconv=1", "m.cfg:11: [convolutional] coordconv= is not known here"),
        ("stride=2", "stride=two", "m.cfg:10: [convolutional] stride='two'; expected a whole number"),
        ("[net]", "net", "m.cfg:1: 'net' is neither [section] nor key=value"),
        ("classes=2", "classes=3", "filters=14; expected masks x (5 + classes) = 2 x (5 + 3) = 16"),
    ],
)
def test_a_cfg_at_fault_is_refused_with_its_line(
    run: Run, tiny: Path, tmp_path: Path, out: Path, old: str, new: str, text: str
):
    (tmp_path / "m.cfg").write_text(TINY_CFG.replace(old, new))
    outcome = run("export", tmp_path / "m.cfg", "--weights", tiny.with_suffix(".weights"), "-o", out / "m.onnx")
    assert_fails(outcome, text)
    assert files_in(out) == set()


def test_a_wrong_class_count_is_refused_by_the_layer_before_the_head(run: Run, cfg: Path, tmp_path: Path, out: Path):
    (tmp_path / "m.cfg").write_text(cfg.read_text().replace("classes=80", "classes=20"))
    outcome = run("export", tmp_path / "m.cfg", "--weights", cfg.with_suffix(".weights"), "-o", out / "m.onnx")
    assert_fails(outcome, "m.cfg:", "[yolo]", "has filters=255; expected masks x (5 + classes) = 3 x (5 + 20) = 75")
    assert files_in(out) == set()


def test_a_wrong_class_count_with_matching_filters_is_refused_by_the_weights(
    run: Run, cfg: Path, tmp_path: Path, out: Path
):
    text = cfg.read_text().replace("classes=80", "classes=20").replace("filters=255", "filters=75")
    (tmp_path / "m.cfg").write_text(text)
    outcome = run("export", tmp_path / "m.cfg", "--weights", cfg.with_suffix(".weights"), "-o", out / "m.onnx")
    assert_fails(outcome, "it fits the same network with 80 classes instead of 20: use that cfg")
    assert files_in(out) == set()


def test_damaged_pictures_are_named_skipped_and_counted(run: Run, onnx: Path, dog: Path, tmp_path: Path, out: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(dog, photos / "a.jpg")
    (photos / "b.jpg").write_text("not a picture")
    (photos / "c.jpg").write_bytes(dog.read_bytes()[:-2000])
    (photos / "d.png").write_bytes(b"")
    shutil.copy(dog, photos / "e.jpg")
    outcome = run("detect", onnx, photos, "--save", out, "--json", "-")
    assert outcome.code == 1
    skipped_b, skipped_c, skipped_d, last = outcome.complaints
    assert skipped_b == f"skipped {photos / 'b.jpg'}: not a picture that OpenCV can read, or damaged"
    assert skipped_c == f"skipped {photos / 'c.jpg'}: this JPEG is cut short; copy the file again"
    assert skipped_d == f"skipped {photos / 'd.png'}: the file is empty; expected a picture"
    assert last == "yolov3_trt: 3 of 5 files could not be read"
    report = outcome.json
    assert [image["file"] for image in report["images"]] == [str(photos / "a.jpg"), str(photos / "e.jpg")]
    assert all(len(image["detections"]) > 0 for image in report["images"])
    assert len(report["skipped"]) == 3
    assert files_in(out) == {"a.jpg", "e.jpg"}


def test_a_damaged_picture_ends_eval_and_compare(run: Run, onnx: Path, data: Path, eight: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [image["file_name"] for image in json.loads(eight.read_text())["images"]]
    for name in names:
        shutil.copy(data / "coco" / "val64" / "images" / name, photos)
    (photos / names[3]).write_bytes(b"not a picture")
    for outcome in (
        run("eval", onnx, "--images", photos, "--annotations", eight),
        run("compare", onnx, onnx, "--images", photos),
    ):
        assert_fails(outcome, names[3], "not a picture that OpenCV can read, or damaged")


@pytest.mark.parametrize("verb", ["detect", "build", "info"])
@pytest.mark.parametrize(
    "case, text",
    [
        ("no sidecar", "its sidecar fp32.onnx.json is not beside it; copy both files"),
        ("sidecar of another", "the file was altered, cut short or belongs to another sidecar"),
        ("truncated", "the file was altered, cut short or belongs to another sidecar"),
        ("sidecar no JSON", "this sidecar cannot be read"),
        ("sidecar of a later version", "format 'yolov3_trt.model/9'; expected 'yolov3_trt.model/1'"),
    ],
)
def test_an_onnx_and_a_sidecar_that_do_not_belong_together_are_refused(
    run: Run, exported: Path, dog: Path, out: Path, verb: str, case: str, text: str
):
    out.mkdir()
    graph = shutil.copy(exported / "fp32.onnx", out / "fp32.onnx")
    sidecar = out / "fp32.onnx.json"
    if case != "no sidecar":
        shutil.copy(exported / ("fp16.onnx.json" if case == "sidecar of another" else "fp32.onnx.json"), sidecar)
    if case == "truncated":
        graph.write_bytes(graph.read_bytes()[:500_000])
    if case == "sidecar no JSON":
        sidecar.write_text("{")
    if case == "sidecar of a later version":
        sidecar.write_text(sidecar.read_text().replace("model/1", "model/9"))
    before = files_in(out)
    assert_fails(run(verb, graph, *([dog] if verb == "detect" else [])), str(graph), text)
    assert files_in(out) == before


def test_a_damaged_graph_with_a_fitting_sidecar_is_refused(run: Run, exported: Path, dog: Path, out: Path):
    import hashlib

    out.mkdir()
    graph = out / "fp32.onnx"
    graph.write_bytes((exported / "fp32.onnx").read_bytes()[:500_000])
    meta = json.loads((exported / "fp32.onnx.json").read_text())
    meta["onnx_sha256"] = hashlib.sha256(graph.read_bytes()).hexdigest()
    (out / "fp32.onnx.json").write_text(json.dumps(meta))
    assert_fails(run("detect", graph, dog), "fp32.onnx: ONNX Runtime does not load it: ")


@needs_rtx
def test_an_engine_is_not_run_but_told_what_it_is(run: Run, engine: Path, dog: Path, out: Path):
    outcome = run("detect", engine, dog, "--save", out)
    assert_fails(outcome, f"{engine}: cannot run here: this machine shows no NVIDIA GPU and driver; run the graph")
    assert files_in(out) == set()


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
def test_an_engine_that_others_can_write_to_takes_trust(run: Run, engine: Path, dog: Path, tmp_path: Path):
    if installed_gpu() is not None:
        pytest.skip("there is a GPU")
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in (engine.name, f"{engine.name}.json"):
        shutil.copy(engine.with_name(name), folder)
    folder.chmod(0o777)
    assert_fails(
        run("detect", folder / engine.name, dog), "can be written by every user", "with --trust, or: chmod o-w"
    )
    assert_fails(run("detect", folder / engine.name, dog, "--trust"), "this machine shows no NVIDIA GPU and driver")


@pytest.mark.parametrize(
    "content, text",
    [
        ("person 0.5 0.5 0.1 0.1", "not JSON"),
        ("[]", "expected COCO annotations"),
        ("{}", "'categories' is missing; expected COCO annotations"),
        ('{"categories": [], "images": [], "annotations": []}', "there are no images; expected one or more"),
        (
            '{"categories": [{"id": 1, "name": "crab"}], "images": [{"id": 1, "file_name": "000000000139.jpg"}], '
            '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81}]}',
            "none of its 1 classes ('crab') is one of the model's 80 ('person', 'bicycle', 'car', ...); expected the same",
        ),
        (
            '{"categories": [{"id": 1, "name": "person"}], "images": [{"id": 1, "file_name": "000000000139.jpg"}], '
            '"annotations": [{"image_id": 1, "category_id": 1, "area": 1, "bbox": [1]}]}',
            "annotations[0].bbox: [1]; expected x, y, width and height in px",
        ),
    ],
)
def test_annotations_that_are_not_cocos_are_refused(
    run: Run, onnx: Path, data: Path, tmp_path: Path, content: str, text: str
):
    (tmp_path / "boxes.json").write_text(content)
    outcome = run(
        "eval", onnx, "--images", data / "coco" / "val64" / "images", "--annotations", tmp_path / "boxes.json"
    )
    assert_fails(outcome, "boxes.json: ", text)


@pytest.mark.parametrize(
    "args, text",
    [
        (
            ("eval", "M", "--images", ".", "--annotations", "no.json"),
            "--annotations no.json: there is no such file; expected a",
        ),
        (
            ("eval", "M", "--images", "no", "--annotations", "t.cfg"),
            "--images no: there is no such folder; expected a folder",
        ),
        (
            ("compare", "M", "M", "--images", ".", "--annotations", "."),
            "--annotations .: this is a folder; expected a file",
        ),
        (("bench", "M", "--images", ".", "--annotations", "no.json"), "--annotations no.json: there is no such file"),
        (("bench", "M", "--images", ".", "--annotations", "t.cfg"), "t.cfg: not JSON (Expecting value"),
        (("compare", "M", "M", "--images", ".", "--annotations", "t.cfg"), "t.cfg: not JSON (Expecting value"),
        (("eval", "M", "--images", ".", "--annotations", "t.cfg"), "t.cfg: not JSON (Expecting value"),
        (("quantize", "M", "--val-images", ".", "--annotations", "t.cfg"), "t.cfg: not JSON (Expecting value"),
        (("train", "--model", "M", "--data", "no.yaml"), "--data no.yaml: there is no such file or folder; expected"),
        (("train", "--data", "t.cfg", "--resume", "t.cfg"), "--resume t.cfg: this is a file; expected a folder"),
    ],
)
def test_what_a_verb_measures_or_trains_on_is_looked_for_before_the_model(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], text: str
):
    monkeypatch.chdir(tmp_path)
    Path("t.cfg").touch()
    assert_fails(run(*(arg.replace("M", "missing.onnx") for arg in args)), text)


def test_eval_names_images_that_are_not_there(run: Run, onnx: Path, eight: Path, tmp_path: Path):
    outcome = run("eval", onnx, "--images", tmp_path, "--annotations", eight)
    assert_fails(
        outcome, "8 of the 8 images of eight.json are not there, e.g. '0000", "give their folder with --images"
    )


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What to put before a command so that a folder's mode binds it: root's capability to ignore modes is dropped."""
    drop = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.geteuid() == 0 else ()
    folder = tmp_path_factory.mktemp("read_only")
    folder.chmod(0o555)
    if drop and shutil.which("setpriv") is None:
        pytest.skip("root writes everywhere, and there is no setpriv to change that")
    touch = subprocess.run([*drop, "touch", str(folder / "probe")], capture_output=True, text=True)
    if "Permission denied" not in touch.stderr:
        pytest.skip(f"cannot make a folder read-only here: {touch.stderr.strip() or 'touch wrote into it'}")
    return drop


@pytest.mark.parametrize("verb", ["export", "build", "detect", "models"])
def test_a_read_only_folder_is_refused_and_stays_empty(
    verb: str, prefix: tuple[str, ...], tiny: Path, onnx: Path, dog: Path, out: Path
):
    if verb == "build" and importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed")
    out.mkdir(mode=0o555)
    args = {
        "export": (tiny, "-o", out / "tiny.onnx"),
        "build": (onnx, "--flavor", "tensorrt_rtx", "-o", out / "m.engine"),
        "detect": (onnx, dog, "--save", out),
        "models": ("--json", out / "models.json"),
    }
    outcome = in_process_of_its_own(verb, *args[verb], prefix=prefix)
    assert (outcome.code, len(outcome.complaints)) == (1, 1), outcome.stderr
    assert "cannot write here (Permission denied); give a writable folder" in outcome.complaints[0]
    option = {"detect": "--save", "models": "--json"}.get(verb, "-o")
    assert outcome.complaints[0].startswith(f"yolov3_trt: {option} {out}")
    assert files_in(out) == set()


def detect_waiting_at(picture: Path, until: Path) -> list[str | Path]:
    """The command `detect`, which reads one picture only when a file is there."""
    code = (
        "import time; from pathlib import Path; from yolov3_trt.cli import entrypoint; from yolov3_trt.data import images\n"
        "load = images.load_image\n"
        "def wait_and_load(path):\n"
        f"    while str(path) == {str(picture)!r} and not Path({str(until)!r}).exists(): time.sleep(0.01)\n"
        "    return load(path)\n"
        "images.load_image = wait_and_load\n"
        "entrypoint()"
    )
    return [sys.executable, "-c", code, "detect"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("to_stdout", [False, True], ids=["files", "stdout"])
def test_a_signal_ends_detect_with_what_was_found_so_far(
    onnx: Path, dog: Path, tmp_path: Path, out: Path, number: signal.Signals, to_stdout: bool
):
    never = tmp_path / "never.jpg"
    never.touch()
    command = [*detect_waiting_at(never, tmp_path / "never"), onnx, dog, never, dog, "--save", out / "p"]
    command += ["--jsonl", out / "a.jsonl", "--json", "-" if to_stdout else out / "a.json"]

    def heed_sigint() -> None:
        # A shell starts background jobs, and a CI may be one, with SIGINT ignored; children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=heed_sigint, **pipes) as process:
        try:
            deadline = time.monotonic() + 30
            while not (out / "a.jsonl").exists() or not (out / "a.jsonl").read_text().endswith("\n"):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.2)  # for it to reach the second picture
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    kept = ", ".join(str(path) for path in (out / "a.json", out / "a.jsonl", out / "p") if path.exists())
    said = f"yolov3_trt: stopped by {number.name} after 1 of 3 pictures; they are in {kept}"
    assert stderr.splitlines() == ["detecting: 3 ...", said]
    assert files_in(out) == {"p", "p/dog.jpg", "a.jsonl"} | (set() if to_stdout else {"a.json"})
    report = json.loads(stdout if to_stdout else (out / "a.json").read_text())
    why = "interrupted" if number == signal.SIGINT else "interrupted: SIGTERM"
    assert report["incomplete"] == {"why": why, "done": 1, "of": 3}
    (row,) = report["images"]
    assert row["file"] == str(dog) and len(row["detections"]) > 2
    assert [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()] == [row]
    if not to_stdout:
        assert stdout.splitlines()[0] == f"{dog}  768x576  {len(row['detections'])} objects"


def test_a_line_is_there_while_the_next_picture_is_read_and_a_reader_may_go(onnx: Path, dog: Path, tmp_path: Path):
    slow, go_on = tmp_path / "slow.jpg", tmp_path / "go-on"
    slow.write_bytes(b"no picture")
    command = [*detect_waiting_at(slow, go_on), onnx, dog, slow, dog, "--json", tmp_path / "a.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline().startswith(f"{dog}  768x576  ")
            process.stdout.close()  # what `| head -1` does
            go_on.touch()
            assert process.wait(timeout=30) == 128 + signal.SIGPIPE
            first, skipped = process.stderr.read().splitlines()
            assert (first, skipped.partition(":")[0]) == ("detecting: 3 ...", f"skipped {slow}")
        finally:
            process.kill()
    report = json.loads((tmp_path / "a.json").read_text())
    assert len(report["images"]) == 2  # the second was found, though its line went nowhere
    assert (report["incomplete"]["done"], report["incomplete"]["of"]) == (3, 3)


def test_detect_takes_a_list_on_stdin_and_pictures_of_sub_folders(
    run: Run, onnx: Path, dog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    shutil.copy(dog, tmp_path / "photos")
    shutil.copy(dog, tmp_path / "photos" / "deep")
    monkeypatch.chdir(tmp_path)
    flat = run("detect", onnx, "photos", "--jsonl", "-")
    assert [json.loads(line)["file"] for line in flat.stdout.splitlines()] == ["photos/dog.jpg"]
    assert flat.complaints == [
        "note: photos has pictures in sub-folders, e.g. photos/deep/dog.jpg, which are left out; --recursive takes them"
    ]
    deep = run("detect", onnx, "photos", "-r", "--jsonl", "-")
    assert [json.loads(line)["file"] for line in deep.stdout.splitlines()] == ["photos/deep/dog.jpg", "photos/dog.jpg"]
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/deep/dog.jpg\n\nphotos\n"))
    listed = run("detect", onnx, "-", "--jsonl", "-")
    assert [json.loads(line)["file"] for line in listed.stdout.splitlines()] == [
        "photos/deep/dog.jpg",
        "photos/dog.jpg",
    ]


def test_lines_tell_of_skipped_files_too(run: Run, onnx: Path, dog: Path, tmp_path: Path):
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    outcome = run(
        "detect", onnx, tmp_path / "bad.jpg", dog, "--jsonl", tmp_path / "a.jsonl", "--json", tmp_path / "a.json"
    )
    assert outcome.code == 1
    bad, good = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    text = f"{tmp_path}/bad.jpg: not a picture that OpenCV can read, or damaged"
    assert bad == {"file": str(tmp_path / "bad.jpg"), "error": text}
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["images"], report["skipped"]) == ([good], [text])
    assert "incomplete" not in report


def test_a_model_that_does_not_open_leaves_earlier_results(run: Run, dog: Path, tmp_path: Path):
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text("earlier")
    targets = ("--json", tmp_path / "a.json", "--jsonl", tmp_path / "a.jsonl")
    assert_fails(run("detect", "missing.onnx", dog, *targets), "there is no such file")
    assert {path.read_text() for path in tmp_path.glob("a.json*")} == {"earlier"}


@pytest.mark.parametrize(
    "args, text",
    [
        (
            ("--json", "{file}/x/a.json"),
            "--json {file}/x/a.json: cannot write here (Not a directory); give a writable folder",
        ),
        (("--jsonl", "{file}/a"), "--jsonl {file}/a: cannot write here (Not a directory); give a writable folder"),
        (("--save", "{file}/a"), "--save {file}/a: cannot write here (Not a directory); give a writable folder"),
        (("--json", "{folder}"), "--json {folder}: this is a folder; expected the name of a file"),
        (("--jsonl", "/dev/null"), "--jsonl /dev/null: a device or pipe; expected a place for files"),
    ],
)
def test_a_place_for_results_is_checked_first_and_named_as_it_was_typed(
    run: Run, tmp_path: Path, args: tuple[str, str], text: str
):
    file = tmp_path / "f"
    file.touch()
    places = {"file": file, "folder": tmp_path}
    outcome = run("detect", "missing.onnx", "missing.jpg", *(arg.format(**places) for arg in args))
    assert_fails(outcome, text.format(**places))
    for verb in (
        ("export", "m"),
        ("build", "m"),
        ("calibrate", "m", "--images", "x"),
        ("quantize", "m", "--data", file),
    ):
        outcome = run(*verb, "-o", file / "a")  # `m` is no model, which is not what is complained of
        assert_fails(outcome, f"-o {file}/a: cannot write here (Not a directory); give a writable folder")
    assert files_in(tmp_path) == {"f"}
