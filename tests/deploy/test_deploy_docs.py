"""What docs/serving.md and its examples say is what this version does."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from yolov3_trt.backends.triton.address import CallOptions, parse_address
from yolov3_trt.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
EXAMPLES = PAGE.parent / "examples" / "serving"


def commands() -> list[str]:
    """Those of the page's shell blocks, without `yolov3_trt`."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = "\n".join(blocks).splitlines()
    return [line.removeprefix("yolov3_trt ") for line in lines if line.startswith("yolov3_trt ")]


def test_the_page_has_commands():
    assert len(commands()) == 6


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_is_understood(command: str):
    verb, *arguments = shlex.split(command, comments=True)
    found = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    if verb == "deploy":
        found, arguments = found.commands[arguments[0]], arguments[1:]
    assert found.make_context(verb, arguments).params


def test_the_options_of_the_address_have_the_defaults_that_the_page_says():
    rows = re.findall(r"^\| `(\w+)` \| `?(\w+)`? \|", PAGE.read_text().partition("## The client")[2], re.MULTILINE)
    assert [name for name, _ in rows] == ["deadline_ms", "retries", "in_flight", "encoding"]
    query = "&".join(f"{name}={value}" for name, value in rows)
    assert parse_address(f"triton://a:1,b:2/m?{query}").options == CallOptions()


def test_the_examples_are_yaml_and_agree_on_ports_and_folders():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra train)")
    compose = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]["triton"]
    by_kind = {doc["kind"]: doc for doc in yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())}
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "grpc": 8001, "metrics": 8002}
    assert {probe["httpGet"]["port"] for key, probe in container.items() if key.endswith("Probe")} == {"http"}
    assert {port["targetPort"] for port in by_kind["Service"]["spec"]["ports"]} == set(ports)
    assert container["resources"]["limits"].keys() == {"cpu", "memory", "nvidia.com/gpu"}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/models", "/dev/shm"}
    for arguments in (container["args"], compose["command"]):
        assert "--model-repository=/models" in arguments
    assert (
        by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == by_kind["Deployment"]["metadata"]["name"]
    )
