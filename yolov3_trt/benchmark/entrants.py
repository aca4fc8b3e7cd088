"""What a benchmark is made of: artifacts times the ways to run them, opened one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from yolov3_trt.backends import BackendName
from yolov3_trt.backends.torch_options import TorchOptions
from yolov3_trt.detector import Detector, detector_on, open_detector
from yolov3_trt.errors import BackendError, DeviceError, EngineError, MissingDependency, require
from yolov3_trt.geometry import HW
from yolov3_trt.meta import ModelMeta
from yolov3_trt.models import BUNDLED, Model, default_weights_path, is_model, load_model
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.settings import DetectSettings
from yolov3_trt.spec import ModelSpec

# What cannot run here; anything else that is wrong with an artifact ends the benchmark.
CANNOT_RUN = (BackendError, DeviceError, EngineError, MissingDependency)
OPENCV = BackendName.OPENCV.value


@dataclass(frozen=True)
class Wanted:
    """What to measure, as the command line says it."""

    artifacts: tuple[str, ...]
    weights: str | None = None  # of the artifacts that are models; so are the next two
    names: str | None = None
    input_hw: HW | None = None
    detect: DetectSettings = field(default_factory=DetectSettings)
    device: str = "cpu"  # of PyTorch
    torch_variants: tuple[TorchOptions, ...] = ()
    onnxruntime_devices: tuple[str, ...] = ("cpu",)
    peers: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: int | None = None
    trust: bool = False

    @property
    def unique_artifacts(self) -> tuple[str, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(self.artifacts))


@dataclass(frozen=True)
class Candidate:
    """A way to run an artifact, not opened yet."""

    label: str
    artifact: str
    backend: str
    precision: str | None  # None: as its sidecar says
    device: str | None  # "cpu", "cuda"; None for a server's
    size_bytes: int | None
    named: bool  # on the command line; others are extra
    open: Callable[[DetectSettings], Detector]
    model: Model | None = None


@dataclass(frozen=True)
class Entrant:
    """A row to be: opened, with its batch size; or why it is not."""

    label: str
    candidate: Candidate
    batch: int
    detector: Detector | None = None
    failed: str | None = None

    @property
    def meta(self) -> ModelMeta | None:
        """Of the artifact; None where it did not open."""
        return None if self.detector is None else self.detector.meta

    @property
    def precision(self) -> str | None:
        """Which tolerance and which bytes apply."""
        known = self.candidate.precision
        return known if known is not None or self.meta is None else self.meta.precision.value

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Reasons, as they are by now."""
        return () if self.detector is None else self.detector.backend.fallbacks

    def without(self, reason: str) -> "Entrant":
        """The same, not run."""
        return replace(self, detector=None, failed=reason)


def candidates(wanted: Wanted) -> list[Candidate]:
    """Every artifact in every way that is wanted, in the order of the command line.

    Raises:
        Yolov3TrtError: a model cannot be loaded.
    """
    found: list[Candidate] = []
    for artifact in wanted.unique_artifacts:
        base = _label(artifact, wanted.unique_artifacts)
        found += _of_model(artifact, base, wanted) if is_model(artifact) else _of_file(artifact, base, wanted)
    return found


def with_batches(candidate: Candidate, detector: Detector, batches: Sequence[int]) -> Iterator[Entrant]:
    """An entrant per batch size, all on the backend of one detector."""
    for batch in batches:
        label = candidate.label if batch == 1 else f"{candidate.label} batch {batch}"
        entrant = Entrant(label, candidate, batch, detector)
        limits = detector.meta.batch
        if not limits.min <= batch <= limits.max:
            yield entrant.without(f"it takes batches of {limits}, not {batch}")
        else:
            yield entrant


def implied_reference(metas: Sequence[ModelMeta], wanted: Wanted) -> Candidate | None:
    """PyTorch on the built-in model that an artifact was made from, where its very weights are at hand."""
    for meta in metas:
        if meta.name not in BUILT_IN or not default_weights_path(meta.name).is_file():
            continue
        try:
            require("torch", extra="export")
        except MissingDependency:
            return None  # a Jetson
        model = load_model(meta.name, names=None if meta.name in BUNDLED else wanted.names, input_size=meta.input_hw)
        if model.weights_sha256 == meta.weights_sha256:
            return _torch(meta.name, model, meta.name, TorchOptions(wanted.device), wanted)
    return None


def specs_by_layers(models: Sequence[Model]) -> dict[str, ModelSpec]:
    """Networks by their `layers_sha256`, which sidecars carry: those loaded, and the built-in ones."""
    built_in = [make() for make in BUILT_IN.values()]
    return {spec.layers_sha256: spec for spec in [*built_in, *(model.spec for model in models)]}


def default_device() -> str:
    """`cuda` where PyTorch has one, so that the reference runs on the hardware of the engines."""
    try:
        require("torch", extra="export")
    except MissingDependency:
        return "cpu"
    from yolov3_trt.backends.pytorch import has_cuda

    return "cuda" if has_cuda() else "cpu"


def _of_model(artifact: str, base: str, wanted: Wanted) -> Iterator[Candidate]:
    model = load_model(artifact, wanted.weights, wanted.names, wanted.input_hw)
    own = TorchOptions(wanted.device)
    yield replace(_torch(base, model, artifact, own, wanted), named=True)
    for options in wanted.torch_variants:
        if options != own:
            yield _torch(f"{base} {options}", model, artifact, options, wanted)
    if OPENCV in wanted.peers:
        size = model.weights_path.stat().st_size
        opener = partial(_open, model, {"backend": OPENCV, "threads": wanted.threads})
        yield Candidate(f"{base} {OPENCV}", artifact, OPENCV, "fp32", "cpu", size, False, opener, model)


def _torch(label: str, model: Model, artifact: str, options: TorchOptions, wanted: Wanted) -> Candidate:
    size = model.weights_path.stat().st_size
    opener = partial(_open_torch, model, options, wanted.threads)
    name = BackendName.TORCH.value
    return Candidate(label, artifact, name, options.dtype, options.device, size, False, opener, model)


def _of_file(artifact: str, base: str, wanted: Wanted) -> Iterator[Candidate]:
    path = Path(artifact)
    size = path.stat().st_size if path.is_file() else None
    if path.suffix == ".onnx":
        for device in wanted.onnxruntime_devices:
            label = base if device == "cpu" else f"{base} {device}"
            opener = partial(_open, artifact, {"device": device, "threads": wanted.threads})
            name = BackendName.ONNXRUNTIME.value
            yield Candidate(label, artifact, name, None, device, size, device == wanted.onnxruntime_devices[0], opener)
        return
    is_remote = "://" in artifact
    name = BackendName.TRITON.value if is_remote else BackendName.TENSORRT.value
    opener = partial(_open, artifact, {"trust": wanted.trust})
    yield Candidate(base, artifact, name, None, None if is_remote else "cuda", size, True, opener)


def _open_torch(model: Model, options: TorchOptions, threads: int | None, settings: DetectSettings) -> Detector:
    require("torch", extra="export")
    from yolov3_trt.backends.pytorch import TorchBackend

    return detector_on(TorchBackend(model, options=options, threads=threads), settings)


def _open(artifact: str | Model, how: Mapping[str, Any], settings: DetectSettings) -> Detector:
    return open_detector(artifact, detect=settings, **how)


def _label(artifact: str, artifacts: Sequence[str]) -> str:
    """The file's name alone, where no other artifact has the same."""
    name = Path(artifact).name
    return name if [Path(other).name for other in artifacts].count(name) == 1 else artifact
