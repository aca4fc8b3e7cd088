"""TensorRT's own calibration cache, for implicit INT8 and DLA on TensorRT up to 10.

A text: `TRT-<version>-EntropyCalibration2`, then `tensor name: <8 hex digits>` a line, the big-endian float32 of the
tensor's scale, amax / 127. The second word names the calibrator class that reads it, not how the ranges were found.
"""

import re
import struct

from yolov3_trt.calibration.observers import scale_from_amax
from yolov3_trt.calibration.table import CalibrationTable
from yolov3_trt.errors import CalibrationError

_HEADER = re.compile(r"TRT-\d{4,6}-\w+Calibration2?")
_LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})")


def tensorrt_cache_text(table: CalibrationTable, version: int = 8601) -> str:
    """A table as TensorRT's calibration cache.

    Args:
        table: whose tensor names are those of the ONNX graph that TensorRT will read.
        version: of that TensorRT, its digits in a row as in the headers it writes: 8601 is 8.6.1.

    Raises:
        CalibrationError: a name is empty or has a line break.
    """
    lines = [f"TRT-{version}-EntropyCalibration2"]
    for name, amax in table.amax.items():
        if name.splitlines() != [name]:
            raise CalibrationError(f"tensor {name!r}: TensorRT's cache has one tensor a line; rename it in the graph")
        lines.append(f"{name}: {struct.pack('>f', scale_from_amax(amax)).hex()}")
    return "\n".join(lines) + "\n"


def amax_from_tensorrt_cache(text: str) -> dict[str, float]:
    """The ranges in a calibration cache: 127 times the scale, by tensor; `scale_from_amax` gives the same scales back.

    Raises:
        CalibrationError: it is no such text; the message has the line.
    """
    header, *lines = text.splitlines() or [""]
    if not _HEADER.fullmatch(header.strip()):
        raise CalibrationError(
            f"line 1: {header[:60]!r}; expected the header of a calibration cache, TRT-8601-EntropyCalibration2"
        )
    amax: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        if not (match := _LINE.fullmatch(line)):
            raise CalibrationError(f"line {number}: {line[:60]!r}; expected 'tensor name: 8 hex digits'")
        (scale,) = struct.unpack(">f", bytes.fromhex(match[2]))
        amax[match[1]] = scale * 127
    return amax
