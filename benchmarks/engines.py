"""Size and build time of the engines of the committed recipes, built on the CPU by TensorRT-RTX.

    python -m benchmarks.engines --data ../shared/data --json engines.json

The full-size models get fabricated weights: neither size nor time depends on their values. Nothing is run.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolov3_trt.benchmarking.latency import machine
from yolov3_trt.jobs.build import build
from yolov3_trt.models import BUNDLED
from yolov3_trt.recipe import BuildRecipe, load_recipe
from yolov3_trt.settings import EngineSettings, FlavorName

ENGINES = Path(__file__).parents[1] / "engines"


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the reference data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("recipes", nargs="*", help="names; default: all")
    options = parser.parse_args(args)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(ENGINES.glob("*.toml")):
            if not options.recipes or path.stem in options.recipes:
                row = {
                    "recipe": path.stem,
                    **measure(prepared(load_recipe(path), options.data, Path(folder)), Path(folder)),
                }
                print(row, file=sys.stderr)
                rows.append(row)
    content = {"command": "python -m benchmarks.engines", "machine": machine(), "rows": rows}
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def measure(recipe: BuildRecipe, folder: Path) -> dict[str, Any]:
    """Build an engine, and ask for it again."""
    path = folder / "m.engine"
    start = time.perf_counter()
    built = build(recipe, path, force=True)
    built_s = time.perf_counter() - start
    again = build(recipe, path)
    again_s = time.perf_counter() - start - built_s
    assert again.reused and built.export is not None
    return {
        "onnx_mb": round(built.export.num_bytes / 1e6, 1),
        "plan_mb": round(built.meta.plan_bytes / 1e6, 1),
        "tensorrt_s": round(built.meta.build_s, 2),
        "all_s": round(built_s, 1),  # weights, export, comparison with PyTorch, calibration, TensorRT
        "again_s": round(again_s, 2),
        "flavor": f"{built.meta.flavor} {built.meta.flavor_version}",
    }


def prepared(recipe: BuildRecipe, data: Path, folder: Path) -> BuildRecipe:
    """A recipe for TensorRT-RTX, with weights, and with few pictures to calibrate on."""
    recipe = replace(recipe, engine=EngineSettings(FlavorName.TENSORRT_RTX))
    if recipe.calibration.images is not None:
        few = replace(recipe.calibration, table=folder / "table.json", images="shapes", num_images=2)
        recipe = replace(recipe, calibration=few)
    if recipe.model in BUNDLED:
        return recipe
    weights = folder / f"{recipe.model}.weights"
    if not weights.exists():
        spec = importlib.util.spec_from_file_location("fabricate_weights", data / "goldens" / "fabricate_weights.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.fabricate(data / "models" / f"{recipe.model}.cfg", weights)
    return replace(recipe, weights=weights)


if __name__ == "__main__":
    main()
