"""The layer-spec IR: counts and shapes known from the papers, and what it refuses."""

from dataclasses import replace

import pytest

from yolov3_trt.errors import SpecError
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    Dropout,
    Layer,
    MaxPool,
    Route,
    ScaleChannels,
    Shortcut,
    Softmax,
    Upsample,
    Yolo,
)
from yolov3_trt.models.architectures import YOLOV3_ANCHORS, darknet53, yolov3, yolov3_spp, yolov3_tiny, yolov3_voc
from yolov3_trt.models.darknet_cfg import parse_cfg
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.models.net import Net
from yolov3_trt.spec import BatchNorm, ModelSpec, Nms, NmsKind

ANCHOR = ((10.0, 20.0),)


def model(*layers: Layer, input_hw=(8, 8), channels=3) -> ModelSpec:
    return ModelSpec("m", layers, input_hw, channels)


def test_yolov3_has_the_published_number_of_parameters():
    assert yolov3().num_parameters == 61_949_149
    assert yolov3().num_values == yolov3().num_parameters + yolov3().num_statistics


def test_yolov3_with_20_classes_has_75_channel_heads_at_strides_32_16_and_8():
    spec = yolov3_voc()
    assert (spec.num_parameters, spec.num_classes) == (61_626_049, 20)
    assert [head.channels for head in spec.heads] == [75, 75, 75]
    assert [head.grid_hw for head in spec.heads] == [(13, 13), (26, 26), (52, 52)]
    assert [head.name for head in spec.heads] == ["head0", "head1", "head2"]
    assert [head.layer for head in spec.heads] == [82, 94, 106]
    assert spec.outputs == (82, 94, 106)
    assert spec.heads[0].anchors_wh == ((116, 90), (156, 198), (373, 326))


@pytest.mark.parametrize(
    "spec, input_hw, grids",
    [
        (yolov3(), (320, 608), [(10, 19), (20, 38), (40, 76)]),
        (yolov3_spp(), (608, 352), [(19, 11), (38, 22), (76, 44)]),
        (yolov3_tiny(), (96, 64), [(3, 2), (6, 4)]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_input_may_be_any_multiple_of_32_in_each_direction(spec, input_hw, grids):
    resized = spec.with_input_hw(input_hw)
    assert [head.grid_hw for head in resized.heads] == grids
    assert resized.num_values == spec.num_values
    assert replace(resized, input_hw=spec.input_hw) == spec


def test_input_size_that_does_not_fit_is_refused_with_advice():
    text = (
        r"^yolov3: input size 416x400 does not fit \(layer 86: joins maps of different sizes "
        r"\(layer 85: 256x26x26, layer 61: 512x25x26\)\); multiples of 32 do$"
    )
    with pytest.raises(SpecError, match=text) as caught:
        yolov3().with_input_hw((400, 416))
    assert caught.value.layer == 86


@pytest.mark.parametrize(
    "layer, shape",
    [
        (Conv(16, 3, 2, 1), (16, 5, 4)),
        (Conv(16, 3), (16, 7, 5)),
        (Conv(6, 1, groups=3), (6, 9, 7)),
        (MaxPool(2, 2), (3, 5, 4)),
        (MaxPool(2, 1), (3, 9, 7)),
        (MaxPool(13, 1), (3, 9, 7)),
        (AvgPool(), (3, 1, 1)),
        (Upsample(3), (3, 27, 21)),
        (Dropout(), (3, 9, 7)),
        (Softmax(3), (3, 9, 7)),
    ],
    ids=str,
)
def test_layer_has_the_shape_darknet_gives_it_on_an_odd_input(layer, shape):
    assert model(layer, input_hw=(9, 7)).shapes == (shape,)


@pytest.mark.parametrize(
    "layers, shape",
    [
        pytest.param((Conv(4), Conv(4), Shortcut((0,))), (4, 8, 8), id="equal"),
        pytest.param((Conv(8), Conv(4), Shortcut((0,))), (4, 8, 8), id="source has more channels"),
        pytest.param((Conv(4), Conv(8), Shortcut((0,))), (8, 8, 8), id="source has fewer channels"),
        pytest.param((Conv(4), Conv(8, 3, 2, 1), Shortcut((0,))), (8, 4, 4), id="source is twice as large"),
        pytest.param((Conv(4), Conv(4, 3, 2, 1), Conv(8, 1), Shortcut((0, 1))), (8, 4, 4), id="two sources"),
        pytest.param((Conv(4), AvgPool(), Conv(4), ScaleChannels(0)), (4, 8, 8), id="scaled channels"),
        pytest.param((Conv(4), Conv(6), Route((1, 0))), (10, 8, 8), id="route"),
        pytest.param((Conv(4), Conv(6), Route((1, 0), groups=2, group_id=1)), (5, 8, 8), id="route of halves"),
    ],
)
def test_layers_that_read_several_others_combine_their_shapes(layers, shape):
    assert model(*layers).shapes[-1] == shape


def test_sources_name_the_previous_layer_first():
    spec = model(Conv(4), AvgPool(), ScaleChannels(0), Shortcut((0,)), Route((3, 0)))
    assert [spec.sources(i) for i in range(5)] == [(-1,), (0,), (1, 0), (2, 0), (3, 0)]
    assert spec.input_shape(0) == (3, 8, 8)
    assert spec.input_shape(2) == (4, 1, 1)


@pytest.mark.parametrize(
    "layers, text, layer",
    [
        ((Conv(4, groups=2),), "layer 0: groups=2 divides not both 3 input channels and filters=4", 0),
        ((Conv(6), Conv(4, groups=3)), "layer 1: groups=3 divides not both 6 input channels and filters=4", 1),
        ((Conv(4, size=0),), "layer 0: size=0; expected 1 or more", 0),
        ((Conv(4, pad=-1),), "layer 0: pad=-1; expected 0 or more", 0),
        ((Conv(4, size=9),), "layer 0: a 9x9 kernel with pad=0 does not fit 8x8", 0),
        ((MaxPool(2, 0),), "layer 0: stride=0; expected 1 or more", 0),
        ((Upsample(0),), "layer 0: stride=0; expected 1 or more", 0),
        ((Softmax(5),), "layer 0: softmax of 192 values in groups=5; expected a divisor of 192", 0),
        (
            (Conv(4), MaxPool(2, 2), Route((0, 1))),
            "layer 2: joins maps of different sizes (layer 0: 4x8x8, layer 1: 4x4x4)",
            2,
        ),
        ((Conv(4), Route(())), "layer 1: routes no layer; expected one or more", 1),
        ((Conv(4), Route((0,), 2, 2)), "layer 1: group_id=2; expected 0..1", 1),
        ((Conv(5), Route((0,), 2, 0)), "layer 1: groups=2 does not divide the channels of 5x8x8", 1),
        ((Conv(4), Route((2,)), Conv(4)), "layer 1 reads layer 2; expected 0..0", 1),
        ((Conv(4), Conv(4), Shortcut((2,))), "layer 2 reads layer 2; expected 0..1", 2),
        ((Conv(4), Shortcut(())), "layer 1: adds no layer; expected one or more", 1),
        (
            (Conv(4), Conv(4, 3), Shortcut((0,))),
            "layer 2: adds 4x8x8 to 4x6x6; expected the same size or a whole multiple of it",
            2,
        ),
        (
            (MaxPool(2, 2), Upsample(2), Shortcut((0,))),
            "layer 2: adds 3x4x4 to 3x8x8; expected the same size or a whole multiple of it",
            2,
        ),
        ((Conv(4), AvgPool(), Conv(5), ScaleChannels(0)), "layer 3: scales 4x8x8 by 5x1x1; expected 4x1x1", 3),
        (
            (Conv(21), Yolo(ANCHOR * 3, 80)),
            "layer 1: the layer before this head has filters=21; expected masks x (5 + classes) = 3 x (5 + 80) = 255",
            1,
        ),
        ((Conv(6), Yolo((), 1)), "layer 1: this head has no anchors; expected one or more", 1),
        ((Conv(5), Yolo(ANCHOR, 0)), "layer 1: classes=0; expected 1 or more", 1),
        ((Upsample(10**9),), "layer 0: its output is 3x8000000000x8000000000; expected at most 2^31 - 1 values", 0),
        ((), "m: there are no layers", None),
        (
            (Conv(6), Yolo(ANCHOR, 1), Conv(6)),
            "layer 2 reads layer 1, a head: Darknet passes on its activated values, this package has its logits only; expected "
            "a head to be read by no layer",
            2,
        ),
        (
            (Conv(6), Yolo(ANCHOR, 1), Route((0,)), Conv(7), Yolo(ANCHOR, 2)),
            "m: the heads have [1, 2] classes; expected one number",
            None,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_model_that_does_not_fit_together_is_refused(layers, text, layer):
    with pytest.raises(SpecError) as caught:
        model(*layers)
    assert (str(caught.value), caught.value.layer) == (text, layer)


@pytest.mark.parametrize("input_hw, channels", [((0, 8), 3), ((8, -1), 3), ((8, 8), 0)])
def test_input_without_a_pixel_or_channel_is_refused(input_hw, channels):
    with pytest.raises(SpecError) as caught:
        model(Conv(4), input_hw=input_hw, channels=channels)
    assert str(caught.value) == f"m: input {channels}x{input_hw}; expected at least one pixel, one channel"


def test_weight_keys_and_shapes_are_those_of_the_state_dict():
    spec = model(Conv(4, 3, groups=1, batch_norm=True, bias=False), MaxPool(2), Conv(6, 1, groups=2))
    assert spec.weight_shapes == {
        "layers.0.conv.weight": (4, 3, 3, 3),
        "layers.0.batch_norm.weight": (4,),
        "layers.0.batch_norm.bias": (4,),
        "layers.0.batch_norm.running_mean": (4,),
        "layers.0.batch_norm.running_var": (4,),
        "layers.2.conv.weight": (6, 2, 1, 1),
        "layers.2.conv.bias": (6,),
    }
    assert (spec.num_values, spec.num_statistics, spec.num_parameters) == (108 + 16 + 12 + 6, 8, 134)


def test_classifier_has_its_last_layer_as_output():
    spec = model(Conv(10), AvgPool(), Softmax())
    assert (spec.heads, spec.outputs, spec.num_classes) == ((), (2,), 10)


@pytest.mark.parametrize(
    "nms, power", [(Nms(), None), (Nms(NmsKind.GREEDY, 2.0), 0.6), (Nms(NmsKind.DIOU, 2.0), 2.0)], ids=str
)
def test_only_diounms_reads_beta(nms, power):
    assert nms.distance_power == power


def keras_tutorial_network() -> ModelSpec:
    """A YOLOv3 as Keras tutorials write it: a bias everywhere, batch norm in the heads but not where the map halves."""
    net = Net()
    stride8, stride16, stride32 = darknet53(net)
    branch = net.pyramid(512)
    net.add(Route((stride32,)))
    net.head(1024, YOLOV3_ANCHORS[6:], 20)
    net.upsample_and_join(branch, 256, stride16)
    branch = net.pyramid(256)
    net.head(512, YOLOV3_ANCHORS[3:6], 20)
    net.upsample_and_join(branch, 128, stride8)
    net.pyramid(128)
    net.head(256, YOLOV3_ANCHORS[:3], 20)
    return ModelSpec("keras", tuple(map(as_keras, net.layers)), (416, 416), batch_norm=BatchNorm(1e-3))


def as_keras(layer: Layer) -> Layer:
    match layer:
        case Conv(stride=stride):
            return replace(layer, bias=True, batch_norm=stride == 1, activation=Activation.LEAKY)
        case Upsample():
            return replace(layer, bilinear=True)
    return layer


def test_keras_tutorial_network_fits_the_ir():
    spec = keras_tutorial_network()
    assert [layer.filters for layer in spec.layers if isinstance(layer, Conv) and not layer.batch_norm] == [
        64, 128, 256, 512, 1024,
    ]  # fmt: skip
    assert (spec.num_values, spec.num_statistics) == (66_416_517, 49_090)
    assert [(head.channels, head.grid_hw) for head in spec.heads] == [(75, (13, 13)), (75, (26, 26)), (75, (52, 52))]


def test_keras_tutorial_network_runs_in_pytorch():
    import torch

    from yolov3_trt.reference import module_from_spec

    spec = keras_tutorial_network().with_input_hw((64, 64))
    network = module_from_spec(spec)
    state = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert state == spec.weight_shapes
    with torch.inference_mode():
        outputs = network(torch.rand(2, 3, 64, 64))
    assert [tuple(output.shape) for output in outputs] == [(2, 75, 2, 2), (2, 75, 4, 4), (2, 75, 8, 8)]
    assert all(output.isfinite().all() for output in outputs)
    assert min(output.std() for output in outputs) > 0


def test_the_layers_hash_tells_activations_apart_and_not_sizes():
    spec = yolov3()
    assert spec.layers_sha256 == spec.with_input_hw((320, 608)).layers_sha256
    changed = replace(spec.layers[0], activation=Activation.MISH)
    assert replace(spec, layers=(changed, *spec.layers[1:])).layers_sha256 != spec.layers_sha256
    assert replace(spec, batch_norm=BatchNorm(1e-6)).layers_sha256 != spec.layers_sha256


def test_the_layers_hash_does_not_tell_ten_from_ten_point_zero():
    spec = yolov3_tiny()
    read = parse_cfg(cfg_from_spec(spec).encode())  # its anchors are floats
    assert read.layers_sha256 == spec.layers_sha256 != spec.former_layers_sha256 == read.former_layers_sha256
    head = spec.layers[-1]
    assert isinstance(head, Yolo)
    half = replace(head, anchors_wh=((head.anchors_wh[0][0] + 0.5, head.anchors_wh[0][1]), *head.anchors_wh[1:]))
    assert replace(spec, layers=(*spec.layers[:-1], half)).layers_sha256 != spec.layers_sha256
