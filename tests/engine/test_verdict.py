"""Engines: which machine runs which, said before TensorRT sees a byte; and whose files are taken at all."""

import hashlib
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov3_trt.backends import open_backend
from yolov3_trt.cli import app
from yolov3_trt.engine import machine as machine_module
from yolov3_trt.engine import plan as plan_module
from yolov3_trt.engine.driver import Gpu
from yolov3_trt.engine.machine import InstalledFlavor, Machine, this_machine
from yolov3_trt.engine.plan import graph_beside, load_plan, why_untrusted
from yolov3_trt.engine.verdict import Verdict, verdict
from yolov3_trt.errors import DeviceError, EngineError, MetaError
from yolov3_trt.geometry import Resize
from yolov3_trt.meta import (
    Batch,
    EngineMeta,
    InputStage,
    ModelMeta,
    OutputStage,
    Precision,
    Preprocess,
    RowsLayout,
    save_sidecar,
    sidecar_path,
)
from yolov3_trt.runtime.kernels.cubin import load_cubin, save_cubin
from yolov3_trt.settings import FlavorName
from yolov3_trt.spec import Head

MODEL = ModelMeta("yolov3", (416, 416), (Head("head0", 0, ((8.0, 8.0),), 1, (13, 13)),), ("cat",))
PLAN = b"a plan"
RTX_3060 = Gpu("NVIDIA GeForce RTX 3060", (8, 6), (12, 6))
PC = Machine(
    "linux-x86_64",
    RTX_3060,
    (
        InstalledFlavor(FlavorName.TENSORRT, "10.3.0", 12),
        InstalledFlavor(FlavorName.TENSORRT_RTX, "1.7.1.116", 12),
    ),
)
ORIN = Machine(
    "linux-aarch64",
    Gpu("Orin", (8, 7), (12, 6)),
    (InstalledFlavor(FlavorName.TENSORRT, "10.3.0"),),
    num_dla_cores=2,
)
BUILT = EngineMeta(
    MODEL,
    plan_sha256=hashlib.sha256(PLAN).hexdigest(),
    plan_bytes=len(PLAN),
    flavor="tensorrt",
    flavor_version="10.3.0",
    platform="linux-x86_64",
    gpu=RTX_3060.name,
    compute_capabilities=("8.6",),
    build_s=1.0,
)
PORTABLE = replace(BUILT, flavor="tensorrt_rtx", flavor_version="1.7.1.116", gpu=None, compute_capabilities=())
REBUILD = "yolov3_trt build yolov3 --input-size 416 --precision fp32 --resize letterbox --flavor"


def with_gpu(name: str, major: int, minor: int, machine: Machine = PC) -> Machine:
    return replace(machine, gpu=Gpu(name, (major, minor), (12, 6)))


def with_tensorrt(version: str | None, machine: Machine = PC) -> Machine:
    return replace(machine, flavors=(InstalledFlavor(FlavorName.TENSORRT, version, 12),))


# --- verdicts ---


@pytest.mark.parametrize(
    "meta, machine",
    [
        (BUILT, PC),
        (PORTABLE, PC),
        (replace(PORTABLE, compute_capabilities=("7.5", "8.6")), PC),
        (PORTABLE, with_gpu("NVIDIA GeForce RTX 5090", 12, 0)),
        (replace(BUILT, platform="linux-aarch64", gpu="Orin", compute_capabilities=("8.7",), dla_core=1), ORIN),
    ],
)
def test_an_engine_runs_where_it_was_built_for(meta: EngineMeta, machine: Machine):
    assert verdict(meta, machine) == Verdict(True)
    assert str(verdict(meta, machine)) == "yes"


@pytest.mark.parametrize(
    "meta, machine, reason",
    [
        (replace(BUILT, platform="windows-amd64"), PC, "it is for windows-amd64, this is linux-x86_64"),
        (BUILT, with_tensorrt("10.3.1"), "it needs tensorrt 10.3.0 exactly, 10.3.1 is installed"),
        (PORTABLE, with_tensorrt("10.3.0"), "it needs tensorrt_rtx 1.7.1.116; tensorrt 10.3.0 is installed"),
        (BUILT, replace(PC, flavors=()), "it needs tensorrt 10.3.0; no TensorRT is installed"),
        (
            replace(BUILT, flavor="tensorrt_next"),
            PC,
            "it needs tensorrt_next 10.3.0; tensorrt 10.3.0, tensorrt_rtx 1.7.1.116 is installed",
        ),
        (
            BUILT,
            with_gpu("NVIDIA L4", 8, 9),
            "it is for GPUs of compute capability 8.6, this is NVIDIA L4 with 8.9",
        ),
        (
            replace(PORTABLE, compute_capabilities=("7.5", "8.9")),
            PC,
            "it is for GPUs of compute capability 7.5 or 8.9, this is NVIDIA GeForce RTX 3060 with 8.6",
        ),
        (
            PORTABLE,
            with_gpu("Tesla T4", 7, 5),
            "it is for GPUs of compute capability 8.0 (Ampere) and newer, this is Tesla T4 with 7.5",
        ),
        (
            replace(BUILT, dla_core=0),
            PC,
            "it is for the deep learning accelerator 0, this machine has none",
        ),
        (
            replace(BUILT, platform="linux-aarch64", compute_capabilities=("8.7",), dla_core=2),
            ORIN,
            "it is for the deep learning accelerator 2, this machine has 2",
        ),
    ],
)
def test_an_engine_of_elsewhere_does_not_run_and_says_why(meta: EngineMeta, machine: Machine, reason: str):
    found = verdict(meta, machine)
    assert (found.runs, found.reasons) == (False, (reason,))
    assert found.fix is not None and "yolov3_trt build yolov3 " in found.fix
    assert str(found) == f"no: {reason}; {found.fix}"


def test_all_that_differs_is_told_at_once():
    reasons = verdict(BUILT, with_gpu("Orin", 8, 7, with_tensorrt("8.6.1", ORIN))).reasons
    assert [reason.split()[2] for reason in reasons] == ["for", "tensorrt", "for"]


def test_a_machine_without_a_gpu_is_told_to_use_the_graph():
    bare = replace(PC, gpu=None)
    assert str(verdict(BUILT, bare)) == (
        "no: this machine shows no NVIDIA GPU and driver; run the graph that it was built from on the CPU: "
        "yolov3_trt detect MODEL.onnx IMAGES"
    )
    assert verdict(BUILT, bare, Path("my models/a.onnx")).fix.endswith("detect 'my models/a.onnx' IMAGES")


@pytest.mark.parametrize(
    "built, installed, compatible, runs",
    [
        ("10.3.0", "10.3.0", False, True),
        ("10.3.0", "10.3.0.26", False, True),  # JetPack names three numbers, pip four
        ("8.6.1", "8.6.1.post1", False, True),
        ("10.3.0.26", "10.3.0.30", False, False),
        ("10.3.0", "10.4.0", False, False),
        ("10.3.0", "10.13.2", True, True),  # 13 is more than 3
        ("10.13.2", "10.3.0", True, False),
        ("10.3.0", "10.3.0", True, True),
        ("10.3.0", "11.0.0", True, False),
        ("8.6.1", "10.3.0", True, False),
        ("dev", "dev", False, True),
        ("dev", "10.3.0", True, False),
    ],
)
def test_versions_must_be_equal_or_newer_of_the_same_major_where_the_plan_allows(
    built: str, installed: str, compatible: bool, runs: bool
):
    meta = replace(BUILT, flavor_version=built, version_compatible=compatible)
    assert verdict(meta, with_tensorrt(installed)).runs is runs


def test_no_plan_of_tensorrt_rtx_is_compatible_with_another_version():
    meta = replace(PORTABLE, flavor_version="1.7.0.1", version_compatible=True)
    assert verdict(meta, PC).reasons == ("it needs tensorrt_rtx 1.7.0.1 exactly, 1.7.1.116 is installed",)


@pytest.mark.parametrize(
    "compatibility, gpu, runs, cautious",
    [
        ("none", RTX_3060, True, False),
        ("none", Gpu("NVIDIA RTX A4000", (8, 6), (12, 6)), True, True),
        ("none", Gpu("NVIDIA L4", (8, 9), (12, 6)), False, False),
        ("same_compute_capability", Gpu("NVIDIA RTX A4000", (8, 6), (12, 6)), True, False),
        ("same_compute_capability", Gpu("NVIDIA L4", (8, 9), (12, 6)), False, False),
        ("ampere_plus", Gpu("NVIDIA L4", (8, 9), (12, 6)), True, False),
        ("ampere_plus", Gpu("NVIDIA H100", (9, 0), (12, 6)), True, False),
        ("ampere_plus", Gpu("Tesla T4", (7, 5), (12, 6)), False, False),
    ],
)
def test_hardware_compatibility_widens_the_gpus(compatibility: str, gpu: Gpu, runs: bool, cautious: bool):
    found = verdict(replace(BUILT, hardware_compatibility=compatibility), replace(PC, gpu=gpu))
    assert (found.runs, found.runs and bool(found.reasons)) == (runs, cautious)


@pytest.mark.parametrize(
    "meta, machine, caution",
    [
        (
            BUILT,
            with_gpu("NVIDIA RTX A4000", 8, 6),
            "it was tuned for NVIDIA GeForce RTX 3060, this is NVIDIA RTX A4000: it may be slow here",
        ),
        (
            PORTABLE,
            with_gpu("NVIDIA H100", 9, 0),
            "TensorRT-RTX's documents do not name compute capability 9.0 (NVIDIA H100): it may refuse the plan",
        ),
        (BUILT, with_tensorrt(None), "the installed tensorrt does not say its version, the engine needs 10.3.0"),
        (replace(BUILT, gpu=None, compute_capabilities=()), PC, "its sidecar does not say which GPUs it is for"),
    ],
)
def test_what_may_be_worse_or_is_not_known_is_a_caution(meta: EngineMeta, machine: Machine, caution: str):
    found = verdict(meta, machine)
    assert (found.runs, found.reasons) == (True, (caution,))
    flavor = "tensorrt_rtx" if meta is PORTABLE else "tensorrt"
    assert str(found) == f"yes, but {caution}; build it again here: {REBUILD} {flavor}"


def test_a_driver_older_than_tensorrts_cuda_is_not_cured_by_a_build():
    old = replace(PC, gpu=Gpu(RTX_3060.name, (8, 6), (11, 4)))
    found = verdict(BUILT, old)
    assert found.reasons == ("tensorrt here is made for CUDA 12, the driver supports CUDA 11.4 at most",)
    assert found.fix == "update the NVIDIA driver; `yolov3_trt doctor` shows what it supports"
    assert verdict(BUILT, replace(old, flavors=(InstalledFlavor(FlavorName.TENSORRT, "10.3.0"),))).runs


# --- the command to type ---


def test_the_command_starts_from_the_graph_where_it_is_at_hand():
    fix = verdict(BUILT, with_tensorrt("10.4.0"), Path("my engines/a.onnx")).fix
    assert fix == "build it again here: yolov3_trt build 'my engines/a.onnx' --flavor tensorrt"


@pytest.mark.parametrize(
    "machine, fix",
    [
        (with_tensorrt("10.4.0"), f"build it again here: {REBUILD} tensorrt"),
        (
            replace(PC, flavors=PC.flavors[1:]),
            f"build it again here: {REBUILD} tensorrt_rtx",
        ),
        (
            replace(PC, flavors=()),
            f"install TensorRT (pip install 'yolov3-trt[tensorrt]'), then build it again here: {REBUILD} tensorrt",
        ),
        (
            # TensorRT-RTX alone does not help a GPU that is too old for its portable plans
            replace(with_gpu("Tesla T4", 7, 5), flavors=PC.flavors[1:]),
            f"install TensorRT (pip install 'yolov3-trt[tensorrt]'), then build it again here: {REBUILD} tensorrt",
        ),
        (
            replace(ORIN, flavors=()),
            "install JetPack's TensorRT (sudo apt install tensorrt python3-libnvinfer), then build it again: "
            f"{REBUILD} tensorrt",
        ),
    ],
)
def test_the_fix_is_a_build_with_a_tensorrt_that_fits_the_machine(machine: Machine, fix: str):
    assert verdict(BUILT, machine).fix == fix


def test_every_command_is_one_that_the_command_line_takes():
    build = typer.main.get_command(app).commands["build"]
    full = replace(
        MODEL,
        name="my net",
        input_hw=(320, 608),
        batch=Batch(1, 2, 4),
        precision=Precision.INT8,
        input_stage=InputStage.PIXELS,
        frame_hw=(720, 1280),
        output_stage=OutputStage.ROWS,
        rows_layout=RowsLayout.CHANNELS_FIRST,
        preprocess=Preprocess(Resize.STRETCH),
        opset=19,
    )
    for model, path in ((MODEL, None), (full, None), (full, Path("my net.onnx"))):
        words = shlex.split(verdict(replace(BUILT, model=model), with_tensorrt("9.0"), path).fix.partition(": ")[2])
        assert words[:2] == ["yolov3_trt", "build"]
        given = build.make_context("build", words[2:]).params
        assert given["source"] == (str(path) if path else "yolov3" if model is MODEL else "my net.cfg")
        assert given["flavor"] == "tensorrt"
    words = shlex.split(verdict(replace(BUILT, model=full), with_tensorrt("9.0")).fix.partition(": ")[2])
    given = build.make_context("build", words[2:]).params
    names = ("input_size", "precision", "batch", "input_stage", "frame_size", "output_stage", "rows_layout")
    names = (*names, "opset", "resize")
    assert [given[name] for name in names] == [
        "608x320",
        "int8",
        "1:2:4",
        "pixels",
        "1280x720",
        "rows",
        "channels_first",
        19,
        "stretch",
    ]


# --- arbitrary sidecars ---

TEXT = st.one_of(
    st.sampled_from(["tensorrt", "tensorrt_rtx", "10.3.0", "8.6", "linux-x86_64", "ampere_plus", ""]), st.text()
)


@settings(deadline=None, max_examples=300)
@given(
    texts=st.lists(TEXT, min_size=4, max_size=4),
    gpu=st.one_of(st.none(), TEXT),
    capabilities=st.lists(TEXT, max_size=2),
    compatible=st.booleans(),
    dla_core=st.one_of(st.none(), st.integers()),
    machine=st.sampled_from([PC, ORIN, replace(PC, gpu=None), replace(PC, flavors=()), with_tensorrt("x")]),
)
def test_any_sidecar_gets_a_verdict(texts, gpu, capabilities, compatible, dla_core, machine):
    flavor, version, platform, hardware = texts
    meta = EngineMeta(
        MODEL, "", 0, flavor, version, platform, gpu, tuple(capabilities), 0.0, hardware, compatible, dla_core
    )
    found = verdict(meta, machine)
    assert (found.fix is None) == (not found.reasons) and (found.runs or found.reasons)
    if found.runs:
        assert flavor in ("tensorrt", "tensorrt_rtx") and platform == machine.platform


# --- this machine ---


def make_package(folder: Path, module: str, source: str, distribution: str, requires: str = "") -> None:
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(source)
    info = folder / f"{distribution}-10.3.0.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {distribution}", "Version: 10.3.0.26"]
    (info / "METADATA").write_text("\n".join([*lines, *([f"Requires-Dist: {requires}"] if requires else [])]) + "\n")


def test_an_installed_tensorrt_is_described_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = "raise RuntimeError('imported')\n__version__ = '10.3.0'\n"
    make_package(tmp_path, "tensorrt", source, "tensorrt", "tensorrt_cu12==10.3.0.26")
    monkeypatch.syspath_prepend(tmp_path)
    found = this_machine()
    assert found.flavor("tensorrt") == InstalledFlavor(FlavorName.TENSORRT, "10.3.0", 12)
    assert "tensorrt" not in sys.modules


def test_a_version_that_the_source_does_not_state_is_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_package(tmp_path, "tensorrt", "from .version import *\n", "tensorrt")
    monkeypatch.syspath_prepend(tmp_path)
    assert this_machine().flavor("tensorrt") == InstalledFlavor(FlavorName.TENSORRT, "10.3.0.26", None)


@pytest.mark.parametrize("metadata", [b"", b"\xff\xfe", None])
def test_a_package_with_damaged_metadata_has_no_version(
    metadata: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_package(tmp_path, "tensorrt", "", "tensorrt")
    record = tmp_path / "tensorrt-10.3.0.dist-info" / "METADATA"
    record.unlink() if metadata is None else record.write_bytes(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    assert this_machine().flavor("tensorrt") == InstalledFlavor(FlavorName.TENSORRT, None, None)


def test_this_machine_knows_the_tensorrt_rtx_that_is_installed():
    rtx = this_machine().flavor("tensorrt_rtx")
    if rtx is None:
        pytest.skip("TensorRT-RTX is not installed (extra rtx)")
    code = "import tensorrt_rtx_bindings as trt; print(trt.__version__)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert rtx.version == printed.strip() and rtx.cuda_major in (12, 13)


@pytest.mark.parametrize(
    "nodes, cores",
    [
        ([], 0),
        (["nvhost-ctrl-nvdla0", "nvhost-ctrl-nvdla1"], 2),
        (["nvhost-nvdla0", "nvhost-ctrl-nvdla0"], 1),  # JetPack 4 has both for each
        (["nvhost-ctrl-gpu", "nvhost-nvdec1"], 0),
    ],
)
def test_deep_learning_accelerators_are_counted_by_their_nodes(
    nodes: list[str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for node in nodes:
        (tmp_path / node).touch()
    monkeypatch.setattr(machine_module, "Path", lambda _: tmp_path)
    assert machine_module._num_dla_cores() == cores


# --- from a file to bytes ---


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o755)
    path = folder / "net.engine"
    path.write_bytes(PLAN)
    path.chmod(0o644)
    save_sidecar(BUILT, path)
    return path


def test_a_plan_that_runs_here_is_read(engine: Path):
    plan = load_plan(engine, machine=PC)
    assert (plan.path, plan.meta, plan.content, plan.verdict) == (engine, BUILT, PLAN, Verdict(True))


@pytest.mark.parametrize("content", [PLAN[:-1], PLAN + b"!", b"A plan", b""])
def test_a_truncated_or_altered_plan_is_refused(engine: Path, content: bytes):
    engine.write_bytes(content)
    with pytest.raises(MetaError, match=r"net\.engine: its SHA-256 is .*: the file was altered, cut short or belongs"):
        load_plan(engine, machine=PC)


def test_a_plan_without_its_sidecar_or_with_anothers_is_refused(engine: Path):
    other = engine.with_name("other.engine")
    other.write_bytes(b"another plan")
    with pytest.raises(MetaError, match=r"other\.engine: its sidecar other\.engine\.json is not beside it"):
        load_plan(other, machine=PC)
    sidecar_path(other).write_bytes(sidecar_path(engine).read_bytes())
    with pytest.raises(MetaError, match=r"other\.engine: its SHA-256 is .*belongs to another sidecar"):
        load_plan(other, machine=PC)
    engine.unlink()
    with pytest.raises(MetaError, match=r"net\.engine: there is no such file"):
        load_plan(engine, machine=PC)


@pytest.mark.parametrize("how", ["written", "replaced"])
def test_what_is_loaded_is_what_was_compared_with_the_sidecar(engine: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    def verdict_and_change(*args: object) -> Verdict:
        (engine if how == "written" else engine.with_suffix(".new")).write_bytes(b"b plan")
        if how == "replaced":
            engine.with_suffix(".new").replace(engine)
        return Verdict(True)

    monkeypatch.setattr(plan_module, "verdict", verdict_and_change)
    assert load_plan(engine, machine=PC).content == PLAN


def test_an_engine_of_elsewhere_is_refused_with_the_command_that_cures_it(engine: Path):
    engine.with_suffix(".onnx").touch()
    assert graph_beside(engine) == engine.with_suffix(".onnx")
    with pytest.raises(EngineError) as caught:
        load_plan(engine, machine=with_tensorrt("10.4.0"))
    assert str(caught.value) == (
        f"{engine}: cannot run here: it needs tensorrt 10.3.0 exactly, 10.4.0 is installed; build it again here: "
        f"yolov3_trt build {engine.with_suffix('.onnx')} --flavor tensorrt"
    )


def test_a_backend_is_refused_before_any_tensorrt_is_loaded(engine: Path):
    save_sidecar(replace(BUILT, platform="amiga-m68k"), engine)
    code = (
        "import sys\nfrom yolov3_trt.backends import open_backend\nfrom yolov3_trt.errors import EngineError\n"
        "try: open_backend(sys.argv[1])\nexcept EngineError as exc: print(exc)\n"
        "print({'tensorrt', 'tensorrt_rtx_bindings', 'torch', 'onnx'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(engine)], capture_output=True, text=True, check=True)
    error, loaded = result.stdout.splitlines()
    assert error.startswith(f"{engine}: cannot run here: ") and loaded == "set()"
    with pytest.raises(EngineError, match="cannot run here"):
        open_backend(engine)


# --- whose files are taken ---

posix = pytest.mark.skipif(os.name != "posix", reason="file permissions of POSIX")
ANOTHER = 4242  # a user and a group that nobody here is


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make a file another user's; returns whose. Without root's rights, this user becomes another instead."""
    if os.geteuid() == 0:
        os.chown(path, ANOTHER, -1)
        return ANOTHER
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: ANOTHER)
    return owner


@posix
def test_a_file_and_folder_that_only_the_owner_writes_are_trusted(engine: Path):
    assert why_untrusted(engine) is None
    engine.chmod(0o400)
    assert why_untrusted(engine) is None


@posix
@pytest.mark.parametrize("mode", [0o646, 0o666, 0o602])
def test_a_plan_that_everyone_can_write_is_refused_unless_trusted(engine: Path, mode: int):
    engine.chmod(mode)
    with pytest.raises(EngineError) as caught:
        load_plan(engine, machine=PC)
    assert str(caught.value) == (
        f"{engine}: {engine} can be written by every user, and an engine is executable content; expected a file and a folder "
        "that only you or root can write to. If you know that this engine is yours, load it with trust=True, or: "
        f"chmod o-w {engine}"
    )
    assert load_plan(engine, machine=PC, trust=True).content == PLAN
    subprocess.run(str(caught.value).partition(" trust=True, or: ")[2], shell=True, check=True)
    if mode != 0o666:  # then the group may still be one that has members
        assert load_plan(engine, machine=PC).content == PLAN


@posix
def test_a_folder_that_everyone_can_write_is_refused_unless_it_is_sticky(engine: Path):
    engine.parent.chmod(0o757)
    assert (why_untrusted(engine) or "").startswith(f"{engine.parent} can be written by every user, ")
    engine.parent.chmod(0o1757)  # as /tmp
    assert why_untrusted(engine) is None


@posix
def test_a_plan_or_folder_of_another_user_is_refused(engine: Path, monkeypatch: pytest.MonkeyPatch):
    owner = give_away(engine, monkeypatch)
    text = why_untrusted(engine) or ""
    assert text.startswith(f"{engine} belongs to the user ") and "neither to you nor to root, " in text
    assert text.endswith(f": sudo chown {os.geteuid()} {engine}")
    assert owner != os.geteuid() and load_plan(engine, machine=PC, trust=True).content == PLAN


@posix
def test_a_plan_of_root_is_trusted_by_everyone(engine: Path, monkeypatch: pytest.MonkeyPatch):
    if os.geteuid() != 0:
        pytest.skip("needs root's rights")
    monkeypatch.setattr(os, "geteuid", lambda: ANOTHER)
    assert why_untrusted(engine) is None


@posix
@pytest.mark.parametrize("through", ["file", "folder"])
def test_a_link_is_as_good_as_both_of_its_ends(engine: Path, tmp_path: Path, through: str):
    link = tmp_path / "here.engine"
    link.symlink_to(engine)
    assert why_untrusted(link) is None
    (engine if through == "file" else tmp_path).chmod(0o777)
    weak = engine if through == "file" else tmp_path
    assert (why_untrusted(link) or "").startswith(f"{weak} can be written by every user")


@posix
def test_all_folders_above_links_on_the_way_and_the_sidecar_count_too(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deep = tmp_path / "above" / "own"
    deep.mkdir(parents=True)
    moved = deep / engine.name
    for path in (engine, sidecar_path(engine)):
        path.rename(deep / path.name)
    assert why_untrusted(moved) is None
    deep.parent.chmod(0o777)
    assert (why_untrusted(moved) or "").startswith(f"{deep.parent} can be written by every user")
    deep.parent.chmod(0o755)
    sidecar_path(moved).chmod(0o666)
    assert (why_untrusted(moved) or "").startswith(f"{sidecar_path(moved)} can be written by every user")
    sidecar_path(moved).chmod(0o644)
    (tmp_path / "hop").mkdir()
    (tmp_path / "hop" / "l").symlink_to(deep)
    (tmp_path / "l").symlink_to("hop/l")
    assert why_untrusted(tmp_path / "l" / moved.name) is None
    (tmp_path / "hop").chmod(0o777)  # a folder that only a link in the middle goes through
    assert (why_untrusted(tmp_path / "l" / moved.name) or "").startswith(f"{tmp_path / 'hop'} can be written by every")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        why_untrusted(tmp_path / "round")


@posix
def test_compiled_kernels_that_others_could_have_put_there_are_not_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "cache" / "sm_87.cubin"
    save_cubin(path, b"kernels")
    assert path.parent.stat().st_mode & 0o777 == 0o700 and load_cubin(path) == b"kernels"
    path.parent.chmod(0o777)
    with pytest.raises(DeviceError, match="can be written by every user"):
        load_cubin(path)
    assert "these compiled kernels are not loaded" in caplog.text


@posix
def test_a_group_may_write_only_where_it_is_the_owners_own(engine: Path, monkeypatch: pytest.MonkeyPatch):
    import grp
    import pwd

    uid, gid = engine.stat().st_uid, engine.stat().st_gid
    owner = SimpleNamespace(pw_name="ada", pw_uid=uid, pw_gid=gid)
    other = SimpleNamespace(pw_name="eve", pw_uid=ANOTHER, pw_gid=ANOTHER)
    engine.chmod(0o664)  # the default of Ubuntu's users

    def verdict_with(users: list[SimpleNamespace], members: list[str], group: int = gid) -> bool:
        monkeypatch.setattr(pwd, "getpwuid", lambda number: {user.pw_uid: user for user in users}[number])
        monkeypatch.setattr(pwd, "getpwall", lambda: users)
        monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_name="team", gr_mem=members))
        return why_untrusted(engine) is None

    assert verdict_with([owner, other], [])
    assert verdict_with([owner, other], ["ada"])
    assert not verdict_with([owner, other], ["ada", "eve"])
    assert (why_untrusted(engine) or "").startswith(f"{engine} can be written by the group team, ")
    other.pw_gid = gid  # a member by being its primary group
    assert not verdict_with([owner, other], [])
    owner.pw_gid, other.pw_gid = ANOTHER, ANOTHER  # a group that is not the owner's primary one
    assert not verdict_with([owner, other], [])
    assert not verdict_with([], []), "a user without an entry, as in a container"
