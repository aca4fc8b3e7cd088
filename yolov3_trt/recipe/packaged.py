"""The recipes that come with the package, by name."""

import difflib
from dataclasses import replace
from pathlib import Path

from yolov3_trt.errors import RecipeError
from yolov3_trt.recipe.file import load_recipe
from yolov3_trt.recipe.values import BuildRecipe

_PACKAGE = Path(__file__).resolve().parents[1]
# In an installed package beside the tables that they name; in the source tree at its top.
_HOME = next((folder for folder in (_PACKAGE / "recipes", _PACKAGE.parent) if (folder / "engines").is_dir()), _PACKAGE)


def packaged_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name: `yolov3-416-fp16`, ..."""
    return {path.stem: path for path in sorted((_HOME / "engines").glob("*.toml"))}


def find_recipe(source: str) -> Path | None:
    """The recipe file that a word on the command line means; None where it means a model or a graph.

    A file is taken first. Else the name of a packaged recipe will do, with or without folder and suffix:
    `yolov3-416-fp16`, `engines/yolov3-416-fp16.toml`.

    Raises:
        RecipeError: it ends in `.toml`, and is neither; the text lists the names.
    """
    path = Path(source)
    if path.suffix == ".toml" and path.exists():
        return path
    known = packaged_recipes()
    name = path.stem if path.suffix == ".toml" else source
    if name in known:
        return known[name]
    if path.suffix != ".toml":
        return None
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise RecipeError(f"{source}: there is no such recipe; {meant}of the package: {', '.join(known)}")


def load_found(path: Path) -> BuildRecipe:
    """Read a recipe that `find_recipe` found.

    What a packaged one names and the package lacks, a table to be made and your own pictures, is looked for here:
    `calib/...` in the working folder.
    """
    recipe = load_recipe(path)
    if path not in packaged_recipes().values():
        return recipe
    calibration = recipe.calibration
    if calibration.table is not None:
        calibration = replace(calibration, table=_here(calibration.table))
    if calibration.images is not None:
        calibration = replace(calibration, images=str(_here(Path(calibration.images))))
    return replace(recipe, calibration=calibration)


def _here(path: Path) -> Path:
    """The same below the working folder, unless it is in the package."""
    return path if path.exists() or not path.is_relative_to(_HOME) else Path.cwd() / path.relative_to(_HOME)
