"""Recipes: what they say is what is built, and what cannot be built is refused by its key."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_layers import HEAVY, loaded_after
from yolov3_trt.errors import OutputError, RecipeError, SettingError
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import Batch, InputStage, OutputStage, Precision
from yolov3_trt.recipe import BuildRecipe, load_recipe, save_recipe
from yolov3_trt.settings import (
    CalibrationSettings,
    DetectSettings,
    EngineSettings,
    FlavorName,
    GraphSettings,
    HardwareCompatibility,
    Method,
    Refit,
)
from yolov3_trt.spec import Nms, NmsKind

ENGINES = Path(__file__).parents[2] / "engines"
PLAIN = 'format = "yolov3_trt.recipe/1"\nmodel = "yolov3"\n[graph]\nprecision = "fp16"\n'
FP16 = GraphSettings(Precision.FP16)
INT8 = GraphSettings(Precision.INT8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engines" / "recipe.toml"


def load(path: Path, text: str) -> BuildRecipe:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def refusal(path: Path, text: str) -> str:
    """What is wrong with a file, without the file's name."""
    with pytest.raises(RecipeError) as caught:
        load(path, text)
    start = f"{path}: "
    assert str(caught.value).startswith(start) and "\n" not in str(caught.value)
    return str(caught.value)[len(start) :]


# --- what a file says ---


def test_a_short_recipe_has_the_defaults(path: Path):
    recipe = load(path, PLAIN)
    assert recipe == BuildRecipe("yolov3", FP16)
    assert (recipe.weights, recipe.input_size, recipe.calibration) == (None, None, CalibrationSettings())
    assert (recipe.graph.batch, recipe.graph.opset, recipe.graph.float_precision) == (Batch(1, 1, 1), 17, None)
    assert (recipe.detect, recipe.engine) == (DetectSettings(), EngineSettings())


def test_a_full_recipe_says_everything(path: Path):
    text = """
        format = "yolov3_trt.recipe/1"
        model = "../nets/mine.cfg"
        weights = "mine.weights"
        names = "/data/mine.names"
        input_size = "608x320"

        [graph]
        precision = "int8"
        batch = [1, 4, 8]
        input_stage = "pixels"
        output_stage = "detections"
        frame_size = "1280x720"
        opset = 19
        float_layers = [3, 81, 3]
        float_precision = "fp32"

        [calibration]
        table = "../calib/mine.json"
        images = "../photos"
        method = "percentile"
        num_images = 256
        seed = 7
        percentile = 99.9

        [detect]
        conf = 0.5
        iou = 1
        max_detections = 10
        nms = "plain"
        resize = "stretch"

        [engine]
        flavor = "tensorrt"
        workspace_mib = 2048
        optimization_level = 5
        timing_cache = "cache"
        hardware_compatibility = "ampere_plus"
        version_compatible = true
        refit = "identical"
        strip_weights = true
    """
    root = path.parents[1]
    assert load(path, text) == BuildRecipe(
        model=str(root / "nets" / "mine.cfg"),
        weights=root / "engines" / "mine.weights",
        names="/data/mine.names",
        input_size=(320, 608),
        graph=GraphSettings(
            Precision.INT8,
            Batch(1, 4, 8),
            InputStage.PIXELS,
            OutputStage.DETECTIONS,
            frame_size=(720, 1280),
            opset=19,
            float_layers=frozenset({3, 81}),
            float_precision=Precision.FP32,
        ),
        calibration=CalibrationSettings(
            root / "calib" / "mine.json", str(root / "photos"), Method.PERCENTILE, 256, seed=7, percentile=99.9
        ),
        detect=DetectSettings(0.5, 1.0, 10, "plain", Resize.STRETCH),
        engine=EngineSettings(
            FlavorName.TENSORRT,
            2048,
            5,
            root / "engines" / "cache",
            HardwareCompatibility.AMPERE_PLUS,
            version_compatible=True,
            refit=Refit.IDENTICAL,
            strip_weights=True,
        ),
    )


def test_one_number_is_a_square_and_a_fixed_batch(path: Path):
    recipe = load(path, PLAIN.replace("[graph]", "input_size = 608\n[graph]\nbatch = 4"))
    assert (recipe.input_size, recipe.graph.batch) == ((608, 608), Batch(4, 4, 4))


def test_words_are_no_paths_and_paths_may_look_like_words(path: Path):
    int8 = PLAIN.replace("fp16", "int8") + '[calibration]\ntable = "t.json"\nimages = "IMAGES"\n'
    recipe = load(path, int8.replace("[graph]", 'names = "coco"\n[graph]').replace("IMAGES", "shapes"))
    assert (recipe.model, recipe.names, recipe.calibration.images) == ("yolov3", "coco", "shapes")
    recipe = load(path, int8.replace("[graph]", 'names = "./coco"\n[graph]').replace("IMAGES", "./shapes"))
    assert recipe.names == str(path.parent / "coco")
    assert recipe.calibration.images == str(path.parent / "shapes")
    save_recipe(recipe, path)
    assert load_recipe(path) == recipe


def test_a_recipe_means_the_same_from_any_working_folder(path: Path, monkeypatch: pytest.MonkeyPatch):
    text = PLAIN.replace("[graph]", 'weights = "../w/y.weights"\n[graph]')
    recipe = load(path, text)
    monkeypatch.chdir(path.parent)
    assert load_recipe(Path(path.name)) == recipe
    monkeypatch.chdir(path.parents[1])
    assert load_recipe(path.relative_to(path.parents[1])) == recipe
    assert recipe.weights == path.parents[1] / "w" / "y.weights"


def test_relative_paths_of_python_count_from_the_working_folder(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parents[1])
    recipe = BuildRecipe("nets/mine.cfg", FP16, Path("mine.weights"), engine=EngineSettings(timing_cache=Path("cache")))
    assert recipe.model == str(Path.cwd() / "nets" / "mine.cfg")
    assert recipe.engine.timing_cache == Path.cwd() / "cache"
    save_recipe(recipe, path)
    assert load_recipe(path) == recipe


# --- what is written ---


def test_a_recipe_is_written_short_with_paths_from_its_folder(path: Path):
    root = path.parents[1]
    recipe = BuildRecipe(
        "yolov3",
        replace(INT8, batch=Batch(1, 4, 8), float_layers=frozenset({10, 9})),
        weights=root / "weights" / "größer.weights",
        input_size=(416, 416),
        calibration=CalibrationSettings(root / "calib" / "t.json", "shapes", seed=0),
        engine=EngineSettings(FlavorName.TENSORRT_RTX, version_compatible=False, compute_capabilities=("8.6", "8.9")),
    )
    save_recipe(recipe, path)
    assert (
        path.read_text(encoding="utf-8")
        == """\
format = "yolov3_trt.recipe/1"
model = "yolov3"
weights = "../weights/größer.weights"
input_size = 416

[graph]
precision = "int8"
batch = [1, 4, 8]
float_layers = [9, 10]

[calibration]
table = "../calib/t.json"
images = "shapes"
seed = 0

[engine]
flavor = "tensorrt_rtx"
compute_capabilities = ["8.6", "8.9"]
"""
    )
    save_recipe(load_recipe(path), path.with_name("again.toml"))
    assert path.with_name("again.toml").read_bytes() == path.read_bytes()


def test_a_recipe_that_was_moved_with_what_it_names_finds_it(path: Path):
    save_recipe(BuildRecipe("yolov3", FP16, path.parents[1] / "w" / "y.weights"), path)
    moved = path.parents[1] / "elsewhere" / "engines" / "recipe.toml"
    moved.parent.mkdir(parents=True)
    path.rename(moved)
    assert load_recipe(moved).weights == moved.parents[1] / "w" / "y.weights"


def test_a_recipe_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_recipe(BuildRecipe("yolov3", FP16), tmp_path / "file" / "recipe.toml")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


# --- what is refused ---


@pytest.mark.parametrize(
    "text, reason",
    [
        ("format = ", "this recipe cannot be read (Invalid value (at end of document)); expected TOML in UTF-8"),
        ("", "format: missing; expected 'yolov3_trt.recipe/1' (engines/README.md shows one)"),
        ("format = 'x/2'", "format: got 'x/2'; expected 'yolov3_trt.recipe/1' (engines/README.md shows one)"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(path: Path, text: str, reason: str):
    assert refusal(path, text) == reason


def test_a_file_that_is_not_there_or_no_text_is_refused(path: Path):
    with pytest.raises(RecipeError, match=r"recipe.toml: there is no such recipe"):
        load_recipe(path)
    path.mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"recipe.toml: this recipe cannot be read .*; expected TOML in UTF-8"):
        load_recipe(path)
    path.with_name("bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"bytes.toml: this recipe cannot be read .*; expected TOML in UTF-8"):
        load_recipe(path.with_name("bytes.toml"))


@pytest.mark.parametrize(
    "line, reason",
    [
        (
            "colour = 1",
            "colour: there is no such key; expected one of model, graph, weights, names, input_size, calibration, detect, "
            "engine",
        ),
        (
            "graph.colour = 1",
            "graph.colour: there is no such key; expected one of precision, batch, input_stage, output_stage, frame_size, "
            "opset, float_layers, float_precision, rows_layout",
        ),
        (
            "detect.conf_threshold = 0.5",
            "detect.conf_threshold: there is no such key; expected one of conf, iou, max_detections, nms, resize",
        ),
        (
            "engine.leaky_as_prelu = true",
            "engine.leaky_as_prelu: there is no such key; expected one of flavor, workspace_mib, ",
        ),
        ("graph.skip_layers = [3]", "graph.skip_layers: there is no such key; it is called float_layers now"),
        ("graph.rest = 'fp16'", "graph.rest: there is no such key; it is called float_precision now"),
        ('"a\\nb" = 1', "'a\\nb': there is no such key; expected one of model, "),
        ('"" = 1', "'': there is no such key; expected one of model, "),
        ("graph = 3", "graph: got 3; expected a table"),
        ("detect = []", "detect: got []; expected a table"),
        ("model = 3", "model: got 3; expected a text"),
        ('model = ""', "model: got ''; expected a path or a name, in characters that UTF-8 has"),
        ('weights = "a\\u0000b"', "weights: got 'a\\x00b'; expected a path or a name, in characters that UTF-8 has"),
        ("weights = 1979-05-27", "weights: got datetime.date(1979, 5, 27); expected a path"),
        ("a.b.c.d = 1", "a: there is no such key; expected one of model, "),
        ("input_size = 18446744073709551616", "input_size: got 18446744073709551616; expected 32 to 99968 px a side"),
        ("input_size = [416]", 'input_size: got [416]; expected WIDTHxHEIGHT as a text, or one number: write "1280x720"'),
        ("input_size = [320, 608]", "input_size: got [320, 608]; expected WIDTHxHEIGHT as a text, or one number: write "),
        ("input_size = true", "input_size: got True; expected 32 to 99968 px a side in steps of 32, e.g. 416"),
        ("input_size = 400", "input_size: got width 400, height 400; expected 32 to 99968 px in steps of 32, e.g. 416"),
        ("input_size = '416x0'", "input_size: got '416x0'; expected 32 to 99968 px a side in steps of 32, e.g. 416"),
        ("graph.precision = 'fp8'", "graph.precision: got 'fp8'; expected one of fp32, fp16, int8"),
        ("graph.batch = [1, 8]", "graph.batch: got [1, 8]; expected a number or MIN:OPT:MAX, e.g. 1 or 1:4:8"),
        ("graph.batch = [1, 8, 4]", "graph.batch: got 1:8:4; expected 1 <= MIN <= OPT <= MAX"),
        ("graph.batch = 0", "graph.batch: got 0; expected 1 to 9999"),
        ("graph.batch = 10_000", "graph.batch: got 10000; expected 1 to 9999"),
        ("graph.opset = 13", "graph.opset: got 13; expected 14 to 25"),
        ("graph.opset = 26", "graph.opset: got 26; expected 14 to 25"),
        ("graph.opset = 17.0", "graph.opset: got 17.0; expected a whole number, 14 to 25"),
        (
            "graph.frame_size = [720, 1280]",
            'graph.frame_size: got [720, 1280]; expected WIDTHxHEIGHT as a text, or one number: write "1280x720"',
        ),
        ("detect.conf = 1.5", "detect.conf: got 1.5; expected 0 to 1"),
        ("detect.iou = nan", "detect.iou: got nan; expected 0 to 1"),
        ("detect.max_detections = 513", "detect.max_detections: got 513; expected 1 to 512"),
        ("detect.nms = 'diou'", "detect.nms: got 'diou'; expected one of cfg, plain"),
        ("engine.workspace_mib = 0", "engine.workspace_mib: got 0; expected 1 to 1048576"),
        ("engine.workspace_mib = '1G'", "engine.workspace_mib: got '1G'; expected a whole number, 1 to 1048576"),
        ("engine.version_compatible = 1", "engine.version_compatible: got 1; expected True or False"),
        ("engine.optimization_level = 6", "engine.optimization_level: got 6; expected 0 to 5"),
        ("engine.dla_core = -1", "engine.dla_core: got -1; expected 0 to 15"),
        ("engine.strip_weights = true", "engine.strip_weights: given with refit none"),
        ("engine.compute_capabilities = ['86']", "engine.compute_capabilities: got '86'; expected MAJOR.MINOR, e.g. \"8.6\""),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_key(path: Path, line: str, reason: str):
    key = line.partition(" ")[0]
    kept = {"format": '"yolov3_trt.recipe/1"', "model": '"yolov3"', "graph.precision": '"fp16"'}
    lines = [f"{name} = {value}" for name, value in kept.items() if not name.startswith(key)]
    assert refusal(path, "\n".join([*lines, line])).startswith(reason)


def test_only_the_model_must_be_said(path: Path):
    reason = refusal(path, 'format = "yolov3_trt.recipe/1"\n[graph]\nprecision = "fp16"\n')
    assert reason == "model: missing; expected a built-in name or the path of a .cfg"
    assert load(path, 'format = "yolov3_trt.recipe/1"\nmodel = "yolov3"\n') == BuildRecipe("yolov3", FP16)


CALIBRATION = '[calibration]\ntable = "t.json"\n'


@pytest.mark.parametrize(
    "precision, graph, rest, reason",
    [
        (
            "int8", "", "",
            "calibration.images: missing with precision int8; expected pictures to find the ranges on: give images, or as "
            "table the file that `calibrate` made",
        ),
        (
            "fp16", "", CALIBRATION,
            "calibration.table: given with precision fp16; expected int8, which alone has ranges: set precision to int8, or "
            "leave table out",
        ),
        (
            "fp16", "float_layers = [3]", "",
            "graph.float_layers: given with precision fp16; expected int8, which alone leaves some layers float: set precision "
            "to int8, or leave float_layers out",
        ),
        (
            "fp32", 'float_precision = "fp16"', "",
            "graph.float_precision: given with precision fp32; expected int8, which alone leaves some layers float: set "
            "precision to int8, or leave float_precision out",
        ),
        (
            "int8", 'float_precision = "int8"', CALIBRATION,
            "graph.float_precision: got int8; expected fp16, or fp32 for TensorRT 8.6: it is for what is not int8",
        ),
        ("int8", "float_layers = [3, -1]", CALIBRATION, "graph.float_layers: got -1; expected 0 to 99999"),
        (
            "fp16", 'frame_size = "1280x720"', "",
            "graph.frame_size: given with input_stage tensor; expected pixels, only such a graph resizes by itself: set "
            "input_stage to pixels, or leave frame_size out",
        ),
        (
            "fp16", 'input_stage = "pixels"\nframe_size = "1280x0"', "",
            "graph.frame_size: got '1280x0'; expected 1 to 99999 px a side",
        ),
        ("int8", "", CALIBRATION + "num_images = 0", "calibration.num_images: got 0; expected 1 to 1000000000"),
        (
            "int8", "", CALIBRATION + "seed = 3",
            "calibration.seed: given without images; expected pictures to choose from: add images, or leave seed out",
        ),
        (
            "int8", "", CALIBRATION + 'images = "/set.toml"\nnum_images = 64',
            "calibration.num_images: given with a manifest, /set.toml, which says it itself; expected it in one place: leave "
            "num_images out",
        ),
        (
            "int8", "", CALIBRATION + "percentile = 99.9",
            "calibration.percentile: given with method mse; expected percentile: set that, or leave percentile out",
        ),
        (
            "int8", "", CALIBRATION + 'method = "percentile"\npercentile = 0',
            "calibration.percentile: got 0; expected above 0, up to 100",
        ),
        (
            "int8", "", CALIBRATION + 'method = "percentile"\npercentile = nan',
            "calibration.percentile: got nan; expected 0 to 100",
        ),
        (
            "fp16", "", '[engine]\nflavor = "tensorrt"\ncompute_capabilities = ["8.6"]',
            "engine.compute_capabilities: given with flavor tensorrt, which builds for the GPU that it finds; leave it out and "
            "say with hardware_compatibility on which others the plan shall run, or set flavor to tensorrt_rtx",
        ),
        (
            "fp16", 'output_stage = "detections"', '[engine]\ncompute_capabilities = ["8.6", "7.5"]',
            "engine.compute_capabilities: got 7.5 with output_stage detections; expected 8.0 or newer, since TensorRT-RTX has "
            "no float32 MatMul on Turing and suppression needs one: leave 7.5 out, or set output_stage to heads",
        ),
        (
            "fp32", "", "[engine]\ndla_core = 0",
            "engine.dla_core: given with precision fp32; expected fp16 or int8, which a DLA computes in: set one, or leave "
            "dla_core out",
        ),
        (
            "fp16", "batch = [1, 4, 8]", "[engine]\ndla_core = 0",
            "engine.dla_core: given with batch 1:4:8; expected one size, a DLA takes no other: set batch to 8, or leave "
            "dla_core out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_the_way_out(
    path: Path, precision: str, graph: str, rest: str, reason: str
):
    assert refusal(path, PLAIN.replace("fp16", precision) + f"{graph}\n{rest}\n") == reason


@pytest.mark.parametrize(
    "line",
    ["dla_core = 0", 'timing_cache = "c"', "version_compatible = true", 'hardware_compatibility = "ampere_plus"'],
)
def test_what_tensorrt_rtx_lacks_is_refused(path: Path, line: str):
    key = line.partition(" ")[0]
    text = f"{PLAIN}[engine]\n{line}\nflavor = "
    reason = refusal(path, f'{text}"tensorrt_rtx"')
    assert reason.startswith(f"engine.{key}: given with flavor tensorrt_rtx, which ") and "; leave it out" in reason
    for other in ("tensorrt", "auto"):  # which one "auto" becomes is only known when building
        load(path, f'{text}"{other}"')


@pytest.mark.parametrize(
    "precision, graph, rest",
    [
        ("fp16", "batch = 4", "[engine]\ndla_core = 1"),
        ("int8", 'float_precision = "fp32"', CALIBRATION + "[engine]\ndla_core = 0"),
        ("fp16", "", '[engine]\ncompute_capabilities = ["7.5"]'),
        ("fp16", 'output_stage = "detections"', '[engine]\ncompute_capabilities = ["8.0", "12.1"]'),
        ("fp32", 'input_stage = "pixels"', '[engine]\nflavor = "tensorrt_rtx"\noptimization_level = 0\nrefit = "all"'),
        ("int8", "", CALIBRATION + 'images = "set.toml"\nmethod = "entropy"'),
        ("int8", "", CALIBRATION + 'method = "percentile"'),
        ("fp32", "float_layers = []", ""),
    ],
)
def test_what_is_next_to_the_impossible_is_taken(path: Path, precision: str, graph: str, rest: str):
    load(path, PLAIN.replace("fp16", precision) + f"{graph}\n{rest}\n")


def test_a_name_that_no_file_can_hold_is_refused_before_writing():
    with pytest.raises(SettingError, match=r"weights: got '/a.udcff'; expected a path"):
        BuildRecipe("yolov3", FP16, Path("/a\udcff"))
    with pytest.raises(SettingError, match=r"images: got ''; expected a path"):
        BuildRecipe("yolov3", INT8, calibration=CalibrationSettings(Path("t.json"), ""))


def test_an_nms_of_ones_own_is_not_for_a_file(path: Path):
    with pytest.raises(
        SettingError, match=r"nms: got Nms\(.*; expected cfg or plain, which is all that a recipe can say"
    ):
        save_recipe(BuildRecipe("yolov3", FP16, detect=DetectSettings(nms=Nms(NmsKind.DIOU))), path)


def test_recipes_are_light():
    assert not loaded_after("import yolov3_trt.recipe") & (HEAVY | {"pydantic"})
    code = "from pathlib import Path; from yolov3_trt.recipe import load_recipe; load_recipe(Path({!r}))"
    assert not loaded_after(code.format(str(ENGINES / "shapes-256-fp16.toml"))) & (HEAVY | {"numpy", "pydantic"})
