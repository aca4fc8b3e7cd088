"""Where labels go, so that they hide each other and what is seen of the objects as little as can be."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.geometry import HW

Ints = NDArray[np.int64]

_MOST = 100  # labels on a picture
_HIDDEN = 0.4  # of a label: it is left out where more of it would lie on others
_ON_LABEL, _ON_HEAD, _BY_RANK = 8.0, 1.0, 0.04  # what a place costs, by shares of the label
_HEAD = 0.3  # of a box, at its top: there are faces


def label_places(boxes: Ints, sizes_wh: Sequence[tuple[int, int]], image_hw: HW) -> list[tuple[int, int] | None]:
    """The upper left corner of each label, px; None: it would hide what stands already, and is left out.

    Args:
        boxes: (N, 4) corners in the picture, the most important first: it has the first choice.
        sizes_wh: of the labels, px.
        image_hw: of the picture, px.
    """
    if not len(boxes):
        return []
    heads = boxes.T.copy()
    heads[3] = heads[1] + np.minimum(_HEAD * (heads[3] - heads[1]), heads[2] - heads[0])
    count = min(len(boxes), _MOST)
    sizes = np.array(sizes_wh[:count], np.int64).reshape(-1, 1, 2)
    low = np.clip(_around(boxes[:count], sizes), 0, np.maximum(np.array(image_hw[::-1]) - sizes, 0))
    tried = np.concatenate([low, low + sizes], axis=2).transpose(2, 0, 1)  # (4, n, places)
    areas = sizes[..., 0] * sizes[..., 1]
    costs = _ON_HEAD * _shared(tried, heads) + areas * _BY_RANK * np.arange(low.shape[1])
    taken, num_taken = np.zeros((4, count), np.int64), 0
    places: list[tuple[int, int] | None] = [None] * len(boxes)
    for row in range(count):
        on_labels = _shared(tried[:, row], taken[:, :num_taken])
        best = int((costs[row] + _ON_LABEL * on_labels).argmin())
        if on_labels[best] <= _HIDDEN * areas[row, 0]:
            taken[:, num_taken] = tried[:, row, best]
            num_taken += 1
            places[row] = (int(low[row, best, 0]), int(low[row, best, 1]))
    return places


def _around(boxes: Ints, sizes: Ints) -> Ints:
    """Corners to try, (n, places, 2), the best first: above the box, below it, at its sides, inside."""
    (x1, y1, x2, y2), (width, height) = boxes.T, sizes[:, 0].T
    return np.array(
        [
            (x1, y1 - height),
            (x2 - width, y1 - height),
            (x1, y2),
            (x2 - width, y2),
            (x2, y1),
            (x1 - width, y1),
            (x1, y2 - height),
            (x2 - width, y2 - height),
            (x1, y1),
        ]
    ).transpose(2, 0, 1)


def _shared(a: Ints, b: Ints) -> Ints:
    """The area (...) of boxes (4, ...) that lies on others (4, B), px²; what lies on two counts twice."""
    ax1, ay1, ax2, ay2 = a[..., None]
    bx1, by1, bx2, by2 = b
    wide, high = np.minimum(ax2, bx2) - np.maximum(ax1, bx1), np.minimum(ay2, by2) - np.maximum(ay1, by1)
    return np.asarray((np.maximum(wide, 0) * np.maximum(high, 0)).sum(axis=-1))
