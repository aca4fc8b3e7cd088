"""Engines: built on the CPU by TensorRT-RTX; the full TensorRT's refusals where there is no GPU."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import COCO_MODELS, EACH_COCO_MODEL
from yolov3_trt.builder import build
from yolov3_trt.builder.build import build_engine
from yolov3_trt.engine.flavor import BuildLog, Flavor, installed_flavors
from yolov3_trt.errors import BuildError, MetaError, OutputError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import Batch, InputStage, OutputStage, Precision, load_engine_meta, sidecar_path
from yolov3_trt.models import Model, load_model
from yolov3_trt.settings import EngineSettings, FlavorName, GraphSettings

RTX = EngineSettings(FlavorName.TENSORRT_RTX)
needs_rtx = pytest.mark.skipif(
    FlavorName.TENSORRT_RTX not in installed_flavors(), reason="TensorRT-RTX is not installed (extra rtx)"
)

# Runtime.get_engine_validity of another process, printed as the mask of what is wrong. Without a driver a good plan gives
# 0 and junk gives MALFORMED_ENGINE.
VALIDITY = """
import sys, tensorrt_rtx_bindings as trt
runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
print(int(runtime.get_engine_validity(open(sys.argv[1], "rb").read())[1]))
"""
MALFORMED_ENGINE = 32


def validity_mask(plan: Path) -> int:
    result = subprocess.run([sys.executable, "-c", VALIDITY, str(plan)], capture_output=True, text=True, check=True)
    return int(result.stdout.split()[-1])


@pytest.fixture(scope="module")
def onnx_path(coco_model: Callable[[str], Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    return export(coco_model(COCO_MODELS[0]), path).path


def build_and_check(onnx: Path, engine: Path, batch: Batch, precision: Precision) -> int:
    """Build, check sidecar and plan; returns the size of the plan."""
    meta = build_engine(onnx, engine, RTX).meta
    assert load_engine_meta(engine) == meta
    assert (meta.flavor, meta.gpu, meta.model.precision, meta.model.batch) == ("tensorrt_rtx", None, precision, batch)
    assert meta.model.onnx_sha256 == sha256_of_file(onnx)
    assert meta.plan_bytes == engine.stat().st_size
    assert validity_mask(engine) & MALFORMED_ENGINE == 0
    return meta.plan_bytes


@needs_rtx
@pytest.mark.parametrize("name", EACH_COCO_MODEL)
@pytest.mark.parametrize("precision", [pytest.param(Precision.FP32, marks=pytest.mark.slow), Precision.FP16])
def test_real_models_build(name: str, precision: Precision, coco_model: Callable[[str], Model], tmp_path: Path):
    model = coco_model(name)
    onnx = export(model, tmp_path / "m.onnx", precision=precision).path
    build_and_check(onnx, tmp_path / "m.engine", Batch(), precision)


@needs_rtx
@pytest.mark.slow
def test_pixels_in_detections_out_with_a_dynamic_batch_builds(coco_model: Callable[[str], Model], tmp_path: Path):
    options = GraphSettings(Precision.FP16, Batch(1, 2, 4), InputStage.PIXELS, OutputStage.DETECTIONS)
    onnx = export(coco_model(COCO_MODELS[0]), tmp_path / "m.onnx", graph=options).path
    build_and_check(onnx, tmp_path / "m.engine", Batch(1, 2, 4), Precision.FP16)


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("batch", [Batch(), Batch(1, 4, 8)], ids=str)
def test_whole_frames_in_detections_out_builds(batch: Batch, tmp_path: Path):
    options = GraphSettings(Precision.FP16, batch, InputStage.PIXELS, OutputStage.DETECTIONS, frame_size=(720, 1280))
    onnx = export(load_model("shapes"), tmp_path / "m.onnx", graph=options).path
    build_and_check(onnx, tmp_path / "m.engine", batch, Precision.FP16)


@needs_rtx
def test_validity_tells_a_plan_from_junk(tmp_path: Path):
    junk = tmp_path / "junk.engine"
    junk.write_bytes(b"not a plan" * 100)
    assert validity_mask(junk) & MALFORMED_ENGINE


@needs_rtx
def test_a_graph_that_tensorrt_cannot_read_is_named_and_nothing_is_left(onnx_path: Path, tmp_path: Path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx_path.read_bytes()[:-1000])
    sidecar = json.loads(sidecar_path(onnx_path).read_text())
    sidecar_path(broken).write_text(json.dumps(sidecar | {"onnx_sha256": sha256_of_file(broken)}))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BuildError, match=r"broken\.onnx: tensorrt_rtx .* cannot read this graph: "):
        build_engine(broken, tmp_path / "broken.engine", RTX)
    assert sorted(tmp_path.iterdir()) == before


def test_a_graph_that_is_not_its_sidecars_is_refused(onnx_path: Path, tmp_path: Path):
    altered = tmp_path / "altered.onnx"
    altered.write_bytes(onnx_path.read_bytes() + b"\0")
    sidecar_path(altered).write_text(sidecar_path(onnx_path).read_text())
    with pytest.raises(MetaError, match=r"altered\.onnx: its SHA-256 is .* its sidecar expects"):
        build_engine(altered, tmp_path / "altered.engine", RTX)


@needs_rtx
def test_a_failed_build_keeps_the_engine_that_was_there(
    onnx_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = tmp_path / "m.engine"
    build_engine(onnx_path, engine, RTX)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise BuildError("out of luck")

    monkeypatch.setattr(build, "_build_plan", fail)
    with pytest.raises(BuildError, match="out of luck"):
        build_engine(onnx_path, engine, RTX)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_unwritable_place_is_refused_before_the_build(
    onnx_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "_build_plan", lambda *_: pytest.fail("built before the folder was tried"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.*cannot create this folder .*give a writable one"):
        build_engine(onnx_path, tmp_path / "file" / "m.engine", RTX)


# --- what differs between TensorRT versions: stand-ins with the enum members that a release really has ---


class Members:
    """An enum of TensorRT: each member is its position, so that a sum of bits names the members in it."""

    def __init__(self, names: list[str]) -> None:
        self.names = [name for name in names if name.isupper()]
        for value, name in enumerate(self.names):
            setattr(self, name, value)


@pytest.fixture
def flavor_of(data: Path) -> Callable[[str], Flavor]:
    def make(version: str) -> Flavor:
        table = json.loads((data / "tensorrt_api" / f"{version}.json").read_text())
        names = ("NetworkDefinitionCreationFlag", "BuilderFlag")
        module = SimpleNamespace(**{name: Members(table[name]) for name in names})
        return Flavor(FlavorName.TENSORRT, version, module, BuildLog())

    return make


@pytest.mark.parametrize(
    "version, network_flags, fp16_flags, int8_flags",
    [
        ("tensorrt-8.6.1", {"EXPLICIT_BATCH"}, {"FP16"}, {"INT8"}),
        ("tensorrt-10.3.0", {"EXPLICIT_BATCH", "STRONGLY_TYPED"}, set(), set()),
        ("tensorrt-10.13.3", {"EXPLICIT_BATCH", "STRONGLY_TYPED"}, set(), set()),
        ("tensorrt-11.4.0", {"STRONGLY_TYPED"}, set(), set()),
        ("tensorrt_rtx-1.7.1", {"STRONGLY_TYPED"}, set(), set()),
    ],
)
def test_precision_comes_from_the_graph_where_a_release_allows_it(
    version: str, network_flags: set, fp16_flags: set, int8_flags: set, flavor_of: Callable[[str], Flavor]
):
    flavor = flavor_of(version)
    flags = flavor.trt.NetworkDefinitionCreationFlag
    bits = build._network_flags(flavor)
    assert {name for name in flags.names if bits >> getattr(flags, name) & 1} == network_flags
    for precision, expected in [(Precision.FP32, set()), (Precision.FP16, fp16_flags), (Precision.INT8, int8_flags)]:
        config = SimpleNamespace(set=[])
        config.set_flag = config.set.append
        build._allow_weak_types(flavor, SimpleNamespace(num_layers=0), config, SimpleNamespace(precision=precision))
        assert {flavor.trt.BuilderFlag.names[value] for value in config.set} == expected


def test_a_tensorrt_without_a_gpu_says_what_to_do():
    log = BuildLog()

    def builder(_: object) -> None:
        log.add(logging.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    flavor = Flavor(FlavorName.TENSORRT, "8.6.0", SimpleNamespace(Builder=builder), log)
    with pytest.raises(BuildError) as caught:
        build._builder(flavor)
    assert str(caught.value) == (
        "tensorrt 8.6.0 cannot build here: CUDA initialization failure with error: 35; it needs an NVIDIA GPU and driver. "
        "TensorRT-RTX builds without (pip install 'yolov3-trt[rtx]', flavor tensorrt_rtx)"
    )
    assert caught.value.log == ("CUDA initialization failure with error: 35",)
