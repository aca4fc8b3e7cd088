"""ONNX Runtime as a backend: the very graph that TensorRT compiles, on any CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.backends import BackendName, OpenBackend
from yolov3_trt.errors import BackendError, require
from yolov3_trt.meta import INPUT_NAME, load_model_meta


class OrtBackend(OpenBackend):
    """Runs an ONNX file on the CPU."""

    name = BackendName.ONNXRUNTIME

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Load the file and its sidecar.

        Raises:
            MetaError: the sidecar is missing or not this file's.
            BackendError: ONNX Runtime does not load the graph, or it is not what the sidecar says.
        """
        ort = require("onnxruntime", extra="cpu")
        self.meta = load_model_meta(path)
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: what it says of a graph it optimises is not for users
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # ONNX Runtime's exceptions share no base but Exception
            raise BackendError(f"{path}: ONNX Runtime does not load this graph: {_one_line(exc)}") from exc
        outputs = tuple(output.name for output in self._session.get_outputs())
        if outputs != self.meta.output_names:
            raise BackendError(f"{path}: the graph's outputs are {outputs}; its sidecar says {self.meta.output_names}")

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Backend.infer`."""
        self.check_batch(images)
        names = self.meta.output_names
        return dict(zip(names, self._session.run(list(names), {INPUT_NAME: images}), strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]
