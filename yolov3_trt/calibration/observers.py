"""Observers: the range that INT8 is to cover of a tensor whose values come a piece at a time.

INT8 is symmetric here: `x` becomes `round(x / scale)` in -127..127, with zero point 0 and `scale = amax / 127`. So only
magnitudes |x| count. An observer's memory does not grow with what it sees, and what it finds depends neither on the order of
the values nor on how they are cut into pieces, to the last bit.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.calibration.thresholds import entropy_threshold, mse_threshold
from yolov3_trt.errors import CalibrationError, require
from yolov3_trt.geometry import FloatArray
from yolov3_trt.settings import DEFAULT_PERCENTILE, Method

NUM_BINS = 4096  # of a histogram; the upper half of them, at least, is in use
# A tensor with no larger magnitude counts as zero: its scale would leave float32's normal numbers.
NEGLIGIBLE = 2.0**-100
# For a tensor that is always zero: its scale is the smallest normal float16, so neither it nor its inverse is 0 or infinite
# in any type.
ZERO_AMAX = 127 * 2.0**-14
_PIECE = (
    1 << 17
)  # values at a time: what is computed of them stays in the cache, and a histogram of so few counts in float32


class Observer(ABC):
    """Sees the values of one tensor and says which range INT8 is to cover."""

    def __init__(self) -> None:
        self.num_seen = 0  # values
        self.largest = 0.0  # magnitude

    def observe(self, values: FloatArray) -> None:
        """Take in values of any shape, which are left as they are.

        Raises:
            CalibrationError: one is not finite. The observer is of no use then.
        """
        flat = values.reshape(-1)
        scratch = np.empty(min(flat.size, _PIECE), np.float32)
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            magnitudes = np.abs(piece, out=scratch[: piece.size])
            largest = float(magnitudes.max())  # NaN if any is
            if not largest < math.inf:
                raise CalibrationError("a value is NaN or infinite; expected finite values")
            self.num_seen += piece.size
            self.largest = max(self.largest, largest)
            self._add(magnitudes, largest)

    def amax(self) -> float:
        """The magnitude that becomes 127; a float32 above 0, `ZERO_AMAX` for a tensor that is always zero.

        Where the method would clip everything (a tensor that is zero but for less than a percentile leaves out), it is the
        largest magnitude.

        Raises:
            CalibrationError: no value was seen.
        """
        if not self.num_seen:
            raise CalibrationError("no value was seen; expected one or more")
        if self.largest < NEGLIGIBLE:
            return ZERO_AMAX
        threshold = self._threshold()
        return threshold if NEGLIGIBLE <= threshold < self.largest else self.largest

    @abstractmethod
    def _add(self, magnitudes: FloatArray, largest: float) -> None:
        """Take in (N,) magnitudes, N > 0, which may be overwritten; `largest` is theirs."""

    @abstractmethod
    def _threshold(self) -> float:
        """What the method finds, where some magnitude is not negligible."""


class MinMaxObserver(Observer):
    """The largest magnitude, exactly."""

    def _add(self, magnitudes: FloatArray, largest: float) -> None:
        pass

    def _threshold(self) -> float:
        return self.largest


class PercentileObserver(Observer):
    """The percentile of all magnitudes by nearest rank, exactly.

    Of n values it is the one of rank ceil(percentile / 100 * n), counted from the smallest: the smallest value that
    `percentile` % of all do not exceed. Only the largest (1 - percentile / 100) * num_values, and as many again, are kept.

    Args:
        num_values: that will be seen at most: pictures times the size of the tensor.
        percentile: above 0, up to 100. Taken as the decimal number it is written as, not as its binary neighbour.
    """

    def __init__(self, num_values: int, percentile: float = DEFAULT_PERCENTILE) -> None:
        super().__init__()
        if not 0 < percentile <= 100:
            raise CalibrationError(f"percentile={percentile}; expected above 0, up to 100")
        self._share = Fraction(str(percentile)) / 100
        self._max_values = num_values
        self._num_kept = self._rank_from_top(num_values)
        self._kept = np.empty(self._num_kept + max(self._num_kept, 4096), np.float32)
        self._fill = 0
        self._floor = -1.0  # once `num_kept` have been seen: the smallest of the largest ones as far as it is known

    def _rank_from_top(self, num_values: int) -> int:
        return num_values - math.ceil(self._share * num_values) + 1

    def _add(self, magnitudes: FloatArray, largest: float) -> None:
        if self.num_seen > self._max_values:
            raise CalibrationError(f"{self.num_seen} values were seen; expected {self._max_values} at most")
        while largest > self._floor and (larger := magnitudes[magnitudes > self._floor]).size:
            free = self._kept.size - self._fill
            taken = larger[:free]
            self._kept[self._fill : self._fill + taken.size] = taken
            self._fill += taken.size
            if self._fill == self._kept.size:
                self._kept[: self._num_kept] = np.partition(self._kept, -self._num_kept)[-self._num_kept :]
                self._fill = self._num_kept
                self._floor = float(self._kept[: self._fill].min())
            magnitudes = larger[free:]

    def _threshold(self) -> float:
        # Fewer values than announced have a rank that is not further from the top, so it is among those kept.
        rank = self._rank_from_top(self.num_seen)
        return float(np.partition(self._kept[: self._fill], -rank)[-rank])


class HistogramObserver(Observer):
    """Counts magnitudes in `NUM_BINS` bins of equal width, which doubles whenever a larger magnitude comes.

    The width is a power of two and bins are merged in pairs, so the counts are those of one pass with the final width.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: NDArray[np.int64] = np.zeros(NUM_BINS, np.int64)
        self._limit = NEGLIGIBLE  # all bins together; a power of two

    @property
    def bin_width(self) -> float:
        """Bin i holds the magnitudes from i times this up to, exclusively, (i + 1) times."""
        return self._limit / NUM_BINS

    def _add(self, magnitudes: FloatArray, largest: float) -> None:
        if largest >= self._limit:
            self._widen(2.0 ** math.frexp(largest)[1])
        np.multiply(magnitudes, np.float32(NUM_BINS / self._limit), out=magnitudes)  # exact, by a power of two
        bins = magnitudes.astype(np.uint16).reshape(1, -1)
        # Four times as fast as numpy's bincount.
        counts = require("cv2", extra="opencv").calcHist([bins], [0], None, [NUM_BINS], [0, NUM_BINS])
        self.counts += counts.reshape(-1).astype(np.int64)

    def _widen(self, limit: float) -> None:
        merged = min(int(limit / self._limit), NUM_BINS)  # bins that become one
        narrow, self.counts = self.counts, np.zeros(NUM_BINS, np.int64)
        self.counts[: NUM_BINS // merged] = narrow.reshape(-1, merged).sum(axis=1)
        self._limit = limit


class EntropyObserver(HistogramObserver):
    """The threshold of `entropy_threshold`."""

    def _threshold(self) -> float:
        return entropy_threshold(self.counts) * self.bin_width


class MseObserver(HistogramObserver):
    """The threshold of `mse_threshold`."""

    def _threshold(self) -> float:
        return mse_threshold(self.counts) * self.bin_width


def make_observer(method: Method, num_values: int, percentile: float = DEFAULT_PERCENTILE) -> Observer:
    """An observer for a tensor.

    Args:
        method: how it chooses.
        num_values: that it will see at most: pictures times the size of the tensor. Only PERCENTILE needs it.
        percentile: of PERCENTILE.

    Raises:
        CalibrationError: the percentile is out of its range.
    """
    if method is Method.PERCENTILE:
        return PercentileObserver(num_values, percentile)
    kinds: dict[Method, Callable[[], Observer]] = {
        Method.MINMAX: MinMaxObserver,
        Method.ENTROPY: EntropyObserver,
        Method.MSE: MseObserver,
    }
    return kinds[method]()


def scale_from_amax(amax: float) -> np.float32:
    """The step of INT8, rounded once: what Q/DQ nodes and TensorRT's calibration cache hold."""
    return np.float32(amax / 127)
