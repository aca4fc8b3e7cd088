"""The recipes in engines/ are what their names say, and the README there lists every key that a recipe has."""

import json
import re
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from yolov3_trt.calibration.table import load_table
from yolov3_trt.data.manifest import load_set
from yolov3_trt.meta import Batch, InputStage, OutputStage, Precision
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.recipe import BuildRecipe, load_recipe, save_recipe
from yolov3_trt.settings import (
    DEFAULT_NUM_IMAGES,
    CalibrationSettings,
    DetectSettings,
    EngineSettings,
    GraphSettings,
)

ENGINES = Path(__file__).parents[2] / "engines"
COMMITTED = sorted(ENGINES.glob("*.toml"))
README = (ENGINES / "README.md").read_text(encoding="utf-8")


def name_of(recipe: BuildRecipe) -> str:
    """The file name that says what is inside."""
    graph, (height, width) = recipe.graph, recipe.input_size
    parts = [recipe.model, str(height) if height == width else f"{height}x{width}", graph.precision.value]
    if graph.frame_size is not None and graph.output_stage is OutputStage.DETECTIONS:
        parts.append("camera-{1}x{0}".format(*graph.frame_size))
    else:
        parts += ["pixels"] * (graph.input_stage is InputStage.PIXELS)
        parts += ["detections"] * (graph.output_stage is OutputStage.DETECTIONS)
    if graph.batch != Batch():
        parts.append(f"b{str(graph.batch).replace(':', '-')}")
    return "-".join(parts)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_recipe_is_what_its_name_says(path: Path):
    recipe = load_recipe(path)
    assert recipe.model in BUILT_IN and name_of(recipe) == path.stem
    if recipe.calibration.table is not None:
        stem = f"{recipe.model}-{recipe.input_size[0]}-{recipe.calibration.method.value}"
        assert recipe.calibration.table == ENGINES.parent / "calib" / f"{stem}.json"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_recipe_is_a_comment_and_what_save_writes(path: Path, tmp_path: Path):
    comment, _, content = path.read_text(encoding="utf-8").partition("\n")
    assert re.fullmatch(r"# .{10,}\.", comment)
    copy = tmp_path / "engines" / path.name
    copy.parent.mkdir()
    copy.write_text(content, encoding="utf-8")
    save_recipe(load_recipe(copy), copy)
    assert copy.read_text(encoding="utf-8") == content


def test_every_family_is_there():
    stems = {path.stem for path in COMMITTED}
    every = ("fp32", "fp16", "int8")
    assert {f"yolov3-{size}-{precision}" for size in (320, 416, 608) for precision in every} < stems
    assert {f"{model}-{precision}" for model in ("yolov3-tiny-416", "shapes-256") for precision in every} < stems
    large = ("yolov3-spp-608", "yolov4-608", "yolov4-tiny-416", "yolov7-tiny-416")
    assert {f"{model}-{precision}" for model in large for precision in every[1:]} < stems
    assert {f"{model}-fp16-b1-4-8" for model in ("yolov3-416", "shapes-256")} < stems
    assert {f"{model}-fp16-camera-1280x720" for model in ("yolov3-416", "shapes-256")} < stems


def test_the_bundled_int8_recipe_names_what_is_committed():
    calibration = load_recipe(ENGINES / "shapes-256-int8.toml").calibration
    table = load_table(calibration.table)
    assert (table.method, table.model.name, table.input_hw) == (calibration.method, "shapes", (256, 256))
    assert table.images.count == load_set(Path(calibration.images)).count


def test_git_keeps_recipes_and_ignores_what_is_built_and_the_users_pictures():
    rules = (ENGINES.parent / ".gitignore").read_text().splitlines()
    assert rules.index("engines/*") < rules.index("!engines/*.toml") < rules.index("/calib/images/")


# --- the README ---

SECTIONS = {
    "### Top level": BuildRecipe,
    "### `[graph]`": GraphSettings,
    "### `[calibration]`": CalibrationSettings,
    "### `[detect]`": DetectSettings,
    "### `[engine]`": EngineSettings,
}


def documented(section: str) -> dict[str, str]:
    """Key -> default, as the table of a section says."""
    rows = README.partition(f"{section}\n")[2].partition("\n#")[0].splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows if row.startswith("| `")]
    return {key.strip("`"): default for key, default, _ in cells}


@pytest.mark.parametrize("section, kind", SECTIONS.items())
def test_the_readme_lists_every_key_with_its_default(section: str, kind: type[Any]):
    rows = documented(section)
    assert set(rows) - {"format"} == {item.name for item in fields(kind)}
    for item in fields(kind):
        if item.default is MISSING and item.default_factory is MISSING:
            assert rows[item.name] == "none"
        elif isinstance(item.default, (Enum, str, bool, int)):
            assert rows[item.name] == f"`{json.dumps(item.default)}`"
        else:  # in words, as of the model
            assert rows[item.name] not in ("none", "")


def test_the_readme_knows_how_many_pictures_are_the_default():
    assert documented("### `[calibration]`")["num_images"].startswith(f"{DEFAULT_NUM_IMAGES}, ")


def test_the_recipe_in_the_readme_is_one(tmp_path: Path):
    path = tmp_path / "engines" / "recipe.toml"
    path.parent.mkdir()
    path.write_text(README.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.graph == GraphSettings(Precision.INT8, Batch(1, 4, 8))
    assert recipe.weights == tmp_path / "weights" / "yolov3.weights"
    assert recipe.engine.compute_capabilities == ("8.6", "8.9")
