"""What a `triton://` address says, and what a served model must promise; no server needed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes import FakeBackend
from yolov3_trt.backends.triton.address import CallOptions, Encoding, TritonAddress, parse_address
from yolov3_trt.backends.triton.contract import Variant, contract_of
from yolov3_trt.deploy.triton import ServedModel, Serving, config_from_model
from yolov3_trt.errors import BackendError
from yolov3_trt.masking import masked
from yolov3_trt.meta import Batch, InputStage, ModelMeta, OutputStage, meta_from_spec
from yolov3_trt.models import load_spec

META = FakeBackend.meta
HEADS = replace(META, input_stage=InputStage.TENSOR, output_stage=OutputStage.HEADS, batch=Batch(1, 1, 4))
Config = dict[str, Any]


def config_of(meta: ModelMeta = META, variant: Variant = Variant.PYTHON) -> Config:
    return dict(config_from_model(ServedModel("fake", meta, variant, on_gpu=False)))


@pytest.mark.parametrize(
    "text, address",
    [
        ("triton://gpu1:8001/yolov3", TritonAddress(("gpu1:8001",), "yolov3")),
        ("triton://gpu1/yolov3:12", TritonAddress(("gpu1:8001",), "yolov3", "12")),
        ("triton://10.0.0.5:9000,[::1]:7/m", TritonAddress(("10.0.0.5:9000", "[::1]:7"), "m")),
        ("triton://a,a,b/m", TritonAddress(("a:8001", "b:8001"), "m")),
        (
            "triton://a/m?deadline_ms=250&retries=0&in_flight=16&encoding=jpeg",
            TritonAddress(("a:8001",), "m", "", CallOptions(250, 0, 16, Encoding.JPEG)),
        ),
        (
            "tritons://a/m?ca_file=ca.pem&certificate_file=me.pem&key_file=me.key",
            TritonAddress(
                ("a:8001",), "m", "", CallOptions(ca_file="ca.pem", certificate_file="me.pem", key_file="me.key"), True
            ),
        ),
    ],
)
def test_an_address_names_servers_a_model_and_how_to_call_it(text: str, address: TritonAddress):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text, error",
    [
        ("triton://gpu1:8001", "'' names no model or version"),
        ("triton://gpu1:8001/a/b", "'/a/b' names no model or version"),
        ("triton://gpu1/m:latest", "'/m:latest' names no model or version"),
        ("triton://gpu1/m:", "'/m:' names no model or version"),
        ("triton:///m", "'' names no server"),
        ("triton://me@gpu1/m", "'me@gpu1' names no server"),
        ("triton://gpu1:http/m", "expected host:port"),
        ("triton://gpu1:99999/m", "expected host:port"),
        ("triton://[::1/m", "expected triton[s]://host:port"),
        ("triton://a/m?speed=high", "speed: there is no such option; expected deadline_ms, retries"),
        ("triton://a/m?retries=-1", "retries: got '-1'; expected a whole number, 0 to 1000"),
        ("triton://a/m?retries=9999", "retries: got 9999; expected 0 to 1000"),
        ("triton://a/m?deadline_ms=0", "deadline_ms: got 0; expected 1 to 3600000"),
        ("triton://a/m?in_flight=0", "in_flight: got 0; expected 1 to 1024"),
        ("triton://a/m?encoding=gif", "encoding: got 'gif'; expected one of raw, png, jpeg"),
        ("triton://a/m?retries", "expected triton[s]://host:port"),
        ("triton://a/m?ca_file=ca.pem", "ca_file: triton:// is not encrypted; write tritons://"),
        (
            "tritons://a/m?key_file=me.key",
            "certificate_file: it goes with its key, and the key with its certificate; give both",
        ),
    ],
)
def test_an_address_of_another_form_is_refused(text: str, error: str):
    with pytest.raises(BackendError) as raised:
        parse_address(text)
    shown = masked(text)  # what stands where a password might, does not
    assert error in str(raised.value) and shown in str(raised.value) and "\n" not in str(raised.value)


def without_parameter(name: str) -> Callable[[Config], Config]:
    return lambda config: {**config, "parameters": {k: v for k, v in config["parameters"].items() if k != name}}


def with_parameter(name: str, value: str) -> Callable[[Config], Config]:
    return lambda config: {**config, "parameters": {**config["parameters"], name: {"string_value": value}}}


def with_tensor(kind: str, index: int, **changes: Any) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        tensors = [dict(tensor) for tensor in config[kind]]
        tensors[index] |= changes
        return {**config, kind: tensors}

    return change


@pytest.mark.parametrize(
    "change, error",
    [
        (
            without_parameter("yolov3_trt_contract"),
            "yolov3_trt_contract: there is none: the model is not this package's; expected 'yolov3_trt.triton/1'",
        ),
        (lambda config: {"name": "foreign"}, "yolov3_trt_contract: there is none"),
        (
            with_parameter("yolov3_trt_contract", "x/9"),
            "yolov3_trt_contract: got 'x/9'; expected 'yolov3_trt.triton/1'",
        ),
        (
            with_parameter("yolov3_trt_variant", "openvino"),
            "yolov3_trt_variant: 'openvino' is not a valid Variant; expected tensorrt",
        ),
        (with_parameter("yolov3_trt_meta", "{"), "yolov3_trt_meta: this sidecar cannot be read"),
        (with_parameter("yolov3_trt_meta", '{"format": "x"}'), "format 'x'; expected 'yolov3_trt.model/1'"),
        (lambda config: {**config, "max_batch_size": 0}, "max_batch_size is 0; expected 1 or more"),
        (
            lambda config: {**config, "input": config["input"][:1]},
            "input 'frame' is not there; got ['encoded']",
        ),
        (
            with_tensor("output", 1, dims=[300, 5]),
            "output 'boxes' is FP32 [300, 5] per picture; expected FP32 [300, 4]",
        ),
        (
            with_tensor("output", 0, data_type="TYPE_INT64"),
            "output 'num_detections' is INT64 [1] per picture; expected INT32 [1]",
        ),
        (
            with_tensor("output", 2, dims=["100"]),
            "output 'scores' is FP32 [100] per picture; expected FP32 [300]",
        ),
        (
            with_tensor("output", 3, name="labels"),
            "output 'class_ids' is not there; got ['boxes', 'labels'",
        ),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused(change: Callable[[Config], Config], error: str):
    with pytest.raises(BackendError) as raised:
        contract_of(change(config_of()), "gpu1:8001/fake")
    assert str(raised.value).startswith("gpu1:8001/fake: ") and error in str(raised.value)
    assert "deploy triton" in str(raised.value)


@pytest.mark.parametrize("batch", [Batch(1, 1, 1), Batch(1, 2, 4), Batch(2, 2, 2)], ids=str)
@pytest.mark.parametrize("variant", [Variant.TENSORRT, Variant.ONNXRUNTIME])
@pytest.mark.parametrize("stage", [OutputStage.HEADS, OutputStage.DETECTIONS])
def test_what_deploy_writes_keeps_the_contract(batch: Batch, variant: Variant, stage: OutputStage):
    meta = replace(META, batch=batch, output_stage=stage)
    found = contract_of(config_of(meta, variant), "s/m")
    assert (found.variant, found.meta) == (variant, meta)


def test_the_bundled_model_keeps_the_contract():
    meta = replace(meta_from_spec(load_spec("shapes")), batch=Batch(1, 4, 8))
    assert contract_of(config_of(meta), "s/m").meta == meta


@pytest.mark.parametrize(
    "change, error",
    [
        (
            with_tensor("input", 0, dims=[3, 48, 63]),
            "input 'images' is FP32 [3, 48, 63] per picture; expected FP32 [3, 48, 64]",
        ),
        (with_tensor("input", 0, data_type="TYPE_UINT8"), "is UINT8 [3, 48, 64] per picture"),
        (with_tensor("output", 0, dims=[6, 6]), "output 'head0' is FP32 [6, 6] per picture; expected FP32 [6, 6, 8]"),
    ],
)
def test_tensors_are_checked_against_the_sidecar(change: Callable[[Config], Config], error: str):
    config = config_of(HEADS, Variant.ONNXRUNTIME)
    with pytest.raises(BackendError) as raised:
        contract_of(change(config), "s/m")
    assert error in str(raised.value)
    free = with_tensor("input", 0, dims=["-1", "-1", "-1"])(config)
    assert contract_of(free, "s/m").meta == HEADS


def test_a_server_may_take_smaller_batches_than_the_artifact():
    meta = replace(HEADS, batch=Batch(1, 4, 8))
    config = config_from_model(ServedModel("fake", meta, Variant.ONNXRUNTIME, False, Serving(max_batch=2)))
    assert contract_of(config, "s/m").meta == replace(HEADS, batch=Batch(1, 2, 2))


@pytest.mark.parametrize(
    "change, different",
    [
        ({"weights_sha256": "f" * 64, "onnx_sha256": "ab" * 32, "versions": {"torch": "9"}}, ""),
        ({"class_names": ("height",)}, 'class_names: ["level"] and ["height"]'),
        ({"input_stage": InputStage.TENSOR}, 'input_stage: "pixels" and "tensor"'),
        ({"batch": Batch(1, 2, 4)}, 'batch: {"min": 1, "opt": 1, "max": 1} and {"min": 1, "opt": 2, "max": 4}'),
        ({"frame_hw": (72, 96)}, "frame_hw: null and [72, 96]"),
    ],
)
def test_models_may_differ_in_what_clients_do_not_see(change: dict[str, Any], different: str):
    other = contract_of(config_of(replace(META, **change)), "s/m")
    assert contract_of(config_of(), "s/m").difference(other) == different


def test_another_variant_is_another_contract():
    here, there = (contract_of(config_of(HEADS, variant), "s/m") for variant in (Variant.ONNXRUNTIME, Variant.TENSORRT))
    assert here.difference(there) == "variant: onnxruntime and tensorrt" and here.difference(here) == ""
