"""A device for each test, and an engine for all the tests of its case."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance import target
from acceptance.cases import ACCEPTANCE, WORK, Case, load_cases, work_folder
from acceptance.on_device import OnDevice
from yolov3_trt.backends.trt import TensorRTBackend
from yolov3_trt.runtime.device import Device


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a `case` for each engine of the work folder; without one it is skipped."""
    if "case" not in metafunc.fixturenames:
        return
    work = work_folder()
    if work is None:
        reason = f"{WORK} names no folder of engines: make gpu-test makes one"
        metafunc.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))], ids=["none"], scope="module")
    else:
        metafunc.parametrize("case", load_cases(work), ids=lambda case: case.name, scope="module")


@pytest.fixture(autouse=True, scope="session")
def a_gpu() -> None:
    """Skips all tests where nothing can run; in the acceptance, which is about a GPU, they fail."""
    reason = target.why_not()
    if reason is not None:
        (pytest.fail if os.environ.get(ACCEPTANCE) else pytest.skip)(reason)


@pytest.fixture
def device(a_gpu: None) -> Iterator[Device]:
    with target.open_device() as opened:
        yield opened


@pytest.fixture
def on_device(device: Device) -> OnDevice:
    return OnDevice(device)


@pytest.fixture(scope="module")
def work() -> Path:
    folder = work_folder()
    assert folder is not None  # else the tests that want it are skipped
    return folder


@pytest.fixture(scope="module")
def runtime(a_gpu: None, case: Case, work: Path) -> Iterator[TensorRTBackend]:
    """The engine of a case, open for all the tests with it."""
    opened = target.open_runtime(case, work, target.open_device())
    with opened:
        yield opened
