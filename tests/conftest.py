"""Fixtures: the reference data, its models, and weights fabricated for the full-size architectures."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from yolov3_trt.models import Model, load_model

# Small models pretrained on COCO, in the reference data.
COCO_MODELS = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl", "MobileNetV2-YOLOv3-Nano-coco")


@pytest.fixture(scope="session")
def data() -> Path:
    """The reference data: ../shared/data, or what YOLOV3_TRT_DATA names; without it the test is skipped."""
    path = Path(os.environ.get("YOLOV3_TRT_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no reference data at {path}; YOLOV3_TRT_DATA names another place")
    return path.resolve()


@pytest.fixture(scope="session")
def coco_model(data: Path) -> Callable[[str], Model]:
    """One of COCO_MODELS by name."""
    return lambda name: load_model(data / "models" / f"{name}.cfg", names="coco")


@pytest.fixture(scope="session")
def fabricated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A .weights file of seeded random values for an architecture of the reference data, made once."""
    spec = importlib.util.spec_from_file_location("fabricate_weights", data / "goldens" / "fabricate_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("fabricated")

    def make(name: str) -> Path:
        path = folder / f"{name}.weights"
        if not path.exists():
            module.fabricate(data / "models" / f"{name}.cfg", path)
        return path

    return make
