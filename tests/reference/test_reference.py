"""The PyTorch reference: raw outputs against Darknet's, batch norm's two forms, weights in and out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import COCO_MODELS
from yolov3_trt.data.images import load_image
from yolov3_trt.errors import WeightsError
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    MaxPool,
    Route,
    ScaleChannels,
    Shortcut,
    Softmax,
    Upsample,
    Yolo,
)
from yolov3_trt.models import Model, load_model
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.darknet_cfg import spec_from_cfg
from yolov3_trt.models.darknet_weights import weights_from_darknet
from yolov3_trt.reference import module_from_spec, weights_from_module
from yolov3_trt.spec import BatchNorm, ModelSpec

Fabricated = Callable[[str], Path]


def exact_input(path: Path) -> torch.Tensor:
    """A picture of the network's size as Darknet takes it: (1, 3, H, W) RGB/255."""
    return torch.from_numpy(load_image(path)[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255)


def assert_matches_golden(maps: dict[int, torch.Tensor], golden, tool: str, tolerance: float):
    heads = sum(key.endswith("_layer") for key in golden.files)
    assert heads > 0
    for i in range(heads):
        head = maps[int(golden[f"head{i}_layer"])]
        assert tuple(head.shape) == tuple(golden[f"head{i}_shape"])
        sampled = head.flatten().numpy()[golden[f"head{i}_index"]]
        np.testing.assert_allclose(sampled, golden[f"head{i}_{tool}"], atol=tolerance, rtol=0)
        absolute_sum = golden[f"head{i}_{tool}_stats"][4]
        np.testing.assert_allclose(head.double().abs().sum(), absolute_sum, rtol=1e-4)


def run_golden_layers(spec: ModelSpec, weights_path: Path, image: Path, golden) -> dict[int, torch.Tensor]:
    network = module_from_spec(spec, weights_from_darknet(spec, weights_path).arrays)
    layers = {int(golden[key]) for key in golden.files if key.endswith("_layer")}
    with torch.inference_mode():
        return network.run(exact_input(image), layers)


@pytest.mark.parametrize("name", COCO_MODELS)
def test_heads_of_real_models_are_darknets(name: str, data: Path):
    golden = np.load(data / "goldens" / f"{name}.heads.npz")
    spec = spec_from_cfg(data / "models" / f"{name}.cfg")
    image = data / "images" / "exact320" / "dog.png"
    maps = run_golden_layers(spec, data / "models" / f"{name}.weights", image, golden)
    assert_matches_golden(maps, golden, "darknet", 1e-3)


# A built-in network is its cfg layer by layer (tests/models/test_architectures.py): one cfg will do.
@pytest.mark.parametrize(
    "source, name",
    [("built-in", "yolov3"), ("built-in", "yolov3-spp"), ("built-in", "yolov3-tiny"), ("cfg", "yolov3-tiny")],
)
def test_heads_of_full_size_architectures_are_darknets(name: str, source: str, data: Path, fabricated: Fabricated):
    golden = np.load(data / "goldens" / f"{name}.random.npz")
    spec = BUILT_IN[name]() if source == "built-in" else spec_from_cfg(data / "models" / f"{name}.cfg")
    image = data / "images" / "exact" / "dog_416.png"
    maps = run_golden_layers(spec.with_input_hw((416, 416)), fabricated(name), image, golden)
    assert_matches_golden(maps, golden, "darknet", 1e-3)


@pytest.mark.parametrize("name", ["yolov3-tiny", "darknet53", "resnet50", "resnext50"])
def test_epsilon_after_the_root_is_pjreddies(name: str, data: Path, fabricated: Fabricated):
    golden = np.load(data / "goldens" / f"{name}.random.npz")
    spec = spec_from_cfg(data / "models" / f"{name}.cfg", BatchNorm(epsilon=1e-6, after_sqrt=True))
    image = data / "images" / "exact" / ("dog_416.png" if spec.heads else "dog_256.png")
    maps = run_golden_layers(spec, fabricated(name), image, golden)
    assert_matches_golden(maps, golden, "pjreddie", 1e-3)


def test_darknet53_with_the_epsilon_inside_the_root_is_alexeyabs(data: Path, fabricated: Fabricated):
    golden = np.load(data / "goldens" / "darknet53.random.npz")
    spec = spec_from_cfg(data / "models" / "darknet53.cfg")
    maps = run_golden_layers(spec, fabricated("darknet53"), data / "images" / "exact" / "dog_256.png", golden)
    assert_matches_golden(maps, golden, "darknet", 1e-3)


def test_a_classifier_ends_in_probabilities(data: Path, fabricated: Fabricated):
    model = load_model(data / "models" / "darknet53.cfg", fabricated("darknet53"))
    network = module_from_spec(model.spec, model.weights)
    with torch.inference_mode():
        (output,) = network(exact_input(data / "images" / "exact" / "dog_256.png"))
    assert output.shape == (1, 1000, 1, 1)
    torch.testing.assert_close(output.sum(), torch.tensor(1.0))


def small_spec(batch_norm: BatchNorm | None = None) -> ModelSpec:
    """One of every layer a detector has, 16x16 input, one head."""
    layers = (
        Conv(8, 3, 2, 1, batch_norm=True, bias=False, activation=Activation.LEAKY),  # 0: 8x8x8
        Conv(8, 3, 1, 1, groups=8, batch_norm=True, bias=False, activation=Activation.RELU6),  # 1
        Shortcut((0,), Activation.MISH),  # 2
        AvgPool(),  # 3: 8x1x1
        Conv(8, 1, activation=Activation.LOGISTIC),  # 4
        ScaleChannels(2, Activation.SWISH),  # 5: 8x8x8
        MaxPool(2, 2),  # 6: 8x4x4
        Upsample(2),  # 7: 8x8x8
        Route((7, 0)),  # 8: 16x8x8
        Route((8,), groups=2, group_id=1),  # 9: 8x8x8
        MaxPool(2, 1),  # 10
        Conv(14, 1),  # 11
        Yolo(((4.0, 4.0), (8.0, 8.0)), 2),
    )
    return ModelSpec("small", layers, (16, 16), batch_norm=batch_norm or BatchNorm())


def test_batch_norm_divides_as_the_rule_says():
    spec = ModelSpec("one", (Conv(1, 1, batch_norm=True, bias=False),), (1, 1), channels=1)
    weights = {"layers.0.conv.weight": np.ones((1, 1, 1, 1), np.float32)}
    values = {"weight": 2.0, "bias": 1.0, "running_mean": 0.5, "running_var": 4e-6}
    weights |= {f"layers.0.batch_norm.{part}": np.array([value], np.float32) for part, value in values.items()}
    image = torch.full((1, 1, 1, 1), 1.5)  # (1.5 - 0.5) * 2 / divisor + 1
    for rule, divisor in [
        (BatchNorm(1e-5), (4e-6 + 1e-5) ** 0.5),
        (BatchNorm(1e-6, after_sqrt=True), 2e-3 + 1e-6),
    ]:
        network = module_from_spec(ModelSpec("one", spec.layers, (1, 1), channels=1, batch_norm=rule), weights)
        with torch.inference_mode():
            assert network(image)[0].item() == pytest.approx(2 / divisor + 1, rel=1e-5)


def test_a_partial_shortcut_adds_every_second_pixel_of_the_first_channels():
    spec = ModelSpec("partial", (Conv(1, 1), Conv(2, 1, 2), Shortcut((0,))), (2, 2), channels=1)
    weights = {
        "layers.0.conv.weight": np.ones((1, 1, 1, 1), np.float32),
        "layers.0.conv.bias": np.zeros(1, np.float32),
        "layers.1.conv.weight": np.zeros((2, 1, 1, 1), np.float32),
        "layers.1.conv.bias": np.array([10, 20], np.float32),
    }
    with torch.inference_mode():
        (output,) = module_from_spec(spec, weights)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert output.flatten().tolist() == [11, 20]


def test_a_stride_1_pool_of_size_2_pads_after_only():
    spec = ModelSpec("pool", (Conv(1, 1), MaxPool(2, 1)), (2, 2), channels=1)
    weights = {
        "layers.0.conv.weight": np.ones((1, 1, 1, 1), np.float32),
        "layers.0.conv.bias": np.zeros(1, np.float32),
    }
    with torch.inference_mode():
        (output,) = module_from_spec(spec, weights)(torch.tensor([[[[-1.0, -2.0], [-4.0, -3.0]]]]))
    assert output.flatten().tolist() == [-1, -2, -3, -3]


def test_state_dict_has_the_keys_and_shapes_of_the_spec():
    spec = small_spec()
    state = module_from_spec(spec).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == spec.weight_shapes


def test_weights_survive_the_module(coco_model: Callable[[str], Model]):
    model = coco_model(COCO_MODELS[0])
    again = weights_from_module(module_from_spec(model.spec, model.weights))
    assert again.keys() == model.weights.keys()
    for key, array in model.weights.items():
        np.testing.assert_array_equal(again[key], array)


def test_weights_that_do_not_fit_are_refused():
    spec = small_spec()
    weights = dict(weights_from_module(module_from_spec(spec)))
    missing = {key: value for key, value in weights.items() if key != "layers.0.conv.weight"}
    with pytest.raises(
        WeightsError, match=r"small: layers\.0\.conv\.weight is in only one of the model and the weights"
    ):
        module_from_spec(spec, missing)
    weights["layers.11.conv.bias"] = np.zeros(3, np.float32)
    with pytest.raises(WeightsError, match=r"small: layers\.11\.conv\.bias is \(3,\); expected \(14,\)"):
        module_from_spec(spec, weights)


def test_softmax_works_in_groups():
    spec = ModelSpec("softmax", (Softmax(2),), (1, 1), channels=4)
    with torch.inference_mode():
        (output,) = module_from_spec(spec, {})(torch.tensor([0.0, 0.0, 5.0, 5.0]).reshape(1, 4, 1, 1))
    assert output.flatten().tolist() == [0.5] * 4


def test_softmax_of_a_map_is_over_all_its_values_as_darknets():
    spec = ModelSpec("map", (Softmax(2),), (2, 3), channels=4)
    x = torch.arange(24.0).reshape(1, 4, 2, 3) / 7
    (out,) = module_from_spec(spec, {})(x)
    halves = np.exp(x.numpy().reshape(2, 12))
    np.testing.assert_allclose(out.numpy().reshape(2, 12), halves / halves.sum(axis=1, keepdims=True), rtol=1e-6)
