"""A trained network for other classes: the same spec with other heads, and the weights that carry over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from yolov3_trt.errors import SpecError
from yolov3_trt.geometry import FloatArray
from yolov3_trt.layers import Conv, Layer, Yolo
from yolov3_trt.models.darknet_weights import Weights
from yolov3_trt.spec import Head, ModelSpec

# How the filters of a new class start (Lin et al., arXiv 1708.02002, section 4.1): normal weights and the logit of a prior
# of 0.01, so that it is not found everywhere before training has seen it. Objectness starts so too.
_WEIGHT_DEVIATION = 0.01
PRIOR_LOGIT = math.log(0.01 / (1 - 0.01))


@dataclass(frozen=True)
class Transfer:
    """Weights for a new list of classes, and which of them start from what is known."""

    weights: Weights  # complete, for the new spec; arrays of their own
    kept_classes: tuple[str, ...]  # of the new list, whose rows were copied by name
    new_classes: tuple[str, ...]  # of the new list, which start anew


def spec_with_classes(spec: ModelSpec, num_classes: int) -> ModelSpec:
    """The same network with another number of classes: every head, and the convolution before it.

    Raises:
        SpecError: there are no heads, or one's logits do not come from a plain convolution that only this head reads.
    """
    if not spec.heads:
        raise SpecError(f"{spec.name} has no detection heads; a classifier cannot be given other classes here")
    layers: list[Layer] = list(spec.layers)
    for head in spec.heads:
        yolo = replace(cast(Yolo, spec.layers[head.layer]), num_classes=num_classes)
        layers[head.layer - 1] = replace(_head_conv(spec, head), filters=len(yolo.anchors_wh) * yolo.fields)
        layers[head.layer] = yolo
    return replace(spec, layers=tuple(layers))


def weights_with_classes(
    spec: ModelSpec,
    weights: Weights,
    class_names: Sequence[str],
    new_spec: ModelSpec,
    new_class_names: Sequence[str],
    seed: int,
) -> Transfer:
    """Carry weights over to another list of classes.

    Boxes and objectness are kept; so are classes that the old list has too, whatever the case of their names. Classes that
    are new start from small random weights.

    Args:
        spec: what `weights` are for.
        weights: by the keys of `spec.weight_shapes`; not changed.
        class_names: of `spec`, in class order.
        new_spec: `spec_with_classes` of `spec`; its input size and anchors may differ.
        new_class_names: of `new_spec`, in class order.
        seed: of the random weights.

    Raises:
        SpecError: the specs or the names do not go together, or see `spec_with_classes`.
    """
    for model, names in ((spec, class_names), (new_spec, new_class_names)):
        if len(names) != model.num_classes:
            raise SpecError(f"{model.name}: {len(names)} class names; expected {model.num_classes}")
    if spec_with_classes(spec, new_spec.num_classes).weight_shapes != new_spec.weight_shapes:
        raise SpecError(f"{new_spec.name} is not {spec.name} with {new_spec.num_classes} classes")
    sources = _same_classes(class_names, new_class_names)
    arrays = {key: np.array(array, np.float32) for key, array in weights.items()}
    rng = np.random.default_rng(seed)
    for head in spec.heads:
        prefix = f"layers.{head.layer - 1}.conv"
        for key in (f"{prefix}.weight", f"{prefix}.bias"):
            shape = new_spec.weight_shapes[key]
            fresh = np.full(shape, PRIOR_LOGIT) if key.endswith("bias") else rng.normal(0, _WEIGHT_DEVIATION, shape)
            arrays[key] = _keep_rows(fresh.astype(np.float32), arrays[key], head, sources)
    return Transfer(
        arrays,
        tuple(name for name, source in zip(new_class_names, sources, strict=True) if source is not None),
        tuple(name for name, source in zip(new_class_names, sources, strict=True) if source is None),
    )


def _head_conv(spec: ModelSpec, head: Head) -> Conv:
    """The convolution that makes a head's logits, sure to be one whose rows can be told apart and changed."""
    index = head.layer - 1
    conv = spec.layers[index] if index >= 0 else None
    if not isinstance(conv, Conv) or conv.batch_norm or not conv.bias or conv.groups != 1:
        raise SpecError(
            f"{spec.name}: layer {index}, before {head.name}, is {conv}; other classes need a Conv with a bias, without "
            "batch norm and groups",
            layer=head.layer,
        )
    for reader in range(head.layer + 1, len(spec.layers)):
        if read := {index, head.layer}.intersection(spec.sources(reader)):
            raise SpecError(
                f"{spec.name}: layer {reader} reads layer {min(read)}, the logits of {head.name}; with other classes it would "
                "read other channels",
                layer=reader,
            )
    return conv


def _same_classes(old_names: Sequence[str], new_names: Sequence[str]) -> list[int | None]:
    """Index of each new class in the old list; None for one that is not there. Of equal names each is taken once."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(old_names):
        indices.setdefault(_key(name), []).append(index)
    found = (indices.get(_key(name), []) for name in new_names)
    return [left.pop(0) if left else None for left in found]


def _key(name: str) -> str:
    return name.strip().casefold()


def _keep_rows(fresh: FloatArray, old: FloatArray, head: Head, sources: list[int | None]) -> FloatArray:
    """`fresh`, (A * F', ...), with the rows of `old`, (A * F, ...), that still mean something."""
    before = head.kind.box_values + 1  # box and objectness
    new_rows = fresh.reshape(len(head.anchors_wh), -1, *fresh.shape[1:])  # (A, F', ...)
    old_rows = old.reshape(len(head.anchors_wh), -1, *old.shape[1:])  # (A, F, ...)
    new_rows[:, :before] = old_rows[:, :before]
    for class_id, source in enumerate(sources):
        if source is not None:
            new_rows[:, before + class_id] = old_rows[:, before + source]
    return new_rows.reshape(fresh.shape)
