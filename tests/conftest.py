"""Fixtures: the reference data, its models, and weights fabricated for the full-size architectures."""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from yolov3_trt.models import Model, load_model

if TYPE_CHECKING:
    from tests.cli_runner import Run

# The same examples in every run, so that a change fails by what it changed; `--hypothesis-profile default` draws new ones.
if importlib.util.find_spec("hypothesis") is not None:  # a machine with a GPU may lack it
    from hypothesis import settings

    settings.register_profile("same", derandomize=True, database=None)
    settings.load_profile("same")

WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # where several processes share the tests: the name of this one
if WORKER is not None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; see `one_thread_each`

# Who starts the tests in the background makes them and what they start ignore Ctrl-C, of which some tests are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Small models pretrained on COCO, in the reference data.
COCO_MODELS = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl", "MobileNetV2-YOLOv3-Nano-coco")
# What takes seconds for each of them: `make test` looks at the first, `make test-slow` at the others.
EACH_COCO_MODEL = (COCO_MODELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in COCO_MODELS[1:]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test may take half an hour; `timeout` of pyproject.toml holds for the others."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session", autouse=True)
def one_thread_each() -> Iterator[None]:
    """Where several processes share the tests, each computes with one thread: more would wait for each other, spinning."""
    if WORKER is None or importlib.util.find_spec("onnxruntime") is None:
        yield
        return
    import onnxruntime

    class OneThread(onnxruntime.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", OneThread)
        yield


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> "Run":
    """The command line in this process; what C libraries print is captured as well."""
    from tests.cli_runner import Outcome, call

    def run_it(*args: str | Path) -> Outcome:
        capfd.readouterr()
        code = call(*args)
        return Outcome(code, *capfd.readouterr())

    return run_it


@pytest.fixture(scope="session")
def data() -> Path:
    """The reference data: ../shared/data, or what YOLOV3_TRT_DATA names; without it the test is skipped."""
    path = Path(os.environ.get("YOLOV3_TRT_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no reference data at {path}; YOLOV3_TRT_DATA names another place")
    return path.resolve()


@pytest.fixture(scope="session")
def coco_cfg(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The .cfg of one of COCO_MODELS by name, letterboxed, its weights and its names beside it."""
    folder = tmp_path_factory.mktemp("coco-models")
    for name in COCO_MODELS:
        text = (data / "models" / f"{name}.cfg").read_text()
        (folder / f"{name}.cfg").write_text(text.replace("momentum=0.949", "letter_box=1"))
        (folder / f"{name}.weights").symlink_to(data / "models" / f"{name}.weights")
        (folder / f"{name}.names").symlink_to(data / "models" / "coco.names")
    return lambda name: folder / f"{name}.cfg"


@pytest.fixture(scope="session")
def coco_model(coco_cfg: Callable[[str], Path]) -> Callable[[str], Model]:
    """One of COCO_MODELS by name."""
    return lambda name: load_model(coco_cfg(name))


@pytest.fixture(scope="session")
def fabricated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A .weights file of seeded random values for an architecture of the reference data, made once."""
    return _fabricator(data, data / "models", tmp_path_factory.mktemp("fabricated"))


@pytest.fixture
def fabricated_family(data: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The same for a cfg of the wider family, gone after the test: they are large together."""
    return _fabricator(data, data / "models" / "family", tmp_path)


def _fabricator(data: Path, cfgs: Path, folder: Path) -> Callable[[str], Path]:
    spec = importlib.util.spec_from_file_location("fabricate_weights", data / "goldens" / "fabricate_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(name: str) -> Path:
        path = folder / f"{name}.weights"
        if not path.exists():
            module.fabricate(cfgs / f"{name}.cfg", path)
        return path

    return make
