"""Every shell and Python block of README and docs is run, in order, in a scratch folder with real files.

What cannot be run here is in `NOT_HERE`, with the reason; what would take too long is shortened by `SHORTER`. A block that is
new has to run, or to be added there on purpose.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_runner import call
from tests.docs.blocks import PAGES, ROOT, Block, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Commands that cannot run on a machine without what they need, by a pattern, with the reason. Their options are still parsed.
NOT_HERE = {
    r"^(sudo |pip |python3? -m venv|\. |source )": "changes the machine or the environment",
    r"^(git|make|docker|tritonserver|curl|systemctl|cp) ": "needs a repository, a server or a service",
    r"^trtexec ": "needs NVIDIA's program",
    r"csi://|rtsp://|--source 0\b|triton://|window": "needs a camera, a screen or a server",
    r"^yolov3_trt fetch ": "needs the internet",
    r"^yolov3_trt demo": "is `make demo`, which CI runs beside the tests",
    r"--from-scratch --epochs 20|--train 5000": "takes an hour",
    r"mine/obj\.data": "is test_own_classes.py, which looks at what comes of it",
    r"acceptance|YOLOV3_TRT_GPU_WORK": "needs an NVIDIA GPU",
}
# Commands that end with 1 here and what they say: running an engine needs a GPU, and so does the full TensorRT that builds one.
REFUSED = (
    (r"^yolov3_trt (detect|camera|bench|eval|compare)\b.*\.engine", "cannot run here|GPU"),
    (r"^yolov3_trt deploy deepstream\b.*\.engine", "built by tensorrt_rtx, which DeepStream does not load"),
)
PICTURES = 8  # of each set
# What is run in place of what is written, to save time and nothing else.
SHORTER = (
    (r"--epochs 50", "--epochs 1 --batch-size 4 --input-size 224"),
    (r"--duration 30", "--duration 1"),
    (r"frames=100000", "frames=20"),
    (r"--train 200 --val 50", "--train 8 --val 4"),
    (r"runs/own-int8/yolov3-tiny-416-", "runs/own-int8/yolov3-tiny-224-"),
    (r"^yolov3_trt report shapes", rf"\g<0> --num-images {PICTURES} --frames 3"),
    (r"^yolov3_trt bench", r"\g<0> --frames 3 --warmup 1"),
    (r"^(yolov3_trt quantize.*)--max-ap-drop 0.05", r"\1--layer-ap 1 --max-ap-drop 0.5 --input-size 224"),
    (r"^yolov3_trt (quantize|calibrate|build(?=.*--images))", rf"\g<0> --num-images {PICTURES}"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Path]:
    """The current folder, with what the pages name: official weights, COCO images with labels, a data set in YOLO format."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield set_up(tmp_path_factory.mktemp("reader"), data, monkeypatch)


def set_up(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    official, coco = data / "models" / "official", data / "coco"
    for name in ("yolov3-tiny.cfg", "yolov3-tiny.weights"):
        shutil.copy(official / name, folder / name)
    shutil.copy(data / "images" / "dog.jpg", folder)
    (folder / "engines").mkdir()
    for recipe in (ROOT / "engines").glob("*.toml"):
        text = recipe.read_text().replace("\n[calibration]\n", f"\n[calibration]\nnum_images = {PICTURES}\n")
        (folder / "engines" / recipe.name).write_text(text)
    (folder / "photos").mkdir()
    for picture in sorted((coco / "train64").iterdir())[:PICTURES]:
        shutil.copy(picture, folder / "photos")
    truth = json.loads((coco / "instances_val64.json").read_text())
    truth["images"] = truth["images"][:PICTURES]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [note for note in truth["annotations"] if note["image_id"] in kept]
    (folder / "val" / "images").mkdir(parents=True)
    for image in truth["images"]:
        shutil.copy(coco / "val64" / "images" / image["file_name"], folder / "val" / "images")
    (folder / "val" / "instances.json").write_text(json.dumps(truth))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for command in (
        "shapes -o shapes-data --train 12 --val 4",
        "fetch yolov3-tiny --from yolov3-tiny.weights",
        "export yolov3-tiny -o tiny.onnx",  # what was made on a PC
        "export yolov3-tiny -o theirs.onnx",  # what another program exported
    ):
        assert call(*command.split()) == 0, command
    for block in all_blocks("toml"):  # those that say which file they are
        if named := re.match(r"# (\w+\.toml)\n", block.text):
            (folder / named[1]).write_text(block.text)
    listing = (folder / "shapes-data" / "data.yaml").read_text()
    (folder / "data.yaml").write_text(f"path: shapes-data\n{listing}")
    for suffix in (".onnx", ".onnx.json"):
        shutil.copy(folder / f"tiny{suffix}", folder / f"retrained{suffix}")
    shutil.copytree(folder / "photos", folder / "calib" / "images")
    return folder


def all_blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def test_shell_blocks_run_in_order(world: Path, capsys: pytest.CaptureFixture[str]):
    faults, ran, times = [], set(), []
    for block in all_blocks("sh"):
        for command in block.commands():
            if any(re.search(pattern, command) for pattern in NOT_HERE):
                continue
            for pattern, shorter in SHORTER:
                command = re.sub(pattern, shorter, command)
            name, *arguments = shlex.split(command)
            assert name == "yolov3_trt", (
                f"{block.page}:{block.line}: {command}: run it, or say in NOT_HERE why it cannot be"
            )
            started = time.monotonic()
            code = call(*arguments)
            times.append((time.monotonic() - started, command))
            said = "".join(capsys.readouterr())
            ran.add(block.page)
            refusal = next((words for pattern, words in REFUSED if re.search(pattern, command)), None)
            right = code == 0 if refusal is None else code == 1 and re.search(refusal, said)
            if not right:
                faults.append(f"{block.page}:{block.line}: {command}: {code}\n{said[-600:]}")
    print("\n".join(f"{seconds:6.1f} s  {command}" for seconds, command in sorted(times, reverse=True)[:10]))
    assert not faults, "\n".join(faults)
    with_commands = {block.page for block in all_blocks("sh")} - {"docs/gpu.md", "docs/runtime.md"}
    assert ran >= with_commands, "each page has a command that runs here"


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: f"{block.page}:{block.line}")
def test_python_blocks_run(block: Block, world: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", block.text], cwd=world, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"{block.page}:{block.line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.strip(), "a block of Python shows something"


def test_recipes_in_the_docs_are_recipes(tmp_path: Path):
    from yolov3_trt.recipe import load_recipe

    found = [block for block in all_blocks("toml") if "yolov3_trt.recipe" in block.text]
    assert found
    for block in found:
        path = tmp_path / "recipe.toml"
        path.write_text(block.text)
        load_recipe(path)
