"""What the installed OpenCV was built with, which package brought it, and how large a picture it decodes."""

import base64
import functools
import importlib.metadata
import os
import re
import tempfile
from pathlib import Path

from yolov3_trt.errors import require

# OpenCV's own limit, which its decoders keep by themselves: a file of a hundred kilobytes can say that it holds gigabytes.
# OpenCV reads it once, as it is imported, so `yolov3_trt/__init__.py` sets it, unless the user has.
PIXEL_LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS"

PIP_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


# Two grey pictures of 32x32 px as interlaced MPEG-2. The OpenCV wheels from 4.13 on have FFmpeg 8, whose swscale refuses what
# they ask of it for interlaced frames: `read` says that all is well and gives black, or what lay in memory before.
INTERLACED_M2V = (
    "AAABswIAIBP//+AYAAABtRSCAAEAAAAAAbgACABAAAABAAAP//gAAAG1j//zAAAAAAEBEy0pSItKUpEQAAABAhMtKUiLSlKREAAAAbMCACAT///gGAAAAbUUggAB"
    "AAAAAAG4AAgAwAAAAQAAD//4AAABtY//8wAAAAABARMtKUiLSlKREAAAAQITLSlIi0pSkRA="
)


def is_built_with(name: str, build_information: str) -> bool:
    """What `cv2.getBuildInformation` says, e.g. `    GStreamer:                   YES (1.20.3)`."""
    return any(line.split()[:2] == [f"{name}:", "YES"] for line in build_information.splitlines())


def installed_pip_packages() -> tuple[str, ...]:
    """Those of PIP_PACKAGES that are installed; on a Jetson they shadow its own OpenCV, which has GStreamer."""
    installed = []
    for name in PIP_PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        installed.append(name)
    return tuple(installed)


def max_pixels() -> int:
    """Of a picture, from a file or in a request."""
    given = re.fullmatch(r"([0-9]{1,18})(MB|Mb|mb|KB|Kb|kb)?", os.environ.get(PIXEL_LIMIT, ""))  # as OpenCV reads it
    if given is None:
        return 1 << 30  # OpenCV's default
    return int(given[1]) * {"m": 1 << 20, "k": 1 << 10}.get((given[2] or "").lower()[:1], 1)


def too_large(what: str) -> str:
    """What to say of a picture beyond the limit."""
    return (
        f"{what}; expected at most {max_pixels() / 1e6:g} megapixels: make it smaller, or allow more by the environment "
        f"variable {PIXEL_LIMIT}"
    )


@functools.cache
def spoils_interlaced() -> bool:
    """Whether this OpenCV gives black or old pictures of interlaced video without an error; tried once with a tiny clip."""
    cv2 = require("cv2", extra="opencv")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "interlaced.m2v")
        path.write_bytes(base64.b64decode(INTERLACED_M2V))
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        is_read, picture = video.read()
        video.release()
    return bool(is_read and not 112 < picture.min() <= picture.max() < 144)
