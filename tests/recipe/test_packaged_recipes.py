"""The recipes of the package are found by name from anywhere."""

from pathlib import Path

import pytest

from tests.cli_runner import call
from yolov3_trt.errors import RecipeError
from yolov3_trt.recipe import find_recipe, load_found, load_recipe, packaged, packaged_recipes

ENGINES = Path(__file__).parents[2] / "engines"


def test_all_committed_recipes_are_packaged():
    assert list(packaged_recipes().values()) == sorted(ENGINES.glob("*.toml"))


@pytest.mark.parametrize(
    "source",
    ["yolov3-416-fp16", "yolov3-416-fp16.toml", "engines/yolov3-416-fp16.toml", "elsewhere/yolov3-416-fp16.toml"],
)
def test_a_name_or_a_path_of_the_repository_means_the_packaged_recipe(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(source) == ENGINES / "yolov3-416-fp16.toml"


def test_a_file_that_is_there_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "yolov3-416-fp16.toml"
    mine.write_text("mine")
    assert find_recipe("yolov3-416-fp16.toml") == Path("yolov3-416-fp16.toml")
    assert find_recipe("yolov3-416-fp16") == ENGINES / "yolov3-416-fp16.toml"


@pytest.mark.parametrize("source", ["yolov3", "shapes", "my.cfg", "graph.onnx", "none-of-these"])
def test_models_and_graphs_are_no_recipes(source: str):
    assert find_recipe(source) is None


def test_an_unknown_recipe_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(
        RecipeError, match=r"^yolov3-416-fp61.toml: there is no such recipe; did you mean yolov3-416-fp16\? "
    ):
        find_recipe("yolov3-416-fp61.toml")
    assert call("build", "nowhere/mine.toml") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("yolov3_trt: nowhere/mine.toml: there is no such recipe; of the package: shapes-256-")
    assert "yolov3-416-int8" in line


def test_what_the_package_lacks_is_looked_for_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "site-packages"
    for name, folder in (("yolov3-416-int8.toml", "engines"), ("shapes-256-int8.toml", "engines")):
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder / name).write_bytes((ENGINES / name).read_bytes())
    (home / "calib").mkdir()
    for name in ("shapes-256-mse.json", "shapes.toml"):
        (home / "calib" / name).write_bytes((ENGINES.parent / "calib" / name).read_bytes())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(packaged, "_HOME", home)
    ours = load_found(packaged_recipes()["shapes-256-int8"])
    assert ours == load_recipe(home / "engines" / "shapes-256-int8.toml")
    assert ours.calibration.table == home / "calib" / "shapes-256-mse.json"
    theirs = load_found(packaged_recipes()["yolov3-416-int8"])
    assert theirs.calibration.table == work / "calib" / "yolov3-416-mse.json"
    assert theirs.calibration.images == str(work / "calib" / "images")
