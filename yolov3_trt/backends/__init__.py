"""Interchangeable ways to run a model, behind one small protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError, require
from yolov3_trt.meta import ModelMeta, Postprocess, Preprocess
from yolov3_trt.models import Model, is_model, load_model
from yolov3_trt.preprocess import Image

# Where the time of a picture goes, by the clock of the host; they add up to its latency.
STAGES = ("preprocess", "inference", "postprocess")
TRITON_SCHEME = "triton://"


class BackendName(str, Enum):
    """What executes an artifact."""

    AUTO = "auto"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TRITON = "triton"


@dataclass(frozen=True)
class Timed:
    """What was found in some pictures, and where the time went."""

    detections: list[Detections]  # one per picture, in image px
    stages_s: Mapping[str, float]  # seconds of all pictures together, by STAGES


class Backend(Protocol):
    """Runs one model. Opened, used and closed on one thread."""

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

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Run a batch of the shape `meta.input_shape(n)`, n within `meta.batch`.

        Returns:
            An array per `meta.output_names`; views that are valid until the next call.

        Raises:
            BackendError: the batch has another shape or type.
        """
        ...

    def close(self) -> None:
        """Give up memory and handles; harmless when repeated."""
        ...


@runtime_checkable
class PictureBackend(Backend, Protocol):
    """A backend that takes pictures as they are: it fits them into the input and finds the detections by itself.

    `Detector` leaves its own preprocessing and postprocessing to such a one.
    """

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
            BackendError: as many are under way as there are slots.
        """
        ...

    def result(self) -> Timed:
        """Wait for the pictures submitted first, of those whose result was not asked for yet.

        Raises:
            BackendError: none are under way, or running them failed; the next `submit` starts afresh.
        """
        ...


_Opened = TypeVar("_Opened", bound="OpenBackend")


class OpenBackend:
    """Base of the backends: the context manager, and the check of what comes in."""

    name: BackendName
    meta: ModelMeta
    fallbacks: tuple[str, ...] = ()

    def check_batch(self, images: NDArray[Any]) -> None:
        """Refuse a batch that the model does not take.

        Raises:
            BackendError: what it is and what was expected.
        """
        expected = self.meta.input_shape(images.shape[0] if images.ndim else 0)
        kind, batch = self.meta.input_dtype, self.meta.batch
        if images.shape != expected or images.dtype != kind or not batch.min <= expected[0] <= batch.max:
            wanted = "x".join(map(str, ("N", *expected[1:])))
            raise BackendError(
                f"{self.meta.name}: got a batch of {images.dtype} {images.shape}; expected {kind} {wanted} with N = {batch}"
            )

    def close(self) -> None:
        """Give up memory and handles; harmless when repeated."""

    def __enter__(self: _Opened) -> _Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_backend(
    artifact: str | Path | Model,
    backend: BackendName = BackendName.AUTO,
    *,
    threads: int | None = None,
    trust: bool = False,
) -> Backend:
    """Open what runs an artifact: torch a model, ONNX Runtime an `.onnx`, TensorRT an `.engine`, a server what it serves.

    Args:
        artifact: a loaded model, the name or `.cfg` of one that needs no options, an `.onnx`, an `.engine`, or
            `triton://host:port[,host:port]/model[:version]`, see `backends.triton`.
        backend: AUTO, or the one that it must be.
        threads: CPU threads; by default the backend's choice.
        trust: load an engine whoever owns it or can write to it; see `engine.plan.why_untrusted`.

    Raises:
        BackendError: the artifact and the backend do not go together.
        EngineError: an engine that cannot run here, and why.
        Yolov3TrtError: the artifact cannot be loaded.
    """
    natural = _natural_backend(artifact)
    if backend not in (BackendName.AUTO, natural):
        raise BackendError(f"{artifact}: {backend.value} does not run this; it runs on {natural.value}")
    if natural is BackendName.TORCH:
        require("torch", extra="export")
        from yolov3_trt.backends.pytorch import TorchBackend

        return TorchBackend(artifact if isinstance(artifact, Model) else load_model(artifact), threads=threads)
    assert not isinstance(artifact, Model)
    if natural is BackendName.ONNXRUNTIME:
        from yolov3_trt.backends.ort import OrtBackend

        return OrtBackend(Path(artifact), threads=threads)
    if natural is BackendName.TRITON:
        from yolov3_trt.backends.triton import open_triton

        return open_triton(str(artifact))
    from yolov3_trt.backends.trt import open_tensorrt

    return open_tensorrt(Path(artifact), trust=trust)


def _natural_backend(artifact: str | Path | Model) -> BackendName:
    if isinstance(artifact, Model) or is_model(artifact):
        return BackendName.TORCH
    if str(artifact).startswith(TRITON_SCHEME):
        return BackendName.TRITON
    by_suffix = {".onnx": BackendName.ONNXRUNTIME, ".engine": BackendName.TENSORRT, ".plan": BackendName.TENSORRT}
    suffix = Path(artifact).suffix
    if suffix not in by_suffix:
        raise BackendError(
            f"{artifact}: not an artifact; expected a built-in model, a .cfg, an .onnx, an .engine or triton://…"
        )
    return by_suffix[suffix]
