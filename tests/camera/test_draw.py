"""Boxes, labels and the status line: where they are, that they can be read, and that nothing is drawn outside."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from yolov3_trt.camera import draw, lettering
from yolov3_trt.camera.draw import annotated, blank_picture, class_color, draw_detections, draw_status, duration_text
from yolov3_trt.camera.frames import Frame, FrameStatus, Look, Result
from yolov3_trt.camera.label_places import label_places
from yolov3_trt.detections import Detections
from yolov3_trt.errors import SettingError
from yolov3_trt.geometry import HW
from yolov3_trt.places import Line, Places, Zone
from yolov3_trt.settings import DrawSettings

GREY = 90
STATUS = FrameStatus(29.84, 45.2, 1312, 1)
SIZES = [(64, 64), (33, 47), (48, 640), (640, 48), (480, 640), (720, 1280), (2160, 3840)]


def grey(image_hw: HW) -> np.ndarray:
    return np.full((*image_hw, 3), GREY, np.uint8)


def objects(*xyxy: tuple[float, float, float, float], names: tuple[str, ...] = ("person",)) -> Detections:
    boxes = np.array(xyxy, np.float32).reshape(-1, 4)
    scores = np.linspace(0.97, 0.5, len(boxes), dtype=np.float32)
    return Detections(boxes, scores, np.arange(len(boxes), dtype=np.int32) % max(1, len(names)), names)


def changed(image: np.ndarray) -> np.ndarray:
    """Where something was drawn, (H, W)."""
    return (image != GREY).any(axis=2)


def test_box_lies_on_its_coordinates_in_the_colour_of_its_class():
    drawn = draw_detections(grey((400, 400)), objects((50, 100, 300, 250)))  # lines of 1 px
    color = class_color(0)
    for line in (drawn[100, 50:301], drawn[250, 50:301], drawn[100:251, 50], drawn[100:251, 300]):
        assert (line == color).all()
    inside, outside = drawn[101:250, 51:300], changed(drawn)
    assert (inside == GREY).all()
    outside[85:101, 50:301] = outside[100:251, 50:301] = False  # its label, and the box
    assert not outside.any()


def test_lines_and_labels_grow_with_the_picture():
    heights = []
    for scale in (1, 2, 4, 10):
        image_hw = (300 * scale, 400 * scale)
        drawn = draw_detections(grey(image_hw), objects((40 * scale, 100 * scale, 300 * scale, 200 * scale)))
        assert changed(drawn)[150 * scale, : 80 * scale].sum() == scale  # the left line
        heights.append(int(changed(drawn)[: 99 * scale].any(axis=1).sum()))
    assert heights[0] == 11  # of letters that can still be read
    assert heights[1:] == pytest.approx([heights[1] * scale for scale in (1, 2, 5)], rel=0.15)


@pytest.mark.parametrize("image_hw", SIZES)
def test_label_can_be_read_at_any_size(image_hw: HW):
    """Ink and background differ in luma by a third of the scale, and letters are 7 px high or more."""
    height, width = image_hw
    drawn = draw_detections(grey(image_hw), objects((0.1 * width, 0.5 * height, 0.9 * width, 0.9 * height)))
    luma = cv2.cvtColor(drawn, cv2.COLOR_BGR2GRAY).astype(int)
    background = luma[(drawn == class_color(0)).all(axis=2)].max()  # red, so the ink is white
    rows, columns = np.nonzero(luma - background > 80)
    assert np.ptp(rows) + 1 >= 7 and np.ptp(columns) + 1 >= 20


@pytest.mark.parametrize("class_id", range(80))
def test_every_colour_has_an_ink_that_stands_out(class_id: int):
    ramp = lettering.ramp(class_color(class_id))[:, 0].astype(float)
    assert_array_equal(ramp[0], class_color(class_id))
    assert abs((ramp[255] - ramp[0]) @ (0.114, 0.587, 0.299)) >= 126
    assert tuple(ramp[255]) in ((0, 0, 0), (255, 255, 255))


def test_classes_keep_their_colours_and_neighbours_differ():
    colours = [class_color(class_id) for class_id in range(80)]
    assert len(set(colours)) == 80 and colours[0] == class_color(0)
    assert all(max(abs(a - b) for a, b in zip(*pair, strict=True)) > 100 for pair in pairwise(colours))


@pytest.mark.parametrize("image_hw", SIZES)
def test_objects_anywhere_are_drawn_inside_the_picture(image_hw: HW):
    """Beyond every side, of no size, huge: the pixels around a picture that is part of a larger one stay."""
    height, width = image_hw
    around = grey((height + 40, width + 40))
    for x in (-1e9, -5, 0, width / 2, width - 1, width, width + 1e9):
        for y in (-1e9, -5, 0, height / 2, height - 1, height, height + 1e9):
            boxes = objects((x, y, x, y), (x, y, x + 30, y + 30), (x - 1e6, y - 1e6, x + 1e6, y + 1e6))
            drawn = draw_detections(around[20:-20, 20:-20], boxes)
            assert drawn.shape == (height, width, 3) and changed(drawn).any()
        if height > 400:
            break  # a column of places is enough
    assert not changed(around).any()


def test_label_is_moved_into_the_picture():
    width = 400
    right = changed(draw_detections(grey((300, width)), objects((390, 100, 399, 200))))[80:99]
    columns = np.nonzero(right.any(axis=0))[0]
    assert columns.max() == width - 1 and np.ptp(columns) > 50  # whole, though the box is 9 px wide
    top = changed(draw_detections(grey((300, width)), objects((100, 3, 300, 200))))
    assert not top[:3].any() and top[201:212, 101:150].all()  # below the box, whose head it would hide above


def test_labels_keep_off_each_other_and_heads():
    rng = np.random.default_rng(3)
    low = rng.integers(0, (560, 400), (40, 2))
    boxes = np.concatenate([low, low + rng.integers(20, 80, (40, 2))], axis=1)
    size = np.array([70, 13])
    places = [place for place in label_places(boxes, [(70, 13)] * 40, (480, 640)) if place is not None]
    assert len(places) > 25
    rectangles = np.array([(*place, *(np.array(place) + size)) for place in places])
    assert (rectangles >= 0).all() and (rectangles[:, 2:] <= (640, 480)).all()
    sides = np.minimum(rectangles[:, None, 2:], rectangles[:, 2:]) - np.maximum(
        rectangles[:, None, :2], rectangles[:, :2]
    )
    shared = np.prod(sides.clip(0), axis=2) - np.diag([70 * 13] * len(places))
    assert shared.max() <= 0.4 * 70 * 13 and (shared > 0).sum() < 10  # few touch at all
    # Of two behind each other the second's label goes where neither head is; one under another of its size is left out.
    assert label_places(np.array([[50, 20, 90, 120]] * 2), [(40, 13)] * 2, (300, 300)) == [(50, 7), (50, 120)]
    assert label_places(np.array([[0, 0, 20, 20]] * 3), [(20, 12)] * 3, (20, 20))[2] is None
    assert label_places(np.zeros((0, 4), np.int64), [], (20, 20)) == []


def test_labels_lines_and_colours_are_as_asked_for():
    one = replace(objects((50, 100, 300, 250)), track_ids=np.array([7], np.int32))
    empty = draw_detections(grey((400, 400)), one, labels="none")
    assert not changed(empty)[:100].any() and tuple(empty[250, 200]) == class_color(0)
    widths = []
    for labels in ("name", "full"):
        columns = np.nonzero(changed(draw_detections(grey((400, 400)), one, labels=labels))[92])[0]
        widths.append(int(np.ptp(columns)))
    assert 40 < widths[0] < widths[1]
    assert tuple(draw_detections(grey((400, 400)), one, color_by="track")[250, 200]) == class_color(7)
    assert changed(draw_detections(grey((400, 400)), one, line_width=6))[150, :100].sum() == 6
    with pytest.raises(SettingError, match=r"^labels: got 'all'; expected one of full, name, none$"):
        draw_detections(grey((400, 400)), one, labels="all")


def test_places_counts_and_the_clock_are_drawn_into_results():
    gate, bay = Line(((0.25, 0.5), (0.75, 0.5)), "gate"), Zone(((0.6, 0.6), (0.9, 0.6), (0.9, 0.9)), "bay", watch=True)
    frame, look = Frame(grey((400, 400)), "a", 0, 0.0, 83.4), Look(DrawSettings(clock=True), Places((bay,), (gate,)))
    picture = annotated(Result(frame, Detections.none(), STATUS, look=look, crossings={"gate": (3, 1)}))
    drawn = changed(picture)
    assert (
        drawn[200, 100:299].all() and drawn[201:208, 199].all() and not drawn[180:195, 199].any()
    )  # its tick: from above
    assert drawn[240, 260] and drawn[399, 390] and not drawn[300:399, :200].any() and frame.clock == "0:01:23"
    plain = annotated(Result(frame, Detections.none(), STATUS))
    assert not changed(plain).any()


def test_label_wider_than_the_picture_leaves_out_the_score():
    boxes = (0, 40, 47, 60)
    name = draw_detections(grey((64, 48)), objects(boxes, names=("bird",)))
    assert not (name[:, 40:] == 255).all(axis=2)[:30].any()  # "bird 0.97" would reach the right edge
    cut = draw_detections(grey((64, 48)), objects(boxes, names=("a very long name",)))
    assert changed(cut)[30:38].all()


@pytest.mark.parametrize(
    "name, shown", [("person", "person"), ("Zürich", "Zurich"), ("Straße", "Stra?e"), ("犬", "7"), ("", "")]
)
def test_names_are_shown_in_the_letters_that_the_font_has(name: str, shown: str):
    names = (*"abcdefg", name)
    (row,) = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([7], np.int32), names)
    assert draw._in_ascii(row) == shown
    assert draw_detections(grey((64, 64)), objects((1, 20, 60, 60), names=(name,))).any()


def test_picture_without_objects_is_a_copy():
    image = grey((33, 47))
    drawn = draw_detections(image, Detections.none())
    assert_array_equal(drawn, image)
    assert drawn is not image and not np.shares_memory(drawn, image)


def test_best_object_is_on_top():
    both = objects((50, 100, 300, 250), (50, 100, 300, 250), names=("first", "second"))
    assert tuple(draw_detections(grey((400, 400)), both)[250, 200]) == class_color(0)


@pytest.fixture
def text_sizes_of_opencv5(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`getTextSize` as OpenCV 5 has it: how far a text reaches below its line depends on its letters."""
    original = cv2.getTextSize

    def by_letter(text: str, *font: object) -> tuple[tuple[int, int], int]:
        (width, height), _ = original(text, *font)
        return (width, height), 5 if set("gjpqy") & set(text) else 1

    _forget_letters()
    monkeypatch.setattr(cv2, "getTextSize", by_letter)
    yield
    _forget_letters()


def _forget_letters() -> None:
    for function in vars(lettering).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@pytest.mark.parametrize("height", [9, 11, 21, 33, 110])
def test_every_text_of_a_size_has_one_height_and_all_its_ink(height: int, text_sizes_of_opencv5: None):
    for text in ("dog", "0.57", "acemn", "Ag", "person", "x"):
        mask = lettering.text_mask(text, height)
        assert len(mask) == len(lettering.text_mask("0", height))
        edges = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert mask.max() > 200 and edges.max() < 80  # letters, and background around them


def test_objects_are_drawn_where_the_height_of_a_text_depends_on_its_letters(text_sizes_of_opencv5: None):
    """With OpenCV 5 name and score would not go side by side."""
    drawn = draw_detections(grey((480, 640)), objects((50, 100, 300, 250), names=("dog",)))
    assert changed(drawn)[90, 50:100].all()


# --- the status line ---


@pytest.mark.parametrize("image_hw", SIZES)
def test_status_line_is_at_the_bottom_and_the_banner_at_the_top(image_hw: HW):
    canvas = grey(image_hw)
    draw_status(canvas, STATUS)
    rows = np.nonzero(changed(canvas).any(axis=1))[0]
    assert rows.max() == image_hw[0] - 1 and changed(canvas)[-1, 0]
    if image_hw[0] >= 480 and image_hw[1] >= 480:  # otherwise it takes several lines
        assert rows.min() > 0.9 * image_hw[0]
        draw_status(canvas, None, stale_s=7.25)
        assert tuple(canvas[0, 0]) == (40, 40, 200)
        rows = np.nonzero(changed(canvas).any(axis=1))[0]
        assert (np.diff(rows) > 1).sum() == 1  # two blocks, the middle is untouched


def test_status_line_takes_more_lines_where_the_picture_is_narrow():
    heights = []
    for width in (400, 150, 75):
        canvas = grey((400, width))
        draw_status(canvas, STATUS)
        heights.append(int(changed(canvas).any(axis=1).sum()))
    assert heights[1] == 2 * heights[0] and heights[2] >= 3 * heights[0]


def test_status_lines_are_not_kept_and_labels_keep_no_more_than_they_show():
    _forget_letters()
    for number in range(20):
        draw_status(grey((480, 640)), FrameStatus(1.0, number, number, 1))
    assert lettering.label_mask.cache_info().currsize == 0
    assert lettering.label_mask("dog", 20).base is None  # it would be the canvas that the letters were drawn on


def test_status_without_a_rate_leaves_it_out():
    with_rate, without = grey((480, 640)), grey((480, 640))
    draw_status(with_rate, STATUS)
    draw_status(without, FrameStatus(None, 45.2, 1312, 1))
    assert 0 < changed(without).sum() < changed(with_rate).sum()
    nothing = grey((480, 640))
    draw_status(nothing, None)
    assert not changed(nothing).any()


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.0, "0 ms"),
        (0.0452, "45 ms"),
        (1.0, "1.0 s"),
        (9.94, "9.9 s"),
        (10.4, "10 s"),
        (599, "599 s"),
        (900, "15 min"),
    ],
)
def test_durations_read_as_one_says_them(seconds: float, text: str):
    assert duration_text(seconds) == text


def test_blank_picture_says_why_it_is_blank():
    picture = blank_picture("no frame yet")
    assert picture.shape == (480, 640, 3) and (picture[:400] == 60).all() and (picture[440:] > 200).any()


# --- once for all sinks, and fast ---


def test_picture_of_a_result_is_drawn_once_for_all_threads(monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    original = draw.drawn

    def counting(*args: Any) -> np.ndarray:
        calls.append(1)
        time.sleep(0.05)
        return original(*args)

    monkeypatch.setattr(draw, "drawn", counting)
    results = [Result(Frame(grey((64, 64)), "a", 0, 0.0), objects((5, 20, 50, 50)), STATUS)]
    pictures: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: pictures.append(annotated(results[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and all(picture is pictures[0] for picture in pictures)
    assert not changed(results[0].frame.pixels).any()
    before = len(draw._ANNOTATED)
    results.clear()
    assert len(draw._ANNOTATED) == before - 1  # nothing is kept longer than its result
