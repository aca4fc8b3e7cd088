"""Recipes: what they say is what is built, and what cannot be built is refused by its key."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_layers import HEAVY, loaded_after
from yolov3_trt.errors import OutputError, RecipeError
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import Batch, InputStage, OutputStage, Precision
from yolov3_trt.recipe import (
    BuildRecipe,
    CalibrationRecipe,
    DetectRecipe,
    GraphRecipe,
    load_recipe,
    save_recipe,
)
from yolov3_trt.settings import EngineSettings, FlavorName, HardwareCompatibility, Method, Refit

ENGINES = Path(__file__).parents[2] / "engines"
PLAIN = 'format = "yolov3_trt.recipe/1"\nmodel = "yolov3"\n[graph]\nprecision = "fp16"\n'
FP16 = GraphRecipe(Precision.FP16)
INT8 = GraphRecipe(Precision.INT8)


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
    assert (recipe.weights, recipe.input_size, recipe.calibration) == (None, None, None)
    assert (recipe.graph.batch, recipe.graph.opset, recipe.graph.rest) == (Batch(1, 1, 1), 17, None)
    assert (recipe.detect, recipe.engine) == (DetectRecipe(), EngineSettings())


def test_a_full_recipe_says_everything(path: Path):
    text = """
        format = "yolov3_trt.recipe/1"
        model = "../nets/mine.cfg"
        weights = "mine.weights"
        names = "/data/mine.names"
        input_size = [320, 608]

        [graph]
        precision = "int8"
        batch = [1, 4, 8]
        input_stage = "pixels"
        output_stage = "detections"
        frame_size = [720, 1280]
        opset = 19
        skip_layers = [3, 81, 3]
        rest = "fp32"

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
        graph=GraphRecipe(
            Precision.INT8,
            Batch(1, 4, 8),
            InputStage.PIXELS,
            OutputStage.DETECTIONS,
            frame_size=(720, 1280),
            opset=19,
            skip_layers=frozenset({3, 81}),
            rest=Precision.FP32,
        ),
        calibration=CalibrationRecipe(
            root / "calib" / "mine.json", str(root / "photos"), Method.PERCENTILE, 256, seed=7, percentile=99.9
        ),
        detect=DetectRecipe(0.5, 1.0, 10, "plain", Resize.STRETCH),
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
        replace(INT8, batch=Batch(1, 4, 8), skip_layers=frozenset({10, 9})),
        weights=root / "weights" / "größer.weights",
        input_size=(416, 416),
        calibration=CalibrationRecipe(root / "calib" / "t.json", "shapes", seed=0),
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
skip_layers = [9, 10]

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
        ("", "format: got nothing; expected 'yolov3_trt.recipe/1' (engines/README.md shows one)"),
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
            "engine, format",
        ),
        (
            "graph.colour = 1",
            "graph.colour: there is no such key; expected one of precision, batch, input_stage, output_stage, frame_size, "
            "opset, skip_layers, rest",
        ),
        (
            "detect.conf = 0.5",
            "detect.conf: there is no such key; expected one of conf, iou, max_detections, nms, resize",
        ),
        (
            "engine.leaky_as_prelu = true",
            "engine.leaky_as_prelu: there is no such key; expected one of flavor, workspace_mib, ",
        ),
        ('"a\\nb" = 1', "'a\\nb': there is no such key; expected one of model, "),
        ('"" = 1', "'': there is no such key; expected one of model, "),
        ("graph = 3", "graph: got 3; expected a table"),
        ("detect = []", "detect: got []; expected a table"),
        ("model = 3", "model: got 3; expected a valid string"),
        ('model = ""', "model: got ''; expected a path or a name, in characters that UTF-8 has"),
        ('weights = "a\\u0000b"', "weights: got 'a\\x00b'; expected a path or a name, in characters that UTF-8 has"),
        ("weights = 1979-05-27", "weights: got the date or time 1979-05-27; expected a text or a number"),
        ("a.b.c.d = 1", "a.b.c.d: nested 4 deep; expected 3 at most"),
        ("input_size = 18446744073709551616", "input_size: got an integer of 65 bits; expected 63 at most"),
        ('input_size = "416"', "input_size: got '416'; expected a number or [height, width]"),
        ("input_size = [416]", "input_size: got [416]; expected a number or [height, width]"),
        ("input_size = [416, 416.0]", "input_size: got [416, 416.0]; expected a number or [height, width]"),
        ("input_size = true", "input_size: got True; expected a number or [height, width]"),
        ("input_size = 400", "input_size: got height 400, width 400; expected 32 to 99968 px in steps of 32, e.g. 416"),
        ("input_size = [416, 0]", "input_size: got height 416, width 0; expected 32 to 99968 px in steps of 32, e.g. 416"),
        ("graph.precision = 'fp8'", "graph.precision: got 'fp8'; expected 'fp32', 'fp16' or 'int8'"),
        ("graph.batch = [1, 8]", "graph.batch: got [1, 8]; expected a number or [min, opt, max]"),
        ("graph.batch = [1, 8, 4]", "graph.batch: batch 1:8:4; expected 1 <= MIN <= OPT <= MAX"),
        ("graph.batch = 0", "graph.batch: batch 0:0:0; expected 1 <= MIN <= OPT <= MAX"),
        ("graph.batch = 10_000", "graph.batch: got 10000; expected 9999 images at most"),
        (
            "graph.batch = {min = 1, opt = 1, max = 1}",
            "graph.batch: got {'max': 1, 'min': 1, 'opt': 1}; expected a number or [min, opt, max]",
        ),
        ("graph.opset = 13", "graph.opset: got 13; expected 14 to 25 (17 is the newest that TensorRT 8.6 reads)"),
        ("graph.opset = 26", "graph.opset: got 26; expected 14 to 25 (17 is the newest that TensorRT 8.6 reads)"),
        ("graph.opset = 17.0", "graph.opset: got 17.0; expected a valid integer"),
        ("graph.frame_size = 720", "graph.frame_size: got 720; expected [height, width]"),
        ("detect.conf = 1.5", "detect.conf: conf=1.5; expected 0..1"),
        ("detect.iou = nan", "detect.iou: iou=nan; expected 0..1"),
        ("detect.max_detections = 513", "detect.max_detections: max_detections=513, max_candidates=512; expected 1 <= "),
        ("detect.nms = 'diou'", "detect.nms: got 'diou'; expected 'cfg' or 'plain'"),
        ("engine.workspace_mib = 0", "engine.workspace_mib=0; expected 1 to 1048576"),
        ("engine.workspace_mib = '1G'", "engine.workspace_mib: got '1G'; expected a valid integer"),
        ("engine.version_compatible = 1", "engine.version_compatible: got 1; expected a valid boolean"),
        ("engine.optimization_level = 6", "engine.optimization_level=6; expected 0..5"),
        ("engine.dla_core = -1", "engine.dla_core=-1; expected 0 or more"),
        ("engine.strip_weights = true", "engine.strip_weights=true with refit='none'"),
        ("engine.compute_capabilities = ['86']", "engine.compute_capabilities: got '86'; expected MAJOR.MINOR, e.g. \"8.6\""),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_key(path: Path, line: str, reason: str):
    key = line.partition(" ")[0]
    kept = {"format": '"yolov3_trt.recipe/1"', "model": '"yolov3"', "graph.precision": '"fp16"'}
    lines = [f"{name} = {value}" for name, value in kept.items() if not name.startswith(key)]
    assert refusal(path, "\n".join([*lines, line])).startswith(reason)


@pytest.mark.parametrize("key", ["model", "graph", "graph.precision", "calibration.table"])
def test_a_missing_key_is_refused(path: Path, key: str):
    lines = {"model": '"yolov3"', "graph.precision": '"int8"', "calibration.table": '"t.json"', "calibration.seed": "1"}
    kept = [f"{name} = {value}" for name, value in lines.items() if not name.startswith(key)]
    reason = refusal(path, "\n".join(['format = "yolov3_trt.recipe/1"', "graph.opset = 17" * (key != "graph"), *kept]))
    assert reason == f"{key}: missing; expected it, since it has no default (engines/README.md lists the keys)"


CALIBRATION = '[calibration]\ntable = "t.json"\n'


@pytest.mark.parametrize(
    "precision, graph, rest, reason",
    [
        (
            "int8", "", "",
            'calibration: missing with graph.precision = "int8"; expected a table of ranges: add [calibration] with table = '
            '"../calib/NAME.json", and with images = "FOLDER" to have it made',
        ),
        (
            "fp16", "", CALIBRATION,
            'calibration: given with graph.precision = "fp16"; expected "int8", which alone has ranges: set precision = '
            '"int8", or leave [calibration] out',
        ),
        (
            "fp16", "skip_layers = [3]", "",
            'graph.skip_layers: given with precision = "fp16"; expected "int8", which alone leaves a rest in float: set '
            'precision = "int8", or leave skip_layers out',
        ),
        (
            "fp32", 'rest = "fp16"', "",
            'graph.rest: given with precision = "fp32"; expected "int8", which alone leaves a rest in float: set precision = '
            '"int8", or leave rest out',
        ),
        (
            "int8", 'rest = "int8"', CALIBRATION,
            'graph.rest: got "int8"; expected "fp16", or "fp32" for TensorRT 8.6: it is for what is not int8',
        ),
        (
            "int8", "skip_layers = [3, -1]", CALIBRATION,
            "graph.skip_layers: got -1; expected 0 or more, layers as the cfg counts them",
        ),
        (
            "fp16", "frame_size = [720, 1280]", "",
            'graph.frame_size: given with input_stage = "tensor"; expected "pixels", only such a graph resizes by itself: set '
            'input_stage = "pixels", or leave frame_size out',
        ),
        (
            "fp16", 'input_stage = "pixels"\nframe_size = [0, 1280]', "",
            "graph.frame_size: got height 0, width 1280; expected 1 to 99999 px",
        ),
        (
            "int8", "", CALIBRATION + "num_images = 0",
            "calibration.num_images: got 0; expected 1 or more",
        ),
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
            'calibration.percentile: given with method = "mse"; expected "percentile": set that, or leave percentile out',
        ),
        (
            "int8", "", CALIBRATION + 'method = "percentile"\npercentile = 0',
            "calibration.percentile: got 0.0; expected above 0, up to 100",
        ),
        (
            "int8", "", CALIBRATION + 'method = "percentile"\npercentile = nan',
            "calibration.percentile: got nan; expected above 0, up to 100",
        ),
        (
            "fp16", "", '[engine]\nflavor = "tensorrt"\ncompute_capabilities = ["8.6"]',
            'engine.compute_capabilities: given with flavor = "tensorrt", which builds for the GPU at hand; expected '
            '"tensorrt_rtx": set that, or leave compute_capabilities out',
        ),
        (
            "fp16", 'output_stage = "detections"', '[engine]\ncompute_capabilities = ["8.6", "7.5"]',
            'engine.compute_capabilities: got "7.5" with graph.output_stage = "detections"; expected "8.0" or newer, since '
            'TensorRT-RTX has no float32 MatMul on Turing and suppression needs one: leave "7.5" out, or set output_stage = '
            '"heads"',
        ),
        (
            "fp32", "", "[engine]\ndla_core = 0",
            'engine.dla_core: given with graph.precision = "fp32"; expected "fp16" or "int8", which a DLA computes in: set '
            "one, or leave dla_core out",
        ),
        (
            "fp16", "batch = [1, 4, 8]", "[engine]\ndla_core = 0",
            "engine.dla_core: given with graph.batch = 1:4:8; expected one size, a DLA takes no other: set batch = 8, or leave "
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
    assert refusal(path, f'{text}"tensorrt_rtx"') == (
        f'engine.{key}: given with flavor = "tensorrt_rtx", which has no such thing; expected "tensorrt": set that, or leave '
        f"{key} out"
    )
    for other in ("tensorrt", "auto"):  # which one "auto" becomes is only known when building
        load(path, f'{text}"{other}"')


@pytest.mark.parametrize(
    "precision, graph, rest",
    [
        ("fp16", "batch = 4", "[engine]\ndla_core = 1"),
        ("int8", 'rest = "fp32"', CALIBRATION + "[engine]\ndla_core = 0"),
        ("fp16", "", '[engine]\ncompute_capabilities = ["7.5"]'),
        ("fp16", 'output_stage = "detections"', '[engine]\ncompute_capabilities = ["8.0", "12.1"]'),
        ("fp32", 'input_stage = "pixels"', '[engine]\nflavor = "tensorrt_rtx"\noptimization_level = 0\nrefit = "all"'),
        ("int8", "", CALIBRATION + 'images = "set.toml"\nmethod = "entropy"'),
        ("int8", "", CALIBRATION + 'method = "percentile"'),
        ("fp32", "skip_layers = []", ""),
    ],
)
def test_what_is_next_to_the_impossible_is_taken(path: Path, precision: str, graph: str, rest: str):
    load(path, PLAIN.replace("fp16", precision) + f"{graph}\n{rest}\n")


def test_a_name_that_no_file_can_hold_is_refused_before_writing():
    with pytest.raises(RecipeError, match=r"weights: got '/a.udcff'; expected a path"):
        BuildRecipe("yolov3", FP16, Path("/a\udcff"))
    with pytest.raises(RecipeError, match=r"calibration.images: got ''; expected a path"):
        CalibrationRecipe(Path("t.json"), "")


def test_the_oldest_opset_is_the_exporters(path: Path):
    export = pytest.importorskip("yolov3_trt.graph.export")
    assert GraphRecipe(Precision.FP16, opset=export.OLDEST_OPSET).opset == export.OLDEST_OPSET
    with pytest.raises(RecipeError):
        GraphRecipe(Precision.FP16, opset=export.OLDEST_OPSET - 1)


def test_recipes_are_light():
    assert not loaded_after("import yolov3_trt.recipe") & (HEAVY | {"pydantic"})
    code = "from pathlib import Path; from yolov3_trt.recipe import load_recipe; load_recipe(Path({!r}))"
    assert not loaded_after(code.format(str(ENGINES / "shapes-256-fp16.toml"))) & HEAVY
