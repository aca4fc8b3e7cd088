"""Training samples: pictures in the network's input with their boxes, varied at random but reproducibly.

Without augmentation a sample is exactly what inference sees. With it, one map per picture scales, shifts and mirrors at
once, and the border keeps the grey that it has at inference.
"""

import logging
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.images import load_image
from yolov3_trt.data.labelled import LabelledFile
from yolov3_trt.errors import require
from yolov3_trt.geometry import HW, FloatArray, Placement, cxcywh_to_xyxy
from yolov3_trt.meta import Preprocess
from yolov3_trt.preprocess import Image, fit_image
from yolov3_trt.training.settings import Augmentation

_LOG = logging.getLogger(__name__)

_MIN_SIDE = 2.0  # input px; smaller objects are not worth learning
_MIN_VISIBLE = 0.2  # of an object's area; of a smaller part nobody could tell what it is
_HUES = 180  # OpenCV's full circle for uint8


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture in the input and the objects in it; the caller owns the arrays."""

    pixels: Image  # uint8 (input_h, input_w, 3) BGR
    cxcywh: FloatArray  # (N, 4) input px
    class_ids: NDArray[np.int32]  # (N,)


@dataclass(frozen=True, eq=False)
class _Map:
    """Axis by axis from a picture to the input: `scale * picture px + offset`; a negative scale mirrors."""

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]

    def mirrored(self, input_width: int) -> "_Map":
        """The same, seen in a mirror: x becomes `input_width - x`."""
        (scale_x, scale_y), (offset_x, offset_y) = self.scale_xy, self.offset_xy
        return _Map((-scale_x, scale_y), (input_width - offset_x, offset_y))

    def boxes(self, xyxy: FloatArray) -> FloatArray:
        """Boxes (N, 4) in picture px -> boxes (N, 4) in input px, not clipped."""
        corners = xyxy.reshape(-1, 2, 2) * np.array(self.scale_xy) + np.array(self.offset_xy)
        ordered = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return ordered.astype(np.float32)

    def draw(self, picture: Image, pixels: Image) -> Image:
        """Draw a picture into the input, all of it that fits; returns the part of `pixels` that it covers."""
        cv2 = require("cv2", extra="opencv")
        left, right = self._span(0, picture.shape[1], pixels.shape[1])
        top, bottom = self._span(1, picture.shape[0], pixels.shape[0])
        part = pixels[top:bottom, left:right]
        if not part.size:
            return part
        (scale_x, scale_y), (offset_x, offset_y) = self.scale_xy, self.offset_xy
        if scale_x == scale_y == 1 and offset_x % 1 == offset_y % 1 == 0:  # exact by any OpenCV
            y, x = top - int(offset_y), left - int(offset_x)
            part[:] = picture[y : y + bottom - top, x : x + right - left]
            return part
        # warpAffine maps pixel indices, whose centres lie at index + 0.5.
        from_part = np.array(
            [
                [1 / scale_x, 0, (left + 0.5 - offset_x) / scale_x - 0.5],
                [0, 1 / scale_y, (top + 0.5 - offset_y) / scale_y - 0.5],
            ]
        )
        # The border rule only concerns the outermost half pixel, as the part ends where the picture does; repeating it is
        # what resizing does at inference.
        cv2.warpAffine(
            picture,
            from_part,
            (right - left, bottom - top),
            dst=part,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return part

    def _span(self, axis: int, length: int, limit: int) -> tuple[int, int]:
        """Where a picture of `length` starts and ends on an axis of the input, whole px."""
        ends = sorted((self.offset_xy[axis], self.scale_xy[axis] * length + self.offset_xy[axis]))
        start, end = (min(max(math.floor(value + 0.5), 0), limit) for value in ends)
        return start, end


class Samples:
    """Training samples on demand.

    A sample depends on the seed, its epoch and its index only, never on what was asked for before. May be called from any
    number of threads.
    """

    def __init__(
        self,
        files: Sequence[LabelledFile],
        input_hw: HW,
        preprocess: Preprocess,
        augmentation: Augmentation,
        *,
        seed: int,
        cache_bytes: int = 512 << 20,
    ) -> None:
        """Make samples of files.

        Args:
            files: one sample of each per epoch.
            input_hw: of the network, input px.
            preprocess: of the model.
            augmentation: how far samples vary.
            seed: 0 or more.
            cache_bytes: memory for pictures at input size, which saves reading them again.
        """
        self._files = tuple(files)
        self._input_hw = input_hw
        self._preprocess = preprocess
        self._augmentation = augmentation
        self._seed = seed
        self._cache: dict[int, tuple[Image, Placement]] = {}
        self._cache_left_bytes = cache_bytes
        self._is_cache_full = False
        self._lock = threading.Lock()

    @classmethod
    def of_pictures(
        cls, pictures: Iterable[Image], input_hw: HW, preprocess: Preprocess, augmentation: Augmentation, *, seed: int
    ) -> "Samples":
        """Make samples without objects of pictures, uint8 (H, W, 3) BGR, all of which are kept at input size."""
        fitted = [_fitted(pixels, input_hw, preprocess) for pixels in pictures]
        nothing = np.zeros((0, 4)), np.zeros(0, np.int32)
        files = [LabelledFile(Path(), picture.shape[:2], *nothing) for picture, _ in fitted]
        samples = cls(files, input_hw, preprocess, augmentation, seed=seed)
        samples._cache = dict(enumerate(fitted))
        return samples

    def __len__(self) -> int:
        return len(self._files)

    def __call__(self, epoch: int, index: int, *, mosaic: bool = True) -> Sample:
        """The sample of one file in one epoch.

        Args:
            epoch: 0 or more.
            index: of the file.
            mosaic: whether there may be one; the last epochs of a training do better without.

        Raises:
            ImageError: the picture cannot be read any more.
        """
        rng = np.random.default_rng((self._seed, epoch, index))
        augmentation = self._augmentation
        has_mosaic = bool(rng.random() < augmentation.mosaic) and mosaic
        is_flipped = bool(rng.random() < augmentation.flip)
        tables = _colour_tables(rng, augmentation)
        maps = self._mosaic_maps(rng, index) if has_mosaic else self._single_map(rng, index)
        if is_flipped:
            maps = [(file, to_input.mirrored(self._input_hw[1])) for file, to_input in maps]
        pixels = np.full((*self._input_hw, 3), self._preprocess.pad_value, np.uint8)
        boxes: list[FloatArray] = []
        for file, to_input in maps:
            picture, _ = self._picture(file)
            _recolour(to_input.draw(picture, pixels), tables)
            boxes.append(to_input.boxes(_scaled(cxcywh_to_xyxy(self._files[file].cxcywh), picture)))
        class_ids = np.concatenate([self._files[file].class_ids for file, _ in maps])
        cxcywh, kept = _visible(np.concatenate(boxes), self._input_hw)
        return Sample(pixels, cxcywh, class_ids[kept])

    def _single_map(self, rng: np.random.Generator, index: int) -> list[tuple[int, _Map]]:
        """The picture where inference puts it, scaled about the centre of the input and shifted."""
        gain, centre_yx = self._view(rng)
        _, placement = self._picture(index)
        y, x = (
            gain * (offset - side / 2) + centre
            for offset, side, centre in zip(placement.offset_hw, self._input_hw, centre_yx, strict=True)
        )
        return [(index, _Map((gain, gain), (x, y)))]

    def _mosaic_maps(self, rng: np.random.Generator, index: int) -> list[tuple[int, _Map]]:
        """Four pictures around a point, of a canvas twice the input's size (Bochkovskiy et al., arXiv 2004.10934).

        The point is anywhere in the middle of the canvas, whose centre lies where `_view` says.
        """
        gain, centre_yx = self._view(rng)
        # In whole input px, so that no pixel belongs to two pictures.
        point_y, point_x = (
            math.floor(gain * rng.uniform(-0.5, 0.5) * side + centre + 0.5)
            for side, centre in zip(self._input_hw, centre_yx, strict=True)
        )
        others = rng.integers(len(self._files), size=3).tolist()
        maps = []
        for number, file in enumerate((index, *others)):
            height, width = self._picture(file)[0].shape[:2]
            # The corner of the picture that touches the point: left and upper pictures end there, others start.
            x = point_x - gain * width * (number % 2 == 0)
            y = point_y - gain * height * (number < 2)
            maps.append((file, _Map((gain, gain), (x, y))))
        return maps

    def _view(self, rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
        """The gain, and where the centre of what is shown comes to lie: (y, x) in input px."""
        scale, translate = self._augmentation.scale, self._augmentation.translate
        gain = rng.uniform(1 - scale, 1 + scale)
        y, x = ((0.5 + rng.uniform(-translate, translate)) * side for side in self._input_hw)
        return gain, (y, x)

    def _picture(self, index: int) -> tuple[Image, Placement]:
        """A picture as inference resizes it, without its border, and where inference would put it; not to be changed."""
        known = self._cache.get(index)
        if known is not None:
            return known
        picture, placement = _fitted(load_image(self._files[index].path), self._input_hw, self._preprocess)
        with self._lock:
            if index not in self._cache and not self._is_cache_full:
                self._is_cache_full = picture.nbytes > self._cache_left_bytes
                if self._is_cache_full:
                    text = "the picture cache is full: %d of %d pictures are in it, the others are read in every epoch"
                    _LOG.info(text, len(self._cache), len(self._files))
                else:
                    self._cache_left_bytes -= picture.nbytes
                    self._cache[index] = picture, placement
        return picture, placement


def _fitted(pixels: Image, input_hw: HW, preprocess: Preprocess) -> tuple[Image, Placement]:
    """A picture as inference resizes it, without its border, and where inference would put it."""
    fitted = np.empty((*input_hw, 3), np.uint8)
    placement = fit_image(pixels, preprocess, fitted)
    (top, left), (height, width) = placement.offset_hw, placement.resized_hw
    return fitted[top : top + height, left : left + width].copy(), placement


def _scaled(xyxy: FloatArray, picture: Image) -> FloatArray:
    """Boxes (N, 4) relative to a picture -> boxes (N, 4) in its px."""
    height, width = picture.shape[:2]
    return xyxy * np.array((width, height, width, height), np.float32)


def _visible(xyxy: FloatArray, input_hw: HW) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Clip boxes (N, 4) to the input; returns those worth keeping as cxcywh (M, 4), and which they are: (N,)."""
    height, width = input_hw
    clipped = xyxy.clip(0, np.array((width, height, width, height), np.float32))
    sides, clipped_sides = xyxy[:, 2:] - xyxy[:, :2], clipped[:, 2:] - clipped[:, :2]
    kept = (clipped_sides >= _MIN_SIDE).all(axis=1) & (clipped_sides.prod(axis=1) >= _MIN_VISIBLE * sides.prod(axis=1))
    centres = (clipped[:, :2] + clipped[:, 2:]) / 2
    return np.concatenate([centres, clipped_sides], axis=1)[kept], kept


def _colour_tables(rng: np.random.Generator, augmentation: Augmentation) -> Image | None:
    """Random lookup tables (1, 256, 3) for hue, saturation and value; None where nothing varies."""
    spreads = (augmentation.hue, augmentation.saturation, augmentation.value)
    hue, saturation, value = rng.uniform(-1, 1, 3) * spreads
    if not any(spreads):
        return None
    levels = np.arange(256)
    tables = np.stack(
        [
            (levels + round(hue * _HUES)) % _HUES,
            (levels * (1 + saturation)).clip(0, 255),
            (levels * (1 + value)).clip(0, 255),
        ],
        axis=1,
    )
    return tables.round().astype(np.uint8)[None]  # (1, 256, 3)


def _recolour(part: Image, tables: Image | None) -> None:
    """Change the colours of a part of the input in place."""
    if tables is None or not part.size:
        return
    cv2 = require("cv2", extra="opencv")
    hsv = cv2.LUT(cv2.cvtColor(part, cv2.COLOR_BGR2HSV), tables)
    cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=part)
