"""Run a Darknet-family detector at the edge: .cfg and .weights -> ONNX -> TensorRT engine -> detections.

    import yolov3_trt

    engine = yolov3_trt.build("yolov3.cfg", weights="yolov3.weights", precision="int8", images="photos/")
    with yolov3_trt.open_detector(engine, conf=0.4) as detect:
        for found in detect("dog.jpg"):
            print(found.class_name, found.score, found.xyxy)

Detect    open_detector(artifact)    a Detector: picture -> Detections, each row of it a Detection
          draw_detections(image, ..) a copy of a picture with its boxes
Models    load_model(model)          a Model: network, weights, class names
          fetch(name)                published weights into the cache
Jobs      export(model)              -> Exported: an ONNX graph, compared with PyTorch
          adopt(graph, model)        -> Exported: another program's graph, held to the model it was made of
          calibrate(model)           -> Calibrated: the table of ranges that INT8 needs
          quantize(model)            -> Quantized: an INT8 graph within an accuracy budget
          build(model)               -> Built: a TensorRT engine
          evaluate(artifacts)        -> Evaluation: average precision with its interval, side by side
          compare(a, b)              -> Compared: how far two artifacts are apart, and from which layer on
          benchmark(artifacts)       -> BenchmarkResult: speed side by side, and whether each finds what PyTorch finds
          report_on(model, data=set) -> ModelReport: accuracy and speed of every precision, as one page
          certify(artifact)          -> Certificate: whether it is a published model and finds what that finds
          train(model, data=set)     -> Trained: a Darknet cfg and weights for classes of your own
          watch(artifact, *sources)  a Watch: iterate over the results of cameras, streams and files
Follow    Tracker                    detections -> the same with numbers from picture to picture
          EventEngine                tracked detections -> each Event: who appears, leaves, crosses a line, stays in a zone
          Places                     the zones and lines of a file
OpenCV    read_net_from_darknet(cfg) a cv2.dnn.Net, as OpenCV's Darknet importer gave until OpenCV 5
Settings  GraphSettings, CalibrationSettings, DetectSettings, EngineSettings; each is also a keyword of the jobs
          Selection, CameraSettings  which detections are wanted: classes, sizes, zones; what cameras are asked for
          BuildRecipe, load_recipe   a model and its settings as a file
Progress  Reporter                   where a job says what it does; by default nowhere
Errors    Yolov3TrtError             base of all; SettingError, a value that cannot be meant

Use help() on any of these. A model is a built-in name or the path of a .cfg. Results go wherever the path of what they made
does, and have to_json(). Sizes are a text WIDTHxHEIGHT, one number, or a pair (height, width); choices may be texts.

These names are the public face of the package. All other modules are private: they may change with any version.
Importing the package loads neither torch, onnx, onnxruntime, OpenCV nor TensorRT; a name loads its module at first use.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from yolov3_trt._version import __version__ as __version__

# Before anything here imports ONNX Runtime, which would otherwise ask for its maker's host and keep a device id and a data base
# of events in the home folder (1.31 and newer); its own `disable_telemetry_events` comes too late for both.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Before anything imports OpenCV, which reads it then: the most pixels of a picture (`opencv.max_pixels`).
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "64000000")

if TYPE_CHECKING:
    from yolov3_trt.benchmarking.results import BenchmarkResult as BenchmarkResult
    from yolov3_trt.camera.draw import draw_detections as draw_detections
    from yolov3_trt.camera.settings import CameraSettings as CameraSettings
    from yolov3_trt.detections import Detection as Detection
    from yolov3_trt.detections import Detections as Detections
    from yolov3_trt.detector import Detector as Detector
    from yolov3_trt.detector import open_detector as open_detector
    from yolov3_trt.errors import SettingError as SettingError
    from yolov3_trt.errors import Yolov3TrtError as Yolov3TrtError
    from yolov3_trt.evaluation.accuracy import Evaluation as Evaluation
    from yolov3_trt.events import Event as Event
    from yolov3_trt.events import EventEngine as EventEngine
    from yolov3_trt.jobs.adopt import adopt as adopt
    from yolov3_trt.jobs.benchmark import benchmark as benchmark
    from yolov3_trt.jobs.build import Built as Built
    from yolov3_trt.jobs.build import build as build
    from yolov3_trt.jobs.calibrate import Calibrated as Calibrated
    from yolov3_trt.jobs.calibrate import calibrate as calibrate
    from yolov3_trt.jobs.certify import Certificate as Certificate
    from yolov3_trt.jobs.certify import certify as certify
    from yolov3_trt.jobs.compare import Compared as Compared
    from yolov3_trt.jobs.compare import compare as compare
    from yolov3_trt.jobs.evaluate import evaluate as evaluate
    from yolov3_trt.jobs.export import Exported as Exported
    from yolov3_trt.jobs.export import export as export
    from yolov3_trt.jobs.fetch import fetch as fetch
    from yolov3_trt.jobs.opencv_net import read_net_from_darknet as read_net_from_darknet
    from yolov3_trt.jobs.quantize import Quantized as Quantized
    from yolov3_trt.jobs.quantize import quantize as quantize
    from yolov3_trt.jobs.report import ModelReport as ModelReport
    from yolov3_trt.jobs.report import report_on as report_on
    from yolov3_trt.jobs.train import Trained as Trained
    from yolov3_trt.jobs.train import train as train
    from yolov3_trt.jobs.watch import Watch as Watch
    from yolov3_trt.jobs.watch import watch as watch
    from yolov3_trt.models import Model as Model
    from yolov3_trt.models import load_model as load_model
    from yolov3_trt.places import Places as Places
    from yolov3_trt.recipe import BuildRecipe as BuildRecipe
    from yolov3_trt.recipe import load_recipe as load_recipe
    from yolov3_trt.reporter import Reporter as Reporter
    from yolov3_trt.selection import Selection as Selection
    from yolov3_trt.settings import (
        CalibrationSettings as CalibrationSettings,
    )
    from yolov3_trt.settings import (
        DetectSettings as DetectSettings,
    )
    from yolov3_trt.settings import (
        EngineSettings as EngineSettings,
    )
    from yolov3_trt.settings import (
        GraphSettings as GraphSettings,
    )
    from yolov3_trt.tracking import Tracker as Tracker

# No `__all__`: with one, help() of the package would print all of each, two thousand lines; without, it is the text above.
_HOME_OF = {
    "BenchmarkResult": "benchmarking.results",
    "BuildRecipe": "recipe",
    "Built": "jobs.build",
    "Calibrated": "jobs.calibrate",
    "CalibrationSettings": "settings",
    "CameraSettings": "camera.settings",
    "Certificate": "jobs.certify",
    "Compared": "jobs.compare",
    "DetectSettings": "settings",
    "Detection": "detections",
    "Detections": "detections",
    "Detector": "detector",
    "EngineSettings": "settings",
    "Evaluation": "evaluation.accuracy",
    "Event": "events",
    "EventEngine": "events",
    "Exported": "jobs.export",
    "GraphSettings": "settings",
    "Model": "models",
    "ModelReport": "jobs.report",
    "Places": "places",
    "Quantized": "jobs.quantize",
    "Reporter": "reporter",
    "Selection": "selection",
    "SettingError": "errors",
    "Tracker": "tracking",
    "Trained": "jobs.train",
    "Watch": "jobs.watch",
    "Yolov3TrtError": "errors",
    "adopt": "jobs.adopt",
    "benchmark": "jobs.benchmark",
    "build": "jobs.build",
    "calibrate": "jobs.calibrate",
    "certify": "jobs.certify",
    "compare": "jobs.compare",
    "draw_detections": "camera.draw",
    "evaluate": "jobs.evaluate",
    "export": "jobs.export",
    "fetch": "jobs.fetch",
    "load_model": "models",
    "load_recipe": "recipe",
    "open_detector": "detector",
    "quantize": "jobs.quantize",
    "read_net_from_darknet": "jobs.opencv_net",
    "report_on": "jobs.report",
    "train": "jobs.train",
    "watch": "jobs.watch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_HOME_OF, "__version__"})
