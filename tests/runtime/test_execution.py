"""How plans are loaded and run with each release of TensorRT, by stand-ins that have the members of real ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fake_tensorrt import FakeTensorRT, fake_tensorrt
from tests.sim.cuda_device import SimulatedCuda
from yolov3_trt.engine.plan import Plan
from yolov3_trt.engine.verdict import Verdict
from yolov3_trt.errors import EngineError
from yolov3_trt.meta import EngineMeta, ModelMeta
from yolov3_trt.runtime import execution
from yolov3_trt.runtime.execution import IOTensor, TensorRTEngine, check_tensors
from yolov3_trt.settings import FlavorName
from yolov3_trt.spec import Head

RELEASES = [(FlavorName.TENSORRT, version) for version in ("8.6.1", "10.3.0", "10.13.3", "11.4.0")]
RTX = (FlavorName.TENSORRT_RTX, "1.7.1")
TENSORS = (
    ("images", "INPUT", "FLOAT", (-1, 3, 64, 64)),
    ("head0", "OUTPUT", "HALF", (-1, 6, 2, 2)),
    ("count", "OUTPUT", "BOOL", (-1,)),
)


@pytest.fixture(params=[*RELEASES, RTX], ids=lambda release: f"{release[0].value} {release[1]}")
def release(request: pytest.FixtureRequest) -> tuple[FlavorName, str]:
    return request.param


@pytest.fixture
def fake(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., FakeTensorRT]:
    """Put a stand-in for a release in TensorRT's place."""

    def make(release: tuple[FlavorName, str], **settings: Any) -> FakeTensorRT:
        made = fake_tensorrt(data, release[1], name=release[0], tensors=TENSORS, **settings)
        monkeypatch.setattr(execution, "open_flavor", lambda name: made.flavor if name is release[0] else None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return made

    return make


def plan_of(fake: FakeTensorRT, **changes: Any) -> Plan:
    heads = (Head("head0", 0, ((8.0, 8.0),), 1, (2, 2)),)
    meta = EngineMeta(
        model=ModelMeta("m", (64, 64), heads, ("thing",)),
        plan_sha256="ab" * 32,
        plan_bytes=4,
        flavor=fake.name.value,
        flavor_version=fake.version,
        platform="linux-x86_64",
        gpu=None,
        compute_capabilities=(),
        build_s=1.0,
    )
    return Plan(Path("m.engine"), replace(meta, **changes), b"plan", Verdict(runs=True))


def test_inputs_and_outputs_are_told(release: tuple[FlavorName, str], fake: Callable[..., FakeTensorRT]):
    with SimulatedCuda() as device:
        engine = TensorRTEngine(plan_of(fake(release)), device)
        assert engine.tensors == (
            IOTensor("images", True, "float32", (-1, 3, 64, 64)),
            IOTensor("head0", False, "float16", (-1, 6, 2, 2)),
            IOTensor("count", False, "BOOL", (-1,)),
        )
        engine.close()


def test_a_run_gets_shapes_addresses_and_the_stream(release: tuple[FlavorName, str], fake: Callable[..., FakeTensorRT]):
    made = fake(release)
    with SimulatedCuda() as device:
        engine = TensorRTEngine(plan_of(made), device)
        run, stream = engine.execution(), device.stream()
        run.set_input_shape("images", (2, 3, 64, 64))
        run.set_address("images", 0x1000)
        run.set_address("head0", 0x2000)
        run.enqueue(stream)
        expected = {"addresses": {"images": 0x1000, "head0": 0x2000}, "shapes": {"images": (2, 3, 64, 64)}}
        assert made.runs == [{**expected, "stream": stream.handle}]
        run.close()
        run.close()
        engine.close()
        engine.close()


def test_a_plan_may_bring_code_only_where_its_sidecar_says_so_and_runs_on_its_dla(fake: Callable[..., FakeTensorRT]):
    made = fake(RELEASES[1])
    with SimulatedCuda() as device:
        TensorRTEngine(plan_of(made), device)
        assert made.runtime.engine_host_code_allowed is False
        TensorRTEngine(plan_of(made, version_compatible=True, dla_core=1), device)
        assert (made.runtime.engine_host_code_allowed, made.runtime.DLA_core) == (True, 1)


@pytest.mark.parametrize(
    "member, text",
    [
        ("deserialize_cuda_engine", "does not load this plan: {}; build it again here"),
        ("create_execution_context", "makes no execution context: {}; is there enough GPU memory?"),
        ("set_input_shape", r"refuses the shape \(9, 3, 64, 64\) of images: {}"),
        ("set_tensor_address", "refuses the address 0x10 of images: {}"),
        ("execute_async_v3", "refuses to run: {}"),
    ],
)
def test_what_tensorrt_refuses_is_an_error_with_its_reason(
    member: str, text: str, release: tuple[FlavorName, str], fake: Callable[..., FakeTensorRT]
):
    made = fake(release, refuses=frozenset({member}))
    words = text.format(f"Error Code 1: {member} cannot be done")
    with SimulatedCuda() as device, pytest.raises(EngineError, match=f"m.engine: {made} {words}"):
        engine = TensorRTEngine(plan_of(made), device)
        run = engine.execution()
        run.set_input_shape("images", (9, 3, 64, 64))
        run.set_address("images", 0x10)
        run.enqueue(device.stream())


def test_only_tensorrt_rtx_captures_by_itself(release: tuple[FlavorName, str], fake: Callable[..., FakeTensorRT]):
    with SimulatedCuda() as device:
        engine = TensorRTEngine(plan_of(fake(release)), device)
        assert (engine.why_not_captured is not None) == (release == RTX)


def test_an_engine_that_nobody_closes_is_freed_before_its_device(fake: Callable[..., FakeTensorRT]):
    device = SimulatedCuda()
    engine = TensorRTEngine(plan_of(fake(RELEASES[0])), device)
    run, loaded = engine.execution(), engine._loaded
    del engine
    assert loaded.engine is None and not loaded.executions
    assert run._context is None
    device.close()


def test_an_engine_closes_after_its_device_has_failed(fake: Callable[..., FakeTensorRT]):
    device = SimulatedCuda()
    engine = TensorRTEngine(plan_of(fake(RTX)), device)
    device.close()
    engine.close()
    assert engine._loaded.engine is None


def test_what_tensorrt_rtx_compiles_is_kept_for_the_next_start(
    fake: Callable[..., FakeTensorRT], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    made = fake(RTX)
    with SimulatedCuda() as device:
        TensorRTEngine(plan_of(made), device).close()
        (path,) = (tmp_path / "cache").rglob("*.cache")
        assert path.name == f"{'ab' * 8}-sm_87-1.7.1.cache"
        assert path.read_bytes() == b"compiled"
        written = path.stat().st_mtime_ns
        engine = TensorRTEngine(plan_of(made), device)
        assert engine.execution() is not None
        engine.close()
        assert path.stat().st_mtime_ns == written  # nothing new
        path.write_bytes(b"of another driver")
        with caplog.at_level("INFO"):
            TensorRTEngine(plan_of(made), device).close()
        assert "of another driver or machine" in caplog.text
        assert path.read_bytes() == b"compiled"


def test_a_cache_that_cannot_be_kept_is_only_a_warning(
    fake: Callable[..., FakeTensorRT], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with SimulatedCuda() as device:
        TensorRTEngine(plan_of(fake(RTX)), device).close()
    assert "what TensorRT-RTX compiled is not kept" in caplog.text


def test_inputs_and_outputs_must_be_those_of_the_sidecar():
    image, head = IOTensor("images", True, "float32", (1, 3, 4, 4)), IOTensor("head0", False, "float32", (1, 6, 2, 2))
    expected = {"images": image, "head0": head}
    check_tensors((head, image), expected, Path("m.engine"))
    with pytest.raises(EngineError, match=r"m.engine: the engine has images; its sidecar says images, head0; build it"):
        check_tensors((image,), expected, Path("m.engine"))
    wide = replace(head, dtype="float16")
    with pytest.raises(
        EngineError, match=r"the engine has IOTensor\(name='head0'.*float16.*its sidecar says .*float32"
    ):
        check_tensors((image, wide), expected, Path("m.engine"))
