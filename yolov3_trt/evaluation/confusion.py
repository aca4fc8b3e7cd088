"""Which class is taken for which."""

import numpy as np

from yolov3_trt.evaluation.columns import Ints
from yolov3_trt.evaluation.tide import ErrorSplit


def confusion(split: ErrorSplit, num_classes: int) -> Ints:
    """Objects by class with what they were taken for: (K+1, K+1), places of classes as in the columns.

    The last column counts objects that were missed (a box that covers an object too badly does not find it), the last row
    detections that stand for no object.
    """
    pairs = split.pairs
    objects = np.flatnonzero(~pairs.objects.crowd)
    seen_as = np.full(len(pairs.objects.image), num_classes)
    of_object = split.stands_for >= 0
    seen_as[split.stands_for[of_object]] = pairs.found.class_id[of_object]
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(counts, (pairs.objects.class_id[objects], seen_as[objects]), 1)
    counts[-1] = np.bincount(pairs.found.class_id[~of_object], minlength=num_classes + 1)
    return counts
