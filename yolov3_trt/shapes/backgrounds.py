"""What is behind the shapes."""

import numpy as np

from yolov3_trt.errors import require
from yolov3_trt.geometry import HW, FloatArray


def drawn_background(rng: np.random.Generator, image_hw: HW) -> FloatArray:
    """(3, H, W) float32 BGR, 0..255: a gradient, most often under low-frequency noise, stripes, a checker or speckle.

    Its colours stay near each other, so that there are always others which stand out.
    """
    cv2 = require("cv2", extra="opencv")
    height, width = image_hw
    corners = rng.uniform(30, 225, (3, 1, 1)) + rng.uniform(10, 45) * rng.uniform(-1, 1, (3, 2, 2))
    planes = np.stack([cv2.resize(plane, (width, height)) for plane in corners.astype(np.float32)])
    kind, tint = rng.integers(5), rng.uniform(-35, 35, 3).astype(np.float32)
    if kind == 0:
        noises = rng.uniform(-40, 40, (3, *rng.integers(4, 24, 2))).astype(np.float32)
        for plane, noise in zip(planes, noises, strict=True):
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
