"""Cameras from a file: each with settings of its own, under the names of the options."""

import json
import re
from math import inf
from pathlib import Path

import pytest

from tests.fakes import fake_detector
from yolov3_trt.camera.settings import CameraSettings
from yolov3_trt.cli.groups import options_of
from yolov3_trt.errors import SettingError
from yolov3_trt.jobs import watch as watch_module
from yolov3_trt.jobs.cameras import load_cameras
from yolov3_trt.jobs.watch import watch
from yolov3_trt.selection import Selection

FILE = """
[[camera]]
name = "door"
source = "rtsp://${CAM_USER}@door/stream"
sink = ["door-%Y%m%d-%H%M%S.mp4?segment=10min", "exec:mosquitto_pub -P secret -l"]
classes = "person:0.6"
zones = "door.toml"
size = "1280x720"
give_up_after = inf
transport = "udp"
credentials = "secrets"

[[camera]]
source = 0
sink = "yard/"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "door.toml").write_text("[[zone]]\npoints = [[0, 0], [1, 0], [1, 1]]\n")
    (tmp_path / "secrets").write_text("CAM_USER=me\n")
    (tmp_path / "secrets").chmod(0o600)
    path = tmp_path / "camera.toml"
    path.write_text(FILE)
    return path


def test_each_camera_has_its_own_settings_and_else_those_of_all(file: Path):
    door, yard = load_cameras(file, CameraSettings(fps=5, latency=90), Selection(min_size="20", classes="dog"))
    assert door.source == "door=rtsp://${CAM_USER}@door/stream" and yard.source == "0"
    assert len(door.sinks) == 2 and yard.sinks == ("yard/",)
    asked = door.asked
    assert (asked.image_hw, asked.fps, asked.latency_ms, asked.transport) == ((720, 1280), 5, 90, "udp")
    assert asked.credentials == {"CAM_USER": "me"} and yard.asked.transport == "tcp"
    assert door.selection.zones == file.parent / "door.toml" and door.selection.min_size == (20, 20)
    assert (door.selection.classes, yard.selection.classes, yard.selection.zones) == ("person:0.6", "dog", None)
    assert door.reconnect.give_up_after_s == inf and yard.reconnect.give_up_after_s == 60.0


@pytest.mark.parametrize(
    "text, fault",
    [
        ("[[camera]]\nsource = x\n", r"cannot be read \(.*line 2.*\); expected \[\[camera\]\] with"),
        ("", "there is no camera in it; expected "),
        ("[camera]\nsource = 'x'", "there is no camera in it; expected "),
        ("fps = 3\n[[camera]]\nsource = '0'", "there is no key 'fps' outside of a camera; expected "),
        ("[[camera]]\nname = 'a'", r"camera 1 \(a\): source: got None; expected an address"),
        ("[[camera]]\nsource = 0\n[[camera]]\nsource = true", "camera 2: source: got True; expected an address"),
        ("[[camera]]\nsource = 0\nname = 'the door'", r"camera 1 \(the door\): name: got 'the door'; expected letters"),
        ("[[camera]]\nsource = 0\nsink = 3", "camera 1: sink: got 3; expected one text or several"),
        ("[[camera]]\nsource = 0\nclass = 'dog'", "camera 1: class: there is no such key; expected one of source, name, sink"),
        ("[[camera]]\nsource = 0\nfps = 'fast'", "camera 1: fps: got 'fast'; expected"),
        ("[[camera]]\nsource = 0\nname = 'door'\nclasses = ':'", r"camera 1 \(door\): classes: got ':'; expected e.g."),
        ("[[camera]]\nsource = 0\nzones = 'none.toml'", "camera 1: zones: .*none.toml"),
    ],
)  # fmt: skip
def test_fault_names_file_camera_and_key(tmp_path: Path, text: str, fault: str):
    path = tmp_path / "camera.toml"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        load_cameras(path, CameraSettings(), Selection())
    assert re.match(f"cameras: {path}: {fault}", str(caught.value)) and "\n" not in str(caught.value)


def test_example_of_the_page_is_understood(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "camera.md").read_text()
    (example,) = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[camera]]" in block]
    (tmp_path / "camera.toml").write_text(example)
    (tmp_path / "door-zones.toml").write_text("[[zone]]\npoints = [[0, 0], [1, 0], [1, 1]]\n")
    door, yard = load_cameras(tmp_path / "camera.toml", CameraSettings(), Selection())
    assert door.source.startswith("door=rtsp://") and len(yard.sinks) == 2


def test_file_and_command_line_have_the_same_names():
    names = set(options_of(CameraSettings)) | set(options_of(Selection))
    assert names >= {"size", "fps", "timeout", "give_up_after", "credentials", "classes", "zones"}


def test_sinks_and_classes_of_a_camera_are_for_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch_module, "open_detector", lambda artifact, **options: fake_detector())
    monkeypatch.chdir(tmp_path)
    rows = [
        ("left", "shapes://?frames=3", "{source}.jsonl", "classes = 'level:0.95'"),
        ("right", "shapes://?frames=2", "{source}.jsonl", ""),
    ]
    text = "".join(f'[[camera]]\nname = "{n}"\nsource = "{s}"\nsink = "{k}"\n{more}\n' for n, s, k, more in rows)
    (tmp_path / "camera.toml").write_text(text)
    watching = watch("fake", cameras=tmp_path / "camera.toml", sinks=["all.jsonl", "exec:tee secret"])
    assert len(list(watching)) == 5
    found = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in tmp_path.glob("*.jsonl")
    }
    assert {name: {row["source"] for row in lines} for name, lines in found.items()} == {
        "all": {"left", "right"}, "left": {"left"}, "right": {"right"},
    }  # fmt: skip
    assert [len(row["detections"]) for row in found["left"] + found["right"]] == [0, 0, 0, 1, 1]
    asked = watching.to_json()["sinks"]["asked"]
    assert asked == ["all.jsonl", "exec:tee ...", "{source}.jsonl", "{source}.jsonl"]
