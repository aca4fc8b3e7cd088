"""Pictures that lie in the memory of the GPU already, as those of PyTorch, CuPy or a decoder do."""

from dataclasses import dataclass
from typing import Any, TypeGuard

from yolov3_trt.errors import ImageError
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image

_INTERFACE = "__cuda_array_interface__"


@dataclass(frozen=True)
class DeviceFrame:
    """A picture on the GPU, uint8 (H, W, 3) BGR."""

    address: int
    image_hw: HW
    row_stride: int  # bytes from one line to the next, 3 W or more: a decoder's pitch


def is_on_device(image: object) -> TypeGuard[Image]:
    """Whether something shows memory of a GPU, by Numba's `__cuda_array_interface__`; it goes where pictures go."""
    return getattr(image, _INTERFACE, None) is not None


def device_frame(image: object) -> DeviceFrame:
    """A picture that `is_on_device`.

    Raises:
        ImageError: it is none, or work on it is still in a stream.
    """
    shown: dict[str, Any] = getattr(image, _INTERFACE)
    shape, strides = tuple(shown["shape"]), shown.get("strides")
    if shown["typestr"] not in ("|u1", "<u1") or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ImageError(f"an image on the GPU is {shown['typestr']} {shape}; expected uint8 (height, width, 3) BGR")
    row_stride, *pixel_strides = strides or (3 * shape[1], 3, 1)
    if tuple(pixel_strides) != (3, 1) or row_stride < 3 * shape[1]:
        raise ImageError(
            f"an image on the GPU has strides {strides}; expected pixels side by side and lines one after the other, "
            "(pitch, 3, 1)"
        )
    if shown.get("stream") is not None:
        raise ImageError(
            "an image on the GPU is still written by a stream; wait for that stream, and give the picture without it"
        )
    return DeviceFrame(int(shown["data"][0]), (shape[0], shape[1]), row_stride)
