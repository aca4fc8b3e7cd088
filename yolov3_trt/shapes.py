"""Made-up pictures and clips of six kinds of shapes, with exact labels: a data set that needs no download.

Picture `index` of a seed depends on these two numbers alone. A shape is drawn at sub-pixel precision; its box is read off
the label map, which holds the topmost shape of each pixel.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import OutputError, require
from yolov3_trt.files import make_folder, write_text
from yolov3_trt.geometry import HW, FloatArray, xyxy_to_xywh
from yolov3_trt.preprocess import Image

SHAPE_NAMES = ("circle", "square", "triangle", "star", "cross", "ring")
PICTURE_SIZES_HW: tuple[HW, ...] = ((256, 256), (240, 320), (320, 240), (216, 384))
MIN_VISIBLE = 0.5  # share of a shape's own area; a shape that is hidden more, which only a clip has, gets no label
MIN_CONTRAST = 80.0  # Euclidean distance of BGR colours 0..255, before the look

_FILLS = ("plain", "plain", "gradient", "stripes", "spots")
_SUPERSAMPLING = 4  # by two halvings
_PLACEMENT_TRIES = 6
# Thinner shapes would be lost once the longer side is scaled to a network's input of 256 px.
_MIN_SIZE_OF_LONGER_SIDE = 12 / 256
_SIZE_OF_SHORTER_SIDE = (0.06, 0.6)
_CLIP_SIZE_OF_SHORTER_SIDE = (0.12, 0.4)


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """A picture and what is on it, the rearmost shape first.

    Attributes:
        pixels: uint8 (H, W, 3) BGR.
        xyxy: (N, 4) float32 in image px, tight around the visible part of each shape; the right and lower edge are
            exclusive, so a single pixel at the origin is (0, 0, 1, 1).
        class_ids: (N,) int32, indices in `SHAPE_NAMES`.
    """

    pixels: Image
    xyxy: FloatArray
    class_ids: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class _Paint:
    """How a shape is filled; colours are (3,) BGR 0..255."""

    fill: str  # one of _FILLS
    colour: FloatArray
    second_colour: FloatArray  # also of the outline
    has_outline: bool
    period: float  # of stripes and spots, in sizes of the shape

    def weight(self, u: FloatArray, v: FloatArray) -> FloatArray:
        """Share of the second colour, 0..1, at points in the shape's own frame, where it reaches from about -0.5 to 0.5."""
        if self.fill == "gradient":
            return np.asarray((u + 0.5).clip(0, 1))
        waves = np.sin(u * np.float32(2 * np.pi / self.period))
        if self.fill == "spots":
            waves = waves * np.sin(v * np.float32(2 * np.pi / self.period))
        return np.asarray((4 * waves + 0.5).clip(0, 1))


@dataclass(frozen=True, eq=False)
class _Shape:
    """A shape at one moment, in image px."""

    class_id: int
    centre_xy: tuple[float, float]
    size: float  # diameter of a circle; the others look about as big
    aspect: float  # width by height before the rotation
    angle: float  # radians
    paint: _Paint

    @cached_property
    def _axes(self) -> FloatArray:
        """(2, 2): own frame -> image px, without the centre."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        sides = self.size * np.array([self.aspect**0.5, self.aspect**-0.5])
        return np.array(np.array([[c, -s], [s, c]]) * sides, np.float32)

    @cached_property
    def _outlines(self) -> list[FloatArray]:
        """Corners (K, 2) in image px; a second outline is a hole."""
        return [outline @ self._axes.T + np.array(self.centre_xy, np.float32) for outline in _OUTLINES[self.class_id]]

    @cached_property
    def origin_xy(self) -> NDArray[np.int32]:
        """Upper left pixel of `alpha` in the picture, maybe outside of it."""
        return np.array(np.floor(self._outlines[0].min(axis=0)) - 1, np.int32)

    @cached_property
    def alpha(self) -> FloatArray:
        """(h, w): the share of each pixel that the shape covers, 0..1."""
        return self._drawn()

    @cached_property
    def solid(self) -> NDArray[np.bool_]:
        """(h, w): the pixels of `alpha` that are the shape's: covered by half or more."""
        return np.greater_equal(self.alpha, 0.5)

    def _drawn(self, line_px: float | None = None) -> FloatArray:
        """The coverage (h, w) of the filled shape, or of a line along its edge."""
        cv2 = require("cv2", extra="opencv")
        width, height = np.ceil(self._outlines[0].max(axis=0) - self.origin_xy).astype(int).tolist()
        canvas = np.zeros(((height + 1) * _SUPERSAMPLING, (width + 1) * _SUPERSAMPLING), np.uint8)
        # A pixel reaches from its index to the next one, but for OpenCV its centre is at the index. Four fractional bits.
        points = [(((p - self.origin_xy) * _SUPERSAMPLING - 0.5) * 16).round().astype(np.int32) for p in self._outlines]
        if line_px is None:
            cv2.fillPoly(canvas, points, 255, shift=4)
        else:
            cv2.polylines(canvas, points, True, 255, max(1, round(line_px * _SUPERSAMPLING)), shift=4)
        for factor in (2, 1):  # OpenCV halves ten times as fast as it quarters
            canvas = cv2.resize(canvas, (factor * (width + 1), factor * (height + 1)), interpolation=cv2.INTER_AREA)
        return np.asarray(canvas * np.float32(1 / 255))

    def window(self, image_hw: HW) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of a picture that `alpha` lies on, and the part of `alpha` that lies on the picture; both may be empty."""
        in_picture, in_alpha = [], []
        for first, length, limit in zip(self.origin_xy[::-1].tolist(), self.alpha.shape, image_hw, strict=True):
            start, stop = min(max(first, 0), limit), min(max(first + length, 0), limit)
            in_picture.append(slice(start, stop))
            in_alpha.append(slice(start - first, stop - first))
        return (in_picture[0], in_picture[1]), (in_alpha[0], in_alpha[1])

    def draw(self, planes: FloatArray, labels: NDArray[np.uint8], label: int) -> None:
        """Blend the shape into a picture (3, H, W) and write its label to its pixels (H, W)."""
        (rows, columns), in_alpha = self.window((labels.shape[0], labels.shape[1]))
        colour, second_colour = self.paint.colour[:, None, None], self.paint.second_colour[:, None, None]
        if self.paint.fill != "plain":
            weight = self.paint.weight(*self._own_xy[(slice(None), *in_alpha)])
            colour = colour + weight * (second_colour - colour)
        if self.paint.has_outline:
            colour = colour + self._drawn(0.1 * self.size)[in_alpha] * (second_colour - colour)
        region = planes[:, rows, columns]
        region += self.alpha[in_alpha] * (colour - region)
        labels[rows, columns][self.solid[in_alpha]] = label

    @property
    def _own_xy(self) -> FloatArray:
        """(2, h, w): the pixel centres of `alpha` in the shape's own frame."""
        inverse = np.linalg.inv(self._axes)[:, :, None, None]  # (2, 2, 1, 1)
        x, y = (self.origin_xy - self.centre_xy + 0.5).astype(np.float32)
        height, width = self.alpha.shape
        along_y = np.arange(height, dtype=np.float32)[:, None] + y
        return np.array(inverse[:, 0] * (np.arange(width, dtype=np.float32) + x) + inverse[:, 1] * along_y, np.float32)


@dataclass(frozen=True, eq=False)
class _Motion:
    """A shape that moves: straight on until its centre bounces, turning, and growing and shrinking by a sine."""

    start: _Shape
    velocity_xy: tuple[float, float]  # px by frame
    spin: float  # radians by frame
    growth: float  # of the size, at most
    period: float  # of the growth, in frames

    def at(self, frame: int, image_hw: HW) -> _Shape:
        """The shape in a frame, counted from 0."""
        margin = 0.3 * self.start.size  # so that it is sometimes cut by the border
        spans = np.array(image_hw[::-1]) - 2 * margin
        gone = np.array(self.start.centre_xy) - margin + frame * np.array(self.velocity_xy)
        x, y = margin + spans - np.abs(gone % (2 * spans) - spans)
        size = self.start.size * (1 + self.growth * np.sin(2 * np.pi * frame / self.period))
        angle = self.start.angle + frame * self.spin
        return replace(self.start, centre_xy=(float(x), float(y)), size=float(size), angle=angle)


@dataclass(frozen=True, eq=False)
class _Look:
    """What a camera makes of a scene; none of it moves anything."""

    light: FloatArray  # (2, 2): factors for the corners
    tones: NDArray[np.uint8]  # (256,): contrast, brightness and gamma
    blur: FloatArray | None  # symmetric kernel, odd sides
    noise: float  # standard deviation in levels

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Look":
        light = 1 + rng.uniform(0, 0.3) * rng.uniform(-1, 1, (2, 2))
        levels = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.3, 0.3))
        levels = 255 * (0.5 + rng.uniform(0.75, 1.2) * (levels - 0.5)) + rng.uniform(-25, 25)
        blur = _blur_kernel(rng) if rng.random() < 0.3 else None
        noise = rng.uniform(0, 8) if rng.random() < 0.6 else 0.0
        return cls(light.astype(np.float32), levels.round().clip(0, 255).astype(np.uint8), blur, noise)

    def apply(self, planes: FloatArray, rng: np.random.Generator) -> Image:
        """Scene (3, H, W) -> picture uint8 (H, W, 3); changes the scene."""
        cv2 = require("cv2", extra="opencv")
        planes *= cv2.resize(self.light, planes.shape[:0:-1])
        levels = cv2.LUT(cv2.convertScaleAbs(planes.reshape(-1, planes.shape[2])), self.tones)  # saturates
        pixels = cv2.merge(list(levels.reshape(planes.shape)))
        if self.blur is not None:
            pixels = cv2.filter2D(pixels, -1, self.blur)
        if self.noise:
            # Uniform bytes, of standard deviation 74, are ten times as fast as normal floats.
            grain, share = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape), self.noise / 74
            pixels = cv2.addWeighted(pixels, 1, grain, share, -127.5 * share)
        return np.asarray(pixels, np.uint8)


def shapes_picture(seed: int, index: int, image_hw: HW | None = None) -> LabelledPicture:
    """Draw a picture of 0 to 8 shapes, of each of which at least half is visible.

    Args:
        seed: of the set, 0 or more.
        index: of the picture in the set, 0 or more.
        image_hw: its size in px, at least 64 each; one of `PICTURE_SIZES_HW` by chance when it is None.
    """
    rng = np.random.default_rng((seed, index))
    drawn_hw = PICTURE_SIZES_HW[rng.integers(len(PICTURE_SIZES_HW))]
    background = _background(rng, image_hw or drawn_hw)
    count = 0 if rng.random() < 1 / 30 else int(rng.integers(1, 9))
    return _render(_placed_shapes(rng, background, count), background, _Look.drawn(rng), rng)


def iter_shapes_clip(seed: int, num_frames: int, image_hw: HW = (480, 640)) -> Iterator[LabelledPicture]:
    """Draw the frames of a clip in which 5 to 8 shapes move before a background that is fixed or slowly panning.

    They pass in front of each other; a shape has no label while less than half of it is visible.

    Args:
        seed: of the clip, 0 or more.
        num_frames: how many; a longer clip begins like a shorter one.
        image_hw: size of each frame in px, at least 64 each.
    """
    rng = np.random.default_rng((seed, 0, 1))  # no picture's: those have two numbers
    reach = int(rng.integers(1, min(image_hw) // 8)) if rng.random() < 0.5 else 0
    background = _background(rng, (image_hw[0] + 2 * reach, image_hw[1] + 2 * reach))
    motions = _drawn_motions(rng, background, image_hw)
    look, (period_y, period_x) = _Look.drawn(rng), rng.uniform(200, 500, 2)
    for frame in range(num_frames):
        top = reach + round(reach * np.sin(2 * np.pi * frame / period_y))
        left = reach + round(reach * np.sin(2 * np.pi * frame / period_x))
        behind = background[:, top : top + image_hw[0], left : left + image_hw[1]]
        yield _render([motion.at(frame, image_hw) for motion in motions], behind, look, rng)


def write_shapes_data_set(
    folder: Path,
    *,
    num_train: int,
    num_val: int,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Path:
    """Write a data set in YOLO's text format, and the validation part as COCO instances too.

    Training pictures are those of `seed`, validation ones those of `seed + 1`. Numbered pictures and labels of an earlier
    set in the folder are removed; `data.yaml` is written last, so it is there only beside a whole set.

    Args:
        folder: gets `images/` and `labels/`, each with `train/` and `val/`, `val.json` and `data.yaml`.
        num_train: training pictures.
        num_val: validation pictures.
        seed: 0 or more.
        progress: wraps the iteration over all pictures, training ones first.

    Returns:
        The path of `data.yaml`.

    Raises:
        OutputError: something cannot be written.
    """
    description, val = folder / "data.yaml", []
    parts = [make_folder(folder / kind / name) for kind in ("images", "labels") for name in ("train", "val")]
    try:
        description.unlink(missing_ok=True)
        for earlier in (path for part in parts for path in part.glob("[0-9]" * 6 + ".*")):
            earlier.unlink()
        for n in progress(range(num_train + num_val)):
            name, index = ("train", n) if n < num_train else ("val", n - num_train)
            picture = shapes_picture(seed + (name == "val"), index)
            _write_picture(folder, f"{name}/{index:06}", picture)
            if name == "val":
                val.append(replace(picture, pixels=picture.pixels[:, :, :0]))  # its size is enough
    except OSError as exc:
        raise OutputError(f"{folder}: cannot write here ({exc.strerror or exc}); give a writable folder") from exc
    write_text(folder / "val.json", json.dumps(_coco_from_pictures(val)))
    names = "".join(f"  {class_id}: {name}\n" for class_id, name in enumerate(SHAPE_NAMES))
    write_text(description, f"train: images/train\nval: images/val\nnames:\n{names}")
    return description


def _write_picture(folder: Path, name: str, picture: LabelledPicture) -> None:
    cv2 = require("cv2", extra="opencv")
    _, encoded = cv2.imencode(".jpg", picture.pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    (folder / "images" / f"{name}.jpg").write_bytes(encoded.tobytes())
    height, width = picture.pixels.shape[:2]
    xywh = xyxy_to_xywh(picture.xyxy.astype(float))
    lines = (
        f"{class_id} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n"
        for class_id, (x, y, w, h) in zip(picture.class_ids, xywh, strict=True)
    )
    (folder / "labels" / f"{name}.txt").write_text("".join(lines))


def _coco_from_pictures(pictures: list[LabelledPicture]) -> dict[str, Any]:
    """COCO instances; a class's category is its index plus 1, a picture's id is its index."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures):
        height, width = picture.pixels.shape[:2]
        images.append({"id": image_id, "file_name": f"{image_id:06}.jpg", "width": width, "height": height})
        for class_id, (x, y, w, h) in zip(picture.class_ids.tolist(), xyxy_to_xywh(picture.xyxy).tolist(), strict=True):
            found = {"id": len(annotations) + 1, "image_id": image_id, "category_id": class_id + 1}
            annotations.append(found | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
    categories = [{"id": class_id + 1, "name": name} for class_id, name in enumerate(SHAPE_NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _render(shapes: list[_Shape], background: FloatArray, look: _Look, rng: np.random.Generator) -> LabelledPicture:
    """Draw shapes, the rearmost first, on a background (3, H, W); the noise comes from `rng`."""
    image_hw: HW = (background.shape[1], background.shape[2])
    scene, labels = background.copy(), np.zeros(image_hw, np.uint8)
    for label, shape in enumerate(shapes, start=1):
        shape.draw(scene, labels, label)
    boxes, class_ids = [], []
    for label, shape in enumerate(shapes, start=1):
        (rows, columns), _ = shape.window(image_hw)
        visible = labels[rows, columns] == label
        if np.count_nonzero(visible) >= max(1, MIN_VISIBLE * np.count_nonzero(shape.solid)):
            xs, ys = np.flatnonzero(visible.any(axis=0)), np.flatnonzero(visible.any(axis=1))
            left, top = columns.start, rows.start
            boxes.append((left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1))
            class_ids.append(shape.class_id)
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return LabelledPicture(look.apply(scene, rng), xyxy, np.array(class_ids, np.int32))


def _placed_shapes(rng: np.random.Generator, background: FloatArray, count: int) -> list[_Shape]:
    """Up to `count` shapes; one that would hide too much of another, wherever it is tried, is left out."""
    image_hw: HW = (background.shape[1], background.shape[2])
    behind, shapes = _colours(background), list[_Shape]()
    labels, visible, areas = np.zeros(image_hw, np.uint8), np.zeros(count + 1), np.zeros(count + 1)  # [0]: background
    for _ in range(count):
        shape, label = _drawn_shape(rng, image_hw, _SIZE_OF_SHORTER_SIDE, behind, shapes), len(shapes) + 1
        for _ in range(_PLACEMENT_TRIES):
            margin = (0.55 if rng.random() < 0.75 else 0.1) * shape.size
            x, y = rng.uniform(margin, np.array(image_hw[::-1]) - margin)
            shape = replace(shape, centre_xy=(float(x), float(y)))
            in_picture, in_alpha = shape.window(image_hw)
            covered = labels[in_picture][shape.solid[in_alpha]]
            left = visible - np.bincount(covered, minlength=count + 1)
            left[0], left[label], areas[label] = 0, covered.size, np.count_nonzero(shape.solid)
            if np.all(left[: label + 1] >= MIN_VISIBLE * areas[: label + 1]):
                labels[in_picture][shape.solid[in_alpha]] = label
                shapes, visible = [*shapes, shape], left
                break
    return shapes


def _drawn_motions(rng: np.random.Generator, background: FloatArray, image_hw: HW) -> list[_Motion]:
    """5 to 8 shapes in motion, the kinds as even as can be."""
    behind, motions = _colours(background), list[_Motion]()
    for class_id in np.tile(rng.permutation(len(SHAPE_NAMES)), 2)[: rng.integers(5, 9)]:
        others = [motion.start for motion in motions]
        shape = _drawn_shape(rng, image_hw, _CLIP_SIZE_OF_SHORTER_SIDE, behind, others)
        x, y = rng.uniform(0.3 * shape.size, np.array(image_hw[::-1]) - 0.3 * shape.size)
        start = replace(shape, class_id=int(class_id), centre_xy=(float(x), float(y)))
        speed, heading = rng.uniform(0.003, 0.015) * min(image_hw), rng.uniform(0, 2 * np.pi)
        velocity_xy = (float(speed * np.cos(heading)), float(speed * np.sin(heading)))
        spin, growth, period = rng.uniform(-0.05, 0.05), rng.uniform(0, 0.25), rng.uniform(60, 200)
        motions.append(_Motion(start, velocity_xy, spin, growth, period))
    return motions


def _drawn_shape(
    rng: np.random.Generator,
    image_hw: HW,
    of_shorter_side: tuple[float, float],
    behind: FloatArray,
    others: list[_Shape],
) -> _Shape:
    """A shape of any kind at the origin, its size log-uniform."""
    low, high = (min(image_hw) * share for share in of_shorter_side)
    low = max(low, max(image_hw) * _MIN_SIZE_OF_LONGER_SIDE)
    size = float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))
    aspect, angle = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))), float(rng.uniform(0, 2 * np.pi))
    paint = _drawn_paint(rng, behind, others)
    return _Shape(int(rng.integers(len(SHAPE_NAMES))), (0.0, 0.0), size, aspect, angle, paint)


def _colours(background: FloatArray) -> FloatArray:
    """Mean colours (16, 3) of the parts of a background (3, H, W)."""
    height, width = (side // 4 for side in background.shape[1:])
    parts = background[:, : 4 * height, : 4 * width].reshape(3, 4, height, 4, width)[:, :, ::2, :, ::2]
    return np.array(parts.mean(axis=(2, 4)).reshape(3, 16).T, np.float32)


def _drawn_paint(rng: np.random.Generator, behind: FloatArray, others: list[_Shape]) -> _Paint:
    """Colours that differ from those behind (K, 3), also on average, and as far as can be from other shapes'."""
    candidates = rng.uniform(0, 255, (32, 3)).astype(np.float32)
    distances = _distance(candidates, behind).clip(max=MIN_CONTRAST)
    if others:
        to_others = _distance(candidates, np.array([other.paint.colour for other in others]))
        distances -= (MIN_CONTRAST / 2 - to_others).clip(0)
    # The first one that is far enough; the farthest when none is.
    first = candidates[distances.argmax()]
    of_mean = _distance((candidates + first) / 2, behind).clip(max=MIN_CONTRAST / 2)
    to_first = _distance(candidates, first[None]).clip(max=MIN_CONTRAST)
    second = candidates[(distances + 2 * of_mean + to_first).argmax()]
    fill, has_outline = _FILLS[rng.integers(len(_FILLS))], bool(rng.random() < 0.25)
    return _Paint(fill, first, second, has_outline, rng.uniform(0.2, 0.5))


def _distance(colours: FloatArray, others: FloatArray) -> FloatArray:
    """Of each colour (N, 3) to the nearest of others (K, 3): (N,)."""
    return np.asarray(np.linalg.norm(colours[:, None] - others, axis=2).min(axis=1))


def _background(rng: np.random.Generator, image_hw: HW) -> FloatArray:
    """(3, H, W) float32 BGR, 0..255: a gradient, most often under low-frequency noise, stripes, a checker or speckle.

    Its colours stay near each other, so that there are always others which stand out.
    """
    cv2 = require("cv2", extra="opencv")
    height, width = image_hw
    corners = rng.uniform(30, 225, (3, 1, 1)) + rng.uniform(10, 45) * rng.uniform(-1, 1, (3, 2, 2))
    planes = np.stack([cv2.resize(plane, (width, height)) for plane in corners.astype(np.float32)])
    kind, tint = rng.integers(5), rng.uniform(-35, 35, 3).astype(np.float32)
    if kind == 0:
        for plane, noise in zip(planes, rng.uniform(-40, 40, (3, *rng.integers(4, 24, 2))).astype(np.float32), strict=True):
            # Smooth from the first step, fast from the second.
            plane += cv2.resize(cv2.resize(noise, (64, 64), interpolation=cv2.INTER_CUBIC), (width, height))
    elif kind < 4:
        texture = _grains(rng, image_hw) if kind == 1 else _waves(rng, image_hw, is_checker=kind == 2)
        for plane, amount in zip(planes, tint, strict=True):
            plane += amount * texture
    return np.asarray(planes.clip(0, 255, out=planes), np.float32)


def _waves(rng: np.random.Generator, image_hw: HW, *, is_checker: bool) -> FloatArray:
    """Stripes or a checker (H, W) at any angle, -1 to 1."""
    angle, frequency = rng.uniform(0, np.pi), 2 * np.pi / (rng.uniform(0.03, 0.25) * min(image_hw))
    c, s = np.array([np.cos(angle), np.sin(angle)], np.float32) * np.float32(frequency)
    x, y = np.arange(image_hw[1], dtype=np.float32), np.arange(image_hw[0], dtype=np.float32)[:, None]
    waves = np.sin(x * c + y * s)
    if is_checker:
        waves *= np.sin(y * c - x * s)
    return np.asarray((6 * waves).clip(-1, 1))


def _grains(rng: np.random.Generator, image_hw: HW) -> FloatArray:
    """Speckle (H, W), 0 to 2."""
    cv2 = require("cv2", extra="opencv")
    coarse, share = int(rng.integers(1, 4)), rng.uniform(0.02, 0.3)
    grains = rng.random((image_hw[0] // coarse, image_hw[1] // coarse), dtype=np.float32) < share
    return np.asarray(cv2.resize(grains.astype(np.float32) * 2, image_hw[::-1]))


def _blur_kernel(rng: np.random.Generator) -> FloatArray:
    """A mild Gaussian, or the trace of a straight motion of some pixels."""
    cv2 = require("cv2", extra="opencv")
    if rng.random() < 0.6:
        side = cv2.getGaussianKernel(7, rng.uniform(0.4, 1.1))
        return np.array(side @ side.T, np.float32)
    kernel, angle, length = np.zeros((7, 7), np.float32), rng.uniform(0, np.pi), rng.uniform(1, 2.5)
    reach = np.array([np.cos(angle), np.sin(angle)]) * length
    (x1, y1), (x2, y2) = ((3 - reach) * 256).round().astype(int), ((3 + reach) * 256).round().astype(int)
    cv2.line(kernel, (int(x1), int(y1)), (int(x2), int(y2)), 1.0, shift=8)
    kernel += kernel[::-1, ::-1]
    return np.asarray(kernel / kernel.sum(), np.float32)


def _unit_outlines() -> tuple[tuple[FloatArray, ...], ...]:
    """By class, in the order of `SHAPE_NAMES`: corners (K, 2) about the origin; a second outline is a hole."""

    def on_circle(corners: int, *radii: float) -> FloatArray:
        angles = np.arange(corners) * 2 * np.pi / corners
        return np.array(np.stack([np.sin(angles), -np.cos(angles)], 1) * np.resize(radii, corners)[:, None], np.float32)

    arm, tip = 0.16, 0.52
    quarter = np.array([[arm, -tip], [arm, -arm], [tip, -arm]], np.float32)
    turn = np.array([[0, 1], [-1, 0]], np.float32)  # rows (x, y) -> (-y, x)
    cross = np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)])
    square = 0.45 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    circle = on_circle(72, 0.5)
    return ((circle,), (square,), (on_circle(3, 0.6),), (on_circle(10, 0.58, 0.25),), (cross,), (circle, 0.55 * circle))


_OUTLINES = _unit_outlines()
