"""The wider Darknet family as ONNX graphs, in each stage, against Darknet itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.test_family import FAMILY
from yolov3_trt.backends.ort import run_graph
from yolov3_trt.graph.export import onnx_from_spec
from yolov3_trt.graph.parts import part_of_graph
from yolov3_trt.jobs.verify import _network_input, verify_graph
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import INPUT_NAME, InputStage, OutputStage, Postprocess, RowsLayout, meta_from_spec
from yolov3_trt.models import Model
from yolov3_trt.models.darknet_cfg import spec_from_cfg
from yolov3_trt.models.darknet_weights import weights_from_darknet
from yolov3_trt.postprocess import candidates_from_heads, suppress

FAST = ("yolov2-tiny-voc", "yolov7-tiny")  # [region]; new_coords=1
MOST = 2000  # pairs in the graph's suppression, whose memory is their square


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILY]
)
def test_each_stage_gives_darknets_values(name: str, data: Path, fabricated_family: Callable[[str], Path]):
    golden = np.load(data / "goldens" / "family" / f"{name}.npz")
    spec = spec_from_cfg(data / "models" / "family" / f"{name}.cfg")
    spec = spec.with_input_hw(tuple(int(side) for side in golden["input_hw"]))
    weights = weights_from_darknet(spec, fabricated_family(name)).arrays
    model, conf = Model(spec, weights, (), Path()), float(golden["threshold"])
    image = np.random.RandomState(1).random_sample((1, spec.channels, *spec.input_hw)).astype("<f4")
    postprocess = Postprocess(conf, 0.45, max_candidates=MOST, max_detections=MOST, nms=spec.nms)
    plain = replace(meta_from_spec(spec), postprocess=postprocess)
    head_names = [head.name for head in spec.heads]

    # Floats in, detections out: the heads inside, and what is left after suppression.
    meta = replace(plain, output_stage=OutputStage.DETECTIONS)
    graph = onnx_from_spec(spec, weights, meta)
    inside = part_of_graph(graph, [INPUT_NAME], head_names)
    heads = run_graph(inside.SerializeToString(), {INPUT_NAME: image})
    for index, head in enumerate(spec.heads):
        values = heads[head.name].astype(np.float64)
        values = 1 / (1 + np.exp(-values)) if head.kind is HeadKind.SCALED else values  # logistic in Darknet's layer
        largest = np.abs(golden[f"head{index}_stats"][2:4]).max()
        limit = (1e-3 if head.kind is HeadKind.GAUSSIAN else 1e-4) * largest
        got = values.reshape(-1)[golden[f"head{index}_index"]]
        np.testing.assert_allclose(got, golden[f"head{index}_darknet"], rtol=0, atol=limit)
    found = run_graph(graph.SerializeToString(), {INPUT_NAME: image})
    count = int(found["num_detections"][0])
    pairs = candidates_from_heads([heads[one][0] for one in head_names], spec.heads, spec.input_hw, postprocess)
    expected = suppress(pairs, spec.input_hw, postprocess)

    # Pixels in, rows out: the input against PyTorch, then Darknet's pairs in the rows of the same floats.
    meta = replace(
        plain, input_stage=InputStage.PIXELS, output_stage=OutputStage.ROWS, rows_layout=RowsLayout.CHANNELS_FIRST
    )
    graph = onnx_from_spec(spec, weights, meta)
    verify_graph(graph, model, meta)
    behind_pixels = part_of_graph(graph, [_network_input(graph)], meta.output_names)
    (rows,) = run_graph(behind_pixels.SerializeToString(), {_network_input(graph): image}).values()
    height, width = spec.input_hw
    cxcywh, scores = rows[0, :4].T / [width, height, width, height], rows[0, 4:].T
    unsure = int((np.abs(scores - conf) < 1e-4).sum())
    assert abs(int((scores > conf).sum()) - golden["num_pairs"]) <= unsure
    assert abs(count - len(expected.scores)) <= unsure
    if golden["num_pairs"] < MOST:
        assert abs(count - int(golden["num_after_nms"])) <= unsure
    for class_id, score, *box in golden["pairs"]:
        close = np.abs(scores[:, int(class_id)] - score) < 1e-4
        # Of the Gaussian head's exponentials some boxes are thousands of inputs wide: relative to their own size.
        limit = 1e-3 * max(1, *np.abs(box))
        assert (np.abs(cxcywh[close] - box).max(axis=1, initial=0) < limit).any(), (class_id, score, box)
