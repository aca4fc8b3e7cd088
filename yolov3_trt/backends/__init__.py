"""Three interchangeable ways to run a model, behind one small protocol."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from numpy.typing import NDArray

from yolov3_trt.errors import BackendError, EngineError, require
from yolov3_trt.meta import ModelMeta
from yolov3_trt.models import Model, is_model, load_model


class BackendName(str, Enum):
    """What executes an artifact."""

    AUTO = "auto"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


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


class OpenBackend:
    """Base of the backends: the context manager, and the check of what comes in."""

    name: BackendName
    meta: ModelMeta

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

    def __enter__(self) -> "OpenBackend":
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
    """Open what runs an artifact: torch for a model, ONNX Runtime for an `.onnx`, TensorRT for an `.engine`.

    Args:
        artifact: a loaded model, the name or `.cfg` of one that needs no options, an `.onnx` or an `.engine`.
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
    from yolov3_trt.engine.plan import load_plan

    meta = load_plan(Path(artifact), trust=trust).meta
    raise EngineError(
        f"{artifact}: this version builds engines but does not run them yet; built with {meta.flavor} {meta.flavor_version}, "
        "it runs in trtexec or your own runtime, and the .onnx it was built from runs here"
    )


def _natural_backend(artifact: str | Path | Model) -> BackendName:
    if isinstance(artifact, Model) or is_model(artifact):
        return BackendName.TORCH
    by_suffix = {".onnx": BackendName.ONNXRUNTIME, ".engine": BackendName.TENSORRT, ".plan": BackendName.TENSORRT}
    suffix = Path(artifact).suffix
    if suffix not in by_suffix:
        raise BackendError(f"{artifact}: not an artifact; expected a built-in model, a .cfg, an .onnx or an .engine")
    return by_suffix[suffix]
