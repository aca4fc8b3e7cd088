"""What travels from a source through the detector to the sinks."""

from dataclasses import dataclass

from yolov3_trt.preprocess import Image


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture of a source and when it was taken."""

    pixels: Image  # uint8 (H, W, 3) BGR, the frame's own memory
    source: str  # `Source.name`
    index: int  # 0 for the first of its source; gaps are frames that were dropped
    captured_s: float  # time.monotonic() when the source had it
