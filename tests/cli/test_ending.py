"""Verbs that end before their time: signals, and readers of stdout that go away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_runner import call
from yolov3_trt import cli
from yolov3_trt.cli.ending import Terminated, ended_by_signals, exit_code, name_of_end, sigterm_unwinds, undivided

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


def test_sigterm_unwinds_what_is_under_way_and_is_then_what_it_was():
    before, steps = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Terminated) as caught, sigterm_unwinds():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            steps.append("finished")
    assert steps == ["finished"]
    assert signal.getsignal(signal.SIGTERM) == before
    assert (name_of_end(caught.value), name_of_end(KeyboardInterrupt())) == ("SIGTERM", "SIGINT")
    assert (exit_code("SIGINT"), exit_code("SIGTERM")) == (130, 143)


@pytest.mark.parametrize("verb", ["bench", "build", "camera"])
def test_help_is_printed_on_a_terminal_that_has_ascii_only(verb: str):
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "yolov3_trt", verb, "--help"]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and b"Usage:" in done.stdout


def test_sigterm_outside_of_a_verb_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch):
    def end(_: object) -> None:
        raise Terminated

    monkeypatch.setattr(cli, "app", end)
    with pytest.raises(SystemExit) as caught:
        cli.entrypoint([])
    assert caught.value.code == 143


def test_sigterm_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_unwinds():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number, kind", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_takes_effect_at_the_end_of_what_is_undivided(number: signal.Signals, kind: type[BaseException]):
    steps = []
    with pytest.raises(kind), sigterm_unwinds(), undivided():
        signal.raise_signal(number)
        steps.append("whole")
    assert steps == ["whole"]


def test_a_second_signal_does_not_wait():
    steps = []
    with pytest.raises(KeyboardInterrupt), undivided():
        signal.raise_signal(signal.SIGINT)
        steps.append("first")
        signal.raise_signal(signal.SIGINT)
        steps.append("second")
    assert steps == ["first"]


def test_a_loop_is_asked_to_stop_once():
    asked: list[str] = []
    with sigterm_unwinds():
        with pytest.raises(KeyboardInterrupt), ended_by_signals(asked.append):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        assert asked == ["SIGTERM"]


def test_sigterm_ends_a_verb_with_143_and_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("yolov3_trt.files._flush", lambda path: signal.raise_signal(signal.SIGTERM))
    assert call("models", "--json", tmp_path / "models.json") == 143
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_a_verb_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "yolov3_trt", "models"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_shapes_that_are_stopped_say_what_is_left(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    from yolov3_trt.data import shapes

    write = shapes._write_picture

    def write_and_stop(folder: Path, name: str, picture: object) -> None:
        write(folder, name, picture)
        if name == "train/000002":
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(shapes, "_write_picture", write_and_stop)
    assert call("shapes", "-o", tmp_path / "s", "--train", "5", "--val", "1") == 143
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"yolov3_trt: stopped by SIGTERM; {tmp_path}/s holds a part of the pictures and no data.yaml, so it is no data set: "
        "run the same command again, which begins anew"
    )
    assert len(list((tmp_path / "s" / "images" / "train").iterdir())) == 3


@pytest.mark.parametrize(
    "error, text",
    [
        (MemoryError("Unable to allocate 447. GiB"), "there is not enough memory (Unable to allocate 447. GiB)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            "not enough memory",
        ),
        (ImportError("libx.so: failed to map segment from shared object"), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "the input is nested too deeply to be read"),
        (OSError("a picture called x\x1b]0;PWNED\x07.jpg"), r"x\x1b]0;PWNED\x07.jpg"),
    ],
)
def test_no_memory_is_one_line_and_texts_from_outside_drive_no_terminal(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(_args: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.entrypoint([])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("\n") == 1 and text in said and "\x1b" not in said
    monkeypatch.setattr(cli, "app", lambda _args: (_ for _ in ()).throw(ValueError("a fault of ours")))
    with pytest.raises(ValueError, match="a fault of ours"):
        cli.entrypoint([])
