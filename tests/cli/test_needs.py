"""A verb says before it works all that it lacks."""

import sys
from pathlib import Path

import pytest

from tests.cli_runner import call
from yolov3_trt import packages
from yolov3_trt.cli import app
from yolov3_trt.cli.needs import NEEDS, needed_by


def test_every_verb_of_the_table_exists_and_takes_the_parameters_it_names():
    import typer.main

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands = {**commands, **commands["deploy"].commands, **commands["data"].commands}
    for verb, needs in NEEDS.items():
        names = {parameter.name for parameter in commands[verb].params}
        assert {*needs.artifacts, *filter(None, [needs.builds])} <= names, verb


@pytest.mark.parametrize(
    "verb, params, needed",
    [
        ("detect", {"artifact": "shapes"}, {"opencv", "torch"}),
        ("detect", {"artifact": "my.cfg"}, {"opencv", "torch"}),
        ("detect", {"artifact": "m.onnx"}, {"opencv", "onnxruntime"}),
        ("detect", {"artifact": "m.engine"}, {"opencv"}),
        ("camera", {"artifact": "triton://host:8001/m"}, {"opencv", "tritonclient"}),
        ("compare", {"a": "shapes", "b": "m.onnx"}, {"opencv", "torch", "onnxruntime"}),
        ("eval", {"artifacts": ["m.onnx", "n.onnx"]}, {"opencv", "onnxruntime"}),
        ("build", {"source": "m.onnx", "flavor": "auto"}, {"tensorrt"}),
        ("build", {"source": "m.onnx", "flavor": "tensorrt_rtx"}, {"tensorrt_rtx"}),
        ("build", {"source": "m.toml", "flavor": "auto"}, {"tensorrt", "onnx"}),
        ("build", {"source": "m", "flavor": "auto", "images": "p"}, {"tensorrt", "onnx", "opencv", "onnxruntime"}),
        ("export", {"model": "shapes"}, {"onnx"}),
        ("doctor", {}, set()),
        ("models", {}, set()),
    ],
)
def test_what_is_needed_follows_from_what_is_asked(verb: str, params: dict, needed: set[str]):
    assert set(needed_by(verb, params)) == needed


def test_a_model_needs_no_pytorch_but_where_it_is_the_reference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "_is_there", lambda module: module != "torch")
    assert set(needed_by("detect", {"artifact": "shapes"})) == {"opencv", "onnx", "onnxruntime"}
    assert set(needed_by("compare", {"a": "shapes", "b": "m.onnx"})) == {"opencv", "torch", "onnxruntime"}


def test_all_that_is_missing_is_named_in_one_line_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(packages, "_is_there", lambda module: False)
    monkeypatch.setattr(packages, "is_jetson", lambda: False)
    monkeypatch.setenv("DISPLAY", ":0")
    assert call("demo", "-o", tmp_path / "demo") == 1
    assert capsys.readouterr().err == (
        "yolov3_trt: demo needs opencv, torch, onnx and onnxruntime, which are not installed; "
        "run: pip install 'yolov3-trt[cpu,export,opencv]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_help_and_wrong_usage_come_before_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(packages, "_is_there", lambda module: False)
    assert call("detect", "--help") == 0
    assert call("compare", "x.onnx") == 2
    assert "not installed" not in capsys.readouterr().err


def test_the_check_imports_none_of_what_it_looks_for():
    before = set(sys.modules)
    needed_by("detect", {"artifact": "m.onnx"})
    packages.missing_packages(packages.PACKAGES)
    assert not {"torch", "cv2", "onnxruntime"} & (set(sys.modules) - before)
