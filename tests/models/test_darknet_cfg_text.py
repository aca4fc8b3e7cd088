"""Specs as Darknet cfgs: every one comes back as it was, other programs read it, and what a cfg cannot say is refused."""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.opencv_versions import needs_darknet_importer
from yolov3_trt.errors import CfgError, SpecError
from yolov3_trt.geometry import Resize
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    Dropout,
    HeadKind,
    Layer,
    LocalAvgPool,
    MaxPool,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    SpaceToDepth,
    TrainingOnly,
    Upsample,
    Yolo,
)
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.darknet_cfg import parse_cfg, spec_from_cfg
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.spec import BatchNorm, ModelSpec, Nms, NmsKind

ANCHOR = ((10.0, 20.0),)
HEAD = (Conv(6), Yolo(ANCHOR, 1))


def model(*layers: Layer, **fields) -> ModelSpec:
    return ModelSpec("m", layers, (8, 16), **fields)


def reread(spec: ModelSpec) -> ModelSpec:
    return parse_cfg(cfg_from_spec(spec).encode(), name=spec.name, batch_norm=spec.batch_norm)


def sections(text: str) -> list[tuple[str, dict[str, str]]]:
    """Kind and values of every section, spaces and comments left out."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in text.replace(" ", "").splitlines():
        if line.startswith("["):
            found.append((line, {}))
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[-1][1][key] = value
    return found


def section(layer: Layer, *before: Layer) -> str:
    """The text of the last section of a network."""
    return cfg_from_spec(model(*before, layer)).split("\n\n")[-1]


# --- there and back ---


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_network_comes_back(name: str):
    spec = BUILT_IN[name]()
    assert reread(spec) == spec


def test_every_cfg_of_the_reference_data_comes_back(data: Path):
    specs = [spec_from_cfg(path) for path in sorted((data / "models").glob("*.cfg"))]
    assert len(specs) == 10
    for spec in specs:
        assert reread(spec) == spec


@pytest.mark.parametrize("name", ["yolov3", "yolov3-spp", "yolov3-tiny", "yolov3-voc", "resnext50"])
def test_sections_are_those_of_darknets_own_file(data: Path, name: str):
    path = data / "models" / f"{name}.cfg"
    inference = {"mask", "anchors", "classes", "num"}  # of [yolo]: the other keys are training's

    def comparable(text: str) -> list[tuple[str, dict[str, str]]]:
        return [
            (kind, {key: value for key, value in values.items() if kind != "[yolo]" or key in inference})
            for kind, values in sections(text)[1:]
        ]

    assert comparable(cfg_from_spec(spec_from_cfg(path))) == comparable(path.read_text())


NUMBERS = st.floats(1e-3, 1e6) | st.floats(0.125, 1024, width=32) | st.integers(1, 1000).map(float)
ANCHORS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4).map(tuple)


def any_layer(index: int) -> st.SearchStrategy[Layer]:
    """A layer that may or may not fit at a place in a network."""
    small, source = st.integers(1, 5), st.integers(0, max(0, index - 1))
    sources = st.lists(source, min_size=1, max_size=3).map(tuple)
    plain = st.sampled_from([a for a in Activation if a not in (Activation.MISH, Activation.SWISH)])
    return st.one_of(
        st.builds(
            lambda conv, batch_norm: replace(conv, batch_norm=batch_norm, bias=not batch_norm),
            st.builds(Conv, st.just(6), small, small, st.integers(0, 3), st.sampled_from((1, 2, 3))),
            st.booleans(),
        ),
        st.builds(Conv, small, activation=st.sampled_from(Activation)),
        st.builds(MaxPool, small, small),
        st.builds(AvgPool),
        st.builds(Upsample, st.integers(1, 3)),
        st.builds(Route, sources, st.integers(1, 3), st.integers(0, 2)),
        st.builds(Shortcut, sources, st.sampled_from(Activation)),
        st.builds(ScaleChannels, source, plain),
        st.builds(Sam, source, plain),
        st.builds(LocalAvgPool, small, small),
        st.builds(Reorg, st.integers(1, 2)),
        st.builds(SpaceToDepth, st.integers(1, 2)),
        st.builds(Conv, st.just(6), st.just(3), st.just(1), st.just(1), dilation=small),
        st.builds(Conv, st.just(6), shares=source),
        st.builds(TrainingOnly, st.sampled_from(("cost", "contrastive"))),
        st.builds(Dropout, st.floats(0, 1).filter(lambda p: p == 0 or p > 1e-30)),
        st.builds(Softmax, st.integers(1, 3)),
    )


@st.composite
def any_spec(draw: st.DrawFn) -> ModelSpec:
    layers: tuple[Layer, ...] = (Conv(6, 3, 1, 1),)
    for _ in range(draw(st.integers(0, 6))):
        longer = (*layers, draw(any_layer(len(layers))))
        try:
            model(*longer)
        except SpecError:
            continue
        layers = longer
    heads = draw(st.lists(ANCHORS, max_size=2))
    kind = draw(st.sampled_from(HeadKind))
    last = Activation.LOGISTIC if kind is HeadKind.SCALED else Activation.LINEAR
    for anchors in heads:
        body = (Route((len(layers) - 3,)),) if layers and isinstance(layers[-1], Yolo) else ()  # no layer reads a head
        scale_xy = 1.0 if kind is HeadKind.REGION else draw(NUMBERS)
        head = Yolo(anchors, 2, scale_xy, kind)
        layers = (*layers, *body, Conv(len(anchors) * head.fields, activation=last), head)
    return model(
        *layers,
        resize=draw(st.sampled_from(Resize)),
        batch_norm=draw(st.sampled_from([BatchNorm(), BatchNorm(1e-6, after_sqrt=True)])),
        nms=draw(st.builds(Nms, st.sampled_from(NmsKind), NUMBERS)) if heads and kind is not HeadKind.REGION else Nms(),
    )


@settings(deadline=None, max_examples=60)
@given(any_spec())
def test_any_spec_of_what_darknet_knows_comes_back(spec: ModelSpec):
    assert reread(spec) == spec


# --- the text ---


def test_small_detector_is_written_whole():
    spec = model(
        Conv(8, 3, 2, 1, batch_norm=True, bias=False, activation=Activation.LEAKY),
        Conv(14),
        Yolo(((5, 6), (1, 2.5)), 2, 1.05),
        channels=1,
        resize=Resize.STRETCH,
        nms=Nms(NmsKind.DIOU, 0.8),
    )
    first, rest = cfg_from_spec(spec, {"momentum": 0.9, "steps": (400, 450), "adam": True}).split("\n", 1)
    assert first.startswith("# Written by yolov3-trt ")
    assert (
        rest
        == """
[net]
batch=1
subdivisions=1
width=16
height=8
channels=1
letter_box=0
momentum=0.9
steps=400,450
adam=1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=1,0
anchors=1,2.5,  5,6
classes=2
num=2
jitter=0.3
ignore_thresh=0.7
truth_thresh=1
random=0
scale_x_y=1.05
nms_kind=diounms
beta_nms=0.8
"""
    )


@pytest.mark.parametrize(
    "layer, text",
    [
        (
            Conv(6, 3, groups=3),
            "[convolutional]\nfilters=6\nsize=3\ngroups=3\nstride=1\npadding=0\nactivation=linear\n",
        ),
        (Conv(6, 3, pad=2), "[convolutional]\nfilters=6\nsize=3\nstride=1\npadding=2\nactivation=linear\n"),
        (MaxPool(2, 1), "[maxpool]\nsize=2\nstride=1\n"),
        (AvgPool(), "[avgpool]\n"),
        (Upsample(2), "[upsample]\nstride=2\n"),
        (Dropout(0.5), "[dropout]\nprobability=0.5\n"),
        (Softmax(3), "[softmax]\ngroups=3\n"),
        (Shortcut((9,)), "[shortcut]\nfrom=-3\nactivation=linear\n"),
        (Shortcut((0, 10), Activation.RELU), "[shortcut]\nfrom=-12,-2\nactivation=relu\n"),
        (Route((11,)), "[route]\nlayers=-1\n"),
        (Route((3, 2, 0), 3, 1), "[route]\nlayers=-9,2,0\ngroups=3\ngroup_id=1\n"),
    ],
    ids=str,
)
def test_layer_is_written(layer: Layer, text: str):
    assert section(layer, *[Conv(3)] * 12) == text


def test_squeeze_and_excite_is_written():
    assert section(ScaleChannels(0), Conv(3), AvgPool()) == "[scale_channels]\nfrom=-2\n"
    relu = section(ScaleChannels(0, Activation.RELU), Conv(3), AvgPool())
    assert relu == "[scale_channels]\nfrom=-2\nactivation=relu\n"


@pytest.mark.parametrize(
    "first, second, anchors, masks",
    [
        pytest.param(((8, 8), (9, 9)), ((1, 1), (2, 2)), "1,1,2,2,8,8,9,9", ["2,3", "0,1"], id="apart"),
        pytest.param(((3, 3), (4, 4)), ((2, 2), (3, 3)), "2,2,3,3,4,4", ["1,2", "0,1"], id="one shared"),
        pytest.param(((3, 3), (1, 9)), ((9, 1), (9, 1)), "1,9,3,3,9,1,9,1", ["1,0", "2,3"], id="equal areas, twice"),
    ],
)
def test_heads_share_one_list_of_anchors(first, second, anchors: str, masks: list[str]):
    spec = model(Conv(12), Yolo(first, 1), Route((0,)), Conv(12), Yolo(second, 1))
    heads = [values for kind, values in sections(cfg_from_spec(spec)) if kind == "[yolo]"]
    assert [head["mask"] for head in heads] == masks
    assert [head["anchors"] for head in heads] == [anchors] * 2
    assert reread(spec) == spec


def test_nms_is_written_on_every_head_and_only_when_it_is_not_the_default():
    spec = model(*HEAD, Route((0,)), *HEAD, nms=Nms(NmsKind.GREEDY))
    assert cfg_from_spec(spec).count("nms_kind=greedynms\nbeta_nms=0.6\n") == 2
    assert "nms" not in cfg_from_spec(model(*HEAD))


# --- what is refused ---


@pytest.mark.parametrize(
    "spec, error",
    [
        (
            model(Conv(4), Conv(4, batch_norm=True)),
            "m: layer 1 (Conv): has both batch norm and a bias; a convolution of a .cfg has exactly one of them",
        ),
        (
            model(Conv(4, bias=False)),
            "m: layer 0 (Conv): has neither batch norm nor a bias; a convolution of a .cfg has exactly one of them",
        ),
        (
            model(Upsample(2, bilinear=True)),
            "m: layer 0 (Upsample): is bilinear; a .cfg has nearest neighbours only",
        ),
        (
            model(Conv(3), Route((-1, 0))),
            "m: layer 1 (Route): reads the network's input; a .cfg can name layers only",
        ),
        (
            model(Conv(3), Shortcut((-1,))),
            "m: layer 1 (Shortcut): reads the network's input; a .cfg can name layers only",
        ),
        (
            model(Conv(6), Yolo(((1.0, 0.0),), 1)),
            "m: layer 1 (Yolo): has scale_xy=1.0 and anchors ((1.0, 0.0),); expected numbers above 0",
        ),
        (
            model(Conv(6), Yolo(ANCHOR, 1, 0)),
            "m: layer 1 (Yolo): has scale_xy=0 and anchors ((10.0, 20.0),); expected numbers above 0",
        ),
        (
            model(Dropout(math.nan)),
            "m: layer 0 (Dropout): nan is not a number that Darknet can hold in float32",
        ),
        (
            model(Conv(3), batch_norm=BatchNorm(1e-3)),
            "m: no Darknet divides by BatchNorm(epsilon=0.001, after_sqrt=False); expected "
            "BatchNorm(epsilon=1e-05, after_sqrt=False)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_cfg_cannot_say_is_refused(spec: ModelSpec, error: str):
    with pytest.raises(CfgError) as caught:
        cfg_from_spec(spec)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    "training, error",
    [
        (
            {"width": 8},
            "m: training entry 'width'; expected a key of [net] other than batch, subdivisions, width, height, channels, "
            "letter_box",
        ),
        (
            {"a b": 8},
            "m: training entry 'a b'; expected a key of [net] other than batch, subdivisions, width, height, channels, "
            "letter_box",
        ),
        (
            {"policy": "steps\n[yolo]"},
            "[net] policy='steps\\n[yolo]'; expected one line of ASCII without # and ;",
        ),
        ({"policy": "steps # 2"}, "[net] policy='steps # 2'; expected one line of ASCII without # and ;"),
        ({"steps": ()}, "[net] steps=''; expected one line of ASCII without # and ;"),
    ],
    ids=["the network's own", "not a key", "two lines", "a comment", "empty"],
)
def test_training_entry_that_would_break_the_file_is_refused(training: dict[str, object], error: str):
    with pytest.raises(CfgError) as caught:
        cfg_from_spec(model(*HEAD), training)
    assert str(caught.value) == error


# --- other programs ---


@needs_darknet_importer
@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "MobileNetV2-YOLOv3-Nano-coco"])
def test_opencv_makes_the_same_network_of_it(data: Path, tmp_path: Path, name: str):
    original = data / "models" / f"{name}.cfg"
    written = tmp_path / "written.cfg"
    written.write_text(cfg_from_spec(spec_from_cfg(original), {"momentum": 0.9, "steps": (400, 450)}))
    blob = np.random.default_rng(0).random((1, 3, 320, 320), np.float32)

    def run(cfg: Path) -> list[np.ndarray]:
        net = cv2.dnn.readNetFromDarknet(str(cfg), str(original.with_suffix(".weights")))
        net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        net.setInput(blob)
        return list(net.forward(net.getUnconnectedOutLayersNames()))

    outputs, expected = run(written), run(original)
    assert [output.shape for output in outputs] == [(300, 85), (1200, 85)]
    for output, other in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output, other)
