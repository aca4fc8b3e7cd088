"""Whether a machine can run an engine, judged from the engine's sidecar: TensorRT is not loaded and sees no plan.

NVIDIA's rules, as far as a sidecar can tell:

- A plan belongs to the TensorRT that built it: the family, and its exact version. A version compatible plan also runs in
  newer versions of the same major number.
- A plan belongs to an operating system and an architecture.
- A plan of the full TensorRT belongs to a compute capability, and is tuned for one GPU model. Built with
  `hardware_compatibility`, it is for all of Ampere and newer, or for all models of the compute capability.
- A plan of TensorRT-RTX is for the compute capabilities in its list, or without one for Ampere and newer.
- A plan for a deep learning accelerator needs one.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.arguments import size_text
from yolov3_trt.engine.driver import Gpu
from yolov3_trt.engine.machine import InstalledFlavor, Machine
from yolov3_trt.meta import DEFAULT_OPSET, EngineMeta, InputStage, ModelMeta, OutputStage, Precision
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.settings import FlavorName, HardwareCompatibility

_AMPERE = (8, 0)
# Those that TensorRT-RTX's documents name; a plan for Ampere and newer may or may not run on others, such as 8.7 and 9.0.
_RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))


@dataclass(frozen=True)
class Verdict:
    """Whether a plan runs on a machine."""

    runs: bool
    reasons: tuple[str, ...] = ()  # why it does not; or where it does, what speaks against leaving it so
    fix: str | None = None  # what to do and the command for it; None where there is no reason

    def __str__(self) -> str:
        if not self.reasons:
            return "yes"
        answer = "yes, but" if self.runs else "no:"
        return "; ".join(filter(None, [f"{answer} {'; '.join(self.reasons)}", self.fix]))


def verdict(meta: EngineMeta, machine: Machine, onnx_path: Path | None = None) -> Verdict:
    """Judge whether a machine can run a plan.

    Args:
        meta: the plan's sidecar.
        machine: see `this_machine`.
        onnx_path: the graph it was built from, where that is at hand: the commands then start from it.
    """
    if machine.gpu is None:
        graph = shlex.quote(str(onnx_path)) if onnx_path else "MODEL.onnx"
        fix = f"run the graph that it was built from on the CPU: yolov3_trt detect {graph} IMAGES"
        return Verdict(False, ("this machine shows no NVIDIA GPU and driver",), fix)
    faults = (*_wrong_place(meta, machine), *_wrong_tensorrt(meta, machine), *_wrong_gpu(meta, machine.gpu))
    if faults:
        return Verdict(False, faults, _rebuild(meta, machine, machine.gpu, onnx_path))
    driver_fault = _old_driver(machine.flavor(meta.flavor), machine.gpu)
    if driver_fault:
        return Verdict(False, (driver_fault,), "update the NVIDIA driver; `yolov3_trt doctor` shows what it supports")
    cautions = tuple(_cautions(meta, machine, machine.gpu))
    return Verdict(True, cautions, _rebuild(meta, machine, machine.gpu, onnx_path) if cautions else None)


def build_command(model: ModelMeta, flavor: FlavorName, onnx_path: Path | None = None) -> str:
    """What to type to build an engine: from the graph where it is at hand, else from the model that the sidecar names."""
    if onnx_path is not None:
        return shlex.join(["yolov3_trt", "build", str(onnx_path), "--flavor", flavor.value])
    options = {"--input-size": size_text(model.input_hw), "--precision": model.precision.value}
    if model.precision is Precision.INT8:
        options["--table"] = "TABLE.json"
    if str(model.batch) != "1":
        options["--batch"] = str(model.batch)
    if model.input_stage is not InputStage.TENSOR:
        options["--input-stage"] = model.input_stage.value
    if model.frame_hw is not None:
        options["--frame-size"] = size_text(model.frame_hw)
    if model.output_stage is not OutputStage.HEADS:
        options["--output-stage"] = model.output_stage.value
    if model.rows_layout is not None:
        options["--rows-layout"] = model.rows_layout.value
    if model.opset not in (None, DEFAULT_OPSET):
        options["--opset"] = str(model.opset)
    options |= {"--resize": model.preprocess.resize.value, "--flavor": flavor.value}
    name = model.name if model.name in BUILT_IN else f"{model.name}.cfg"
    return shlex.join(["yolov3_trt", "build", name, *(word for option in options.items() for word in option)])


def _wrong_place(meta: EngineMeta, machine: Machine) -> Iterator[str]:
    if meta.platform != machine.platform:
        yield f"it is for {meta.platform}, this is {machine.platform}"
    if meta.dla_core is not None and meta.dla_core >= machine.num_dla_cores:
        found = machine.num_dla_cores or "none"
        yield f"it is for the deep learning accelerator {meta.dla_core}, this machine has {found}"


def _wrong_tensorrt(meta: EngineMeta, machine: Machine) -> Iterator[str]:
    needed, installed = f"{meta.flavor} {meta.flavor_version}", machine.flavor(meta.flavor)
    if installed is None:
        others = ", ".join(f"{other.name.value} {other.version or ''}".strip() for other in machine.flavors)
        yield f"it needs {needed}; {others or 'no TensorRT'} is installed"
    elif installed.version is None or _same_version(meta.flavor_version, installed.version):
        pass  # what is not known is a caution
    elif not (meta.version_compatible and meta.flavor == FlavorName.TENSORRT):
        yield f"it needs {needed} exactly, {installed.version} is installed"
    elif not _newer_of_same_major(meta.flavor_version, installed.version):
        yield f"it needs {needed} or newer of the same major version, {installed.version} is installed"


def _wrong_gpu(meta: EngineMeta, gpu: Gpu) -> Iterator[str]:
    capability = "{}.{}".format(*gpu.compute_capability)
    here = f"this is {gpu.name} with {capability}"
    listed = " or ".join(meta.compute_capabilities)
    if meta.flavor == FlavorName.TENSORRT_RTX and not listed:
        if gpu.compute_capability < _AMPERE:
            yield f"it is for GPUs of compute capability 8.0 (Ampere) and newer, {here}"
    elif _is_for_ampere_plus(meta):
        if gpu.compute_capability < _AMPERE:
            yield f"it was made for compute capability 8.0 (Ampere) and newer, {here}"
    elif listed and capability not in meta.compute_capabilities:
        yield f"it is for GPUs of compute capability {listed}, {here}"


def _old_driver(installed: InstalledFlavor | None, gpu: Gpu) -> str | None:
    if installed is None or installed.cuda_major is None or installed.cuda_major <= gpu.driver_cuda[0]:
        return None
    newest = "{}.{}".format(*gpu.driver_cuda)
    return f"{installed.name.value} here is made for CUDA {installed.cuda_major}, the driver supports CUDA {newest} at most"


def _cautions(meta: EngineMeta, machine: Machine, gpu: Gpu) -> Iterator[str]:
    installed = machine.flavor(meta.flavor)
    if installed is not None and installed.version is None:
        yield f"the installed {meta.flavor} does not say its version, the engine needs {meta.flavor_version}"
    if meta.flavor == FlavorName.TENSORRT_RTX:
        if not meta.compute_capabilities and gpu.compute_capability not in _RTX_CAPABILITIES:
            capability = "{}.{}".format(*gpu.compute_capability)
            yield f"TensorRT-RTX's documents do not name compute capability {capability} ({gpu.name}): it may refuse the plan"
    elif meta.hardware_compatibility == HardwareCompatibility.NONE and meta.gpu is not None and meta.gpu != gpu.name:
        yield f"it was tuned for {meta.gpu}, this is {gpu.name}: it may be slow here"
    elif not meta.compute_capabilities:
        yield "its sidecar does not say which GPUs it is for"


def _rebuild(meta: EngineMeta, machine: Machine, gpu: Gpu, onnx_path: Path | None) -> str:
    """What makes a plan that this machine runs."""
    usable = [flavor.name for flavor in machine.flavors if _builds_for(flavor.name, gpu)]
    if usable:
        flavor = next((name for name in usable if name.value == meta.flavor), usable[0])
        return f"build it again here: {build_command(meta.model, flavor, onnx_path)}"
    command = build_command(meta.model, FlavorName.TENSORRT, onnx_path)
    if machine.platform == "linux-aarch64":
        return (
            f"install JetPack's TensorRT (sudo apt install tensorrt python3-libnvinfer), then build it again: {command}"
        )
    return f"install TensorRT (pip install 'yolov3-trt[tensorrt]'), then build it again here: {command}"


def _builds_for(flavor: FlavorName, gpu: Gpu) -> bool:
    """Whether a flavor's own default is a plan for this GPU."""
    return flavor is not FlavorName.TENSORRT_RTX or gpu.compute_capability >= _AMPERE


def _is_for_ampere_plus(meta: EngineMeta) -> bool:
    return meta.flavor == FlavorName.TENSORRT and meta.hardware_compatibility == HardwareCompatibility.AMPERE_PLUS


def _same_version(a: str, b: str) -> bool:
    """Equal as far as both say: JetPack's `10.3.0` and pip's `10.3.0.26` are taken for the same."""
    return (
        all(x == y for x, y in zip(_numbers(a), _numbers(b), strict=False)) if _numbers(a) and _numbers(b) else a == b
    )


def _newer_of_same_major(built: str, installed: str) -> bool:
    old, new = _numbers(built), _numbers(installed)
    return bool(old and new) and old[0] == new[0] and old <= new


def _numbers(version: str) -> tuple[int, ...]:
    """`8.6.1.post1` -> (8, 6, 1); empty for what is no version."""
    found = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9})*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
