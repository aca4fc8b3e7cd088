"""Where frames go with what was found in them: by URI, one protocol for all."""

from yolov3_trt.camera.sinks.background import BackgroundSink
from yolov3_trt.camera.sinks.base import FileSink, Sink
from yolov3_trt.camera.sinks.frames_folder import FramesSink
from yolov3_trt.camera.sinks.group import SinkGroup
from yolov3_trt.camera.sinks.http import HttpSink
from yolov3_trt.camera.sinks.json_lines import JsonLinesSink, JsonLinesStream
from yolov3_trt.camera.sinks.program import ProgramSink
from yolov3_trt.camera.sinks.segments import SegmentsSink
from yolov3_trt.camera.sinks.storage import Limits, NoRoom, PatientSink
from yolov3_trt.camera.sinks.uri import open_sinks
from yolov3_trt.camera.sinks.video import VideoSink
from yolov3_trt.camera.sinks.window import WindowSink, why_no_window

__all__ = [
    "BackgroundSink",
    "FileSink",
    "FramesSink",
    "HttpSink",
    "JsonLinesSink",
    "JsonLinesStream",
    "Limits",
    "NoRoom",
    "PatientSink",
    "ProgramSink",
    "SegmentsSink",
    "Sink",
    "SinkGroup",
    "VideoSink",
    "WindowSink",
    "open_sinks",
    "why_no_window",
]
