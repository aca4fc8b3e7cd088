"""Run a Darknet-family YOLOv3 at the edge: PyTorch reference, ONNX graph, TensorRT engine, one contract for all three.

Importing this package loads neither torch, onnx, onnxruntime, OpenCV nor TensorRT; a public name loads its module when
it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from yolov3_trt._version import __version__

# Before anything here imports ONNX Runtime, which would otherwise ask for its maker's host and keep a device id and a data base
# of events in the home folder (1.31 and newer); its own `disable_telemetry_events` comes too late for both.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from yolov3_trt.detections import Detection, Detections
    from yolov3_trt.detector import Detector, open_detector
    from yolov3_trt.errors import Yolov3TrtError
    from yolov3_trt.meta import EngineMeta, ModelMeta, Postprocess, Precision, Preprocess
    from yolov3_trt.models import Model, load_model
    from yolov3_trt.spec import ModelSpec

_HOME_OF = {
    "Detection": "detections",
    "Detections": "detections",
    "Detector": "detector",
    "open_detector": "detector",
    "Yolov3TrtError": "errors",
    "EngineMeta": "meta",
    "ModelMeta": "meta",
    "Postprocess": "meta",
    "Precision": "meta",
    "Preprocess": "meta",
    "Model": "models",
    "load_model": "models",
    "ModelSpec": "spec",
}

__all__ = [
    "Detection",
    "Detections",
    "Detector",
    "EngineMeta",
    "Model",
    "ModelMeta",
    "ModelSpec",
    "Postprocess",
    "Precision",
    "Preprocess",
    "Yolov3TrtError",
    "__version__",
    "load_model",
    "open_detector",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
