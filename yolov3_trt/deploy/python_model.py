"""The model that Triton's python backend runs; the `model.py` that `deploy triton` writes only imports it from here."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3_trt.errors import BackendError, Yolov3TrtError
from yolov3_trt.meta import DETECTION_OUTPUTS

if TYPE_CHECKING:
    from yolov3_trt.deploy.service import Tensors
    from yolov3_trt.detector import Detector

_LOG = logging.getLogger(__name__)

# What a version's folder holds beside `model.py`, by the name of the file.
ARTIFACT_FILES = ("detector.onnx", "detector.engine")

MODEL_SOURCE = '''"""Written by `yolov3_trt deploy triton`; the model is in the package, which the server's Python must have."""

from yolov3_trt.deploy.python_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class TritonPythonModel:
    """One instance of a model: takes pictures, gives detections in image px. Triton asks for this name and these methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the artifact of the version that is being loaded; Triton tells what this raises as the reason of a failure."""
        from yolov3_trt.deploy.service import PictureService
        from yolov3_trt.detector import open_detector

        logging.basicConfig(format="%(levelname)s: %(message)s")  # stderr is the server's log
        folder = Path(args["model_repository"]) / args["model_version"]
        threads = _threads(json.loads(args["model_config"]), args["model_instance_kind"])
        # Trusted: who can write to the repository has written this very code as well.
        artifact = _artifact(folder)
        device = "cpu" if artifact.suffix == ".onnx" else "auto"
        self._detector: Detector = open_detector(artifact, device=device, threads=threads, trust=True)
        for reason in self._detector.backend.fallbacks:
            _LOG.warning("%s: %s", args["model_name"], reason)
        self._service = PictureService(self._detector)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton put into one batch, each with its detections or an error of its own."""
        import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # it is the server's own

        answers = self._service.answer([_tensors_of(request) for request in requests])
        return [_response(triton, answer) for answer in answers]

    def finalize(self) -> None:
        """Close the artifact when Triton unloads the version."""
        self._detector.close()


def _artifact(folder: Path) -> Path:
    found = [folder / name for name in ARTIFACT_FILES if (folder / name).is_file()]
    if len(found) != 1:
        raise BackendError(
            f"{folder}: {len(found)} artifacts; expected one of {', '.join(ARTIFACT_FILES)}; deploy it again"
        )
    return found[0]


def _threads(config: dict[str, Any], kind: str) -> int | None:
    """CPU threads of this instance: its share of the CPUs, as the instances run at the same time."""
    if kind != "CPU":
        return None
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", ()))
    return max(1, len(os.sched_getaffinity(0)) // max(1, instances))


def _tensors_of(request: Any) -> "Tensors":
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def _response(triton: Any, answer: "Tensors | Yolov3TrtError") -> Any:
    if isinstance(answer, Yolov3TrtError):
        return triton.InferenceResponse(error=triton.TritonError(str(answer), triton.TritonError.INVALID_ARG))
    return triton.InferenceResponse([triton.Tensor(name, answer[name]) for name in DETECTION_OUTPUTS])
