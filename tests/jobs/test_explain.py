"""Why two artifacts differ: each planted fault is named, with what it costs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli_runner import Run
from tests.jobs.test_compare import CONVOLUTIONS, SHAPES, TABLE, damaged, in_another_order, scaled
from yolov3_trt.comparison.networks import Side
from yolov3_trt.data import labelled_set
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.errors import BackendError
from yolov3_trt.jobs.compare import compare
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import ModelMeta, load_model_meta, save_sidecar
from yolov3_trt.models import load_model
from yolov3_trt.sizes import Resize
from yolov3_trt.spec import BatchNorm, Nms, NmsKind

DAMAGED = CONVOLUTIONS[12]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explain")


@pytest.fixture(scope="module")
def graph(folder: Path) -> Path:
    return export(SHAPES, folder / "fp32.onnx").path


@pytest.fixture(scope="module")
def labelled(folder: Path) -> LabelledSet:
    return labelled_set(write_shapes_data_set(folder / "set", num_train=1, num_val=6, seed=3), split="val")


def with_channels_swapped(weights: np.ndarray) -> np.ndarray:
    return weights[:, ::-1]


def with_sidecar(graph: Path, folder: Path, change: Callable[[ModelMeta], ModelMeta]) -> Path:
    """A copy of a graph with something else in its sidecar."""
    copied = folder / "changed.onnx"
    copied.write_bytes(graph.read_bytes())
    save_sidecar(change(load_model_meta(graph)), copied)
    return copied


def another_mask(meta: ModelMeta) -> ModelMeta:
    first, second, *rest = meta.heads
    return replace(meta, heads=(first, replace(second, anchors_wh=first.anchors_wh), *rest))


def stretched(meta: ModelMeta) -> ModelMeta:
    return replace(meta, preprocess=replace(meta.preprocess, resize=Resize.STRETCH))


def other_nms(meta: ModelMeta) -> ModelMeta:
    return replace(meta, postprocess=replace(meta.postprocess, nms=Nms(NmsKind.DIOU, 0.6), iou=0.3))


def other_names(meta: ModelMeta) -> ModelMeta:
    return replace(meta, class_names=(*meta.class_names[1::-1], *meta.class_names[2:]))


FAULTS: dict[str, tuple[Callable[[Path, Path], Path], dict[str, tuple[str, str, float]]]] = {
    "none": (lambda graph, folder: graph, {}),
    "mask": (
        lambda graph, folder: with_sidecar(graph, folder, another_mask),
        {"anchors (mask) of head1": ("35,35 43,43 52,52", "64,64 82,82 108,108", 0.1)},
    ),
    "resize": (
        lambda graph, folder: with_sidecar(graph, folder, stretched),
        {"resize": ("letterbox", "stretch", 0.02)},
    ),
    "nms": (
        lambda graph, folder: with_sidecar(graph, folder, other_nms),
        {"nms": ("default", "diounms 0.6", -1), "iou": ("0.45", "0.3", -1)},
    ),
    "names": (
        lambda graph, folder: with_sidecar(graph, folder, other_names),
        {"class names": ("circle, ...", "square, ...", 0.1)},
    ),
    "channels": (
        lambda graph, folder: damaged(graph, 0, with_channels_swapped, folder),
        {"channel order": ("RGB", "BGR", 0.001)},
    ),
    "layer": (
        lambda graph, folder: damaged(graph, DAMAGED, in_another_order, folder),
        {f"layer {DAMAGED}": ("Conv", "", 0.2)},
    ),
    "batch norm": (
        lambda graph, folder: (
            export(replace(SHAPES, spec=replace(SHAPES.spec, batch_norm=BatchNorm(1e-3))), folder / "keras.onnx").path
        ),
        {"batch norm": ("1e-05", "0.001", -1)},
    ),
    "int8": (
        lambda graph, folder: export(SHAPES, folder / "int8.onnx", precision="int8", table=TABLE).path,
        {"precision": ("fp32", "int8", -1)},
    ),
}


SINGLE = [pytest.param(name, marks=[] if name == "none" else [pytest.mark.slow]) for name in FAULTS]


@pytest.mark.parametrize("fault", SINGLE)
def test_a_planted_fault_is_named_with_what_it_costs(fault: str, graph: Path, labelled: LabelledSet, tmp_path: Path):
    plant, expected = FAULTS[fault]
    found = compare("shapes", plant(graph, tmp_path), data=labelled, explain=True)
    why = found.explanation
    assert why is not None and found.accuracy is not None
    ap_a, ap_b = (row.accuracy.metrics["AP"] for row in found.accuracy.rows)
    assert why.ap == (pytest.approx(ap_a), pytest.approx(ap_b))
    assert {difference.what for difference in why.differences} == set(expected)
    _check(found.to_json()["explanation"], expected)
    if len(expected) == 1:  # then A with it is B
        assert why.differences[0].ap == pytest.approx(ap_b, abs=1e-3)


def _check(explanation: dict[str, Any], expected: dict[str, tuple[str, str, float]]) -> None:
    by_name = {row["what"]: row for row in explanation["differences"]}
    for what, (in_a, in_b, at_least) in expected.items():
        row = by_name[what]
        assert row["a"].startswith(in_a) and (not in_b or row["b"] == in_b)
        assert row["cost"] == pytest.approx(explanation["AP"]["a"] - row["AP"]) and row["cost"] >= at_least
    costs = [row["cost"] for row in explanation["differences"]]
    assert costs == sorted(costs, reverse=True)


def test_faults_that_come_together_are_each_named(run: Run, graph: Path, labelled: LabelledSet, tmp_path: Path):
    planted = ("mask", "resize", "nms", "channels", "layer")
    bad = damaged(damaged(graph, 0, with_channels_swapped, tmp_path), DAMAGED, in_another_order, tmp_path)
    bad = with_sidecar(bad, tmp_path, lambda meta: other_nms(stretched(another_mask(meta))))
    report = tmp_path / "why.json"
    outcome = run("compare", "shapes", bad, "--data", labelled.path, "--explain", "--json", report)
    assert outcome.code == 0, outcome.stderr
    explanation = json.loads(report.read_text())["explanation"]
    expected = {what: row for name in planted for what, row in FAULTS[name][1].items()}
    assert {row["what"] for row in explanation["differences"]} == set(expected)
    _check(explanation, expected)
    lines = {line.split("  ")[0]: line.split()[-3:] for line in outcome.stdout.splitlines()}
    (mask,) = (row for row in explanation["differences"] if row["what"].startswith("anchors"))
    assert lines["A with B's anchors (mask) of head1"] == [
        f"{mask[figure]:.4f}" for figure in ("AP", "agreement", "cost")
    ]


def test_without_labels_a_fault_costs_agreement(graph: Path, labelled: LabelledSet, tmp_path: Path):
    bad = with_sidecar(graph, tmp_path, other_nms)
    paths = [file.path for file in labelled.files[:2]]
    why = compare(graph, bad, images=paths, conf=0.1, explain=True).explanation
    assert why is not None and why.ap == (None, None)
    assert {difference.what for difference in why.differences} == {"nms", "iou"}
    assert all(d.ap is None and d.cost == pytest.approx(1 - d.agreement) for d in why.differences)


def test_nothing_can_be_tried_in_what_gives_only_detections(
    graph: Path, labelled: LabelledSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Side, "network", lambda side: None)
    with pytest.raises(BackendError, match="only detections come out of A"):
        compare(graph, graph, images=[labelled.files[0].path], explain=True)


@pytest.mark.slow
def test_a_damaged_layer_of_the_official_tiny_is_named_with_its_cost(data: Path, run: Run, tmp_path: Path):
    official, coco = data / "models" / "official", data / "coco"
    model = load_model(official / "yolov3-tiny.cfg", names="coco")
    bad = damaged(export(model, tmp_path / "tiny.onnx").path, 8, scaled, tmp_path)
    truth = json.loads((coco / "instances_val64.json").read_text())
    truth["images"] = truth["images"][:12]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [note for note in truth["annotations"] if note["image_id"] in kept]
    (tmp_path / "val.json").write_text(json.dumps(truth))
    labels = ("--images", coco / "val64" / "images", "--annotations", tmp_path / "val.json")
    outcome = run("compare", official / "yolov3-tiny.cfg", bad, "--names", "coco", *labels, "--explain", "--json", "-")
    (row,) = outcome.json["explanation"]["differences"]
    assert row["what"] == "layer 8" and abs(row["cost"]) < 0.05
