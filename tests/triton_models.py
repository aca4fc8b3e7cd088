"""Models of a real Triton server for the tests of the client, and what they must find."""

import re
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tests.cli_runner import call
from yolov3_trt.detections import Detections
from yolov3_trt.jobs.export import export as export_model
from yolov3_trt.meta import Batch
from yolov3_trt.models import load_model

REAL = "yolo-fastest-1.1"
BATCH = Batch(1, 4, 8)  # as the other tests of the server export them, so that they share the exports
# Runs a graph as Triton's onnxruntime backend does, which the server of the tests does not have.
STAND_IN = """
from pathlib import Path
import onnxruntime, triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options)
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        answers = []
        for request in requests:
            arrays = self.session.run(self.names, {"images": request.inputs()[0].as_numpy()})
            answers.append(triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(self.names, arrays)]))
        return answers
"""


def exporter(folder: Path, data: Path | None = None) -> Callable[[str], Path]:
    """Exports models, each once: the bundled one, and REAL of the reference data."""

    @cache
    def export(name: str) -> Path:
        path = folder / f"{name}.onnx"
        is_real = data is not None and name == REAL
        model = load_model(data / "models" / f"{name}.cfg", names="coco") if is_real and data else load_model(name)
        export_model(model, path, batch=BATCH)
        return path

    return export


def deploy(repository: Path, artifact: Path, name: str) -> None:
    """Serve an artifact by the python variant."""
    assert call("deploy", "triton", artifact, "-o", repository, "--name", name, "--variant", "python") == 0


def deploy_stand_in(repository: Path, artifact: Path, name: str) -> None:
    """Serve an artifact as the onnxruntime variant, config and all, run by STAND_IN."""
    assert call("deploy", "triton", artifact, "-o", repository, "--name", name, "--variant", "onnxruntime") == 0
    config = repository / name / "config.pbtxt"
    text = config.read_text().replace('backend: "onnxruntime"', 'backend: "python"')
    config.write_text(re.sub(r"^(platform|default_model_filename):.*\n", "", text, flags=re.MULTILINE))
    (repository / name / "1" / "model.py").write_text(STAND_IN)


def png_of(height: int, width: int) -> bytes:
    """A PNG of black pixels, small as a file whatever its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    lines = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def assert_equal(found: Detections, expected: Detections) -> None:
    """The same columns; a client that is not this package's knows no class names."""
    assert found.class_names in ((), expected.class_names)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
