"""From what a user writes to a source."""

import logging
from collections.abc import Sequence
from pathlib import Path

from yolov3_trt.camera.sources.base import LiveSource, Source, SourceOptions
from yolov3_trt.camera.sources.device import CSI_FORM, CsiCamera, UsbCamera
from yolov3_trt.camera.sources.folder import PicturesSource
from yolov3_trt.camera.sources.shapes import SHAPES_FORM, shapes_from_uri
from yolov3_trt.camera.sources.stream import STREAM_SCHEMES, NetworkStream
from yolov3_trt.camera.sources.video import VideoSource
from yolov3_trt.data.images import is_film
from yolov3_trt.data.video import VIDEO_SUFFIXES
from yolov3_trt.errors import CameraError

_LOG = logging.getLogger(__name__)
_DEFAULT = SourceOptions()


def open_source(uri: str, options: SourceOptions = _DEFAULT) -> Source | LiveSource:
    """What a URI names: files and the generator are opened, cameras and streams are left for the loop to open.

    Args:
        uri: `0` or `/dev/video0` (USB camera), `csi://0` (Jetson camera), `rtsp://…`, `http://…`, a video file, a folder
            or glob of pictures, or `shapes://` (the generator).
        options: what is asked for.

    Raises:
        CameraError: it names nothing, or a file cannot be opened.
    """
    if (uri.isascii() and uri.isdigit()) or uri.startswith("/dev/"):
        return UsbCamera(uri, options)
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if scheme == "csi":
        return CsiCamera(uri, options)
    if scheme == "shapes":
        return shapes_from_uri(uri, options)
    if scheme in STREAM_SCHEMES:
        return NetworkStream(uri, options)
    if scheme or not uri:
        raise CameraError(f"{uri!r}: not a source; {_expected()}")
    if is_film(Path(uri)):
        return VideoSource(Path(uri), is_paced=options.realtime)
    if Path(uri).is_file() or Path(uri).is_dir() or any(character in uri for character in "*?["):
        return PicturesSource(uri, fps=options.fps, is_paced=options.realtime)
    raise CameraError(f"{uri!r}: there is no such file or folder; {_expected()}")


def split_uris(texts: Sequence[str]) -> list[str]:
    """Each text is a URI or several with commas between; a comma that belongs to a URI is written %2C.

    A file whose name has commas is one.
    """
    uris: list[str] = []
    for text in texts:
        uris += [text] if Path(text).exists() else [part.strip() for part in text.split(",")]
    return uris


def _expected() -> str:
    return (
        f"expected a camera (0, /dev/video0, {CSI_FORM}), a stream (rtsp://, http://), a video file "
        f"({', '.join(sorted(VIDEO_SUFFIXES))}), a folder or glob of pictures, or generated frames ({SHAPES_FORM})"
    )
