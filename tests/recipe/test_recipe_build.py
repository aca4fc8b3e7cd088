"""Recipe -> engine: built once, left alone while nothing changed, whole or absent whatever happens."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli_runner import files_in
from yolov3_trt import files, meta
from yolov3_trt.builder import resources
from yolov3_trt.calibration.table import load_table
from yolov3_trt.engine.flavor import installed_flavors
from yolov3_trt.errors import BuildError, CalibrationError, OutputError
from yolov3_trt.jobs import build as build_module
from yolov3_trt.jobs.build import build
from yolov3_trt.meta import Precision, load_engine_meta, load_model_meta, sidecar_path
from yolov3_trt.models import default_weights_path
from yolov3_trt.recipe import BuildRecipe
from yolov3_trt.reporter import Reporter
from yolov3_trt.settings import CalibrationSettings, EngineSettings, FlavorName, GraphSettings

pytestmark = pytest.mark.skipif(
    FlavorName.TENSORRT_RTX not in installed_flavors(), reason="TensorRT-RTX is not installed (extra rtx)"
)
RTX = EngineSettings(FlavorName.TENSORRT_RTX)
FP16 = BuildRecipe("shapes", GraphSettings(Precision.FP16), engine=RTX)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "shapes.engine"
    first = build(FP16, path)
    assert (first.reused, first.reason) == (False, "there was no engine yet")
    return path


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    """A built engine that a test may spoil."""
    for name in files_in(built.parent):
        shutil.copy2(built.parent / name, tmp_path / name)
    return tmp_path / built.name


def test_the_same_recipe_again_is_not_built_again(engine: Path):
    before = engine.stat().st_mtime_ns
    start = time.perf_counter()
    again = build(FP16, engine)
    assert time.perf_counter() - start < 5  # an export alone takes longer
    assert (again.reused, again.reason) == (True, "nothing changed since it was built")
    assert again.meta == load_engine_meta(engine)
    assert engine.stat().st_mtime_ns == before
    assert load_model_meta(engine.with_suffix(".onnx")).precision is Precision.FP16


def test_force_builds_it_again(engine: Path):
    again = build(FP16, engine, force=True)
    assert (again.reused, again.reason) == (False, "asked to (force)")


def test_changed_weights_are_named(engine: Path, tmp_path: Path):
    content = bytearray(default_weights_path("shapes").read_bytes())
    content[-1] ^= 1
    weights = tmp_path / "other.weights"
    weights.write_bytes(content)
    again = build(replace(FP16, weights=weights), engine)
    assert not again.reused and again.reason.startswith("weights was ") and ";" not in again.reason


@pytest.mark.parametrize(
    "recipe, reason",
    [
        (replace(FP16, graph=GraphSettings(Precision.FP32)), "precision was fp16, is fp32"),
        (replace(FP16, input_size=(128, 128)), "input size was 256, is 128"),
        (replace(FP16, engine=replace(RTX, workspace_mib=64)), "workspace mib was none, is 64"),
    ],
)
def test_a_changed_recipe_is_built_and_the_change_named(engine: Path, recipe: BuildRecipe, reason: str):
    again = build(recipe, engine)
    assert (again.reused, again.reason) == (False, reason)


def test_another_tensorrt_is_named(engine: Path):
    path = sidecar_path(engine)
    content = json.loads(path.read_text())
    content["inputs"]["tensorrt version"] = "1.6.0.0"
    path.write_text(json.dumps(content))
    again = build(FP16, engine)
    assert again.reason == f"tensorrt version was 1.6.0.0, is {again.meta.flavor_version}"


def test_an_engine_that_was_cut_short_is_built_again(engine: Path):
    content = engine.read_bytes()
    engine.write_bytes(content[: len(content) // 2])
    again = build(FP16, engine)
    assert not again.reused and "the one there cannot be used" in again.reason and "cut short" in again.reason
    assert engine.read_bytes() == content


def test_a_graph_is_built_once_too(engine: Path, tmp_path: Path):
    graph, other = engine.with_suffix(".onnx"), tmp_path / "other.engine"
    assert not build(graph, other, engine=RTX).reused
    assert build(graph, other, engine=RTX).reused
    changed = build(graph, other, engine=replace(RTX, optimization_level=1))
    assert changed.reason == "optimization level was none, is 1"


def test_no_file_is_read_twice_for_its_hash(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph, other, hashed = engine.with_suffix(".onnx"), tmp_path / "other.engine", list[str]()

    def sha256_of_file(path: Path) -> str:
        hashed.append(path.name)
        return files.sha256_of_file(path)

    for module in (meta, build_module):
        monkeypatch.setattr(module, "sha256_of_file", sha256_of_file)
    assert not build(graph, other, engine=RTX).reused
    assert hashed == ["shapes.onnx"]
    hashed.clear()
    assert build(graph, other, engine=RTX).reused
    assert hashed == ["shapes.onnx", "other.engine"]
    hashed.clear()
    assert build(FP16, engine).reused
    assert hashed == ["shapes.engine"]


def test_an_engine_of_a_graph_is_not_that_of_a_model(engine: Path):
    graph = engine.with_suffix(".onnx")
    assert build(graph, engine, engine=RTX).reason == "the one there was built from a model"
    assert build(FP16, engine).reason == "the one there was built from a graph"


# --- INT8 ---


def int8_recipe(folder: Path, images: str | None = "shapes") -> BuildRecipe:
    count = None if images is None else 8
    calibration = CalibrationSettings(folder / "table.json", images, num_images=count)
    return BuildRecipe("shapes", GraphSettings(Precision.INT8), calibration=calibration, engine=RTX)


def test_a_recipe_makes_the_table_it_needs_and_notices_when_that_changes(tmp_path: Path):
    engine, said = tmp_path / "shapes.engine", list[str]()
    recipe, tracked = int8_recipe(tmp_path), list[str]()

    def track(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        tracked.append(what)
        return items

    built = build(recipe, engine, reporter=Reporter(said.append, track))
    assert tracked.count("reading pictures") == 1
    assert load_table(tmp_path / "table.json").images.count == 8
    assert built.meta.model.precision is Precision.INT8 and built.meta.model.calibration_sha256 is not None
    assert "warning: 8 calibration pictures; ranges are steadier with 32 or more" in said
    assert build(recipe, engine).reused
    other = replace(recipe, calibration=replace(recipe.calibration, seed=1))
    tracked.clear()
    again = build(other, engine, reporter=Reporter(said.append, track))
    assert tracked.count("reading pictures") == 1, "also where the table there does not fit"
    assert again.reason.startswith("calibration table was ")
    assert any("calibrating again, the table there differs in picture list" in line for line in said)


def test_a_recipe_without_pictures_needs_its_table(tmp_path: Path):
    with pytest.raises(CalibrationError, match="there is no such calibration table"):
        build(int8_recipe(tmp_path, None), tmp_path / "shapes.engine")
    assert not list(tmp_path.glob("*.engine")) and not list(tmp_path.glob("*.onnx"))


# --- several at once, kills, full disks ---


BUILD = """
import sys
from pathlib import Path
from tests.recipe.test_recipe_build import FP16
from yolov3_trt.jobs.build import build
print(build(FP16, Path(sys.argv[1])).reason)
"""


@pytest.mark.slow
def test_two_processes_build_one_recipe_and_leave_one_engine(tmp_path: Path):
    engine = tmp_path / "shapes.engine"
    commands = [[sys.executable, "-c", BUILD, str(engine)]] * 2
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    reasons = [process.communicate(timeout=300)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(reasons) == ["nothing changed since it was built", "there was no engine yet"]
    load_engine_meta(engine)
    assert not [name for name in files_in(tmp_path) if name.endswith(".partial")]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for the FP16 graph and little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_too_small_for_the_graph_is_named_and_nothing_left_on_it(tiny_disk: Path):
    with pytest.raises(OutputError, match=r"shapes\.onnx: cannot be written"):
        build(replace(FP16, graph=GraphSettings(Precision.FP32)), tiny_disk / "shapes.engine")
    assert files_in(tiny_disk) == set()


def test_a_disk_too_small_for_the_engine_is_noticed_before_tensorrt_starts(tiny_disk: Path):
    with pytest.raises(BuildError, match=r"MB are free on this disk; the engine may need 9 MB"):
        build(FP16, tiny_disk / "shapes.engine")
    assert files_in(tiny_disk) == {"shapes.onnx", "shapes.onnx.json"}  # whole, and of use elsewhere


def test_a_disk_that_fills_up_meanwhile_costs_no_engine(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "plan_bytes_needed", lambda onnx_bytes, precision: 0)
    with pytest.raises(OutputError, match=r"shapes\.engine: cannot be written"):
        build(FP16, tiny_disk / "shapes.engine")
    assert files_in(tiny_disk) == {"shapes.onnx", "shapes.onnx.json"}
