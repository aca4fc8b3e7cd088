"""What a build tells each release of TensorRT, by stand-ins that have the members of real ones; how a build is stopped."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_tensorrt import CANCELED, PLAN, FakeTensorRT, Layer, fake_tensorrt, timing_cache
from yolov3_trt.builder import build, progress
from yolov3_trt.builder.build import BuiltEngine, build_engine, estimated_build_s
from yolov3_trt.builder.progress import BuildState, Phases
from yolov3_trt.engine.driver import Gpu
from yolov3_trt.engine.flavor import BuildLog
from yolov3_trt.errors import BuildError, SettingError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import Batch, ModelMeta, Precision, load_engine_meta, save_sidecar, sidecar_path
from yolov3_trt.settings import EngineSettings, HardwareCompatibility, Refit
from yolov3_trt.spec import Head

RELEASES = ("8.6.1", "10.3.0", "10.13.3", "11.4.0")
GPU = Gpu("NVIDIA Orin (nvgpu)/1", (8, 7), (12, 6))


@pytest.fixture
def fake(data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTensorRT]:
    """Put a stand-in for a release in TensorRT's place, on a machine with a GPU."""

    def make(release: str, **settings: Any) -> FakeTensorRT:
        made = fake_tensorrt(data, release, **settings)
        monkeypatch.setattr(build, "open_flavor", lambda _: made.flavor)
        monkeypatch.setattr(build, "installed_gpu", lambda: GPU)
        monkeypatch.setattr(progress, "_TICK_S", 0.001)
        return made

    return make


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Path]:
    """A graph's file, which the stand-ins do not read, and its sidecar."""

    def make(precision: Precision = Precision.FP16, batch: Batch | None = None) -> Path:
        path = tmp_path / "m.onnx"
        path.write_bytes(b"a graph")
        heads = (Head("head0", 0, ((8.0, 8.0),), 1, (2, 2)),)
        sha256 = sha256_of_file(path)
        meta = ModelMeta("m", (64, 64), heads, ("thing",), batch or Batch(), precision, onnx_sha256=sha256)
        save_sidecar(meta, path)
        return path

    return make


def build_with(path: Path, progress: Any = None, **options: Any) -> BuiltEngine:
    return build_engine(path, path.with_suffix(".engine"), EngineSettings(**options), progress=progress)


def network_flags(fake: FakeTensorRT) -> set[str]:
    members = fake.module.NetworkDefinitionCreationFlag
    return {member.name for member in members if fake.network_flags >> member & 1}


# --- precision and batch ---


@pytest.mark.parametrize("release", RELEASES)
def test_a_graph_of_each_precision_is_built_by_its_own_types_or_the_flags_that_8_x_wants(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    weak = {Precision.FP32: [], Precision.FP16: ["FP16"], Precision.INT8: ["INT8"]}
    for precision, flags in weak.items():
        trt = fake(release)
        path = graph(precision)
        built = build_with(path)
        assert trt.flags == (flags if release == "8.6.1" else [])
        assert trt.cleared == ["TF32"], "float32 means float32"
        explicit = set() if release == "11.4.0" else {"EXPLICIT_BATCH"}
        assert network_flags(trt) == explicit | (set() if release == "8.6.1" else {"STRONGLY_TYPED"})
        assert path.with_suffix(".engine").read_bytes() == PLAN
        assert load_engine_meta(path.with_suffix(".engine")) == built.meta
        assert (built.meta.flavor, built.meta.flavor_version, built.meta.gpu) == ("tensorrt", release, GPU.name)
        assert built.meta.compute_capabilities == ("8.7",)
        assert (built.notes, built.dla) == ((), None)


def test_an_int8_graph_whose_rest_is_fp32_is_built_without_fp16(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    for layers, flags in (
        ([Layer("conv")], ["INT8"]),
        ([Layer("conv"), Layer("cast", "CAST", gives="HALF")], ["FP16", "INT8"]),
    ):
        trt = fake("8.6.1", layers=layers)
        build_with(graph(Precision.INT8))
        assert trt.flags == flags


@pytest.mark.parametrize("release", RELEASES)
def test_tf32_is_used_and_noted_only_when_asked_for(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    trt = fake(release)
    built = build_with(graph(), tf32=True)
    assert ("TF32" in trt.flags, trt.cleared, built.meta.tf32) == (True, [], True)
    assert build_with(graph()).meta.tf32 is False


@pytest.mark.parametrize("release", RELEASES)
def test_tensorrt_8_needs_no_cublas_and_shares_its_profile(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    trt = fake(release)
    build_with(graph(batch=Batch(1, 2, 8)))
    own = [1 << int(trt.module.TacticSource[name]) for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")]
    assert trt.tactics == (sum(own) if release == "8.6.1" else None)
    assert trt.previews == (["PROFILE_SHARING_0806"] if release == "8.6.1" else [])
    fixed = fake(release)
    build_with(graph())
    assert fixed.previews == []


@pytest.mark.parametrize("release", RELEASES)
def test_a_batch_that_varies_gets_a_profile(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    trt = fake(release)
    build_with(graph(batch=Batch(1, 2, 8)))
    assert trt.profile == ((1, 3, 64, 64), (2, 3, 64, 64), (8, 3, 64, 64))
    trt = fake(release)
    build_with(graph())
    assert trt.profile is None, "a fixed batch needs none"
    fake(release, takes_profile=False)
    with pytest.raises(BuildError, match=rf"m\.onnx: tensorrt {release} refuses batch 1:2:8 for this graph"):
        build_with(graph(batch=Batch(1, 2, 8)))


# --- options ---


@pytest.mark.parametrize("release", RELEASES)
def test_options_that_every_release_has_reach_it_and_the_sidecar(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    trt = fake(release)
    path = graph(Precision.FP32)
    options = EngineSettings(
        workspace_mib=2,
        optimization_level=5,
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
        version_compatible=True,
        refit=Refit.ALL,
    )
    built = build_engine(path, path.with_suffix(".engine"), options, inputs={"cfg": "123"})
    assert trt.pools == {"WORKSPACE": 2 * 1024 * 1024}
    assert trt.config.builder_optimization_level == 5
    assert trt.config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert trt.config.profiling_verbosity.name == "DETAILED"
    assert trt.flags == ["VERSION_COMPATIBLE", "REFIT"]
    assert (built.meta.hardware_compatibility, built.meta.version_compatible) == ("ampere_plus", True)
    assert built.meta.inputs == {"cfg": "123"}
    assert built.notes == ()


@pytest.mark.parametrize(
    "options, first, flags, text",
    [
        (
            {"refit": Refit.IDENTICAL, "strip_weights": True},
            "10.3.0",
            ["STRIP_PLAN", "REFIT_IDENTICAL"],
            "refit=identical: {} does not have BuilderFlag.REFIT_IDENTICAL; set none or all, or install a newer TensorRT",
        ),
        (
            {"refit": Refit.ALL, "strip_weights": True},
            "10.3.0",
            ["STRIP_PLAN", "REFIT"],
            "strip_weights=true: {} does not have BuilderFlag.STRIP_PLAN; leave it out, or install a newer TensorRT",
        ),
        (
            {"refit": Refit.INDIVIDUAL},
            "10.3.0",
            ["REFIT_INDIVIDUAL"],
            "refit=individual: {} does not have BuilderFlag.REFIT_INDIVIDUAL; set none or all, or install a newer TensorRT",
        ),
        (
            {"hardware_compatibility": HardwareCompatibility.SAME_COMPUTE_CAPABILITY},
            "10.13.3",
            [],
            "hardware_compatibility=same_compute_capability: {} does not have HardwareCompatibilityLevel."
            "SAME_COMPUTE_CAPABILITY; set none or ampere_plus, or install a newer TensorRT",
        ),
    ],
    ids=["identical", "stripped", "individual", "same_compute_capability"],
)
@pytest.mark.parametrize("release", RELEASES)
def test_options_that_a_release_lacks_are_refused_with_their_name_its_own_and_the_fix(
    release: str,
    options: dict[str, Any],
    first: str,
    flags: list[str],
    text: str,
    fake: Callable[..., FakeTensorRT],
    graph: Callable[..., Path],
):
    trt = fake(release, layers=[Layer("layers.0.conv")])
    if RELEASES.index(release) >= RELEASES.index(first):
        build_with(graph(Precision.FP32), **options)
        assert trt.flags == flags
        return
    with pytest.raises(BuildError) as caught:
        build_with(graph(), **options)
    assert str(caught.value) == text.format(trt)
    assert trt.config is None, "refused before anything was built"


def test_an_individual_refit_marks_weights_by_the_names_of_our_graphs(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    layers = [
        Layer("layers.0.conv"),
        Layer("layers.0.activation", "ACTIVATION"),
        Layer("layers.1.conv.weight.q", "CONSTANT"),
        Layer("layers.1.conv.weight.scale", "CONSTANT"),
        Layer("layers.1.conv", num_inputs=2),  # its kernel comes from the constant
    ]
    trt = fake("10.3.0", layers=layers)
    built = build_with(graph(), refit=Refit.INDIVIDUAL)
    assert trt.marked == ["layers.0.conv.bias", "layers.0.conv.weight", "layers.1.conv.weight.q", "layers.1.conv.bias"]
    assert built.notes == ("refit=individual: 4 weights and biases of convolutions are marked",)
    fake("10.3.0", layers=layers[1:2])
    with pytest.raises(BuildError, match="no convolution of this graph has weights that can be marked"):
        build_with(graph(), refit=Refit.INDIVIDUAL)


def test_the_full_tensorrt_takes_no_compute_capabilities(fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]):
    fake("10.3.0")
    with pytest.raises(
        SettingError, match="compute_capabilities: given with flavor tensorrt, which builds for the GPU that it finds"
    ):
        build_with(graph(), compute_capabilities=("8.6", "8.9"))


# --- failures ---


def test_a_graph_that_cannot_be_read_is_named_with_tensorrts_words(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], tmp_path: Path
):
    fake("10.3.0", parse_errors=("no importer for Foo", "and more"))
    with pytest.raises(
        BuildError, match=r"m\.onnx: tensorrt 10\.3\.0 cannot read this graph: no importer for Foo; and more"
    ):
        build_with(graph())
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.json"}


@pytest.mark.parametrize("release", RELEASES)
def test_a_builder_that_gives_nothing_is_an_error_with_its_last_words(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], tmp_path: Path
):
    trt = fake(release, plan=None)
    trt.during_build = lambda: (trt.say("odd", "WARNING"), trt.say("note", "INFO"), trt.say("Error Code 10: no kernel"))
    trt.say("of an earlier build")
    with pytest.raises(BuildError) as caught:
        build_with(graph())
    assert str(caught.value).endswith(f"m.onnx: tensorrt {release} did not build an engine: Error Code 10: no kernel")
    assert caught.value.log == ("odd", "Error Code 10: no kernel")
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.json"}


def test_what_the_building_thread_raises_comes_out_of_build_engine(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    trt = fake("10.3.0")

    def fail() -> None:
        raise MemoryError("on the other thread")

    trt.during_build = fail
    with pytest.raises(MemoryError, match="on the other thread"):
        build_with(graph())


def test_messages_from_several_threads_are_all_kept():
    log = BuildLog()

    def talk(thread: int) -> None:
        for number in range(500):
            log.add(logging.ERROR, f"{thread}.{number}")

    with log.recording() as recorded:
        threads = [threading.Thread(target=talk, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log.add(logging.ERROR, "afterwards")
    assert len(recorded) == 2000
    assert log.take_problems() == (*recorded, "afterwards")
    assert log.take_problems() == ()


# --- timing caches ---


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    return tmp_path / "timing"


def cache_file(folder: Path, release: str) -> Path:
    return folder / f"tensorrt-{release}-nvidia-orin-nvgpu-1-8.7.timing"


@pytest.mark.parametrize("release", RELEASES)
def test_a_timing_cache_is_made_and_then_added_to(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], caches: Path
):
    fake(release, timings=("conv 3x3",))
    assert build_with(graph(), timing_cache=caches).notes == ()
    assert cache_file(caches, release).read_bytes() == timing_cache("GPU 1", "conv 3x3")
    fake(release, timings=("conv 1x1",))
    assert build_with(graph(), timing_cache=caches).notes == ()
    assert cache_file(caches, release).read_bytes() == timing_cache("GPU 1", "conv 3x3", "conv 1x1")


def test_what_another_process_wrote_during_the_build_is_kept(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], caches: Path
):
    path = cache_file(caches, "10.3.0")
    caches.mkdir()
    path.write_bytes(timing_cache("GPU 1", "old"))
    trt = fake("10.3.0", timings=("ours",))
    trt.during_build = lambda: path.write_bytes(timing_cache("GPU 1", "old", "theirs"))
    build_with(graph(), timing_cache=caches)
    assert path.read_bytes() == timing_cache("GPU 1", "old", "ours", "theirs")


def test_a_cache_with_nothing_new_is_not_written(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], caches: Path
):
    fake("10.3.0", timings=("conv",))
    build_with(graph(), timing_cache=caches)
    before = cache_file(caches, "10.3.0").stat()
    build_with(graph(), timing_cache=caches)
    assert cache_file(caches, "10.3.0").stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    "content, junk_gives_empty_cache, text",
    [
        (b"junk", False, "refuses this timing cache (it is damaged or another TensorRT's or GPU's); it is replaced"),
        (
            b"junk",
            True,
            "says of this timing cache: Failed to deserialize timing cache. Returning an empty timing cache.",
        ),
        (
            timing_cache("GPU 2", "conv"),
            False,
            "refuses this timing cache (it is damaged or another TensorRT's or GPU's); it is replaced",
        ),
    ],
    ids=["damaged", "damaged and taken for empty", "another GPU's"],
)
def test_a_timing_cache_that_is_of_no_use_is_reported_and_replaced(
    content: bytes,
    junk_gives_empty_cache: bool,
    text: str,
    fake: Callable[..., FakeTensorRT],
    graph: Callable[..., Path],
    caches: Path,
):
    path = cache_file(caches, "8.6.1")
    caches.mkdir()
    path.write_bytes(content)
    trt = fake("8.6.1", timings=("conv",), junk_gives_empty_cache=junk_gives_empty_cache)
    assert build_with(graph(), timing_cache=caches).notes == (f"{path}: {trt} {text}",)
    assert path.read_bytes() == timing_cache("GPU 1", "conv")


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")
def test_a_timing_cache_that_others_could_have_written_is_not_loaded(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], caches: Path
):
    fake("10.3.0", timings=("conv",))
    path = cache_file(caches, "10.3.0")
    caches.mkdir()
    path.write_bytes(timing_cache("GPU 1", "theirs"))
    for place, mode in ((path, 0o666), (caches, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        fault = f"{path}: this timing cache may be another user's work: {place} can be written by every user; chmod o-w {place}"
        assert build_with(graph(), timing_cache=caches).notes == (f"{fault}; the build starts without it",)
        assert path.read_bytes() == timing_cache("GPU 1", "conv"), "what is built takes its place"
        place.chmod(before)
        path.write_bytes(timing_cache("GPU 1", "ours"))
    assert build_with(graph(), timing_cache=caches).notes == ()
    assert path.read_bytes() == timing_cache("GPU 1", "ours", "conv")


def test_a_timing_cache_that_cannot_be_read_or_written_does_no_harm(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], tmp_path: Path
):
    fake("10.3.0", timings=("conv",))
    (tmp_path / "file").write_text("")
    built = build_with(graph(), timing_cache=tmp_path / "file")
    assert built.meta.plan_bytes == len(PLAN)
    unread, unwritten = built.notes
    assert "this timing cache cannot be read (Not a directory); the build starts without it" in unread
    assert "the timing cache was not kept: " in unwritten


# --- DLA ---


@pytest.mark.parametrize("release", ["8.6.1", "10.3.0", "11.4.0"])
def test_a_dla_takes_what_it_can_and_the_rest_is_listed_with_tensorrts_reasons(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    reason = "layers.0.activation: ActivationLayer (with ActivationType = LEAKY_RELU) not supported for DLA."
    layers = [
        Layer("layers.0.conv", on_dla=True),
        Layer("layers.0.activation", "ACTIVATION", reason=reason),
        Layer("slope", "CONSTANT"),
        Layer("layers.1.conv", on_dla=True, reason="runs, but slowly"),
        Layer("layers.2.conv", on_dla=True),
        Layer("layers.3", "RESIZE"),
    ]
    trt = fake(release, num_dla_cores=2, layers=layers)
    built = build_with(graph(), dla_core=1)
    assert built.dla is not None
    assert built.dla.on_dla == ("layers.0.conv", "layers.1.conv", "layers.2.conv")
    assert built.dla.on_gpu == ("layers.0.activation", "layers.3")
    assert built.dla.reasons == {"layers.0.activation": reason}
    assert built.dla.num_transitions == 3
    assert built.notes == ("DLA core 1 takes 3 of 5 layers, the GPU the others; 3 changes between them",)
    assert (trt.config.default_device_type.name, trt.config.DLA_core) == ("DLA", 1)
    assert trt.flags == (["FP16", "GPU_FALLBACK"] if release == "8.6.1" else ["GPU_FALLBACK"])
    assert built.meta.dla_core == 1


@pytest.mark.parametrize(
    "cores, text",
    [(0, "finds no DLA cores here; leave it out to use the GPU"), (2, r"finds 2 DLA cores here; expected 0\.\.1")],
)
def test_a_dla_core_that_is_not_there_is_refused(
    cores: int, text: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    fake("10.3.0", num_dla_cores=cores)
    with pytest.raises(BuildError, match=rf"dla_core=2: tensorrt 10\.3\.0 {text}"):
        build_with(graph(), dla_core=2)


@pytest.mark.parametrize(
    "release, precision, batch, text",
    [
        ("10.3.0", Precision.FP32, Batch(), ": given with precision fp32; expected fp16 or int8"),
        ("10.3.0", Precision.FP16, Batch(1, 1, 4), ": given with batch 1:1:4; expected one size"),
        ("8.6.1", Precision.INT8, Batch(), r"a DLA takes no Q/DQ nodes, and this is tensorrt 8\.6\.1; export with"),
        ("10.3.0", Precision.INT8, Batch(), r"a DLA takes no Q/DQ nodes, and this is tensorrt 10\.3\.0; export with"),
    ],
)
def test_a_graph_of_which_nothing_would_run_on_a_dla_is_refused(
    release: str,
    precision: Precision,
    batch: Batch,
    text: str,
    fake: Callable[..., FakeTensorRT],
    graph: Callable[..., Path],
):
    fake(release, num_dla_cores=1)
    with pytest.raises((BuildError, SettingError), match=rf"dla_core.*{text}"):
        build_with(graph(precision, batch), dla_core=0)


def test_tensorrt_11_takes_an_int8_graph_to_a_dla(fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]):
    fake("11.4.0", num_dla_cores=1, layers=[Layer("layers.0.conv", on_dla=True)])
    assert build_with(graph(Precision.INT8), dla_core=0).dla.on_dla == ("layers.0.conv",)


# --- progress and cancellation ---


class Listener:
    """Keeps what it is told; `act` is called with the number of times it was told something."""

    def __init__(self, act: Callable[[int], None] = lambda _: None) -> None:
        self.states: list[BuildState] = []
        self.threads: set[threading.Thread] = set()
        self.act = act

    def update(self, state: BuildState) -> None:
        self.states.append(state)
        self.threads.add(threading.current_thread())
        self.act(len(self.states))


class Gate:
    """A build that goes on when it is let, or after a while, so that a fault cannot hang the tests."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self) -> None:
        assert self.event.wait(10), "the build was never let go on"


@pytest.mark.parametrize("release", RELEASES)
def test_progress_comes_on_the_calling_thread_with_time_and_what_the_release_reports(
    release: str, fake: Callable[..., FakeTensorRT], graph: Callable[..., Path]
):
    gate = Gate()
    fake(release, during_build=gate)
    listener = Listener(lambda count: gate.event.set() if count == 3 else None)
    path = graph()
    build_with(path, listener)
    assert listener.threads == {threading.current_thread()}
    assert len(listener.states) >= 4, "while it builds, and at its end"
    elapsed = [state.elapsed_s for state in listener.states]
    assert elapsed == sorted(elapsed) and elapsed[0] > 0
    assert {state.estimate_s for state in listener.states} == {None}
    assert listener.states[-1].fraction == (None if release == "8.6.1" else 1.0)
    estimate_s = estimated_build_s(path.with_suffix(".engine"))
    assert estimate_s is not None
    again = Listener()
    build_with(path, again)
    assert again.states[-1].estimate_s == estimate_s


def test_no_estimate_where_there_was_no_build(tmp_path: Path):
    engine = tmp_path / "m.engine"
    assert estimated_build_s(engine) is None
    for text in ("", "[]", "{}", '{"build_s": "long"}'):
        sidecar_path(engine).write_text(text)
        assert estimated_build_s(engine) is None
    sidecar_path(engine).write_text('{"build_s": 12}')
    assert estimated_build_s(engine) == 12.0


def test_the_share_done_counts_phases_within_phases():
    phases = Phases()
    assert phases.state() == (None, None)
    phases.start("all", None, 4)
    assert phases.state() == ("all", 0.0)
    phases.step("all", 0)
    phases.start("part", "all", 2)
    phases.step("part", 0)
    assert phases.state() == ("part", 1 / 4 + 1 / 4 / 2)
    phases.start("bit", "part", 0)  # a phase without steps, as TensorRT has some
    phases.step("bit", 0)
    phases.finish("bit")
    phases.step("part", 1)
    assert phases.state() == ("part", 2 / 4)
    phases.finish("part")
    assert phases.state() == ("all", 2 / 4), "it does not fall back before the step is reported that the part was"
    phases.step("all", 1)
    assert phases.state() == ("all", 2 / 4)
    phases.step("never started", 7)
    phases.finish("never started")
    assert phases.state() == ("all", 2 / 4)
    phases.finish("all")
    assert phases.state() == (None, 1.0)
    phases.start("once more", None, 2)
    assert phases.state() == ("once more", 0.0)


@pytest.mark.parametrize("release", RELEASES[1:])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_ctrl_c_or_a_fault_of_the_callback_stops_the_build_and_then_comes_out(
    release: str,
    error: type[BaseException],
    fake: Callable[..., FakeTensorRT],
    graph: Callable[..., Path],
    tmp_path: Path,
):
    trt = fake(release)
    told, seen = threading.Event(), threading.Event()
    start_phase = Phases.start

    def slow_start(self: Phases, *args: Any) -> None:
        start_phase(self, *args)
        told.set()
        assert seen.wait(10)

    def interrupt(_: int) -> None:
        if told.is_set():
            seen.set()
            if error is KeyboardInterrupt:
                signal.raise_signal(signal.SIGINT)  # what the terminal sends
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Phases, "start", slow_start)
        patch.setattr(Phases, "step", lambda self, name, step: not self._cancelled.wait(10))
        with pytest.raises(error):
            build_with(graph(), Listener(interrupt))
    assert trt.reported == ["step 0: False"], "the first step after it is the last"
    assert trt.flavor.log.take_problems() == (CANCELED,)
    assert not [thread for thread in threading.enumerate() if thread.name == "TensorRT build"]
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.json"}
    assert build_with(graph()).meta.plan_bytes == len(PLAN), "the next build is not stopped"


def test_tensorrt_8_cannot_be_stopped_so_it_is_left_behind(
    fake: Callable[..., FakeTensorRT], graph: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    gate = Gate()
    fake("8.6.1", during_build=gate)
    with pytest.raises(KeyboardInterrupt):
        build_with(graph(), Listener(lambda _: signal.raise_signal(signal.SIGINT)))
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "TensorRT build")
    assert thread.daemon, "it does not keep the program from ending"
    assert "tensorrt 8.6.1 cannot be stopped: it builds on, for nothing, until this program ends" in caplog.text
    gate.event.set()
    thread.join(10)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.json"}, "what it built is dropped"
