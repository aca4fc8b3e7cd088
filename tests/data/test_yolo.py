"""Data sets in YOLO format: every form that users have, and every fault with its file and line."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from yolov3_trt.data.checking import check_set
from yolov3_trt.data.labelled import DataSet
from yolov3_trt.data.reading import load_data_set, load_set, pictures_of_split
from yolov3_trt.errors import DataSetError

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
BOX = "0 0.5 0.5 0.5 0.5\n"


def write(path: Path, content: str | bytes = "") -> Path:
    """A text file, or a picture of 6 x 8 px where nothing is given for a .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png" and not content:
        assert cv2.imwrite(str(path), np.full((6, 8, 3), 90, np.uint8))
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def data_set(folder: Path, labels: str | bytes = BOX, yaml: str | bytes = YAML) -> Path:
    """A data set of one picture in train, with these labels, and one in val."""
    for split, text in (("train", labels), ("val", BOX)):
        write(folder / "images" / split / "a.png")
        write(folder / "labels" / split / "a.txt", text)
    return write(folder / "data.yaml", yaml)


def faults(path: Path) -> list[str]:
    """The faults of a data set, without the folder of its yaml."""
    with pytest.raises(DataSetError) as caught:
        load_data_set(path)
    found = caught.value.faults
    assert found[0] in str(caught.value) and (len(found) == 1 or f"{len(found)} faults" in str(caught.value))
    return [fault.replace(f"{path.parent}/", "") for fault in caught.value.faults]


def names(files: Iterable) -> list[str]:
    return [file.path.name for file in files]


def notes(loaded: DataSet) -> list[str]:
    return [note.replace(f"{loaded.path.parent}/", "") for note in loaded.notes]


# --- forms ---


def test_labels_sizes_and_names_are_read_as_written(tmp_path: Path):
    loaded = load_data_set(data_set(tmp_path, "1 0.25 0.5 0.5 0.25\n\n0 0.1 0.2 0.05 0.0625"))
    assert (loaded.path, loaded.class_names, loaded.notes) == (tmp_path / "data.yaml", ("cat", "dog"), ())
    (file,) = loaded.train
    assert (file.path, file.image_hw) == (tmp_path / "images/train/a.png", (6, 8))
    assert (file.cxcywh.dtype, file.class_ids.dtype) == (np.float32, np.int32)
    assert_array_equal(file.cxcywh, np.array([[0.25, 0.5, 0.5, 0.25], [0.1, 0.2, 0.05, 0.0625]], np.float32))
    assert_array_equal(file.class_ids, [1, 0])
    assert names(loaded.val) == ["a.png"]


@pytest.mark.parametrize(
    "yaml",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: {1: dog, 0: cat}\nnc: 2",
        "train: ./images/train/\nvalid: images/val\nnames:\n  - cat\n  - dog\ntest: nowhere\ndownload: https://example.com",
        "train: ../images/train\nval: ../images/val\nnames: ['cat', 'dog']\nroboflow: {license: x}",
        "train: [images/train]\nval: [images/val]\nnames: [cat, dog]",
        "\ufefftrain: images/train\r\nval: images/val\r\nnames: [cat, dog]\r\n",
        "train: train.txt\nval: lists/val.txt\nnames: [cat, dog]",
        "path: lists/..\ntrain: train.txt\nval: lists/val.txt\nnames: [cat, dog]",
    ],
)
def test_all_forms_of_the_yaml_mean_the_same(tmp_path: Path, yaml: str):
    expected = load_data_set(data_set(tmp_path))
    write(tmp_path / "train.txt", "./images/train/a.png\n\n")
    write(tmp_path / "lists" / "val.txt", "images/val/a.png\r\n")  # from the root, as it is not in lists
    loaded = load_data_set(write(tmp_path / "data.yaml", yaml))
    assert loaded.fingerprint == expected.fingerprint
    from_root = [f"lists/val.txt: 1 name counts from {tmp_path}, the set's folder"]
    assert notes(loaded) == (from_root if "lists/val.txt" in yaml else [])


def test_paths_may_be_absolute_and_the_root_elsewhere(tmp_path: Path):
    data_set(tmp_path / "d")
    yaml = write(tmp_path / "yamls" / "d.yaml", f"path: ../d\ntrain: {tmp_path}/d/images/train\nnames: [cat, dog]")
    loaded = load_data_set(yaml)
    assert [file.path for file in loaded.train] == [tmp_path / "d/images/train/a.png"]
    assert loaded.val == ()
    yaml.write_text("path: ../d\ntrain: images/train\nval:\nnames: [cat, dog]")
    assert load_data_set(yaml).fingerprint == loaded.fingerprint


def test_a_relative_yaml_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data_set(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_data_set(Path("data.yaml")).train[0].path == tmp_path / "images/train/a.png"


def test_folders_are_searched_to_the_bottom_and_files_sorted(tmp_path: Path):
    data_set(tmp_path)
    folder = tmp_path / "images/train"
    for name in ("z/b.png", "B.png", "z/y/c.png", ".hidden/d.png", "._a.png"):
        write(folder / name)
    (folder / "ignored.md").write_text("x")
    (folder / "z" / "up").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "images/val")
    files = load_data_set(tmp_path / "data.yaml").train
    assert [str(file.path.relative_to(folder)) for file in files] == [
        "B.png",
        "a.png",
        "linked/a.png",
        "z/b.png",
        "z/y/c.png",
    ]


def test_several_entries_are_joined_and_a_picture_counts_once(tmp_path: Path):
    data_set(tmp_path)
    write(tmp_path / "more.txt", "./images/train/a.png\nimages/val/a.png")
    yaml = write(tmp_path / "data.yaml", "train: [more.txt, images/train]\nval: images/val\nnames: [cat, dog]")
    loaded = load_data_set(yaml)
    assert [file.path.parent.name for file in loaded.train] == ["train", "val"]
    assert notes(loaded) == [
        "data.yaml: train: pictures named more than once: 1; each counts once",
        "data.yaml: pictures in both train and val: 1 (images/val/a.png); val then says little",
    ]


@pytest.mark.parametrize(
    ("picture", "label"),
    [
        ("images/images/a.png", "images/labels/a.txt"),  # the last of them
        ("train/a.png", "train/a.txt"),
        ("images/deep/a.png", "labels/deep/a.txt"),
        ("images/a.png", "images/a.txt"),  # nothing in labels/
    ],
)
def test_labels_lie_in_labels_or_beside_the_picture(tmp_path: Path, picture: str, label: str):
    write(tmp_path / picture)
    write(tmp_path / label, BOX)
    yaml = write(tmp_path / "data.yaml", f"train: {picture.partition('/')[0]}\nnames: [cat]")
    assert_array_equal(load_data_set(yaml).train[0].class_ids, [0])


def test_pictures_without_objects_are_background_and_noted(tmp_path: Path):
    data_set(tmp_path)
    for name in "bcde":
        write(tmp_path / f"images/train/{name}.png")
    write(tmp_path / "images/train/f.png")
    write(tmp_path / "labels/train/f.txt", "\n")
    loaded = load_data_set(tmp_path / "data.yaml")
    assert [len(file.class_ids) for file in loaded.train] == [1, 0, 0, 0, 0, 0]
    assert loaded.train[1].cxcywh.shape == (0, 4)
    assert notes(loaded) == [
        "pictures without a label file: 4 (images/train/b.png, images/train/c.png, images/train/d.png, ...); they count as "
        "background",
        "labels/train/f.txt:1: is empty; its picture counts as background",
    ]


def test_polygons_become_their_bounding_boxes(tmp_path: Path):
    loaded = load_data_set(data_set(tmp_path, BOX + "1 0.5 0.2 0.9 0.6 0.1 0.4\n"))
    assert_allclose(loaded.train[0].cxcywh[1], [0.5, 0.4, 0.8, 0.4], rtol=1e-6)
    assert notes(loaded) == ["polygons: 1 (labels/train/a.txt:2); their bounding boxes are taken"]


def test_repeated_lines_are_dropped_and_noted(tmp_path: Path):
    loaded = load_data_set(data_set(tmp_path, BOX + "1 0.5 0.5 0.5 0.5\n" + BOX))
    assert_array_equal(loaded.train[0].class_ids, [0, 1])
    assert notes(loaded) == ["lines that repeat another of their file: 1 (labels/train/a.txt:3); dropped"]


def test_boxes_that_stick_out_by_rounding_are_clipped(tmp_path: Path):
    text = "0 0.25 0.5 0.5002 1.001\n1 0.9 0.5 0.2 0.2\n0 1.0 0.9 0.002 0.1\n1.0 0.5005 0.5 1.0 0.5"
    (file,) = load_data_set(data_set(tmp_path, text)).train
    expected = [[0.25005, 0.5, 0.5001, 1], [0.9, 0.5, 0.2, 0.2], [0.9995, 0.9, 0.001, 0.1], [0.50025, 0.5, 0.9995, 0.5]]
    assert_allclose(file.cxcywh, expected, atol=1e-6)
    assert_array_equal(file.class_ids, [0, 1, 0, 1])


def test_progress_sees_every_picture_once(tmp_path: Path):
    seen: list[Path] = []

    def progress(pictures: Iterable[Path]) -> Iterable[Path]:
        for picture in pictures:
            yield picture
            seen.append(picture)

    load_data_set(data_set(tmp_path), progress)
    assert seen == [tmp_path / "images/train/a.png", tmp_path / "images/val/a.png"]


# --- faults ---

WRONG = "expected 5 (class cx cy w h), or a class and the x y of 3 points or more"
PLACES = "expected a picture, from this list's folder, the set's, one above that, or the working directory"
FRACTION = "expected 0..1, a fraction of the picture's width or height"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0 0.5 0.5 0.5", f"4 values; {WRONG}"),
        ("0", f"1 value; {WRONG}"),
        ("0 0.5 0.5 0.5 0.5 0.9", f"6 values; {WRONG}"),
        ("2 0.5 0.5 0.5 0.5", "class 2; expected 0..1 (2 names in data.yaml)"),
        ("-1 0.5 0.5 0.5 0.5", "class -1; expected 0..1 (2 names in data.yaml)"),
        ("0.5 0.5 0.5 0.5 0.5", "class '0.5'; expected a whole number"),
        ("cat 0.5 0.5 0.5 0.5", "class 'cat'; expected a whole number"),
        ("0 0.5 0,5 0.5 0.5", "cy is '0,5'; expected a number"),
        ("0 0.5 0.5 nan 0.5", "w is 'nan'; expected a number"),
        ("0 0.5 0.5 0.5 inf", "h is 'inf'; expected a number"),
        ("0 0.5 0.5 0.5 0_5", "h is '0_5'; expected a number"),
        ("0 120 0.5 0.5 0.5", f"cx is 120; {FRACTION}"),
        ("0 0.5 0.5 0.5 -0.5", f"h is -0.5; {FRACTION}"),
        ("0 0.1 0.2 0.3 0.4 0.5 1.5", f"y3 is 1.5; {FRACTION}"),
        ("0 0.1 0.5 0.5 0.5", "the box goes from -0.15 to 0.35 in x; expected 0..1, inside the picture"),
        ("0 0.5 0.9 0.5 0.24", "the box goes from 0.78 to 1.02 in y; expected 0..1, inside the picture"),
        ("0 0.5 0.5 0 0.5", "the box has no width; expected more than 0"),
        ("0 0.5 0.5 0.5 0.0", "the box has no height; expected more than 0"),
        ("0 1.0005 0.5 0.0001 0.5", "the box has no width; expected more than 0"),
        ("0 0.1 0.2 0.5 0.2 0.3 0.2", "the box has no height; expected more than 0"),
    ],
)
def test_a_fault_in_a_line_names_file_and_line(tmp_path: Path, line: str, fault: str):
    assert faults(data_set(tmp_path, f"{BOX}\n{line}\n")) == [f"labels/train/a.txt:3: {fault}"]


@pytest.mark.parametrize(
    ("yaml", "fault"),
    [
        ("train: a\n  b: [\n", "data.yaml:2: not YAML (mapping values are not allowed here); expected a data.yaml"),
        ("day: 2024-13-45", "data.yaml: not YAML (month must be in 1..12); expected a data.yaml"),
        (b"names: [a]\ntrain: caf\xe9", "data.yaml:2: byte 0xe9 is not UTF-8 text; expected a data.yaml"),
        ("", "data.yaml: None is not a mapping; expected a data.yaml with train:, val: and names:"),
        ("- a\n- b", "data.yaml: ['a', 'b'] is not a mapping; expected a data.yaml with train:, val: and names:"),
        ("train: images/train", "data.yaml: names: is missing; expected a list of class names, or numbers from 0 to names"),
        (
            "train: images/train\nnames: {1: cat, 2: dog}",
            "data.yaml: names: is {1: 'cat', 2: 'dog'}; expected a list of class names, or numbers from 0 to names",
        ),
        ("train: images/train\nnames: [cat, no]", "data.yaml: names: class 1 is False; expected text, put it in quotes"),
        ("train: images/train\nnames: ['']", "data.yaml: names: class 0 is ''; expected text, put it in quotes"),
        ("train: images/train\nnames: [a, b, a]", "data.yaml: names: classes 0 and 2 are both 'a'; rename one of them"),
        ("train: images/train\nnames: [a]\nnc: 3", "data.yaml: nc: is 3; expected 1, the number of names, or no nc:"),
        ("names: [a]", "data.yaml: train: is missing; expected a folder of pictures, a .txt list of them, or several"),
        ("train: 7\nnames: [a]", "data.yaml: train: is 7; expected a folder of pictures, a .txt list of them, or several"),
        (
            "train: [images/train, 3]\nnames: [a]",
            "data.yaml: train: is ['images/train', 3]; expected a folder of pictures, a .txt list of them, or several",
        ),
        ("path: 3\ntrain: x\nnames: [a]", "data.yaml: path: 3 is no folder; give one from FOLDER, or no path: for that"),
        ("train: ../gone\nnames: [a]", "data.yaml: train: '../gone' is not there; expected a folder or .txt list in FOLDER"),
        ("train: data.yaml\nnames: [a]", "data.yaml: train: data.yaml is neither a folder nor a .txt list of pictures"),
        ("train: images/train\nval: labels\nnames: [a]", "data.yaml: val: no pictures in labels; expected .bmp, .jpeg, .jpg, "
         ".png, .tif, .tiff, .webp"),
        ("train: bad.txt\nnames: [a]", "data.yaml: train: no pictures in bad.txt; expected .bmp, .jpeg, .jpg, .png, .tif, "
         ".tiff, .webp"),
        ("train: \"images/tr\\0in\"\nnames: [a]", "data.yaml: train: 'images/tr\\x00in' is not there; expected a folder or "
         ".txt list in FOLDER"),
    ],
)  # fmt: skip
def test_a_fault_in_the_yaml_says_what_is_expected(tmp_path: Path, yaml: str | bytes, fault: str):
    data_set(tmp_path, yaml=yaml)
    write(tmp_path / "bad.txt", "\n")
    assert faults(tmp_path / "data.yaml") == [fault.replace("FOLDER", str(tmp_path))]


@pytest.mark.parametrize(
    "tag", ["!!bool x", "!!int ''", "!!timestamp x", "!!float x", "!!python/object/apply:os.system [ls]"]
)
def test_an_odd_yaml_tag_is_a_fault_and_not_a_traceback(tmp_path: Path, tag: str):
    (fault,) = faults(data_set(tmp_path, yaml=f"train: {tag}"))
    assert fault.startswith("data.yaml:") and "not YAML" in fault


def test_a_set_without_pictures_is_not_good(tmp_path: Path):
    path = data_set(tmp_path, yaml="trian: images/train\nnames: [cat, dog]")
    with pytest.raises(DataSetError, match=r"data.yaml: no pictures in train, val, test; expected some in one of them"):
        check_set(path)
    path.write_text("train: images/train\nnames: [cat, dog]")
    (tmp_path / "images/train/a.png").write_text("no picture")
    with pytest.raises(DataSetError) as caught:
        check_set(path)
    assert [fault.partition("; ")[0] for fault in caught.value.faults] == [
        f"{path}: no pictures in train, val, test",
        f"{tmp_path}/images/train/a.png: not a picture that OpenCV can read, or damaged",
    ]


def test_a_missing_yaml_is_a_fault(tmp_path: Path):
    assert faults(tmp_path / "data.yaml") == [
        "data.yaml: cannot be read (No such file or directory); expected a data.yaml"
    ]


def test_a_list_names_the_line_of_a_missing_picture(tmp_path: Path):
    data_set(tmp_path, yaml="train: train.txt\nnames: [cat]")
    write(tmp_path / "train.txt", "./images/train/a.png\n\nimages/train/gone.png\nimages\n")
    assert faults(tmp_path / "data.yaml") == [
        f"train.txt:3: 'images/train/gone.png' is not there; {PLACES}",
        f"train.txt:4: 'images' is not there; {PLACES}",
    ]
    write(tmp_path / "train.txt", b"./images/train/a.png\n\xff\n")
    assert faults(tmp_path / "data.yaml")[0] == "train.txt:2: byte 0xff is not UTF-8 text; expected a list of pictures"


def test_a_label_file_that_cannot_be_read_is_a_fault(tmp_path: Path):
    data_set(tmp_path, b"\xef\xbb\xbf" + BOX.encode() + b"\n0 0.5 \xb0\n")
    (tmp_path / "labels/val/a.txt").unlink()
    (tmp_path / "labels/val/a.txt").symlink_to("gone.txt")
    assert faults(tmp_path / "data.yaml") == [
        "labels/train/a.txt:3: byte 0xb0 is not UTF-8 text; expected labels",
        "labels/val/a.txt: cannot be read (No such file or directory); expected labels",
    ]


def test_a_picture_that_cannot_be_decoded_is_a_fault(tmp_path: Path):
    data_set(tmp_path)
    write(tmp_path / "images/train/a.png", b"no picture")
    assert faults(tmp_path / "data.yaml") == ["images/train/a.png: not a picture that OpenCV can read, or damaged"]


def test_training_pictures_without_any_label_are_a_fault(tmp_path: Path):
    data_set(tmp_path)
    shutil.move(tmp_path / "labels/train", tmp_path / "lables")
    assert faults(tmp_path / "data.yaml") == [
        "data.yaml: train: none of its pictures (1) has a label; expected e.g. labels/train/a.txt"
    ]


def test_all_faults_are_told_at_once_in_order(tmp_path: Path):
    yaml = "train: [images/train, gone]\nval: val.txt\nnames: [cat, dog, off]\nnc: 2"
    data_set(tmp_path, "-1 0.5 0.5 0.5 0.5\nx 0.5 0.5 0.5 y\n0 0.5\n9 0.5 0.5 0.5 0.5", yaml)
    write(tmp_path / "images/train/b.png", b"no picture")
    write(tmp_path / "labels/train/b.txt", b"\x80")
    write(tmp_path / "val.txt", "images/val/a.png\nimages/val/gone.png")
    write(tmp_path / "labels/val/a.txt", "0 0.5 0.5 0.5 0")
    write(tmp_path / "images/val/a.png", b"no picture")
    texts = faults(tmp_path / "data.yaml")
    assert [text.partition(";")[0] for text in texts] == [
        "data.yaml: names: class 2 is False",
        "data.yaml: nc: is 2",
        "data.yaml: train: 'gone' is not there",
        "val.txt:2: 'images/val/gone.png' is not there",
        "labels/train/a.txt:1: class -1",
        "labels/train/a.txt:2: class 'x'",
        "labels/train/a.txt:2: h is 'y'",
        "labels/train/a.txt:3: 2 values",
        "labels/train/b.txt:1: byte 0x80 is not UTF-8 text",
        "labels/val/a.txt:1: the box has no height",
        "images/train/b.png: not a picture that OpenCV can read, or damaged",
        "images/val/a.png: not a picture that OpenCV can read, or damaged",
    ]
    assert "class -1; expected 0 or more" in texts[4]  # nobody knows how many there are
    assert all("\n" not in text for text in texts)


# --- what is made of it ---


def test_fingerprint_tells_contents_but_not_the_folder(tmp_path: Path):
    path = data_set(tmp_path / "one")
    before = load_data_set(path).fingerprint
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert load_data_set(tmp_path / "two" / "data.yaml").fingerprint == before
    label = tmp_path / "one/labels/train/a.txt"
    changes = {"box": "0 0.5 0.5 0.5 0.51", "class": "1 0.5 0.5 0.5 0.5", "more": BOX + "0 0.2 0.2 0.1 0.1"}
    prints = {before}
    for text in changes.values():
        label.write_text(text)
        prints.add(load_data_set(path).fingerprint)
    label.write_text(BOX)
    path.write_text(YAML.replace("dog", "cow"))
    prints.add(load_data_set(path).fingerprint)
    path.write_text(YAML.replace("images/val", "images/train"))
    prints.add(load_data_set(path).fingerprint)
    path.write_text(YAML)
    assert load_data_set(path).fingerprint == before
    write(tmp_path / "one/images/val/b.png")
    prints.add(load_data_set(path).fingerprint)
    assert len(prints) == 1 + len(changes) + 3


def test_annotations_are_coco_instances_in_image_px(tmp_path: Path):
    data_set(tmp_path, "1 0.25 0.5 0.5 0.5\n0 0.75 0.75 0.25 0.5")
    write(tmp_path / "images/train/b.png")
    loaded = load_data_set(tmp_path / "data.yaml")
    truth = load_set(tmp_path / "data.yaml", "train").truth_for(loaded.class_names)
    content = truth.content
    assert content["images"] == [
        {"id": 1, "file_name": "images/train/a.png", "height": 6, "width": 8},
        {"id": 2, "file_name": "images/train/b.png", "height": 6, "width": 8},
    ]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert content["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [0.0, 1.5, 4.0, 3.0], "area": 12.0, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [5.0, 3.0, 2.0, 3.0], "area": 6.0, "iscrowd": 0},
    ]
    assert truth.paths == {1: tmp_path / "images/train/a.png", 2: tmp_path / "images/train/b.png"}


def test_a_split_is_read_alone(tmp_path: Path):
    path = data_set(tmp_path, "0 2 2 2 2", YAML + "test: images/test\n")  # the labels of train are at fault
    write(tmp_path / "images/test/t.png")
    write(tmp_path / "labels/test/t.txt", BOX)
    assert names(load_set(path, "val").files) == ["a.png"]
    assert load_set(path, "test").paths == pictures_of_split(path, "test")[1] == (tmp_path / "images/test/t.png",)
    assert pictures_of_split(path, "train")[1] == (tmp_path / "images/train/a.png",)  # labels are not looked at
    with pytest.raises(DataSetError):
        load_set(path, "train")


@pytest.mark.parametrize(
    "split, fault",
    [
        ("test", "data.yaml: test: is missing; expected a folder of pictures, a .txt list of them, or several"),
        ("dev", "data.yaml: there is no split 'dev'; expected one of train, val, test"),
    ],
)
def test_a_split_that_is_not_there_is_refused(tmp_path: Path, split: str, fault: str):
    path = data_set(tmp_path)
    for read in (load_set, pictures_of_split):
        with pytest.raises(DataSetError) as caught:
            read(path, split)
        assert caught.value.faults == (f"{tmp_path}/{fault}",)
