"""`bench` on the bundled model and a real one: rows, gate, report, and what goes wrong."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli_runner import Run, call, files_in
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import load_model_meta, save_sidecar

REAL = "yolo-fastest-1.1"
ROW_KEYS = {
    "label",
    "artifact",
    "backend",
    "precision",
    "device",
    "batch",
    "input_hw",
    "size_bytes",
    "stages_ms",
    "latency_ms",
    "per_image_ms",
    "fps",
    "cpu_cores",
    "speedup_vs_reference",
    "speedup_interval",
    "device_stages_ms",
    "throughput_fps",
    "parity",
    "accuracy",
    "roofline",
    "memory_mib",
    "power_w",
    "gpu",
    "fallbacks",
    "failed",
}
QUICK = ("--frames", "2", "--warmup", "0", "--no-roofline")


def graphs_of(model: str | Path, folder: Path, table: Path | None = None, pictures: Path | None = None) -> Path:
    """A folder with fp32.onnx and int8.onnx of a model, calibrated by a table or on pictures."""
    assert not call("export", model, "-o", folder / "fp32.onnx")
    if table is None:
        table = folder / "table.json"
        assert not call("calibrate", folder / "fp32.onnx", "--images", pictures, "--num-images", "8", "-o", table)
    assert not call("export", model, "--precision", "int8", "--table", table, "-o", folder / "int8.onnx")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = Path(__file__).parents[2] / "calib" / "shapes-256-mse.json"
    return graphs_of("shapes", tmp_path_factory.mktemp("shapes"), table)


@pytest.fixture(scope="session")
def cfg(coco_cfg: Callable[[str], Path]) -> Path:
    return coco_cfg(REAL)


@pytest.fixture(scope="session")
def real(cfg: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs_of(cfg, tmp_path_factory.mktemp("real"), pictures=data / "coco" / "train64")


@pytest.fixture(scope="session")
def eight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of eight images of val64."""
    content = json.loads((data / "coco" / "instances_val64.json").read_text())
    content["images"] = content["images"][:8]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    path = tmp_path_factory.mktemp("coco") / "eight.json"
    path.write_text(json.dumps(content))
    return path


def altered(graph: Path, target: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy whose first convolution has other weights, with a sidecar that vouches for them."""
    model = onnx.load(graph)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = next(array for array in model.graph.initializer if array.name == first.input[1])
    weights.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weights)), weights.name))
    onnx.save(model, target)
    save_sidecar(replace(load_model_meta(graph), onnx_sha256=sha256_of_file(target)), target)
    return target


@pytest.mark.slow
def test_every_row_of_the_bundled_model_is_held_to_the_reference(run: Run, shapes: Path, tmp_path: Path):
    page, out = tmp_path / "report.html", tmp_path / "bench.json"
    graphs = (shapes / "fp32.onnx", shapes / "int8.onnx")
    args = ("--baselines", "opencv", "--torch-variants", "bf16", "--frames", "12", "--warmup", "1", "--threads", "1")
    outcome = run("bench", "shapes", *graphs, *args, "--report", page, "--json", out)
    assert outcome.code == 0, outcome.stderr
    content = json.loads(out.read_text())
    assert [(row["label"], row["precision"]) for row in content["rows"]] == [
        ("shapes", "fp32"),
        ("shapes bf16", "bf16"),
        ("shapes opencv", "fp32"),
        ("fp32.onnx", "fp32"),
        ("int8.onnx", "int8"),
    ]
    assert (content["reference"], content["frames"], content["rounds"], content["warmup"]) == ("shapes", 12, 12, 1)
    assert content["command"][0] == "yolov3_trt"
    assert content["timer_overhead_us"] > 0 and content["host_ms"]["draw"] > 0 and content["peak_rss_mib"] > 0
    assert content["machine"]["gpu_state"].keys() >= {"reader"}
    for row in content["rows"]:
        assert set(row) == ROW_KEYS
        assert (row["failed"], row["batch"], row["device"]) == (None, 1, "cpu")
        assert set(row["stages_ms"]) == {"preprocess", "inference", "postprocess"}
        latency = row["latency_ms"]
        assert latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        assert sum(row["stages_ms"].values()) == pytest.approx(latency["p50"], rel=0.5)
        assert row["fps"] == pytest.approx(1e3 / latency["p50"])
        assert row["size_bytes"] > 0 and row["cpu_cores"] > 0
        low, high = row["speedup_interval"]
        assert low <= row["speedup_vs_reference"] <= high
        assert row["roofline"]["share"] > 0
        assert row["roofline"]["gflop"] == pytest.approx(content["rows"][0]["roofline"]["gflop"])
        if row["label"] == "shapes":
            assert row["parity"] is None and row["speedup_vs_reference"] == 1
        else:
            assert row["parity"]["passed"] and row["parity"]["conclusive"], row
    assert content["rooflines"][0]["gflops"] > 1 and content["rooflines"][0]["copy_gb_s"] > 0.5
    (network,) = content["layers"]
    assert sum(layer["gflop"] for layer in network["layers"]) == pytest.approx(content["rows"][0]["roofline"]["gflop"])
    assert "speed-up over shapes" in outcome.stdout and "a reading of the timer" in outcome.stdout
    html = page.read_text()
    assert "shapes opencv" in html and html.count("data:image/jpeg;base64,") >= 5


def test_every_row_of_a_real_model_is_held_to_the_reference(
    run: Run, real: Path, cfg: Path, data: Path, eight: Path, tmp_path: Path
):
    page = tmp_path / "report.md"
    args = ("--images", data / "coco" / "val64" / "images", "--annotations", eight, "--nms", "plain", "--frames", "8")
    graphs = (real / "fp32.onnx", real / "int8.onnx")
    more = ("--baselines", "opencv", "--warmup", "0", "--no-roofline", "--report", page, "--json", "-")
    outcome = run("bench", cfg, *graphs, *args, *more)
    assert outcome.code == 0, outcome.stderr
    content = outcome.json
    rows = {row["label"]: row for row in content["rows"]}
    assert list(rows) == [cfg.name, f"{cfg.name} opencv", "fp32.onnx", "int8.onnx"]
    assert all(row["parity"]["passed"] and row["parity"]["matched"] > 10 for row in content["rows"][1:])
    assert rows["int8.onnx"]["parity"]["max_score_difference"] > rows["fp32.onnx"]["parity"]["max_score_difference"]
    assert content["host_ms"]["decode"] > 0
    assert content["rooflines"] == [] and rows["fp32.onnx"]["roofline"] is None
    assert all(row["accuracy"]["images"] == 8 for row in content["rows"])
    assert rows["fp32.onnx"]["accuracy"]["AP"] == pytest.approx(rows[cfg.name]["accuracy"]["AP"], abs=1e-4)
    assert rows[cfg.name]["accuracy"]["AP"] > 0.1
    assert "fp32.onnx" in page.read_text()


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda weights: weights[:, ::-1].copy(), id="swapped channels"),
        pytest.param(
            lambda weights: np.random.default_rng(1).normal(0, weights.std(), weights.shape).astype(np.float32),
            id="weights of another seed",
        ),
    ],
)
def test_a_broken_artifact_is_marked_and_the_exit_code_is_1(
    run: Run, shapes: Path, tmp_path: Path, break_it: Callable[[np.ndarray], np.ndarray]
):
    good, out = shapes / "fp32.onnx", tmp_path / "bench.json"
    broken = altered(good, tmp_path / "broken.onnx", break_it)
    outcome = run("bench", "shapes", good, broken, *QUICK, "--frames", "4", "--json", out)
    assert outcome.code == 1
    rows = {row["label"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["fp32.onnx"]["parity"]["passed"]
    assert not rows["broken.onnx"]["parity"]["passed"]
    assert rows["broken.onnx"]["latency_ms"]["p50"] > 0
    marked = next(line for line in outcome.stdout.splitlines() if line.startswith("broken.onnx "))
    assert "DIFFERS" in marked
    assert outcome.complaints[-1].startswith("yolov3_trt: broken.onnx differs from shapes: ")


def test_an_artifact_of_a_bundled_model_brings_its_reference_along(run: Run, shapes: Path):
    outcome = run("bench", shapes / "fp32.onnx", *QUICK, "--json", "-")
    assert [row["label"] for row in outcome.json["rows"]] == ["shapes", "fp32.onnx"]
    assert outcome.json["reference"] == "shapes"
    alone = run("bench", shapes / "fp32.onnx", *QUICK, "--reference", "none", "--json", "-").json
    assert (alone["reference"], alone["rows"][0]["speedup_vs_reference"], alone["rows"][0]["parity"]) == (None,) * 3


def test_another_row_can_be_the_reference(run: Run, shapes: Path):
    graphs = (shapes / "fp32.onnx", shapes / "int8.onnx")
    for name in ("int8.onnx", str(graphs[1])):
        content = run("bench", *graphs, *QUICK, "--reference", name, "--json", "-").json
        assert content["reference"] == "int8.onnx"
        assert [row["speedup_vs_reference"] == 1 for row in content["rows"]] == [False, True]
    outcome = run("bench", graphs[0], *QUICK, "--reference", "opencv")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "reference opencv: no such row runs here; expected one of fp32.onnx, or none" in outcome.stderr


def test_a_sweep_of_batches_has_a_row_for_each_that_an_artifact_takes(run: Run, shapes: Path):
    outcome = run("bench", "shapes", shapes / "fp32.onnx", *QUICK, "--batch", "1,4", "--json", "-")
    assert outcome.code == 0
    rows = {row["label"]: row for row in outcome.json["rows"]}
    assert list(rows) == ["shapes", "shapes batch 4", "fp32.onnx", "fp32.onnx batch 4"]
    four = rows["shapes batch 4"]
    assert four["fps"] == pytest.approx(4e3 / four["latency_ms"]["p50"])
    assert four["per_image_ms"] == pytest.approx(four["latency_ms"]["p50"] / 4)
    assert four["parity"]["passed"]
    assert rows["fp32.onnx batch 4"]["failed"] == "it takes batches of 1, not 4"
    assert rows["fp32.onnx batch 4"]["latency_ms"] is None


def test_what_cannot_run_here_is_a_row_with_the_reason(run: Run):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    outcome = run("bench", "shapes", "--torch-variants", "cuda+fp16", *QUICK, "--json", "-")
    assert outcome.code == 0
    failed = outcome.json["rows"][1]
    assert (failed["label"], failed["precision"], failed["latency_ms"]) == ("shapes cuda+fp16", "fp16", None)
    assert "has no CUDA device here" in failed["failed"]


def test_an_artifact_that_cannot_run_here_is_a_row_and_exit_code_1(run: Run, shapes: Path, tmp_path: Path):
    from yolov3_trt.engine.driver import installed_gpu

    if installed_gpu() is not None:
        pytest.skip("there is a GPU")
    engine = tmp_path / "fp32.engine"
    if call("build", shapes / "fp32.onnx", "--flavor", "tensorrt_rtx", "-o", engine):
        pytest.skip("TensorRT-RTX is not installed")
    outcome = run("bench", shapes / "fp32.onnx", engine, *QUICK)
    assert outcome.code == 1
    assert outcome.stdout.splitlines()[4].endswith("not run")
    assert outcome.complaints[-1].startswith("yolov3_trt: fp32.engine does not run here: ")


def test_a_duration_in_place_of_a_count(run: Run, shapes: Path):
    content = run("bench", shapes / "fp32.onnx", *QUICK, "--duration", "0.2", "--reference", "none", "--json", "-").json
    assert content["frames"] == content["rounds"] >= 2


def test_the_table_and_what_its_figures_are_read_against(run: Run, shapes: Path, data: Path):
    dog = data / "images" / "dog.jpg"
    args = ("--images", dog, "--frames", "3", "--reference", "none", "--layers")
    lines = run("bench", shapes / "fp32.onnx", *args).stdout.splitlines()
    assert lines[0].split()[:3] == ["artifact", "backend", "precision"]
    assert lines[2].split()[:3] == ["fp32.onnx", "onnxruntime", "fp32"]
    assert lines[2].split()[-1] == "-"  # no reference
    assert any(line.startswith("shapes at 256x256: ") and line.endswith(" GFLOP a picture") for line in lines)
    assert any(line.startswith("0 Conv ") for line in lines)
    assert any(line.startswith("roofline: share of what ") for line in lines)
    assert lines[-1].endswith(f"3 frames of {dog}")


def test_frames_in_which_nothing_is_found_prove_nothing_and_that_is_said(run: Run, shapes: Path, tmp_path: Path):
    import cv2

    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 90, np.uint8))
    outcome = run("bench", "shapes", shapes / "fp32.onnx", *QUICK, "--images", tmp_path / "grey.png")
    assert outcome.code == 0
    assert "nothing was found in these frames by any row, so parity says nothing: give pictures" in outcome.stdout


@pytest.mark.parametrize(
    "args, text",
    [
        (("--reference", "b.onnx"), "got 'b.onnx'; expected an artifact, a row, a backend or none"),
        (("--batch", "0"), "got 0; expected 1 to 1024"),
        (("--batch", "1,x"), "'1,x'; expected numbers from 1 on, e.g. 1,4,8"),
        (("--baselines", "tensorflow"), "'tensorflow'; expected opencv"),
        (("--device", "tpu"), "'tpu'; expected one of auto, cpu, cuda"),
        (("--torch-variants", "fp8"), "'fp8' is unknown; expected fp32, fp16"),
        (("--annotations", __file__), "given without images; expected images to be the one folder of its pictures"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_opened(run: Run, args: tuple[str, ...], text: str):
    outcome = run("bench", "a.onnx", *args)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert text in outcome.usage_error


def test_a_report_that_could_not_be_written_is_refused_before_anything_is_measured(run: Run, shapes: Path):
    outcome = run("bench", shapes / "fp32.onnx", "--report", "report.pdf")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "report.pdf: a report is one of .html, .md, .json" in outcome.stderr


def test_a_missing_artifact_ends_it_with_one_line_and_no_file(run: Run, tmp_path: Path, shapes: Path):
    out = tmp_path / "bench.json"
    outcome = run("bench", shapes / "fp32.onnx", tmp_path / "missing.onnx", *QUICK, "--json", out)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"{tmp_path / 'missing.onnx'}: there is no such file" in outcome.stderr
    assert not files_in(tmp_path)


def test_two_artifacts_of_one_file_name_are_told_apart_by_their_folders(run: Run, shapes: Path, tmp_path: Path):
    for name in ("fp32.onnx", "fp32.onnx.json"):
        shutil.copy(shapes / name, tmp_path / name)
    graphs = (shapes / "fp32.onnx", tmp_path / "fp32.onnx")
    content = run("bench", *graphs, *QUICK, "--reference", "none", "--json", "-").json
    assert [row["label"] for row in content["rows"]] == [str(graph) for graph in graphs]
