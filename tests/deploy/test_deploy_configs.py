"""What `deploy triton` writes as a model's configuration: against the graph it is for, and as protobuf's own reader sees it."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.cli.test_cli import TINY_CFG, write_weights
from tests.engine.test_engine import needs_rtx
from yolov3_trt.backends.triton.contract import META_KEY, Variant
from yolov3_trt.backends.triton.model_config import ModelConfig, config_from_text, parameters_of, text_from_config
from yolov3_trt.deploy.triton import (
    ServedModel,
    Serving,
    config_from_model,
)
from yolov3_trt.engine.flavor import open_flavor
from yolov3_trt.errors import BackendError, MetaError
from yolov3_trt.jobs.export import export as export_model
from yolov3_trt.meta import (
    Batch,
    InputStage,
    ModelMeta,
    OutputStage,
    load_model_meta,
    meta_from_spec,
    model_meta_from_json,
)
from yolov3_trt.models import load_model, load_spec
from yolov3_trt.settings import FlavorName, GraphSettings

DETECTIONS = GraphSettings(input_stage=InputStage.PIXELS, output_stage=OutputStage.DETECTIONS)
GRAPHS = {
    "dynamic heads": GraphSettings(batch=Batch(1, 4, 8)),
    "dynamic detections": replace(DETECTIONS, batch=Batch(1, 2, 4)),
    "whole frames, fixed batch": replace(DETECTIONS, batch=Batch(2, 2, 2), frame_size=(72, 96)),
}
DATA_TYPES = {"float": "TYPE_FP32", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32"}
Export = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A network of three layers as one of GRAPHS, made once."""
    folder = tmp_path_factory.mktemp("graphs")
    cfg = folder / "tiny.cfg"
    cfg.write_text(TINY_CFG)
    write_weights(cfg, np.random.default_rng(0).uniform(0.1, 0.5, load_spec(cfg).num_values))

    @cache
    def export(name: str) -> Path:
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        export_model(load_model(cfg), path, graph=GRAPHS[name])
        return path

    return export


@pytest.fixture
def meta() -> ModelMeta:
    return replace(meta_from_spec(load_spec("shapes")), batch=Batch(1, 4, 8))


def served(meta: ModelMeta, variant: Variant = Variant.ONNXRUNTIME, **serving: Any) -> ServedModel:
    return ServedModel("m", meta, variant, on_gpu=False, serving=Serving(**serving))


def read(config: ModelConfig) -> ModelConfig:
    return config_from_text(text_from_config(config), "config.pbtxt")


def shapes_in(config: ModelConfig, batch: int | str) -> dict[str, tuple[str, list[int | str]]]:
    """Type and shape of each tensor as the model itself must have it, by Triton's rules for `dims`."""
    first = [] if config["max_batch_size"] == 0 else [batch]
    return {
        tensor["name"]: (tensor["data_type"], first + tensor.get("reshape", {}).get("shape", tensor["dims"]))
        for tensor in (*config["input"], *config["output"])
    }


# --- against the graph ---


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("variant", [Variant.ONNXRUNTIME, Variant.TENSORRT])
def test_tensors_are_those_of_the_onnx_graph(exported: Export, name: str, variant: Variant):
    path = exported(name)
    graph = onnx.load(path, load_external_data=False).graph
    in_graph = {}
    for tensor in (*graph.input, *graph.output):
        kind = tensor.type.tensor_type
        data_type = DATA_TYPES[onnx.TensorProto.DataType.Name(kind.elem_type).lower()]
        in_graph[tensor.name] = (data_type, [dim.dim_param or dim.dim_value for dim in kind.shape.dim])
    batch = in_graph["images"][1][0]
    config = config_from_model(served(load_model_meta(path), variant))
    assert shapes_in(config, batch) == in_graph
    assert (config["max_batch_size"] == 0) == isinstance(batch, int), "a fixed batch is a dimension like any other"


@needs_rtx
@pytest.mark.parametrize("name", GRAPHS)
def test_tensors_are_those_of_the_network_that_becomes_the_plan(exported: Export, name: str):
    # A plan cannot be opened without a GPU; its tensors are those of the network that TensorRT's parser makes.
    path = exported(name)
    flavor = open_flavor(FlavorName.TENSORRT_RTX)
    trt = flavor.trt
    builder = trt.Builder(flavor.log.trt_logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, flavor.log.trt_logger)
    assert parser.parse_from_file(str(path))
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    in_network = {t.name: (DATA_TYPES[t.dtype.name.lower()], list(t.shape)) for t in tensors}
    config = config_from_model(served(load_model_meta(path), Variant.TENSORRT))
    assert shapes_in(config, -1) == in_network


def test_the_python_variant_takes_pictures_and_gives_detections(meta: ModelMeta):
    config = config_from_model(served(meta, Variant.PYTHON))
    assert shapes_in(config, "B") == {
        "encoded": ("TYPE_STRING", ["B", 1]),
        "frame": ("TYPE_UINT8", ["B", -1, -1, 3]),
        "postprocess": ("TYPE_FP32", ["B", 3]),
        "num_detections": ("TYPE_INT32", ["B", 1]),
        "boxes": ("TYPE_FP32", ["B", 300, 4]),
        "scores": ("TYPE_FP32", ["B", 300]),
        "class_ids": ("TYPE_INT32", ["B", 300]),
    }
    assert [tensor["optional"] for tensor in config["input"]] == [True, True, True]
    whole = replace(meta, input_stage=InputStage.PIXELS, frame_hw=(720, 1280))
    assert config_from_model(served(whole, Variant.PYTHON))["input"][1]["dims"] == [720, 1280, 3]


# --- what is served, and how ---


def test_the_sidecar_travels_in_the_configuration(meta: ModelMeta):
    meta = replace(meta, class_names=('say "hi"', "back\\slash", "{brace: }", "größe", "日本", "~1"))
    parameters = parameters_of(read(config_from_model(served(meta))))
    assert model_meta_from_json(parameters[META_KEY], "the parameter") == meta
    assert parameters["yolov3_trt_contract"] == "yolov3_trt.triton/1"
    assert parameters["yolov3_trt_variant"] == "onnxruntime"
    assert "\n" not in parameters[META_KEY]


def test_the_options_stand_in_the_text_that_triton_reads(meta: ModelMeta):
    serving = Serving(6, 500, 2, 3, cuda_graphs=True)
    text = text_from_config(config_from_model(ServedModel("m", meta, Variant.TENSORRT, on_gpu=True, serving=serving)))
    for line in (
        'name: "m"\nplatform: "tensorrt_plan"',
        "num_versions: 3",
        "max_batch_size: 6",
        "data_type: TYPE_FP32\n  dims: 3\n  dims: 256\n  dims: 256\n",
        "count: 2\n  kind: KIND_GPU",
        "preferred_batch_size: 4\n  preferred_batch_size: 6\n  max_queue_delay_microseconds: 500",
        "graphs: true",
        'input_data_file: "frame"',
    ):
        assert line in text


@pytest.mark.parametrize(
    "variant, on_gpu, group",
    [
        (Variant.TENSORRT, True, {"count": 1, "kind": "KIND_GPU"}),
        (Variant.ONNXRUNTIME, False, {"count": 1, "kind": "KIND_AUTO"}),
        (Variant.PYTHON, False, {"count": 1, "kind": "KIND_CPU"}),
        (Variant.PYTHON, True, {"count": 1, "kind": "KIND_GPU", "gpus": [0]}),
    ],
)
def test_instances_run_where_the_artifact_can(meta: ModelMeta, variant: Variant, on_gpu: bool, group: dict[str, Any]):
    assert config_from_model(ServedModel("m", meta, variant, on_gpu))["instance_group"] == [group]


def test_a_single_picture_a_call_is_not_waited_for(meta: ModelMeta):
    config = config_from_model(served(replace(meta, batch=Batch(1, 1, 1)), Variant.PYTHON))
    assert config["max_batch_size"] == 1 and "dynamic_batching" not in config
    assert [warmup["batch_size"] for warmup in config["model_warmup"]] == [1]


@pytest.mark.parametrize(
    "batch, asked, variant, text",
    [
        (Batch(1, 4, 8), 9, "onnxruntime", "m: --max-batch 9, but it takes 1:4:8; expected at most 8"),
        (
            Batch(2, 4, 8),
            None,
            "tensorrt",
            "m: batch 2:4:8, but Triton may run any number of pictures from 1 on; export with ",
        ),
        (
            Batch(4, 4, 4),
            2,
            "tensorrt",
            "m: --max-batch 2, but its batch is fixed to 4; leave the option out, or export with ",
        ),
    ],
)
def test_a_batch_that_the_artifact_does_not_take_is_refused(
    meta: ModelMeta, batch: Batch, asked: int | None, variant: str, text: str
):
    with pytest.raises(BackendError) as caught:
        config_from_model(served(replace(meta, batch=batch), Variant(variant), max_batch=asked))
    assert str(caught.value).startswith(text)


def test_cuda_graphs_are_for_engines_only(meta: ModelMeta):
    with pytest.raises(BackendError, match="captures them of the tensorrt variant only; this is python"):
        config_from_model(served(meta, Variant.PYTHON, cuda_graphs=True))


# --- the text format ---


@pytest.mark.parametrize("stage", [OutputStage.HEADS, OutputStage.DETECTIONS])
@pytest.mark.parametrize("batch", [Batch(1, 4, 8), Batch(2, 2, 2)], ids=str)
def test_a_configuration_survives_being_written(meta: ModelMeta, stage: OutputStage, batch: Batch):
    config = config_from_model(served(replace(meta, output_stage=stage, batch=batch)))
    again = read(config)
    assert text_from_config(again) == text_from_config(config)
    assert again["parameters"] == config["parameters"]


def test_other_ways_to_write_the_same_are_read():
    text = "# by hand\ninput < name: 'it''s' \"\\303\\274\\x41\" dims: [1, 2], dims: 3; newer { field: 1 } >"
    assert config_from_text(text, "t") == {"input": [{"name": "itsüA", "dims": ["1", "2", "3"]}]}


@pytest.mark.parametrize(
    "text, error",
    [
        ("name", "t:1:5: '': Expected \":\"."),
        ("\n\ninput {", 't:3:7: Expected "}".'),
        ("max_batch_size: many", "t:1:17: 'max_batch_size: many': Couldn't parse integer: many"),
        (f"max_batch_size: {'9' * 5000}", "t:1:17: 'max_batch_size: 999"),
        ("parameters { key: 'a' value: 7 }", "t:1:"),
        ("name: \x01", "t:1:7: "),
        ("newer {" * 5000, "t:"),
    ],
)
def test_text_that_is_no_configuration_is_refused(text: str, error: str):
    with pytest.raises(MetaError) as caught:
        config_from_text(text, "t")
    assert str(caught.value).startswith(error) and str(caught.value).endswith("; correct it, or write the file again")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_sidecars_are_one_line_of_json(meta: ModelMeta):
    assert json.loads(parameters_of(read(config_from_model(served(meta))))[META_KEY])["batch"] == {
        "min": 1,
        "opt": 4,
        "max": 8,
    }
