"""`--data SET --split NAME`: labels in YOLO's format are evaluated, quantised, compared and benched as COCO's are."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli_runner import Run
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.evaluation import METRICS
from yolov3_trt.jobs.export import export


@pytest.fixture(scope="module")
def yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes_data_set(tmp_path_factory.mktemp("set"), num_train=33, num_val=6, seed=40)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export("shapes", tmp_path_factory.mktemp("graph") / "shapes.onnx").path


def coco(yaml: Path) -> tuple[str | Path, ...]:
    return ("--images", yaml.parent / "images/val", "--annotations", yaml.parent / "val.json")


def test_eval_gives_the_same_ap_for_the_same_boxes(run: Run, yaml: Path, graph: Path):
    options = ("--resamples", "20", "--json", "-")
    expected = run("eval", graph, *coco(yaml), *options).json
    assert expected["images"] == 6 and 0.3 < expected["AP"] < 1
    for data in (yaml, yaml.parent, yaml.parent / "val.json"):
        found = run("eval", graph, "--data", data, *options).json
        same = (*METRICS, "per_class", "AP_interval", "AP50_interval", "images")
        assert [found[key] for key in same] == [expected[key] for key in same]  # to the last digit
    train = run("eval", graph, "--data", yaml, "--split", "train", *options).json
    assert train["images"] == 33 and train["AP"] != expected["AP"]


def test_the_worst_pictures_of_a_data_yaml_are_drawn(run: Run, yaml: Path, graph: Path, tmp_path: Path):
    report = run("eval", graph, "--data", yaml, "--worst", "1", "-o", tmp_path, "--json", "-").json
    (entry,) = report["worst"]
    assert entry["file_name"].startswith("images/val/") and Path(entry["picture"]).is_file()


def test_compare_takes_a_data_yaml(run: Run, yaml: Path, graph: Path):
    expected = run("compare", "shapes", graph, *coco(yaml), "--json", "-").json
    found = run("compare", "shapes", graph, "--data", yaml, "--json", "-").json
    assert found == expected
    assert found["images"] == 6 and 0.3 < found["accuracy"]["a"]["AP"] < 1


def test_compare_takes_generated_pictures(run: Run, graph: Path):
    assert run("compare", graph, graph, "--images", "shapes", "--json", "-").json["images"] == 64


def test_bench_takes_a_data_yaml(run: Run, yaml: Path, graph: Path):
    options = ("--reference", "none", "--frames", "4", "--warmup", "0", "--no-roofline", "--json", "-")
    expected, found = (run("bench", graph, *given, *options).json for given in (coco(yaml), ("--data", yaml)))
    assert found["annotations"] == str(yaml)
    accuracy = [rows_of(content)[0]["accuracy"] for content in (expected, found)]
    assert accuracy[0] == accuracy[1] and accuracy[0]["images"] == 6


def rows_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def test_calibrate_takes_the_train_part_of_a_data_yaml(run: Run, yaml: Path, graph: Path, tmp_path: Path):
    options = ("--num-images", "32", "--method", "minmax", "--no-equalise", "--no-correct-biases", "--json", "-")
    first = run("calibrate", graph, "--images", yaml.parent / "images/train", *options, "-o", tmp_path / "t.json").json
    assert not first["reused"]
    for given in (("--data", yaml), ("--images", yaml), ("--data", yaml, "--split", "train")):
        assert run("calibrate", graph, *given, *options, "-o", tmp_path / "t.json").json["reused"]
    allowed = run("calibrate", graph, "--data", yaml, "--val-images", yaml, *options, "-o", tmp_path / "t.json")
    assert allowed.json["reused"]  # the val part, which has none of them
    other = ("--data", yaml, "--val-images", yaml.parent / "images/train")
    refused = run("calibrate", graph, *other, *options, "-o", tmp_path / "t.json")
    assert (
        refused.code == 1 and "32 of the 32 calibration pictures are evaluation pictures too" in refused.complaints[-1]
    )


@pytest.mark.slow
def test_quantize_calibrates_on_train_and_measures_on_val(run: Run, yaml: Path, tmp_path: Path):
    options = ("--num-images", "16", "--layer-ap", "0", "--max-ap-drop", "1", "--method", "minmax", "--json", "-")
    found = run("quantize", "shapes", "--data", yaml, *options, "-o", tmp_path / "yaml").json
    images, val = yaml.parent / "images/train", ("--val-images", yaml.parent / "images/val")
    annotations = ("--annotations", yaml.parent / "val.json")
    expected = run("quantize", "shapes", "--images", images, *val, *annotations, *options, "-o", tmp_path / "coco").json
    assert [found[key] for key in ("ap_fp32", "ap")] == [expected[key] for key in ("ap_fp32", "ap")]
    tables = [json.loads(next((tmp_path / name).glob("*-minmax.json")).read_text()) for name in ("yaml", "coco")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "args, complaint",
    [
        (
            ("eval", "shapes"),
            "expected a labelled set, e.g. a data.yaml or a COCO JSON (or --images DIR --annotations FILE)",
        ),
        (("eval", "shapes", "--split", "val"), "given without data; leave it out"),
        (
            ("eval", "shapes", "--annotations", __file__),
            "given without images; expected images to be the one folder of its pictures",
        ),
        (
            ("eval", "shapes", "--data", "YAML", "--annotations", __file__),
            "given with data, which is the same; give one of them",
        ),
        (("eval", "shapes", "--data", "YAML", "--images", "."), "which names its own; leave it out"),
        (("eval", "shapes", "--data", "SET/val.json", "--split", "val"), "which is one set; leave it out"),
        (("eval", "shapes", "--data", "/proc/self/fd"), "a folder without a labelled set; expected a data.yaml"),
        (("compare", "shapes", "shapes"), "expected pictures (or --data SET)"),
        (
            ("compare", "shapes", "shapes", "--data", "YAML", "--images", "a.jpg"),
            "given with labels; expected the one folder of their pictures",
        ),
        (("calibrate", "shapes"), "expected one of --images and --data"),
        (("calibrate", "shapes", "--images", "shapes", "--data", "YAML"), "expected one of --images and --data"),
        (("quantize", "shapes", "--images", "shapes"), "(or --val-images FOLDER --annotations FILE)"),
        (
            ("quantize", "shapes", "--annotations", __file__),
            "given without images; expected images to be the one folder of its pictures",
        ),
        (("quantize", "shapes", "--data", "SET/val.json"), "expected pictures to calibrate on, others than those"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Run, yaml: Path, args: tuple[str, ...], complaint: str):
    given = [word.replace("YAML", str(yaml)).replace("SET", str(yaml.parent)) for word in args]
    outcome = run(*given)
    assert outcome.code == 2
    assert complaint in " ".join(outcome.usage_error.split())


def test_the_faults_of_labels_are_told_before_a_model_is_opened(run: Run, yaml: Path, tmp_path: Path):
    write_shapes_data_set(tmp_path, num_train=1, num_val=2, seed=1)
    (tmp_path / "labels/val/000000.txt").write_text("0 0.5 0.5 0.2 2\n9 0.5 0.5 0.1 0.1\n")
    outcome = run("eval", "no-such-model", "--data", tmp_path / "data.yaml")
    assert outcome.code == 1
    assert "2 faults in this data set; correct every one, or leave out what is faulty" in outcome.complaints[-1]
    assert [line.rpartition("/")[2] for line in outcome.complaints] == [
        "000000.txt:1: h is 2; expected 0..1, a fraction of the picture's width or height",
        "000000.txt:2: class 9; expected 0..5 (6 names in data.yaml)",
        "000000.txt:1: h is 2; expected 0..1, a fraction of the picture's width or height",
    ]
