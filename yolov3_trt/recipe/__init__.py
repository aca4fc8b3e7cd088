"""Build recipes: all that an engine is made from, as a small TOML file to be kept under version control."""

from yolov3_trt.recipe.file import load_recipe, save_recipe
from yolov3_trt.recipe.packaged import find_recipe, load_found, packaged_recipes
from yolov3_trt.recipe.values import (
    DEFAULT_NUM_IMAGES,
    RECIPE_FORMAT,
    BuildRecipe,
    CalibrationRecipe,
    DetectRecipe,
    GraphRecipe,
)

__all__ = [
    "DEFAULT_NUM_IMAGES",
    "RECIPE_FORMAT",
    "BuildRecipe",
    "CalibrationRecipe",
    "DetectRecipe",
    "GraphRecipe",
    "find_recipe",
    "load_found",
    "load_recipe",
    "packaged_recipes",
    "save_recipe",
]
