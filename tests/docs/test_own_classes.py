"""From a Darknet layout to a trained model, INT8, AP and a report: the commands of docs/training.md, on generated pictures."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli_runner import Run
from tests.docs.blocks import blocks
from yolov3_trt.data.shapes import write_shapes_data_set

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# What the page says -> what is run, to save time and nothing else.
SHORTER = (
    (r"--epochs 100", "--epochs 6 --input-size 160 --batch-size 8 --val-every 3 --mosaic 0"),
    (r"--max-ap-drop 0.01", "--max-ap-drop 0.05 --layer-ap 0 --num-images 32"),
    (r"-416-int8", "-160-int8"),
    (r"--worst 8", "--worst 2 --json eval.json"),
)


def test_five_commands_go_from_labels_to_int8_and_a_report(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(data / "models" / "official" / "yolov3-tiny.weights", tmp_path)
    _darknet_layout_of_two_classes(run, tmp_path)
    (block,) = (block for block in blocks("docs/training.md") if "mine/obj.data" in block.text)
    commands = block.commands()
    assert len(commands) <= 5
    for command in commands:
        for pattern, shorter in SHORTER:
            command = re.sub(pattern, shorter, command)
        outcome = run(*shlex.split(command)[1:])
        assert outcome.code == 0, f"{command}: {outcome.stderr}"
    assert "AP50" in outcome.stdout and "runs/own-int8/yolov3-tiny-160-int8.onnx" in outcome.stdout
    fp32, int8 = json.loads((tmp_path / "eval.json").read_text())["rows"]
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    assert fp32["AP50"] > 0.2 and int8["AP"] > fp32["AP"] - 0.05 - 1e-9
    assert [entry["class_name"] for entry in fp32["per_class"]] == ["circle", "square"]
    for page in ("data.html", "own.html"):
        assert "data:image/jpeg" in (tmp_path / "runs" / page).read_text()
    assert len(list((tmp_path / "runs" / "worst").iterdir())) == 2


def _darknet_layout_of_two_classes(run: Run, folder: Path) -> None:
    """`mine/obj.data` with 160 pictures to train on and 40 to validate; shapes of other classes are there without a label."""
    yaml = write_shapes_data_set(folder / "shapes", num_train=160, num_val=40, seed=11)
    for path in (folder / "shapes" / "labels").rglob("*.txt"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if line.split()[0] in "01"))
    yaml.write_text("train: images/train\nval: images/val\nnames: [circle, square]\n")
    assert run("data", "convert", yaml, "--to", "darknet", "-o", folder / "mine").code == 0
    shutil.rmtree(folder / "shapes")
