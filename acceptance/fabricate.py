"""Weights for the full-size models, which come with none: seeded noise whose heads look like those of a trained network.

The time of a network does not depend on its weights, but that of finding detections does: a network of mere noise finds
either nothing or an object everywhere.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.layers import Conv, Shortcut
from yolov3_trt.models.darknet_weights import save_darknet_weights
from yolov3_trt.reference import module_from_spec, run_module
from yolov3_trt.spec import Head, ModelSpec

Arrays = dict[str, NDArray[np.float32]]

_SPREADS = (0.7, 2.0)  # standard deviations of logits: of x y w h, and of objectness and classes
_OBJECTS = 6  # boxes of a head and picture whose objectness exceeds 0.5
_CLASSES = 0.3  # classes of a box that do, on average; of one with objectness more, as channels of noise go together
_SEED = 0


def fabricate(spec: ModelSpec, images: NDArray[np.float32], path: Path) -> None:
    """Write a `.weights` file.

    Args:
        spec: of the network, at the input size of the images.
        images: (N, 3, H, W) RGB 0..1, that the heads are fitted to.
        path: of the file.
    """
    weights = _noise(spec)
    outputs = run_module(module_from_spec(spec, weights), images)
    for head, values in zip(spec.heads, outputs, strict=True):
        _fit_head(weights, head, np.asarray(values))
    save_darknet_weights(spec, weights, path)


def _noise(spec: ModelSpec) -> Arrays:
    """Weights with which values keep their size from layer to layer."""
    rng = np.random.default_rng(_SEED)
    weights: Arrays = {}
    for key, shape in spec.weight_shapes.items():
        if key.endswith("conv.weight"):
            index = int(key.split(".")[1])
            layer = spec.layers[index]
            assert isinstance(layer, Conv)
            gain = 2.0 if layer.batch_norm else 1.0
            if index + 1 < len(spec.layers) and isinstance(spec.layers[index + 1], Shortcut):
                gain /= 16  # else a chain of residual blocks doubles its values with each
            fan_in = int(np.prod(shape[1:]))
            weights[key] = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(gain / fan_in))
        elif key.endswith(("batch_norm.weight", "running_var")):
            weights[key] = rng.uniform(0.8, 1.2, shape).astype(np.float32)
        else:
            weights[key] = rng.uniform(-0.1, 0.1, shape).astype(np.float32)
    return weights


def _fit_head(weights: Arrays, head: Head, values: NDArray[np.float32]) -> None:
    """Scale and shift the last convolution before a head, so that its logits are as they shall be.

    Args:
        weights: changed in place.
        head: of the network.
        values: what it gave, (N, A*(5+C), h, w).
    """
    key = f"layers.{head.layer - 1}.conv"
    anchors, boxes = len(head.anchors_wh), len(head.anchors_wh) * values.shape[2] * values.shape[3]
    wanted = [*[(_SPREADS[0], 0.5)] * 4, (_SPREADS[1], _OBJECTS / boxes)]
    wanted += [(_SPREADS[1], _CLASSES / head.num_classes)] * head.num_classes
    channels = values.transpose(1, 0, 2, 3).reshape(len(wanted) * anchors, -1)
    for channel, (spread, share_above) in enumerate(wanted * anchors):
        factor = spread / (channels[channel].std() + 1e-6)
        weights[f"{key}.weight"][channel] *= factor
        zero = np.quantile(channels[channel], max(0.0, 1 - share_above))  # this value becomes the logit 0
        weights[f"{key}.bias"][channel] = (weights[f"{key}.bias"][channel] - zero) * factor
