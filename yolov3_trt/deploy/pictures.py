"""Pictures in requests: they may come from anybody."""

from typing import Any

from numpy.typing import NDArray

from yolov3_trt.data.images import decode_image
from yolov3_trt.errors import ImageError
from yolov3_trt.opencv import max_pixels, too_large
from yolov3_trt.preprocess import Image, check_image

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def decode_picture(content: bytes) -> Image:
    """Decode a JPEG or PNG, upright by its EXIF orientation.

    Returns:
        uint8 (H, W, 3) BGR, as `images.load_image` reads the same file.

    Raises:
        ImageError: it is neither, damaged, cut short, or too large.
    """
    if not content.startswith(_MAGIC):  # OpenCV has decoders for much more, which strangers need not try
        raise ImageError(f"{len(content)} bytes that are neither a JPEG nor a PNG; send one, or raw frames")
    return decode_image(content)


def check_frame(frame: NDArray[Any]) -> Image:
    """Check a raw frame.

    Raises:
        ImageError: it is not uint8 (H, W, 3), is empty, or too large.
    """
    check_image(frame)
    if frame.shape[0] * frame.shape[1] > max_pixels():
        raise ImageError(too_large(f"a picture of {frame.shape[0]}x{frame.shape[1]} px"))
    return frame
