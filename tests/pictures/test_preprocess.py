"""From pictures to the input: exact pixels by hand."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from yolov3_trt.errors import ImageError
from yolov3_trt.geometry import Placement, Resize
from yolov3_trt.meta import InputStage, ModelMeta, Preprocess
from yolov3_trt.preprocess import InputBuffer, fit_image, prepare_batch
from yolov3_trt.spec import Head


def meta(
    input_hw, stage: InputStage = InputStage.PIXELS, resize: Resize = Resize.LETTERBOX, pad_value: int = 128
) -> ModelMeta:
    heads = (Head("head0", 0, ((1.0, 1.0),), 1, (1, 1)),)
    preprocess = Preprocess(resize, pad_value)
    return ModelMeta("m", input_hw, heads, ("thing",), input_stage=stage, preprocess=preprocess)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def grey(*rows: list[int]) -> np.ndarray:
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("resize", Resize)
def test_picture_of_the_inputs_size_enters_unchanged(resize: Resize):
    image = picture(6, 4)
    batch, placements = prepare_batch([image], meta((6, 4), resize=resize))
    assert batch.dtype == np.uint8
    assert_array_equal(batch, image[None])
    assert placements == (Placement((6, 4), (6, 4), (6, 4), (0, 0)),)


def test_tensor_is_rgb_planes_from_0_to_1():
    image = np.array([[[255, 51, 0], [0, 102, 255]]], np.uint8)  # blue, green, red
    batch, _ = prepare_batch([image], meta((1, 2), InputStage.TENSOR))
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, [[[[0, 1]], [[0.2, 0.4]], [[1, 0]]]], rtol=1e-6)


def test_a_model_of_one_channel_gets_grey():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)  # blue, green, red, grey
    batch, _ = prepare_batch([image], replace(meta((1, 4), InputStage.TENSOR), channels=1))
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, [[[[0.114, 0.587, 0.299, 90 / 255]]]], rtol=1e-6)
    pixels, _ = prepare_batch([image], replace(meta((1, 4)), channels=1))
    assert_array_equal(pixels, image[None])  # such a graph makes its grey itself


@pytest.mark.parametrize(
    "image_hw, rows, columns",
    [((2, 4), slice(1, 3), slice(None)), ((4, 2), slice(None), slice(1, 3)), ((3, 4), slice(0, 3), slice(None))],
    ids=["wide", "tall", "odd border: the larger part after"],
)
@pytest.mark.parametrize("pad_value", [128, 0])
def test_letterbox_centres_the_picture_in_a_border(image_hw, rows, columns, pad_value: int):
    image = picture(*image_hw)
    expected = np.full((1, 4, 4, 3), pad_value, np.uint8)
    expected[0, rows, columns] = image
    batch, _ = prepare_batch([image], meta((4, 4), pad_value=pad_value))
    assert_array_equal(batch, expected)


@pytest.mark.parametrize(
    "before, after",
    [
        ([0, 100], [0, 25, 75, 100]),  # centres at -.25, .25, .75, 1.25
        ([0, 10, 200, 0, 0, 30, 50, 0], [105, 40]),  # centres at 1.5 and 5.5, no antialiasing
    ],
)
def test_resize_is_bilinear_with_half_pixel_centres(before: list[int], after: list[int]):
    batch, _ = prepare_batch([grey(before)], meta((1, len(after)), resize=Resize.STRETCH))
    assert_array_equal(batch[0], grey(after))


def test_one_pixel_fills_the_input():
    batch, placements = prepare_batch([grey([77])], meta((5, 5)))
    assert (batch == 77).all()
    assert placements[0].resized_hw == (5, 5)


@pytest.mark.parametrize("resize", Resize)
def test_pixels_and_tensor_stages_see_the_same_numbers(resize: Resize):
    images = [picture(33, 51), picture(97, 13, seed=1), picture(32, 64, seed=2)]
    pixels, pixel_placements = prepare_batch(images, meta((32, 64), InputStage.PIXELS, resize))
    tensor, tensor_placements = prepare_batch(images, meta((32, 64), InputStage.TENSOR, resize))
    assert (pixels.shape, tensor.shape) == ((3, 32, 64, 3), (3, 3, 32, 64))
    assert pixel_placements == tensor_placements
    assert [placement.image_hw for placement in tensor_placements] == [(33, 51), (97, 13), (32, 64)]
    assert_array_equal(tensor, pixels[..., ::-1].transpose(0, 3, 1, 2) * np.float32(1 / 255))


@pytest.mark.parametrize("stage", InputStage)
def test_a_buffer_is_filled_again_whole(stage: InputStage):
    images = [picture(20, 50), picture(50, 20, seed=1)]
    fresh, placements = prepare_batch(images, meta((32, 32), stage))
    buffer = InputBuffer(meta((32, 32), stage), rows=3)
    buffer.batch[:] = 99
    prepare_batch(images[::-1], meta((32, 32), stage), buffer)
    again, same_placements = prepare_batch(images, meta((32, 32), stage), buffer)
    assert again is buffer.batch
    assert_array_equal(again[:2], fresh)
    assert (again[2] == 99).all(), "surplus rows keep what they hold"
    assert placements == same_placements


@pytest.mark.parametrize("stage", InputStage)
def test_no_pictures_make_an_empty_input(stage: InputStage):
    batch, placements = prepare_batch([], meta((32, 64), stage))
    assert batch.shape == ((0, 32, 64, 3) if stage is InputStage.PIXELS else (0, 3, 32, 64))
    assert placements == ()


@pytest.mark.parametrize(
    "view", [lambda a: a[:, ::-1], lambda a: a[::2, 1:-1], lambda a: a[..., ::-1]], ids=["mirrored", "cut", "RGB"]
)
def test_views_are_read_like_their_copies_and_left_alone(view):
    whole = picture(41, 31)
    before = whole.copy()
    for image_hw in ((32, 32), view(whole).shape[:2]):
        batch, _ = prepare_batch([view(whole)], meta(image_hw, InputStage.TENSOR))
        expected, _ = prepare_batch([np.ascontiguousarray(view(whole))], meta(image_hw, InputStage.TENSOR))
        assert_array_equal(batch, expected)
    assert_array_equal(whole, before)


@pytest.mark.parametrize(
    "image, got",
    [
        (np.zeros((2, 3, 3), np.float32), "float32 (2, 3, 3)"),
        (np.zeros((2, 3), np.uint8), "uint8 (2, 3)"),
        (np.zeros((2, 3, 4), np.uint8), "uint8 (2, 3, 4)"),
        (np.zeros((0, 3, 3), np.uint8), "uint8 (0, 3, 3)"),
        (np.zeros((2, 0, 3), np.uint8), "uint8 (2, 0, 3)"),
        (np.zeros((1, 2, 3, 3), np.uint8), "uint8 (1, 2, 3, 3)"),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray, got: str):
    with pytest.raises(ImageError) as caught:
        fit_image(image, Preprocess(), np.empty((4, 4, 3), np.uint8))
    assert str(caught.value) == f"an image is {got}; expected uint8 (height, width, 3) BGR"


# --- whole frames, for a graph that resizes them ---

CAMERA = replace(meta((16, 16)), frame_hw=(9, 32))


def test_a_whole_frame_enters_as_it_is_and_its_placement_is_that_of_the_graph():
    frames = [picture(9, 32), picture(9, 32, seed=1)]
    batch, placements = prepare_batch([frames[0], frames[1][:, ::-1]], CAMERA)
    assert batch.dtype == np.uint8
    assert_array_equal(batch, [frames[0], frames[1][:, ::-1]])
    # Half as wide, 4.5 rows are truncated to 4; 6 rows above and below.
    assert placements == (Placement((9, 32), (16, 16), (4, 16), (6, 0)),) * 2
    assert fit_image(frames[0], Preprocess(), np.empty((16, 16, 3), np.uint8)) == placements[0]


def test_a_buffer_of_frames_is_filled_again_whole():
    buffer = InputBuffer(CAMERA, rows=3)
    buffer.batch[:] = 99
    for seed in (1, 2):
        batch, _ = prepare_batch([picture(9, 32, seed), picture(9, 32, seed + 7)], CAMERA, buffer)
        assert batch is buffer.batch
        assert_array_equal(batch[:2], [picture(9, 32, seed), picture(9, 32, seed + 7)])
    assert (buffer.batch[2] == 99).all(), "surplus rows keep what they hold"


@pytest.mark.parametrize("image_hw", [(32, 9), (16, 16), (9, 33), (1, 32)])
def test_a_picture_that_is_no_such_frame_is_refused(image_hw):
    with pytest.raises(ImageError) as caught:
        prepare_batch([picture(9, 32), picture(*image_hw)], CAMERA)
    assert str(caught.value) == (
        f"an image is uint8 ({image_hw[0]}, {image_hw[1]}, 3); expected uint8 (9, 32, 3): this graph takes whole frames and "
        "resizes them itself; feed frames of that size, or export the model without frame_size"
    )


def test_a_frame_of_another_type_is_refused():
    with pytest.raises(ImageError, match=r"an image is float32 \(9, 32, 3\); expected uint8 \(height, width, 3\) BGR"):
        prepare_batch([picture(9, 32).astype(np.float32)], CAMERA)
