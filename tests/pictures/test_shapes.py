"""Made-up pictures: always the same, and their labels agree with an independent drawing of the same shapes."""

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from yolov3_trt.shapes import (
    MIN_VISIBLE,
    PICTURE_SIZES_HW,
    SHAPE_NAMES,
    LabelledPicture,
    iter_shapes_clip,
    shapes_picture,
)
from yolov3_trt.shapes.drawing import OUTLINES, Shape
from yolov3_trt.shapes.look import Look
from yolov3_trt.shapes.paint import Paint
from yolov3_trt.shapes.placement import Motion
from yolov3_trt.shapes.scenes import render

cv2 = pytest.importorskip("cv2")

NEUTRAL = Look(np.ones((2, 2), np.float32), np.arange(256).astype(np.uint8), None, 0.0)
WHITE = Paint("plain", np.full(3, 255, np.float32), np.zeros(3, np.float32), False, 0.3)


def shape(name, centre_xy, size, angle=0.0, aspect=1.0) -> Shape:
    return Shape(SHAPE_NAMES.index(name), centre_xy, size, aspect, angle, WHITE)


def rendered(*objects, image_hw=(64, 96)) -> LabelledPicture:
    rng = np.random.default_rng(0)
    return render(list(objects), np.zeros((3, *image_hw), np.float32), NEUTRAL, rng)


def digest(picture) -> str:
    return hashlib.sha256(picture.pixels.tobytes() + picture.xyxy.tobytes() + picture.class_ids.tobytes()).hexdigest()


def pixels_inside(drawn: Shape, image_hw) -> np.ndarray:
    """(H, W) bool: pixel centres inside by the even-odd rule, from the definition of the shapes and without OpenCV."""
    y, x = np.mgrid[: image_hw[0], : image_hw[1]] + 0.5
    c, s = np.cos(drawn.angle), np.sin(drawn.angle)
    width, height = drawn.size * drawn.aspect**0.5, drawn.size / drawn.aspect**0.5
    inside = np.zeros(image_hw, bool)
    for outline in OUTLINES[drawn.class_id]:
        u, v = outline[:, 0] * width, outline[:, 1] * height
        xs, ys = c * u - s * v + drawn.centre_xy[0], s * u + c * v + drawn.centre_xy[1]
        for x1, y1, x2, y2 in zip(xs, ys, np.roll(xs, 1), np.roll(ys, 1), strict=True):
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1 if y2 != y1 else 1))
    return inside


@pytest.fixture
def scenes(monkeypatch):
    """What is rendered, as it happens: (shapes, background (3, H, W)) of each picture."""
    seen = []

    def spy(objects, background, look, rng):
        seen.append((objects, background))
        return render(objects, background, look, rng)

    monkeypatch.setattr("yolov3_trt.shapes.scenes.render", spy)
    return seen


def test_a_picture_depends_on_its_seed_and_index_alone():
    forwards = [digest(shapes_picture(5, index)) for index in range(6)]
    backwards = [digest(shapes_picture(5, index)) for index in reversed(range(6))][::-1]
    assert forwards == backwards
    others = [digest(shapes_picture(6, index)) for index in range(6)]
    assert len({*forwards, *others}) == 12


def test_another_process_draws_the_same_picture_and_clip():
    code = """
import hashlib
from yolov3_trt.shapes import iter_shapes_clip, shapes_picture
for picture in [shapes_picture(5, 3), *iter_shapes_clip(5, 2, (96, 128))]:
    print(hashlib.sha256(picture.pixels.tobytes() + picture.xyxy.tobytes() + picture.class_ids.tobytes()).hexdigest())
"""
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.split() == [digest(shapes_picture(5, 3)), *map(digest, iter_shapes_clip(5, 2, (96, 128)))]


@pytest.mark.parametrize("image_hw", [(64, 64), (97, 131), (480, 640)])
def test_a_given_size_is_honoured(image_hw):
    picture = shapes_picture(1, 2, image_hw)
    assert picture.pixels.shape == (*image_hw, 3)
    assert picture.pixels.dtype == np.uint8


def test_sizes_vary_where_none_is_given():
    assert {shapes_picture(1, index).pixels.shape[:2] for index in range(40)} == set(PICTURE_SIZES_HW)


def test_boxes_lie_inside_the_picture_and_every_class_and_three_scales_occur():
    counts, sides, classes = Counter(), [], Counter()
    for index in range(300):
        picture = shapes_picture(2, index)
        height, width = picture.pixels.shape[:2]
        assert picture.xyxy.dtype == np.float32 and picture.class_ids.dtype == np.int32
        assert picture.xyxy.shape == (len(picture.class_ids), 4)
        assert np.all(picture.xyxy[:, :2] >= 0) and np.all(picture.xyxy[:, 2:] <= (width, height))
        assert np.all(picture.xyxy[:, 2:] > picture.xyxy[:, :2])
        counts[len(picture.class_ids)] += 1
        classes.update(picture.class_ids.tolist())
        sides.extend((picture.xyxy[:, 2:] - picture.xyxy[:, :2]) * 256 / max(height, width))
    assert set(counts) == set(range(9))
    assert 0.01 < counts[0] / 300 < 0.08
    total = classes.total()
    assert all(0.12 < classes[class_id] / total < 0.22 for class_id in range(6))
    # In px of a letterboxed input of 256: what the strides of 8, 16 and 32 are for.
    longer, shorter = np.max(sides, axis=1), np.min(sides, axis=1)
    assert np.all(np.histogram(longer, [0, 32, 80, 256])[0] > 0.15 * total)
    assert np.mean(shorter < 10) < 0.01 and shorter.min() > 5


def test_boxes_and_visibility_agree_with_an_independent_drawing(scenes):
    differences_px = []
    for index in range(30):
        picture = shapes_picture(3, index)
        objects, _ = scenes[-1]
        # None is hidden too much for a label.
        assert [drawn.class_id for drawn in objects] == picture.class_ids.tolist()
        labels = np.zeros(picture.pixels.shape[:2], int)
        for label, drawn in enumerate(objects, start=1):
            labels[pixels_inside(drawn, labels.shape)] = label
        for label, (drawn, xyxy) in enumerate(zip(objects, picture.xyxy, strict=True), start=1):
            ys, xs = np.nonzero(labels == label)
            differences_px.append(np.abs(xyxy - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]))
            room = tuple(int(4 * drawn.size) for _ in "hw")
            whole = pixels_inside(replace(drawn, centre_xy=(2 * drawn.size, 2 * drawn.size)), room)
            assert len(xs) / np.count_nonzero(whole) > MIN_VISIBLE - 0.05
    assert len(differences_px) > 80
    # A tip is sharper than a pixel: that is covered by half a little later than its centre is. A sliver beside another
    # shape that covers it may be a few px long.
    assert np.quantile(differences_px, 0.99) <= 3 and np.max(differences_px) < 15


@pytest.mark.parametrize("name", SHAPE_NAMES)
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.5])
def test_a_box_is_tight_around_the_pixels_that_are_covered_by_half(name, angle):
    for centre_xy in [(40.0, 30.0), (33.3, 28.9), (9.0, 51.5)]:  # the last one is cut by the border
        picture = rendered(shape(name, centre_xy, 24.7, angle, 1.2))
        ys, xs = np.nonzero(picture.pixels[..., 1] >= 127.5)
        assert_array_equal(picture.xyxy, [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])


def test_boxes_follow_from_centre_and_size():
    assert_array_equal(rendered(shape("circle", (40, 30), 20)).xyxy, [[30, 20, 50, 40]])
    assert_array_equal(rendered(shape("ring", (40, 30), 20)).xyxy, [[30, 20, 50, 40]])
    assert_array_equal(rendered(shape("square", (40, 30), 20)).xyxy, [[31, 21, 49, 39]])
    assert_array_equal(rendered(shape("square", (40, 30), 20, np.pi / 2)).xyxy, [[31, 21, 49, 39]])
    diagonal = 9 * 2**0.5  # 12.7: at 45 degrees; the tips cover less than half of their pixels
    tilted = rendered(shape("square", (40, 30), 20, np.pi / 4)).xyxy
    assert_allclose(tilted, [[40 - diagonal, 30 - diagonal, 40 + diagonal, 30 + diagonal]], atol=1)


def test_a_shape_covers_the_area_of_its_polygon():
    for drawn in (
        shape("circle", (48, 32), 50),
        shape("square", (48, 32), 50, 0.6),
        shape("ring", (48, 32), 50, 0, 1.2),
    ):
        area = {"circle": np.pi / 4, "square": 0.81, "ring": np.pi / 4 * (1 - 0.55**2)}[SHAPE_NAMES[drawn.class_id]]
        assert drawn.alpha.sum() == pytest.approx(area * 50**2, rel=0.02)
    assert rendered(shape("ring", (48, 32), 50)).pixels[32, 48].tolist() == [0, 0, 0]  # its hole


def test_boxes_are_of_the_visible_part_and_a_shape_hidden_by_more_than_half_has_none():
    behind = shape("square", (40, 30), 20)  # 31..49, 21..39
    picture = rendered(behind, shape("square", (52, 30), 20.1))  # from 42.96
    assert_array_equal(picture.xyxy, [[31, 21, 43, 39], [43, 21, 61, 39]])
    picture = rendered(behind, shape("square", (48, 30), 20.1))  # from 38.96: 8 of 18 columns are left
    assert_array_equal(picture.xyxy, [[39, 21, 57, 39]])
    assert rendered(shape("square", (-5, 30), 20)).xyxy.shape == (0, 4)  # 4 columns are on the picture
    assert_array_equal(rendered(shape("square", (3, 30), 20)).xyxy, [[0, 21, 12, 39]])
    assert rendered(shape("square", (-50, 30), 20)).xyxy.shape == (0, 4)
    assert rendered().xyxy.shape == (0, 4)


def test_shapes_stand_out_from_what_is_behind_them(scenes):
    distances = []
    for index in range(60):
        shapes_picture(4, index)
        objects, background = scenes[-1]
        for drawn in objects:
            (rows, columns), in_alpha = drawn.window(background.shape[1:])
            canvas, labels = background.copy(), np.zeros(background.shape[1:], np.uint8)
            drawn.draw(canvas, labels, 1)
            mask = drawn.solid[in_alpha]
            means = [planes[:, rows, columns][:, mask].mean(axis=1) for planes in (canvas, background)]
            distances.append(np.linalg.norm(means[0] - means[1]))
    assert min(distances) > 35 and np.median(distances) > 80


def test_no_look_moves_anything():
    scene = np.zeros((3, 41, 61), np.float32)
    scene[:, 15:26, 20:41] = 200
    for seed in range(60):
        rng = np.random.default_rng(seed)
        look = Look.drawn(rng)
        assert np.all(np.diff(look.tones.astype(int)) >= 0)
        if look.blur is not None:
            assert_allclose(look.blur, look.blur[::-1, ::-1], atol=1e-6)
            blurred = replace(NEUTRAL, blur=look.blur).apply(scene.copy(), rng)[..., 0].astype(float)
            y, x = np.mgrid[:41, :61]
            centre = (blurred * y).sum() / blurred.sum(), (blurred * x).sum() / blurred.sum()
            assert_allclose(centre, (20, 30), atol=0.02)
            assert blurred.sum() == pytest.approx(200 * 11 * 21, rel=0.01)


def test_noise_has_the_given_deviation_and_no_mean():
    scene = np.full((3, 100, 100), 128, np.float32)
    noisy = replace(NEUTRAL, noise=6.0).apply(scene, np.random.default_rng(0)).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert noisy.std() == pytest.approx(6, rel=0.03)


def test_a_clip_is_the_same_each_time_and_a_longer_one_begins_like_a_shorter():
    short = [digest(frame) for frame in iter_shapes_clip(7, 3, (120, 160))]
    assert short == [digest(frame) for frame in iter_shapes_clip(7, 5, (120, 160))][:3]
    assert len(set(short)) == 3
    assert short != [digest(frame) for frame in iter_shapes_clip(8, 3, (120, 160))]
    assert list(iter_shapes_clip(7, 0)) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_shapes_of_a_clip_move_continuously_with_labels_for_each_frame(scenes, seed):
    frames = list(iter_shapes_clip(seed, 90, (240, 320)))
    assert len(frames) == 90 and all(frame.pixels.shape == (240, 320, 3) for frame in frames)
    centres = np.array([[drawn.centre_xy for drawn in objects] for objects, _ in scenes])  # (90, N, 2)
    sizes = np.array([[drawn.size for drawn in objects] for objects, _ in scenes])
    assert 5 <= centres.shape[1] <= 8
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=2)
    assert np.all(steps <= 0.015 * 240 + 1e-6)
    assert np.all(np.linalg.norm(np.ptp(centres, axis=0), axis=1) > 10)
    assert np.all(np.abs(np.diff(np.log(sizes), axis=0)) < 0.04)
    assert np.all(centres > 0) and np.all(centres < (320, 240))
    for (objects, _), frame in zip(scenes, frames, strict=True):
        assert len(frame.class_ids) >= 1
        assert not Counter(frame.class_ids.tolist()) - Counter(drawn.class_id for drawn in objects)
        assert np.all(frame.xyxy[:, :2] >= 0) and np.all(frame.xyxy[:, 2:] <= (320, 240))
        ids = [drawn.class_id for drawn in objects]
        for class_id, xyxy in zip(frame.class_ids.tolist(), frame.xyxy, strict=True):
            if ids.count(class_id) == 1:  # its box lies where it is, and reaches no farther than it does
                drawn = objects[ids.index(class_id)]
                assert np.all(np.abs(xyxy.reshape(2, 2) - drawn.centre_xy) <= 0.75 * drawn.size + 1)


def test_a_bouncing_shape_never_leaves_the_picture():
    motion = Motion(shape("star", (30.0, 30.0), 20), (3.7, -2.9), 0.05, 0.2, 50)
    centres = np.array([motion.at(frame, (64, 96)).centre_xy for frame in range(500)])
    assert_allclose(centres[0], (30, 30))
    assert_allclose(centres[5], (30 + 5 * 3.7, 30 - 5 * 2.9))
    assert_allclose([centres.min(axis=0), centres.max(axis=0)], [(6, 6), (90, 58)], atol=4)
    assert np.all(centres >= 6 - 1e-9) and np.all(centres <= (90 + 1e-9, 58 + 1e-9))
