"""Real builds by TensorRT-RTX on the CPU: options, how they are stopped, what they leave behind; and disk and memory."""

import logging
import shutil
import signal
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fake_tensorrt import CANCELED
from yolov3_trt.builder import progress, resources
from yolov3_trt.builder.build import BuiltEngine, build_engine
from yolov3_trt.builder.progress import BuildState
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.engine.flavor import installed_flavors, open_flavor
from yolov3_trt.errors import BuildError, EngineError, MissingDependency, SettingError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import ModelMeta, Precision, load_engine_meta, save_sidecar
from yolov3_trt.runtime.inspector import layer_report, layers_from_json
from yolov3_trt.settings import EngineSettings, FlavorName, HardwareCompatibility, Refit
from yolov3_trt.spec import Head

RTX = FlavorName.TENSORRT_RTX
needs_rtx = pytest.mark.skipif(RTX not in installed_flavors(), reason="TensorRT-RTX is not installed (extra rtx)")
no_gpu = pytest.mark.skipif(installed_gpu() is not None, reason="this machine has a GPU, and it works there")
NUM_CONVS = 12


@pytest.fixture
def onnx_path(tmp_path: Path) -> Path:
    """A chain of convolutions with leaky activations, named as this package names them, and its sidecar."""
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "images"
    for index in range(NUM_CONVS):
        name, output = f"layers.{index}", "head0" if index == NUM_CONVS - 1 else f"layers.{index}.activation"
        shape = (8, 3 if index == 0 else 8, 3, 3)
        weights.append(numpy_helper.from_array(random.normal(0, 0.1, shape).astype(np.float32), f"{name}.conv.weight"))
        weights.append(numpy_helper.from_array(random.normal(0, 0.1, 8).astype(np.float32), f"{name}.conv.bias"))
        inputs = [value, f"{name}.conv.weight", f"{name}.conv.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}.conv"], f"{name}.conv", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("LeakyRelu", [f"{name}.conv"], [output], f"{name}.activation", alpha=0.1))
        value = output
    images, head = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 32, 32])
        for name, channels in (("images", 3), ("head0", 8))
    )
    graph = helper.make_graph(nodes, "chain", [images], [head], weights)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    heads = (Head("head0", 0, ((8.0, 8.0),), 3, (32, 32)),)
    save_sidecar(ModelMeta("m", (32, 32), heads, ("a", "b", "c"), onnx_sha256=sha256_of_file(path)), path)
    return path


def build_with(path: Path, progress: Any = None, **options: Any) -> BuiltEngine:
    return build_engine(path, path.with_suffix(".engine"), EngineSettings(RTX, **options), progress=progress)


# --- options ---


@needs_rtx
def test_options_are_accepted_and_the_one_without_effect_is_noted(onnx_path: Path):
    built = build_with(onnx_path, workspace_mib=512, optimization_level=5)
    (note,) = built.notes
    assert note == (
        f"optimization_level=5: tensorrt_rtx {built.meta.flavor_version} accepts it and builds the same plan at every level"
    )
    same = build_with(onnx_path, workspace_mib=512)
    assert same.notes == ()
    assert same.meta.plan_sha256 == built.meta.plan_sha256, "the note is true"
    assert built.dla is None


@needs_rtx
def test_a_plan_for_two_compute_capabilities_says_so_and_differs(onnx_path: Path):
    built = build_with(onnx_path, compute_capabilities=("8.6", "12.0"))
    assert built.meta.compute_capabilities == ("8.6", "12.0")
    assert load_engine_meta(onnx_path.with_suffix(".engine")) == built.meta
    default = build_with(onnx_path).meta
    assert default.compute_capabilities == ()
    assert default.plan_sha256 != built.meta.plan_sha256


@needs_rtx
@pytest.mark.parametrize("capability", ["9.0", "99.9"])
def test_an_unknown_compute_capability_is_refused_with_those_it_knows(capability: str, onnx_path: Path):
    with pytest.raises(
        BuildError, match=rf"does not know {capability}; it knows 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1$"
    ):
        build_with(onnx_path, compute_capabilities=("8.6", capability))


@needs_rtx
@pytest.mark.parametrize(
    "options, text",
    [
        (
            {"timing_cache": Path("timing")},
            "timing_cache: given with flavor tensorrt_rtx, which times no kernels when it builds; leave it out",
        ),
        (
            {"hardware_compatibility": HardwareCompatibility.AMPERE_PLUS},
            "hardware_compatibility: given with flavor tensorrt_rtx, which builds for Ampere and newer, .*; leave it out",
        ),
        (
            {"version_compatible": True},
            "version_compatible: given with flavor tensorrt_rtx, which has no plans for other versions",
        ),
        (
            {"dla_core": 0},
            "dla_core: given with flavor tensorrt_rtx, which has no deep learning accelerators; leave it out, or set",
        ),
    ],
    ids=["timing_cache", "hardware_compatibility", "version_compatible", "dla_core"],
)
def test_what_rtx_would_ignore_is_refused(options: dict[str, Any], text: str, onnx_path: Path, tmp_path: Path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingError, match=text):
        build_with(onnx_path, **options)
    assert sorted(tmp_path.iterdir()) == before


@needs_rtx
@no_gpu
@pytest.mark.parametrize(
    "options", [{"refit": Refit.ALL}, {"refit": Refit.IDENTICAL, "strip_weights": True}, {"refit": Refit.INDIVIDUAL}]
)
def test_plans_for_a_refit_are_tried_and_fail_without_a_gpu_in_tensorrts_words(
    options: dict[str, Any], onnx_path: Path
):
    with pytest.raises(
        BuildError, match=r"did not build an engine: .*Myelin.* \(tensorrt_rtx \S+ needs a GPU to"
    ) as caught:
        build_with(onnx_path, **options)
    assert any("MyelinCheckException" in line for line in caught.value.log)


# --- progress and Ctrl-C ---


class Listener:
    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.states: list[BuildState] = []
        self.act = act

    def update(self, state: BuildState) -> None:
        self.states.append(state)
        self.act()


@needs_rtx
def test_a_build_reports_its_phases(onnx_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "_TICK_S", 0.001)
    listener = Listener()
    build_with(onnx_path, listener)
    phases = {state.phase for state in listener.states}
    assert len(phases - {None}) >= 2, phases
    fractions = [state.fraction for state in listener.states if state.fraction is not None]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert 0 <= fractions[0] < 1  # the first look may come before the first step


@needs_rtx
def test_ctrl_c_stops_a_build_and_leaves_nothing_but_what_was_there(
    onnx_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "_TICK_S", 0.001)
    first = build_with(onnx_path).meta
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        build_with(onnx_path, Listener(lambda: signal.raise_signal(signal.SIGINT)))
    problems = open_flavor(RTX).log.take_problems()
    assert any("BuildCanceled" in problem for problem in problems), problems
    assert CANCELED.partition(" (")[0] in problems[-1], "the stand-ins say what TensorRT says"
    assert not [thread for thread in threading.enumerate() if thread.name == "TensorRT build"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert build_with(onnx_path).meta.plan_sha256 == first.plan_sha256, "a build after it is not stopped"


# --- disk and memory ---

Usage = namedtuple("Usage", "total used free")


@needs_rtx
@pytest.mark.parametrize("precision", list(Precision))
def test_a_real_plan_is_no_larger_than_the_estimate(precision: Precision, onnx_path: Path):
    built = build_with(onnx_path)
    assert built.meta.plan_bytes < resources.plan_bytes_needed(onnx_path.stat().st_size, precision)


def test_the_estimates_hold_for_what_was_measured():
    # MB of graph, plan and growth of the process, TensorRT-RTX 1.7.1: YOLOv3 and -tiny at 416, yolo-fastest-1.1, shapes.
    measured = [
        (Precision.FP32, 247.7, 248.9, 842),
        (Precision.FP16, 123.9, 125.4, 474),
        (Precision.INT8, 62.2, 72.8, 378),
        (Precision.FP32, 35.4, 36.0, 192),
        (Precision.FP16, 17.7, 18.6, 157),
        (Precision.INT8, 8.9, 11.0, 136),
        (Precision.FP16, 0.99, 4.12, 130),
        (Precision.INT8, 0.47, 16.25, 202),
        (Precision.INT8, 1.06, 20.38, 207),
        (Precision.FP32, 2.05, 3.02, 98),
        (Precision.INT8, 0.57, 6.13, 133),
        (Precision.FP16, 1.39, 4.11, 148),  # whole frames in, detections out, a batch that varies
    ]
    for precision, onnx_mb, plan_mb, memory_mb in measured:
        plan_bytes = resources.plan_bytes_needed(int(onnx_mb * 1e6), precision)
        memory_bytes = resources.memory_bytes_needed(int(onnx_mb * 1e6), precision)
        assert plan_mb * 1e6 < plan_bytes < plan_mb * 1e6 + 32e6
        assert memory_mb * 1e6 < memory_bytes < memory_mb * 1e6 + 175e6


@needs_rtx
def test_a_disk_without_room_is_refused_with_both_numbers(
    onnx_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 2_000_000, 2_000_000))
    with pytest.raises(BuildError) as caught:
        build_with(onnx_path)
    assert str(caught.value) == (
        f"{onnx_path.with_suffix('.engine')}: 2 MB are free on this disk; the engine may need 8 MB: make room, or give a place "
        "on another disk with path="
    )
    assert sorted(tmp_path.iterdir()) == before


@needs_rtx
def test_little_memory_is_noted(onnx_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "free_memory_bytes", lambda: 50_000_000)
    (note,) = build_with(onnx_path).notes
    assert note.startswith(
        "50 MB of memory are free, this build may need 200 MB: if it is killed, close other programs or "
    )
    monkeypatch.setattr(resources, "free_memory_bytes", lambda: None)
    assert build_with(onnx_path).notes == (), "a system that does not say is not suspected"


def test_free_memory_counts_swap_and_a_containers_limit(tmp_path: Path):
    assert resources.free_memory_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    meminfo = tmp_path / "proc/meminfo"
    meminfo.write_text("MemTotal:       4000 kB\nHugePages_Total:       0\n")
    assert resources.free_memory_bytes(tmp_path) is None, "a kernel before 3.14"
    meminfo.write_text("MemTotal:  4000 kB\nMemFree:   100 kB\nMemAvailable:    1000 kB\nSwapFree:  500 kB\n")
    assert resources.free_memory_bytes(tmp_path) == 1500 * 1024
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    for name, text in (("max", "max\n"), ("current", "700000\n"), ("stat", "anon 1\ninactive_file 300000\nfile 2\n")):
        (cgroup / f"memory.{name}").write_text(text)
    assert resources.free_memory_bytes(tmp_path) == 1500 * 1024, "a container without a limit"
    (cgroup / "memory.max").write_text("1000000\n")
    assert resources.free_memory_bytes(tmp_path) == 600_000, "the cache of files is given back when needed"
    assert (resources.free_memory_bytes() or 1) > 0


# --- the inspector ---


@needs_rtx
@no_gpu
def test_a_layer_report_needs_a_gpu_and_says_so(onnx_path: Path):
    build_with(onnx_path)
    with pytest.raises(EngineError, match=r"m\.engine: .*this machine shows no NVIDIA GPU and driver"):
        layer_report(onnx_path.with_suffix(".engine"))


def test_layers_are_read_from_reports_of_any_verbosity():
    detailed = '{"Layers": [{"Name": "conv", "LayerType": "CaskConvolution"}], "Bindings": ["images"]}'
    assert layers_from_json(detailed, Path("m.engine")) == [{"Name": "conv", "LayerType": "CaskConvolution"}]
    assert layers_from_json('{"Layers": ["conv", "pool"]}', Path("m.engine")) == [{"Name": "conv"}, {"Name": "pool"}]
    for text in ("", "[]", "{}", "not json"):
        with pytest.raises(EngineError, match=r"m\.engine: TensorRT's inspector gave no list of layers but "):
            layers_from_json(text, Path("m.engine"))


# --- what is installed but does not load ---


def test_a_tensorrt_whose_libraries_do_not_load_is_told_from_one_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    from yolov3_trt.engine import flavor

    def fail(*_: object) -> None:
        raise ImportError("libcublas.so.12: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr("importlib.import_module", fail)
    flavor._load.cache_clear()
    cause = r"tensorrt is installed, but does not import \(ImportError: libcublas\.so\.12: cannot open"
    with pytest.raises(MissingDependency, match=cause):
        open_flavor(FlavorName.TENSORRT)
    flavor._load.cache_clear()


def test_messages_go_to_logging_but_only_when_asked_for(caplog: pytest.LogCaptureFixture):
    from yolov3_trt.engine.flavor import BuildLog

    log = BuildLog()
    with caplog.at_level(logging.DEBUG, logger="yolov3_trt"):
        log.add(logging.ERROR, "no kernel")
        log.add(logging.DEBUG, "a note")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", "no kernel"),
        ("DEBUG", "a note"),
    ]
    assert log.take_problems() == ("no kernel",)
