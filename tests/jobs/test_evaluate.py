"""Average precision: pycocotools' own numbers, the reference data's, and how sure they are."""

import contextlib
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.conftest import COCO_MODELS
from yolov3_trt.data import labelled_set
from yolov3_trt.data.annotations import Annotations
from yolov3_trt.data.labelled import LabelledFile, LabelledSet
from yolov3_trt.detections import Detections
from yolov3_trt.evaluation import METRICS, Scores, average_precision, coco_results, score
from yolov3_trt.evaluation.bootstrap import ClassMatches, draw_images, interval, resampled_ap
from yolov3_trt.evaluation.confusion import confusion
from yolov3_trt.evaluation.counts import count_hits
from yolov3_trt.evaluation.origin import ORIGINAL_WEIGHTS, training_overlap_note
from yolov3_trt.evaluation.tide import error_difference, split_errors
from yolov3_trt.evaluation.worst import PictureScore, confident, score_pictures, worst_first
from yolov3_trt.meta import ModelMeta, meta_from_spec
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.class_names import COCO_NAMES

Content = dict[str, Any]
Results = list[dict[str, Any]]


def content_of(boxes: Sequence[Sequence[tuple[int, float]]], num_classes: int = 1) -> Content:
    """An annotation file of pictures with objects (category, x) of 10x10 px."""
    annotations: Results = []
    for image_id, objects in enumerate(boxes, start=1):
        for category_id, x in objects:
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id, "iscrowd": 0}
            annotations.append({**row, "bbox": [x, 0.0, 10.0, 10.0], "area": 100.0})
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(1, len(boxes) + 1)],
        "annotations": annotations,
        "categories": [{"id": n, "name": f"class{n}"} for n in range(1, num_classes + 1)],
    }


def result(image_id: int, category_id: int, x: float, confidence: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": [x, 0.0, 10.0, 10.0], "score": confidence}


@pytest.fixture(scope="module")
def val64(data: Path) -> Annotations:
    return labelled_set(data / "coco" / "instances_val64.json").truth_for(COCO_NAMES)


@pytest.fixture(scope="module")
def darknets(data: Path, val64: Annotations) -> Callable[[str], Results]:
    """What Darknet found in val64 with one of the models, clipped to the picture, as COCO results."""

    def load(model: str) -> Results:
        with gzip.open(data / "goldens" / f"{model}.val64.json.gz") as file:
            images = json.load(file)["images"]
        results = []
        for image in val64.images:
            found = images[image["file_name"]]
            rows = np.array(found["detections"], np.float64).reshape(-1, 6)
            corners = rows[:, 2:].reshape(-1, 2, 2).clip(0, [found["width"], found["height"]]).reshape(-1, 4)
            order = np.argsort(-rows[:, 1], kind="stable")
            detections = Detections(
                corners[order].astype(np.float32), rows[order, 1].astype(np.float32), rows[order, 0].astype(np.int32)
            )
            results += coco_results(image["id"], detections, val64.category_ids)
        return results

    return load


def pycocotools_evaluation(content: Content, results: Results) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"info": {}, **json.loads(json.dumps(content))}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.fixture(scope="module")
def scored(val64: Annotations, darknets: Callable[[str], Results]) -> Callable[[str], Scores]:
    return cache(lambda model: score(val64.content, darknets(model)))


@pytest.mark.parametrize("model", COCO_MODELS)
def test_metrics_are_those_of_the_reference_data(model: str, data: Path, scored: Callable[[str], Scores]):
    golden = json.loads((data / "goldens" / "val64.scores.json").read_text())[model]["darknet-stretch"]
    expected = dict(zip(METRICS, (golden[key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")), strict=True))
    assert scored(model).metrics == pytest.approx(expected, abs=1e-4)


def test_metrics_and_classes_are_pycocotools(
    val64: Annotations, darknets: Callable[[str], Results], scored: Callable[[str], Scores]
):
    own = pycocotools_evaluation(dict(val64.content), darknets(COCO_MODELS[0]))
    found = scored(COCO_MODELS[0])
    assert list(found.metrics.values()) == own.stats[:6].tolist()

    precision = own.eval["precision"]
    assert [entry.class_name for entry in found.per_class][:3] == ["person", "bicycle", "car"]
    assert len(found.per_class) == 80
    for index, entry in enumerate(found.per_class):
        objects = sum(row["category_id"] == own.params.catIds[index] for row in val64.content["annotations"])
        assert entry.objects == objects
        if objects:
            assert pytest.approx(precision[:, :, index, 0, 2].mean(), abs=1e-12) == entry.AP
            assert pytest.approx(precision[0, :, index, 0, 2].mean(), abs=1e-12) == entry.AP50
        else:
            assert entry.AP is None and entry.AP50 is None
    mean = np.mean([entry.AP for entry in found.per_class if entry.AP is not None])
    assert mean == pytest.approx(own.stats[0], abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_crowds_ties_sizes_and_many_detections_count_as_in_pycocotools(seed: int):
    # Few places, so that boxes lie on several objects with equal IoU; few scores, so that they tie; more than 100 of a class.
    rng = np.random.default_rng(seed)
    ids = [30, 7, 12]  # of pictures, not in their order

    def box() -> list[float]:
        return [*rng.integers(0, 6, 2) * 10.0, *rng.choice([20.0, 30.0, 40.0, 110.0], 2)]

    annotations: Results = []
    for number in range(1, 40):
        row = {"id": number, "image_id": int(rng.choice(ids[:2])), "category_id": int(rng.choice([3, 9]))}
        annotations.append(
            {**row, "iscrowd": int(rng.random() < 0.2), "bbox": box(), "area": float(rng.integers(300, 12000))}
        )
    content = {
        "images": [{"id": one, "file_name": f"{one}.jpg"} for one in ids],
        "annotations": annotations,
        "categories": [{"id": one, "name": str(one)} for one in (9, 3, 5)],
    }
    results: Results = [
        {"image_id": int(rng.choice(ids, p=[0.8, 0.1, 0.1])), "category_id": int(rng.choice([3, 9, 5])), "bbox": box()}
        | {"score": float(rng.integers(1, 20)) / 20}
        for _ in range(600)
    ]
    own = pycocotools_evaluation(content, results).stats[:6]
    found = [-1 if value is None else value for value in score(content, results).metrics.values()]
    assert found == pytest.approx(own.tolist(), abs=1e-12)


# By tidecv 1.0.1, of what Darknet found in val64 with yolo-fastest-1.1 above .05, without crowds and classes without objects:
# how many, and what they cost in AP50.
TIDES = {
    "localisation": (353, 0.118051),
    "classification": (109, 0.035779),
    "duplicate": (22, 0.000163),
    "background": (404, 0.011342),
    "both": (199, 0.004304),
    "missed": (152, 0.100660),
}


def test_errors_are_split_as_tide_does(val64: Annotations, darknets: Callable[[str], Results]):
    annotations = [row for row in val64.content["annotations"] if not row["iscrowd"]]
    there = {row["category_id"] for row in annotations}
    results = [row for row in darknets("yolo-fastest-1.1") if row["score"] > 0.05 and row["category_id"] in there]
    split = split_errors(score({**val64.content, "annotations": annotations}, results).pairs)
    assert pytest.approx(0.368147, abs=5e-6) == split.AP50
    assert split.counts == {kind: count for kind, (count, _) in TIDES.items()}
    # Not to the last digit: a recall of .29 is a place of COCO's curve here and lies beside it there.
    assert split.costs == pytest.approx({kind: cost for kind, (_, cost) in TIDES.items()}, abs=1e-5)


def test_average_precision_by_hand():
    # Two objects; the best detection is wrong, the next two are right: precision 1/2 at recall 1/2, 2/3 at recall 1. The
    # curve takes the highest precision from there on: 2/3 throughout.
    content = content_of([[(1, 0), (1, 100)]])
    results = [result(1, 1, 50, 0.9), result(1, 1, 0, 0.8), result(1, 1, 100, 0.7)]
    assert average_precision(content, results)["AP"] == pytest.approx(2 / 3)


def test_nothing_found_is_an_ap_of_zero_and_no_objects_is_none():
    metrics = average_precision(content_of([[(1, 0)]]), [])
    assert (metrics["AP"], metrics["AP_small"], metrics["AP_large"]) == (0.0, 0.0, None)
    assert average_precision(content_of([[]]), [result(1, 1, 0, 0.9)])["AP"] is None


def test_results_are_not_changed():
    content, results = content_of([[(1, 0)]]), [result(1, 1, 0, 0.9)]
    before = json.dumps([content, results])
    score(content, results)
    assert json.dumps([content, results]) == before


def repeated(content: Content, results: Results, times: Sequence[int]) -> tuple[Content, Results]:
    """The same with each picture as often as `times` says, under ids of their own."""
    images, annotations, found = [], [], []
    for image, count in zip(content["images"], times, strict=True):
        for _ in range(count):
            image_id = len(images) + 1
            images.append({**image, "id": image_id})
            of_image = [row for row in content["annotations"] if row["image_id"] == image["id"]]
            annotations += [
                {**row, "image_id": image_id, "id": len(annotations) + n} for n, row in enumerate(of_image, 1)
            ]
            found += [{**row, "image_id": image_id} for row in results if row["image_id"] == image["id"]]
    return {**content, "images": images, "annotations": annotations}, found


def test_a_draw_has_the_ap_that_pycocotools_gives_for_those_pictures(
    val64: Annotations, darknets: Callable[[str], Results]
):
    few = {1, 3, 44, 62}  # person, car, bottle, chair: pycocotools takes its time
    content = {
        **val64.content,
        "annotations": [row for row in val64.content["annotations"] if row["category_id"] in few],
        "categories": [row for row in val64.content["categories"] if row["id"] in few],
    }
    results = [row for row in darknets(COCO_MODELS[1]) if row["category_id"] in few]
    draws = draw_images(64, 3, seed=5)
    draws[0] = 1  # the set itself
    assert (draws.sum(axis=1) == 64).all()
    got = resampled_ap(score(content, results).matches, draws)
    assert 0.05 < got[:, 0].min() < got[:, 1].max() < 0.9
    for times, pair in zip(draws, got, strict=True):
        own = pycocotools_evaluation(*repeated(content, results, times.tolist()))
        assert pair.tolist() == pytest.approx(own.stats[:2].tolist(), abs=1e-12)


def test_a_draw_counts_crowds_as_pycocotools_does():
    content = content_of([[(1, 0), (1, 100)], [(1, 0)], []], num_classes=2)
    content["annotations"][1]["iscrowd"] = 1
    results = [result(1, 1, 100, 0.9), result(1, 1, 0, 0.8), result(2, 1, 2, 0.7), result(3, 1, 50, 0.95)]
    draws = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0], [0, 0, 3]])
    got = resampled_ap(score(content, results).matches, draws)
    for times, pair in zip(draws[:3], got[:3], strict=True):
        own = pycocotools_evaluation(*repeated(content, results, times.tolist()))
        assert pair.tolist() == pytest.approx(own.stats[:2].tolist(), abs=1e-12)
    assert np.isnan(got[3]).all()  # without an object there is no AP
    assert interval(got[3]) is None


def test_the_interval_is_that_of_a_coin():
    # One object in each of 400 pictures, found in half of them and nothing else: AP is the share of pictures drawn with a
    # find, of a binomial distribution with a standard deviation of sqrt(.5 * .5 / 400) = .025.
    count = 400
    found = np.arange(0, count, 2)
    hits = np.ones((10, len(found)), bool)
    matches = ClassMatches(found, hits, ~hits, np.ones(count, np.int64))
    values = resampled_ap([matches], draw_images(count, 2000, seed=0))[:, 0]
    # COCO reads 101 recalls from 0 on; 100 * recall + 1 of them, rounded down, are reached, and recall has steps of 1/400.
    centre = (50 + 1 - 0.375) / 101
    assert values.mean() == pytest.approx(centre, abs=0.002)
    assert values.std() == pytest.approx(0.025, abs=0.0015)
    bounds = interval(values)
    assert bounds is not None
    assert bounds == pytest.approx((centre - 1.96 * 0.025, centre + 1.96 * 0.025), abs=0.006)


def test_pictures_that_are_all_alike_leave_no_doubt():
    content = content_of([[(1, 0)]] * 20)
    results = [result(n, 1, 0, 0.9) for n in range(1, 21)]
    assert interval(resampled_ap(score(content, results).matches, draw_images(20, 50, 0))[:, 0]) == (1.0, 1.0)


def test_draws_depend_on_the_seed_only():
    np.testing.assert_array_equal(draw_images(10, 4, 1), draw_images(10, 4, 1))
    assert (draw_images(10, 4, 1) != draw_images(10, 4, 2)).any()


def test_a_paired_difference_is_surer_than_its_parts():
    # Every picture has an object; one detector finds it in two of three pictures, the other misses one find in ten of those.
    rng = np.random.default_rng(0)
    found = np.flatnonzero(rng.random(300) < 0.67)
    fewer = found[rng.random(len(found)) > 0.1]
    draws = draw_images(300, 400, seed=0)
    hits = {len(at): np.ones((10, len(at)), bool) for at in (found, fewer)}
    objects = np.ones(300, np.int64)
    a, b = (
        resampled_ap([ClassMatches(at, hits[len(at)], ~hits[len(at)], objects)], draws)[:, 0] for at in (found, fewer)
    )
    assert np.std(a - b) < np.std(a) * 0.7
    bounds = interval(a - b)
    assert bounds is not None and bounds[0] > 0


def meta_of(name: str, weights_sha256: str | None) -> ModelMeta:
    return replace(meta_from_spec(BUILT_IN[name]()), weights_sha256=weights_sha256)


def truth_of(content: Content) -> Annotations:
    return Annotations(Path("a.json"), content, ())


def test_the_original_weights_on_pictures_of_coco_are_noted(val64: Annotations):
    digest = next(iter(ORIGINAL_WEIGHTS))
    note = training_overlap_note(replace(meta_of("yolov3", digest), name="mine"), val64)
    assert note is not None and note.startswith("mine has the original weights of yolov3, which were trained on COCO's")
    assert "5k.txt" in note


def test_weights_that_may_be_the_original_ones_are_noted_with_an_if(val64: Annotations):
    note = training_overlap_note(meta_of("yolov3-tiny", "0" * 64), val64)
    assert note is not None and note.startswith(
        "this does not concern you if you trained yolov3-tiny from scratch or on"
    )
    assert "the published weights of YOLOv3, from which it may come" in note and " were trained on COCO's" in note


def test_other_pictures_classes_or_models_are_not_noted(val64: Annotations):
    assert training_overlap_note(meta_of("yolov3", None), truth_of(content_of([[(1, 0)]]))) is None
    assert training_overlap_note(meta_of("yolov3-voc", None), val64) is None
    assert training_overlap_note(replace(meta_of("yolov3", None), name="yolo-fastest"), val64) is None


def test_pictures_of_2014_are_cocos_too():
    content = {"images": [{"id": 42, "file_name": "val2014/COCO_val2014_000000000042.jpg"}]}
    assert training_overlap_note(meta_of("yolov3", None), truth_of(content)) is not None
    other = {"images": [{**content["images"][0], "own_id": 7}]}
    assert training_overlap_note(meta_of("yolov3", None), truth_of(other)) is None
    # Labels in YOLO's format have no ids: there the names say it all.
    assert (
        training_overlap_note(meta_of("yolov3", None), truth_of({"images": [{**content["images"][0], "id": 1}]}))
        is not None
    )


def found_at(*rows: tuple[int, float, float]) -> Detections:
    """Detections (class id, x, score) of 10x10 px."""
    xyxy = np.array([[x, 0, x + 10, 10] for _, x, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([confidence for _, _, confidence in rows], np.float32)
    return Detections(xyxy, scores, np.array([class_id for class_id, _, _ in rows], np.int32))


def test_the_worst_pictures_come_first():
    content = content_of([[(1, 0)], [(1, 0), (2, 50)], [], [(1, 0)], []], num_classes=2)
    annotations = Annotations(Path("a.json"), content, (1, 2), ("class1", "class2"))
    detections = {
        1: found_at((0, 0, 0.9)),  # right
        2: found_at((0, 1, 0.9), (0, 50, 0.8)),  # one right, one of the wrong class
        3: found_at((0, 0, 0.9), (1, 0, 0.2)),  # nothing is there; the second is too weak to count
        4: found_at(),  # missed
        5: found_at(),  # nothing there, nothing found
    }
    scores = score_pictures(annotations, detections, 0.25)
    assert [(score.found, score.missed, score.false) for score in scores] == [
        (1, 0, 0),
        (1, 1, 1),
        (0, 0, 1),
        (0, 1, 0),
        (0, 0, 0),
    ]
    assert [score.f1 for score in scores] == [1, 0.5, 0, 0, 1]
    assert [score.image_id for score in worst_first(scores)] == [3, 4, 2, 1, 5]
    assert worst_first([PictureScore(1, "a", 0, 1, 0), PictureScore(2, "b", 0, 1, 4)])[0].image_id == 2


def test_a_detection_in_a_crowd_is_not_called_false():
    content = content_of([[(1, 0)]], num_classes=2)
    content["annotations"][0]["iscrowd"] = 1
    annotations = Annotations(Path("a.json"), content, (1, 2), ("class1", "class2"))
    assert len(annotations.truth(1)) == 0
    (scored,) = score_pictures(annotations, {1: found_at((0, 5, 0.9), (1, 5, 0.8))}, 0.25)
    assert (scored.found, scored.missed, scored.false) == (0, 0, 1)


def test_a_threshold_later_is_a_threshold_before():
    assert confident(found_at((0, 0, 0.9), (0, 50, 0.25)), 0.25).scores.tolist() == pytest.approx([0.9])


# --- as Darknet counts ---


def test_hits_false_alarms_and_misses_are_darknets(tmp_path: Path):
    """Two classes, three images, counted by hand."""
    cats = np.array([[0, 0, 10, 10], [20, 20, 10, 10]], np.float64)
    files = [
        LabelledFile(tmp_path / "a", (50, 50), cats, np.array([0, 0], np.int32)),
        LabelledFile(tmp_path / "b", (50, 50), cats[:1], np.array([1], np.int32)),
        LabelledFile(tmp_path / "c", (50, 50), cats[:0], np.array([], np.int32)),
    ]
    truth = LabelledSet(tmp_path, files, ("cat", "dog")).truth_for(("cat", "dog", "owl"))

    def of(*rows: tuple[float, int, tuple[float, ...]]) -> Detections:
        boxes = np.array([row[2] for row in rows], np.float32).reshape(-1, 4)
        return Detections(
            boxes,
            np.array([row[0] for row in rows], np.float32),
            np.array([row[1] for row in rows], np.int32),
            truth.class_names,
        )

    found = {
        # a hit, one more on the same cat, a weak hit (IoU .8) that only the area sees
        1: of((0.9, 0, (0, 0, 10, 10)), (0.5, 0, (0, 0, 10, 9)), (0.2, 0, (20, 20, 30, 28))),
        2: of((0.8, 1, (0, 0, 10, 5)), (0.3, 2, (0, 0, 10, 10))),  # IoU just .5 is none; owls are not in the set
        3: of((0.6, 0, (0, 0, 10, 10))),
    }
    counts = count_hits(truth, found)
    assert (counts.tp, counts.fp, counts.fn) == (1, 3, 2)
    assert counts.precision == 1 / 4 and counts.recall == 1 / 3 and counts.f1 == 2 / 7
    assert counts.mean_iou == pytest.approx(1 / 4)
    # cats by score: hit .9, miss .6, miss .5, hit .2: precision 1 up to recall .5, then 2 / 4; dogs: none found
    assert counts.mAP50 == pytest.approx((0.5 * 1 + 0.5 * 2 / 4 + 0) / 2)
    assert count_hits(truth, found, conf=0.1).tp == 2


HALF = 51 / 101  # of 101 places of the curve those up to a recall of 1/2


@pytest.mark.parametrize(
    "kind, objects, found, costs",
    [
        # The planted detection is the best and wrong (IoU 1/3): precision 1/2 at recall 1/2; put right, all is found.
        ("localisation", [(1, 0), (1, 100)], [(1, 0, 0.5), (1, 105, 0.9)], {"localisation": 1 - HALF / 2}),
        # Class 2 falls to a precision of 1/2, class 1 has half its objects.
        (
            "classification",
            [(1, 0), (1, 100), (2, 200)],
            [(1, 0, 0.5), (2, 200, 0.5), (2, 100, 0.9)],
            {"classification": 1 - (0.5 + HALF) / 2},
        ),
        (
            "both",
            [(1, 0), (1, 100), (2, 200)],
            [(1, 0, 0.5), (2, 200, 0.5), (2, 105, 0.9)],
            {"both": 0.25, "missed": (1 - HALF) / 2},
        ),
        # Hit, again (IoU 9/11), hit: precision 1 up to recall 1/2, then 2/3.
        ("duplicate", [(1, 0), (1, 100)], [(1, 0, 0.9), (1, 1, 0.8), (1, 100, 0.7)], {"duplicate": 50 / 101 / 3}),
        ("background", [(1, 0), (1, 100)], [(1, 0, 0.8), (1, 500, 0.9), (1, 100, 0.7)], {"background": 1 / 3}),
        ("missed", [(1, 0), (1, 100)], [(1, 0, 0.9)], {"missed": 1 - HALF}),
    ],
)
def test_a_planted_error_of_each_kind_is_found_and_costs_what_it_costs_by_hand(
    kind: str, objects: Any, found: Any, costs: dict[str, float]
):
    split = split_errors(score(content_of([objects], 2), [result(1, *one) for one in found]).pairs)
    assert {name for name, count in split.counts.items() if count} == set(costs) and split.counts[kind] == 1
    assert split.costs == pytest.approx({**dict.fromkeys(split.costs, 0), **costs}, abs=1e-12)


def test_what_one_artifact_lost_is_split_by_what_became_of_each_object():
    content = content_of([[(1, x) for x in (0, 100, 200, 300, 400)]], 2)
    reference = [result(1, 1, x, 0.9) for x in (0, 100, 200, 300)]
    # One as it was, one beside, one of the other class, one too weak to be shown; the last is found anew.
    other = [(1, 0, 0.9), (1, 105, 0.9), (2, 200, 0.9), (1, 300, 0.2), (1, 400, 0.9)]
    a, b = (
        [split_errors(score(content, rows).pairs, least) for least in (0.0, 0.25)]
        for rows in (reference, [result(1, *one) for one in other])
    )
    difference = error_difference(a, b)
    assert difference.lost == {"localisation": 1, "classification": 1, "missed": 1}
    assert difference.gained == {"localisation": 0, "classification": 0, "missed": 1}
    assert difference.costs["localisation"] > 0 < difference.costs["classification"] > difference.costs["both"] == 0
    assert difference.costs["missed"] == pytest.approx(
        -20 / 101
    )  # of 81 places of the curve, which the reference reaches


def test_what_is_taken_for_what_by_hand():
    objects, found = [(1, 0), (1, 100), (2, 200)], [(1, 0, 0.9), (2, 100, 0.8), (1, 500, 0.7)]
    split = split_errors(score(content_of([objects], 2), [result(1, *one) for one in found]).pairs)
    # Of class 1 one is seen and one taken for class 2; that of class 2 is missed; one detection stands for nothing.
    assert confusion(split, 2).tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_a_detection_on_a_crowd_is_no_error_and_a_crowd_is_not_missed():
    content = content_of([[(1, 0), (1, 100)]])
    content["annotations"][1]["iscrowd"] = 1
    split = split_errors(score(content, [result(1, 1, 0, 0.9), result(1, 1, 100, 0.8)]).pairs)
    assert pytest.approx(1) == split.AP50 and not any(split.counts.values())
    nothing = split_errors(score(content_of([[]]), [result(1, 1, 0, 0.9)]).pairs)
    assert nothing.AP50 is None and nothing.counts["background"] == 1 and not any(nothing.costs.values())
