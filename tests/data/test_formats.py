"""One set in every format: the same boxes, the same AP and the same classes; and each format's own habits."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.test_sets import truth_as_found
from yolov3_trt.data import labelled_set, picture_set
from yolov3_trt.data.conversion import FORMATS, convert_set
from yolov3_trt.data.labelled import LabelledFile, LabelledSet
from yolov3_trt.data.picture_size import picture_size
from yolov3_trt.data.reading import load_data_set, load_splits
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.errors import DataSetError, SettingError
from yolov3_trt.evaluation import score_detections
from yolov3_trt.models.class_names import SHAPE_NAMES


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LabelledSet]:
    yaml = write_shapes_data_set(tmp_path_factory.mktemp("shapes"), num_train=3, num_val=5, seed=11)
    splits, findings = load_splits(yaml)
    assert not findings.lines
    return splits


@pytest.fixture(scope="module")
def fractions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LabelledSet]:
    """Boxes on hundredths of a px, as COCO's own are."""
    folder, rng = tmp_path_factory.mktemp("fractions"), np.random.default_rng(3)
    files = []
    for number in range(4):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.zeros((61, 173, 3), np.uint8))
        xywh = np.concatenate([rng.uniform(0, 30, (5, 2)), rng.uniform(1, 31, (5, 2))], axis=1).round(2)
        files.append(LabelledFile(path, (61, 173), xywh, rng.integers(0, 6, 5).astype(np.int32), name=path.name))
    return {"train": LabelledSet(folder, files[:2], SHAPE_NAMES), "val": LabelledSet(folder, files[2:], SHAPE_NAMES)}


def beside(path: Path, folder: Path) -> Path:
    """Labels beside pictures, which nothing but `classes.txt` describes."""
    shutil.copytree(path.parent, folder)
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("\n".join(SHAPE_NAMES))
    return folder


@pytest.mark.parametrize("source", ["shapes", "fractions"])
def test_every_format_gives_the_same_boxes_and_the_same_ap(source: str, tmp_path: Path, request: pytest.FixtureRequest):
    splits: dict[str, LabelledSet] = request.getfixturevalue(source)
    paths = {name: convert_set(splits, name, tmp_path / name).path for name in FORMATS}
    paths["beside"] = beside(paths["yolo"], tmp_path / "beside")
    truth = splits["val"].truth_for(SHAPE_NAMES)
    found = truth_as_found(truth, 1)
    expected = score_detections(truth, found)
    assert 0.2 < (expected.metrics["AP"] or 0) < 0.95
    for name, path in paths.items():
        data_set = load_data_set(path)
        assert data_set.class_names == SHAPE_NAMES, name
        for own, others in ((splits["train"].files, data_set.train), (splits["val"].files, data_set.val)):
            for one, other in zip(own, others, strict=True):
                np.testing.assert_array_equal(one.xywh, other.xywh, err_msg=name)
                np.testing.assert_array_equal(one.class_ids, other.class_ids)
        scores = score_detections(labelled_set(path).truth_for(SHAPE_NAMES), found)
        assert (scores.metrics, scores.per_class) == (expected.metrics, expected.per_class), name
        assert (
            len(picture_set(path)) == (3 if source == "shapes" else 2) or name == "beside"
        )  # a folder is its own pictures
        assert load_splits(path)[0].keys() == {"train", "val"}


def test_crowds_and_areas_are_kept_where_a_format_has_them(fractions: dict[str, LabelledSet], tmp_path: Path):
    one = fractions["val"].files[0]
    crowds, areas = np.array([True, False, False, False, False]), np.arange(1, 6) * 1.5
    file = LabelledFile(one.path, one.image_hw, one.xywh, one.class_ids, crowds, areas, one.name)
    splits = {"val": LabelledSet(tmp_path, [file], SHAPE_NAMES)}
    coco = convert_set(splits, "coco", tmp_path / "coco")
    (back,) = labelled_set(coco).files
    assert back.crowds.tolist() == crowds.tolist() and back.areas is not None and back.areas.tolist() == areas.tolist()
    voc = convert_set(splits, "voc", tmp_path / "voc")
    assert labelled_set(voc).files[0].crowds.tolist() == crowds.tolist()
    yolo = convert_set(splits, "yolo", tmp_path / "yolo")
    assert len(labelled_set(yolo).files[0].xywh) == 4
    assert [len(written.notes) for written in (coco, voc, yolo)] == [0, 2, 2]
    with pytest.raises(SettingError, match="which holds something"):
        convert_set(splits, "yolo", tmp_path / "yolo")
    with pytest.raises(SettingError, match="expected one of yolo, darknet, voc, coco"):
        convert_set(splits, "kitti", tmp_path / "kitti")


def picture(path: Path, image_hw: tuple[int, int] = (40, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((*image_hw, 3), np.uint8))
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_darknets_lists_count_from_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture(tmp_path / "root/data/obj/a.jpg"), text(tmp_path / "root/data/obj/a.txt", "1 0.5 0.5 0.5 0.5")
    text(tmp_path / "root/data/obj.names", "cat\ndog\n")
    text(tmp_path / "root/data/train.txt", "data/obj/a.jpg\r\n")
    obj = text(
        tmp_path / "root/data/obj.data",
        "classes= 2\ntrain  = data/train.txt\n# x\nnames = data/obj.names\nbackup = b/\n",
    )
    for path in (obj, tmp_path / "root"):
        loaded = load_data_set(path)
        assert loaded.class_names == ("cat", "dog") and loaded.train[0].xywh.tolist() == [[12.5, 10, 25, 20]]
        assert loaded.notes[-1].endswith(f"1 name counts from {tmp_path / 'root'}, a folder above the set's")
    shutil.move(tmp_path / "root/data/obj", tmp_path / "elsewhere/data/obj")
    with pytest.raises(DataSetError, match=r"train.txt:1: 'data/obj/a.jpg' is not there"):
        load_data_set(obj)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_data_set(obj).notes[-1].endswith("elsewhere, the working directory")


@pytest.mark.parametrize(
    "content, fault",
    [
        ("train = a.txt\nnames = n\nclasses = 2", "names= 'n' is not there; expected a file with a class name a line"),
        ("train = a.txt", "names= is missing"),
        ("names = obj.names", "train= is missing; expected a list of pictures"),
        ("train a.txt", ":1: 'train a.txt'; expected key = value"),
        ("names = obj.names\nclasses = 3\ntrain = a.txt", "classes= '3'; expected 2, the number of names in obj.names"),
    ],
)
def test_faults_of_a_data_file_are_told(tmp_path: Path, content: str, fault: str):
    text(tmp_path / "obj.names", "cat\ndog\n")
    with pytest.raises(DataSetError) as caught:
        load_data_set(text(tmp_path / "obj.data", content))
    assert any(fault in one for one in caught.value.faults)


def voc(folder: Path, *objects: tuple[str, str], size: str = "<width>50</width><height>40</height>") -> Path:
    picture(folder / "JPEGImages/a.jpg")
    rows = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(
            f"<{key}>{word}</{key}>" for key, word in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
        )
        + "</bndbox></object>"
        for name, box in objects
    )
    text(folder / "Annotations/a.xml", f"<annotation><size>{size}</size>{rows}</annotation>")
    return folder


def test_voc_counts_pixels_from_1_unless_its_corners_say_otherwise(tmp_path: Path):
    whole = labelled_set(voc(tmp_path / "a", ("dog", "1 1 50 40"), ("cat", "11 12 20 21")))
    assert whole.class_names == ("cat", "dog") and not whole.has_splits
    assert whole.files[0].xywh.tolist() == [[0, 0, 50, 40], [10, 11, 10, 10]]
    for box, xywh in (("0 5 10 15", [0, 5, 10, 10]), ("10.25 5.00 20.50 15.00", [10.25, 5, 10.25, 10])):
        found = labelled_set(voc(tmp_path / box, ("dog", box)))
        assert found.files[0].xywh.tolist() == [xywh]
    assert "edges counted from 0" in found.notes[0]


def test_a_part_of_voc_means_the_same_alone_as_with_the_others(tmp_path: Path):
    for split, name, box in (("train", "dog", "0 5 10 15"), ("val", "cat", "10 10 50 40"), ("test", "ape", "1 1 9 9")):
        shutil.copytree(voc(tmp_path / f"{split}-alone", (name, box)) / "JPEGImages", tmp_path / split)
        shutil.copy(tmp_path / f"{split}-alone/Annotations/a.xml", tmp_path / split)
    alone, together = labelled_set(tmp_path, split="val"), load_data_set(tmp_path)
    assert alone.class_names == together.class_names == load_splits(tmp_path)[0]["val"].class_names
    assert alone.class_names == ("ape", "cat", "dog")
    assert alone.files[0].xywh.tolist() == together.val[0].xywh.tolist() == [[10, 10, 40, 30]]


def test_a_fault_in_another_part_of_voc_is_passed_over(tmp_path: Path):
    for split in ("train", "val"):
        voc(tmp_path, ("cat", "1 1 9 9"))
        for file in ("JPEGImages/a.jpg", "Annotations/a.xml"):
            (tmp_path / file).rename((tmp_path / file).with_stem(split))
        text(tmp_path / f"ImageSets/Main/{split}.txt", split)
    text(tmp_path / "Annotations/train.xml", "no XML")
    assert labelled_set(tmp_path, split="val").class_names == ("cat",)
    with pytest.raises(DataSetError, match=r"train\.xml: not XML"):
        load_data_set(tmp_path)


@pytest.mark.parametrize("format_", FORMATS)
def test_names_of_classes_come_back_as_they_were(format_: str, fractions: dict[str, LabelledSet], tmp_path: Path):
    names = ("background", "a:b", "# c", "Ampel 🚦", 'say "no"', "d & <e>")
    splits = {split: LabelledSet(one.path, one.files, names) for split, one in fractions.items()}
    assert labelled_set(convert_set(splits, format_, tmp_path / "new")).class_names == names


@pytest.mark.parametrize(
    "objects, size, fault",
    [
        ([("dog", "1 1 x 9")], None, "a.xml: object 1: xmax is 'x'; expected a number of px"),
        ([("dog", "1 1 nan 9")], None, "xmax is 'nan'; expected a number of px"),
        ([("", "1 1 9 9")], None, "object 1: its name is ''; expected text"),
        ([("dog", "9 1 3 9")], None, "object 1: the box has no width; expected more than 0"),
        (
            [("dog", "1 1 99 9")],
            None,
            "object 1: the box goes from 0 to 99 px in x; expected 0..50, inside the picture",
        ),
        ([("dog", "1 1 9 9")], "<width>5</width><height>4</height>", "labelled at 5x4"),
        ([("&x;", "1 1 9 9")], None, "a.xml: not XML (undefined entity"),
    ],
)
def test_faults_of_xmls_are_told(tmp_path: Path, objects: list[tuple[str, str]], size: str | None, fault: str):
    with pytest.raises(DataSetError) as caught:
        labelled_set(voc(tmp_path, *objects, **({} if size is None else {"size": size})))
    assert fault in caught.value.faults[0]


def test_a_set_that_nothing_names_goes_by_order(tmp_path: Path):
    for name in ("a", "b"):
        picture(tmp_path / f"JPEGImages/{name}.jpg")
        text(tmp_path / f"labels/{name}.txt", f"{ord(name) - 97} 0.5 0.5 0.5 0.5")
    found = labelled_set(tmp_path)
    assert not found.named and found.class_names == ("class0", "class1")
    truth = found.truth_for(("cat", "dog", "owl"))
    assert truth.category_ids == (1, 2, None) and "nothing names its classes" in truth.notes[0]
    listed = labelled_set(text(tmp_path / "all.txt", "JPEGImages/a.jpg\nJPEGImages/b.jpg\n"))
    assert [file.class_ids.tolist() for file in listed.files] == [[0], [1]]


def test_the_points_of_poses_are_no_polygons(tmp_path: Path):
    picture(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.5 0.5 0.1 0.1 0.2 0.9")
    yaml = text(tmp_path / "data.yaml", "train: images\nkpt_shape: [2, 2]\nnames: [cat]")
    loaded = load_data_set(yaml)
    assert loaded.train[0].xywh.tolist() == [[12.5, 10, 25, 20]] and "its labels are poses" in loaded.notes[0]
    yaml.write_text("train: images\nkpt_shape: [2, 3]\nnames: [cat]")
    with pytest.raises(DataSetError, match=r"a.txt:1: 9 values; expected 11 .*the points of kpt_shape"):
        load_data_set(yaml)


Write = Callable[[Path], Any]


@pytest.mark.parametrize(
    "labels, text_",
    [
        (lambda n: f"0 {20 + n} 20 10 8", "its label files hold px (9 of 9 boxes); expected fractions"),
        (lambda n: f"0 0.{n} 0.5 0.95 0.9", "fit as x1, y1, x2, y2; expected the former"),
    ],
)
def test_label_files_of_another_kind_are_told_at_once(tmp_path: Path, labels: Callable[[int], str], text_: str):
    for number in range(1, 10):
        picture(tmp_path / f"images/{number}.png")
        text(tmp_path / f"labels/{number}.txt", labels(number))
    with pytest.raises(DataSetError) as caught:
        load_data_set(text(tmp_path / "data.yaml", "train: images\nnames: [cat]"))
    assert len(caught.value.faults) == 1 and text_ in str(caught.value)


def test_what_is_faulty_is_left_out_and_listed(tmp_path: Path):
    for number in range(3):
        picture(tmp_path / f"images/{number}.png")
        text(tmp_path / f"labels/{number}.txt", "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "labels/0.txt", "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.1 0.1\n0 0.5 nan 0.1 0.1\n0 0.9 0.5 0.6 0.5\n")
    text(tmp_path / "images/1.png", "no picture")
    yaml = text(tmp_path / "data.yaml", "train: images\nnames: [cat]")
    with pytest.raises(
        DataSetError, match=r"4 faults in this data set; correct every one, or leave out what is faulty"
    ):
        load_data_set(yaml)
    loaded = load_data_set(yaml, skip_faulty=True)
    assert [(file.path.name, len(file.class_ids)) for file in loaded.train] == [("0.png", 1), ("2.png", 1)]
    assert [line.removeprefix(f"{tmp_path}/").partition(";")[0] for line in loaded.skipped] == [
        "labels/0.txt:2: class 7",
        "labels/0.txt:3: cy is 'nan'",
        "labels/0.txt:4: the box goes from 0.6 to 1.2 in x",
        "images/1.png: not a picture that OpenCV can read, or damaged",
    ]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_the_size_of_a_picture_is_what_it_decodes_to(tmp_path: Path, suffix: str):
    size = picture_size(picture(tmp_path / f"a{suffix}", (37, 51)))
    assert (size.image_hw, size.is_turned) == ((37, 51), False)
