"""Darknet `.weights` <-> named arrays.

The file is a header (int32 major, minor, revision; then how many images training has seen, int64 from version 0.2 on,
int32 before) and float32 little-endian values, convolution by convolution: with batch norm bias, scale, running mean,
running variance, kernel; without it bias, kernel (AlexeyAB src/parser.c, load_convolutional_weights). It has neither names
nor shapes, so a wrong cfg shows only in the byte count: that is checked exactly.
"""

import logging
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolov3_trt.arguments import spelled
from yolov3_trt.errors import WeightsError
from yolov3_trt.files import check_is_file, replacing
from yolov3_trt.geometry import FloatArray
from yolov3_trt.layers import Conv, Yolo
from yolov3_trt.models.architectures import yolov3_tiny
from yolov3_trt.models.net import TINY_ANCHORS
from yolov3_trt.spec import BatchNorm, ModelSpec

_LOG = logging.getLogger(__name__)

Weights = Mapping[str, FloatArray]  # by the keys of ModelSpec.weight_shapes


@dataclass(frozen=True)
class WeightsHeader:
    """The start of a `.weights` file."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0  # images seen in training

    @property
    def wide_seen(self) -> bool:
        """Whether `seen` takes 8 bytes (src/parser.c, load_weights_upto)."""
        return self.major * 10 + self.minor >= 2

    def to_bytes(self) -> bytes:
        """12 bytes of version, 4 or 8 of `seen`."""
        version = struct.pack("<3i", self.major, self.minor, self.revision)
        return version + struct.pack("<q" if self.wide_seen else "<i", self.seen)


@dataclass(frozen=True)
class DarknetWeights:
    """A `.weights` file: header and arrays.

    The arrays view a private memory map of the file: nothing is read before it is used, writing to them does not reach the
    file, and the map lives as long as any of them.
    """

    header: WeightsHeader
    arrays: Weights


def weights_from_darknet(spec: ModelSpec, path: Path) -> DarknetWeights:
    """Map the weights of `spec` from a `.weights` file.

    Raises:
        WeightsError: missing, not a weights file, truncated, or of another model.
    """
    header, offset, num_bytes = _read_header(path)
    layout = list(_darknet_order(spec))
    expected = offset + 4 * _num_values(layout)
    if not header.wide_seen and num_bytes == expected + 4:
        version = f"{header.major}.{header.minor}.{header.revision}"
        _LOG.warning(
            "%s: its header has 20 bytes, as PyTorch-YOLOv3 writes it, though version %s has 16", path, version
        )
        offset, expected = 20, num_bytes
    if num_bytes != expected:
        raise WeightsError(
            f"{path}: {num_bytes} bytes; {spec.name} needs {expected}; "
            f"{_size_hint(spec, layout, offset, num_bytes, num_bytes - expected)}"
        )
    if not layout:
        raise WeightsError(f"{path}: {spec.name} has no convolution, so there are no weights to read")
    arrays = _mapped(path, offset, layout)
    arrays |= {key: arrays[own] for key, own in _shared_keys(spec).items()}
    _check_values(path, arrays, spec.batch_norm)
    _warn_about_tiny_mask(spec, path)
    return DarknetWeights(header, arrays)


def partial_weights_from_darknet(spec: ModelSpec, path: Path) -> Weights | None:
    """The first layers' weights of a file that ends behind one of them, as `darknet partial` writes it; None where it does not.

    Raises:
        WeightsError: missing, not a weights file, or damaged.
    """
    _, offset, num_bytes = _read_header(path)
    layout = _first_layers(list(_darknet_order(spec)), num_bytes - offset)
    if not layout:
        return None
    arrays = _mapped(path, offset, layout)
    _check_values(path, arrays, spec.batch_norm)
    return arrays


def classes_of_file(spec: ModelSpec, path: Path) -> int | None:
    """How many classes the network has that a file fits, which is `spec` otherwise; None where it fits with none.

    Raises:
        WeightsError: missing or not a weights file.
    """
    _, offset, num_bytes = _read_header(path)
    return _classes_that_fit(spec, num_bytes - offset - 4 * _num_values(list(_darknet_order(spec))))


_Layout = list[tuple[str, tuple[int, ...]]]


def _num_values(layout: _Layout) -> int:
    return sum(math.prod(shape) for _, shape in layout)


def _mapped(path: Path, offset: int, layout: _Layout) -> dict[str, FloatArray]:
    values = np.memmap(path, dtype="<f4", mode="c", offset=offset, shape=(_num_values(layout),))
    arrays: dict[str, FloatArray] = {}
    start = 0
    for key, shape in layout:
        stop = start + math.prod(shape)
        arrays[key] = values[start:stop].view(np.ndarray).reshape(shape)
        start = stop
    return arrays


def _first_layers(layout: _Layout, num_bytes: int) -> _Layout:
    """The part of a layout that takes just these bytes and ends behind a kernel, but is not all of it; else none."""
    taken = 0
    for count, (key, shape) in enumerate(layout[:-1], start=1):
        taken += 4 * math.prod(shape)
        if taken >= num_bytes:
            return layout[:count] if taken == num_bytes and key.endswith("conv.weight") else []
    return []


def save_darknet_weights(spec: ModelSpec, weights: Weights, path: Path, header: WeightsHeader | None = None) -> None:
    """Write `weights` as a `.weights` file, atomically.

    Raises:
        WeightsError: Darknet has no place for one of the model's weights, or one is missing or of another shape.
        OutputError: the file cannot be written.
    """
    layout, shared = list(_darknet_order(spec)), _shared_keys(spec)
    for key, own in shared.items():
        if key in weights and own in weights and not np.array_equal(weights[key], weights[own]):
            raise WeightsError(
                f"{spec.name}: {key} differs from {own}, whose values Darknet uses for both; expected the same"
            )
    if homeless := spec.weight_shapes.keys() - {key for key, _ in layout} - shared.keys():
        raise WeightsError(f"{spec.name}: Darknet's format has no place for {min(homeless)} (a bias beside batch norm)")
    for key, shape in layout:
        got = weights[key].shape if key in weights else "nothing"
        if got != shape:
            raise WeightsError(f"{spec.name}: {key} is {got}; expected {shape}")
    with replacing(path) as partial, partial.open("wb") as file:
        file.write((header or WeightsHeader()).to_bytes())
        for key, _ in layout:
            file.write(np.ascontiguousarray(weights[key], "<f4").tobytes())


def _darknet_order(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Key and shape of every array in file order."""
    for index, layer in enumerate(spec.layers):
        if not isinstance(layer, Conv) or layer.shares is not None:
            continue
        if layer.batch_norm:
            parts = [f"batch_norm.{part}" for part in ("bias", "weight", "running_mean", "running_var")]
        else:
            parts = ["conv.bias"] if layer.bias else []
        for part in (*parts, "conv.weight"):
            key = f"layers.{index}.{part}"
            yield key, spec.weight_shapes[key]


def _shared_keys(spec: ModelSpec) -> dict[str, str]:
    """Weights that a file does not hold, by the key of those that they are: of layers with share_index."""
    return {
        f"layers.{index}.{part}": f"layers.{layer.shares}.{part}"
        for index, layer in enumerate(spec.layers)
        if isinstance(layer, Conv) and layer.shares is not None
        for part in spec.conv_shapes(index)
    }


def _read_header(path: Path) -> tuple[WeightsHeader, int, int]:
    """Header, its length and the file's length, bytes."""
    try:
        check_is_file(path)
        with path.open("rb") as file:
            start = file.read(64)
            num_bytes = file.seek(0, 2)
    except FileNotFoundError:
        raise WeightsError(f"{path}: there is no such file; expected Darknet weights") from None
    except OSError as exc:
        raise WeightsError(f"{path}: cannot be read ({exc.strerror}); expected Darknet weights") from exc
    for signature, (kind, advice) in _NOT_WEIGHTS.items():
        if re.match(signature, start.lstrip(), re.IGNORECASE | re.DOTALL):
            raise WeightsError(f"{path}: this is {kind}, not Darknet weights; {advice}")
    if len(start) < 16:
        raise WeightsError(f"{path}: {num_bytes} bytes are too few for a header; expected Darknet weights")
    major, minor, revision = struct.unpack_from("<3i", start)
    if not (0 <= major <= 1000 and 0 <= minor <= 1000 and 0 <= revision <= 10**6):
        raise WeightsError(
            f"{path}: version {major}.{minor}.{revision} in its header; expected Darknet weights (0.1 or 0.2)"
        )
    wide = WeightsHeader(major, minor).wide_seen
    if wide and len(start) < 20:
        raise WeightsError(f"{path}: {num_bytes} bytes are too few for a header; expected Darknet weights")
    (seen,) = struct.unpack_from("<q" if wide else "<i", start, 12)
    return WeightsHeader(major, minor, revision, seen), 20 if wide else 16, num_bytes


_AGAIN = "download the file again"
_PYTORCH = ("a checkpoint of PyTorch", "let the program that wrote it save Darknet's .weights")
# What a file starts with, as a pattern -> what it is, what to do.
_NOT_WEIGHTS = {
    rb"<(!doctype|html)": ("an HTML page", _AGAIN),
    rb"<\?xml": ("an XML page", _AGAIN),
    rb"version https://git-lfs": (
        "a Git LFS pointer",
        "run git lfs pull in its repository, or download the file itself",
    ),
    rb"pk\x03\x04": _PYTORCH,  # a ZIP archive, as PyTorch writes since 1.6
    rb"\x80[\x02-\x05]": _PYTORCH,  # a pickle, as before
    rb"\x89hdf": ("a file of Keras (HDF5)", "take the .weights that it was converted from"),
    rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]": (
        "an ONNX graph",
        "one that this package made is run as it is, another goes with `yolov3_trt adopt`",
    ),
    rb"\x1f\x8b": ("a gzip archive", "unpack it"),
    rb"\[net\]": ("a .cfg", "give it as the model, and its .weights here"),
}


def _size_hint(spec: ModelSpec, layout: _Layout, offset: int, num_bytes: int, surplus_bytes: int) -> str:
    """What may have gone wrong when a file is `surplus_bytes` too long."""
    if classes := _classes_that_fit(spec, surplus_bytes):
        return (
            f"it fits the same network with {classes} classes instead of {spec.num_classes}: use that cfg (`train` starts "
            "from it as it is)"
        )
    if first := _first_layers(layout, num_bytes - offset):
        count = sum(key.endswith("conv.weight") for key, _ in first)
        total = sum(key.endswith("conv.weight") for key, _ in layout)
        return (
            f"it holds the first {count} of {total} convolutions, from which `train` can start ({spelled('weights')})"
        )
    if surplus_bytes < 0:
        return f"{-surplus_bytes} bytes are missing: the download was cut short, or the cfg is another model's"
    return f"{surplus_bytes} bytes are left over: the cfg is another model's"


def _classes_that_fit(spec: ModelSpec, surplus_bytes: int) -> int | None:
    """The number of classes that would make the size right, if one does.

    A class more costs A filters in the convolution before each head: A * (kernel volume + 1 bias) values.
    """
    per_class = 0
    for head in spec.heads:
        conv, yolo = spec.layers[head.layer - 1], spec.layers[head.layer]
        if not (isinstance(conv, Conv) and isinstance(yolo, Yolo)) or conv.groups != 1:
            return None
        in_channels = spec.input_shape(head.layer - 1)[0]
        biases = 4 if conv.batch_norm else 1
        per_class += len(yolo.anchors_wh) * (in_channels * conv.size**2 + biases)
    if not per_class or surplus_bytes % (4 * per_class):
        return None
    classes = spec.num_classes + surplus_bytes // (4 * per_class)
    return classes if classes >= 1 else None


def _check_values(path: Path, arrays: Weights, rule: BatchNorm) -> None:
    """Refuse what no training leaves; a variance that is negative by rounding is taken as Darknet takes it.

    Published files hold variances of -7e-44, denormal numbers that vanish in `var + epsilon` and that a GPU takes for 0.
    """
    for key, array in arrays.items():
        # A sum of float32 in float64 is finite exactly where all of them are, and needs no array beside the file's.
        if not np.isfinite(array.sum(dtype=np.float64)):
            count = int(array.size - np.isfinite(array).sum())
            raise WeightsError(
                f"{path}: {key} holds {count} of {array.size} values that are not finite; the file is damaged or not this "
                "model's"
            )
        if key.endswith("running_var"):
            array[(array < 0) & (array > -np.finfo(np.float32).tiny)] = 0  # the map is private: the file stays as it is
            least = 0.0 if rule.after_sqrt else -rule.epsilon  # below, the divisor is not a number
            if (array < least).any():
                raise WeightsError(
                    f"{path}: {key} holds a negative variance, {array.min():g}; the file is damaged or not this model's"
                )


def _warn_about_tiny_mask(spec: ModelSpec, path: Path) -> None:
    same = spec.num_classes == 80 and spec.layers[:-1] == yolov3_tiny().layers[:-1]
    if same and spec.heads[1].anchors_wh == TINY_ANCHORS[:3]:
        _LOG.warning(
            "%s: %s gives its second head the anchors of mask=0,1,2, as the published cfg does, but the published weights "
            "were trained with mask=1,2,3 (COCO AP50 .33 with it, .18 without; ultralytics/yolov3#256). If these are the "
            "published weights, change the mask in the cfg or use the built-in yolov3-tiny.",
            path,
            spec.name,
        )
