"""Data sets on which evaluations went wrong: the right AP, or one line that says why not. Needs the reference data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolov3_trt.data import labelled_set
from yolov3_trt.data.images import load_image
from yolov3_trt.detections import Detections
from yolov3_trt.detector import open_detector
from yolov3_trt.errors import DataSetError, EvaluationError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, score_detections
from yolov3_trt.models.class_names import SHAPE_NAMES

RIGHT = 0.7579  # of the bundled model on `coco-base.json`
REFUSED = {
    "coco-category-unknown": "annotations[3].category_id: 99 is no id of a category",
    "coco-empty-bbox": "annotations[3].bbox: []",
    "coco-image-twice": "images[24].id: 1 is that of images[0] too",
    "coco-image-unknown": "annotations[3].image_id: 999 is no id of an image",
    "coco-nan-bbox": "annotations[3].bbox: [nan, nan, nan, nan]",
    "coco-no-annotations": "none of its pictures (24) has a label",
    "coco-no-categories": "'categories' is missing",
    "coco-predictions-list": "holds a list and no images or categories",
    "coco-relative-bbox": "all 103 boxes lie within 0..1",
    "coco-xyxy-instead-of-xywh": "fit as x1, y1, x2, y2",
}


@pytest.fixture(scope="module")
def cases(data: Path) -> Path:
    path = data.parent / "cases"
    if not (path / "models").is_dir():
        pytest.skip(f"no cases at {path}")
    return path


@pytest.fixture(scope="module")
def ap_of() -> Callable[..., float]:
    """AP of the bundled model on a set; what it finds in a picture is kept."""
    found: dict[Path, Detections] = {}
    detector = open_detector("shapes", conf=EVAL_CONF_THRESHOLD)

    def measure(path: Path, **options: Any) -> float:
        truth = labelled_set(path, **options).truth_for(SHAPE_NAMES)
        for picture in truth.paths.values():
            if picture not in found:
                found[picture] = detector(load_image(picture))
        detections = {image_id: found[picture] for image_id, picture in truth.paths.items()}
        return float(score_detections(truth, detections).metrics["AP"] or 0)

    return measure


def test_cocos_of_all_tools_give_the_right_ap_or_one_line(cases: Path, ap_of: Callable[..., float]):
    pictures = cases / "models/pictures"
    for path in sorted((cases / "models").glob("coco-*.json")):
        if path.stem in REFUSED:
            with pytest.raises(DataSetError) as caught:
                ap_of(path, images=pictures)
            assert REFUSED[path.stem] in str(caught.value) and "\n" not in str(caught.value), path.stem
        else:
            assert ap_of(path, images=pictures) == pytest.approx(RIGHT, abs=5e-5), path.stem
    with pytest.raises(DataSetError, match="17 pictures are not of the size that their annotations say"):
        ap_of(cases / "models/coco-base.json", images=cases / "models/resized-pictures")


def test_layouts_of_other_tools_are_found(cases: Path, ap_of: Callable[..., float]):
    models = cases / "models"
    for layout, ap in (
        ("darknet-layout/data/obj.data", 0.7507),
        ("darknet-layout", 0.7507),
        ("voc-layout/d.yaml", 0.7507),
        ("pose-labels/d.yaml", 0.7348),
    ):
        assert ap_of(models / layout) == pytest.approx(ap, abs=5e-5), layout
    assert ap_of(models / "labels-2px-outside/d.yaml", split="train") > 0.7


def test_jsons_that_broke_the_reader_are_refused_or_read(cases: Path, tmp_path: Path):
    attacks = cases / "attacks"
    for image in json.loads((attacks / "coco_no_ids.json").read_text())["images"]:  # those of all of them
        cv2.imwrite(str(tmp_path / image["file_name"]), np.zeros((image["height"], image["width"], 3), np.uint8))
    read, paths = set(), sorted(attacks.glob("coco_*.json"))
    for path in paths:
        try:
            labelled_set(path, images=tmp_path).truth_for(SHAPE_NAMES)
            read.add(path.stem)
        except (DataSetError, EvaluationError) as exc:
            assert str(exc).startswith(str(path)) and "\n" not in str(exc)
    assert read == {"coco_no_ids", "coco_same_ids", "coco_image_id_text", "coco_bbox_text"}
    assert len(paths) > len(read)
