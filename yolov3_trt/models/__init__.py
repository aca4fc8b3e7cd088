"""From a model's name or `.cfg`, and its `.weights`, to a checked spec and arrays."""

import logging
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import path, size, text
from yolov3_trt.errors import CfgError, WeightsError
from yolov3_trt.files import cache_folder, sha256_of_file
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.class_names import (
    COCO_NAMES,
    SHAPE_NAMES,
    VOC_NAMES,
    ClassNames,
    load_class_names,
    names_beside,
    numbered,
)
from yolov3_trt.models.darknet_cfg import spec_from_cfg
from yolov3_trt.models.darknet_weights import Weights, weights_from_darknet
from yolov3_trt.models.mistaken import not_a_model
from yolov3_trt.models.published import PUBLISHED
from yolov3_trt.spec import ModelSpec

__all__ = ["BUNDLED", "Model", "default_weights_path", "is_model", "load_model", "load_spec"]

_LOG = logging.getLogger(__name__)

# Of the built-in networks, which were trained by these.
_NAMES = {"shapes": ClassNames(SHAPE_NAMES, "shapes"), "yolov3-voc": ClassNames(VOC_NAMES, "voc")}
_COCO = ClassNames(COCO_NAMES, "coco")
# Models that come with the package; the weights lie beside this file.
BUNDLED = ("shapes",)


@dataclass(frozen=True)
class Model:
    """A network with its weights and the names of its classes."""

    spec: ModelSpec
    weights: Weights
    class_names: tuple[str, ...]
    weights_path: Path
    class_names_from: str | None = None  # see `models.class_names.ClassNames.source`

    @cached_property
    def weights_sha256(self) -> str:
        """Of the weights file."""
        return sha256_of_file(self.weights_path)


def load_model(
    name_or_cfg: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    input_size: Any = None,
) -> Model:
    """Load a built-in network or a `.cfg` with its Darknet weights.

    Args:
        name_or_cfg: a key of `BUILT_IN`, or the path of a `.cfg`.
        weights: the `.weights` file; by default the one beside the cfg with its stem, else the one in the cache.
        names: a `.names` file, `coco` or `voc`; by default those of a built-in network or of published weights; for a cfg
            the `.names` beside it with its stem, else `obj.names` or the only `.names` beside it, else class0, class1, ...
        input_size: of the network, px: one number for a square, a text `WIDTHxHEIGHT`, or a pair (height, width); by default
            the model's own.

    Raises:
        CfgError, SpecError, WeightsError: each says where and what.
    """
    name_or_cfg = text("model", name_or_cfg)
    spec = load_spec(name_or_cfg)
    if input_size is not None:
        spec = spec.with_input_hw(size("input_size", input_size))
    weights_path = path("weights", weights) if weights is not None else _find_weights(name_or_cfg, spec.name)
    arrays = weights_from_darknet(spec, weights_path).arrays
    model = Model(spec, arrays, (), weights_path)
    found = _find_names(name_or_cfg, names, model)
    named = replace(model, class_names=found.names, class_names_from=found.source)
    if "weights_sha256" in vars(model):  # a large file is read for it once
        vars(named)["weights_sha256"] = model.weights_sha256
    return named


def load_spec(name_or_cfg: str | os.PathLike[str]) -> ModelSpec:
    """A built-in network, or a `.cfg` read from its path.

    Raises:
        CfgError: it is neither, or the file is at fault.
    """
    if str(name_or_cfg) in BUILT_IN:
        return BUILT_IN[str(name_or_cfg)]()
    path = Path(name_or_cfg)
    if path.suffix != ".cfg":
        raise CfgError(not_a_model(str(name_or_cfg)))
    return spec_from_cfg(path)


def is_model(artifact: str | os.PathLike[str]) -> bool:
    """Whether this names a model (a built-in or a `.cfg`) rather than an exported artifact."""
    return os.fspath(artifact) in BUILT_IN or os.fspath(artifact).endswith(".cfg")


def default_weights_path(name: str) -> Path:
    """Where the weights of a built-in network are looked for when none are given: in the package, or in the cache."""
    if name in BUNDLED:
        return Path(__file__).with_name(f"{name}.weights")
    return cache_folder() / f"{name}.weights"


def sample_picture() -> Path:
    """A picture that comes with the package, for the bundled model: the first frame of `iter_shapes_clip(9_000_142, 1)`."""
    return Path(__file__).with_name("shapes.jpg")


def _find_weights(name_or_cfg: str | Path, name: str) -> Path:
    if str(name_or_cfg) in BUILT_IN:
        path = default_weights_path(name)
        missing, fetch = f"none at {path}", f"yolov3_trt fetch {name}"
    else:
        path = Path(name_or_cfg).with_suffix(".weights")
        missing, fetch = f"none at {path}", f"yolov3_trt fetch {path.stem} --dest {path.parent}"
        cached = default_weights_path(path.stem)
        if not path.is_file() and path.stem in PUBLISHED and cached.is_file():
            _LOG.warning("%s: no weights beside it; taking the published ones, %s", name_or_cfg, cached)
            path = cached
    if path.is_file():
        return path
    by_fetch = f"run: {fetch}, or " if path.stem in PUBLISHED else ""
    raise WeightsError(f"{name_or_cfg}: no weights given and {missing}; {by_fetch}give the file as weights")


def _find_names(name_or_cfg: str, names: str | os.PathLike[str] | None, model: Model) -> ClassNames:
    spec = model.spec
    if names is not None:
        given = text("names", names)
        return ClassNames(load_class_names(given, spec.num_classes), Path(given).name)
    if name_or_cfg in BUILT_IN:
        return _NAMES.get(name_or_cfg, _COCO)
    own = Path(name_or_cfg).with_suffix(".names")
    if spec.num_classes == len(COCO_NAMES) and not own.is_file() and _is_published(model):
        return _COCO
    return names_beside(Path(name_or_cfg), spec.num_classes) if spec.heads else numbered(spec.num_classes)


def _is_published(model: Model) -> bool:
    """Whether its weights are one of the published files, all of which were trained on COCO."""
    num_bytes = model.weights_path.stat().st_size
    digests = {entry.digest for entry in PUBLISHED.values() if entry.num_bytes == num_bytes and entry.digest}
    return bool(digests) and f"sha256:{model.weights_sha256}" in digests
