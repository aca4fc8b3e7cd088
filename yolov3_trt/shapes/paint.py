"""How a shape is filled, in colours that stand out."""

from dataclasses import dataclass

import numpy as np

from yolov3_trt.geometry import FloatArray

MIN_CONTRAST = 100.0  # Euclidean distance of BGR colours 0..255, before the look

_FILLS = ("plain", "plain", "gradient", "stripes", "spots")


@dataclass(frozen=True, eq=False)
class Paint:
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


def drawn_paint(rng: np.random.Generator, behind: FloatArray, others: list[Paint]) -> Paint:
    """Colours that differ from those behind (K, 3), also on average, and as far as can be from those of other paints."""
    candidates = rng.uniform(0, 255, (32, 3)).astype(np.float32)
    distances = _distance(candidates, behind).clip(max=MIN_CONTRAST)
    if others:
        to_others = _distance(candidates, np.array([other.colour for other in others]))
        distances -= (MIN_CONTRAST / 2 - to_others).clip(0)
    # The first one that is far enough; the farthest when none is.
    first = candidates[distances.argmax()]
    of_mean = _distance((candidates + first) / 2, behind).clip(max=MIN_CONTRAST / 2)
    to_first = _distance(candidates, first[None]).clip(max=MIN_CONTRAST)
    second = candidates[(distances + 2 * of_mean + to_first).argmax()]
    fill, has_outline = _FILLS[rng.integers(len(_FILLS))], bool(rng.random() < 0.25)
    return Paint(fill, first, second, has_outline, rng.uniform(0.2, 0.5))


def mean_colours(background: FloatArray) -> FloatArray:
    """Mean colours (16, 3) of the parts of a background (3, H, W)."""
    height, width = (side // 4 for side in background.shape[1:])
    parts = background[:, : 4 * height, : 4 * width].reshape(3, 4, height, 4, width)[:, :, ::2, :, ::2]
    return np.array(parts.mean(axis=(2, 4)).reshape(3, 16).T, np.float32)


def _distance(colours: FloatArray, others: FloatArray) -> FloatArray:
    """Of each colour (N, 3) to the nearest of others (K, 3): (N,)."""
    return np.asarray(np.linalg.norm(colours[:, None] - others, axis=2).min(axis=1))
