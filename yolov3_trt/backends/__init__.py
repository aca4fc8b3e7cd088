"""Interchangeable ways to run a model, behind one small protocol: pictures in, detections out.

What fits pictures and finds detections by itself (TensorRT, a server of pictures) is a `Backend`. What only runs the network
(PyTorch, ONNX Runtime, OpenVINO, a server of tensors) is a `TensorBackend`, and `host_path.HostPath` makes a `Backend` of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from yolov3_trt.arguments import one_of
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError, require
from yolov3_trt.meta import Batch, ModelMeta, Postprocess, Preprocess
from yolov3_trt.models import Model, is_model, load_model
from yolov3_trt.models.mistaken import not_an_artifact
from yolov3_trt.packages import missing_packages
from yolov3_trt.preprocess import Image

# Where the time of a picture goes, by the clock of the host; they add up to its latency.
STAGES = ("preprocess", "inference", "postprocess")
TRITON_SCHEMES = ("triton://", "tritons://")  # the second is encrypted

ANY_BATCH = Batch(1, 1, 1024)  # of what makes its network or graph itself


class BackendName(str, Enum):
    """What executes an artifact."""

    AUTO = "auto"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TRITON = "triton"
    OPENCV = "opencv"
    OPENVINO = "openvino"


# What runs an artifact in place of what it is for.
_ALTERNATIVES = {(BackendName.OPENCV, BackendName.TORCH), (BackendName.OPENVINO, BackendName.ONNXRUNTIME)}


class DeviceName(str, Enum):
    """Where a backend runs."""

    AUTO = "auto"  # on the GPU where the backend has one, else on the CPU
    CPU = "cpu"
    CUDA = "cuda"


class RunPrecision(str, Enum):
    """What a backend computes in, where it can be told; the rest of a Q/DQ graph in its INT8."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Wait(str, Enum):
    """How a thread waits for the GPU."""

    AUTO = "auto"  # it asks again and again for work that is short and alone, and sleeps otherwise
    SPIN = "spin"  # it asks again and again: soonest there, and takes a core
    SLEEP = "sleep"  # it is woken up, which takes a tenth of a millisecond


@dataclass(frozen=True)
class TimedDetections:
    """What was found in some pictures, and where the time went."""

    detections: list[Detections]  # one per picture, in image px
    stages_s: Mapping[str, float]  # seconds of all pictures together, by STAGES


class _Opened(Protocol):
    """What every backend has, of either kind. Opened, used and closed on one thread."""

    @property
    def name(self) -> BackendName:
        """Which kind it is."""
        ...

    @property
    def meta(self) -> ModelMeta:
        """What it runs, how to feed and read it."""
        ...

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What it does in a lesser way than it could elsewhere, each with the reason; for logs and `--json`."""
        ...

    def close(self) -> None:
        """Give up memory and handles; harmless when repeated."""
        ...


@runtime_checkable
class Backend(_Opened, Protocol):
    """Takes pictures as they are and gives what is in them."""

    @property
    def num_slots(self) -> int:
        """Calls of `submit` that may wait for their `result` at a time; 1 or more."""
        ...

    def configure(self, preprocess: Preprocess, postprocess: Postprocess) -> None:
        """Say how the pictures to come are fitted, and what is found in them; to be called before the first `submit`.

        Raises:
            BackendError: the artifact has something else built in.
        """
        ...

    def submit(self, images: Sequence[Image]) -> None:
        """Begin with pictures, uint8 (H, W, 3) BGR of any sizes, 1 to `meta.batch.max` of them; they may be reused at once.

        Raises:
            ImageError: a picture is of another shape or type.
            BackendError: as many are under way as there are slots, or it is closed.
        """
        ...

    def result(self) -> TimedDetections:
        """Wait for the pictures submitted first, of those whose result was not asked for yet.

        Raises:
            BackendError: none are under way, or running them failed; the next `submit` starts afresh.
        """
        ...


@runtime_checkable
class TensorBackend(_Opened, Protocol):
    """Runs the network alone: batches in, the outputs of the network out."""

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Run a batch of the shape `meta.input_shape(n)`, n within `meta.batch`.

        Returns:
            An array per `meta.output_names`; views that are valid until the next call.

        Raises:
            BackendError: the batch has another shape or type, or the backend is closed.
        """
        ...


@runtime_checkable
class OverlappingBackend(TensorBackend, Protocol):
    """One that runs a batch beside its caller."""

    @property
    def num_slots(self) -> int:
        """Batches that may be under way; 2 or more."""
        ...

    def start(self, images: NDArray[Any]) -> None:
        """Begin with a batch as `infer` takes; it must stay as it is until its `finish`.

        Raises:
            BackendError: as many are under way as there are slots, the batch has another shape or type, or it is closed.
        """
        ...

    def finish(self) -> Mapping[str, NDArray[Any]]:
        """Wait for the batch begun first; views that are valid until `num_slots` more were begun.

        Raises:
            BackendError: none is under way, or running it failed.
        """
        ...


_Self = TypeVar("_Self", bound="OpenBackend")


class OpenBackend:
    """Base of the backends: the context manager, and the checks of what comes in."""

    name: BackendName
    meta: ModelMeta
    fallbacks: tuple[str, ...] = ()
    computes_in: str | None = None  # where that is not what the artifact says: `tf32`
    is_closed = False

    def check_open(self) -> None:
        """Refuse to go on after `close`.

        Raises:
            BackendError: it is closed.
        """
        if self.is_closed:
            raise BackendError(f"{self.meta.name}: this {self.name.value} backend is closed; open the artifact again")

    def check_count(self, images: Sequence[Image]) -> None:
        """Refuse more pictures than a call may hold, or none.

        Raises:
            BackendError: how many they are and what was expected.
        """
        if not 1 <= len(images) <= self.meta.batch.max:
            raise BackendError(f"{self.meta.name}: got {len(images)} pictures; expected 1 to {self.meta.batch.max}")

    def check_batch(self, images: NDArray[Any]) -> None:
        """Refuse a batch that the model does not take.

        Raises:
            BackendError: what it is and what was expected; or the backend is closed.
        """
        self.check_open()
        expected = self.meta.input_shape(images.shape[0] if images.ndim else 0)
        kind, batch = self.meta.input_dtype, self.meta.batch
        if images.shape != expected or images.dtype != kind or not batch.min <= expected[0] <= batch.max:
            wanted = "x".join(map(str, ("N", *expected[1:])))
            raise BackendError(
                f"{self.meta.name}: got a batch of {images.dtype} {images.shape}; expected {kind} {wanted} with N = {batch}"
            )

    def close(self) -> None:
        """Give up memory and handles; harmless when repeated."""
        self.is_closed = True

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_backend(
    artifact: str | Path | Model,
    backend: BackendName | str = BackendName.AUTO,
    *,
    device: DeviceName | str = DeviceName.AUTO,
    threads: int | None = None,
    trust: bool = False,
    precision: RunPrecision | str | None = None,
    wait: Wait | str = Wait.AUTO,
) -> Backend | TensorBackend:
    """Open what runs an artifact: torch a model, ONNX Runtime an `.onnx`, TensorRT an `.engine`, a server what it serves.

    A model may be run by OpenCV instead, to compare with, and an `.onnx` by OpenVINO. Where there is no PyTorch, and `auto` is
    asked for, ONNX Runtime runs a model's graph, which is one of the fallbacks.

    Args:
        artifact: a loaded model, the name or `.cfg` of one that needs no options, an `.onnx`, an `.engine`, or
            `triton://host:port[,host:port]/model[:version]` (encrypted: `tritons://`), see `backends.triton`.
        backend: `auto`, or the one that it must be.
        device: `cpu`, `cuda`, or `auto` for the GPU where the backend has one, else the CPU.
        threads: CPU threads; by default the backend's choice.
        trust: load an engine whoever owns it or can write to it; see `engine.plan.why_untrusted`.
        precision: what OpenVINO computes in wherever a graph is not INT8, `fp32` (default), `bf16` or `fp16`. Others
            compute in what the artifact says.
        wait: how the thread waits for an engine: `spin`, `sleep` or `auto`; others wait in their own way.

    Raises:
        SettingError: there is no such backend, device, precision or way to wait.
        BackendError: the artifact, the backend and the device do not go together.
        EngineError: an engine that cannot run here, and why.
        Yolov3TrtError: the artifact cannot be loaded.
    """
    natural = natural_backend(artifact)
    asked, on = one_of("backend", backend, BackendName), one_of("device", device, DeviceName)
    if (asked, natural) in _ALTERNATIVES:
        natural = asked
    if asked not in (BackendName.AUTO, natural):
        raise BackendError(f"{_shown(artifact)}: {asked.value} does not run this; it runs on {natural.value}")
    waiting = one_of("wait", wait, Wait)
    computing = None if precision is None else one_of("precision", precision, RunPrecision)
    if computing is not None and natural is not BackendName.OPENVINO:
        raise BackendError(
            f"{_shown(artifact)}: precision={computing.value} was asked for, but {natural.value} computes in what the artifact "
            "says; leave it out, or run an .onnx with backend=openvino"
        )
    if natural in (BackendName.TORCH, BackendName.OPENCV):
        model = artifact if isinstance(artifact, Model) else load_model(artifact)
        return _open_model(model, natural, on, threads, asked is BackendName.TORCH)
    assert not isinstance(artifact, Model)
    if natural is BackendName.ONNXRUNTIME:
        from yolov3_trt.backends.ort import OrtBackend

        return OrtBackend(Path(artifact), device=on.value, threads=threads)
    if natural is BackendName.OPENVINO:
        from yolov3_trt.backends.ov import OpenVinoBackend

        if on is DeviceName.CUDA:
            raise BackendError(
                f"{artifact}: device=cuda was asked for, but OpenVINO runs on the CPU here; leave it out"
            )
        return OpenVinoBackend(Path(artifact), precision=computing or RunPrecision.FP32, threads=threads)
    if natural is BackendName.TRITON:
        if on is not DeviceName.AUTO:
            raise BackendError(
                f"{artifact}: device={on.value} was asked for, but its server decides that; leave it out"
            )
        from yolov3_trt.backends.triton import open_triton

        return open_triton(str(artifact))
    if on is DeviceName.CPU:
        raise BackendError(f"{artifact}: device=cpu was asked for, but an engine runs on a GPU; open its .onnx instead")
    from yolov3_trt.backends.trt import open_tensorrt

    return open_tensorrt(Path(artifact), trust=trust, wait=waiting)


def _open_model(
    model: Model, backend: BackendName, device: DeviceName, threads: int | None, must_be_torch: bool
) -> "Backend | TensorBackend":
    if backend is BackendName.OPENCV:
        from yolov3_trt.backends.opencv_dnn import OpenCvBackend

        if device is DeviceName.CUDA:
            raise BackendError(f"{model.spec.name}: device=cuda was asked for, but OpenCV runs models on the CPU here")
        return OpenCvBackend(model, threads=threads)
    if not missing_packages(("onnx", "onnxruntime")) and missing_packages(("torch",)) and not must_be_torch:
        from yolov3_trt.backends.ort import OrtBackend

        return OrtBackend.of_model(model, device=device.value, threads=threads)
    require("torch", extra="export")
    from yolov3_trt.backends.pytorch import TorchBackend, has_cuda

    where = ("cuda" if has_cuda() else "cpu") if device is DeviceName.AUTO else device.value
    return TorchBackend(model, device=where, threads=threads)


def _shown(artifact: str | Path | Model) -> str:
    return artifact.spec.name if isinstance(artifact, Model) else str(artifact)


def natural_backend(artifact: str | Path | Model) -> BackendName:
    """What runs an artifact, by its name alone.

    Raises:
        BackendError: this is no artifact; says what it is and what to give instead.
    """
    if isinstance(artifact, Model) or is_model(artifact):
        return BackendName.TORCH
    if str(artifact).startswith(TRITON_SCHEMES):
        return BackendName.TRITON
    by_suffix = {".onnx": BackendName.ONNXRUNTIME, ".engine": BackendName.TENSORRT, ".plan": BackendName.TENSORRT}
    suffix = Path(artifact).suffix
    if suffix not in by_suffix:
        raise BackendError(not_an_artifact(artifact))
    return by_suffix[suffix]
