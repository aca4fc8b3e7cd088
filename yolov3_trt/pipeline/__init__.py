"""What joins the toolkits: model -> ONNX file -> calibration table -> engine."""

from yolov3_trt.pipeline.calibrate import Calibrated, Calibration, calibrate_graph, calibrated_table
from yolov3_trt.pipeline.export import ExportOptions, ExportReport, artifact_stem, export_model
from yolov3_trt.pipeline.reporter import SILENT, Reporter

__all__ = [
    "SILENT",
    "Calibrated",
    "Calibration",
    "ExportOptions",
    "ExportReport",
    "Reporter",
    "artifact_stem",
    "calibrate_graph",
    "calibrated_table",
    "export_model",
]
