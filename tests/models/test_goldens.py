"""Against what Darknet itself makes of real models and photographs; see README.md of the reference data."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import EACH_COCO_MODEL
from tests.darknet import darknet_input
from yolov3_trt.backends import Backend, open_backend
from yolov3_trt.data import labelled_set
from yolov3_trt.data.images import load_image
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, average_precision, coco_results
from yolov3_trt.geometry import Resize
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import ModelMeta, Precision
from yolov3_trt.models import Model, load_model
from yolov3_trt.postprocess import Outputs, detections_from_outputs
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.spec import Nms

LoadModel = Callable[[str], Model]


@pytest.fixture(scope="module", params=EACH_COCO_MODEL)
def model(request: pytest.FixtureRequest, coco_model: LoadModel) -> Model:
    return coco_model(request.param)


def test_detections_on_exact_images_are_darknets(model: Model, data: Path):
    golden = json.loads((data / "goldens" / f"{model.spec.name}.detections.json").read_text())["darknet-exact"]
    backend = open_backend(model)
    postprocess = replace(backend.meta.postprocess, nms=Nms())
    assert len(golden["images"]) == 6
    for name, expected in golden["images"].items():
        batch, placements = prepare_batch([load_image(data / "images" / "exact320" / name)], backend.meta)
        found = detections_from_outputs(backend.infer(batch), backend.meta, postprocess, placements)[0]
        rows = np.array(expected["detections"])  # class, score, x1, y1, x2, y2 by descending score, not clipped
        assert found.class_ids.tolist() == rows[:, 0].tolist(), name
        np.testing.assert_allclose(found.scores, rows[:, 1], atol=1e-4, rtol=0, err_msg=name)
        np.testing.assert_allclose(found.xyxy, rows[:, 2:].clip(0, 320), atol=0.02, rtol=0, err_msg=name)


@dataclass
class Evaluated:
    """A model's outputs on val64, kept so that thresholds and NMS can be varied without running it again."""

    meta: ModelMeta
    outputs: list[Outputs]
    placements: list
    image_ids: list[int]
    annotations: dict
    category_ids: tuple[int | None, ...]

    def scores(self, nms: Nms) -> dict[str, float | None]:
        postprocess = replace(self.meta.postprocess, conf=EVAL_CONF_THRESHOLD, nms=nms)
        results = []
        for image_id, outputs, placement in zip(self.image_ids, self.outputs, self.placements, strict=True):
            found = detections_from_outputs(outputs, self.meta, postprocess, [placement])[0]
            results += coco_results(image_id, found, self.category_ids)
        return average_precision(self.annotations, results)


def evaluated(backend: Backend, data: Path, resize: Resize, *, darknets_resize: bool) -> Evaluated:
    truth = labelled_set(data / "coco" / "instances_val64.json").truth_for(backend.meta.class_names)
    meta = replace(backend.meta, preprocess=backend.meta.preprocess.override(resize=resize))
    run = Evaluated(meta, [], [], [], truth.content, truth.category_ids)
    for image in truth.images:
        pixels = load_image(data / "coco" / "val64" / "images" / image["file_name"])
        if darknets_resize:
            batch, placement = darknet_input(pixels, meta.input_hw, resize)
        else:
            batch, (placement,) = prepare_batch([pixels], meta)
        run.outputs.append({name: array.copy() for name, array in backend.infer(batch).items()})
        run.placements.append(placement)
        run.image_ids.append(image["id"])
    assert len(run.image_ids) == 64
    return run


@pytest.fixture(scope="module")
def graphs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Backend]:
    folder = tmp_path_factory.mktemp(model.spec.name)
    reports = {
        precision: export(model, folder / f"{precision.value}.onnx", precision=precision)
        for precision in (Precision.FP32, Precision.FP16)
    }
    return {precision: open_backend(report.path) for precision, report in reports.items()}


def assert_close(got: dict, expected: dict, tolerance: float, what: str):
    for metric in ("AP", "AP50"):
        assert abs(got[metric] - expected[metric]) <= tolerance, f"{what}: {metric} {got[metric]} vs {expected[metric]}"


@pytest.mark.slow
def test_average_precision_is_darknets_on_every_backend_and_precision(
    model: Model, graphs: dict[Precision, Backend], data: Path
):
    golden = json.loads((data / "goldens" / "val64.scores.json").read_text())[model.spec.name]
    for resize in Resize:
        expected = golden[f"darknet-{resize.value}"]
        same_resize = evaluated(graphs[Precision.FP32], data, resize, darknets_resize=True)
        assert_close(same_resize.scores(Nms()), expected, 0.003, f"{resize.value}, Darknet's resize")
        if resize is Resize.STRETCH:
            assert model.spec.nms != Nms()
            cfg_nms = same_resize.scores(model.spec.nms)
            assert_close(cfg_nms, golden["darknet-stretch-cfgnms"], 0.003, "nms_kind of the cfg")

        fp32 = evaluated(graphs[Precision.FP32], data, resize, darknets_resize=False)
        fp16 = evaluated(graphs[Precision.FP16], data, resize, darknets_resize=False)
        in_fp32 = {nms: fp32.scores(nms) for nms in (Nms(), model.spec.nms)}
        assert_close(in_fp32[Nms()], expected, 0.015, f"{resize.value}, the product's resize")
        for nms, scores in in_fp32.items():
            assert_close(fp16.scores(nms), scores, 0.002, f"{resize.value}, FP16, {nms.kind.value}")


def test_torch_and_onnxruntime_give_the_same_average_precision(
    model: Model, graphs: dict[Precision, Backend], data: Path
):
    runs = [
        evaluated(backend, data, Resize.LETTERBOX, darknets_resize=False)
        for backend in (open_backend(model), graphs[Precision.FP32])
    ]
    assert_close(runs[0].scores(model.spec.nms), runs[1].scores(model.spec.nms), 1e-4, "torch vs onnxruntime")
    for torch_outputs, ort_outputs in zip(runs[0].outputs, runs[1].outputs, strict=True):
        for name, head in torch_outputs.items():
            np.testing.assert_allclose(ort_outputs[name], head, atol=2e-3)


@pytest.mark.slow
def test_the_official_model_scores_as_in_darknet(data: Path, tmp_path: Path):
    model = load_model(data / "models" / "official" / "yolov3-tiny.cfg")
    golden = json.loads((data / "goldens" / "official" / "val64.scores.json").read_text())["yolov3-tiny (mask 1,2,3)"]
    fp32, fp16 = (
        open_backend(export(model, tmp_path / f"{precision}.onnx", precision=precision).path)
        for precision in ("fp32", "fp16")
    )
    for resize in Resize:
        expected = golden[f"darknet-{resize.value}"]["val64"]
        darknets = evaluated(fp32, data, resize, darknets_resize=True).scores(Nms())
        own = evaluated(fp32, data, resize, darknets_resize=False).scores(Nms())
        in_fp16 = evaluated(fp16, data, resize, darknets_resize=False).scores(Nms())
        # Stretched, .0041: in 000000002006.jpg two overlapping boxes of score .30 change places with the JPEG decoder.
        assert abs(darknets["AP"] - expected["AP"]) <= (0.003 if resize is Resize.LETTERBOX else 0.005)
        assert abs(own["AP"] - expected["AP"]) <= 0.015
        assert abs(in_fp16["AP"] - own["AP"]) <= 0.002
