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
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks

pytestmark = pytest.mark.slow

# Commands that cannot run on a machine without what they need, by a pattern, with the reason. Their options are still parsed.
NOT_HERE = {
    r"^(sudo |pip |python3? -m venv|\. |source )": "changes the machine or the environment",
    r"^(git|make|docker|tritonserver|curl|systemctl|cp) ": "needs a repository, a server or a service",
    r"^trtexec ": "needs NVIDIA's program",
    r"csi://|rtsp://|--source 0\b|triton://|window": "needs a camera, a screen or a server",
    r"^yolov3_trt fetch ": "needs the internet",
    r"^yolov3_trt demo": "is `make demo`, which CI runs beside the tests",
    r"--from-scratch --epochs 20|--train 5000": "takes an hour",
    r"acceptance|YOLOV3_TRT_GPU_WORK": "needs an NVIDIA GPU",
}
# Commands that end with 1 and one line here, since an engine needs a GPU.
NEEDS_A_GPU = r"^yolov3_trt (detect|camera|bench|eval|compare)\b.*\.engine"
# What is run in place of what is written, to save time and nothing else.
SHORTER = (
    (r"--epochs 50", "--epochs 1 --batch-size 4"),
    (r"--duration 30", "--duration 1"),
    (r"frames=100000", "frames=20"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder with the files that the pages name: official weights, COCO images with labels, a data set in YOLO format."""
    folder = tmp_path_factory.mktemp("reader")
    official, coco = data / "models" / "official", data / "coco"
    for name in ("yolov3-tiny.cfg", "yolov3-tiny.weights"):
        shutil.copy(official / name, folder / name)
    shutil.copy(data / "images" / "dog.jpg", folder)
    shutil.copytree(
        ROOT / "engines", folder / "engines", ignore=lambda _, names: [n for n in names if not n.endswith(".toml")]
    )
    shutil.copytree(coco / "train64", folder / "photos")
    truth = json.loads((coco / "instances_val64.json").read_text())
    truth["images"] = truth["images"][:8]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [note for note in truth["annotations"] if note["image_id"] in kept]
    (folder / "val" / "images").mkdir(parents=True)
    for image in truth["images"]:
        shutil.copy(coco / "val64" / "images" / image["file_name"], folder / "val" / "images")
    (folder / "val" / "instances.json").write_text(json.dumps(truth))
    program(folder, "shapes", "-o", "shapes-data", "--train", "12", "--val", "4")
    set_up = program(folder, "fetch", "yolov3-tiny", "--from", "yolov3-tiny.weights")
    assert set_up.returncode == 0, set_up.stderr
    assert program(folder, "export", "yolov3-tiny", "-o", "tiny.onnx").returncode == 0  # what was made on a PC
    listing = (folder / "shapes-data" / "data.yaml").read_text()
    (folder / "data.yaml").write_text(f"path: shapes-data\n{listing}")
    for suffix in (".onnx", ".onnx.json"):
        shutil.copy(folder / f"tiny{suffix}", folder / f"retrained{suffix}")
    shutil.copytree(folder / "photos", folder / "calib" / "images")
    return folder


def program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "yolov3_trt", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def all_blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def test_shell_blocks_run_in_order(world: Path):
    faults, ran = [], set()
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
            done = program(world, *arguments)
            ran.add(block.page)
            if re.search(NEEDS_A_GPU, command):
                right = done.returncode == 1 and re.search("cannot run here|GPU", done.stdout + done.stderr)
            else:
                right = done.returncode == 0
            if not right or "Traceback" in done.stderr:
                faults.append(f"{block.page}:{block.line}: {command}: {done.returncode}\n{done.stderr[-600:]}")
    assert not faults, "\n".join(faults)
    assert ran >= set(PAGES) - {"docs/gpu.md", "docs/runtime.md"}, "each page has a command that runs here"


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: f"{block.page}:{block.line}")
def test_python_blocks_run(block: Block, world: Path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(world / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", block.text], cwd=world, env=environment, capture_output=True, text=True, timeout=600
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
