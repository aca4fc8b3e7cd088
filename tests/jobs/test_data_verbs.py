"""`data check`, `data convert`, `data anchors`, `data shapes`, and `--skip-faulty`."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli_runner import Run
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.errors import DataSetError
from yolov3_trt.jobs.compare import compare
from yolov3_trt.jobs.evaluate import evaluate


@pytest.fixture
def set_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_shapes_data_set(tmp_path / "set", num_train=3, num_val=2, seed=5)


def test_a_good_set_is_counted_and_drawn(run: Run, set_: Path, tmp_path: Path):
    outcome = run("data", "check", set_, "--report", tmp_path / "r.html", "--json", "-")
    found = outcome.json
    assert {name: one["pictures"] for name, one in found["splits"].items()} == {"train": 3, "val": 2}
    labels = "".join(path.read_text() for path in (set_.parent / "labels/train").glob("*.txt"))
    assert (
        sum(found["splits"]["train"]["objects_by_class"]) == found["splits"]["train"]["objects"] == labels.count("\n")
    )
    assert found["faults"] == found["leaks"] == found["duplicates"] == []
    page = (tmp_path / "r.html").read_text()
    assert "Objects by class" in page and page.count("data:image/jpeg") == 5


def test_what_is_wrong_is_told_and_ends_with_1(run: Run, set_: Path):
    shutil.copy(set_.parent / "images/train/000000.jpg", set_.parent / "images/val/000009.jpg")
    (set_.parent / "labels/val/000000.txt").write_text("0 0.5 0.5 0.2 0.2\n9 0.5 0.5 0.1 0.1\n")
    outcome = run("data", "check", set_)
    assert outcome.code == 1 and "1 faults, 1 pictures in two parts" in outcome.stdout
    assert "000000.txt:2: class 9" in outcome.stderr and "in two parts: " in outcome.stderr


def test_a_set_is_converted_and_back(run: Run, set_: Path, tmp_path: Path):
    for source, to in (
        (set_, "voc"),
        (tmp_path / "voc", "coco"),
        (tmp_path / "coco", "darknet"),
        (tmp_path / "darknet", "yolo"),
    ):
        assert run("data", "convert", source, "--to", to, "-o", tmp_path / to, "--link").code == 0
    first, last = (run("data", "check", path, "--json", "-").json["splits"] for path in (set_, tmp_path / "yolo"))
    assert first == last
    (set_.parent / "labels/val/000000.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    refused = run("data", "convert", set_, "--to", "coco", "-o", tmp_path / "new")
    assert refused.code == 1 and "class 9" in refused.complaints[-1] and not list((tmp_path / "new").glob("*"))
    assert "left out: " in run("data", "convert", set_, "--to", "coco", "-o", tmp_path / "new", "--skip-faulty").stderr


def test_anchors_are_compared_with_the_models(run: Run, set_: Path):
    found = run("data", "anchors", set_, "--model", "shapes", "--json", "-").json
    assert len(found["anchors_wh"]) == len(found["own_wh"]) and 0.5 < found["own_mean_iou"] < found["mean_iou"] < 1
    assert run("data", "anchors", set_, "--count", "3").stdout.startswith("anchors = ")


def test_shapes_has_its_old_name_too(run: Run, tmp_path: Path):
    for number, verb in enumerate((("shapes",), ("data", "shapes"))):
        assert run(*verb, "-o", tmp_path / str(number), "--train", "1", "--val", "1").code == 0
        assert (tmp_path / str(number) / "data.yaml").is_file()
    assert "shapes" not in run("--help").stdout.replace("shapes ", "")


def test_eval_goes_on_without_what_is_faulty(run: Run, set_: Path, tmp_path: Path):
    with (set_.parent / "labels/val/000000.txt").open("a") as file:
        file.write("9 0.5 0.5 0.1 0.1\n0 nan 0.5 0.1 0.1\n")
    outcome = run("eval", "shapes", "--data", set_, "--skip-faulty", "--resamples", "0", "--json", "-")
    assert json.loads(outcome.stdout)["AP"] > 0.3
    assert (
        outcome.stderr.count("note: left out as faulty: 2\nnote: what was left out is listed in data-faulty.txt") == 1
    )
    assert len((tmp_path / "data-faulty.txt").read_text().splitlines()) == 2
    (tmp_path / "data-faulty.txt").unlink()
    timing = ("--frames", 1, "--warmup", 0, "--no-roofline")
    outcome = run("bench", "shapes", "--data", set_, "--skip-faulty", *timing, "--json", "-")
    assert outcome.code == 0 and outcome.json["rows"][0]["accuracy"]["AP"] > 0.3
    assert (tmp_path / "data-faulty.txt").is_file()
    with pytest.raises(DataSetError, match="2 faults"):
        evaluate("shapes", data=set_, resamples=0)
    assert evaluate("shapes", data=set_, resamples=0, skip_faulty=True).rows[0].accuracy.metrics["AP"] > 0.3
    compared = compare("shapes", "shapes", data=set_, skip_faulty=True)
    assert compared.accuracy is not None


def test_calibrate_goes_on_without_pictures_that_are_faulty(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    set_ = write_shapes_data_set(tmp_path / "set", num_train=9, num_val=1, seed=5)
    damaged = sorted((set_.parent / "images/train").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:20])
    arguments = (
        "calibrate",
        "shapes",
        "--data",
        set_,
        "--num-images",
        8,
        "--input-size",
        64,
        "-o",
        tmp_path / "table.json",
    )
    assert damaged.name in run(*arguments).stderr
    outcome = run(*arguments, "--skip-faulty", "--json", "-")
    assert outcome.code == 0 and outcome.json["images"] == 8, outcome.stderr
    assert damaged.name in (tmp_path / "data-faulty.txt").read_text()
