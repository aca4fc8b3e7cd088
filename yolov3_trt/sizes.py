"""Sizes in px, and how a picture comes to the network's; beside no NumPy, so that settings load at once."""

from enum import Enum

HW = tuple[int, int]  # (height, width), px


class Resize(str, Enum):
    """How an image is brought to the network's input size."""

    LETTERBOX = "letterbox"  # keep the aspect ratio, pad the rest
    STRETCH = "stretch"  # fill the input, aspect ratio lost
