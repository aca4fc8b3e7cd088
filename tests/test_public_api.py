"""The public face: what callers hand in becomes what it stands for or is refused in one line, and results go on as paths."""

import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import yolov3_trt
from tests.cli.test_cli import TINY_CFG, write_weights
from tests.engine.test_engine import needs_rtx
from yolov3_trt import BuildRecipe, CalibrationSettings, DetectSettings, EngineSettings, GraphSettings, SettingError
from yolov3_trt.errors import BackendError, ImageError
from yolov3_trt.meta import Batch, InputStage, OutputStage, Precision, load_model_meta
from yolov3_trt.models import load_spec
from yolov3_trt.recipe import load_recipe, recipe_from, save_recipe
from yolov3_trt.settings import FlavorName, HardwareCompatibility, Method, Refit, settings_from
from yolov3_trt.sizes import Resize

# --- the face itself ---


def test_the_docstring_fits_a_screen_and_names_everything_public():
    doc = inspect.getdoc(yolov3_trt)
    assert len(doc.splitlines()) <= 40
    for name in set(dir(yolov3_trt)) - {"__version__"}:
        assert name in doc, name
    assert "private" in doc


def test_help_is_the_docstring_and_wants_no_package_that_a_part_needs():
    program = (
        "import pydoc, sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'cv2', 'yaml', 'tensorrt_rtx_bindings'):\n"
        "    sys.modules[name] = None\n"
        "import yolov3_trt\n"
        "print(pydoc.plain(pydoc.render_doc(yolov3_trt)))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "Jobs      export(model)" in told
    before_modules = told.partition("PACKAGE CONTENTS")[0]
    assert len(before_modules.splitlines()) <= 60 and "Method resolution order" not in told


def test_no_public_name_is_a_module_too():
    # Importing a module sets its name in the package, so a function of that name would be gone.
    modules = {module.name for module in pkgutil.iter_modules(yolov3_trt.__path__)}
    assert not modules & set(dir(yolov3_trt))


@pytest.mark.parametrize("name", sorted(set(dir(yolov3_trt)) - {"__version__"}))
def test_every_public_name_says_what_it_is(name: str):
    doc = inspect.getdoc(getattr(yolov3_trt, name))
    assert doc and doc.splitlines()[0].endswith(".")


# --- settings: texts, numbers and paths become what they stand for ---


@pytest.mark.parametrize(
    "settings, name, value",
    [
        (GraphSettings(precision="fp16"), "precision", Precision.FP16),
        (GraphSettings(precision=Precision.INT8), "precision", Precision.INT8),
        (GraphSettings(input_stage="pixels"), "input_stage", InputStage.PIXELS),
        (GraphSettings(output_stage="detections"), "output_stage", OutputStage.DETECTIONS),
        (GraphSettings(batch=4), "batch", Batch(4, 4, 4)),
        (GraphSettings(batch=np.int64(4)), "batch", Batch(4, 4, 4)),
        (GraphSettings(batch="1:4:8"), "batch", Batch(1, 4, 8)),
        (GraphSettings(batch=(1, 4, 8)), "batch", Batch(1, 4, 8)),
        (GraphSettings(input_stage="pixels", frame_size="1280x720"), "frame_size", (720, 1280)),
        (GraphSettings(input_stage="pixels", frame_size=(720, 1280)), "frame_size", (720, 1280)),
        (GraphSettings(input_stage="pixels", frame_size=320), "frame_size", (320, 320)),
        (GraphSettings("int8", float_layers=[3, 1, 3]), "float_layers", frozenset({1, 3})),
        (GraphSettings("int8", float_layers="3, 1"), "float_layers", frozenset({1, 3})),
        (GraphSettings("int8", float_precision="fp32"), "float_precision", Precision.FP32),
        (DetectSettings(resize="stretch"), "resize", Resize.STRETCH),
        (DetectSettings(conf=np.float32(0.5)), "conf", 0.5),
        (DetectSettings(nms=None), "nms", "cfg"),
        (CalibrationSettings(method="percentile"), "method", Method.PERCENTILE),
        (CalibrationSettings(method="percentile"), "share", 99.99),
        (CalibrationSettings(table="a/t.json"), "table", Path("a/t.json")),
        (CalibrationSettings(images=Path("photos")), "images", "photos"),
        (EngineSettings(flavor="tensorrt_rtx"), "flavor", FlavorName.TENSORRT_RTX),
        (EngineSettings(timing_cache="cache"), "timing_cache", Path("cache")),
        (EngineSettings(hardware_compatibility="ampere_plus"), "hardware_compatibility", HardwareCompatibility.AMPERE_PLUS),
        (EngineSettings(refit="all"), "refit", Refit.ALL),
        (EngineSettings(compute_capabilities="8.6, 8.9"), "compute_capabilities", ("8.6", "8.9")),
        (BuildRecipe("shapes", input_size="608x416"), "input_size", (416, 608)),
    ],
)  # fmt: skip
def test_a_setting_becomes_what_it_stands_for(settings: Any, name: str, value: Any):
    assert getattr(settings, name) == value and type(getattr(settings, name)) is type(value)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: GraphSettings("fp8"), "precision: got 'fp8'; expected one of fp32, fp16, int8"),
        (lambda: GraphSettings(8), "precision: got 8; expected one of fp32, fp16, int8"),
        (lambda: GraphSettings(batch=0), "batch: got 0; expected 1 to 9999"),
        (lambda: GraphSettings(batch=1.5), "batch: got 1.5; expected a whole number, 1 to 9999"),
        (lambda: GraphSettings(batch=True), "batch: got True; expected 1 to 9999"),
        (lambda: GraphSettings(batch="1:2"), "batch: got '1:2'; expected a number or MIN:OPT:MAX, e.g. 1 or 1:4:8"),
        (lambda: GraphSettings(input_stage="image"), "input_stage: got 'image'; expected one of tensor, pixels"),
        (lambda: GraphSettings(output_stage=None), "output_stage: got None; expected one of heads, rows, detections"),
        (lambda: GraphSettings(opset=12), "opset: got 12; expected 14 to 25"),
        (lambda: GraphSettings(input_stage="pixels", frame_size="720p"), "frame_size: got '720p'; expected WIDTHxHEIGHT"),
        (lambda: GraphSettings(input_stage="pixels", frame_size=(1, 2, 3)), "frame_size: got (1, 2, 3); expected a pair"),
        (lambda: GraphSettings("int8", float_layers=-1), "float_layers: got -1; expected layer numbers"),
        (lambda: GraphSettings("int8", float_layers="a"), "float_layers: got 'a'; expected layer numbers"),
        (lambda: GraphSettings(float_layers=[1]), "float_layers: given with no precision; expected int8"),
        (lambda: GraphSettings("int8", float_precision="int8"), "float_precision: got int8; expected fp16, or fp32"),
        (lambda: DetectSettings(conf=1.5), "conf: got 1.5; expected 0 to 1"),
        (lambda: DetectSettings(conf=float("nan")), "conf: got nan; expected 0 to 1"),
        (lambda: DetectSettings(conf="0.5"), "conf: got '0.5'; expected a number, 0 to 1"),
        (lambda: DetectSettings(iou=-0.1), "iou: got -0.1; expected 0 to 1"),
        (lambda: DetectSettings(max_detections=0), "max_detections: got 0; expected 1 to 512"),
        (lambda: DetectSettings(max_detections=10.0), "max_detections: got 10.0; expected a whole number"),
        (lambda: DetectSettings(nms="soft"), "nms: got 'soft'; expected one of cfg, plain"),
        (lambda: DetectSettings(resize="crop"), "resize: got 'crop'; expected one of letterbox, stretch"),
        (lambda: CalibrationSettings(method="best"), "method: got 'best'; expected one of minmax, percentile, entropy, mse"),
        (lambda: CalibrationSettings(table=3), "table: got 3; expected a path"),
        (lambda: CalibrationSettings(images=3), "images: got 3; expected a text"),
        (lambda: CalibrationSettings(num_images=3), "num_images: given without images; expected pictures to choose from"),
        (lambda: CalibrationSettings(images="a", seed=-1), "seed: got -1; expected 0 to "),
        (lambda: CalibrationSettings(equalise="no"), "equalise: got 'no'; expected True or False"),
        (lambda: EngineSettings(flavor="trt"), "flavor: got 'trt'; expected one of auto, tensorrt, tensorrt_rtx"),
        (lambda: EngineSettings(workspace_mib=1e9), "workspace_mib: got 1000000000.0; expected a whole number"),
        (lambda: EngineSettings(optimization_level=6), "optimization_level: got 6; expected 0 to 5"),
        (lambda: EngineSettings(compute_capabilities="86"), "compute_capabilities: got '86'; expected MAJOR.MINOR"),
        (lambda: EngineSettings(strip_weights=True), "strip_weights: given with refit none"),
        (lambda: BuildRecipe("shapes", input_size=300), "input_size: got width 300, height 300; expected 32 to 99968 px"),
        (lambda: BuildRecipe("shapes", GraphSettings("int8")), "images: missing with precision int8; expected pictures"),
        (lambda: recipe_from(3), "model: got 3; expected a text"),
        (lambda: recipe_from("shapes", table="t.json"), "table: given with precision fp16; expected int8"),
        (lambda: recipe_from("shapes", dla_core=0, batch="1:2:4"), "dla_core: given with batch 1:2:4; expected one size"),
        (lambda: recipe_from("shapes", graph="fp16"), "graph: got 'fp16'; expected GraphSettings(...)"),
        (lambda: yolov3_trt.export("shapes", precision="fp8"), "precision: got 'fp8'; expected one of fp32, fp16, int8"),
        (lambda: yolov3_trt.export("shapes", precision="int8"), "images: missing with precision int8; expected pictures"),
        (lambda: yolov3_trt.export("shapes", input_size="wide"), "input_size: got 'wide'; expected WIDTHxHEIGHT"),
        (lambda: yolov3_trt.export("shapes", 3), "path: got 3; expected a path"),
        (lambda: yolov3_trt.export(None), "model: got None; expected a text"),
        (lambda: yolov3_trt.calibrate("shapes"), "images: missing; expected pictures to find the ranges on"),
        (lambda: yolov3_trt.build("shapes", precision="fp64"), "precision: got 'fp64'; expected one of fp32, fp16, int8"),
        (lambda: yolov3_trt.build("a.onnx", batch=2), "batch: given with a.onnx, which was exported with its own; leave it"),
        (
            lambda: yolov3_trt.build("shapes-256-fp16", batch=2),
            "batch: given with shapes-256-fp16, which says it itself; leave it out, or change the recipe",
        ),
        (
            lambda: yolov3_trt.quantize("shapes", val_images="v", annotations="a", images="shapes", precision="fp16"),
            "precision: given to quantize, which finds it; leave it out",
        ),
        (
            lambda: yolov3_trt.quantize("shapes", val_images="v", annotations="a", images="shapes", max_ap_drop=2),
            "max_ap_drop: got 2; expected 0 to 1",
        ),
        (lambda: yolov3_trt.load_model("shapes", input_size=(0, 32)), "input_size: got (0, 32); expected 1 to 99999 px"),
        (lambda: yolov3_trt.load_model("shapes", 3), "weights: got 3; expected a path"),
        (lambda: yolov3_trt.evaluate("shapes", data=3), "data: got 3; expected a path"),
        (lambda: yolov3_trt.fetch(3), "name: got 3; expected a text"),
        (lambda: yolov3_trt.certify(3), "artifact: got 3; expected a text"),
        (lambda: yolov3_trt.load_recipe(3), "path: got 3; expected a path"),
        (lambda: yolov3_trt.open_detector(3), "artifact: got 3; expected a text"),
        (lambda: yolov3_trt.open_detector("shapes", threads=0), "threads: got 0; expected 1 to 1024"),
        (lambda: yolov3_trt.open_detector("shapes", device="tpu"), "device: got 'tpu'; expected one of auto, cpu, cuda"),
        (lambda: yolov3_trt.read_net_from_darknet(3, 4), "model: got 3; expected a text"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line_that_begins_with_its_name(make: Callable[[], Any], text: str):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value).startswith(text) and "\n" not in str(caught.value)


def test_an_unknown_setting_is_a_type_error_with_the_one_that_was_meant():
    with pytest.raises(TypeError, match="there is no setting 'precison' here; did you mean precision"):
        yolov3_trt.export("shapes", precison="fp16")
    with pytest.raises(TypeError, match="there is no setting 'flavor' here"):
        yolov3_trt.export("shapes", flavor="tensorrt")


def test_settings_come_by_name_or_whole_or_both():
    whole = GraphSettings("fp16", batch=4)
    assert settings_from({"graph": whole}, GraphSettings) == (whole,)
    assert settings_from({"graph": whole, "batch": 2}, GraphSettings) == (GraphSettings("fp16", batch=2),)
    assert settings_from({"precision": None}, GraphSettings, DetectSettings) == (GraphSettings(), DetectSettings())


def test_one_default_precision_for_graphs_and_one_for_engines():
    assert GraphSettings().with_precision(Precision.FP32).precision is Precision.FP32
    assert BuildRecipe("shapes").graph.precision is Precision.FP16
    int8 = GraphSettings("int8")
    assert int8.with_precision(Precision.FP32).float_precision is Precision.FP16
    assert int8.with_precision(Precision.FP32, float_precision=Precision.FP32).float_precision is Precision.FP32
    given = GraphSettings("int8", float_precision="fp16")
    assert given.with_precision(Precision.FP32, float_precision=Precision.FP32).float_precision is Precision.FP16


# --- pictures ---


def test_pictures_come_as_arrays_and_paths_and_nothing_else(tmp_path: Path):
    picture, array = tmp_path / "a.png", np.full((40, 60, 3), 90, np.uint8)
    pytest.importorskip("cv2").imwrite(str(picture), array)
    with yolov3_trt.open_detector("shapes", nms="plain", input_size=64) as detect:
        alone = detect(str(picture))
        assert [list(found) for found in detect([array, picture])] == [list(alone)] * 2 and detect([]) == []
        for wrong, text in (
            (array[:, :, 0], "an image is uint8 (40, 60); expected uint8 (height, width, 3) BGR"),
            (array.astype(np.float32), "an image is float32 (40, 60, 3); expected uint8"),
            (picture.read_bytes(), "got bytes; expected a picture, uint8 (height, width, 3) BGR, the path of one"),
            (3, "got int; expected a picture"),
            (None, "got None (as OpenCV's imread gives for a file that it cannot read); expected a picture"),
            (
                "http://door/a.jpg",
                "http://door/a.jpg: an address; expected a file (`watch` takes streams and snapshots)",
            ),
            (tmp_path, f"{tmp_path}: cannot be read (Is a directory)"),
        ):
            with pytest.raises(ImageError) as caught:
                detect(wrong)
            assert str(caught.value).startswith(text)
        with pytest.raises(ImageError, match=r"an image is a str; expected uint8 \(height, width, 3\) BGR"):
            yolov3_trt.draw_detections(str(picture), alone)
    with pytest.raises(BackendError, match="shapes: this torch backend is closed; open the artifact again"):
        detect(array)


# --- jobs ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cfg of a network of three layers and 2 classes, seeded weights beside it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.cfg"
    path.write_text(TINY_CFG)
    write_weights(path, np.random.default_rng(0).uniform(0.1, 0.5, load_spec(path).num_values))
    return path


def types_of_initializers(path: Path) -> set[str]:
    onnx = pytest.importorskip("onnx")
    return {onnx.TensorProto.DataType.Name(item.data_type) for item in onnx.load(str(path)).graph.initializer}


def test_a_precision_given_as_text_is_that_of_the_graph_and_of_its_sidecar(tiny: Path, tmp_path: Path):
    exported = yolov3_trt.export(str(tiny), str(tmp_path / "s.onnx"), precision="fp16")
    assert "FLOAT16" in types_of_initializers(exported.path)
    assert load_model_meta(exported.path).precision is Precision.FP16
    assert repr(exported) == f"<Exported {tmp_path / 's.onnx'}>"
    assert exported.to_json()["meta"]["precision"] == "fp16" and exported.to_json()["onnx"] == str(tmp_path / "s.onnx")
    plain = yolov3_trt.export(tiny, tmp_path / "plain.onnx")
    assert types_of_initializers(plain.path) <= {"FLOAT", "INT64"} and plain.meta.precision is Precision.FP32


def test_stages_given_as_texts_are_those_of_the_graph(tiny: Path, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    stages = {"input_stage": "pixels", "output_stage": "detections"}
    exported = yolov3_trt.export(tiny, tmp_path / "s.onnx", **stages, conf=0.5, input_size="64x32", batch="1:2:4")
    graph = onnx.load(os.fspath(exported)).graph
    assert [value.name for value in graph.output] == ["num_detections", "boxes", "scores", "class_ids"]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    meta = exported.meta
    assert (meta.input_hw, meta.batch, meta.postprocess.conf) == ((32, 64), Batch(1, 2, 4), 0.5)


def test_from_weights_to_int8_and_detections(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    reporter = yolov3_trt.Reporter(said.append)
    exported = yolov3_trt.export(tiny, precision="int8", images="shapes", num_images=2, reporter=reporter)
    assert exported.path == Path("engines/tiny-32-int8.onnx") and exported.meta.calibration_sha256 is not None
    assert Path("calib/tiny-32-mse.json").is_file(), "what was measured is kept"
    assert any("2 calibration pictures" in line for line in said)
    again = yolov3_trt.calibrate(tiny, images="shapes", num_images=2)
    assert again.reused and again.path == Path("calib/tiny-32-mse.json")
    assert again.to_json()["tensors"] == len(again.table.amax)
    by_table = yolov3_trt.export(tiny, "other.onnx", precision="int8", table=again, float_layers="0")
    assert by_table.meta.calibration_sha256 == exported.meta.calibration_sha256
    with yolov3_trt.open_detector(exported, conf=0.0) as detect:
        assert detect.meta.precision is Precision.INT8
        assert len(detect(np.full((48, 64, 3), 90, np.uint8))) > 0


def test_a_loaded_model_is_exported_as_it_was_loaded(tiny: Path, tmp_path: Path):
    model = yolov3_trt.load_model(tiny, input_size=64)
    assert yolov3_trt.export(model, tmp_path / "a.onnx").meta.input_hw == (64, 64)
    with pytest.raises(SettingError, match=r"input_size: given with a model that is loaded already; expected it there"):
        yolov3_trt.export(model, tmp_path / "b.onnx", input_size=32)


def test_a_job_prints_nothing(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    yolov3_trt.export(tiny, tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_recipe_by_name_is_what_its_file_gives(tmp_path: Path):
    recipe = recipe_from("yolov3", precision="int8", images="photos", input_size="608x416", conf=0.3, flavor="tensorrt")
    save_recipe(recipe, tmp_path / "r.toml")
    assert load_recipe(str(tmp_path / "r.toml")) == recipe


@needs_rtx
def test_an_engine_is_built_kept_and_goes_wherever_its_path_does(tiny: Path, tmp_path: Path):
    rtx = {"flavor": "tensorrt_rtx"}
    built = yolov3_trt.build(tiny, tmp_path / "a.engine", **rtx)
    assert (built.reused, built.reason) == (False, "there was no engine yet")
    assert built.meta.model.precision is Precision.FP16
    assert os.fspath(built) == str(tmp_path / "a.engine") and built.to_json()["engine"] == os.fspath(built)
    assert yolov3_trt.build(tiny, str(tmp_path / "a.engine"), **rtx).reused
    by_graph = yolov3_trt.build(built.export, tmp_path / "b.engine", **rtx)
    assert by_graph.meta.model == built.meta.model
    whole = yolov3_trt.build(
        tiny, tmp_path / "a.engine", engine=EngineSettings(flavor="tensorrt_rtx"), optimization_level=1
    )
    assert whole.reason == "optimization level was none, is 1"
