"""Which detections are wanted: numbers by hand, and what is not understood."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli_runner import Run
from tests.fakes import ListSink, ListSource, fake_detector, grey_pictures
from yolov3_trt.camera.loop import LoopOptions, run_loop
from yolov3_trt.detections import Detections
from yolov3_trt.errors import SettingError
from yolov3_trt.selection import Selection

NAMES = ("person", "dog", "traffic light")
# Of a picture 100 wide and 50 high: the feet are at (10, 20), (30, 50), (70, 40) and (90, 10).
FOUND = Detections(
    np.array([[0, 0, 20, 20], [20, 20, 40, 50], [60, 10, 80, 40], [85, 0, 95, 10]], np.float32),
    np.array([0.9, 0.8, 0.6, 0.5], np.float32),
    np.array([0, 1, 0, 2], np.int32),
    NAMES,
)
HW = (50, 100)


def scores(selection: Selection, source: str | None = None) -> list[float]:
    return [round(float(score), 3) for score in selection.of(FOUND, HW, source).scores]


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({}, [0.9, 0.8, 0.6, 0.5]),
        ({"classes": "person"}, [0.9, 0.6]),
        ({"classes": "person:0.7"}, [0.9]),
        ({"classes": "dog, person:0.7"}, [0.9, 0.8]),
        ({"classes": "traffic light,1"}, [0.8, 0.5]),
        ({"min_size": "20x20"}, [0.9, 0.8, 0.6]),
        ({"min_size": "20x30"}, [0.8, 0.6]),
        ({"min_size": 30}, []),
        ({"classes": "dog,person", "min_size": "20x30"}, [0.8, 0.6]),
    ],
)
def test_classes_confidences_and_sizes(given: dict[str, str], wanted: list[float]):
    assert scores(Selection(**given)) == wanted


def test_zones_hold_what_stands_in_them(tmp_path: Path):
    path = tmp_path / "zones.toml"
    left = "[[zone]]\nname = 'left'\npoints = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n"
    upper_right = "[[zone]]\npoints = [[0.5, 0.0], [1.0, 0.0], [1.0, 0.5]]\nignore = true\n"
    for text, wanted in (
        (left, [0.9, 0.8]),
        (left + "source = 'door'\n", [0.9, 0.8, 0.6, 0.5]),
        (upper_right, [0.9, 0.8, 0.6]),
        (left + upper_right, [0.9, 0.8]),
    ):
        path.write_text(text)
        assert scores(Selection(zones=path)) == wanted
    path.write_text(left + "source = 'door'\n")
    assert scores(Selection(zones=path), "door") == [0.9, 0.8]
    for text in (
        "",
        "[[zone]]\n",
        "a = 1\n",
        left + "colour = 1\n",
        left.replace("0.5", "5"),
        left.replace("0.5", "1" + 400 * "0"),  # too large for a float
        left + f"stay_s = 1{400 * '0'}\n",
        left + "ignore = 1\n",
        "[[",
        "a = " + "[" * 100_000,
    ):
        path.write_text(text)
        with pytest.raises(SettingError, match=rf"^zones: {path}: .*expected \[\[zone\]\] with points"):
            Selection(zones=path)


@pytest.mark.parametrize(
    "classes, text",
    [
        ("persn", r"^classes: there is no class 'persn' among 3; did you mean person\?$"),
        ("7", "^classes: there is no class '7' among 3, e.g. person, dog"),
        ("dog:0.2", "^classes: dog:0.2 is below the confidence of the detector, 0.25; lower `conf` too$"),
        ("dog:x", "^classes: got 'dog:x'; expected e.g. dog,person:0.6$"),
        ("dog:2", "^classes: got 2.0; expected 0 to 1$"),
        ("dog,,", "expected classes once each"),
        ("dog,dog", "expected classes once each"),
    ],
)
def test_what_is_not_understood_is_refused(classes: str, text: str):
    with pytest.raises(SettingError, match=text):
        Selection(classes=classes).check(NAMES, 0.25)


def test_the_loop_and_detect_give_what_is_wanted(run: Run):
    for selection, count in ((Selection(classes="level:0.95"), 0), (Selection(min_size="8x8"), 2)):
        sink = ListSink()
        options = LoopOptions(selection=selection)
        run_loop(fake_detector(), [ListSource(grey_pictures([5, 20, 40]))], [sink], options)
        assert [len(found) for found in sink.detections].count(1) == count
    outcome = run("detect", "shapes", "--sample", "--classes", "square,trianglee")
    assert outcome.code == 2 and "'trianglee'" in outcome.stderr
