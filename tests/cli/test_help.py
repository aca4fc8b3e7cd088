"""What `--help` says: panels by settings, two examples that are commands, help that stands in one place."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

from tests.cli_runner import call
from yolov3_trt.cli import app, groups
from yolov3_trt.cli.examples import examples_of
from yolov3_trt.meta import Precision
from yolov3_trt.settings import KINDS, GraphSettings

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands
COMMANDS |= {f"data {name}": verb for name, verb in COMMANDS["data"].commands.items()}
VERBS = sorted(set(COMMANDS) - {"deploy", "data"})


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_two_examples_that_are_commands(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("val.json", "data.yaml", "theirs.onnx"):  # some options look for their file at once
        (tmp_path / name).write_text("{}")
    for name in ("val", "photos"):
        (tmp_path / name).mkdir()
    examples = examples_of(verb)
    assert len(examples) in (2, 3)
    for example in examples:
        program, *args = shlex.split(example)
        words = verb.split()
        assert (program, args[: len(words)]) == ("yolov3_trt", words)
        COMMANDS[verb].make_context(verb, args[len(words) :])  # unknown options and missing arguments are refused here


@pytest.mark.parametrize("kind", [groups.ModelOptions, *KINDS.values()], ids=lambda kind: kind.__name__)
def test_every_setting_has_a_sentence_of_help(kind: type[Any]):
    texts = groups.attribute_texts(kind)
    assert list(texts) == [item.name for item in dataclasses.fields(kind)]
    for text in texts.values():
        assert text[-1] == "." and "None" not in text and "In Python" not in text


def test_build_has_an_option_for_every_setting_in_the_panel_of_its_kind(capsys: pytest.CaptureFixture[str]):
    params = {param.name: param for param in COMMANDS["build"].params}
    for kind in KINDS.values():
        for item in dataclasses.fields(kind):
            assert f"--{item.name.replace('_', '-')}" in params[item.name].opts
            assert params[item.name].default is None, "what was not typed is not said"
    assert params["float_layers"].rich_help_panel == params["images"].rich_help_panel == "INT8"
    assert call("build", "--help") == 0
    out = capsys.readouterr().out
    panels = [out.index(f"─ {name} ─") for name in ("Model", "Graph", "INT8", "Detection", "TensorRT", "Output")]
    assert panels == sorted(panels)
    assert "yolov3_trt build yolov3.cfg --precision int8 --images photos/" in " ".join(out.split())


def test_completion_can_be_installed(capsys: pytest.CaptureFixture[str]):
    assert call("--help") == 0
    assert "--install-completion" in capsys.readouterr().out


def test_without_a_verb_there_are_five_tasks_whose_commands_are_right(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.yaml").write_text("{}")  # options look for it
    assert call() == 2
    lines = [line.partition("yolov3_trt ")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(lines) == 5
    for line in lines:
        verb, *args = shlex.split(line)
        COMMANDS[verb].make_context(verb, args)


def test_every_verb_stands_in_a_panel():
    assert not [
        name for name in VERBS if " " not in name and not COMMANDS[name].rich_help_panel and not COMMANDS[name].hidden
    ]


def test_a_choice_leaves_its_check_as_the_text_that_any_typer_makes_a_choice_of():
    option = get_args(groups.options_of(GraphSettings)["precision"])[1]
    assert type(option.callback(Precision.FP16)) is str and option.callback(Precision.FP16) == "fp16"
    assert option.callback(None) is None
