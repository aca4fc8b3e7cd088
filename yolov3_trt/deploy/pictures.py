"""Pictures in requests: they may come from anybody, so nothing is decoded before the header says how large it becomes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import ImageError, require
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image, check_image

MAX_PIXELS = 64_000_000  # of a picture; a file of a few kilobytes can hold a thousand times that

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_SOS = 0xDA  # start of scan: what follows is no longer segments
# Start of frame, of all kinds of JPEG; C4, C8 and CC are other segments.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_picture(content: bytes) -> Image:
    """Decode a JPEG or PNG, upright by its EXIF orientation.

    Returns:
        uint8 (H, W, 3) BGR, as `images.load_image` reads the same file.

    Raises:
        ImageError: it is neither, damaged, cut short, or has more than MAX_PIXELS.
    """
    cv2 = require("cv2", extra="opencv")
    if content.startswith(_PNG):
        image_hw = _png_hw(content)
    elif content.startswith(_JPEG):
        image_hw = _jpeg_hw(content)
    else:
        raise ImageError(f"{len(content)} bytes that are neither a JPEG nor a PNG; send one, or raw frames")
    check_size(image_hw)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        raise ImageError(f"OpenCV refuses this picture ({exc.err})") from exc
    if pixels is None:
        raise ImageError(f"{len(content)} bytes that begin like a picture, but OpenCV cannot decode them: damaged")
    return np.asarray(pixels)


def check_frame(frame: NDArray[Any]) -> Image:
    """Check a raw frame.

    Raises:
        ImageError: it is not uint8 (H, W, 3), is empty, or has more than MAX_PIXELS.
    """
    check_image(frame)
    check_size((frame.shape[0], frame.shape[1]))
    return frame


def check_size(image_hw: HW) -> None:
    """Refuse a picture that would take too much memory.

    Raises:
        ImageError: a side is 0, or there are more than MAX_PIXELS.
    """
    height, width = image_hw
    if not 1 <= height * width <= MAX_PIXELS:
        raise ImageError(f"a picture of {height}x{width} px; expected at most {MAX_PIXELS / 1e6:.0f} megapixels")


def _png_hw(content: bytes) -> HW:
    if content[12:16] != b"IHDR" or len(content) < 24:
        raise ImageError("a PNG without its header; it is damaged")
    if content.rfind(b"IEND") < 0:  # OpenCV would fill what is missing with black
        raise ImageError("this PNG is cut short; send the whole file")
    return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")


def _jpeg_hw(content: bytes) -> HW:
    """Height and width from the start of frame; the scan, which comes later, must have an end marker."""
    at, image_hw = 2, None
    while content[at : at + 1] == b"\xff":
        marker = content[at + 1] if at + 1 < len(content) else _SOS
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _SOF and image_hw is None:
            image_hw = int.from_bytes(content[at + 5 : at + 7], "big"), int.from_bytes(content[at + 7 : at + 9], "big")
        if marker == _SOS:
            break
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    if image_hw is None:
        raise ImageError("a JPEG that does not say its size; it is damaged")
    if content.find(b"\xff\xd9", at) < 0:
        raise ImageError("this JPEG is cut short; send the whole file")
    return image_hw
