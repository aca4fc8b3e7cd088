"""Models of one channel: the same pictures in colour go in, and every way makes the same grey of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.test_cli import TINY_CFG, write_weights
from yolov3_trt import open_detector
from yolov3_trt.errors import CfgError, MetaError
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import meta_from_spec
from yolov3_trt.models import load_spec
from yolov3_trt.models.darknet_cfg import parse_cfg
from yolov3_trt.training.augment import Sample
from yolov3_trt.training.batches import _batch_from_samples

GREY_CFG = TINY_CFG.replace("channels=3", "channels=1")


def test_other_counts_are_refused_at_parse_with_the_line():
    assert parse_cfg(GREY_CFG.encode()).channels == 1
    line = TINY_CFG.splitlines().index("channels=3") + 1
    with pytest.raises(CfgError, match=rf"^a\.cfg:{line}: \[net\] channels=5; expected 3 for colour or 1 for grey"):
        parse_cfg(TINY_CFG.replace("channels=3", "channels=5").encode(), file="a.cfg")
    with pytest.raises(MetaError, match="channels=2; expected 3 for colour or 1 for grey"):
        replace(meta_from_spec(parse_cfg(GREY_CFG.encode())), channels=2)


@pytest.mark.parametrize("stage", ["tensor", "pixels"])
def test_a_grey_graph_finds_what_pytorch_finds(stage: str, tmp_path: Path):
    cfg = tmp_path / "grey.cfg"
    cfg.write_text(GREY_CFG)
    write_weights(cfg, np.random.default_rng(0).uniform(0.1, 0.5, load_spec(cfg).num_values))
    exported = export(cfg, tmp_path / "g.onnx", input_stage=stage)  # compared with PyTorch on the way
    assert exported.meta.channels == 1
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    with open_detector(exported, conf=0.05) as by_graph, open_detector(cfg, conf=0.05) as by_torch:
        got, expected = by_graph(picture), by_torch(picture)
    assert len(got) == len(expected) > 0
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)


def test_training_sees_grey():
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)  # blue, green, red, grey
    sample = Sample(pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
    images, _ = _batch_from_samples([sample], torch.device("cpu"), 1)
    np.testing.assert_allclose(images.numpy(), [[[[0.114, 0.587, 0.299, 90 / 255]]]], rtol=1e-5)
