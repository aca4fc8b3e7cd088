"""The built-in networks against the cfgs that they were published with."""

import logging
from pathlib import Path

import pytest

from yolov3_trt.geometry import Resize
from yolov3_trt.models import load_spec
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.darknet_cfg import parse_cfg, spec_from_cfg
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec

# Values in the published files, without their headers: (bytes - 20) / 4.
_NUM_VALUES = {"yolov4": 64_429_405, "yolov4-tiny": 6_062_814}


@pytest.mark.parametrize(
    "name, folder",
    [(name, "family") for name in ("yolov4", "yolov4-tiny", "yolov7-tiny")]
    + [(name, ".") for name in ("yolov3", "yolov3-spp", "yolov3-voc")]
    + [("yolov3-tiny", "official")],
)
def test_a_built_in_network_is_its_cfg_layer_by_layer(name: str, folder: str, data: Path):
    expected = spec_from_cfg(data / "models" / folder / f"{name}.cfg").with_input_hw((416, 416))
    got = BUILT_IN[name]().with_input_hw((416, 416))
    for index, (own, theirs) in enumerate(zip(got.layers, expected.layers, strict=True)):
        assert own == theirs, index
    assert got == expected
    assert got.num_values == _NUM_VALUES.get(name, got.num_values)
    assert parse_cfg(cfg_from_spec(got).encode(), name=name) == got


NET = "[net]\nwidth=32\nheight=32\nchannels=3\n{net}[convolutional]\nfilters=6\nsize=1\nstride=32\nactivation=linear\n"
YOLO = "[yolo]\nmask=0\nanchors=10,10\nclasses=1\nnum=1\n"


@pytest.mark.parametrize(
    "net, yolo, resize, said",
    [
        ("", "", Resize.LETTERBOX, ""),
        ("letter_box=0\n", "", Resize.STRETCH, ""),
        ("letter_box=1\n", "iou_loss=ciou\n", Resize.LETTERBOX, ""),
        (
            "",
            "iou_loss=ciou\n",
            Resize.STRETCH,
            "m.cfg:15: pictures are stretched: only AlexeyAB's Darknet reads iou_loss=",
        ),
        (
            "mosaic=1\n",
            "scale_x_y=1\n",
            Resize.STRETCH,
            "m.cfg:5: pictures are stretched: only AlexeyAB's Darknet reads mosaic=",
        ),
    ],
)
def test_pictures_are_fitted_as_the_darknet_does_that_a_cfg_is_for(
    net: str, yolo: str, resize: Resize, said: str, caplog: pytest.LogCaptureFixture
):
    spec = parse_cfg((NET.format(net=net) + YOLO + yolo).encode(), file="m.cfg")
    assert spec.resize is resize
    heard = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(heard) == bool(said) and "".join(heard).startswith(said)


def test_pjreddies_own_cfgs_are_letterboxed(data: Path):
    for name in ("models/yolov3", "models/yolov3-spp", "models/yolov3-voc", "models/official/yolov3-tiny"):
        assert load_spec(data / f"{name}.cfg").resize is Resize.LETTERBOX
