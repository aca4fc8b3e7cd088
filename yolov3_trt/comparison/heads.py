"""How far the heads of two artifacts are apart."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class HeadDifference:
    """Of one head, over all pictures."""

    max_abs: float = 0.0
    _sum_abs: float = 0.0
    _squares: float = 0.0
    _values: int = 0
    _dot: float = 0.0
    _norms: tuple[float, float] = (0.0, 0.0)  # squared

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Take the heads of another picture, of equal shapes."""
        a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
        with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity
            difference = np.abs(a - b)
            self._squares += float(difference @ difference)
        self.max_abs = float(np.maximum(self.max_abs, difference.max()))  # NaN stays NaN
        self._sum_abs += float(difference.sum())
        self._values += a.size
        self._dot += float(a @ b)
        self._norms = (self._norms[0] + float(a @ a), self._norms[1] + float(b @ b))

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference of a logit."""
        return self._sum_abs / self._values

    @property
    def cosine(self) -> float:
        """Cosine similarity of the heads as vectors; NaN where one is all zeros."""
        with np.errstate(invalid="ignore"):
            return float(self._dot / np.sqrt(self._norms[0] * self._norms[1]))

    @property
    def relative(self) -> float:
        """Norm of the difference over the norm of A's head; NaN where that is all zeros."""
        return math.sqrt(self._squares / self._norms[0]) if self._norms[0] else math.nan

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio: the same in dB, of A's head over the difference; infinite where nothing differs."""
        if not self._squares:
            return math.inf
        return -20 * math.log10(self.relative) if self.relative > 0 else math.nan
