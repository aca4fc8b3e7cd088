"""Decoded rows: by hand, against the host for each kind of head, and as a graph that other programs and this package read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import run_stage
from tests.models.test_family import crowded, kind_meta
from yolov3_trt import SettingError, open_detector
from yolov3_trt.errors import BackendError, MetaError
from yolov3_trt.graph.stages import write_rows
from yolov3_trt.jobs.export import export
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import Batch, ModelMeta, OutputStage, RowsLayout, load_model_meta
from yolov3_trt.models import sample_picture
from yolov3_trt.postprocess import Candidates, candidates_from_heads, candidates_from_rows
from yolov3_trt.settings import GraphSettings


def rows_of(meta: ModelMeta, values: np.ndarray) -> dict[str, np.ndarray]:
    return run_stage(write_rows, meta, [values])


def with_rows(meta: ModelMeta, layout: RowsLayout, conf: float, batch: int = 1) -> ModelMeta:
    return replace(
        meta,
        output_stage=OutputStage.ROWS,
        rows_layout=layout,
        postprocess=replace(meta.postprocess, conf=conf),
        batch=Batch(batch, batch, batch),
    )


def test_rows_by_hand_in_each_layout():
    meta = kind_meta(HeadKind.SCALED, 2)  # anchors 10x20 and 30x15, a grid of 6x10 cells of 8 px, scale_x_y 1.5
    values = np.full((1, 14, 6, 10), -20, np.float32)
    values[0, 7:, 2, 4] = [np.log(3), np.log(3), np.log(3), 0, np.log(4), 0, np.log(9)]
    # Anchor 1 of cell (2, 4): centre .875 of the cell on, 2.25 anchors wide, 1 high, objectness .8, classes .5 and .9.
    row = (2 * 10 + 4) * 2 + 1
    expected = np.array([(4 + 0.875) * 8, (2 + 0.875) * 8, 2.25 * 30, 15, 0.8, 0.4, 0.72], np.float32)

    (rows,) = rows_of(with_rows(meta, RowsLayout.OPENCV, 0.5), values).values()
    assert rows.shape == (120, 7)
    fractions = expected / [80, 48, 80, 48, 1, 1, 1]
    fractions[5] = 0  # .4 does not exceed .5
    np.testing.assert_allclose(rows[row], fractions, rtol=1e-6)
    assert np.count_nonzero(rows[:, 5:]) == 1

    outputs = rows_of(with_rows(meta, RowsLayout.OPENCV_JOINED, 0.2, batch=2), values.repeat(2, axis=0))
    assert list(outputs) == ["rows"] and outputs["rows"].shape == (2, 120, 7)
    np.testing.assert_allclose(outputs["rows"][1, row], expected / [80, 48, 80, 48, 1, 1, 1], rtol=1e-6)

    (planes,) = rows_of(with_rows(meta, RowsLayout.CHANNELS_FIRST, 0.5), values).values()
    assert planes.shape == (1, 6, 120)  # anchor by anchor, and all scores
    np.testing.assert_allclose(planes[0, :, 60 + 24], expected[[0, 1, 2, 3, 5, 6]], rtol=1e-6)


@pytest.mark.parametrize("layout", RowsLayout)
@pytest.mark.parametrize("kind", HeadKind)
def test_rows_hold_the_hosts_candidates(kind: HeadKind, layout: RowsLayout):
    meta, values = crowded(kind, 1, conf=0.2)
    meta = with_rows(meta, layout, 0.2, batch=2)
    outputs = rows_of(meta, values)
    for row in range(2):
        expected = in_one_order(candidates_from_heads([values[row]], meta.heads, meta.input_hw, meta.postprocess))
        got = in_one_order(candidates_from_rows(outputs, row, meta, meta.postprocess))
        assert len(expected.scores) > 20
        np.testing.assert_array_equal(got.class_ids, expected.class_ids)
        np.testing.assert_allclose(got.scores, expected.scores, atol=1e-6)
        np.testing.assert_allclose(got.xyxy, expected.xyxy, rtol=1e-5, atol=1e-3)


def in_one_order(found: Candidates) -> Candidates:
    return found[np.argsort(found.xyxy[:, 0] + 1000 * found.class_ids, kind="stable")]


@pytest.fixture(scope="module")
def rows_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export("shapes", tmp_path_factory.mktemp("rows") / "rows.onnx", output_stage="rows").path


def test_a_graph_with_rows_detects_as_one_with_heads(rows_graph: Path):
    meta = load_model_meta(rows_graph)
    assert meta.rows_layout is RowsLayout.OPENCV and meta.postprocess.conf == 0.2  # as OpenCV has it
    assert meta.output_names == tuple(f"yolo_{head.layer}" for head in meta.heads)
    with open_detector(rows_graph) as by_rows, open_detector("shapes", conf=0.2) as reference:
        got, expected = by_rows(sample_picture()), reference(sample_picture())
    assert len(got) == len(expected) > 1
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(got.xyxy, expected.xyxy, atol=0.1)
    with pytest.raises(
        BackendError, match=r"^shapes: conf=0.1 was asked for, but this graph leaves out scores up to 0.2"
    ):
        open_detector(rows_graph, conf=0.1)


def test_a_layout_goes_with_rows_only():
    assert GraphSettings(output_stage="rows").rows_layout is RowsLayout.OPENCV
    with pytest.raises(SettingError, match="rows_layout: given with output_stage heads; expected rows"):
        GraphSettings(rows_layout="opencv")
    with pytest.raises(MetaError, match="rows_layout=None with the output stage rows"):
        replace(kind_meta(HeadKind.YOLO), output_stage=OutputStage.ROWS)
