"""Other classes for a trained network: which rows of a head are kept, which start anew, and which networks are refused."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from yolov3_trt.errors import SpecError
from yolov3_trt.layers import Conv, Layer, Route, Yolo
from yolov3_trt.models import Model
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.transfer import PRIOR_LOGIT, Transfer, spec_with_classes, weights_with_classes
from yolov3_trt.reference import module_from_spec, run_module
from yolov3_trt.spec import ModelSpec

ANCHORS = ((10.0, 20.0), (30.0, 40.0))
BACKBONE = Conv(1, 3, 1, 1, batch_norm=True, bias=False)
# One input channel, so that a filter of the head is one number: its own index.
TINY = ModelSpec("tiny", (BACKBONE, Conv(14), Yolo(ANCHORS, 2, 1.1)), (8, 8), channels=1)
OLD_NAMES = ("cat", "Dog")


def tiny_weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    weights = {key: rng.random(shape, np.float32) for key, shape in TINY.weight_shapes.items()}
    weights["layers.1.conv.weight"] = np.arange(14, dtype=np.float32).reshape(14, 1, 1, 1)
    weights["layers.1.conv.bias"] = np.arange(100, 114, dtype=np.float32)
    return weights


def transfer(*new_names: str, seed: int = 0, old_names: tuple[str, ...] = OLD_NAMES) -> Transfer:
    new_spec = spec_with_classes(TINY, len(new_names))
    return weights_with_classes(TINY, tiny_weights(), old_names, new_spec, new_names, seed)


def assert_same_arrays(weights: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert weights.keys() == expected.keys()
    for key, array in weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[key], err_msg=key)


# --- specs ---


def test_heads_and_the_convolutions_before_them_change_and_nothing_else():
    spec = spec_with_classes(TINY, 3)
    assert spec == replace(TINY, layers=(BACKBONE, Conv(16), Yolo(ANCHORS, 3, 1.1)))


@pytest.mark.parametrize("name", BUILT_IN)
def test_classes_may_change_and_change_back(name: str):
    spec = BUILT_IN[name]()
    other = spec_with_classes(spec, 3)
    assert [head.channels for head in other.heads] == [24] * len(spec.heads)
    assert other.num_classes == 3
    assert spec_with_classes(other, spec.num_classes) == spec


def test_yolov3_with_20_classes_is_the_voc_network():
    assert spec_with_classes(BUILT_IN["yolov3"](), 20).layers == BUILT_IN["yolov3-voc"]().layers


def network(*layers: Layer) -> ModelSpec:
    return ModelSpec("m", layers, (8, 8), channels=7)


HEAD = Yolo(((10.0, 20.0),), 2)
REFUSED_CONV = "; other classes need a Conv with a bias, without batch norm and groups"


@pytest.mark.parametrize(
    "spec, error",
    [
        (network(HEAD), f"m: layer -1, before head0, is None{REFUSED_CONV}"),
        (network(Conv(7), Route((0,)), HEAD), f"m: layer 1, before head0, is {Route((0,))}{REFUSED_CONV}"),
        (network(BACKBONE_7 := replace(BACKBONE, filters=7), HEAD), f"m: layer 0, before head0, is {BACKBONE_7}{REFUSED_CONV}"),
        (network(Conv(7, bias=False), HEAD), f"m: layer 0, before head0, is {Conv(7, bias=False)}{REFUSED_CONV}"),
        (network(Conv(7, groups=7), HEAD), f"m: layer 0, before head0, is {Conv(7, groups=7)}{REFUSED_CONV}"),
        (
            network(Conv(7), HEAD, Route((0,))),
            "m: layer 2 reads layer 0, the logits of head0; with other classes it would read other channels",
        ),
        (network(Conv(7)), "m has no detection heads; a classifier cannot be given other classes here"),
    ],
    ids=["the image", "a route", "batch norm", "no bias", "groups", "convolution read", "classifier"],
)  # fmt: skip
def test_network_whose_heads_cannot_change_is_refused(spec: ModelSpec, error: str):
    with pytest.raises(SpecError) as caught:
        spec_with_classes(spec, 3)
    assert str(caught.value) == error


def test_no_class_at_all_is_refused():
    with pytest.raises(SpecError, match=r"^layer 2: classes=0; expected 1 or more$"):
        spec_with_classes(TINY, 0)


# --- weights ---


def test_rows_of_a_head_are_kept_by_name():
    result = transfer("dog ", "bird", "CAT", seed=5)
    # Both anchors: x, y, w, h, objectness, dog, bird, cat.
    fresh = np.random.default_rng(5).normal(0, 0.01, 16).astype(np.float32)
    weight = [0, 1, 2, 3, 4, 6, fresh[6], 5, 7, 8, 9, 10, 11, 13, fresh[14], 12]
    bias = [100, 101, 102, 103, 104, 106, PRIOR_LOGIT, 105, 107, 108, 109, 110, 111, 113, PRIOR_LOGIT, 112]
    expected = {
        **tiny_weights(),
        "layers.1.conv.weight": np.array(weight, np.float32).reshape(16, 1, 1, 1),
        "layers.1.conv.bias": np.array(bias, np.float32),
    }
    assert_same_arrays(result.weights, expected)
    assert result.kept_classes == ("dog ", "CAT")
    assert result.new_classes == ("bird",)


def test_same_names_keep_every_weight():
    result = transfer(*OLD_NAMES)
    assert_same_arrays(result.weights, tiny_weights())
    assert (result.kept_classes, result.new_classes) == (OLD_NAMES, ())


def test_a_name_that_occurs_twice_keeps_both_rows():
    assert_same_arrays(transfer("cat", "cat", old_names=("cat", "cat")).weights, tiny_weights())
    assert transfer("cat", "cat").kept_classes == ("cat",)


def test_only_the_seed_decides_how_new_classes_start():
    first, again, other = (transfer("bird", seed=seed).weights["layers.1.conv.weight"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_weights_are_the_results_own():
    weights = tiny_weights()
    result = weights_with_classes(TINY, weights, OLD_NAMES, TINY, OLD_NAMES, 0).weights
    assert not any(np.shares_memory(result[key], weights[key]) for key in weights)


def test_input_size_and_anchors_may_differ():
    new_spec = replace(spec_with_classes(TINY, 1), input_hw=(16, 32))
    new_spec = replace(new_spec, layers=(*new_spec.layers[:2], Yolo(((1.0, 2.0), (3.0, 4.0)), 1)))
    weights = weights_with_classes(TINY, tiny_weights(), OLD_NAMES, new_spec, ("cat",), 0).weights
    assert_same_arrays(weights, transfer("cat").weights)


@pytest.mark.parametrize(
    "old_names, new_spec, new_names, error",
    [
        (("cat",), TINY, OLD_NAMES, "tiny: 1 class names; expected 2"),
        (OLD_NAMES, TINY, ("cat",), "tiny: 1 class names; expected 2"),
        (
            OLD_NAMES,
            ModelSpec("small", (Conv(8), Conv(12), Yolo(ANCHORS, 1)), (8, 8), channels=1),
            ("cat",),
            "small is not tiny with 1 classes",
        ),
    ],
    ids=["old names", "new names", "another network"],
)
def test_what_does_not_go_together_is_refused(old_names, new_spec: ModelSpec, new_names, error: str):
    with pytest.raises(SpecError) as caught:
        weights_with_classes(TINY, tiny_weights(), old_names, new_spec, new_names, 0)
    assert str(caught.value) == error


def test_real_model_keeps_boxes_objectness_and_persons_to_the_bit(coco_model: Callable[[str], Model]):
    model = coco_model("MobileNetV2-YOLOv3-Nano-coco")
    names = ("zebra-like thing", "person")
    spec = spec_with_classes(model.spec, 2)
    result = weights_with_classes(model.spec, model.weights, model.class_names, spec, names, seed=0)
    assert (result.kept_classes, result.new_classes) == (("person",), ("zebra-like thing",))
    image = np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    before = run_module(module_from_spec(model.spec, model.weights), image)
    after = run_module(module_from_spec(spec, result.weights), image)
    for old, new in zip(before, after, strict=True):
        old_logits, new_logits = old.reshape(3, 85, -1), new.reshape(3, 7, -1)  # (A, 5+C, H*W)
        np.testing.assert_array_equal(new_logits[:, :5], old_logits[:, :5])
        np.testing.assert_array_equal(new_logits[:, 6], old_logits[:, 5])
        assert np.abs(new_logits[:, 5] - PRIOR_LOGIT).max() < 2  # near the prior, whatever the picture
