"""Where the kernels' machine code comes from: shipped for each GPU, kept, or compiled; and that it is of these sources."""

import ctypes
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fake_pycuda import FakeLibCuda, FakePycuda
from yolov3_trt.errors import DeviceError
from yolov3_trt.runtime.cuda import CudaDevice
from yolov3_trt.runtime.kernels import compilers, cubin
from yolov3_trt.runtime.kernels import shipped as shipped_module
from yolov3_trt.runtime.kernels.compilers import by_nvcc, by_nvrtc
from yolov3_trt.runtime.kernels.cubin import PTX, cubin_path, default_cache, module_of_kernels
from yolov3_trt.runtime.kernels.shipped import KEY, shipped, shipped_names
from yolov3_trt.runtime.kernels.source import KERNELS, source_sha256
from yolov3_trt.runtime.libcuda import LibCuda

ROOT = Path(__file__).parents[2]
PASCAL, ORIN, VERA = (6, 1), (8, 7), (13, 0)


def arch_of(code: bytes) -> str:
    """What the ELF header of a cubin says: the flags' first byte, or from CUDA 12.8's ABI on their second."""
    assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == 190  # EM_CUDA
    flags = int.from_bytes(code[48:52], "little")
    return f"sm_{flags & 0xFF if code[8] < 8 else flags >> 8 & 0xFF}"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container for running: no nvcc, no g++, no NVRTC."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(compilers, "_NVCC", "/nowhere/nvcc")
    monkeypatch.setattr(compilers, "_libraries", lambda: iter(["/nowhere/libnvrtc.so.12"]))


def test_the_shipped_code_is_of_these_sources():
    made_of = shipped_module._members()[KEY].decode()
    assert made_of == source_sha256(), (
        "the kernels' sources or options changed: run `make kernels` and commit the archive"
    )
    assert set(shipped_names()) == {PTX, *(f"sm_{arch}" for arch in (75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121))}
    assert f"\n.target sm_{PTX[8:]}\n".encode() in shipped(PTX) and shipped(PTX).endswith(b"\0")
    # -fmad=false: a product that may be fused with a sum has no rounding of its own in PTX.
    assert b"mul.rn.f32" in shipped(PTX) and b"mul.f32" not in shipped(PTX)


@pytest.mark.parametrize("arch", [name for name in shipped_names() if name != PTX])
def test_without_a_compiler_each_gpu_gets_its_own_code(
    arch: str, no_compiler: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake = FakePycuda()
    fake.install(monkeypatch)
    fake.compute_capability = divmod(int(arch[3:]), 10)
    with CudaDevice(cache=tmp_path, libcuda=LibCuda(FakeLibCuda())) as device:
        device.load_kernels()
    (code,) = fake.loaded
    assert arch_of(code) == arch and all(name.encode() in code for name in KERNELS)
    assert not list(tmp_path.iterdir())
    # What CUDA 12.8 and later make is of an ABI that the driver of JetPack 6 (CUDA 12.6) refuses.
    assert code[8] == 7 or int(arch[3:]) > 90


class Driver:
    """Loads code, but not what it refuses."""

    def __init__(self, *refused: bytes) -> None:
        self.refused, self.loaded = refused, list[bytes]()

    def load(self, code: bytes) -> bytes:
        if code in self.refused:
            raise DeviceError("device kernel image is invalid")
        self.loaded.append(code)
        return code


@pytest.fixture
def compilers_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """nvcc and NVRTC that compile, and which of them did."""
    done: list[str] = []

    def compiler(name: str) -> Callable[[str], bytes]:
        def compile_(arch: str) -> bytes:
            done.append(name)
            return f"{arch} by {name}, {len(done)}".encode()

        return compile_

    for name in ("by_nvcc", "by_nvrtc"):
        monkeypatch.setattr(cubin, name, compiler(name))
    return done


def test_the_places_are_asked_in_order(compilers_run: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    own, ptx, by_nvcc_ = shipped("sm_87"), shipped(PTX), b"sm_87 by by_nvcc, 1"
    assert module_of_kernels(Driver().load, ORIN, tmp_path) == own
    assert module_of_kernels(Driver().load, PASCAL, tmp_path) == module_of_kernels(Driver().load, VERA, tmp_path) == ptx
    assert module_of_kernels(Driver(own).load, ORIN, tmp_path) == ptx
    assert not compilers_run and not list(tmp_path.iterdir())
    for _ in range(2):  # then it is kept
        assert module_of_kernels(Driver(own, ptx).load, ORIN, tmp_path) == by_nvcc_
    assert compilers_run == ["by_nvcc"] and [path.name[:6] for path in tmp_path.iterdir()] == ["sm_87-"]
    caplog.set_level(logging.INFO)
    assert module_of_kernels(Driver(own, ptx, by_nvcc_, b"sm_87 by by_nvcc, 2").load, ORIN, tmp_path).endswith(
        b"nvrtc, 3"
    )
    assert "kernels for sm_87: by NVRTC" in caplog.messages
    assert "kernels, kept ones: device kernel image is invalid" in caplog.messages


@pytest.mark.parametrize("damage", [lambda file: file[:-1], lambda file: b"", lambda file: b"X" + file[1:]])
def test_damaged_kept_code_is_compiled_again(
    compilers_run: list[str], tmp_path: Path, damage: Callable[[bytes], bytes]
):
    refusing = Driver(shipped("sm_87"), shipped(PTX))
    module_of_kernels(refusing.load, ORIN, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    for _ in range(2):
        module_of_kernels(refusing.load, ORIN, tmp_path)
    assert [code[-1:] for code in refusing.loaded] == [b"1", b"2", b"2"] and path.read_bytes() != damage(whole)


def test_a_cache_that_cannot_be_written_costs_time_only(
    compilers_run: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("")
    assert module_of_kernels(Driver(shipped("sm_87"), shipped(PTX)).load, ORIN, tmp_path / "file").endswith(b"nvcc, 1")
    assert "the compiled kernels are not kept" in caplog.text


def test_kernels_of_another_gpu_or_source_lie_elsewhere_and_are_not_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    paths = {cubin_path(tmp_path, ORIN), cubin_path(tmp_path, PASCAL)}
    for module in (cubin, shipped_module):
        monkeypatch.setattr(module, "source_sha256", lambda: "another")
    assert cubin_path(tmp_path, ORIN) not in paths and len(paths) == 2
    with pytest.raises(DeviceError, match="made of other sources"):
        shipped("sm_87")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_cache() == Path("/cache/yolov3_trt/kernels")


def test_a_user_without_a_home_has_a_cache_too(monkeypatch: pytest.MonkeyPatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert default_cache().parts[-2:] == (f"yolov3_trt-{os.getuid()}", "kernels")


def test_without_any_the_error_says_why_of_each_place(
    no_compiler: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "damaged.xz").write_bytes(b"no archive")
    monkeypatch.setattr(shipped_module, "ARCHIVE", tmp_path / "damaged.xz")
    shipped_module._members.cache_clear()
    try:
        with pytest.raises(DeviceError) as caught:
            module_of_kernels(Driver().load, ORIN, tmp_path)
    finally:
        shipped_module._members.cache_clear()
    text = str(caught.value)
    assert text.startswith(f"no compiled kernels for sm_87: the package's own: {tmp_path}/damaged.xz cannot be read (")
    assert (
        f"kept ones: {cubin_path(tmp_path, ORIN)} is not there; by nvcc: it is not installed or not on PATH; " in text
    )
    assert text.endswith("by NVRTC: it is not installed; pip install nvidia-cuda-nvrtc-cu12")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_nvcc_compiles_or_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert arch_of(by_nvcc("sm_90")) == "sm_90"
    with pytest.raises(DeviceError, match=r"nvcc does not compile .*kernels.cu: nvcc fatal .*sm_30"):
        by_nvcc("sm_30")
    (tmp_path / "nvcc").write_text("no program")
    (tmp_path / "nvcc").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"nvcc cannot be run \(.*Exec format error.*reinstall the CUDA toolkit"):
        by_nvcc("sm_87")


@pytest.mark.slow
def test_made_again_the_code_is_the_same_to_the_byte():
    spec = importlib.util.spec_from_file_location("kernels", ROOT / ".ci" / "kernels.py")
    assert spec is not None and spec.loader is not None
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    assert {arch for archs in kernels.MADE_BY.values() for arch in archs} == set(shipped_names())
    package = next(package for package, archs in kernels.MADE_BY.items() if "sm_87" in archs)
    assert kernels.compile_with(package, "sm_87", ROOT / ".venv-kernels") == shipped("sm_87")


def test_nvrtc_of_a_wheel_is_found_the_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"):
        (tmp_path / "nvidia" / name).parent.mkdir(parents=True)
        (tmp_path / "nvidia" / name).write_bytes(b"no library")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for module in [name for name in sys.modules if name == "nvidia"]:
        monkeypatch.delitem(sys.modules, module)
    assert [path.rpartition(".so.")[2] for path in compilers._libraries()][:2] == ["12", "13"]


class Nvrtc:
    """As much of an NVRTC as says no to a GPU that it does not know."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*args: object) -> int:
            if name == "nvrtcGetProgramLogSize":
                args[1]._obj.value = 40  # type: ignore[attr-defined]
            if name == "nvrtcGetProgramLog":
                args[1].value = b"invalid value for --gpu-architecture"  # type: ignore[attr-defined]
            return 5 if name == "nvrtcCompileProgram" else 0

        return call


def test_an_nvrtc_that_does_not_know_the_gpu_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilers, "_libraries", lambda: iter(["old.so"]))
    monkeypatch.setattr(ctypes, "CDLL", lambda path: Nvrtc())
    with pytest.raises(DeviceError, match=r"^old.so: invalid value for --gpu-architecture$"):
        by_nvrtc("sm_121")
