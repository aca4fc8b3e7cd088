"""Generated pictures on disk: a data set in YOLO's text format, and its validation part as COCO instances."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.errors import OutputError
from yolov3_trt.shapes import SHAPE_NAMES, shapes_picture

cv2 = pytest.importorskip("cv2")


def test_a_data_set_holds_the_pictures_and_their_labels(tmp_path):
    description = write_shapes_data_set(tmp_path / "set", num_train=4, num_val=6, seed=11)
    assert description == tmp_path / "set" / "data.yaml"
    names = "".join(f"  {class_id}: {name}\n" for class_id, name in enumerate(SHAPE_NAMES))
    assert description.read_text() == f"train: images/train\nval: images/val\nnames:\n{names}"
    for part, seed, count in (("train", 11, 4), ("val", 12, 6)):
        images, labels = description.parent / "images" / part, description.parent / "labels" / part
        stems = [f"{index:06}" for index in range(count)]
        assert sorted(path.name for path in images.iterdir()) == [f"{s}.jpg" for s in stems]
        assert sorted(path.name for path in labels.iterdir()) == [f"{s}.txt" for s in stems]
        for index, stem in enumerate(stems):
            picture = shapes_picture(seed, index)
            pixels = cv2.imread(str(images / f"{stem}.jpg"))
            assert pixels.shape == picture.pixels.shape
            assert np.abs(pixels.astype(int) - picture.pixels).mean() < 8
            text = (labels / f"{stem}.txt").read_text()
            rows = np.array([line.split() for line in text.splitlines()], float).reshape(-1, 5)
            assert_array_equal(rows[:, 0], picture.class_ids)
            centres, halves = rows[:, 1:3], rows[:, 3:] / 2
            scale = np.tile(pixels.shape[1::-1], 2)
            assert_allclose(np.hstack([centres - halves, centres + halves]) * scale, picture.xyxy, atol=1e-3)


def test_the_coco_file_agrees_with_the_validation_pictures(tmp_path):
    write_shapes_data_set(tmp_path, num_train=1, num_val=6, seed=11)
    content = json.loads((tmp_path / "val.json").read_text())
    assert content["categories"] == [{"id": n + 1, "name": name} for n, name in enumerate(SHAPE_NAMES)]
    assert [annotation["id"] for annotation in content["annotations"]] == [*range(1, len(content["annotations"]) + 1)]
    assert [image["id"] for image in content["images"]] == [*range(1, 7)]
    for index, image in enumerate(content["images"]):
        picture = shapes_picture(12, index)
        assert image["file_name"] == f"{index:06}.jpg" and (tmp_path / "images" / "val" / image["file_name"]).is_file()
        assert (image["height"], image["width"]) == picture.pixels.shape[:2]
        own = [annotation for annotation in content["annotations"] if annotation["image_id"] == image["id"]]
        assert [annotation["category_id"] - 1 for annotation in own] == picture.class_ids.tolist()
        xywh = np.array([annotation["bbox"] for annotation in own]).reshape(-1, 4)
        assert_array_equal(np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]), picture.xyxy)
        assert_array_equal([annotation["area"] for annotation in own], xywh[:, 2] * xywh[:, 3])
        assert not any(annotation["iscrowd"] for annotation in own)


def test_an_interrupted_data_set_has_no_description_and_the_next_leaves_nothing_of_it(tmp_path):
    description = write_shapes_data_set(tmp_path, num_train=3, num_val=1, seed=1)

    def interrupted(numbers):
        yield next(iter(numbers))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shapes_data_set(tmp_path, num_train=3, num_val=1, seed=1, progress=interrupted)
    assert not description.exists()
    (tmp_path / "images" / "train" / "mine.jpg").touch()
    seen = []
    write_shapes_data_set(
        tmp_path, num_train=1, num_val=1, seed=1, progress=lambda numbers: seen.extend(numbers) or seen
    )
    assert seen == [0, 1]
    assert sorted(path.name for path in (tmp_path / "images" / "train").iterdir()) == ["000000.jpg", "mine.jpg"]
    assert description.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "set").touch()
    with pytest.raises(OutputError, match="set/images/train: cannot create this folder"):
        write_shapes_data_set(tmp_path / "set", num_train=1, num_val=1, seed=1)
    (tmp_path / "images" / "train" / "000000.jpg").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot write here .*; give a writable folder"):
        write_shapes_data_set(tmp_path, num_train=1, num_val=1, seed=1)
