"""What `certify` says of the published yolov3-tiny, and of what only looks like it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import yolov3_trt
import yolov3_trt.jobs.certify as job
from tests.cli_runner import call
from tests.sim.cuda_device import SimulatedCuda
from tests.sim.device import has_compiler
from tests.sim.engine import SimulatedEngine, simulated_plan
from yolov3_trt.backends import open_backend
from yolov3_trt.backends.trt import TensorRTBackend
from yolov3_trt.data.images import load_image
from yolov3_trt.detector import Detector
from yolov3_trt.errors import MetaError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.jobs.certify import Certificate, certify
from yolov3_trt.meta import Preprocess, load_model_meta, save_sidecar
from yolov3_trt.models import load_model
from yolov3_trt.models.goldens import goldens, small_picture
from yolov3_trt.preprocess import prepare_batch


@pytest.fixture(scope="module")
def tiny(data: Path) -> Path:
    return data / "models" / "official" / "yolov3-tiny.cfg"


@pytest.fixture(scope="module")
def graphs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fp32.onnx, fp16.onnx and all.onnx, which takes pixels and gives detections."""
    folder, model = tmp_path_factory.mktemp("graphs"), load_model(tiny)
    yolov3_trt.export(model, folder / "fp32.onnx")
    yolov3_trt.export(model, folder / "fp16.onnx", precision="fp16")
    yolov3_trt.export(model, folder / "all.onnx", input_stage="pixels", output_stage="detections")
    return folder


def failed(certificate: Certificate) -> list[str]:
    assert certificate.passed is not bool([check for check in certificate.checks if check.passed is False])
    return [check.name for check in certificate.checks if check.passed is False]


def test_heads_are_darknets(tiny: Path, data: Path):
    """So that the goldens, which the same network made, are Darknet's too."""
    golden = np.load(data / "goldens" / "official" / "yolov3-tiny.heads.npz")
    backend = open_backend(load_model(tiny))
    batch, _ = prepare_batch([load_image(data / "images" / "exact" / "dog_416.png")], backend.meta)
    for number, head in enumerate(backend.infer(batch).values()):
        expected = golden[f"head{number}_darknet"]
        np.testing.assert_allclose(head.reshape(-1)[golden[f"head{number}_index"]], expected, atol=1e-3, rtol=0)


def test_the_published_model_passes_as_a_model_and_as_a_graph(tiny: Path, graphs: Path, data: Path):
    dog = data / "images" / "dog.jpg"
    certificate = certify(tiny, picture=dog)
    assert {check.name: check.passed for check in certificate.checks} == dict.fromkeys(
        ("weights", "network", "input", "heads", "picture", "printout"), True
    )
    assert "dog 56% (57%), truck 54% (56%), car 64% (62%), bicycle 59% (59%)" in certificate.checks[-1].text
    assert (certificate.model, failed(certify("yolov3-tiny", weights=tiny.with_suffix(".weights")))) == (
        "yolov3-tiny",
        [],
    )
    for name in ("fp32", "fp16"):
        assert not failed(certify(graphs / f"{name}.onnx", picture=dog))
    everything = certify(graphs / "all.onnx")
    heads = next(check for check in everything.checks if check.name == "heads")
    assert (failed(everything), heads.passed, heads.text) == ([], None, "it gives detections only")
    assert failed(certify(graphs / "fp32.onnx", picture=data / "images" / "eagle.jpg")) == ["printout"]


@pytest.mark.parametrize(
    "change, fails",
    [
        (lambda cfg, weights: (cfg.replace("mask = 1,2,3", "mask = 0,1,2"), weights), ["network", "picture"]),
        (
            lambda cfg, weights: (cfg.replace("channels=3", "channels=3\nletter_box=0"), weights),
            ["input", "heads", "picture"],
        ),
        (lambda cfg, weights: (cfg, weights[:5000] + b"\0\0\x80\x3f" + weights[5004:]), ["weights"]),
    ],
    ids=["mask", "stretched", "one weight"],
)
def test_a_model_that_is_not_quite_the_published_one_fails(
    tiny: Path, tmp_path: Path, change: Callable[[str, bytes], tuple[str, bytes]], fails: list[str]
):
    cfg, weights = change(tiny.read_text(), tiny.with_suffix(".weights").read_bytes())
    (tmp_path / "yolov3-tiny.cfg").write_text(cfg)
    (tmp_path / "yolov3-tiny.weights").write_bytes(weights)
    assert set(fails) <= set(failed(certify(tmp_path / "yolov3-tiny.cfg")))


def altered(graph: Path, target: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy whose first kernel is another, with a sidecar that vouches for it."""
    model = onnx.load(graph)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    kernel = next(array for array in model.graph.initializer if array.name == first.input[1])
    kernel.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(kernel))), kernel.name))
    onnx.save(model, target)
    save_sidecar(replace(load_model_meta(graph), onnx_sha256=sha256_of_file(target)), target)
    return target


def one_weight(kernel: np.ndarray) -> np.ndarray:
    kernel = kernel.copy()
    kernel[3, 1, 1, 1] += 1
    return kernel


def test_a_graph_that_computes_something_else_fails(graphs: Path, tmp_path: Path):
    swapped = altered(graphs / "fp32.onnx", tmp_path / "swapped.onnx", lambda kernel: kernel[:, ::-1])
    assert failed(certify(swapped)) == ["heads", "picture"]
    assert failed(certify(altered(graphs / "all.onnx", tmp_path / "all.onnx", lambda kernel: kernel[:, ::-1]))) == [
        "picture"
    ]
    assert "heads" in failed(certify(altered(graphs / "fp16.onnx", tmp_path / "one.onnx", one_weight)))


def test_another_way_of_resizing_fails(graphs: Path, monkeypatch: pytest.MonkeyPatch):
    import cv2

    monkeypatch.setattr(cv2, "INTER_LINEAR", cv2.INTER_NEAREST)
    assert failed(certify(graphs / "fp32.onnx")) == ["heads", "picture"]
    assert failed(certify(graphs / "fp16.onnx")) == ["heads", "picture"]


@pytest.fixture(scope="module")
def int8(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    images, model = data / "coco" / "train64", load_model(tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # the table goes to calib/ there
        yolov3_trt.export(model, path, precision="int8", images=images, num_images=16)
    return path


@pytest.mark.slow
def test_int8_passes_within_its_tolerance_and_fails_where_the_others_do(
    int8: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate = certify(int8, picture=data / "images" / "dog.jpg")
    assert not failed(certificate) and all(check.passed for check in certificate.checks)

    def copied(name: str, **changes: Any) -> Path:
        shutil.copy(int8, tmp_path / name)
        save_sidecar(replace(load_model_meta(int8), **changes), tmp_path / name)
        return tmp_path / name

    meta = load_model_meta(int8)
    masked = replace(meta.heads[1], anchors_wh=((10, 14), *meta.heads[1].anchors_wh[:2]))
    assert "network" in failed(certify(copied("mask.onnx", heads=(meta.heads[0], masked))))
    stretched = Preprocess(resize="stretch")
    assert {"input", "heads", "picture"} <= set(failed(certify(copied("stretch.onnx", preprocess=stretched))))
    assert failed(certify(copied("weights.onnx", weights_sha256="0" * 64))) == ["weights"]
    with (tmp_path / "mask.onnx").open("r+b") as file:  # one weight of the graph itself
        file.seek(1_000_000)
        byte = file.read(1)[0]
        file.seek(1_000_000)
        file.write(bytes([byte ^ 0x40]))
    with pytest.raises(MetaError, match="its SHA-256 is"):
        certify(tmp_path / "mask.onnx")
    monkeypatch.setattr(job, "load_image", lambda path: load_image(path)[..., ::-1].copy())  # RGB for BGR
    assert failed(certify(int8)) == ["picture"]  # a small picture's heads stay within INT8's tolerance


@pytest.mark.skipif(not has_compiler(), reason="the simulated device compiles its kernels")
def test_an_engine_is_held_to_the_heads_too(graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    swapped = altered(graphs / "fp32.onnx", tmp_path / "swapped.onnx", lambda kernel: kernel[:, ::-1])
    for graph, fails in ((graphs / "fp32.onnx", []), (swapped, ["heads", "picture"])):
        device = SimulatedCuda(seed=1)

        def opened(_artifact: object, graph: Path = graph, device: SimulatedCuda = device, **_: object) -> Detector:
            engine = SimulatedEngine(graph, device)
            plan = simulated_plan(graph)
            return Detector(TensorRTBackend(plan, open_device=lambda: device, open_engine=lambda *_: engine))

        monkeypatch.setattr(job, "open_detector", opened)
        certificate = certify("tiny.engine")
        assert failed(certificate) == fails
        assert [check.name for check in certificate.checks if check.passed is None] == []


def test_other_weights_and_sizes_are_told(tiny: Path, tmp_path: Path):
    shapes = certify("shapes")
    assert (shapes.model, failed(shapes)) == (None, ["weights"])
    shutil.copy(tiny.with_suffix(".weights"), tmp_path / "small.weights")
    (tmp_path / "small.cfg").write_text(tiny.read_text().replace("=416", "=320"))
    small = certify(tmp_path / "small.cfg")
    assert failed(small) == [] and small.checks[-1].text == "the goldens are of 416x416 px, this is 320x320"


def test_the_verb_says_each_check_and_ends_with_1_where_one_fails(
    graphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert call("certify", graphs / "fp32.onnx", "--json", tmp_path / "c.json") == 0
    shown = capsys.readouterr().out
    assert "heads    pass  largest relative error" in shown and "fp32.onnx: is yolov3-tiny, in fp32" in shown
    content = json.loads((tmp_path / "c.json").read_text())
    assert (content["passed"], content["model"], content["precision"]) == (True, "yolov3-tiny", "fp32")
    swapped = altered(graphs / "fp32.onnx", tmp_path / "swapped.onnx", lambda kernel: kernel[:, ::-1])
    assert call("certify", swapped) == 1
    assert "swapped.onnx: is NOT yolov3-tiny" in capsys.readouterr().out


def test_average_precision_is_held_to_the_reference(tiny: Path, graphs: Path, data: Path, tmp_path: Path):
    content = json.loads((data / "coco" / "instances_val64.json").read_text())
    content["images"] = content["images"][:6]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    (tmp_path / "six.json").write_text(json.dumps(content))
    places = {"data": tmp_path / "six.json", "images": data / "coco" / "val64" / "images"}
    check = certify(graphs / "fp16.onnx", weights=None, **places).checks[-1]
    assert (check.name, check.passed) == ("AP", None) and "no PyTorch reference" in check.text
    assert certify(tiny, **places).checks[-1].passed


def test_options_of_a_set_that_is_not_given_are_refused(tmp_path: Path):
    for wrong in ({"images": tmp_path}, {"split": "val"}):
        with pytest.raises(yolov3_trt.SettingError, match="given without data; leave it out"):
            certify("shapes", **wrong)


def test_other_weights_beside_a_graph_are_no_reference(graphs: Path, data: Path, tmp_path: Path):
    for name in ("fp32.onnx", "fp32.onnx.json"):
        shutil.copy(graphs / name, tmp_path)
    (tmp_path / "fp32.weights").write_bytes(b"other")
    images, annotations = data / "coco/val64/images", data / "coco/instances_val64.json"
    certificate = certify(tmp_path / "fp32.onnx", data=annotations, images=images)
    (accuracy,) = [check for check in certificate.checks if check.name == "AP"]
    assert accuracy.passed is None and "the weights of yolov3-tiny are not at hand" in accuracy.text


def test_what_ships_is_small():
    assert small_picture().stat().st_size < 16_000 and set(goldens()) == {"yolov3-tiny"}
