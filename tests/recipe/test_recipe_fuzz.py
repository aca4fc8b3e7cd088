"""Recipes from all over: every one comes back as it was written, and any file gives a recipe or a refusal."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov3_trt.errors import RecipeError
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import Batch, InputStage, OutputStage, Precision, RowsLayout
from yolov3_trt.recipe import BuildRecipe, load_recipe, save_recipe
from yolov3_trt.settings import (
    KINDS,
    CalibrationSettings,
    DetectSettings,
    EngineSettings,
    FlavorName,
    GraphSettings,
    HardwareCompatibility,
    Method,
    Refit,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recipe's path; what is written there is not flushed to disk, which would take most of the time."""
    path = tmp_path_factory.mktemp("recipes") / "deep" / "recipe.toml"
    path.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolov3_trt.files._flush", lambda path: None)
        yield path


# --- recipes ---

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
SIDES = st.integers(1, 99_999)


@st.composite
def graphs(draw: st.DrawFn) -> GraphSettings:
    precision, stage = draw(st.sampled_from(Precision)), draw(st.sampled_from(InputStage))
    int8, output = precision is Precision.INT8, draw(st.sampled_from(OutputStage))
    return GraphSettings(
        precision,
        Batch(*sorted(draw(st.tuples(*[st.integers(1, 64)] * 3)))),
        stage,
        output,
        draw(st.none() | st.tuples(SIDES, SIDES)) if stage is InputStage.PIXELS else None,
        draw(st.integers(14, 25)),
        draw(st.frozensets(st.integers(0, 200), max_size=5)) if int8 else frozenset(),
        draw(st.sampled_from([None, Precision.FP16, Precision.FP32])) if int8 else None,
        draw(st.sampled_from(RowsLayout)) if output is OutputStage.ROWS else None,
    )


@st.composite
def calibrations(draw: st.DrawFn) -> CalibrationSettings:
    method, images = draw(st.sampled_from(Method)), draw(st.none() | st.just("shapes") | PATHS)
    chooses = images is not None and Path(images).suffix != ".toml"
    return CalibrationSettings(
        Path(draw(PATHS)),
        images,
        method,
        draw(st.none() | st.integers(1, 10**6)) if chooses else None,
        draw(st.none() | st.integers(0, 2**63 - 1)) if chooses else None,
        draw(st.none() | st.floats(0, 100, exclude_min=True)) if method is Method.PERCENTILE else None,
    )


@st.composite
def engines(draw: st.DrawFn, graph: GraphSettings) -> EngineSettings:
    flavor = draw(st.sampled_from(FlavorName))
    full, rtx = flavor is not FlavorName.TENSORRT_RTX, flavor is not FlavorName.TENSORRT
    takes_dla = full and graph.precision is not Precision.FP32 and not graph.batch.dynamic
    refit = draw(st.sampled_from(Refit))
    return EngineSettings(
        flavor,
        draw(st.none() | st.integers(1, 10**6)),
        draw(st.none() | st.integers(0, 5)),
        draw(st.none() | PATHS.map(Path)) if full else None,
        draw(st.sampled_from(HardwareCompatibility)) if full else HardwareCompatibility.NONE,
        full and draw(st.booleans()),
        draw(st.none() | st.integers(0, 1)) if takes_dla else None,
        refit,
        refit is not Refit.NONE and draw(st.booleans()),
        draw(st.booleans()),
        tuple(draw(st.lists(st.sampled_from(["8.0", "8.6", "12.0"]), max_size=3))) if rtx else (),
    )


@st.composite
def recipes(draw: st.DrawFn) -> BuildRecipe:
    graph = draw(graphs())
    share = st.none() | st.floats(0, 1)
    return BuildRecipe(
        draw(NAMES | PATHS.map(lambda path: path + ".cfg")),
        graph,
        draw(st.none() | PATHS.map(Path)),
        draw(st.none() | st.just("voc") | PATHS),
        draw(st.none() | st.tuples(*[st.integers(1, 3124).map(lambda cells: 32 * cells)] * 2)),
        draw(calibrations()) if graph.precision is Precision.INT8 else CalibrationSettings(),
        draw(
            st.builds(
                DetectSettings,
                share,
                share,
                st.none() | st.integers(1, 512),
                st.sampled_from(["cfg", "plain"]),
                st.none() | st.sampled_from(Resize),
            )
        ),
        draw(engines(graph)),
    )


@settings(max_examples=60, deadline=None)
@given(recipes())
def test_every_recipe_comes_back_as_it_was(scratch: Path, recipe: BuildRecipe):
    save_recipe(recipe, scratch)
    assert load_recipe(scratch) == recipe


# --- files ---

# A key of each table, and what it takes among other things, so that documents come through often enough.
TAKEN = {
    "model": ['"yolov3"', '"nets/a.cfg"', "'C:\\a.cfg'", '"/a/../b.cfg"'],
    "weights": ['"y.weights"', '"../../../../../../y"', '"."', '"//x"'],
    "names": ['"coco"', '"./coco"', '"größer\\n\\u007f.names"'],
    "input_size": ["416", '"608x320"', "0x20"],
    "graph.precision": ['"fp16"', '"int8"', '"fp32"'],
    "graph.batch": ["4", "[1, 4, 8]", "[2, 2, 2]"],
    "graph.input_stage": ['"pixels"', '"tensor"'],
    "graph.output_stage": ['"heads"', '"detections"', '"rows"'],
    "graph.rows_layout": ['"opencv"', '"channels_first"'],
    "graph.frame_size": ['"1280x720"', "720"],
    "graph.opset": ["14", "19", "25"],
    "graph.float_layers": ["[]", "[3, 1, 3]"],
    "graph.float_precision": ['"fp16"', '"fp32"'],
    "calibration.table": ['"t.json"', '"shapes"'],
    "calibration.images": ['"shapes"', '"./shapes"', '"set.toml"', '"photos"'],
    "calibration.method": ['"percentile"', '"percentile"', '"entropy"'],
    "calibration.num_images": ["1", "9223372036854775807"],
    "calibration.seed": ["0", "7"],
    "calibration.percentile": ["100", "99.9", "5e-324"],
    "calibration.equalise": ["true", "false"],
    "calibration.correct_biases": ["true", "false"],
    "calibration.distill": ["true", "false"],
    "calibration.distill_steps": ["1", "300"],
    "detect.conf": ["0", "0.5", "-0.0"],
    "detect.iou": ["1", "1e-300"],
    "detect.max_detections": ["1", "512"],
    "detect.nms": ['"plain"', '"cfg"'],
    "detect.resize": ['"stretch"', '"letterbox"'],
    "engine.flavor": ['"auto"', '"tensorrt"', '"tensorrt_rtx"'],
    "engine.workspace_mib": ["1", "9223372036854775807"],
    "engine.optimization_level": ["0", "5"],
    "engine.timing_cache": ['"cache"'],
    "engine.hardware_compatibility": ['"none"', '"ampere_plus"'],
    "engine.version_compatible": ["true", "false"],
    "engine.dla_core": ["0"],
    "engine.refit": ['"identical"', '"all"'],
    "engine.strip_weights": ["true", "false"],
    "engine.tf32": ["true", "false"],
    "engine.compute_capabilities": ['["8.6", "7.5"]', '["12.0"]', "[]"],
}
WILD = [
    "-1", "0", "0x7fffffffffffffff", "-9223372036854775808", "9223372036854775808", "0x" + "f" * 5000, "9" * 5000,
    "1e400", "-inf", "nan", "1979-05-27", "07:32:00", "1979-05-27T07:32:00-08:00", '""', "''", '"\\u0000"', '".cfg"', "'\\'",
    '"""\na\n"""', '"' + "a/" * 2000 + '"', "[]", "[[1]]", "[[[[1]]]]", "[" * 1000, "[1, 'a', 2.0]", "[1, true]", "[416]",
    "[" + "1, " * 500 + "]", "{}", "{a = {b = 1}}", "{min = 1, opt = 2, max = 3}", "=", "",
]  # fmt: skip
TEXTS = st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False))
WILD_VALUES = st.sampled_from(WILD) | TEXTS | st.integers().map(str) | st.floats().map(str)
WILD_KEYS = (
    st.sampled_from(["", "a.b", '"graph"', "graph", "engine", "graph.batch.min", "format", ".".join("a" * 200)]) | TEXTS
)
SAID = st.sampled_from(sorted(TAKEN)).flatmap(lambda key: st.tuples(st.just(key), st.sampled_from(TAKEN[key])))
WILDLY_SAID = st.tuples(st.sampled_from(sorted(TAKEN)), WILD_VALUES) | st.tuples(WILD_KEYS, WILD_VALUES)
BASES = [
    {"model": '"yolov3"', "graph.precision": '"fp16"'},
    {"model": '"a.cfg"', "graph.precision": '"fp16"', "graph.input_stage": '"pixels"'},
    {
        "model": '"a.cfg"',
        "graph.precision": '"int8"',
        "calibration.table": '"t.json"',
        "calibration.images": '"photos"',
    },
]


def test_the_fuzzer_knows_every_key():
    tables = {f"{name}.{item.name}" for name, kind in KINDS.items() for item in fields(kind)}
    assert set(TAKEN) == tables | {item.name for item in fields(BuildRecipe)} - set(KINDS)


def result_or_refusal(path: Path, content: bytes) -> None:
    """A recipe that comes back, or a RecipeError of one line that names the file; any other exception fails the test."""
    path.write_bytes(content)
    try:
        recipe = load_recipe(path)
    except RecipeError as exc:
        assert str(exc).startswith(f"{path}: ") and str(exc).isprintable() and len(str(exc)) < 1000
    else:
        save_recipe(recipe, path)
        assert load_recipe(path) == recipe


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(BASES), st.lists(SAID, max_size=5), st.lists(WILDLY_SAID, max_size=1))
def test_any_document_gives_a_recipe_or_a_refusal(
    scratch: Path, base: dict[str, str], said: list[tuple[str, str]], wild: list[tuple[str, str]]
):
    content = {"format": '"yolov3_trt.recipe/1"', **base, **dict(said), **dict(wild)}
    text = "".join(f"{key} = {value}\n" for key, value in content.items())
    result_or_refusal(scratch, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("key", sorted(TAKEN))
def test_no_value_of_a_key_breaks_the_reader(scratch: Path, key: str):
    for value in WILD:
        content = {"format": '"yolov3_trt.recipe/1"', **BASES[2 * key.startswith("calibration")], key: value}
        result_or_refusal(scratch, "".join(f"{name} = {text}\n" for name, text in content.items()).encode())


CONTENTS = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "engines").glob("*.toml"))]
PIECES = (
    st.sampled_from([bytes([byte]) for byte in b"0189.-_=#[],{}\"'\\ \n\raeinx"])
    | st.binary(max_size=2)
    | st.sampled_from(CONTENTS)
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONTENTS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), PIECES), max_size=3))
def test_a_committed_recipe_with_bytes_changed_gives_a_recipe_or_a_refusal(
    scratch: Path, content: bytes, changes: list[tuple[float, int, bytes]]
):
    for place, dropped, inserted in changes:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + dropped :]
    result_or_refusal(scratch, content)
