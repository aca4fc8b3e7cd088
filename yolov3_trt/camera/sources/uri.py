"""From what a user writes to a source."""

import logging
import re
from collections import deque
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
from yolov3_trt.masking import masked_address

_LOG = logging.getLogger(__name__)
_DEFAULT = SourceOptions()
_PROGRAM = re.compile(r"exec[:?]")  # a command with its own commas
NAME = re.compile(r"\w[\w.-]{0,39}")  # of a source
_NAMED = re.compile(rf"\s*({NAME.pattern})=(?!=)")
_USER_BEGINS = re.compile(r"^[^@]*//[^/@]+:[^@]*$")  # an address up to a comma in its password, as it seems


def open_source(uri: str, options: SourceOptions = _DEFAULT) -> Source | LiveSource:
    """What a URI names, as `_open` says; `NAME=URI` calls it so in all results.

    Raises:
        CameraError: it names nothing, or a file cannot be opened.
    """
    named = None if Path(uri).exists() else _NAMED.match(uri)
    if named is None:
        return _open(uri, options)
    source = _open(uri[named.end() :], options)
    source.name = named[1]
    return source


def _open(uri: str, options: SourceOptions) -> Source | LiveSource:
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
    uri = uri.strip()
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if scheme == "csi":
        return CsiCamera(uri, options)
    if scheme == "shapes":
        return shapes_from_uri(uri, options)
    if scheme in STREAM_SCHEMES:
        return NetworkStream(uri, options)
    shown = masked_address(uri)
    if scheme or not uri:
        raise CameraError(f"{shown!r}: not a source; {_expected()}")
    if is_film(Path(uri)):
        return VideoSource(Path(uri), is_paced=options.realtime)
    if Path(uri).is_file() or Path(uri).is_dir() or any(character in uri for character in "*?["):
        return PicturesSource(uri, fps=options.fps, is_paced=options.realtime)
    raise CameraError(f"{shown!r}: there is no such file or folder; {_expected()}")


def split_uris(texts: Sequence[str]) -> list[str]:
    """Each text is a URI or several with commas between; a comma that belongs to a URI is written %2C.

    A file whose name has commas is one, so is `exec:PROGRAM`, and commas before the `@` of an address are of its password.
    """
    uris: list[str] = []
    for text in texts:
        if _PROGRAM.match(text) or Path(text).exists():
            uris.append(text)
            continue
        parts = deque(part.strip() for part in text.split(","))
        while parts:
            uri = parts.popleft()
            if _USER_BEGINS.search(uri):
                until_at = next((n for n, part in enumerate(parts, 1) if "@" in part), 0)
                uri = ",".join([uri, *(parts.popleft() for _ in range(until_at))])
            uris.append(uri)
    return uris


def _expected() -> str:
    return (
        f"expected a camera (0, /dev/video0, {CSI_FORM}), a stream (rtsp://, http://), a video file "
        f"({', '.join(sorted(VIDEO_SUFFIXES))}), a folder or glob of pictures, or generated frames ({SHAPES_FORM})"
    )
