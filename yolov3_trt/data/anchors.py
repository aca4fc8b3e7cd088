"""Anchors that fit a data set: k-means over the sizes of its boxes, with 1 - IoU as the distance.

As Darknet's `calc_anchors`: a box and an anchor are compared as if they had one centre, and the mean IoU of each box with
its best anchor says how well the anchors fit. Sizes are in the network's input, as the picture comes there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.labelled import LabelledFile
from yolov3_trt.errors import SettingError
from yolov3_trt.geometry import HW
from yolov3_trt.sizes import Resize

_Sizes = NDArray[np.float64]
_ROUNDS, _TRIES = 300, 5
_WORTH = 0.03  # more mean IoU than that is worth new anchors


@dataclass(frozen=True)
class Anchors:
    """Anchors for a data set, and how they and those of a model fit it."""

    anchors_wh: tuple[tuple[float, float], ...]  # input px, by area
    mean_iou: float
    boxes: int
    own_wh: tuple[tuple[float, float], ...] = ()  # of the model
    own_mean_iou: float | None = None

    @property
    def would_help(self) -> bool:
        """Whether they fit clearly better than the model's own."""
        return self.own_mean_iou is not None and self.mean_iou - self.own_mean_iou > _WORTH

    def to_json(self) -> dict[str, Any]:
        """As `data anchors --json` writes it."""
        return {**vars(self), "would_help": self.would_help}


def fit_anchors(
    files: Sequence[LabelledFile],
    count: int,
    input_hw: HW,
    resize: Resize = Resize.LETTERBOX,
    own_wh: Sequence[tuple[float, float]] = (),
    seed: int = 0,
) -> Anchors:
    """The best of some runs of k-means, each from another choice of boxes.

    Args:
        files: pictures with objects.
        count: of anchors.
        input_hw: of the network, px.
        resize: how pictures are fitted into it.
        own_wh: anchors to compare with.
        seed: of the choices.

    Raises:
        SettingError: there are fewer boxes of different sizes than anchors.
    """
    sizes = box_sizes(files, input_hw, resize)
    different = np.unique(sizes.round(3), axis=0)
    if len(different) < count:
        raise SettingError("count", f"got {count}; expected at most {len(different)}, as there are sizes of boxes")
    rng = np.random.default_rng(seed)
    runs = [_k_means(sizes, _spread(different, count, rng)) for _ in range(_TRIES)]
    best = max(runs, key=lambda anchors: mean_best_iou(sizes, anchors))
    best = best[np.argsort(best.prod(axis=1), kind="stable")].round(1 if min(input_hw) > 32 else 4)
    own = np.array(own_wh, np.float64).reshape(-1, 2)
    return Anchors(
        tuple((float(w), float(h)) for w, h in best),
        mean_best_iou(sizes, best),
        len(sizes),
        tuple((float(w), float(h)) for w, h in own),
        mean_best_iou(sizes, own) if len(own) else None,
    )


def box_sizes(files: Sequence[LabelledFile], input_hw: HW, resize: Resize) -> _Sizes:
    """(N, 2) Width and height of every object in the input, px."""
    sizes = [np.zeros((0, 2))]
    for file in files:
        (height, width), counted = file.image_hw, file.xywh[file.counts, 2:]
        scale = np.array(input_hw[::-1], np.float64) / (width, height)
        sizes.append(counted * (scale if resize is Resize.STRETCH else scale.min()))
    return np.concatenate(sizes)


def mean_best_iou(sizes: _Sizes, anchors_wh: _Sizes) -> float:
    """Of each box with its best anchor, both at one centre; 0 without boxes."""
    return float(_iou(sizes, anchors_wh).max(axis=1).mean()) if len(sizes) else 0.0


def _iou(sizes: _Sizes, anchors_wh: _Sizes) -> _Sizes:
    """(N, K)."""
    shared = np.minimum(sizes[:, None], anchors_wh[None]).prod(axis=2)
    return np.asarray(shared / (sizes.prod(axis=1)[:, None] + anchors_wh.prod(axis=1)[None] - shared))


def _spread(sizes: _Sizes, count: int, rng: np.random.Generator) -> _Sizes:
    """Sizes to begin with, each likelier the farther it is from those before (k-means++)."""
    chosen = sizes[rng.integers(len(sizes))][None]
    while len(chosen) < count:
        distances = (1 - _iou(sizes, chosen).max(axis=1)).clip(0) ** 2
        chosen = np.concatenate([chosen, sizes[rng.choice(len(sizes), p=distances / distances.sum())][None]])
    return np.asarray(chosen)


def _k_means(sizes: _Sizes, anchors_wh: _Sizes) -> _Sizes:
    nearest = np.full(len(sizes), -1)
    for _ in range(_ROUNDS):
        now = _iou(sizes, anchors_wh).argmax(axis=1)
        if (now == nearest).all():
            break
        nearest = now
        means = [sizes[now == k].mean(axis=0) if (now == k).any() else anchors_wh[k] for k in range(len(anchors_wh))]
        anchors_wh = np.array(means)
    return anchors_wh
