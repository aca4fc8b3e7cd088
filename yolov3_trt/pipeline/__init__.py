"""What joins the toolkits: model -> ONNX file -> calibration table -> engine."""

from yolov3_trt.pipeline.calibrate import calibrate_graph
from yolov3_trt.pipeline.export import ExportOptions, ExportReport, artifact_stem, export_model

__all__ = ["ExportOptions", "ExportReport", "artifact_stem", "calibrate_graph", "export_model"]
