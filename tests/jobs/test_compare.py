"""Parity of two artifacts, and the layer from which on they part."""

import math
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli_runner import Run
from yolov3_trt.backends import BackendName
from yolov3_trt.comparison.heads import HeadDifference
from yolov3_trt.comparison.layers import (
    GraphProbe,
    LayerComparison,
    LayerError,
    LayerProbe,
    LayerRunner,
    ModelProbe,
    compare_layers,
    has_departed,
    relative_error,
)
from yolov3_trt.files import sha256_of_file
from yolov3_trt.graph.parts import load_graph
from yolov3_trt.graph.probe import layer_of, layer_operators, layer_sources, layer_values
from yolov3_trt.jobs.compare import _layers
from yolov3_trt.jobs.export import export
from yolov3_trt.jobs.opening import Opening
from yolov3_trt.layers import Conv
from yolov3_trt.meta import Precision, load_model_meta, meta_from_spec, save_sidecar
from yolov3_trt.models import load_model
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.reporter import SILENT
from yolov3_trt.shapes import shapes_picture

TABLE = Path(__file__).parents[2] / "calib" / "shapes-256-mse.json"
SHAPES = load_model("shapes")
CONVOLUTIONS = [n for n, layer in enumerate(SHAPES.spec.layers) if isinstance(layer, Conv)]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    """The bundled model in each precision."""
    folder = tmp_path_factory.mktemp("shapes")
    paths = {}
    for precision in Precision:
        table = TABLE if precision is Precision.INT8 else None
        paths[precision] = export(SHAPES, folder / f"{precision.value}.onnx", precision=precision, table=table).path
    return paths


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return prepare_batch([shapes_picture(7, 0).pixels], meta_from_spec(SHAPES.spec))[0]


class Kept:
    """The layers of the PyTorch reference for one picture, run once."""

    def __init__(self, probe: ModelProbe, images: np.ndarray) -> None:
        self.layers, self.sources, self.names = probe.layers, probe.sources, probe.names
        self._maps = probe.runner(probe.layers)(images)

    def runner(self, layers: Collection[int], given: int | None = None) -> LayerRunner:
        assert given is None
        return lambda images: {layer: self._maps[layer] for layer in layers}


@pytest.fixture(scope="module")
def reference(picture: np.ndarray) -> LayerProbe:
    return Kept(ModelProbe(SHAPES), picture)


Damage = Callable[[np.ndarray], np.ndarray]


def damaged(path: Path, layer: int, damage: Damage, folder: Path) -> Path:
    """A copy of a graph, sidecar included, with other weights in one convolution."""
    graph = onnx.load(path)
    (weight,) = (
        tensor
        for tensor in graph.graph.initializer
        if tensor.name.startswith(f"layers.{layer}.conv.weight") and len(tensor.dims) == 4
    )
    weight.CopyFrom(numpy_helper.from_array(damage(numpy_helper.to_array(weight)).copy(), weight.name))
    copied = folder / f"damaged-{path.name}"
    onnx.save(graph, copied)
    save_sidecar(replace(load_model_meta(path), onnx_sha256=sha256_of_file(copied)), copied)
    return copied


def scaled(weights: np.ndarray) -> np.ndarray:
    return (weights * 1.02).astype(weights.dtype)


def without_a_filter(weights: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(weights[:1]), weights[1:]])


def in_another_order(weights: np.ndarray) -> np.ndarray:
    return weights[::-1]


def localised(reference: LayerProbe, path: Path, picture: np.ndarray, precision: Precision) -> LayerComparison:
    return compare_layers(reference, GraphProbe(path), (picture, picture), precision)


@pytest.mark.parametrize("precision", list(Precision))
def test_healthy_graphs_depart_nowhere(
    precision: Precision, graphs: dict[Precision, Path], reference: LayerProbe, picture: np.ndarray
):
    found = localised(reference, graphs[precision], picture, precision)
    assert found.departed is None and found.input_error == 0
    assert len(found.errors) == len(layer_values(load_graph(graphs[precision])))
    assert {error.layer for error in found.errors} >= set(CONVOLUTIONS)


@pytest.mark.parametrize("layer", CONVOLUTIONS[::9] + CONVOLUTIONS[-1:])
def test_a_layer_whose_weights_are_two_percent_off_is_found(
    layer: int, graphs: dict[Precision, Path], reference: LayerProbe, picture: np.ndarray, tmp_path: Path
):
    found = localised(reference, damaged(graphs[Precision.FP32], layer, scaled, tmp_path), picture, Precision.FP32)
    assert found.departed is not None and found.departed.layer == layer
    assert found.errors[-1] is found.departed
    assert found.departed.error > 1e-3
    assert found.departed.before is None if layer == 0 else found.departed.before < 1e-5


@pytest.mark.parametrize("layer", CONVOLUTIONS[1::13])
def test_a_layer_without_one_filter_is_found_in_half_precision(
    layer: int, graphs: dict[Precision, Path], reference: LayerProbe, picture: np.ndarray, tmp_path: Path
):
    path = damaged(graphs[Precision.FP16], layer, without_a_filter, tmp_path)
    found = localised(reference, path, picture, Precision.FP16)
    assert found.departed is not None and found.departed.layer == layer


@pytest.mark.parametrize("layer", CONVOLUTIONS[2::13])
def test_a_layer_with_filters_in_another_order_is_found_in_int8(
    layer: int, graphs: dict[Precision, Path], reference: LayerProbe, picture: np.ndarray, tmp_path: Path
):
    path = damaged(graphs[Precision.INT8], layer, in_another_order, tmp_path)
    found = localised(reference, path, picture, Precision.INT8)
    assert found.departed is not None and found.departed.layer == layer


def test_pictures_prepared_differently_are_noticed(graphs: dict[Precision, Path], picture: np.ndarray):
    probe = GraphProbe(graphs[Precision.FP32])
    found = compare_layers(probe, probe, (picture, picture[:, ::-1].copy()), Precision.FP32)  # RGB for BGR
    assert found.input_error is not None and found.input_error > 0.1
    assert found.departed is not None and found.departed.layer == 0


# What a graph says of its layers


def test_nodes_belong_to_the_layer_that_they_are_named_after():
    assert [layer_of(name) for name in ("layers.12.conv", "layers.3", "layers.3.activation.q")] == [12, 3, 3]
    assert [layer_of(name) for name in ("input.Cast", "output.TopK", "mylayers.3", "layers.x")] == [None] * 4


@pytest.mark.parametrize("precision", list(Precision))
def test_layers_read_what_the_spec_says(precision: Precision, graphs: dict[Precision, Path]):
    graph, spec = load_graph(graphs[precision]), SHAPES.spec
    there = set(layer_values(graph))
    sources = layer_sources(graph)
    for layer in there:
        expected: set[int] = set()
        for source in spec.sources(layer):
            while source >= 0 and source not in there:  # the graph does without it
                (source,) = spec.sources(source)
            expected |= {source} if source >= 0 else set()
        assert set(sources[layer]) == expected, layer


def test_layers_are_described_by_their_operators(graphs: dict[Precision, Path]):
    operators = layer_operators(load_graph(graphs[Precision.INT8]))
    assert operators[0] == "Conv, LeakyRelu"


# The measure


def test_the_relative_error_is_that_of_the_first_picture():
    a, b = np.ones((1, 1, 2, 2)), np.full((3, 1, 2, 2), 1.5)
    b[1:] = 99
    assert relative_error(a, b) == pytest.approx(0.5)
    assert relative_error(a * 0, b) == pytest.approx(3.0)  # nothing to compare with: the difference itself
    assert relative_error(a, np.ones((1, 1, 2, 3))) == math.inf
    assert math.isnan(relative_error(a * np.inf, b * np.inf))


def test_channels_that_were_doubled_are_halved_first():
    a = np.random.default_rng(0).random((1, 3, 4, 4))
    doubled = a * np.array([1.0, 2.0, 16.0])[:, None, None]
    assert relative_error(a, doubled) > 1
    assert relative_error(a, doubled, equalised=True) == pytest.approx(0)
    assert relative_error(a, a / 2, equalised=True) == pytest.approx(0.5)  # they are never made smaller
    assert relative_error(a, a * 0, equalised=True) == pytest.approx(1)


@pytest.mark.parametrize(
    ("error", "before", "precision", "departed"),
    [
        (9e-7, None, Precision.FP32, False),
        (3e-6, None, Precision.FP32, True),  # more than rounding of one layer
        (9e-5, 1e-5, Precision.FP32, False),
        (2e-4, 1e-4, Precision.FP32, True),  # beyond the tolerance
        (0.02, 0.005, Precision.FP16, False),
        (0.02, 0.001, Precision.FP16, True),  # twenty times what it reads
        (0.45, 0.3, Precision.INT8, False),
        (0.3, 0.02, Precision.INT8, True),
        (math.nan, 0.0, Precision.INT8, True),
        (math.inf, None, Precision.FP32, True),
    ],
)
def test_what_counts_as_a_departure(error: float, before: float | None, precision: Precision, departed: bool):
    assert has_departed(LayerError(1, "Conv", error, before), precision) is departed


def test_figures_of_a_head_by_hand():
    head = HeadDifference()
    head.add(np.array([3.0, 0.0]), np.array([3.0, 0.4]))
    head.add(np.array([0.0, 4.0]), np.array([0.3, 4.0]))
    assert (head.max_abs, head.mean_abs) == (pytest.approx(0.4), pytest.approx(0.7 / 4))
    assert head.relative == pytest.approx(0.1)  # .5 of 5
    assert head.snr_db == pytest.approx(20)
    same = HeadDifference()
    same.add(np.ones(3), np.ones(3))
    assert (same.relative, same.snr_db) == (0, math.inf)


# The verb


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "shapes.png"
    cv2.imwrite(str(path), shapes_picture(7, 0).pixels)
    return path


def test_compare_names_the_layer_and_its_line_in_the_cfg(
    run: Run, graphs: dict[Precision, Path], photo: Path, tmp_path: Path
):
    layer = CONVOLUTIONS[4]
    bad = damaged(graphs[Precision.FP32], layer, in_another_order, tmp_path)
    cfg = tmp_path / "shapes.cfg"
    cfg.write_text(cfg_from_spec(SHAPES.spec))
    shutil.copy(SHAPES.weights_path, cfg.with_suffix(".weights"))
    line = [n for n, text in enumerate(cfg.read_text().splitlines(), start=1) if text.startswith("[")][layer + 1]

    report = run("compare", cfg, bad, "--images", photo, "--json", "-").json
    departed = report["layers"]["departed"]
    assert (departed["layer"], departed["cfg"]) == (layer, f"{cfg}:{line} [convolutional]")
    assert departed["before"] < 1e-5 < departed["error"]
    assert [error["layer"] for error in report["layers"]["errors"]][-1] == layer

    text = run("compare", cfg, bad, "--images", photo).stdout
    assert (
        f"layer {layer} is the first to depart: Conv, LeakyRelu ({cfg}:{line} [convolutional]), relative error" in text
    )


def test_layers_of_equal_artifacts_are_looked_into_only_when_asked(
    run: Run, graphs: dict[Precision, Path], photo: Path
):
    fp32, int8 = graphs[Precision.FP32], graphs[Precision.INT8]
    same = run("compare", fp32, fp32, "--images", photo, "--json", "-").json
    assert same["layers"] is None and same["agreement"] == pytest.approx(1)
    assert same["agreement_interval"] == pytest.approx([1, 1])
    report = run("compare", fp32, int8, "--images", photo, "--layers", "--json", "-").json
    assert report["layers"]["departed"] is None and report["layers"]["precision"] == "int8"
    text = run("compare", fp32, int8, "--images", photo, "--layers").stdout
    assert "no layer departs" in text and 0 < report["agreement"] <= 1
    assert f"agreement: AP of B is {report['agreement']:.4f} [" in text
    assert report["heads"]["head0"]["snr_db"] > 10


def test_layers_of_an_engine_cannot_be_looked_into():
    engine = SimpleNamespace(backend=SimpleNamespace(name=BackendName.TENSORRT))
    reason = _layers(("a.engine", "b.onnx"), (engine, engine), Path("x.jpg"), Opening(), SILENT)  # type: ignore[arg-type]
    assert reason == "the layers of a.engine cannot be looked into; compare the .onnx that it was made from"


def test_annotations_want_one_folder(run: Run, graphs: dict[Precision, Path], photo: Path):
    fp32 = graphs[Precision.FP32]
    outcome = run("compare", fp32, fp32, "--images", photo, "--annotations", photo)
    assert outcome.code == 2
    assert "given with labels; expected the one folder of their pictures" in outcome.usage_error
