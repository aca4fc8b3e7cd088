"""The PyTorch reference: a trainable module made from a ModelSpec.

Its state_dict has the keys of `ModelSpec.weight_shapes`; it adds nothing that is not in the spec, so what it computes is
what every other form of the model is measured against.
"""

from collections.abc import Collection, Mapping
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from yolov3_trt.errors import WeightsError
from yolov3_trt.layers import (
    Activation,
    AvgPool,
    Conv,
    Dropout,
    Layer,
    LocalAvgPool,
    MaxPool,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    SpaceToDepth,
    TrainingOnly,
    Upsample,
    Yolo,
    pool_pads,
)
from yolov3_trt.models.darknet_weights import Weights
from yolov3_trt.spec import IMAGE, BatchNorm, ModelSpec


def module_from_spec(spec: ModelSpec, weights: Weights | None = None) -> "YoloNetwork":
    """Make the module of a spec, in eval mode.

    Args:
        spec: the network.
        weights: by the keys of `spec.weight_shapes`; copied once. None leaves PyTorch's random initial values.

    Raises:
        WeightsError: a key is missing, unknown or of another shape.
    """
    if weights is None:
        network = YoloNetwork(spec)
        network.eval()
        return network
    with torch.device("meta"):  # no random values that would be overwritten at once: 0.6 s for a yolov3
        network = YoloNetwork(spec)
    network.to_empty(device="cpu")
    load_weights(network, weights)
    network.eval()
    return network


def load_weights(network: "YoloNetwork", weights: Weights) -> None:
    """Copy arrays into a module's parameters and running statistics.

    Raises:
        WeightsError: a key is missing, unknown or of another shape.
    """
    name, state = network.spec.name, network.state_dict(keep_vars=True)
    if difference := state.keys() ^ weights.keys():
        raise WeightsError(f"{name}: {min(difference)} is in only one of the model and the weights")
    with torch.no_grad():
        for key, parameter in state.items():
            if parameter.shape != weights[key].shape:
                raise WeightsError(f"{name}: {key} is {weights[key].shape}; expected {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(weights[key]))


def weights_from_module(network: "YoloNetwork") -> Weights:
    """A module's parameters and running statistics as float32 arrays of their own."""
    state = network.state_dict()
    return {key: value.detach().cpu().numpy().astype(np.float32, copy=True) for key, value in state.items()}


def run_module(network: "YoloNetwork", images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Outputs of a network, float32 arrays of their own, for images (N, C, H, W) float32; on the network's device."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        return tuple(output.cpu().numpy() for output in network(torch.from_numpy(images).to(device)))


def run_layers(
    network: "YoloNetwork",
    images: NDArray[np.float32],
    layers: Collection[int],
    given: Mapping[int, NDArray[np.float32]] | None = None,
) -> dict[int, NDArray[np.float32]]:
    """Outputs (N, C', H', W') of some layers of a network, by index, for images (N, C, H, W) float32.

    Layers of `given` give those maps instead of what they compute.
    """
    device = next(network.parameters()).device
    with torch.inference_mode():
        instead = {index: torch.from_numpy(array).to(device) for index, array in (given or {}).items()}
        kept = network.run(torch.from_numpy(images).to(device), layers, instead)
        return {index: output.cpu().numpy() for index, output in kept.items()}


class YoloNetwork(nn.Module):
    """A whole network: images (N, C, H, W) float, RGB 0..1 -> the output of each of `spec.outputs`, logits for heads."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(_module(spec, index) for index in range(len(spec.layers)))
        self._last_use = _last_use(spec)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the network; one tensor (N, C', H', W') per output, in layer order."""
        kept = self.run(images, self.spec.outputs)
        return tuple(kept[index] for index in self.spec.outputs)

    def run(
        self, images: Tensor, keep: Collection[int], given: Mapping[int, Tensor] | None = None
    ) -> dict[int, Tensor]:
        """Outputs of the layers in `keep`, by index; all others are freed after their last use. `given`: see `run_layers`."""
        maps: dict[int, Tensor] = {IMAGE: images}
        needed = self.spec.needed_for(keep)
        for index, layer in enumerate(self.layers):
            if index not in needed:
                continue
            instead = None if given is None else given.get(index)
            maps[index] = layer(*(maps[source] for source in self.spec.sources(index))) if instead is None else instead
            for source in self._last_use.get(index, ()):
                if source not in keep:
                    maps.pop(source, None)
        return {index: maps[index] for index in keep}


class ConvUnit(nn.Module):
    """A Conv layer: convolution, batch norm if any, activation."""

    def __init__(self, conv: Conv, in_channels: int, rule: BatchNorm, activation: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            conv.filters,
            conv.size,
            conv.stride,
            conv.pad * conv.dilation,
            conv.dilation,
            conv.groups,
            conv.bias,
        )
        self.batch_norm = _BatchNorm(conv.filters, rule) if conv.batch_norm else nn.Identity()
        self.activation = _activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, filters, H', W')."""
        return cast(Tensor, self.activation(self.batch_norm(self.conv(x))))


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm by the spec's rule at inference; plain PyTorch batch norm while training."""

    def __init__(self, channels: int, rule: BatchNorm) -> None:
        super().__init__(channels, eps=rule.epsilon)
        self.rule = rule
        # Only a cumulative average (momentum=None) needs the count; without it the state_dict holds the spec's keys only.
        self.num_batches_tracked = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.rule.after_sqrt:
            return super().forward(x)
        assert self.running_var is not None
        divisor_squared = (self.running_var.sqrt() + self.rule.epsilon) ** 2
        return F.batch_norm(x, self.running_mean, divisor_squared, self.weight, self.bias, eps=0.0)


class _MaxPool(nn.Module):
    """Darknet's pooling: see layers.MaxPool."""

    def __init__(self, pool: MaxPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        left, right = pool_pads(self.pool, x.shape[3])
        top, bottom = pool_pads(self.pool, x.shape[2])
        if (left, top) == (right, bottom):  # the pool's own padding, which is quicker
            return F.max_pool2d(x, self.pool.size, self.pool.stride, (top, left))
        padded = F.pad(x, (left, right, top, bottom), value=-torch.inf)
        return F.max_pool2d(padded, self.pool.size, self.pool.stride)


class _LocalAvgPool(nn.Module):
    def __init__(self, pool: LocalAvgPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        # Every window, then those that start where Darknet's do: an even window has one pixel less before it than after.
        size, stride = self.pool.size, self.pool.stride
        every = F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
        if stride == 1 and size % 2:
            return every
        first = size // 2 - (size - 1) // 2
        return every[:, :, first : first + x.shape[2] : stride, first : first + x.shape[3] : stride]


class _AvgPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


class _Route(nn.Module):
    def __init__(self, route: Route) -> None:
        super().__init__()
        self.route = route

    def forward(self, *sources: Tensor) -> Tensor:
        if self.route.groups > 1:
            sources = tuple(x.chunk(self.route.groups, dim=1)[self.route.group_id] for x in sources)
        return sources[0] if len(sources) == 1 else torch.cat(sources, dim=1)


class _Shortcut(nn.Module):
    def __init__(self, shortcut: Shortcut) -> None:
        super().__init__()
        self.activation = _activation(shortcut.activation)

    def forward(self, x: Tensor, *sources: Tensor) -> Tensor:
        for source in sources:
            x = x + source if source.shape[1:] == x.shape[1:] else _partial_sum(x, source)
        return cast(Tensor, self.activation(x))


def _partial_sum(x: Tensor, source: Tensor) -> Tensor:
    """Sum of x (N, C, H, W) and source (N, C', kH, kW) where both are; see layers.Shortcut."""
    step = source.shape[2] // x.shape[2]
    channels = min(x.shape[1], source.shape[1])
    summed = x[:, :channels] + source[:, :channels, ::step, ::step]
    return summed if channels == x.shape[1] else torch.cat([summed, x[:, channels:]], dim=1)


class _Product(nn.Module):
    """ScaleChannels and Sam: the factors have one pixel, or as many as the source."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = _activation(activation)

    def forward(self, factors: Tensor, source: Tensor) -> Tensor:
        return cast(Tensor, self.activation(factors * source))


class _SpaceToDepth(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        blocks = x.reshape(n, channels, height // self.stride, self.stride, width // self.stride, self.stride)
        return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, height // self.stride, width // self.stride)


class _Reorg(_SpaceToDepth):
    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        wide = x.reshape(n, channels // self.stride**2, height * self.stride, width * self.stride)
        return super().forward(wide).reshape(n, -1, height // self.stride, width // self.stride)


class _Softmax(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.reshape(x.shape[0], self.groups, -1)  # (N, G, C*H*W/G)
        return grouped.softmax(dim=2).reshape(x.shape)


def _module(spec: ModelSpec, index: int) -> nn.Module:  # noqa: C901 - a case for each kind
    layer: Layer = spec.layers[index]
    match layer:
        case Conv():
            return ConvUnit(layer, spec.input_shape(index)[0], spec.batch_norm, spec.activation(index))
        case MaxPool():
            return _MaxPool(layer)
        case LocalAvgPool():
            return _LocalAvgPool(layer)
        case AvgPool():
            return _AvgPool()
        case Upsample(stride=stride, bilinear=bilinear):
            return nn.Upsample(scale_factor=float(stride), mode="bilinear" if bilinear else "nearest")
        case Route():
            return _Route(layer)
        case Shortcut():
            return _Shortcut(layer)
        case ScaleChannels():
            return _Product(layer.activation)
        case Sam():
            return _Product(layer.activation)
        case Reorg(stride=stride):
            return _Reorg(stride)
        case SpaceToDepth(stride=stride):
            return _SpaceToDepth(stride)
        case Softmax(groups=groups):
            return _Softmax(groups)
        case Dropout(probability=probability):
            return nn.Dropout(probability)
        case Yolo() | TrainingOnly():
            return nn.Identity()


def _activation(activation: Activation) -> nn.Module:
    match activation:
        case Activation.LINEAR:
            return nn.Identity()
        case Activation.LEAKY:
            return nn.LeakyReLU(0.1)
        case Activation.RELU:
            return nn.ReLU()
        case Activation.RELU6:
            return nn.ReLU6()
        case Activation.MISH:
            return nn.Mish()
        case Activation.SWISH:
            return nn.SiLU()
        case Activation.LOGISTIC:
            return nn.Sigmoid()


def _last_use(spec: ModelSpec) -> dict[int, list[int]]:
    """By layer: the sources that no later layer reads."""
    last = {source: index for index in range(len(spec.layers)) for source in spec.sources(index)}
    uses: dict[int, list[int]] = {}
    for source, index in last.items():
        uses.setdefault(index, []).append(source)
    return uses
