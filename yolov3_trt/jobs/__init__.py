"""What joins the toolkits: model -> ONNX file -> calibration table -> engine."""

from yolov3_trt.jobs.calibrate import Calibrated, Calibration, calibrate_graph, calibrated_table
from yolov3_trt.jobs.export import ExportOptions, ExportReport, artifact_stem, export_model
from yolov3_trt.jobs.reporter import SILENT, Reporter

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
