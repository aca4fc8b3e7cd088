"""The commands of docs/camera.md and its examples are commands that this version understands."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from yolov3_trt.camera.sinks import open_sinks
from yolov3_trt.camera.sources import SourceOptions, open_source, split_uris
from yolov3_trt.cli import app

DOCS = Path(__file__).parents[2] / "docs"
LOCAL_SINKS = (
    ".mp4",
    ".avi",
    ".jsonl",
    "/",
    "keep=2000",
    "keep=20",
    "jsonl",
    "keep_gb=200",
    "keep_days=14",
    "free_gb=2",
)  # which need no port and no screen


def commands() -> list[str]:
    """Those of the page's shell blocks and of both examples, without `yolov3_trt` and comments."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / "camera.md").read_text(), re.DOTALL)
    service = (
        (DOCS / "examples" / "camera.service")
        .read_text()
        .partition("ExecStart=/bin/sh -c 'exec /opt/yolov3_trt/bin/")[2]
    )
    image = re.findall("yolov3-trt (camera .*)", (DOCS / "examples" / "Dockerfile.l4t").read_text())
    blocks += [service.partition("'")[0].replace("%%", "%"), *(f"yolov3_trt {command}" for command in image)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("yolov3_trt ") for line in lines if line.startswith("yolov3_trt ")]


def test_the_page_and_the_examples_have_commands():
    assert len(commands()) == 15


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_service_is_understood_by_systemd(tmp_path: Path):
    text = (DOCS / "examples" / "camera.service").read_text()
    (tmp_path / "camera.service").write_text(text.replace("/opt/yolov3_trt/bin/yolov3_trt", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / "camera.service"], capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "camera.service" in line]) == (0, [])


@pytest.mark.parametrize("command", commands())
def test_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    verb, *arguments = shlex.split(command, comments=True)
    group = typer.main.get_command(app)
    parsed = group.commands[verb].make_context(verb, arguments).params
    sources = split_uris(parsed["source"] or ["0"])
    for uri in sources:
        assert open_source(uri, SourceOptions(credentials={"CAM_USER": "me", "CAM_PASSWORD": "secret"})).name
    sinks = [uri for uri in split_uris(parsed["sink"] or ["window"]) if uri.endswith(LOCAL_SINKS)]
    others = set(split_uris(parsed["sink"] or ["window"])) - set(sinks)
    pages = {"http://127.0.0.1:8080", "http://0.0.0.0:8080", "http://0.0.0.0:8080?password_file=page-password"}
    programs = {"mosquitto_pub", "sh"}
    commands = [shlex.split(uri.partition(":")[2])[0] for uri in others if uri.startswith("exec")]
    assert set(commands) <= programs and {uri for uri in others if not uri.startswith("exec")} <= {"window", *pages}
    with open_sinks(sinks, fps=30, stats=dict, sources=sources):
        pass
