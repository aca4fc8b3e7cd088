"""Where the pictures of a video change their size: OpenCV's FFmpeg squashes all of them into the first size without a word."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from yolov3_trt.errors import require
from yolov3_trt.geometry import HW

# What of a key frame's packet holds the size, by the codecs in which it may change.
_HEADERS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"^\x00?\x00\x00\x01[^\x00\xb0\xb3].{,4096}?(\x00\x00\x01[\x27\x47\x67].+?)\x00\x00\x01",  # H.264: parameter set
        rb"^\x00?(\x00\x00\x01[\x27\x47\x67].+?)\x00\x00\x01",
        rb"^\x00?\x00\x00\x01[\x40\x42\x46\x4e].{,4096}?(\x00\x00\x01\x42\x01.+?)\x00\x00\x01",  # HEVC: the same
        rb"^\x00\x00\x01[\x00\xb0].{,4096}?(\x00\x00\x01[\x20-\x2f].+?)\x00\x00\x01",  # MPEG-4, layer
        rb"^(\x00\x00\x01\xb3...)(?!\x00\x00\x01)",  # MPEG-1 and 2, sequence; followed at once by a start code it is of MPEG-4
        rb"^\xff\xd8.*?(\xff[\xc0-\xc2]..\x08....)",  # Motion JPEG, frame
        rb"^...(\x9d\x01\x2a....)",  # VP8
        rb"^([\x80-\x83]\x49\x83\x42.{6})",  # VP9
    )
)


class SizeChanges:
    """Reads the packets of a video beside its frames."""

    def __init__(self, path: Path) -> None:
        """Open it once more; where OpenCV cannot give its packets, no change is seen."""
        cv2 = require("cv2", extra="opencv")
        self._packets = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
        self._is_open = self._packets.isOpened() and self._packets.set(cv2.CAP_PROP_FORMAT, -1)
        self._header: bytes | None = None
        self._first_hw: HW | None = None
        self.image_hw: HW | None = None  # of the packet read last, once it was another than that of the first

    def advance(self, count: int) -> None:
        """Read on by so many packets."""
        cv2 = require("cv2", extra="opencv")
        for _ in range(count):
            if not self._is_open or not self._packets.grab():
                return
            if self._packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
                good, packet = self._packets.retrieve()
                if good and packet is not None:
                    self._look_at(packet.tobytes())

    def close(self) -> None:
        """Close the file."""
        self._packets.release()

    def _look_at(self, packet: bytes) -> None:
        found = next(filter(None, (pattern.match(packet) for pattern in _HEADERS)), None)
        if found is None or found[1] == self._header:
            return
        is_first, self._header = self._header is None, found[1]
        image_hw = _size_in(found[1], packet)
        if is_first:
            self._first_hw = image_hw
        elif image_hw is not None and image_hw != (self.image_hw or self._first_hw):
            self.image_hw = image_hw


def _size_in(header: bytes, packet: bytes) -> HW | None:
    """What a key frame's header says; None where it says nothing."""
    if header.startswith(b"\xff"):
        return int.from_bytes(header[5:7], "big"), int.from_bytes(header[7:9], "big")
    if header.startswith(b"\x9d"):
        width, height = (int.from_bytes(header[at : at + 2], "little") & 0x3FFF for at in (3, 5))
        return height, width
    if header[1:4] == b"\x49\x83\x42":
        both = int.from_bytes(header[4:10], "big") >> 12  # behind 4 bits, 16 for each side less one
        return (both & 0xFFFF) + 1, (both >> 16 & 0xFFFF) + 1
    if header[3] == 0xB3:
        return int.from_bytes(header[5:7], "big") & 0xFFF, int.from_bytes(header[4:6], "big") >> 4
    return _size_by_opencv(packet)


def _size_by_opencv(packet: bytes) -> HW | None:
    cv2: Any = require("cv2", extra="opencv")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "packet")
        path.write_bytes(packet)
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        width, height = (int(video.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        video.release()
    return (height, width) if width > 0 and height > 0 else None
