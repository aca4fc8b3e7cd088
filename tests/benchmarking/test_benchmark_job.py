"""`benchmark` from Python: what it takes and refuses, and what it gives back."""

import json
from pathlib import Path
from typing import Any

import pytest

import yolov3_trt
from yolov3_trt.errors import SettingError
from yolov3_trt.jobs.export import export as export_model
from yolov3_trt.models import load_model
from yolov3_trt.reporter import Reporter
from yolov3_trt.shapes import shapes_picture


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(load_model("shapes"), tmp_path_factory.mktemp("job") / "shapes.onnx").path


def test_artifacts_are_timed_and_held_to_the_reference(onnx: Path):
    said: list[str] = []
    result = yolov3_trt.benchmark(
        ["shapes", onnx], device="cpu", baselines="opencv", frames=3, warmup=0, roofline=False, threads=1,
        reporter=Reporter(say=said.append),
    )  # fmt: skip
    assert isinstance(result, yolov3_trt.BenchmarkResult) and result.passed and result.faults == ()
    assert [row.label for row in result.rows] == ["shapes", "shapes opencv", "shapes.onnx"]
    assert (result.reference, result.rounds, result.threads, result.rooflines) == ("shapes", 3, 1, ())
    reference, opencv, graph = result.rows
    assert reference.parity is None and opencv.parity.passed and graph.parity.passed
    assert graph.parity.pairs.images == 3 and graph.parity.pairs.matched > 0
    assert [len(found) for found in graph.found] == [len(found) for found in reference.found]
    assert len(result.shown) == 3 and "opening shapes ..." in said
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert content["rows"][2]["latency_ms"]["p50"] == graph.timings.latency_ms["p50"]


def test_nothing_is_printed(onnx: Path, capsys: pytest.CaptureFixture[str]):
    yolov3_trt.benchmark(onnx, reference="none", frames=1, warmup=0, roofline=False)
    assert capsys.readouterr() == ("", "")


def test_batches_are_a_number_several_or_a_text(tmp_path: Path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), shapes_picture(7, 0).pixels)
    for batch in ([1, 2], "1,2", (1, 2)):
        result = yolov3_trt.benchmark(
            "shapes", images=tmp_path, device="cpu", batch=batch, frames=1, warmup=0, roofline=False
        )
        assert [row.batch for row in result.rows] == [1, 2]
    assert result.decode_ms is not None and result.source == str(tmp_path)


@pytest.mark.parametrize(
    "keywords, text",
    [
        ({"device": "tpu"}, "device: got 'tpu'; expected one of auto, cpu, cuda"),
        ({"baselines": ["caffe"]}, "baselines: got 'caffe'; expected opencv"),
        ({"artifacts": "s.onnx", "baselines": "opencv"}, "baselines: given without a model, which is what they read"),
        ({"onnxruntime_devices": "npu"}, "onnxruntime_devices: got 'npu'; expected cpu or cuda"),
        ({"torch_variants": "fp8"}, "torch_variants: PyTorch variant 'fp8': 'fp8' is unknown; expected fp32, fp16"),
        ({"batch": 0}, "batch: got 0; expected 1 to 1024"),
        ({"batch": "1,x"}, "batch: got '1,x'; expected numbers from 1 on, e.g. 1,4,8"),
        ({"frames": 0}, "frames: got 0; expected 1 to"),
        ({"threads": -1}, "threads: got -1; expected 1 to 1024"),
        ({"reference": "b.onnx"}, "reference: got 'b.onnx'; expected an artifact, a row, a backend or none"),
        ({"annotations": "a.json"}, "annotations: given without images; expected images to be the one folder"),
        ({"artifacts": []}, "artifacts: got none; expected what open_detector opens, one or more"),
        ({"artifacts": None}, "artifacts: got None; expected a text"),
        ({"input_size": "large"}, "input_size: got 'large'; expected WIDTHxHEIGHT or one number"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_opened(keywords: dict[str, Any], text: str):
    with pytest.raises(SettingError) as caught:
        yolov3_trt.benchmark(**{"artifacts": "missing.onnx", **keywords})
    assert str(caught.value).startswith(text)
