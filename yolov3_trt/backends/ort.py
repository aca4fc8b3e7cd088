"""ONNX Runtime as a backend: the very graph that TensorRT compiles, on any CPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.backends import ANY_BATCH, BackendName, OpenBackend
from yolov3_trt.backends.tensors import Tensor, check_tensors
from yolov3_trt.errors import BackendError, require
from yolov3_trt.meta import INPUT_NAME, ModelMeta, load_model_meta, meta_from_spec
from yolov3_trt.models import Model

# By the device: what ONNX Runtime calls it and how it is set up. On CUDA float32 means float32, not TensorFloat-32, which it
# otherwise allows.
_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(uint8)": "uint8"}  # NumPy's, by ONNX Runtime's


class OrtBackend(OpenBackend):
    """Runs an ONNX file, a `TensorBackend`; on the CPU unless another device is chosen."""

    name = BackendName.ONNXRUNTIME

    def __init__(self, path: Path, *, device: str = "cpu", threads: int | None = None) -> None:
        """Load the file and its sidecar.

        Args:
            path: of the graph.
            device: `cpu` or `cuda`; `auto`: `cuda` where this ONNX Runtime was built for it and it works, else `cpu`.
            threads: of the CPU.

        Raises:
            MetaError: the sidecar is missing or not this file's.
            BackendError: ONNX Runtime does not load the graph, has nothing for the device, or the graph is not what the
                sidecar says.
        """
        self._open(path, load_model_meta(path), path, device, threads)

    @classmethod
    def of_model(cls, model: Model, *, device: str = "cpu", threads: int | None = None) -> "OrtBackend":
        """Open a model where there is no PyTorch: its float32 graph, made in memory by `onnx`, for batches of any size.

        Raises:
            BackendError: as above.
        """
        from yolov3_trt.graph.export import onnx_from_spec

        meta = replace(
            meta_from_spec(model.spec, model.class_names, model.class_names_from),
            batch=ANY_BATCH,
            weights_sha256=model.weights_sha256,
        )
        graph = onnx_from_spec(model.spec, model.weights, meta).SerializeToString()
        backend = cls.__new__(cls)
        backend._open(graph, meta, model.spec.name, device, threads)
        backend.fallbacks += ("PyTorch, the reference, is not installed: ONNX Runtime runs the model's graph",)
        return backend

    def _open(self, graph: Path | bytes, meta: ModelMeta, what: Path | str, device: str, threads: int | None) -> None:
        self.meta = meta
        self._session: Any
        self._session, self.device, self.fallbacks = _open_somewhere(graph, threads, device)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_tensors([_form(tensor) for tensor in inputs], [_form(tensor) for tensor in outputs], self.meta, what)

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `TensorBackend.infer`."""
        self.check_batch(images)
        names = self.meta.output_names
        return dict(zip(names, _run(self._session, names, {INPUT_NAME: images}, self.meta.name), strict=True))

    def close(self) -> None:
        """Free the session."""
        super().close()
        self._session = None


def _open_somewhere(graph: Path | bytes, threads: int | None, device: str) -> tuple[Any, str, tuple[str, ...]]:
    """A session, the device it is on, and why that is not CUDA where CUDA was to be expected."""
    fallbacks: tuple[str, ...] = ()
    if device == "auto":
        device = (
            "cuda" if _PROVIDERS["cuda"][0] in require("onnxruntime", extra="cpu").get_available_providers() else "cpu"
        )
        if device == "cuda":
            try:
                return _open_session(graph, threads, device), device, ()
            except BackendError as exc:
                device, fallbacks = "cpu", (f"runs on the CPU: {exc}",)
    return _open_session(graph, threads, device), device, fallbacks


def _open_session(graph: Path | bytes, threads: int | None, device: str = "cpu") -> Any:
    ort = require("onnxruntime", extra="cpu")
    provider = _PROVIDERS[device]
    name = "the graph" if isinstance(graph, bytes) else graph
    if provider[0] not in ort.get_available_providers():
        raise BackendError(
            f"{name}: this ONNX Runtime ({ort.__version__}) was built without {provider[0]}; replace it: "
            "pip uninstall onnxruntime, then pip install 'yolov3-trt[cuda]'"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only: what it says of a graph it optimises is not for users
    # Its threads spin between calls, ready for the next one, and halve the speed of whatever else has work on these cores:
    # a grab thread, or the other rows of a benchmark. Spinning during a call is worth it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Run Q/DQ graphs as they are written. Its integer kernels quantise biases too and may saturate on CPUs without VNNI, so
    # the accuracy measured here would be theirs and not TensorRT's.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        session = ort.InferenceSession(source, options, providers=[provider])
    except Exception as exc:  # ONNX Runtime's exceptions share no base but Exception
        raise BackendError(f"{name}: ONNX Runtime does not load it: {_one_line(exc)}") from exc
    if session.get_providers()[0] != provider[0]:  # it goes on with the CPU and only logs why
        raise BackendError(
            f"{name}: ONNX Runtime cannot use {provider[0]} here; expected the CUDA and cuDNN that it was built for"
        )
    return session


def _run(session: Any, names: Sequence[str], feeds: Mapping[str, NDArray[Any]], what: str) -> Sequence[NDArray[Any]]:
    try:
        outputs: Sequence[NDArray[Any]] = session.run(list(names), dict(feeds))
    except Exception as exc:  # as in `_open_session`
        raise BackendError(f"{what}: ONNX Runtime fails while it runs it: {_one_line(exc)}") from exc
    return outputs


def _form(tensor: Any) -> Tensor:
    """Where the batch varies its size has a name, or nothing; what the exporter cannot tell of an output is a name, too."""
    sizes = [size if isinstance(size, int) else None for size in tensor.shape]
    return tensor.name, _DTYPES.get(tensor.type, tensor.type), sizes


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]


def graph_runner(graph: bytes) -> Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Load a serialised graph without a sidecar: inputs by name -> every output by its name.

    Raises:
        BackendError: ONNX Runtime does not load it.
    """
    session = _open_session(graph, None)
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, _run(session, names, feeds, "the graph"), strict=True))


def run_graph(graph: bytes, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a serialised graph once; see `graph_runner`."""
    return graph_runner(graph)(feeds)


def runtime_version() -> str:
    """Of ONNX Runtime, whichever of its packages it came in.

    Raises:
        MissingDependency: it is not installed.
    """
    return str(require("onnxruntime", extra="cpu").__version__)
