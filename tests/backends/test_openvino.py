"""OpenVINO as a backend: the numbers of ONNX Runtime, two batches under way, and nothing silent about how it computes."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolov3_trt.backends import OverlappingBackend, RunPrecision, open_backend
from yolov3_trt.backends import ov as module
from yolov3_trt.backends.host_path import HostPath
from yolov3_trt.benchmarking.runs import BenchmarkConfig, run_specs
from yolov3_trt.cpu import cpu_features
from yolov3_trt.detector import open_detector
from yolov3_trt.errors import BackendError
from yolov3_trt.files import cache_folder
from yolov3_trt.jobs.export import export
from yolov3_trt.shapes import shapes_picture

pytest.importorskip("openvino")
TABLE = Path(__file__).parents[2] / "calib" / "shapes-256-mse.json"
INT8 = {"precision": "int8", "table": TABLE}
WHOLE = {"output_stage": "detections", "input_stage": "pixels", "frame_size": "640x480"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all tests, so that a graph is compiled once; the user's own stays as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "openvino-cache"))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    kinds = {"fp32": {"batch": "1:2:3"}, "fp16": {"precision": "fp16"}, "int8": INT8, "whole": WHOLE}
    return {name: export("shapes", folder / f"{name}.onnx", **settings).path for name, settings in kinds.items()}


def pictures(count: int, first: int = 0) -> list[np.ndarray]:
    return [shapes_picture(7, first + k).pixels for k in range(count)]


# FP16 and INT8 round where sums that differ in the last bit may fall to either side.
@pytest.mark.parametrize("kind, count, mean_tolerance", [("fp32", 3, 2e-6), ("fp16", 1, 0.003), ("int8", 1, 0.12)])
def test_outputs_are_those_of_onnx_runtime(graphs: dict[str, Path], kind: str, count: int, mean_tolerance: float):
    with (
        open_backend(graphs[kind], "onnxruntime") as expected,
        open_backend(graphs[kind], "openvino", threads=1) as got,
    ):
        assert isinstance(got, OverlappingBackend) and not isinstance(expected, OverlappingBackend)
        batch, _ = HostPath(expected).prepare(pictures(count))
        wanted, found = expected.infer(batch), got.infer(batch)
        assert list(found) == list(wanted) == list(got.meta.output_names)
        for name, values in wanted.items():
            assert (found[name].shape, found[name].dtype) == (values.shape, values.dtype)
            assert np.abs(found[name] - values).mean() < mean_tolerance, name
        with pytest.raises(
            BackendError, match=r"got a batch of float32 \(9, 3, 256, 256\); expected float32 Nx3x256x256"
        ):
            got.infer(np.zeros((9, 3, 256, 256), np.float32))


def test_a_graph_that_detects_by_itself_finds_the_same(graphs: dict[str, Path]):
    with open_detector(graphs["whole"]) as expected, open_detector(graphs["whole"], backend="openvino") as got:
        for picture in (cv2.resize(one, (640, 480)) for one in pictures(2)):
            wanted, found = expected(picture), got(picture)
            assert len(wanted) > 0 and found.class_ids.tolist() == wanted.class_ids.tolist()
            np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.01)
            np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


def test_two_calls_are_under_way_and_come_back_in_order(graphs: dict[str, Path]):
    with open_detector(graphs["fp32"], backend="openvino") as detector:
        first, second, third = pictures(2), pictures(1, 5), pictures(3, 9)  # batches of several sizes
        alone = [detector.timed(call).detections for call in (first, second, third)]
        assert detector.num_slots == 2
        detector.submit(first)
        detector.submit(second)
        with pytest.raises(BackendError, match="2 results are waiting; take it before the next pictures"):
            detector.submit(third)
        found = [detector.result()]
        detector.submit(third)
        found += [detector.result(), detector.result()]
        for call, expected in zip(found, alone, strict=True):
            assert list(call.stages_s) == ["preprocess", "inference", "postprocess"]
            for one, other in zip(call.detections, expected, strict=True):
                np.testing.assert_allclose(one.xyxy, other.xyxy, atol=0.01)
        detector.submit(first)  # closing waits for it


def test_how_it_computes_is_said_and_what_the_cpu_cannot_do_is_refused(
    graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    try:
        with open_backend(graphs["fp32"], "openvino", precision="bf16") as backend:
            assert backend.fallbacks[0].startswith("computes in bf16, as asked for")
    except BackendError as exc:
        assert "bf16" not in cpu_features() and "does not compute in it on this CPU" in str(exc)
    with pytest.raises(BackendError, match="onnxruntime computes in what the artifact says; leave it out, or run an"):
        open_backend(graphs["fp32"], precision="bf16")
    with pytest.raises(BackendError, match="OpenVINO runs on the CPU here"):
        open_backend(graphs["fp32"], "openvino", device="cuda")
    with pytest.raises(BackendError, match=r"openvino does not run this; it runs on torch"):
        open_backend("shapes", "openvino")
    monkeypatch.setattr(module, "saturates_int8", lambda: True)
    with open_backend(graphs["int8"], "openvino") as backend:
        assert "this CPU has no VNNI, so INT8 is computed in float as the graph is written" in backend.fallbacks[-1]
    monkeypatch.setattr(module, "_AS_WRITTEN", {"NO_SUCH_PROPERTY": 1})  # as an OpenVINO without it
    with open_backend(graphs["int8"], "openvino") as backend:
        assert "sums of INT8 products may be cut off" in backend.fallbacks[-1]
    monkeypatch.setattr(module, "cpu_features", lambda: ("bf16",))
    said = (module._fallbacks(precision, False, False) for precision in (RunPrecision.FP32, RunPrecision.FP16))
    assert ["precision='bf16' is faster" in text or "in fp16, as asked" in text for (text,) in said] == [True, True]


def test_what_is_compiled_is_kept_but_not_where_others_can_write(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder() / "openvino"
    open_backend(graphs["fp32"], "openvino").close()
    (kept,) = folder.iterdir()
    kept.chmod(0o666)
    with caplog.at_level(logging.WARNING):
        open_backend(graphs["fp32"], "openvino").close()
    assert f"{folder}: this cache is not used: {kept} can be written by every user; chmod o-w" in caplog.text
    kept.unlink()
    folder.chmod(0o777)
    open_backend(graphs["fp32"], "openvino").close()
    assert list(folder.iterdir()) == []


def test_a_benchmark_has_a_row_for_each_backend_and_precision(graphs: dict[str, Path]):
    config = BenchmarkConfig(
        (str(graphs["fp32"]),), backends=("onnxruntime", "openvino"), precisions=("fp32", "bf16"), threads=1
    )
    rows = [(run.label, run.backend, run.precision, run.device, run.named) for run in run_specs(config)]
    assert rows == [
        ("fp32.onnx", "onnxruntime", None, "cpu", True),
        ("fp32.onnx openvino", "openvino", None, "cpu", False),
        ("fp32.onnx openvino bf16", "openvino", "bf16", "cpu", False),
    ]


def test_features_are_read_from_what_linux_says_of_a_cpu():
    xeon = "model name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 amx_bf16 avx512_bf16\nbugs\t: none\n"
    assert cpu_features(xeon) == ("AVX2", "AVX-512", "VNNI", "AMX", "bf16")
    assert cpu_features("Features\t: fp asimd asimddp bf16\n") == ("bf16", "dot product")
    assert cpu_features("flags : avx2 avx_vnni\n") == ("AVX2", "VNNI")
    assert cpu_features("") == cpu_features("nothing of it") == ()
