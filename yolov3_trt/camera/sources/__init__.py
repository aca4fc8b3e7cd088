"""Where frames come from: by URI, files and cameras alike."""

from yolov3_trt.camera.sources.base import Capture, LiveSource, Source, SourceOptions
from yolov3_trt.camera.sources.folder import PicturesSource
from yolov3_trt.camera.sources.shapes import ShapesSource
from yolov3_trt.camera.sources.uri import open_source, split_uris
from yolov3_trt.camera.sources.video import VideoSource

__all__ = [
    "Capture",
    "LiveSource",
    "PicturesSource",
    "ShapesSource",
    "Source",
    "SourceOptions",
    "VideoSource",
    "open_source",
    "split_uris",
]
