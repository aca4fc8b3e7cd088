"""Calibration tables: the range of each tensor of a graph, and what it was found from.

A table is a JSON file to be kept under version control: one tensor or convolution a line, sorted by name, numbers as short as
float32 allows and nothing that differs between two equal runs. It says which model, pictures, preprocessing, input size and
method it holds for, so that it is never used for others without a word.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from yolov3_trt.calibration.distilled import Distilled
from yolov3_trt.certificate import Certificate
from yolov3_trt.data.fingerprints import PictureList
from yolov3_trt.errors import CalibrationError
from yolov3_trt.files import write_text
from yolov3_trt.geometry import HW
from yolov3_trt.meta import ModelMeta, Preprocess, first_fault, to_json
from yolov3_trt.settings import Method

TABLE_FORMAT = "yolov3_trt.calibration/1"

# Unknown keys are refused, as in sidecars.
_STRICT: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class CalibratedModel:
    """The FP32 graph whose tensors were observed."""

    name: str
    onnx_sha256: str
    layers_sha256: str | None = None
    weights_sha256: str | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT


@dataclass(frozen=True)
class Proof:
    """What is known of the AP that a graph with the ranges of a table costs.

    Attributes:
        certificate: of that graph.
        float_layers: that it leaves float, as the cfg counts, ascending; it holds for no others.
        ranges_sha256: of what `ranges_sha256` covers; it holds for no others.
    """

    certificate: Certificate
    float_layers: tuple[int, ...]
    ranges_sha256: str

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT


@dataclass(frozen=True)
class CalibrationTable:
    """What INT8 is to cover of each tensor.

    Attributes:
        amax: magnitude that becomes 127, by the name of the tensor in the graph; sorted, finite, above 0, each a float32.
        percentile: of Method.PERCENTILE; None with the others.
        equalised: whether `amax` is of the graph after `doublings`, of the graph as it is otherwise.
        doublings: how often each filter doubles what it writes, by the name of its convolution; see `graph.equalise`.
        biases_corrected: whether there are `bias_shifts`.
        bias_shifts: what INT8 adds to each filter's mean, to be taken from its bias; see `graph.bias_correction`.
        distilled: weights that INT8 has instead of the model's; None: it has the model's.
        all_tensors: whether it has every tensor, for TensorRT's own calibration cache, or those of Q/DQ only.
        seed: that chose the pictures. `images` says which they are, so another seed alone makes no table stale.
        proof: that `quantize` found; see `certificate_for`.
    """

    model: CalibratedModel
    preprocess: Preprocess
    input_hw: HW
    images: PictureList
    method: Method
    amax: Mapping[str, float]
    percentile: float | None = None
    all_tensors: bool = False
    equalised: bool = False
    doublings: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    biases_corrected: bool = False
    bias_shifts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    distilled: Distilled | None = None
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)  # of the tools that made it
    proof: Proof | None = None
    format: str = TABLE_FORMAT

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        if (self.method is Method.PERCENTILE) != (self.percentile is not None):
            raise CalibrationError(
                f"method {self.method.value} with percentile {self.percentile}; expected one with 'percentile' only"
            )
        with np.errstate(over="ignore"):  # refused just below
            amax = {name: float(np.float32(value)) for name, value in sorted(self.amax.items())}
        for name, value in amax.items():
            if not 0 < value < math.inf:
                raise CalibrationError(f"tensor {name!r}: amax {self.amax[name]}; expected a float32 above 0")
        if not all(map(math.isfinite, (shift for shifts in self.bias_shifts.values() for shift in shifts))):
            raise CalibrationError("bias_shifts: one is not finite; expected numbers")
        object.__setattr__(self, "amax", amax)
        object.__setattr__(self, "doublings", dict(sorted(self.doublings.items())))
        shifts = {name: tuple(map(float, map(np.float32, values))) for name, values in sorted(self.bias_shifts.items())}
        object.__setattr__(self, "bias_shifts", shifts)
        object.__setattr__(self, "versions", dict(sorted(self.versions.items())))

    @property
    def ranges_sha256(self) -> str:
        """Of all that a graph takes from this table."""
        values: list[Any] = [sorted(each.items()) for each in (self.amax, self.doublings, self.bias_shifts)]
        values.append(None if self.distilled is None else self.distilled.sha256)
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def certificate_for(self, float_layers: Collection[int]) -> Certificate | None:
        """Of a graph with these ranges that leaves these layers float, where it was proven of just that."""
        if self.proof is None or self.proof.ranges_sha256 != self.ranges_sha256:
            return None
        return self.proof.certificate if set(self.proof.float_layers) == set(float_layers) else None

    def proven(self, certificate: Certificate, float_layers: Collection[int]) -> "CalibrationTable":
        """The same with what is known of a graph that leaves these layers float."""
        return replace(self, proof=Proof(certificate, tuple(sorted(float_layers)), self.ranges_sha256))


def save_table(table: CalibrationTable, path: Path) -> None:
    """Write a table, atomically; equal tables give equal bytes.

    Raises:
        OutputError: it cannot be written.
    """
    content = to_json(table) | {
        "amax": {name: _shortest(value) for name, value in table.amax.items()},
        "bias_shifts": {name: list(map(_shortest, values)) for name, values in table.bias_shifts.items()},
    }
    if table.distilled is None:
        del content["distilled"]
    if table.proof is None:
        del content["proof"]
    text = json.dumps(content, indent=1)
    one_line = re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda numbers: "[" + " ".join(numbers[1].split()) + "]", text)
    write_text(path, one_line + "\n")


def _shortest(value: float) -> float:
    """A float32 as the float that is printed with the fewest digits that bring it back."""
    return float(str(np.float32(value)))


def load_table(path: Path) -> CalibrationTable:
    """Read a table.

    Raises:
        CalibrationError: it is missing, damaged, or another version's.
    """
    from pydantic import TypeAdapter, ValidationError  # here: it takes longer to import than all of this package

    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CalibrationError(f"{path}: there is no such calibration table; make it with `calibrate`") from None
    except (OSError, ValueError, RecursionError) as exc:
        raise CalibrationError(f"{path}: this calibration table cannot be read ({exc}); calibrate again") from exc
    found = content.get("format") if isinstance(content, dict) else None
    if found != TABLE_FORMAT:
        raise CalibrationError(
            f"{path}: format {found!r}; expected {TABLE_FORMAT!r} (no calibration table, or another version's: "
            "calibrate again)"
        )
    try:
        return TypeAdapter(CalibrationTable).validate_python(content)
    except ValidationError as exc:
        raise CalibrationError(f"{path}: {first_fault(exc)}; calibrate again") from exc
    except CalibrationError as exc:
        raise CalibrationError(f"{path}: {exc}; calibrate again") from exc


def table_differences(
    table: CalibrationTable,
    *,
    meta: ModelMeta | None = None,
    images: PictureList | None = None,
    method: Method | None = None,
    percentile: float | None = None,
) -> tuple[str, ...]:
    """In what a table is not for this use, a phrase each; nothing if it can be reused.

    Args:
        table: from `load_table`.
        meta: of the FP32 graph: its model, preprocessing and input size are compared.
        images: the pictures that would be calibrated on.
        method: that would be used; None with any of these leaves it out of the comparison.
        percentile: of Method.PERCENTILE.
    """
    found: list[str] = []
    if meta is not None:
        found += _model_differences(table.model, meta)
        if table.preprocess != meta.preprocess:
            found.append(
                f"preprocessing (the table has {_preprocess(table.preprocess)}; expected {_preprocess(meta.preprocess)})"
            )
        if table.input_hw != meta.input_hw:
            found.append(f"input size (the table has {_size(table.input_hw)}; expected {_size(meta.input_hw)})")
    if images is not None and table.images != images:
        found.append(f"picture list (the table has {_pictures(table.images)}; expected {_pictures(images)})")
    if method is not None and (table.method, table.percentile) != (method, percentile):
        expected = _method(method, percentile)
        found.append(f"method (the table has {_method(table.method, table.percentile)}; expected {expected})")
    return tuple(found)


def check_table(
    table: CalibrationTable,
    path: Path,
    *,
    meta: ModelMeta | None = None,
    images: PictureList | None = None,
    method: Method | None = None,
    percentile: float | None = None,
) -> None:
    """Refuse a table that is not for this use; see `table_differences`, `path` is for the text.

    Raises:
        CalibrationError: the text names each difference.
    """
    differences = table_differences(table, meta=meta, images=images, method=method, percentile=percentile)
    if differences:
        raise CalibrationError(
            f"{path}: this calibration table differs in {'; '.join(differences)}: calibrate again, or give the table "
            "that belongs here"
        )


def _model_differences(model: CalibratedModel, meta: ModelMeta) -> list[str]:
    if meta.weights_sha256 is not None and model.weights_sha256 not in (None, meta.weights_sha256):
        got, expected = _named(model.name, model.weights_sha256), _named(meta.name, meta.weights_sha256)
        return [f"model (the table has weights {got}; expected {expected})"]
    if meta.layers_sha256 is not None and model.layers_sha256 not in (None, meta.layers_sha256):
        got, expected = _named(model.name, model.layers_sha256), _named(meta.name, meta.layers_sha256)
        return [f"layers (the table has {got}; expected {expected}: the same weights, another cfg)"]
    if meta.onnx_sha256 is None and meta.weights_sha256 is not None and model.weights_sha256 is not None:
        return []  # a graph in the making: its weights say which model it is
    if model.onnx_sha256 != meta.onnx_sha256:
        got, expected = _named(model.name, model.onnx_sha256), _named(meta.name, meta.onnx_sha256)
        return [f"model (the table has graph {got}; expected {expected})"]
    return []


def _named(name: str, sha256: str | None) -> str:
    return f"{name} {sha256[:12]}…" if sha256 else f"{name} without a hash"


def _preprocess(preprocess: Preprocess) -> str:
    values = {key: getattr(value, "value", value) for key, value in dataclasses.asdict(preprocess).items()}
    return ", ".join(
        f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def _size(hw: HW) -> str:
    return f"{hw[1]}x{hw[0]}"


def _pictures(images: PictureList) -> str:
    return f"{images.count} pictures {images.sha256[:12]}…"


def _method(method: Method, percentile: float | None) -> str:
    return method.value if percentile is None else f"{method.value} {percentile:g}"
