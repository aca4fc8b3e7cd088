"""The committed recipes of the bundled model and of YOLOv3 at 416 become engines, built by TensorRT-RTX on the CPU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.test_engine import MALFORMED_ENGINE, needs_rtx, validity_mask
from yolov3_trt.jobs.build import build
from yolov3_trt.meta import EngineMeta, load_engine_meta
from yolov3_trt.models.architectures import yolov3
from yolov3_trt.recipe import BuildRecipe, load_recipe
from yolov3_trt.settings import EngineSettings, FlavorName

ENGINES = Path(__file__).parents[2] / "engines"
RTX = EngineSettings(FlavorName.TENSORRT_RTX)

pytestmark = [needs_rtx, pytest.mark.slow]


def built(recipe: BuildRecipe, path: Path) -> EngineMeta:
    result = build(replace(recipe, engine=RTX), path)
    assert result.export is not None and load_engine_meta(path) == result.meta
    assert validity_mask(path) & MALFORMED_ENGINE == 0
    return result.meta


@pytest.mark.parametrize("path", sorted(ENGINES.glob("shapes-*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_bundled_model_build(path: Path, tmp_path: Path):
    recipe = load_recipe(path)
    if recipe.calibration.table is not None:  # a copy: with another OpenCV it may have to be made again
        table = tmp_path / recipe.calibration.table.name
        table.write_bytes(recipe.calibration.table.read_bytes())
        recipe = replace(recipe, calibration=replace(recipe.calibration, table=table))
    meta = built(recipe, tmp_path / f"{path.stem}.engine").model
    graph = recipe.graph
    assert (meta.precision, meta.batch, meta.frame_hw) == (graph.precision, graph.batch, graph.frame_size)
    assert (meta.input_stage, meta.output_stage) == (graph.input_stage, graph.output_stage)


def test_recipes_of_a_full_size_yolov3_at_416_build(fabricated: Callable[[str], Path], tmp_path: Path):
    weights, sizes = fabricated("yolov3"), {}
    for precision in ("fp32", "fp16", "int8"):
        recipe = replace(load_recipe(ENGINES / f"yolov3-416-{precision}.toml"), weights=weights)
        if recipe.calibration.table is not None:  # of made-up weights the ranges do not matter
            few = replace(recipe.calibration, table=tmp_path / "table.json", images="shapes", num_images=2)
            recipe = replace(recipe, calibration=few)
        sizes[precision] = built(recipe, tmp_path / f"{precision}.engine").plan_bytes
    weights_bytes = 4 * yolov3().num_parameters
    assert weights_bytes < sizes["fp32"] < 1.05 * weights_bytes
    assert weights_bytes / 2 < sizes["fp16"] < 1.05 * weights_bytes / 2, "FP16 weights are really in the plan"
    assert weights_bytes / 4 < sizes["int8"] < 1.3 * weights_bytes / 4, "and so are int8 ones"
