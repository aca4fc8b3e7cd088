"""TensorRT's own calibration cache, for implicit INT8 and DLA on TensorRT up to 10.

A text: `TRT-<version>-EntropyCalibration2`, then `tensor name: <8 hex digits>` a line, the big-endian float32 of the
tensor's scale, amax / 127. The second word names the calibrator class that reads it, not how the ranges were found.
"""

import struct

from yolov3_trt.calibration.observers import scale_from_amax
from yolov3_trt.calibration.table import CalibrationTable
from yolov3_trt.errors import CalibrationError


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
