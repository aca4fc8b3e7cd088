"""Pictures of a report: small, with what each row found drawn onto them."""

from pathlib import Path

from yolov3_trt.benchmarking.results import BenchmarkResult
from yolov3_trt.camera.draw import draw_detections
from yolov3_trt.errors import require
from yolov3_trt.preprocess import Image

_SIDE = 640  # px, the longer one at most
_QUALITY = 85


def benchmark_gallery(result: BenchmarkResult) -> list[tuple[str, dict[str, bytes]]]:
    """The first pictures as each way to run an artifact sees them: (name of the picture, label of a row -> JPEG file)."""
    # Rows that differ in the batch alone find the same: the first stands for all.
    ways = {(row.artifact, row.backend, row.precision, row.device): row for row in reversed(result.rows) if row.found}
    rows = [row for row in result.rows if row in ways.values()]
    return [
        (
            Path(picture.name).name,
            {row.label: small_jpeg(draw_detections(picture.pixels, row.found[number])) for row in rows},
        )
        for number, picture in enumerate(result.shown)
    ]


def small_jpeg(picture: Image) -> bytes:
    """A picture as a small JPEG file."""
    cv2 = require("cv2", extra="opencv")
    scale = min(1.0, _SIDE / max(picture.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in picture.shape[1::-1])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    encoded: bytes = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
    return encoded
