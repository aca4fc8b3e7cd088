"""`docs/python.md`: every block runs, in this process; the way from weights to a camera is short, and what a class shows."""

import contextlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import Block, blocks
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.models import load_model
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.models.darknet_weights import save_darknet_weights

PYTHON = [block for block in blocks("docs/python.md") if block.language == "python"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page names; the bundled model stands for yolov3-tiny."""
    folder = tmp_path_factory.mktemp("reader")
    yaml = write_shapes_data_set(folder / "data", num_train=4, num_val=2, seed=5)
    (folder / "data.yaml").write_text(f"path: data\n{yaml.read_text()}")
    shutil.copytree(yaml.parent / "images/train", folder / "photos")
    shutil.copy(next((folder / "photos").iterdir()), folder / "dog.jpg")
    model = load_model("shapes")
    (folder / "yolov3-tiny.cfg").write_text(cfg_from_spec(model.spec))
    save_darknet_weights(model.spec, model.weights, folder / "yolov3-tiny.weights")
    return folder


def cases() -> list[Any]:
    """Those that take long are run with all pages, by `test_blocks`."""
    long = [pytest.mark.slow]
    return [
        pytest.param(block, id=f"{block.line}", marks=long if re.search(r"\.(quantize|train)\(", block.text) else [])
        for block in PYTHON
    ]


@pytest.mark.parametrize("block", cases())
def test_a_block_runs_and_shows_something(block: Block, reader: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(reader)
    monkeypatch.setattr("yolov3_trt.build", lambda graph: graph)  # `test_blocks` builds with TensorRT
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(block.text, f"docs/python.md:{block.line}", "exec"), {"__name__": "page"})
    assert shown.getvalue().strip()


def test_there_are_ten_examples_and_the_way_to_a_camera_is_short():
    assert len(PYTHON) == 10
    lines = [line for line in PYTHON[0].text.splitlines() if line.strip()]
    assert len(lines) <= 8 and sum("import" in line for line in lines) == 1
    assert all(f"yolov3_trt.{name}(" in PYTHON[0].text for name in ("calibrate", "export", "build", "watch"))
