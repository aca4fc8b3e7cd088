"""The Gst-nvinfer configuration that `deploy deepstream` writes. DeepStream itself is not here: the text is checked."""

from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli_runner import call
from tests.deploy.test_deploy_repository import DYNAMIC, engine_file, onnx_file
from tests.models.test_family import kind_meta
from yolov3_trt.backends.trt import TensorRTBackend
from yolov3_trt.deploy.deepstream import Parser, config_from_artifact
from yolov3_trt.engine.plan import Plan
from yolov3_trt.engine.verdict import Verdict
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import Resize
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import InputStage, OutputStage, Precision, Preprocess, RowsLayout, load_engine_meta

DETECTIONS = replace(DYNAMIC, output_stage=OutputStage.DETECTIONS, precision=Precision.FP16)
PARSER = ("--parser-library", "libmine.so", "--parser-function", "NvDsInferParseMine")


def read(path: Path) -> ConfigParser:
    """As GLib reads a key file, which Gst-nvinfer uses."""
    parser = ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def test_detections_go_with_each_frame_as_tensors(tmp_path: Path):
    (tmp_path / "engines").mkdir()
    engine = engine_file(tmp_path / "engines" / "a.engine", meta=DETECTIONS)
    assert call("deploy", "deepstream", engine, "-o", tmp_path / "ds" / "infer.txt") == 0
    config = read(tmp_path / "ds" / "infer.txt")
    assert config.sections() == ["property"]
    assert dict(config["property"]) == {
        "gpu-id": "0",
        "process-mode": "1",
        "gie-unique-id": "1",
        "interval": "0",
        "model-engine-file": "../engines/a.engine",
        "labelfile-path": "infer.labels.txt",
        "batch-size": "8",
        "network-mode": "2",
        "infer-dims": "3;256;256",
        "net-scale-factor": "0.00392156862745098",
        "model-color-format": "0",
        "maintain-aspect-ratio": "1",
        "symmetric-padding": "1",
        "num-detected-classes": "6",
        "network-type": "100",
        "output-tensor-meta": "1",
    }
    assert (tmp_path / "ds" / "infer.labels.txt").read_text().splitlines()[0] == "circle"
    text = (tmp_path / "ds" / "infer.txt").read_text()
    assert "# No parser is needed: each frame carries the tensors num_detections, boxes, scores, class_ids\n" in text
    assert "# DeepStream pads with black, this model was made for grey 128" in text


def test_logits_need_a_parser_which_is_told_the_anchors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    onnx = onnx_file(tmp_path / "a.onnx", replace(DYNAMIC, preprocess=Preprocess(resize=Resize.STRETCH)))
    assert call("deploy", "deepstream", onnx, "-o", tmp_path / "i.txt") == 1
    assert "its outputs are logits, which Gst-nvinfer cannot read; export it with" in capsys.readouterr().err
    assert call("deploy", "deepstream", onnx, "-o", tmp_path / "i.txt", *PARSER) == 0
    config = read(tmp_path / "i.txt")
    own = config["property"]
    assert (own["onnx-file"], own["network-type"], own["cluster-mode"]) == ("a.onnx", "0", "2")
    assert (
        own["model-engine-file"] == f"a.onnx_b{own['batch-size']}_gpu0_fp32.engine"
    )  # what it compiled at its first start
    assert (own["custom-lib-path"], own["parse-bbox-func-name"]) == ("libmine.so", "NvDsInferParseMine")
    assert (own["maintain-aspect-ratio"], own["network-mode"]) == ("0", "0")
    thresholds = {"pre-cluster-threshold": "0.25", "topk": "300", "nms-iou-threshold": "0.45"}
    assert dict(config["class-attrs-all"]) == thresholds
    text = (tmp_path / "i.txt").read_text()
    assert "NvDsInferParseMine in libmine.so is yours to provide" in text and "head0 64x64 82x82 108x108" in text


def test_detections_with_a_parser_are_not_suppressed_again(tmp_path: Path):
    engine = engine_file(tmp_path / "a.engine", meta=DETECTIONS)
    assert call("deploy", "deepstream", engine, "-o", tmp_path / "i.txt", *PARSER) == 0
    config = read(tmp_path / "i.txt")
    assert config["property"]["cluster-mode"] == "4" and "nms-iou-threshold" not in config["class-attrs-all"]


def test_what_deepstream_cannot_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rtx = engine_file(tmp_path / "rtx.engine", "tensorrt_rtx", DETECTIONS)
    pixels = onnx_file(tmp_path / "p.onnx", replace(DETECTIONS, input_stage=InputStage.PIXELS))
    for artifact, text in (
        (rtx, "built by tensorrt_rtx, which DeepStream does not load; build it with --flavor tensorrt"),
        (pixels, "it takes uint8 pixels, but Gst-nvinfer gives float32 planes; export it with --input-stage tensor"),
    ):
        assert call("deploy", "deepstream", artifact, "-o", tmp_path / "i.txt") == 1
        assert text in capsys.readouterr().err
    assert call("deploy", "deepstream", rtx, "-o", tmp_path / "i.txt", "--parser-library", "l.so") == 2
    assert call("deploy", "deepstream", rtx, "-o", tmp_path / "i.engine") == 2
    assert not list(tmp_path.glob("i.*"))


@pytest.mark.parametrize(
    "kind, text",
    [
        (
            HeadKind.SCALED,
            "A*(5+C) planes in the order x, y, w, h, object, classes of new_coords=1: w, h = (2 sigmoid)^2",
        ),
        (
            HeadKind.REGION,
            "A*(5+C) planes in the order x, y, w, h, object, classes of YOLOv2: a softmax over the classes",
        ),
        (
            HeadKind.GAUSSIAN,
            "A*(9+C) planes in the order x, y, w, h, object, classes: x, y, w, h each with its uncertainty",
        ),
    ],
)
def test_a_parser_is_told_the_kind_of_the_heads(kind: HeadKind, text: str):
    parser = Parser(Path("libmine.so"), "f")
    assert text in config_from_artifact(Path("a.onnx"), kind_meta(kind), Path("a.labels.txt"), parser)


def test_rows_are_for_other_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = replace(DYNAMIC, output_stage=OutputStage.ROWS, rows_layout=RowsLayout.OPENCV)
    onnx = onnx_file(tmp_path / "a.onnx", rows)
    assert call("deploy", "deepstream", onnx, "-o", tmp_path / "i.txt", *PARSER) == 1
    assert call("deploy", "triton", onnx, "-o", tmp_path / "models") == 1
    texts = capsys.readouterr().err.splitlines()
    assert len(texts) == 2 and all(
        "it gives rows, which are for programs with a suppression of their own" in t for t in texts
    )
    with pytest.raises(BackendError, match="it gives rows, for programs of your own that run the plan"):
        TensorRTBackend(Plan(onnx, load_engine_meta(engine_file(tmp_path / "a.engine", meta=rows)), b"", Verdict(True)))
