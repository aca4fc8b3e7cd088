"""What a benchmark runs: artifacts times the ways to run them."""

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
class BenchmarkConfig:
    """Which artifacts to run, and how."""

    artifacts: tuple[str, ...]
    weights: str | None = None  # of the artifacts that are models; so are the next two
    names: str | None = None
    input_size: HW | None = None
    detect: DetectSettings = field(default_factory=DetectSettings)
    device: str = "cpu"  # of PyTorch
    torch_variants: tuple[TorchOptions, ...] = ()
    backends: tuple[str, ...] = ("onnxruntime",)  # of `.onnx` files
    precisions: tuple[str, ...] = ("fp32",)  # that OpenVINO computes in
    onnxruntime_devices: tuple[str, ...] = ("cpu",)
    baselines: tuple[str, ...] = ()  # other software on the same models: `opencv`
    batches: tuple[int, ...] = (1,)
    threads: int | None = None
    trust: bool = False
    wait: str = "auto"  # how the thread waits for engines


@dataclass(frozen=True)
class RunSpec:
    """A way to run an artifact, not opened yet."""

    label: str
    artifact: str
    backend: str
    precision: str | None  # None: as its sidecar says
    device: str | None  # "cpu", "cuda"; None for a server's
    size_bytes: int | None
    named: bool  # the artifact as it was asked for; others are variants of it
    open: Callable[[DetectSettings], Detector]
    model: Model | None = None


def run_specs(config: BenchmarkConfig) -> list[RunSpec]:
    """Every artifact in every way that is asked for, in the order given.

    Raises:
        Yolov3TrtError: a model cannot be loaded.
    """
    found: list[RunSpec] = []
    artifacts = tuple(dict.fromkeys(config.artifacts))
    for artifact in artifacts:
        base = _label(artifact, artifacts)
        found += _of_model(artifact, base, config) if is_model(artifact) else _of_file(artifact, base, config)
    return found


def implied_reference(metas: Sequence[ModelMeta], config: BenchmarkConfig) -> RunSpec | None:
    """PyTorch on the built-in model that an artifact was made from, where its very weights are at hand."""
    for meta in metas:
        if meta.name not in BUILT_IN or not default_weights_path(meta.name).is_file():
            continue
        try:
            require("torch", extra="export")
        except MissingDependency:
            return None  # a Jetson
        model = load_model(meta.name, names=None if meta.name in BUNDLED else config.names, input_size=meta.input_hw)
        if model.weights_sha256 == meta.weights_sha256:
            return _torch(meta.name, model, meta.name, TorchOptions(config.device), config)
    return None


def specs_by_layers(models: Sequence[Model]) -> dict[str, ModelSpec]:
    """Networks by their `layers_sha256`, which sidecars carry: those loaded, and the built-in ones."""
    specs = [*(make() for make in BUILT_IN.values()), *(model.spec for model in models)]
    return {digest: spec for spec in specs for digest in (spec.former_layers_sha256, spec.layers_sha256)}


def default_device() -> str:
    """`cuda` where PyTorch has one, so that the reference runs on the hardware of the engines."""
    try:
        require("torch", extra="export")
    except MissingDependency:
        return "cpu"
    from yolov3_trt.backends.pytorch import has_cuda

    return "cuda" if has_cuda() else "cpu"


def _of_model(artifact: str, base: str, config: BenchmarkConfig) -> Iterator[RunSpec]:
    model = load_model(artifact, config.weights, config.names, config.input_size)
    own = TorchOptions(config.device)
    yield replace(_torch(base, model, artifact, own, config), named=True)
    for options in dict.fromkeys(config.torch_variants):
        if options != own:
            yield _torch(f"{base} {options}", model, artifact, options, config)
    if OPENCV in config.baselines:
        size = model.weights_path.stat().st_size
        opener = partial(_open, model, {"backend": OPENCV, "threads": config.threads})
        yield RunSpec(f"{base} {OPENCV}", artifact, OPENCV, "fp32", "cpu", size, False, opener, model)


def _torch(label: str, model: Model, artifact: str, options: TorchOptions, config: BenchmarkConfig) -> RunSpec:
    size = model.weights_path.stat().st_size
    opener = partial(_open_torch, model, options, config.threads)
    name = BackendName.TORCH.value
    return RunSpec(label, artifact, name, options.dtype, options.device, size, False, opener, model)


def _of_file(artifact: str, base: str, config: BenchmarkConfig) -> Iterator[RunSpec]:
    path = Path(artifact)
    size = path.stat().st_size if path.is_file() else None
    if path.suffix == ".onnx":
        for k, (name, how, words) in enumerate(_ways_of_graph(config)):
            opener = partial(_open, artifact, {"backend": name, "threads": config.threads, **how})
            precision = how.get("precision", "fp32")
            label, device = " ".join((base, *words)), how.get("device", "cpu")
            yield RunSpec(
                label, artifact, name, None if precision == "fp32" else precision, device, size, k == 0, opener
            )
        return
    is_remote = "://" in artifact
    name = BackendName.TRITON.value if is_remote else BackendName.TENSORRT.value
    opener = partial(_open, artifact, {"trust": config.trust, "wait": config.wait})
    yield RunSpec(base, artifact, name, None, None if is_remote else "cuda", size, True, opener)


def _ways_of_graph(config: BenchmarkConfig) -> Iterator[tuple[str, dict[str, str], tuple[str, ...]]]:
    """Backend, what else it is opened with, and what that adds to the name of a row."""
    for name in config.backends:
        if name == BackendName.OPENVINO.value:
            for precision in config.precisions:
                yield name, {"precision": precision}, (name, *([] if precision == "fp32" else [precision]))
        else:
            for device in config.onnxruntime_devices:
                yield name, {"device": device}, () if device == "cpu" else (device,)


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
