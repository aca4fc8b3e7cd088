"""The one type for pictures: every way to name a set, and the same truth whatever the format."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolov3_trt.data import calibration_pictures, labelled_set, picture_set
from yolov3_trt.data.manifest import load_set
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.data.sources import Source, source_of
from yolov3_trt.detections import Detections
from yolov3_trt.errors import CalibrationError, DataSetError, ImageError, SettingError
from yolov3_trt.evaluation import evaluate, score_detections
from yolov3_trt.models.class_names import COCO_NAMES, SHAPE_NAMES
from yolov3_trt.shapes import shapes_picture


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a generated data set: data.yaml, val.json and their pictures, 5 to train on and 4 to validate."""
    return write_shapes_data_set(tmp_path_factory.mktemp("shapes"), num_train=5, num_val=4, seed=20).parent


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for index in range(3):
        writer.write(shapes_picture(7, index, (64, 96)).pixels)
    writer.release()
    return path


def names(pictures: Any) -> list[str]:
    return [Path(image.name).name for image in pictures]


def test_every_way_to_name_a_set_gives_its_pictures(data_set: Path, video: Path, tmp_path: Path):
    train, val = data_set / "images/train", data_set / "images/val"
    (tmp_path / "list").write_text(f"{val / '000002.jpg'}\n{val / '000001.jpg'}\n")
    (tmp_path / "set.toml").write_text(
        f'format = "yolov3_trt.calibration-set/1"\nsource = "folder"\npath = "{train}"\ncount = 2\nseed = 3\n'
    )
    expected: list[tuple[Any, list[str]]] = [
        (train, [f"{index:06}.jpg" for index in range(5)]),
        (str(train / "000004.jpg"), ["000004.jpg"]),
        (f"{train}/*[13].jpg", ["000001.jpg", "000003.jpg"]),
        (tmp_path / "list", ["000002.jpg", "000001.jpg"]),
        (video, ["clip.avi#0", "clip.avi#1", "clip.avi#2"]),
        (data_set / "data.yaml", [f"{index:06}.jpg" for index in range(5)]),
        (data_set, [f"{index:06}.jpg" for index in range(5)]),  # the folder of a data.yaml
        (data_set / "val.json", [f"{index:06}.jpg" for index in range(4)]),
        ([val / "000003.jpg", video], ["000003.jpg", "clip.avi#0", "clip.avi#1", "clip.avi#2"]),
        (tmp_path / "set.toml", names(calibration_pictures(train, 2, 3))),
    ]
    for source, found in expected:
        pictures = picture_set(source)
        assert (len(pictures), names(pictures), names(pictures)) == (len(found), found, found), source
        assert picture_set(pictures) is pictures
        if pictures.paths is not None:
            assert [path.name for path in pictures.paths] == found
            assert pictures.known_count == len(found)
    assert names(picture_set(data_set, split="val")) == [f"{index:06}.jpg" for index in range(4)]
    assert picture_set(data_set, default_split="val").paths == labelled_set(data_set).paths
    generated = picture_set("shapes")
    assert (len(generated), generated.known_count, generated.paths) == (64, 64, None)
    np.testing.assert_array_equal(next(iter(generated)).pixels, shapes_picture(0, 0).pixels)


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "b.png").write_text("no picture")
    reading = iter(picture_set(tmp_path))
    assert next(reading).pixels.shape == (4, 4, 3)
    with pytest.raises(ImageError, match=r"b.png: not a picture"):
        next(reading)


@pytest.mark.parametrize("source", ["shapes", "folder", "video", "data.yaml", "joined", "set"])
def test_a_choice_is_the_same_again_whatever_it_is_from(source: str, data_set: Path, video: Path):
    train = data_set / "images/train"
    images = {
        "shapes": "shapes",
        "folder": train,
        "video": video,
        "data.yaml": data_set,
        "joined": picture_set([train, video]),
        "set": picture_set(train),
    }[source]
    first, again = (calibration_pictures(images, 3, 1) for _ in range(2))
    assert len(first) == len(names(first)) == 3 and first.seed == 1
    assert first.picture_list == again.picture_list and names(first) == names(again)
    if source in ("data.yaml", "set"):
        assert first.picture_list == calibration_pictures(train, 3, 1).picture_list
    with (
        pytest.raises(CalibrationError, match="expected 99 or more")
        if source != "shapes"
        else pytest.raises(SettingError)
    ):
        _ = calibration_pictures(images, 99, 1, split="val" if source == "shapes" else None)


def test_a_manifest_may_name_a_split(data_set: Path, tmp_path: Path):
    wanted = calibration_pictures(data_set / "data.yaml", 3, 1, split="val").calibration_set
    assert wanted is not None and wanted.source is Source.DATA
    (tmp_path / "set.toml").write_text(
        f'format = "yolov3_trt.calibration-set/1"\nsource = "data"\npath = "{wanted.path}"\nsplit = "val"\n'
        f'count = 3\nseed = 1\nsha256 = "{wanted.sha256}"\n'
    )
    assert load_set(tmp_path / "set.toml").split == "val"
    found = calibration_pictures(tmp_path / "set.toml")
    assert found.hashes == calibration_pictures(data_set / "images/val", 3, 1).hashes


@pytest.mark.parametrize(
    "text, source",
    [
        ("shapes", Source.SHAPES),
        ("a.yaml", Source.DATA),
        ("A.YML", Source.DATA),
        ("a.json", Source.DATA),
        ("a.MP4", Source.VIDEO),
        ("*.mp4", Source.FILES),
        ("a.jpg", Source.FILES),
        ("a.txt", Source.LIST),
    ],
)
def test_what_is_not_there_is_told_by_its_name(text: str, source: Source):
    assert source_of(text) is source


@pytest.mark.parametrize("stray", ["a.json", "a.yaml", "a.data", "a.xml"])
def test_a_stray_file_makes_no_labelled_set_of_pictures(stray: str, tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / stray).write_text("{}")
    assert source_of(str(tmp_path)) is Source.FOLDER and names(picture_set(tmp_path)) == ["a.png"]
    (tmp_path / "obj.data").write_text("train = l.txt\nnames = n")
    (tmp_path / "l.txt").write_text("a.png")
    (tmp_path / "n").write_text("cat")
    assert source_of(str(tmp_path)) is Source.DATA and names(picture_set(tmp_path)) == ["a.png"]
    (tmp_path / "a.png").rename(tmp_path / "a")
    (tmp_path / "obj.data").unlink()
    assert source_of(str(tmp_path)) is Source.DATA  # without pictures any name will do


def test_what_names_no_set_is_refused(data_set: Path, tmp_path: Path):
    with pytest.raises(ImageError, match="no pictures given"):
        picture_set([])
    with pytest.raises(SettingError, match=r"split: got 'val' with .*train; expected it with a labelled set only"):
        picture_set(data_set / "images/train", split="val")
    with pytest.raises(SettingError, match=r"split: got 'val' with .*val.json, which is one set; leave it out"):
        labelled_set(data_set / "val.json", split="val")
    with pytest.raises(SettingError, match=r"images: given with .*data.yaml, which names its own; leave it out"):
        labelled_set(data_set, images=data_set)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"data: got .*empty, a folder without a labelled set; expected a data.yaml"):
        labelled_set(tmp_path / "empty")
    with pytest.raises(SettingError, match=r"data: got .*clip.mp4, no labelled set; expected a data.yaml, a Darknet"):
        labelled_set(tmp_path / "clip.mp4")
    with pytest.raises(DataSetError):
        labelled_set(data_set, split="test")


def coco_json(path: Path, *file_names: str) -> Path:
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(file_names, start=1)],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("place", ["", "images", "val", "val/images", "images/val", "../val", "../images"])
def test_the_images_of_a_json_are_found_where_they_usually_are(place: str, tmp_path: Path):
    path = coco_json(tmp_path / "annotations/instances_val.json", "a.png")
    folder = path.parent / place
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (found,) = labelled_set(path).paths or ()
    assert found.resolve() == (folder / "a.png").resolve()


def test_images_of_a_json_that_are_missing_are_counted(tmp_path: Path):
    path = coco_json(tmp_path / "val.json", "a.png", "b.png")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataSetError) as caught:
        labelled_set(path)
    assert str(caught.value) == (
        f"{tmp_path}: 1 of the 2 images of val.json are not there, e.g. 'b.png'; give their folder with images=; "
        "correct it, or leave it out (skip_faulty=True)"
    )


def truth_as_found(truth: Any, seed: int) -> dict[Any, Detections]:
    """The objects, moved a little by chance and with chance scores: what a good detector may find."""
    rng = np.random.default_rng(seed)
    found = {}
    for image in truth.images:
        objects = truth.truth(image["id"])
        sides = np.tile(objects.xyxy[:, 2:] - objects.xyxy[:, :2], 2)
        xyxy = objects.xyxy + rng.normal(0, 0.08, sides.shape).astype(np.float32) * sides
        order = np.argsort(-(scores := rng.random(len(objects)).astype(np.float32)))
        found[image["id"]] = Detections(xyxy[order], scores[order], objects.class_ids[order], objects.class_names)
    return found


def assert_scores_are_equal(sets: Sequence[Any], class_names: Sequence[str]) -> None:
    a, b = (one.truth_for(class_names) for one in sets)
    assert [path.name for path in a.paths.values()] == [path.name for path in b.paths.values()]
    for seed in range(3):
        found = truth_as_found(a, seed)
        as_b = dict(zip(b.paths, found.values(), strict=True))
        scores_a, scores_b = score_detections(a, found), score_detections(b, as_b)
        assert 0.2 < (scores_a.metrics["AP"] or 0) < 0.9
        assert scores_a.metrics == scores_b.metrics  # to the last digit
        assert [(one.objects, one.AP) for one in scores_a.per_class] == [
            (one.objects, one.AP) for one in scores_b.per_class
        ]


def test_generated_labels_score_alike_in_both_formats(data_set: Path):
    assert_scores_are_equal((labelled_set(data_set / "val.json"), labelled_set(data_set)), SHAPE_NAMES)


@pytest.mark.slow
def test_val64_scores_alike_in_both_formats(data: Path, tmp_path: Path):
    class_names = COCO_NAMES
    yaml = tmp_path / "data.yaml"
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(class_names))
    yaml.write_text(f"path: {data / 'coco'}\nval: val64/images\nnames:\n{listed}")
    sets = labelled_set(data / "coco/instances_val64.json"), labelled_set(yaml)
    assert (len(sets[0]), len(sets[1])) == (64, 64)
    assert_scores_are_equal(sets, class_names)
    # What Darknet found with a real model.
    with gzip.open(data / "goldens/official/yolov3-tiny.val64.json.gz") as file:
        images = json.load(file)["images"]
    metrics = []
    for one in sets:
        truth = one.truth_for(class_names)
        found = {}
        for image_id, path in truth.paths.items():
            size = [images[path.name][side] for side in ("width", "height")]
            rows = np.array(images[path.name]["detections"], np.float64).reshape(-1, 6)
            rows[:, 2:] = rows[:, 2:].clip(0, size * 2)
            rows = rows[np.argsort(-rows[:, 1], kind="stable")].astype(np.float32)
            found[image_id] = Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(np.int32), class_names)
        metrics.append(score_detections(truth, found).metrics)
    assert metrics[0] == metrics[1] and metrics[0]["AP"] == pytest.approx(0.2491, abs=1e-4)


def test_evaluate_reads_the_pictures_of_a_set(data_set: Path):
    truth = labelled_set(data_set).truth_for(SHAPE_NAMES)
    seen = []

    def nothing(pixels: Any) -> Detections:
        seen.append(pixels.shape)
        return Detections.none(SHAPE_NAMES)

    metrics = evaluate(nothing, truth)
    assert (metrics["images"], metrics["AP"], metrics["AP50"]) == (4, 0.0, 0.0)
    assert seen == [cv2.imread(str(path)).shape for path in truth.paths.values()]
