"""Build recipes: all that an engine is made from, as a small TOML file to be kept under version control."""

from yolov3_trt.recipe.file import RECIPE_FORMAT, load_recipe, save_recipe
from yolov3_trt.recipe.packaged import find_recipe, load_found, packaged_recipes
from yolov3_trt.recipe.values import BuildRecipe, recipe_from

__all__ = [
    "RECIPE_FORMAT",
    "BuildRecipe",
    "find_recipe",
    "load_found",
    "load_recipe",
    "packaged_recipes",
    "recipe_from",
    "save_recipe",
]
