"""COCO JSONs of all tools: read as they are meant, or refused with the number and the field of what is wrong."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolov3_trt.data import labelled_set
from yolov3_trt.data.classes import match_classes
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.reading import load_data_set
from yolov3_trt.errors import DataSetError, EvaluationError

Change = Callable[[dict[str, Any]], object]
NAMES = ("cat", "dog", "owl")
CONTENT: dict[str, Any] = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 80, "height": 60} for n in range(1, 5)],
    "annotations": [
        {
            "id": n,
            "image_id": n % 4 + 1,
            "category_id": n % 3 + 5,
            "bbox": [n, 2 * n, 20, 30 - n],
            "area": 9,
            "iscrowd": 0,
        }
        for n in range(12)
    ],
    "categories": [{"id": n + 5, "name": name} for n, name in enumerate(NAMES)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    for number in range(1, 5):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((60, 80, 3), 9 * number, np.uint8))
    cv2.imwrite(str(folder.parent / "outside.png"), np.zeros((60, 80, 3), np.uint8))
    return folder


def read(folder: Path, change: Change, **options: Any) -> LabelledSet:
    content = copy.deepcopy(CONTENT)
    change(content)
    path = folder / "set.json"
    path.write_text(json.dumps(content))
    return labelled_set(path, **options)


def of(part: str, number: int, **values: Any) -> Change:
    """Changes one entry; ... deletes a key."""

    def change(content: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is ...:
                del content[part][number][key]
            else:
                content[part][number][key] = value

    return change


def boxes(found: LabelledSet) -> list[Any]:
    return [[file.xywh.tolist(), file.class_ids.tolist()] for file in found.files]


@pytest.mark.parametrize(
    "change, note",
    [
        (lambda content: None, None),
        (of("annotations", 3, image_id="4", bbox=["3", "6", "20", "27"]), "numbers that are written as texts: 1"),
        (lambda content: [row.update(id="a") for row in content["annotations"]], None),
        (of("annotations", 3, area=0), "annotations without an area: 1"),
        (of("annotations", 3, area=...), "annotations without an area: 1"),
        (of("annotations", 3, iscrowd=False, id=...), None),
        (of("images", 0, width=..., height=None), None),
        (of("images", 0, file_name="images\\1.PNG"), "by the last part of their names: 1, e.g. 1.png for"),
        (of("images", 0, file_name="%2Fdata%2F1.png"), "by the last part of their names: 1"),
        (of("images", 0, file_name="/elsewhere/1"), "by the last part of their names: 1"),
        (
            lambda content: content["annotations"].append(dict(content["annotations"][0])),
            "repeat another: 1 (annotations[12])",
        ),
    ],
)
def test_what_is_meant_is_read(folder: Path, change: Change, note: str | None):
    found = read(folder, change)
    assert boxes(found) == boxes(read(folder, lambda content: None))
    assert (note or "") in " ".join(found.notes) and len(found.notes) == (note is not None)


@pytest.mark.parametrize(
    "change, fault",
    [
        (of("annotations", 3, bbox=[float("nan")] * 4), "annotations[3].bbox: [nan, nan, nan, nan]; expected x, y, width and"),
        (of("annotations", 3, bbox=[1, 2, -3, 4]), "annotations[3].bbox: [1, 2, -3, 4]; expected"),
        (of("annotations", 3, bbox=[]), "annotations[3].bbox: []; expected"),
        (of("annotations", 3, bbox=...), "annotations[3].bbox: is missing; expected"),
        (of("annotations", 3, bbox=[1, 2, 10**400, 4]), "annotations[3].bbox: [1, 2, 1000"),
        (of("annotations", 3, bbox=[70, 2, 20, 4]), "annotations[3]: the box goes from 70 to 90 px in x; expected 0..80"),
        (of("annotations", 3, area=10**400), "annotations[3].area: 1000"),
        (of("annotations", 3, area=-1), "annotations[3].area: -1; expected px"),
        (of("annotations", 3, iscrowd=2**31), "annotations[3].iscrowd: 2147483648; expected 0 or 1"),
        (of("annotations", 3, image_id=[1]), "annotations[3].image_id: [1]; expected a whole number"),
        (of("annotations", 3, image_id=99), "annotations[3].image_id: 99 is no id of an image of this file"),
        (of("annotations", 3, category_id="x"), "annotations[3].category_id: 'x' is no id of a category of this file"),
        (of("categories", 1, id=float("inf")), "categories[1].id: inf; expected a whole number"),
        (of("categories", 1, id=5), "categories[1].id: 5 is that of categories[0] too"),
        (of("categories", 1, name=" owl "), "categories[2].name: 'owl' is that of categories[1] too; rename one"),
        (of("categories", 1, name=7), "categories[1].name: 7; expected text"),
        (of("images", 1, file_name=7), "images[1].file_name: 7; expected text"),
        (of("images", 1, id=1), "images[1].id: 1 is that of images[0] too"),
        (of("images", 1, file_name="./1.png"), "images[1].file_name: './1.png' is that of images[0] too"),
        (of("images", 1, file_name="../outside.png"), "1 of the 4 images of set.json are not there, e.g. '../outside.png'"),
        (of("images", 1, width=800), "annotations say, e.g. 2.png is 80x60 px and was labelled at 800x60"),
        (lambda content: content.pop("categories"), "'categories' is missing; expected COCO annotations"),
        (lambda content: content.update(annotations=[]), "none of its pictures (4) has a label"),
        (lambda content: content.update(images={}), "images: {}; expected a list"),
    ],
)  # fmt: skip
def test_a_fault_names_its_entry_and_field(folder: Path, change: Change, fault: str):
    with pytest.raises(DataSetError) as caught:
        read(folder, change)
    assert fault in caught.value.faults[0] and caught.value.faults[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_faulty_is_left_out_where_that_is_asked_for(folder: Path):
    def change(content: dict[str, Any]) -> None:
        content["annotations"][3]["bbox"] = [float("nan")] * 4
        content["images"][0]["width"] = 800  # annotations 0, 4 and 8 are its

    found = read(folder, change, skip_faulty=True)
    assert [file.path.name for file in found.files] == ["2.png", "3.png", "4.png"]
    assert sum(found.objects) == 8 and len(found.skipped) == 2


@pytest.mark.parametrize(
    "kind, text",
    [
        (lambda x, y, w, h: [x / 80, y / 60, w / 80, h / 60], "all 12 boxes lie within 0..1: fractions of the picture"),
        (lambda x, y, w, h: [x + 40, y, x + w + 39, y + h], "and fit as x1, y1, x2, y2; expected the former"),
    ],
)
def test_boxes_of_another_kind_are_told_at_once(folder: Path, kind: Callable[..., list[float]], text: str):
    def change(content: dict[str, Any]) -> None:
        for row in content["annotations"]:
            row["bbox"] = kind(*row["bbox"])

    with pytest.raises(DataSetError, match=r"set.json: .*boxes") as caught:
        read(folder, change)
    assert len(caught.value.faults) == 1 and text in str(caught.value)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_that_exif_turns_are_told(tmp_path: Path, orientation: int):
    good, jpeg = cv2.imencode(".jpg", np.zeros((60, 80, 3), np.uint8))
    ifd = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + orientation.to_bytes(4, "little") + bytes(4)
    exif = b"Exif\0\0" + ifd
    content = jpeg.tobytes()
    for number in range(1, 5):
        (tmp_path / f"{number}.png").write_bytes(
            content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]
        )
    assert good and cv2.imread(str(tmp_path / "1.png")).shape == ((80, 60, 3) if orientation > 4 else (60, 80, 3))
    if orientation < 5:
        assert len(read(tmp_path, lambda content: None)) == 4
        return
    with pytest.raises(DataSetError, match=r"4 pictures are not of the size .* 4 are turned by their EXIF orientation"):
        read(tmp_path, lambda content: None)


# --- classes ---


@pytest.mark.parametrize(
    "set_names, ids, notes",
    [
        (("cat", "dog", "owl"), (0, 1, 2), []),
        (("OWL", "Cat ", "d_o-g"), (1, 2, 0), []),  # folded, another order
        (("a", "b", "c"), (0, 1, 2), ["by order (the model's = the set's): cat=a, dog=b, owl=c"]),
        (("cat", "hound", "owl"), (0, 1, 2), ["by name, and these by order (the model's = the set's): dog=hound"]),
        (
            ("bee", "cat", "dog", "owl"),
            (1, 2, 3),
            ["1 class of this set (bee; 9 objects) the model does not have; left out"],
        ),
        (("owl",), (None, None, 0), ["2 classes of the model are not in this set (cat, dog)"]),
        (("Cat", "cat", "dog", "owl"), (1, 2, 3), ["(Cat; 9 objects)"]),
    ],
)
def test_classes_go_by_name_and_by_order_only_where_no_name_says_otherwise(set_names, ids, notes):
    match = match_classes(Path("s"), set_names, [9] * len(set_names), NAMES)
    assert match.set_ids == ids and len(match.notes) == len(notes)
    assert all(text in note for text, note in zip(notes, match.notes, strict=True))


@pytest.mark.parametrize("set_names", [("dog", "cat", "donut"), ("a", "b"), ("a", "b", "c", "d")])
def test_classes_that_contradict_are_refused(set_names):
    with pytest.raises(EvaluationError, match=r"s: .*expected the same name"):
        match_classes(Path("s"), set_names, [9] * len(set_names), NAMES)


def test_a_picture_in_two_parts_is_noted_and_has_the_same_labels_in_both(folder: Path, tmp_path: Path):
    (tmp_path / "images").symlink_to(folder)
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(CONTENT))
    assert any("pictures in both train and val: 4 " in note for note in load_data_set(tmp_path).notes)
    content = copy.deepcopy(CONTENT)
    content["annotations"][1]["bbox"][0] += 1
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(DataSetError, match=r"in several parts with other labels in each: 1 \(.*/2.png\); expected"):
        load_data_set(tmp_path)
    assert len(labelled_set(tmp_path, split="val")) == 4  # it alone is no contradiction


def test_cocos_words_are_darknets():
    match = match_classes(
        Path("s"), ("airplane", "couch", "TV", "motorcycle"), [1] * 4, ("tvmonitor", "sofa", "aeroplane", "motorbike")
    )
    assert match.set_ids == (2, 1, 0, 3) and not match.notes


def test_only_the_classes_that_both_have_are_scored(folder: Path):
    truth = read(folder, lambda content: None).truth_for(("owl", "fish", "dog", "bat"))
    assert truth.category_ids == (1, None, 3, None)
    assert [row["id"] for row in truth.content["categories"]] == [1, 3]
    assert sorted({row["category_id"] for row in truth.content["annotations"]}) == [1, 3]
    assert len(truth.content["annotations"]) == 8 and len(truth.notes) == 2
