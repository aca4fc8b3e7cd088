"""What `deploy frigate` writes, read as Frigate reads it: its post-processing is written out here, Frigate is not run."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import yaml

from tests.cli_runner import call
from tests.deploy.test_deploy_repository import DYNAMIC, onnx_file
from yolov3_trt import open_detector
from yolov3_trt.data.images import load_image
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import Batch, OutputStage, RowsLayout
from yolov3_trt.models import sample_picture


def test_frigate_finds_what_the_model_finds(tmp_path: Path):
    graph = export("shapes", tmp_path / "s.onnx", output_stage="rows", rows_layout="channels_first").path
    assert call("deploy", "frigate", graph, "-o", tmp_path / "model_cache") == 0
    config = yaml.safe_load((tmp_path / "model_cache" / "s.frigate.yml").read_text())
    assert config["detectors"] == {"onnx": {"type": "onnx"}}
    model = config["model"]
    assert {key: model[key] for key in ("model_type", "input_tensor", "input_dtype", "input_pixel_format")} == {
        "model_type": "yolo-generic",
        "input_tensor": "nchw",
        "input_dtype": "float",
        "input_pixel_format": "rgb",
    }
    width, height = model["width"], model["height"]
    path, labels = (tmp_path / "model_cache" / Path(model[key]).name for key in ("path", "labelmap_path"))
    names = dict(line.split(" ", maxsplit=1) for line in labels.read_text().splitlines())

    picture = cv2.resize(load_image(sample_picture()), (width, height))  # Frigate stretches
    tensor = np.float32(picture[None, :, :, ::-1].transpose(0, 3, 1, 2)) / 255
    (output,) = onnxruntime.InferenceSession(path).run(None, {"images": tensor})
    rows = output.squeeze()
    rows = rows.T if rows.shape[0] < rows.shape[1] else rows
    rows = rows[rows[:, 4:].max(axis=1) > 0.4]
    found = [(names[str(row[4:].argmax())], row[4:].max(), *row[:4]) for row in rows]

    with open_detector("shapes", conf=0.4) as detect:
        expected = detect(picture)
    assert len(expected) > 2
    for one in expected:
        x0, y0, x1, y1 = one.xyxy
        box = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
        assert any(
            name == one.class_name and abs(score - one.score) < 1e-4 and np.abs(np.subtract(place, box)).max() < 1
            for name, score, *place in found
        ), one


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"output_stage": OutputStage.DETECTIONS}, "it gives detections; expected one tensor of rows"),
        ({"output_stage": OutputStage.ROWS, "rows_layout": RowsLayout.OPENCV}, "it gives rows as opencv; expected one"),
        (
            {"output_stage": OutputStage.ROWS, "rows_layout": RowsLayout.CHANNELS_FIRST, "batch": Batch(2, 2, 2)},
            "its batch is 2; expected 1, Frigate gives one picture",
        ),
    ],
)
def test_what_frigate_cannot_read_is_refused(
    changes: dict[str, object], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    graph = onnx_file(tmp_path / "a.onnx", replace(DYNAMIC, **changes))
    assert call("deploy", "frigate", graph, "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert text in error and "export it with --output-stage rows --rows-layout channels_first" in error
    assert not (tmp_path / "out").exists()
