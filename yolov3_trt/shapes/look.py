"""Light, contrast, blur and noise of a picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import require
from yolov3_trt.geometry import FloatArray
from yolov3_trt.preprocess import Image


@dataclass(frozen=True, eq=False)
class Look:
    """What a camera makes of a scene; none of it moves anything."""

    light: FloatArray  # (2, 2): factors for the corners
    tones: NDArray[np.uint8]  # (256,): contrast, brightness and gamma
    blur: FloatArray | None  # symmetric kernel, odd sides
    noise: float  # standard deviation in levels

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Look":
        """One by chance."""
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
