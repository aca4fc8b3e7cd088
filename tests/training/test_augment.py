"""Training samples: the same pixels as at inference, boxes that follow them, and nothing but the seed decides."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from yolov3_trt.data.images import load_image
from yolov3_trt.data.labelled import LabelledFile
from yolov3_trt.errors import SettingError
from yolov3_trt.geometry import Resize, cxcywh_to_xyxy
from yolov3_trt.meta import Preprocess
from yolov3_trt.preprocess import fit_image
from yolov3_trt.training.augment import Sample, Samples
from yolov3_trt.training.settings import Augmentation

NONE = Augmentation(0, 0, 0, 0, 0, 0, 0)
GEOMETRY = Augmentation(mosaic=0, hue=0, saturation=0, value=0)
MOSAIC = Augmentation(hue=0, saturation=0, value=0)
BLACK = Preprocess(pad_value=0)


def labelled(path: Path, pixels: np.ndarray, xyxy=(), class_ids=None) -> LabelledFile:
    """A picture on disk with boxes in its px."""
    assert cv2.imwrite(str(path), pixels)
    height, width = pixels.shape[:2]
    xywh = np.array(xyxy, np.float64).reshape(-1, 4)
    xywh[:, 2:] -= xywh[:, :2]
    ids = np.array(range(len(xywh)) if class_ids is None else class_ids, np.int32)
    return LabelledFile(path, (height, width), xywh, ids)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def noisy_files(folder: Path, count: int = 5) -> list[LabelledFile]:
    return [
        labelled(folder / f"{n}.png", noise(30 + 9 * n, 60 - 5 * n, n), [[4, 6, 24, 28], [10, 1, 30, 20]])
        for n in range(count)
    ]


def rectangle_file(path: Path, image_hw, xyxy, level: int = 255) -> LabelledFile:
    pixels = np.zeros((*image_hw, 3), np.uint8)
    x1, y1, x2, y2 = xyxy
    pixels[y1:y2, x1:x2] = level
    return labelled(path, pixels, [xyxy])


def assert_same(a: Sample, b: Sample) -> None:
    assert_array_equal(a.pixels, b.pixels)
    assert_array_equal(a.cxcywh, b.cxcywh)
    assert_array_equal(a.class_ids, b.class_ids)


# --- without augmentation ---


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize("image_hw", [(48, 64), (64, 48), (37, 91), (32, 64), (200, 3)])
def test_no_augmentation_is_what_inference_sees(tmp_path: Path, resize: Resize, image_hw):
    preprocess = Preprocess(resize, pad_value=77)
    box = [0, image_hw[0] // 4, image_hw[1], image_hw[0] // 2]
    file = labelled(tmp_path / "a.png", noise(*image_hw), [box], [3])
    expected = np.empty((48, 64, 3), np.uint8)
    placement = fit_image(load_image(file.path), preprocess, expected)
    sample = Samples([file], (48, 64), preprocess, NONE, seed=0)(2, 0)
    assert_array_equal(sample.pixels, expected)
    if placement.resized_hw[1] >= 2:
        xyxy = placement.to_input(np.array([box], np.float32))
        assert_allclose(cxcywh_to_xyxy(sample.cxcywh), xyxy, atol=1e-4)
        assert_array_equal(sample.class_ids, [3])
    assert (sample.pixels.dtype, sample.cxcywh.dtype, sample.class_ids.dtype) == (np.uint8, np.float32, np.int32)


def test_flip_alone_is_the_mirrored_input(tmp_path: Path):
    (file, *_) = files = noisy_files(tmp_path)
    plain = Samples(files, (48, 64), Preprocess(), NONE, seed=0)(0, 0)
    flipped = Samples(files, (48, 64), Preprocess(), Augmentation(0, 1, 0, 0, 0, 0, 0), seed=0)(0, 0)
    assert_array_equal(flipped.pixels, plain.pixels[:, ::-1])
    assert_allclose(flipped.cxcywh, plain.cxcywh * (-1, 1, 1, 1) + (64, 0, 0, 0), atol=1e-4)
    assert_array_equal(flipped.class_ids, file.class_ids)


def test_half_of_the_samples_are_flipped(tmp_path: Path):
    file = rectangle_file(tmp_path / "a.png", (48, 64), (5, 10, 15, 30))
    samples = Samples([file], (48, 64), Preprocess(), Augmentation(0, 0.5, 0, 0, 0, 0, 0), seed=1)
    flips = sum(samples(epoch, 0).cxcywh[0, 0] > 32 for epoch in range(200))
    assert 75 < flips < 125


# --- boxes follow pixels ---


def spans(pixels: np.ndarray, level: int) -> np.ndarray | None:
    """xyxy of what is at least half as bright as `level`; None where there is nothing."""
    bright = pixels[..., 0] >= level / 2
    if not bright.any():
        return None
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize("image_hw", [(100, 150), (64, 96), (115, 71)])  # at most halved: beyond, resizing skips pixels
def test_the_box_of_a_bright_rectangle_is_where_its_pixels_are(tmp_path: Path, resize: Resize, image_hw):
    height, width = image_hw
    file = rectangle_file(tmp_path / "a.png", image_hw, (width // 3, height // 5, width // 3 * 2, height // 2))
    samples = Samples([file], (64, 96), Preprocess(resize, 0), GEOMETRY, seed=3)
    errors = []
    for epoch in range(150):
        sample = samples(epoch, 0)
        if len(sample.cxcywh):
            errors.append(cxcywh_to_xyxy(sample.cxcywh)[0] - spans(sample.pixels, 255))
    assert len(errors) > 140
    assert np.abs(errors).max() < 1


def test_boxes_are_exact_to_a_fraction_of_a_pixel(tmp_path: Path):
    # A wrong idea of where pixel centres lie would move boxes by up to half a pixel, by another amount for each gain.
    y, x = np.mgrid[:64, :96] + 0.5
    blob = 255 * np.exp(-((x - 48) ** 2 + (y - 32) ** 2) / (2 * 4**2))  # smooth, so that sampling keeps its centre
    file = labelled(tmp_path / "a.png", np.repeat(blob.astype(np.uint8)[..., None], 3, axis=2), [[40, 24, 56, 40]])
    samples = Samples([file], (64, 96), BLACK, GEOMETRY, seed=4)
    errors = []
    for epoch in range(200):
        sample = samples(epoch, 0)
        weights = sample.pixels[..., 0] / sample.pixels[..., 0].sum()
        centre = ((np.arange(96) + 0.5) @ weights.sum(axis=0), (np.arange(64) + 0.5) @ weights.sum(axis=1))
        errors.append(sample.cxcywh[0, :2] - centre)
    assert np.abs(errors).max() < 0.05


def test_the_boxes_of_a_mosaic_are_where_the_pixels_of_each_picture_are(tmp_path: Path):
    # Each object has a brightness of its own, on black.
    levels = (60, 120, 180, 240)
    files = []
    for number, (level, image_hw) in enumerate(zip(levels, [(80, 120), (120, 60), (64, 96), (40, 40)], strict=True)):
        height, width = image_hw
        pixels = np.zeros((*image_hw, 3), np.uint8)
        pixels[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = level
        box = [width // 4, height // 4, width // 4 * 3, height // 4 * 3]
        files.append(labelled(tmp_path / f"{level}.png", pixels, [box], [number]))
    samples = Samples(files, (96, 128), BLACK, MOSAIC, seed=5)
    found, errors = 0, []
    for epoch in range(150):
        sample = samples(epoch, epoch % 4)
        found += len(sample.class_ids)
        for (x1, y1, x2, y2), class_id in zip(cxcywh_to_xyxy(sample.cxcywh), sample.class_ids, strict=True):
            level = levels[class_id]
            left, top, right, bottom = (round(float(value)) for value in (x1, y1, x2, y2))
            near = sample.pixels[max(0, top - 3) : bottom + 3, max(0, left - 3) : right + 3]
            seen = spans(near, level)
            assert seen is not None
            seen += np.array([max(0, left - 3), max(0, top - 3)] * 2, np.float32)
            errors.append(seen - (x1, y1, x2, y2))
            middle = sample.pixels[int((y1 + y2) / 2), int((x1 + x2) / 2)]
            assert_array_equal(middle, [level] * 3)
    assert found > 250
    assert np.abs(errors).max() < 1


def test_a_mosaic_has_no_seams_and_pictures_do_not_overlap(tmp_path: Path):
    # Pictures as large as the input, each of one grey: nothing but these greys and the border may appear.
    levels = (50, 100, 150, 200)
    files = [labelled(tmp_path / f"{level}.png", np.full((64, 64, 3), level, np.uint8)) for level in levels]
    samples = Samples(files, (64, 64), Preprocess(pad_value=7), MOSAIC, seed=0)
    counts = []
    for epoch in range(60):
        sample = samples(epoch, epoch % 4)
        present = set(np.unique(sample.pixels))
        assert present <= {7, *levels}
        counts.append(len(present - {7}))
    assert max(counts) == 4


# --- which objects stay ---


def test_pictures_without_objects_give_samples_without(tmp_path: Path):
    files = [labelled(tmp_path / f"{n}.png", noise(20, 30)) for n in range(2)]
    for augmentation in (NONE, GEOMETRY, Augmentation()):
        sample = Samples(files, (32, 32), Preprocess(), augmentation, seed=0)(0, 1)
        assert (sample.cxcywh.shape, sample.class_ids.shape) == ((0, 4), (0,))


def test_objects_below_two_px_are_dropped(tmp_path: Path):
    boxes = [[10, 10, 12, 30], [10, 10, 30, 11], [40, 20, 41, 21], [3, 3, 8, 8]]
    file = labelled(tmp_path / "a.png", noise(64, 64), boxes)
    sample = Samples([file], (64, 64), Preprocess(), NONE, seed=0)(0, 0)
    assert_array_equal(sample.class_ids, [0, 3])
    tiny = labelled(tmp_path / "b.png", noise(64, 64), boxes[2:3])
    assert not len(Samples([tiny], (64, 64), Preprocess(), NONE, seed=0)(0, 0).cxcywh)


def test_boxes_are_clipped_and_dropped_when_little_is_left(tmp_path: Path):
    file = labelled(tmp_path / "a.png", noise(64, 64), [[0, 0, 32, 64], [32, 32, 64, 64]])
    samples = Samples([file], (64, 64), Preprocess(), Augmentation(0, 0, 0, 1, 0, 0, 0), seed=0)
    seen = set()
    for epoch in range(80):
        sample = samples(epoch, 0)
        seen.add(tuple(sample.class_ids.tolist()))
        xyxy = cxcywh_to_xyxy(sample.cxcywh)
        assert (xyxy >= -1e-4).all() and (xyxy <= 64 + 1e-4).all()
        areas = sample.cxcywh[:, 2:].prod(axis=1)
        assert (areas >= 0.2 * np.array([32 * 64, 32 * 32])[sample.class_ids] - 1e-2).all()
    assert seen == {(), (0,), (1,), (0, 1)}


# --- colours ---


def test_colour_changes_do_not_move_pixels_or_touch_the_border(tmp_path: Path):
    file = rectangle_file(tmp_path / "a.png", (32, 64), (20, 5, 50, 25), level=120)
    plain = Samples([file], (64, 64), Preprocess(pad_value=99), NONE, seed=0)(0, 0)
    samples = Samples([file], (64, 64), Preprocess(pad_value=99), Augmentation(0, 0, 0, 0, 0.015, 0.7, 0.4), seed=0)
    levels = set()
    for epoch in range(30):
        sample = samples(epoch, 0)
        (level,) = np.unique(sample.pixels[21:41, 20:50])
        assert abs(int(level) - 120) <= 0.4 * 120 + 1
        expected = plain.pixels.copy()
        expected[21:41, 20:50] = level
        assert_array_equal(sample.pixels, expected)
        assert_array_equal(sample.cxcywh, plain.cxcywh)
        levels.add(int(level))
    assert len(levels) > 10


def test_hue_turns_within_its_share_of_the_circle(tmp_path: Path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., 2] = 200  # red, hue 0
    file = labelled(tmp_path / "a.png", pixels)
    samples = Samples([file], (32, 32), Preprocess(), Augmentation(0, 0, 0, 0, 0.1, 0, 0), seed=0)
    hues = {int(cv2.cvtColor(samples(epoch, 0).pixels, cv2.COLOR_BGR2HSV)[0, 0, 0]) for epoch in range(60)}
    signed = {hue if hue < 90 else hue - 180 for hue in hues}
    assert min(signed) < -10 and max(signed) > 10 and max(map(abs, signed)) <= 18


# --- nothing but the seed decides ---


def test_samples_do_not_depend_on_what_was_asked_before(tmp_path: Path):
    files = noisy_files(tmp_path)
    first, second = (Samples(files, (48, 64), Preprocess(), Augmentation(), seed=9) for _ in range(2))
    asked = [(epoch, index) for epoch in range(3) for index in range(len(files))]
    results = {key: first(*key) for key in asked}
    with ThreadPoolExecutor(4) as pool:
        for key, sample in zip(asked[::-1], pool.map(lambda key: second(*key), asked[::-1]), strict=True):
            assert_same(sample, results[key])
    distinct = {sample.pixels.tobytes() for sample in results.values()}
    assert len(distinct) == len(asked)
    other_seed = Samples(files, (48, 64), Preprocess(), Augmentation(), seed=8)
    assert other_seed(0, 0).pixels.tobytes() != results[0, 0].pixels.tobytes()


def test_a_mosaic_can_be_refused(tmp_path: Path):
    files = noisy_files(tmp_path)
    samples = Samples(files, (48, 64), Preprocess(), Augmentation(1, 0, 0, 0, 0, 0, 0), seed=0)
    plain = Samples(files, (48, 64), Preprocess(), NONE, seed=0)
    assert_same(samples(0, 2, mosaic=False), plain(0, 2))
    assert samples(0, 2).pixels.tobytes() != plain(0, 2).pixels.tobytes()


def test_a_full_cache_changes_nothing_but_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files = noisy_files(tmp_path)
    cached = Samples(files, (48, 64), Preprocess(), Augmentation(), seed=0)
    tight = Samples(files, (48, 64), Preprocess(), Augmentation(), seed=0, cache_bytes=2 * 48 * 64 * 3)
    with caplog.at_level(logging.INFO):
        for epoch in range(3):
            for index in range(len(files)):
                assert_same(cached(epoch, index), tight(epoch, index))
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("the picture cache is full: ")
    assert message.endswith(" of 5 pictures are in it, the others are read in every epoch")


def test_cached_pictures_are_not_read_again_and_samples_are_the_callers(tmp_path: Path):
    files = noisy_files(tmp_path, 2)
    samples = Samples(files, (48, 64), Preprocess(), NONE, seed=0)
    assert len(samples) == 2
    before = samples(0, 0)
    files[0].path.unlink()
    pixels = before.pixels.copy()
    before.pixels[:] = 0
    before.cxcywh[:] = 0
    assert_array_equal(samples(1, 0).pixels, pixels)
    assert samples(1, 0).cxcywh.all()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"flip": 1.5}, "flip: got 1.5; expected 0 to 1"),
        ({"translate": -0.1}, "translate: got -0.1; expected 0 to 1"),
        ({"scale": 1}, "scale: got 1; expected 0 to 0.99"),
        ({"hue": float("nan")}, "hue: got nan; expected 0 to 1"),
    ],
)
def test_impossible_augmentation_is_refused(values: dict, text: str):
    with pytest.raises(SettingError) as caught:
        Augmentation(**values)
    assert str(caught.value) == text
